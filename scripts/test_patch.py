"""Hold the patched Django against the pristine one: Django's own tests, then ours, then a site.

``python scripts/test_patch.py`` (after patch_django.py), on Python 3.7:

1. Django's full suite on the patched tree. What fails there runs on the pristine tree, too: it
   has to fail there, or to pass on the patched one when it runs once more, alone.
2. tests/channels_tests with Django's runtests.py, in the patched tree, without selection.LEFT_OUT.
3. A project without the app: the same output and the same answers from both trees, to the byte.
4. The wheel of the patched Django, in a separate environment: startproject, runserver, Daphne.
5. The wheel of the name `channels` next to it, then the add-on's: one set of modules, one app.
6. Django's documentation, built with ours in it: no warning about a page of ours.
7. Python 2.7 and 3.6, where channels can't run: Django's tests and a new project are as before.
8. The projects of tests/channels1_projects on the wheels of steps 4 and 5, with a browser.
9. A selection of Django's tests together with ours in one shuffled run, with and without Daphne.
0. isort and flake8 with Django's own setup.cfg, on each module that the patch adds or changes: silent.
"""

import argparse
import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import check_style
import django_form
import make_alias
import make_dist
import mixed_suite
import patch_django
import selection
import test_1x
from django_suite import SuiteCrashed, label_of, run_suite
from interpreters import (
    BUILD,
    IN_CI,
    PINS_FOR_OLD_PYTHON,
    ROOT,
    CommandFailed,
    environment,
    find_python,
    python_of,
    run,
)
from old_pythons import OldPythonFailed, check_old_pythons
from smoke import ANSWER_TIMEOUT, START_TIMEOUT, Server, SmokeFailed, free_port, run_smoke

PYTHON = "3.7"
REQUIREMENTS = os.path.join(patch_django.PATCHES, "test-requirements.txt")
LOGS = os.path.join(BUILD, "logs")

# Django's own tests, of which some come and go with what is installed: 11,281 on a machine of CI.
LEAST_TESTS = 11000

# With CHANNELS_TEST_RETRY=1, as in CI, so many of our tests that fail are run once more by themselves.
MOST_RETRIED = 5

# A Sphinx of Django 1.10's time, and what it was written against.
SPHINX = [
    "sphinx==1.6.7",
    "docutils<0.17",
    "jinja2<3",
    "markupsafe<2",
    "alabaster<0.7.13",
    "sphinxcontrib-websupport<1.2",
    "setuptools<60",
]


class PatchFailed(Exception):
    """The patched Django is not what it should be; the message says where."""


def requirements():
    """Return what Django's tests need and what ours need, one string each."""
    with open(REQUIREMENTS, encoding="utf-8") as stream:
        lines = [line.split("#")[0].strip() for line in stream]
    return [line for line in lines if line] + make_dist.extra("test") + PINS_FOR_OLD_PYTHON[PYTHON]


def tests_environment():
    """Return the path of Python in the environment with Django's test requirements."""
    interpreter = find_python(PYTHON)
    if interpreter is None:
        raise PatchFailed(
            f"Python {PYTHON} is needed, the newest that Django 1.10 is tested on here: neither "
            f"PATH (python{PYTHON}) and pyenv lack it. Install it with: pyenv install {PYTHON}"
        )
    return python_of(environment("django-tests", PYTHON, interpreter, requirements()))


def failing_alone(python, tree, names, log):
    """Return those of the tests `names` that fail in `tree` when they run without the others, as a set."""
    if not names:
        return set()
    labels = sorted({label_of(name) for name in names})
    return set(run_suite(python, tree, labels, log=os.path.join(LOGS, log))["failing"])


def fails_before(python, names):
    """Return those of the tests `names` that fail on the pristine tree, as a set."""
    return failing_alone(python, patch_django.PRISTINE_TREE, names, "suite-pristine.log") & set(
        names
    )


