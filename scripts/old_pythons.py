"""The patched Django on Pythons that Django 1.10 supports and channels doesn't: as good as the pristine one.

On each, a selection of Django's own suite has the same result in both trees, and a new project (which
lists django.channels) is checked, migrated and served by WSGI, with a warning that says what channels needs.
"""

import os
import shutil

import patch_django
from django_suite import run_suite
from interpreters import BUILD, CACHE, IN_CI, find_python, run
from smoke import START_TIMEOUT, Server, free_port

#: Python, and what Django's tests need on it.
VERSIONS = {
    "2.7": ["mock==3.0.5", "pytz", "jinja2==2.11.3"],
    "3.6": ["pytz", "jinja2==2.11.3", "markupsafe<2.1"],
}

#: What the patch touches or could touch: applications, commands, checks, templates, static files, serving.
LABELS = [
    "admin_scripts.tests.StartProject",
    "apps",
    "check_framework",
    "handlers",
    "logging_tests",
    "project_template",
    "servers",
    "settings_tests",
    "signals",
    "staticfiles_tests",
    "test_runner",
    "user_commands",
    "wsgi",
]

WARNING = "Channels needs Python 3.7 or newer, and this is Python %s"


class OldPythonFailed(Exception):
    """The patched Django is not as good as the pristine one on an old Python."""


def check_old_pythons(folder):
    """Raise `OldPythonFailed` on the first version on which the patch does harm. `folder` is empty."""
    for version, requirements in VERSIONS.items():
        python = find_python(version)
        if python is None:
            if IN_CI:
                raise OldPythonFailed(f"Python {version} is missing: it isn't on PATH or in pyenv.")
            print(f"  Python {version}: not on this machine, skipped", flush=True)
            continue
        packages = packages_for(python, version, requirements)
        compare(python, version, packages)
        serve_new_project(python, version, packages, os.path.join(folder, version))


def packages_for(python, version, requirements):
    """Return a folder with `requirements` installed in it. (Python 2.7 lacks the module venv.)"""
    target = os.path.join(CACHE, "old-pythons", version)
    ready = os.path.join(target, "ready")
    wanted = "\n".join(requirements)
    if os.path.exists(ready):
        with open(ready) as stream:
            if stream.read() == wanted:
                return target
    shutil.rmtree(target, ignore_errors=True)
    run([python, "-m", "pip", "install", "--quiet", "--target", target] + requirements, timeout=600)
    with open(ready, "w") as stream:
        stream.write(wanted)
    return target


def compare(python, version, packages):
    """Run the selection of Django's suite in both trees."""
    results = []
    for name, tree in (
        ("pristine", patch_django.PRISTINE_TREE),
        ("patched", patch_django.PATCHED_TREE),
    ):
        log = os.path.join(BUILD, "logs", f"suite-{name}-{version}.log")
        results.append(run_suite(python, tree, LABELS, log=log, paths=[packages]))
    pristine, patched = results
    new = sorted(set(patched["failing"]) - set(pristine["failing"]))
    if new or patched["ran"] != pristine["ran"]:
        raise OldPythonFailed(
            f"Python {version}: {patched['ran']} tests instead of {pristine['ran']}; "
            f"only the patched Django fails: {new}"
        )
    check_labels(python, version, packages)
    print(
        f"  Python {version}: {patched['ran']} of Django's tests, {len(patched['failing'])} failing, "
        "as on the pristine tree",
        flush=True,
    )


def check_labels(python, version, packages):
    """Raise `OldPythonFailed` unless labels of our tests are skipped with a reason, and others run."""
    ours = ["channels_tests", "channels_tests.test_routing"]
    paths = [patch_django.PATCHED_TREE, packages]
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1")
    said = run(
        [python, "runtests.py", *ours],
        cwd=os.path.join(patch_django.PATCHED_TREE, "tests"),
        env=environ,
    )
    log = os.path.join(BUILD, "logs", f"suite-labels-{version}.log")
    mixed = run_suite(python, patch_django.PATCHED_TREE, [*ours, "apps"], log=log, paths=[packages])
    if "Skipping channels_tests: " not in said or not mixed["ran"] or mixed["failing"]:
        raise OldPythonFailed(f"Python {version}: runtests.py {' '.join(ours)} printed:\n{said}")


def serve_new_project(python, version, packages, folder):
    """Make a project with the patched Django, and have its commands serve it."""
    os.makedirs(folder)
    paths = [patch_django.PATCHED_TREE, packages]
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1")
    run([python, "-m", "django", "startproject", "mysite"], cwd=folder, env=environ)
    project = os.path.join(folder, "mysite")
    said = run([python, "manage.py", "check"], cwd=project, env=environ)
    if said.count(WARNING % version) != 1:
        raise OldPythonFailed(f"Python {version}: `manage.py check` printed:\n{said}")
    run([python, "manage.py", "migrate"], cwd=project, env=environ)
    port = free_port()
    command = [python, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    log = os.path.join(project, "runserver.log")
    with Server(command, project, log, paths) as server:
        server.get(port, "/", "", START_TIMEOUT)
    print(f"  Python {version}: a new project is checked, migrated and served", flush=True)
