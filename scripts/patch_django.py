"""Make Django 1.10.8 with channels in it: a patched tree, and one patch file.

``python scripts/patch_django.py`` fetches the release's source distribution from PyPI (once;
it is kept in .cache), copies what this repository adds over it, applies the diffs in
patches/django-1.10, and writes build/django-1.10.8-patched and
dist/django-1.10.8-channels.patch. The patch file is tried with ``git apply`` and
``patch -p1`` on a pristine tree each before it is kept. Running it again gives the same files.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

import django_form
import django_style
from interpreters import BUILD, CACHE, DIST, ROOT, CommandFailed, run

VERSION = "1.10.8"
SHA256 = "d4ef83bd326573c00972cb9429beb396d210341a636e4b816fc9b3f505c498bb"
PATCHES = os.path.join(ROOT, "patches", "django-1.10")
PATCHED_TREE = os.path.join(BUILD, f"django-{VERSION}-patched")
PRISTINE_TREE = os.path.join(BUILD, f"django-{VERSION}-pristine")
PATCH_FILE = os.path.join(DIST, f"django-{VERSION}-channels.patch")

# What of this repository goes over Django's tree, at the same place.
ADDED = ("django", "docs", os.path.join("tests", "channels_tests"))
# These pages are about the add-on alone.
LEFT_OUT = (os.path.join("docs", "addon"),)


class CannotPatch(Exception):
    """The patched tree cannot be made; the message says why, and what to do."""


def fetch():
    """Return the path of Django's source distribution, downloaded if it is not in .cache."""
    folder = os.path.join(CACHE, "sdists")
    path = os.path.join(folder, f"Django-{VERSION}.tar.gz")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # Only the file is wanted. pip also asks Django's setup.py for its metadata, and that of
        # 1.10 runs on any Python 3 that still has distutils or setuptools.
        run(pip + ["--no-binary", ":all:", "--dest", folder, f"Django=={VERSION}"])
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        digest.update(stream.read())
    if digest.hexdigest() != SHA256:
        raise CannotPatch(
            f"{path} is not the Django {VERSION} that PyPI published: its SHA-256 is "
            f"{digest.hexdigest()}, and should be {SHA256}. Remove it, and try again."
        )
    return path


def version_of(tree):
    """Return the version of the Django source tree ``tree``, as text ("1.10.8").

    Reads the ``VERSION`` tuple in django/__init__.py without importing anything.
    """
    try:
        with open(os.path.join(tree, "django", "__init__.py"), encoding="utf-8") as stream:
            match = re.search(r"^VERSION = \(([^)]*)\)", stream.read(), re.MULTILINE)
    except FileNotFoundError:
        match = None
    if match is None:
        raise CannotPatch(
            f"{tree} is not a Django source tree: it lacks a django/__init__.py with a VERSION."
        )
    parts = [part.strip().strip("'\"") for part in match.group(1).split(",")]
    text = ".".join(part for part in parts[:3])
    return text if parts[3] == "final" else f"{text} {parts[3]} {parts[4]}"


