"""The add-on's wheel on every supported Django: tests/channels_tests, and a site made and served.

``python scripts/matrix.py`` builds the wheel, makes an environment per row below (kept in
.cache/venvs), and prints a table. Rows whose Python this machine does not have are named.
The first and the last row run every test but ``selection.ONCE``. The rows between leave out
``selection.LEFT_OUT``, and most of them ``selection.PROCESSES``, too, unless ``--full`` is given.
``--table`` prints the README's table of supported versions, and runs nothing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import make_dist
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
from selection import LEFT_OUT, ONCE, PROCESSES
from smoke import SmokeFailed, run_smoke

# Django, Python: what is supported is what is tested here.
ROWS = (
    ("1.8", "3.7"),
    ("1.9", "3.7"),
    ("1.10", "3.7"),
    ("1.11", "3.7"),
    ("2.2", "3.8"),
    ("3.2", "3.9"),
    ("4.2", "3.10"),
    ("5.2", "3.11"),
    ("6.0", "3.12"),
    ("6.1", "3.13"),
)

ENDS = (ROWS[0], ROWS[-1])

# The rows between whose tests start processes, too: the autoreloader is new in Django 2.2. ``make test`` runs
# all tests on Django 5.2.
WITH_PROCESSES = (("2.2", "3.8"),)

# Rows with another asgiref than the newest, by Django. Before 3.8, Django's language, time zone and URLs
# aren't context variables. With 3.8, copies of a context share them. Django 5.2 has 3.8 as its floor.
ASGIREF = {"4.2": "asgiref==3.7.2", "5.2": "asgiref==3.8.1"}

# Rows that run where the interpreter is found. They join ROWS once a machine of CI has run them.
WHERE_FOUND = (("6.1", "3.14"),)

LOGS = os.path.join(BUILD, "logs")
TESTS_TIMEOUT = 1800
TABLE_HEAD = "| Django | Tested on Python |\n|---|---|\n"


def readme_table():
    """Return the README's table of supported versions (Markdown), as ``ROWS`` has it."""
    pythons = OrderedDict()
    for django, python in ROWS:
        pythons.setdefault(django, []).append(python)
    lines = [f"| {django} | {', '.join(found)} |\n" for django, found in pythons.items()]
    return TABLE_HEAD + "".join(lines)


def install(row, interpreter, wheel):
    """Return the path of Python in the row's environment, with ``wheel`` freshly installed."""
    django, python = row
    needed = [f"Django~={django}.0"] + make_dist.extra("test")
    needed += PINS_FOR_OLD_PYTHON.get(python, [])
    if django in ASGIREF:
        needed.append(ASGIREF[django])
    path = python_of(environment(f"django-{django}", python, interpreter, needed))
    pip = [path, "-m", "pip", "--disable-pip-version-check"]
    run(pip + ["uninstall", "--quiet", "--yes", "channels"])
    run(pip + ["install", "--quiet", wheel, needed[0]])
    found = run([path, "-c", "import django; print(django.get_version())"]).strip()
    if not found.startswith(django + "."):
        raise CommandFailed(f"This row is for Django {django}, and pip left {found} installed.")
    return path


def run_tests(python, labels, left_out, log):
    """Run tests/channels_tests with ``python``; return "N passed, …" and whether all is well."""
    command = [python, os.path.join(ROOT, "tests", "runtests_addon.py")]
    # A run that hangs shows where, before it is killed here.
    command += ["--timeout", str(TESTS_TIMEOUT - 30), *labels]
    if left_out:
        command += ["--leave-out", ",".join(left_out)]
    if left_out == ONCE:
        command += ["--processes", "2"]  # almost every test: the longest of the rows
    environ = dict(os.environ)
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    environ.pop("PYTHONPATH", None)
    try:
        with open(log, "ab") as stream:
            status = subprocess.call(
                command,
                cwd=os.path.join(ROOT, "tests"),
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=TESTS_TIMEOUT,
            )
    except subprocess.TimeoutExpired:
        return f"not finished in {TESTS_TIMEOUT} s", False
    with open(log, encoding="utf-8", errors="replace") as stream:
        counts = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", stream.read(), re.M)
    if not counts:
        return f"no result, status {status}", False
    passed, failed, skipped = (int(number) for number in counts[-1])
    good = status == 0 and passed > 0 and failed == 0
    return f"{passed} passed, {failed} failed, {skipped} skipped", good


