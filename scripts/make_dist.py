"""Build the add-on's sdist and, from it, its wheel into dist/. Then the other wheels."""

import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

import second_name
from interpreters import BUILD, DIST, ROOT, CommandFailed, environment, own_version, python_of, run

# The tree's folders that are packed, and what they are called in the wheel (see pyproject.toml).
PACKED = {
    "django/channels": "channels",
    "django/core/handlers": "channels/handlers",
    "django/conf": "channels/conf",
}


def extra(name):
    """Return what the extra ``name`` requires, as pyproject.toml has it (no tomllib before 3.11)."""
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as stream:
        text = stream.read()
    (block,) = re.findall(rf"^{name} = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return re.findall(r'^\s*"([^"]+)"', block, re.MULTILINE)


def make():
    """Build both; return the wheel's path. Older ones of the same name are removed.

    Two scripts may do it at the same time, as CI does: they take turns, because the build writes
    into the tree. A finished file replaces the one before it at once, so that the other script can
    go on installing that one.
    """
    venv = environment("build", own_version(), sys.executable, ["build", "setuptools>=64", "wheel"])
    os.makedirs(BUILD, exist_ok=True)
    os.makedirs(DIST, exist_ok=True)
    with open(os.path.join(BUILD, "dist.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix="dist-", dir=BUILD) as folder:
            run(
                [python_of(venv), "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
                timeout=600,
            )
            built = os.listdir(folder)
            for path in glob.glob(os.path.join(DIST, "channels-*")):
                if os.path.basename(path) not in built:
                    os.remove(path)
            for name in built:
                os.replace(os.path.join(folder, name), os.path.join(DIST, name))
    wheels = glob.glob(os.path.join(DIST, "channels-*.whl"))
    if len(wheels) != 1:
        raise CommandFailed(f"The build left {len(wheels)} wheels of channels in {DIST}, not one.")
    missing = missing_from(wheels[0])
    if missing:
        raise CommandFailed(
            f"The wheel lacks {', '.join(missing)}: add its package, or its suffix, to "
            "[tool.setuptools] in pyproject.toml."
        )
    return wheels[0]


def make_second():
    """Build the sdist and the wheel of the second import name; return the wheel's path."""
    for path in glob.glob(os.path.join(DIST, second_name.NAME + "-*")):
        os.remove(path)
    venv = environment("build", own_version(), sys.executable, ["build", "setuptools>=64", "wheel"])
    os.makedirs(BUILD, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="second-", dir=BUILD) as folder:
        tree = os.path.join(folder, "tree")
        second_name.write(tree)
        run([python_of(venv), "-m", "build", "--no-isolation", "--outdir", DIST, tree], timeout=600)
    (wheel,) = glob.glob(os.path.join(DIST, second_name.NAME + "-*.whl"))
    return wheel


def make_redis():
    """Build the wheel of the Redis layer; return its path."""
    for path in glob.glob(os.path.join(DIST, "asgi_redis-*")):
        os.remove(path)
    venv = environment("build", own_version(), sys.executable, ["build", "setuptools>=64", "wheel"])
    with tempfile.TemporaryDirectory(prefix="redis-", dir=BUILD) as folder:
        tree = os.path.join(folder, "tree")
        ignore = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(os.path.join(ROOT, "asgi_redis"), tree, ignore=ignore)
        command = [python_of(venv), "-m", "build", "--no-isolation", "--wheel", "--outdir", DIST]
        run([*command, tree], timeout=600)
    (wheel,) = glob.glob(os.path.join(DIST, "asgi_redis-*.whl"))
    return wheel


def missing_from(wheel):
    """Return the files of the tree (paths) that should be in the wheel and are not."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    missing = []
    for top, package in PACKED.items():
        for folder, folders, names in os.walk(os.path.join(ROOT, *top.split("/"))):
            folders[:] = [name for name in folders if name != "__pycache__"]
            inside = os.path.relpath(folder, os.path.join(ROOT, *top.split("/")))
            for name in names:
                if name.startswith(".") or name.endswith((".pyc", ".pyo")):
                    continue
                if os.path.normpath(os.path.join(package, inside, name)) not in packed:
                    missing.append(os.path.normpath(os.path.join(top, inside, name)))
    return sorted(missing)


def main():
    try:
        wheel = make()
        make_second()
        make_redis()
    except (CommandFailed, subprocess.SubprocessError) as error:
        sys.exit(f"make_dist: {error}")
    built = glob.glob(os.path.join(DIST, "*channels-*")) + glob.glob(
        os.path.join(DIST, "asgi_redis-*")
    )
    for path in sorted(built):
        print(f"{os.path.relpath(path, ROOT)}  {os.path.getsize(path)} bytes")
    return wheel


if __name__ == "__main__":
    main()