def unpack(source, target):
    """Put a pristine tree from ``source`` (a .tar.gz, or a directory) at ``target``."""
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True)
    else:
        folder = tempfile.mkdtemp(dir=os.path.dirname(target))
        try:
            try:
                with tarfile.open(source) as archive:
                    if hasattr(tarfile, "data_filter"):
                        archive.extractall(folder, filter="data")
                    else:
                        archive.extractall(folder)
            except (OSError, tarfile.TarError) as error:
                raise CannotPatch(
                    f"{source} is not a source distribution (Django-{VERSION}.tar.gz): {error}"
                ) from error
            tops = os.listdir(folder)
            if len(tops) != 1:
                raise CannotPatch(f"{source} is not a source distribution: it holds {tops}.")
            os.rename(os.path.join(folder, tops[0]), target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    found = version_of(target)
    if found != VERSION:
        raise CannotPatch(
            f"The patch is for Django {VERSION}, and {source} is Django {found}. "
            "On any other Django from 1.8 to 6.1, install the add-on instead: "
            "`make dist`, then `pip install dist/channels-*.whl`."
        )


def added_files():
    """Yield the paths, relative to the repository, of the files that go over Django's tree."""
    for top in ADDED:
        for folder, folders, names in os.walk(os.path.join(ROOT, top)):
            if os.path.relpath(folder, ROOT) in LEFT_OUT:
                folders[:] = []
                continue
            folders[:] = sorted(
                name for name in folders if name != "__pycache__" and not name.startswith(".")
            )
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                if not name.startswith(".") and not name.endswith((".pyc", ".pyo", ".orig")):
                    if not django_form.is_left_out(path):
                        yield path
    for path in django_form.replacements():
        if not os.path.exists(os.path.join(ROOT, path)):
            yield path


def changed_files():
    """Return the paths, relative to Django's tree, of the files that the patch adds or changes."""
    pristine = _contents(PRISTINE_TREE)
    patched = _contents(PATCHED_TREE)
    return sorted(path for path in patched if patched[path] != pristine.get(path))


def lay_over(tree):
    """Copy this repository's files into ``tree``; refuse to overwrite a different one."""
    clashes = []
    for path in added_files():
        target, content = os.path.join(tree, path), django_form.content(path)
        if os.path.exists(target):
            with open(target, "rb") as stream:
                if stream.read() != content:
                    clashes.append(path)
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as stream:
            stream.write(content)
    if clashes:
        raise CannotPatch(
            "These files are Django's own; what we add to them belongs in a diff in "
            f"patches/django-1.10: {', '.join(clashes)}"
        )


def _git(arguments, folder, accept=(0,)):
    """Run git in ``folder`` as if it were in no repository, and return what it printed."""
    environ = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C")
    # Inside a checkout, `git apply` would leave out, in silence, whatever lies outside the
    # current folder's part of it.
    environ["GIT_CEILING_DIRECTORIES"] = os.path.dirname(os.path.abspath(folder))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environ.pop(name, None)
    done = subprocess.run(
        ["git", "-c", "core.autocrlf=false", "-c", "core.quotePath=false"] + arguments,
        cwd=folder,
        env=environ,
        capture_output=True,
    )
    if done.returncode not in accept:
        raise CannotPatch(
            f"git {' '.join(arguments)} failed: {done.stderr.decode('utf-8', 'replace')}"
        )
    return done.stdout


def apply_diffs(tree):
    """Apply patches/django-1.10/*.diff to ``tree``; return their names."""
    names = sorted(name for name in os.listdir(PATCHES) if name.endswith(".diff"))
    if not names:
        raise CannotPatch(f"{PATCHES} lacks a diff.")
    for name in names:
        path = os.path.join(PATCHES, name)
        # Line numbers are exact, and the source is known by its digest: no fuzz, no context.
        _git(["apply", "--unidiff-zero", "--whitespace=nowarn", path], tree)
    return names


def write_patch(folder, pristine, patched):
    """Return the one patch that leads from ``pristine`` to ``patched`` (names in ``folder``)."""
    text = _git(
        ["diff", "--no-index", "--no-color", "--no-ext-diff", "--no-renames", "--full-index"]
        + ["--src-prefix=a/", "--dst-prefix=b/", pristine, patched],
        folder,
        accept=(0, 1),
    )
    # git names both sides by their folders; a patch is read from the top of Django's tree.
    lines = []
    for line in text.split(b"\n"):
        if line.startswith((b"diff --git ", b"--- ", b"+++ ")):
            for name in (pristine, patched):
                for side in (b"a/", b"b/"):
                    line = line.replace(side + name.encode() + b"/", side)
        elif line.startswith(b"Binary files "):
            raise CannotPatch(f"A patch is text, and this is not: {line.decode()}")
        lines.append(line)
    return b"\n".join(lines)


def same_trees(one, other):
    """Raise `CannotPatch` unless the two trees hold the same files with the same content."""
    left, right = _contents(one), _contents(other)
    if left != right:
        differing = sorted(set(left.items()) ^ set(right.items()))
        raise CannotPatch(
            "The patch file does not lead to the patched tree; these differ: "
            + ", ".join(sorted({path for path, _ in differing})[:20])
        )


def _contents(tree):
    found = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, tree)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def try_patch(source, patch, patched, folder):
    """Apply ``patch`` to two pristine trees, with ``git apply`` and with ``patch -p1``."""
    with_git = os.path.join(folder, "with-git")
    unpack(source, with_git)
    _git(["apply", "--whitespace=nowarn", patch], with_git)
    same_trees(with_git, patched)

    with_patch = os.path.join(folder, "with-patch")
    unpack(source, with_patch)
    if shutil.which("patch") is None:
        raise CannotPatch("The program `patch` is needed to try the patch file: install it.")
    run(["patch", "-p1", "--batch", "--fuzz=0", "--input", patch], cwd=with_patch)
    same_trees(with_patch, patched)