@contextlib.contextmanager
def tree_without_our_tests():
    """A copy of the patched tree with Django's own tests only: the same set on both sides."""
    copy = tempfile.mkdtemp(prefix="suite-", dir=BUILD)
    try:
        tree = os.path.join(copy, "django")
        shutil.copytree(
            patch_django.PATCHED_TREE,
            tree,
            symlinks=True,
            ignore=shutil.ignore_patterns("channels_tests", "__pycache__"),
        )
        yield tree
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def tell(name, result, note=""):
    print(
        f"  {name:9} {result['ran']} tests, {len(result['failing'])} failing: "
        f"{result['summary']}  [{result['seconds']:.0f} s{note}]",
        flush=True,
    )


def compare_suites(python, processes):
    """Step 1. Raises `PatchFailed` if a test fails on the patched tree alone."""
    with tree_without_our_tests() as tree:
        log = os.path.join(LOGS, "suite-patched.log")
        patched = run_suite(python, tree, processes=processes, log=log)
        tell("patched", patched)
        failing = set(patched["failing"])
        old = fails_before(python, failing)
        new = sorted(failing - old)
        again = failing_alone(python, tree, new, "suite-again.log")
    for name in new:
        if name not in again:
            print(f"  unsteady: {name} failed in the full run, and passed when run again alone")
    new = [name for name in new if name in again]
    print(f"fail on the pristine tree, too: {len(old)}; new failures: {len(new)}", flush=True)
    if new:
        raise PatchFailed("Only the patched Django fails:\n  " + "\n  ".join(new))
    if patched["ran"] < LEAST_TESTS:
        raise PatchFailed(
            f"The patched tree ran {patched['ran']} tests; Django 1.10 has {LEAST_TESTS} or more."
        )
    if patched["unexpected_successes"]:
        raise PatchFailed("The patched tree has unexpected successes: see " + LOGS)


def merged(results):
    """Return one result of what several runs of `run_suite` found, without their seconds."""
    return {
        "ran": all(each["ran"] for each in results),
        "failing": sorted(name for each in results for name in each["failing"]),
        "unexpected_successes": sum(each["unexpected_successes"] for each in results),
        "summary": "; ".join(each["summary"] for each in results),
    }


def run_our_tests(python, labels):
    """Step 2. Raises `PatchFailed` if one of tests/channels_tests fails in the patched tree."""
    log = os.path.join(LOGS, "channels_tests.log")
    # In two halves at the same time: they wait for servers more than they compute.
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(
                run_suite, python, patch_django.PATCHED_TREE, labels[half::2], log=f"{log}.{half}"
            )
            for half in range(min(2, len(labels)))
        ]
    results = [half.result() for half in halves]
    for result in results:
        tell("patched", result)
    result = merged(results)
    flaky = result["failing"]
    if os.environ.get("CHANNELS_TEST_RETRY") == "1" and 0 < len(flaky) <= MOST_RETRIED:
        again = [label_of(name) for name in flaky]
        result = run_suite(python, patch_django.PATCHED_TREE, again, log=log + ".again")
        tell("again", result)
        for name in flaky:
            end = "failed" if name in result["failing"] else "passed"
            print(f"FLAKY: {name} {end} at the second try")
    if not result["ran"] or result["failing"] or result["unexpected_successes"]:
        raise PatchFailed(
            f"channels_tests in the patched Django (see {log}.0 and .1):\n  "
            + "\n  ".join(result["failing"] or [result["summary"]])
        )


