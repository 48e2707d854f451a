"""Packages that require Channels 1.x, at pinned versions, run against the add-on of this tree.

``python scripts/test_1x.py`` builds the wheel, makes an environment for each Python (kept in
.cache/venvs), and runs the package's own tests, or those of tests/channels1_packages where it has
none. Nothing of Channels 1.x is installed. If the registry can't be reached and an environment isn't
there yet, the row is skipped, and the last line says so.

The row "projects" runs the projects of tests/channels1_projects, with their own tests and in a browser.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import make_dist
from interpreters import (
    BUILD,
    PINS_FOR_OLD_PYTHON,
    ROOT,
    CommandFailed,
    environment,
    find_python,
    python_of,
    run,
)
from smoke import SCALE

LOGS = os.path.join(BUILD, "logs")

#: Seconds for the tests of one package.
TESTS_TIMEOUT = 180

#: Seconds for each of the two installations of an environment.
INSTALL_TIMEOUT = 180

#: Seconds for looking whether the registry answers.
PROBE_TIMEOUT = 20

#: Seconds for the projects, which start servers and browsers.
PROJECTS_TIMEOUT = 180 * SCALE

OLD = ("3.7", ["Django==1.11.29"])
NEW = ("3.11", ["Django==5.2.8"])

#: What the projects need besides Django and Daphne. asgi_redis is that of this tree.
PROJECTS_NEED = ["msgpack>=1.0", "redis>=5.0", "selenium>=4.11"]
PROJECTS = ["channels1_projects.test_units", "channels1_projects.test_browser"]


class Row:
    """One package, or the projects, on one Django."""

    def __init__(self, name, package=None, needs=(), on=OLD, own_tests=None, settings=None):
        """`own_tests` is the label of the package's own tests, for which `settings` are theirs."""
        self.name, self.package, self.needs = name, package, list(needs)
        (self.python, django), self.own_tests = on, own_tests
        self.requirements = django + self.needs
        self.settings = settings or "channels1_packages.settings"

    def __str__(self):
        what = self.package or "the projects of 2016"
        return f"{what} with {self.requirements[0]} on Python {self.python}"


ROWS = [
    Row(
        "api",
        "channels-api==0.4.1",
        ["djangorestframework==3.9.4"],
        own_tests="tests",
        settings="tests.test_settings",
    ),
    Row("presence", "django-channels-presence==0.0.9"),
    Row("television", "django-television==0.1.7"),
    Row("knocker", "django-knocker==0.3.3", ["django-meta==1.4.1"]),
    Row("jsonrpc", "django-channels-jsonrpc==1.2.0", ["six==1.16.0"]),
    Row("jsonrpc", "django-channels-jsonrpc==1.2.0", ["six==1.16.0"], NEW),
    Row("haystack", "django-haystack-channels==0.0.3", ["django-haystack==2.8.1"]),
    Row("slack", "channels-slack-notifications==0.0.2", ["requests==2.31.0"], NEW),
    Row("projects", needs=PROJECTS_NEED + PINS_FOR_OLD_PYTHON["3.7"]),
    Row("projects", needs=PROJECTS_NEED + make_dist.extra("daphne"), on=NEW),
]