def run_row(row, interpreter, wheel, labels, left_out, only):
    """Run one row without ``left_out``; return its cells (version, tests, site), seconds, success."""
    started = time.monotonic()
    log = os.path.join(LOGS, "matrix-django-{}-py{}.log".format(*row))
    open(log, "w").close()
    cells, good = ["", "-", "-"], True
    try:
        python = install(row, interpreter, wheel)
        version = "import django, sys; print(django.get_version(), sys.version.split()[0])"
        cells[0] = run([python, "-c", version]).strip()
        if only in (None, "tests"):
            cells[1], good = run_tests(python, labels, left_out, log)
        if only in (None, "site"):
            folder = tempfile.mkdtemp(prefix="matrix-")
            steps = []
            try:
                run_smoke(python, folder, "channels", steps.append)
                cells[2] = f"ok ({len(steps)} steps)"
            except (SmokeFailed, subprocess.SubprocessError) as error:
                cells[2], good = f"FAILED after {steps[-1] if steps else 'nothing'}", False
                with open(log, "a", encoding="utf-8") as stream:
                    stream.write(f"\nSite: {error}\n")
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except CommandFailed as error:
        cells[0], good = cells[0] or "NOT INSTALLED", False
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(str(error))
    return cells, time.monotonic() - started, good, log


def left_out_of(row, options):
    """Return the tests that ``row`` leaves out: names for --leave-out of runtests_addon.py."""
    if options.labels:
        return ()
    if options.full or row in ENDS:
        return ONCE
    return LEFT_OUT if row in WITH_PROCESSES else LEFT_OUT + PROCESSES


LINE = "{:8} {:8} {:16} {:38} {:30} {:>6}  {}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="print the README's table, and stop")
    parser.add_argument("--only", choices=("tests", "site"), help="leave the other half out")
    parser.add_argument("--full", action="store_true", help="run every test in every row")
    parser.add_argument(
        "--rows", help="comma-separated Django versions, or Django:Python pairs (default: all)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1 + min(2, os.cpu_count() or 1),
        help="rows that run at the same time (default: %(default)s)",
    )
    parser.add_argument("labels", nargs="*", help="tests to run (default: all)")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(readme_table())
        return

    chosen = [*ROWS, *(row for row in WHERE_FOUND if find_python(row[1]))]
    if options.rows:
        names = options.rows.split(",")
        chosen = [row for row in chosen if row[0] in names or ":".join(row) in names]
        if not chosen:
            parser.error(f"no row is called {options.rows}")
    interpreters = {python: find_python(python) for _, python in chosen}
    runnable = [row for row in chosen if interpreters[row[1]]]
    runnable.sort(key=lambda row: row not in ENDS)  # the longest first
    os.makedirs(LOGS, exist_ok=True)
    try:
        wheel = make_dist.make()
    except CommandFailed as error:
        sys.exit(f"matrix: {error}")

    print(f"{os.path.basename(wheel)}; logs in {os.path.relpath(LOGS, ROOT)}")
    print(LINE.format("Django", "Python", "exactly", "channels_tests", "site", "s", ""))
    failed = []
    # The tests wait for servers more than they compute: three rows share two cores well.
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [
            pool.submit(
                run_row,
                row,
                interpreters[row[1]],
                wheel,
                options.labels,
                left_out_of(row, options),
                options.only,
            )
            for row in runnable
        ]
        for row, job in zip(runnable, running):
            cells, seconds, good, log = job.result()
            print(LINE.format(*row, *cells, round(seconds), "ok" if good else "FAILED"), flush=True)
            if not good:
                failed.append((row, log))

    for row, log in failed:
        print("\n===== Django {} on Python {}: {} =====".format(*row, os.path.relpath(log, ROOT)))
        with open(log, encoding="utf-8", errors="replace") as stream:
            print(stream.read()[-6000:])
    absent = sorted({python for _, python in chosen if not interpreters[python]})
    if absent:
        print(
            "Missing on this machine (on PATH and in pyenv), so their rows did not run: "
            + ", ".join("Python " + python for python in absent)
        )
    skipped = [row for row in ROWS if row not in chosen]
    if skipped:
        print("Left out: " + ", ".join("Django {} on Python {}".format(*row) for row in skipped))
    print(f"{len(runnable) - len(failed)} of {len(runnable)} rows passed")
    partial = skipped or options.labels or options.only
    if IN_CI and partial:
        print("With CI=true, every row that this machine can run has to run whole.")
    if failed or not runnable or (IN_CI and partial):
        sys.exit(1)


if __name__ == "__main__":
    main()