def raw_answer(port, path):
    """Return every byte of the answer to GET ``path``, but for the dates in it."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT)) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = b""
        while True:
            data = sock.recv(65536)
            if not data:
                return re.sub(rb"\w{3}, \d\d[ -]\w{3}[ -]\d{4} [\d:]{8} GMT", b"<date>", answer)
            answer += data


def behaviour_without_app(python, tree, project, port):
    """Return what a project without the app says and answers on ``tree``, as text by name."""
    # The environment contains no Django: the path says which one it is.
    wrapper = [python, "-c"]
    code = (
        "import os, sys; sys.path[:0] = [{!r}, os.getcwd()]; sys.argv[0] = 'manage.py'; "
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'; "
        "from django.core.management import execute_from_command_line as main; main(sys.argv)"
    ).format(tree)
    seen = {}
    for arguments in (
        ["help"],
        ["help", "runserver"],
        ["check"],
        ["diffsettings"],
        ["showmigrations"],
        ["sqlmigrate", "auth", "0001"],
        ["startapp", "--help"],
    ):
        seen[" ".join(arguments)] = run(wrapper + [code] + arguments, cwd=project)
    command = wrapper + [code, "runserver", "--noreload", f"127.0.0.1:{port}"]
    with Server(command, project, os.path.join(project, "runserver.log")) as server:
        server.get(port, "/", "", START_TIMEOUT)
        for path in ("/", "/nowhere/?q=1", "/admin/login/", "/static/admin/css/base.css"):
            answer = raw_answer(port, path)
            # What is different in every answer of every Django: its tokens.
            answer = re.sub(rb"(?i)csrf[\w]*(=|' value=')\w{64}", b"csrf", answer)
            seen["GET " + path] = answer.decode("utf-8", "replace").replace(tree, "<tree>")
    return seen


def compare_without_app(python, folder):
    """Step 3. Raises `PatchFailed` if a project without the app notices the patch."""
    code = (
        "import sys; from django.core.management import execute_from_command_line as main; "
        "main(sys.argv)"
    )
    environ = dict(os.environ, PYTHONPATH=patch_django.PRISTINE_TREE)
    run([python, "-c", code, "startproject", "mysite"], cwd=folder, env=environ)
    project = os.path.join(folder, "mysite")
    port = free_port()
    seen = [
        behaviour_without_app(python, tree, project, port)
        for tree in (patch_django.PRISTINE_TREE, patch_django.PATCHED_TREE)
    ]
    different = [name for name in seen[0] if seen[0][name] != seen[1][name]]
    if different:
        for side, name in ((0, "pristine"), (1, "patched")):
            with open(os.path.join(LOGS, f"without-app-{name}.log"), "w") as stream:
                for what in different:
                    stream.write(f"##### {what}\n{seen[side][what]}\n")
        raise PatchFailed(
            f"A project without the app is not as before (see {LOGS}): {', '.join(different)}"
        )
    print(f"  {len(seen[0])} commands and requests, all the same to the byte", flush=True)


def smoke(python, package):
    folder = tempfile.mkdtemp(prefix="smoke-")
    try:
        run_smoke(python, folder, package, lambda step: print(f"  {step}", flush=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


ALIAS_CHECK = """
import importlib, pkgutil, sys
import channels, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib." + name for name in ("contenttypes", "auth", "sessions")]
    + [APP],
    SECRET_KEY="check",
)
django.setup()
import django.channels
assert channels is django.channels, channels
from channels import Channel, Group, route
names = [info[1] for info in pkgutil.walk_packages(django.channels.__path__, "django.channels.")]
assert len(names) > 20, names
for name in names:
    if name.endswith(".__main__"):
        continue
    try:
        theirs = importlib.import_module(name)
    except ImportError as error:
        if str(getattr(error, "name", "")).startswith(("django", "channels")):
            raise
        continue  # an optional dependency that is not installed
    ours = importlib.import_module(name[len("django."):])
    assert ours is theirs, name
    assert theirs.__spec__.name == name == theirs.__name__, theirs.__spec__