def install(rows, interpreter, wheel):
    """Return the path of Python in the environment that these rows share, with ``wheel`` in it."""
    python = rows[0].python
    needed = sorted({each for row in rows for each in row.requirements})
    path = python_of(environment("channels-1x", python, interpreter, needed, INSTALL_TIMEOUT))
    pip = [path, "-m", "pip", "--disable-pip-version-check"]
    found = run(pip + ["list", "--format=freeze"]).replace("_", "-").lower().split()
    packages = sorted({row.package for row in rows if row.package})
    missing = [each for each in packages if each.replace("_", "-").lower() not in found]
    if missing:
        run(pip + ["install", "--quiet", "--no-deps"] + missing, timeout=INSTALL_TIMEOUT)
    run(pip + ["install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel])
    return path


def run_tests(row, python, log):
    """Run the row's tests; return the counts (passed, failed, skipped), or None without a result."""
    if row.package is None:
        return run_projects(python, log, PROJECTS_TIMEOUT)
    label = row.own_tests or f"channels1_packages.test_{row.name}"
    environ = dict(os.environ, DJANGO_SETTINGS_MODULE=row.settings, CHANNELS1_PACKAGE=row.name)
    environ["PYTHONPATH"] = os.path.join(ROOT, "tests") if row.own_tests is None else ""
    command = [python, "-W", "ignore::DeprecationWarning", "-m", "django", "test", label]
    return run_command(command, environ, log, TESTS_TIMEOUT)


def run_projects(python, log, timeout, paths=()):
    """Run the tests of tests/channels1_projects; `paths` go before others. Return as `run_tests`."""
    paths = [*paths, os.path.join(ROOT, "tests"), os.path.join(ROOT, "asgi_redis")]
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1")
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    return run_command([python, "-m", "unittest", "-v", *PROJECTS], environ, log, timeout)


def run_command(command, environ, log, timeout):
    """Run tests, with their output in the file `log`; return as `run_tests`."""
    with open(log, "wb") as stream:
        try:
            subprocess.call(
                command,
                cwd=LOGS,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            stream.write(f"\nNot finished in {timeout:g} s.\n".encode())
    with open(log, encoding="utf-8", errors="replace") as stream:
        # The last result: the projects' own tests write theirs into a message before it.
        text = stream.read().rpartition("\nRan ")[2]
    total = re.match(r"(\d+) tests?", text)
    if total is None or total.group(1) == "0":
        return None
    bad = sum(int(each) for each in re.findall(r"(?:failures|errors)=(\d+)", text))
    skipped = sum(int(each) for each in re.findall(r"skipped=(\d+)", text))
    return max(int(total.group(1)) - bad - skipped, 0), bad, skipped


def registry_answers(interpreter):
    """Return whether pip can download one of the packages."""
    folder = tempfile.mkdtemp(prefix="channels-1x-")
    command = [interpreter, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    try:
        run(command + ["--dest", folder, ROWS[0].package], timeout=PROBE_TIMEOUT)
    except CommandFailed:
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def run_rows(rows, interpreter, wheel):
    """Run the rows of one Python. Return (row, what to print, (passed, failed, skipped), log) of each."""
    python, problem, skip = None, "", interpreter is None
    if skip:
        problem = f"no Python {rows[0].python} on this machine"
    else:
        try:
            python = install(rows, interpreter, wheel)
        except CommandFailed as error:
            problem = str(error)
            skip = "Not finished after" in problem or not registry_answers(interpreter)
            if skip:
                problem = "the registry cannot be reached, or is too slow"
    results = []
    for row in rows:
        log = os.path.join(LOGS, f"1x-{row.name}-py{row.python}.log")
        if python is None:
            text = f"skipped: {problem}" if skip else "not installed"
            with open(log, "w", encoding="utf-8") as stream:
                stream.write(problem)
            results.append((row, text, (0, int(not skip), int(skip)), log))
            continue
        counts = run_tests(row, python, log)
        text = "no result" if counts is None else "%d passed, %d failed, %d skipped" % counts
        results.append((row, text, counts or (0, 1, 0), log))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="packages to test, such as 'api' (default: all)")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.names or row.name in options.names]
    if not rows:
        parser.error("no such package; there are: " + ", ".join(sorted({row.name for row in ROWS})))
    os.makedirs(LOGS, exist_ok=True)
    try:
        wheel = make_dist.make()
    except CommandFailed as error:
        sys.exit(f"test_1x: {error}")
    pythons = sorted({row.python for row in rows})
    started = time.monotonic()
    totals, failed = [0, 0, 0], []
    with ThreadPoolExecutor(len(pythons)) as pool:
        running = [
            pool.submit(run_rows, [each for each in rows if each.python == python], path, wheel)
            for python, path in ((python, find_python(python)) for python in pythons)
        ]
        for row, text, counts, log in (each for job in running for each in job.result()):
            print(f"{row}: {text}", flush=True)
            totals = [one + other for one, other in zip(totals, counts)]
            if counts[1]:
                failed.append((row, log))
    for row, log in failed:
        print(f"\n===== {row}: {os.path.relpath(log, ROOT)} =====")
        with open(log, encoding="utf-8", errors="replace") as stream:
            print(stream.read()[-4000:])
    print(f"{time.monotonic() - started:.0f} s")
    print("%d passed, %d failed, %d skipped" % tuple(totals))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