def make(source=None):
    """Make the patched tree and the patch file from ``source`` (default: PyPI's); return both."""
    if shutil.which("git") is None:
        raise CannotPatch("The program `git` is needed to make the patch: install it.")
    source = os.path.abspath(source) if source else fetch()
    os.makedirs(BUILD, exist_ok=True)
    os.makedirs(DIST, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="patching-", dir=BUILD)
    try:
        pristine, patched = os.path.join(folder, "pristine"), os.path.join(folder, "patched")
        unpack(source, pristine)
        shutil.copytree(pristine, patched, symlinks=True)
        lay_over(patched)
        modules = [path for path in added_files() if path.endswith(".py")]
        django_style.sort_imports(patched, modules)
        diffs = apply_diffs(patched)
        patch = os.path.join(folder, "channels.patch")
        with open(patch, "wb") as stream:
            stream.write(write_patch(folder, "pristine", "patched"))
        try_patch(source, patch, patched, folder)
        for made, kept in ((pristine, PRISTINE_TREE), (patched, PATCHED_TREE)):
            shutil.rmtree(kept, ignore_errors=True)
            os.rename(made, kept)
        os.replace(patch, PATCH_FILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return diffs


def build_wheel(python=sys.executable):
    """Build a wheel of the patched tree with ``python`` into dist/patched-django; return it."""
    target = os.path.join(DIST, "patched-django")
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=BUILD) as folder:
        # From a copy: a build leaves its own files in the tree.
        copy = os.path.join(folder, "django")
        shutil.copytree(PATCHED_TREE, copy, symlinks=True)
        run([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, copy])
    (name,) = os.listdir(target)
    return os.path.join(target, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "source",
        nargs="?",
        help=f"Django {VERSION}'s source distribution, or its unpacked tree (default: from PyPI)",
    )
    parser.add_argument(
        "--wheel", action="store_true", help="also build a wheel, in dist/patched-django"
    )
    options = parser.parse_args()
    try:
        diffs = make(options.source)
        wheel = build_wheel() if options.wheel else None
    except (CannotPatch, CommandFailed) as error:
        sys.exit(f"patch_django: {error}")
    size = os.path.getsize(PATCH_FILE)
    count = sum(1 for _ in added_files())
    print(f"Django {VERSION}: {count} files added, {len(diffs)} diffs applied ({', '.join(diffs)})")
    print(f"  {os.path.relpath(PATCHED_TREE, ROOT)}")
    print(f"  {os.path.relpath(PATCH_FILE, ROOT)}  {size} bytes; git apply: ok; patch -p1: ok")
    if wheel:
        print(f"  {os.path.relpath(wheel, ROOT)}")


if __name__ == "__main__":
    main()