import channels.handlers.asgi, django.core.handlers.asgi
assert channels.handlers.asgi is django.core.handlers.asgi
from django.apps import apps
configs = [app.name for app in apps.get_app_configs() if app.label == "channels"]
assert configs == ["django.channels"], configs
twice = [
    name for name, module in sys.modules.items()
    if name.split(".")[0] == "channels" and module is not None
    and not module.__name__.startswith("django.")
]
assert not twice, twice
print("%d modules, each once; one app" % len(names))
"""


def check_alias(python):
    """Step 5. Raises `PatchFailed` if what is installed doubles a module of the patched Django."""
    for app in ("channels", "django.channels"):
        try:
            said = run(
                [python, "-W", "error::ImportWarning", "-c", f"APP = {app!r}\n{ALIAS_CHECK}"]
            )
        except CommandFailed as error:
            raise PatchFailed(f"Next to the patched Django, app {app!r}: {error}") from None
        print(f"  INSTALLED_APPS has {app!r}: {said.strip()}", flush=True)


def check_docs(folder):
    """Step 6. Raises `PatchFailed` if Sphinx warns about a page that this repository adds."""
    python = python_of(environment("django-docs", PYTHON, find_python(PYTHON), SPHINX))
    docs = os.path.join(patch_django.PATCHED_TREE, "docs")
    # The dummy builder reads everything and follows every reference, and writes nothing.
    command = [python, "-W", "ignore", "-m", "sphinx", "-b", "dummy", "-D", "intersphinx_timeout=2"]
    said = run(command + ["-d", os.path.join(folder, "doctrees"), docs, folder])
    with open(os.path.join(LOGS, "docs.log"), "w", encoding="utf-8") as stream:
        stream.write(said)
    if "build succeeded" not in said:
        raise PatchFailed("Sphinx did not build the documentation:\n" + said[-4000:])
    ours = [path for path in patch_django.added_files() if path.startswith("docs" + os.sep)]
    lines = said.splitlines()
    bad = [line for line in lines if re.search("WARNING|ERROR", line) and _names(line, ours)]
    if bad:
        raise PatchFailed("Sphinx, about pages of channels:\n  " + "\n  ".join(bad))
    print(f"  {len(ours)} pages of ours among Django's: no warning", flush=True)


def _names(line, paths):
    return any(os.sep + path + ":" in line or path[len("docs/") : -4] in line for path in paths)


def check_wheel():
    """Step 4. Raises `SmokeFailed` or `CommandFailed`."""
    smoke(patched_environment(), "django.channels")


def check_names_beside_it():
    """Step 5. Raises `PatchFailed`, `SmokeFailed` or `CommandFailed`."""
    python = patched_environment()
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
    run(pip + [make_alias.make()])
    check_alias(python)
    run(pip + [make_dist.make()])
    check_alias(python)
    smoke(python, "channels")


def check_projects():
    """Step 8. Raises `PatchFailed` or `CommandFailed`."""
    python = patched_environment(test_1x.PROJECTS_NEED)
    run([python, "-m", "pip", "install", "--quiet", "--no-deps", make_alias.make()])
    log = os.path.join(LOGS, "projects.log")
    counts = test_1x.run_projects(python, log, test_1x.PROJECTS_TIMEOUT)
    if counts is None or counts[1]:
        with open(log, encoding="utf-8", errors="replace") as stream:
            raise PatchFailed(f"The projects of 2016 (see {log}):\n{stream.read()[-4000:]}")
    print("  %d passed, %d failed, %d skipped" % counts, flush=True)


def labels_in_patch():
    """Return the labels of step 2: those of `selection` whose module is in the patch."""
    return [
        label
        for label in selection.labels()
        if not django_form.is_left_out(f"tests/channels_tests/{label.split('.')[1]}.py")
    ]


STEPS = {
    "1": f"Django {patch_django.VERSION}'s own suite",
    "2": "tests/channels_tests with Django's runtests.py",
    "4": "The wheel of the patched Django",
    "5": "The name `channels` next to it, then the add-on's wheel",
    "3": "A project without the app, on both trees",
    "6": "Django's documentation, with ours in it",
    "7": "The patched Django on Python 2.7 and 3.6",
    "8": "Three projects of 2016, with a browser",
    "9": "Django's tests and ours in one run",
    "0": "isort and flake8 with Django's setup.cfg",
}


#: The steps that keep processors busy. When every step runs, a second process takes the others at the same
#: time: they wait for servers, browsers and downloads most of the time.
BUSY_STEPS = "129"


@contextlib.contextmanager
def others_beside(options, failed):
    """Run the other steps in a second process. Print its output at the end, and add failures to `failed`."""
    others = "".join(number for number in STEPS if number not in BUSY_STEPS)
    command = [sys.executable, os.path.abspath(__file__), "--steps", others, "--half"]
    command += ["--processes", str(options.processes), "--seed", str(options.seed)]
    with open(os.path.join(LOGS, "test-patch-others.log"), "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        log.seek(0)
        print(log.read(), end="", flush=True)
        if status:
            failed.append(f"the steps {others}")


def take(number, python, options):
    """Take the step ``number``; raises what says that it failed."""
    if number == "1":
        compare_suites(python, options.processes)
    elif number == "2":
        run_our_tests(python, options.labels or labels_in_patch())
    elif number == "4":
        check_wheel()
    elif number == "5":
        check_names_beside_it()
    elif number == "8":
        check_projects()
    elif number == "0":
        check_style.check(find_python(PYTHON), PYTHON)
    elif number == "9":
        before = functools.partial(fails_before, python)
        mixed_suite.check(python, options.seed, before, LOGS, tell)
    else:
        with tempfile.TemporaryDirectory(prefix="test-patch-") as folder:
            if number == "3":
                compare_without_app(python, folder)
            elif number == "7":
                check_old_pythons(folder)
            else:
                check_docs(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    everything = "".join(STEPS)
    parser.add_argument(
        "--steps", default=everything, help=f"the steps to run (default: all, {everything})"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="processes for Django's suite",
    )
    parser.add_argument("--seed", type=int, default=1, help="the order of step 9")
    parser.add_argument("--half", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("labels", nargs="*", help="labels for step 2 (default: selection.labels())")
    options = parser.parse_args()
    if not set(options.steps) <= set(STEPS):
        parser.error(f"the steps are {everything}")
    if IN_CI and options.steps != everything and not options.half:
        parser.error("with CI=true every step runs: leave --steps out")
    if not os.path.isdir(patch_django.PATCHED_TREE):
        sys.exit("test_patch: the patched tree is missing: run `make patch` first.")
    os.makedirs(LOGS, exist_ok=True)
    started, failed = time.monotonic(), []
    try:
        python = tests_environment()
    except (PatchFailed, CommandFailed) as error:
        sys.exit(f"test_patch: {error}")
    if options.steps == everything:
        with others_beside(options, failed):
            take_steps(BUSY_STEPS, python, options, started, failed)
    else:
        take_steps(options.steps, python, options, started, failed)
    seconds, logs = time.monotonic() - started, os.path.relpath(LOGS, ROOT)
    if failed:
        sys.exit(f"test_patch: failed: {', '.join(failed)}. {seconds:.0f} s; logs in {logs}")
    print(
        f"{'These steps hold' if options.half else 'The patch holds'}. {seconds:.0f} s; logs in {logs}"
    )


def take_steps(numbers, python, options, started, failed):
    """Take the steps `numbers`. Those that fail are appended to `failed`: one look at the log tells all."""
    for number, title in STEPS.items():
        if number not in numbers:
            continue
        print(f"{number}. {title}  [{time.monotonic() - started:.0f} s]", flush=True)
        try:
            take(number, python, options)
        except (
            PatchFailed,
            mixed_suite.LeftBehind,
            check_style.NotInStyle,
            OldPythonFailed,
            SuiteCrashed,
            SmokeFailed,
            CommandFailed,
        ) as error:
            print(f"  FAILED: {error}", flush=True)
            failed.append(number)


@functools.lru_cache(maxsize=None)
def patched_wheel(python):
    """Return the path of the patched Django's wheel, which is built once."""
    return patch_django.build_wheel(python)


def patched_environment(more=()):
    """Return the path of Python in an environment of the patched Django, Daphne and `more` alone."""
    needed = ["pytz", *more] + PINS_FOR_OLD_PYTHON[PYTHON]
    venv = environment("django-patched", PYTHON, find_python(PYTHON), needed)
    python = python_of(venv)
    pip = [python, "-m", "pip"]
    run(pip + ["uninstall", "--quiet", "--yes", "channels", "Django"])
    run(pip + ["install", "--quiet", "--no-deps", patched_wheel(python)])
    return python


if __name__ == "__main__":
    main()
