"""Find Python interpreters by version, and keep one virtual environment for each purpose.

Nothing of Django or channels lives here. An interpreter is looked for on PATH first
(``python3.7``), then asked of pyenv. Environments are kept in ``.cache/venvs`` under a name
that holds a digest of everything installed in them, so that a second run installs nothing.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(ROOT, ".cache")
DIST = os.path.join(ROOT, "dist")
BUILD = os.path.join(ROOT, "build")
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# The last pip that runs on Python 3.7. Elsewhere the newest: the pip that came with an old Python
# cannot read today's metadata, or looks for versions that fit together for hours.
PIP_FOR_OLD_PYTHON = {"3.7": "pip==24.0"}

# The last releases of the servers for Python 3.7: left to itself, pip looks among versions that were
# never made for it until it meets one that it cannot build.
PINS_FOR_OLD_PYTHON = {
    "3.7": [
        "daphne==4.0.0",
        "twisted[tls]==22.10.0",
        "hypercorn==0.14.4",
        "typing-extensions==4.7.1",
    ],
    # The last Twisted for Python 3.8 closes each TLS connection under a newer pyOpenSSL.
    "3.8": ["pyopenssl==24.3.0"],
}


class CommandFailed(Exception):
    """A command that had to succeed did not. The message holds the end of its output."""


def run(command, timeout=1800, **options):
    """Run ``command`` (a list), return its output as text; `CommandFailed` if it fails.

    ``timeout`` is in seconds.
    """
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            **options,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.output or b"").decode("utf-8", "replace")
        raise CommandFailed(
            f"Not finished after {timeout} seconds: {' '.join(command)}\n{output[-4000:]}"
        ) from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise CommandFailed(f"Exit status {done.returncode}: {' '.join(command)}\n{output[-4000:]}")
    return output


#: Python 2 lacks the module venv. A Debian Python 3 may lack it too, and can't be used here then.
RUNS = "import sys; sys.version_info < (3,) or __import__('venv'); print('%d.%d' % sys.version_info[:2])"


def _runs(path, version):
    """Whether ``path`` runs, and is Python ``version`` (a pyenv shim may exist and not run)."""
    try:
        done = subprocess.run(
            [path, "-c", RUNS],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.decode().strip() == version


def own_version():
    """Return the version of the running interpreter, as in "3.11"."""
    return ".".join(str(part) for part in sys.version_info[:2])


def _of_pyenv(version):
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return []
    try:
        names = run([pyenv, "versions", "--bare"], timeout=60).split()
        found = [
            name
            for name in names
            if name.startswith(version + ".") and name.rsplit(".", 1)[1].isdigit()
        ]
        found.sort(key=lambda name: int(name.rsplit(".", 1)[1]), reverse=True)
        return [
            os.path.join(run([pyenv, "prefix", name], timeout=60).strip(), "bin", "python")
            for name in found
        ]
    except CommandFailed:
        return []


def find_python(version):
    """Return the path of an interpreter of ``version`` ("3.7"), or None if there is none."""
    on_path = shutil.which("python" + version)
    candidates = [on_path] if on_path else []
    if own_version() == version:
        candidates.append(sys.executable)
    for candidate in candidates:
        if _runs(candidate, version):
            return candidate
    for candidate in _of_pyenv(version):
        if _runs(candidate, version):
            return candidate
    return None


def python_of(venv):
    """Return the path of the interpreter in the virtual environment ``venv``."""
    return os.path.join(venv, "bin", "python")


def environment(name, version, interpreter, requirements, timeout=900):
    """Return the path of a virtual environment that has ``requirements`` installed.

    It is made once: its directory's name ends in a digest of the interpreter and the
    requirements, and a half-made one (no ``ready`` file) is made again. ``timeout`` is in seconds,
    for the installation.
    """
    exact = run([interpreter, "-c", "import sys; print(sys.version, sys.prefix)"], timeout=60)
    digest = hashlib.sha256("\n".join([exact] + sorted(requirements)).encode()).hexdigest()[:12]
    path = os.path.join(CACHE, "venvs", f"{name}-py{version}-{digest}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = os.path.join(path, "ready")
        if os.path.exists(ready):
            return path
        shutil.rmtree(path, ignore_errors=True)
        run([interpreter, "-m", "venv", path])
        pip = [python_of(path), "-m", "pip", "install", "--quiet"]
        run(pip + ["--upgrade", PIP_FOR_OLD_PYTHON.get(version, "pip")], timeout=300)
        run(pip + list(requirements), timeout=timeout)
        with open(ready, "w") as stream:
            stream.write("\n".join(sorted(requirements)) + "\n")
    return path
