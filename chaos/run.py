#!/usr/bin/env python
"""
Check what the project promises under faults, each promise with real processes under load: `make chaos`.

    python chaos/run.py [--quick] [--again] [--list] [--backend redis] [--keep] [ROW ...]

Prints a table with what was measured, and exits with 1 if a promise did not hold. See README.md.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# The table's order: what dies, and then what is bounded.
import faults  # noqa: E402, F401, I001
import bounds  # noqa: E402, F401
import clients  # noqa: E402, F401
import uploads  # noqa: E402, F401
import waiting  # noqa: E402, F401
from channels_tests.support.processes import allow_open_files  # noqa: E402
from stack import LEASE, MariaDB, Memory, PostgreSQL, Redis, SQLite, Stack  # noqa: E402
from table import ROWS, SERVERS  # noqa: E402

BACKENDS = {
    "redis": Redis,
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "sqlite": SQLite,
    "memory": Memory,
}


def run_row(row, backend, options):
    """Run a row; return whether it held, and what was measured or went wrong."""
    stack = None

    async def bounded():
        return await asyncio.wait_for(row.function(stack, options), row.seconds)

    try:
        stack = Stack(BACKENDS[backend], **row.config)
        stack.keep = options.keep
        with stack:
            text, held = asyncio.run(bounded()), True
    except AssertionError as error:
        text, held = str(error), False
    except asyncio.TimeoutError:
        text, held = "it did not end within %d s" % row.seconds, False
    except Exception:
        text, held = traceback.format_exc(), False
    if not held and stack is not None:
        text += stack.tails
    return held, text


def run_apart(row, backend, options):
    """Call `run_row` in another process, so that its settings, sockets and memory end with it."""
    command = [sys.executable, os.path.abspath(__file__), "--apart", "--backend", backend, row.name]
    command += ["--quick"] * options.quick + ["--keep"] * options.keep
    command += ["--server", options.server] if options.server else []
    begun = time.monotonic()
    child = subprocess.run(command, stdout=subprocess.PIPE)
    try:
        held, text = json.loads(child.stdout.decode().rpartition("\n\n")[2])
    except ValueError:
        held, text = False, "The row's own process failed: %r" % child.stdout[-500:]
    return held, text, time.monotonic() - begun


def run_again(result, options):
    """Run a row that did not hold once more. If it holds then, name it as flaky: a defect to be mended."""
    _, row, backend, first, _ = result
    held, text, seconds = run_apart(row, backend, options)
    if held:
        print("FLAKY: %s on %s held at the second try only; at the first:" % (row.name, backend))
        text += "\n(at the second try)"
    else:
        text = first + "\n(at the second try, too:)\n" + text
    result = held, row, backend, text, seconds
    show(result)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows; all of them")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, for CI")
    parser.add_argument("--backend", choices=sorted(BACKENDS), help="one backend; all of them")
    parser.add_argument("--server", choices=SERVERS, help="one server for rows of slow clients")
    parser.add_argument("--list", action="store_true", help="the names of the rows, and no more")
    parser.add_argument("--keep", action="store_true", help="keep each row's folder, with its logs")
    parser.add_argument("--again", action="store_true", help="try once more what did not hold")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.descriptors = allow_open_files()
    chosen = [
        (row, backend)
        for backend in ([options.backend] if options.backend else BACKENDS)
        for row in ROWS
        if backend in row.backends
        and (not options.rows or row.name in options.rows)
        and (backend in row.quick or not options.quick or options.rows)
    ]
    if options.list or not chosen:
        for row in ROWS:
            print("%-12s %s" % (row.name, row.title))
        sys.exit(0 if options.list else "No row has such a name.")
    if options.apart:
        print("\n\n" + json.dumps(run_row(*chosen[0], options)))
        return
    import django

    print(
        "Django %s, Python %s; %s; leases of %g s (by default 15 s)\n"
        % (
            django.get_version(),
            sys.version.split()[0],
            "quick" if options.quick else "full",
            LEASE,
        )
    )
    table, begun = [], time.monotonic()
    for row, backend in chosen:
        held, text, seconds = run_apart(row, backend, options)
        table.append((held, row, backend, text, seconds))
        show(table[-1])
    if options.again:
        table = [each if each[0] else run_again(each, options) for each in table]
    failed = [each for each in table if not each[0]]
    print("\n%s\n" % ("=" * 100))
    for each in table:
        show(each)
    print(
        "\n%d rows in %.0f s, %d did not hold" % (len(table), time.monotonic() - begun, len(failed))
    )
    sys.exit(1 if failed else 0)


def show(result):
    held, row, backend, text, seconds = result
    print(
        "%-5s %-9s %-9s %s [%.0f s]"
        % ("ok" if held else "FAIL", row.name, backend, row.title, seconds)
    )
    for line in text.splitlines():
        print("      %s" % line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
