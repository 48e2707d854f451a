"""Run Django's own test suite in a source tree, and read from its output which tests failed.

Nothing here knows what was patched. A result is a plain dict that can be kept as JSON:
``ran`` (int), ``seconds`` (float), ``summary`` (text, Django's last line), ``failing`` (sorted
names), ``unexpected_successes`` (int).
"""

import os
import re
import subprocess
import time

RULE = "=" * 70
# The seconds after which a full run is given up: four times what it takes on two slow cores.
SUITE_TIMEOUT = 2400


class SuiteCrashed(Exception):
    """The run came to no result; the message holds the end of its output."""


def parse(output):
    """Return the result in ``output`` (what runtests.py printed), or raise `SuiteCrashed`."""
    names = set()
    lines = output.splitlines()
    for before, line in zip(lines, lines[1:]):
        match = re.match(r"(?:FAIL|ERROR): (.+)", line)
        if before == RULE and match:
            # Subtests print their parameters; an object among them prints its address.
            names.add(re.sub(r"0x[0-9a-f]+", "0x…", match.group(1)).strip())
    ran = re.findall(r"^Ran (\d+) tests? in ([\d.]+)s$", output, re.MULTILINE)
    summary = re.findall(r"^((?:OK|FAILED)(?: \(.*\))?)$", output, re.MULTILINE)
    if len(ran) != 1 or not summary:
        raise SuiteCrashed("Django's test run came to no end:\n" + output[-4000:])
    counts = dict(re.findall(r"([a-z ]+)=(\d+)", summary[-1].replace(", ", ",")))
    if summary[-1].startswith("FAILED") and not names and not counts.get("unexpected successes"):
        raise SuiteCrashed("Django's test run failed and named no test:\n" + output[-4000:])
    return {
        "ran": int(ran[0][0]),
        "seconds": float(ran[0][1]),
        "summary": summary[-1],
        "failing": sorted(names),
        "unexpected_successes": int(counts.get("unexpected successes", 0)),
    }


def run_suite(
    python, tree, labels=(), processes=1, log=None, timeout=SUITE_TIMEOUT, paths=(), environ=None
):
    """Run runtests.py of the Django source ``tree`` and return its result.

    ``labels`` are test labels (none means all), ``log`` is the path of a file that is given all of
    the output, ``timeout`` is in seconds, ``paths`` are further folders to import from, ``environ``
    holds further environment variables. Raises `SuiteCrashed`.
    """
    environ = dict(os.environ, **(environ or {}))
    environ["PYTHONPATH"] = os.pathsep.join([tree, *paths])
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    command = [python, "-W", "ignore", "runtests.py", "--noinput", f"--parallel={processes}"]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command + list(labels),
            cwd=os.path.join(tree, "tests"),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        output = done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as error:
        output = (error.output or b"").decode("utf-8", "replace")
        output += f"\nNot finished after {time.monotonic() - started:.0f} seconds.\n"
    if log:
        with open(log, "w", encoding="utf-8") as stream:
            stream.write(output)
    result = parse(output)
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def label_of(name):
    """Return the label that runs the failing test ``name`` again ("test_x (module.Class)").

    A class whose set-up failed is run whole, and so is an application that could not be imported.
    """
    match = re.match(r"(\S+) \(([\w.]+)\)", name)
    if match is None:
        raise ValueError(f"This is not the name of a test: {name!r}")
    test, where = match.groups()
    if where.startswith("unittest.loader."):
        return test.split(".")[0]
    return where if test in ("setUpClass", "tearDownClass") else f"{where}.{test}"
