"""A gate against regressions: the processor time of this project, as a multiple of the bare application's.

    python benchmarks/gate.py            # exit status 1 if a figure is 15 % above the stored one
    python benchmarks/gate.py --store    # store the figures of this run

Rates are noise on a busy machine, and processor time depends on the processor. So the gate compares ratios:
both are measured in turn on the same machine, and of several rounds the smallest time counts. It takes under
a minute, when the environments of ``suite.py`` are there.
"""

import argparse
import contextlib
import json
import os
import sys

import contenders
import run
import suite
from run import BenchmarkError, say

STORED = os.path.join(run.HERE, "gate.json")

#: How much more a figure may be than the stored one.
TOLERANCE = 1.15

ROUNDS, SECONDS, WARMUP = 3, 0.8, 0.3

WORKLOADS = ("echo", "broadcast", "http")


def measure():
    """Return {workload: processor time of this project, divided by that of the bare application}."""
    for environment in (contenders.PEERS, contenders.OURS):
        why = contenders.make(environment)
        if why:
            raise SystemExit("The environment %s cannot be made: %s" % (environment, why))
    run.raise_open_files()
    settings = {
        "quick": False,
        "seconds": SECONDS,
        "warmup": WARMUP,
        "options": run.server_options(False, contenders.PEERS),
    }
    times = {name: {"bare": [], "ours": []} for name in WORKLOADS}
    with contextlib.ExitStack() as stack:
        needs = suite.Needs(stack)
        for _ in range(ROUNDS):
            for name in WORKLOADS:
                for each in ("bare", "ours"):
                    try:
                        result = suite.measure(each, suite.WORKLOADS[name], settings, needs)
                    except BenchmarkError as error:
                        raise SystemExit("No figure of %s, %s: %s" % (name, each, error)) from None
                    times[name][each].append(result["server_us"])
    for name, by in times.items():
        say("%-10s bare %s us, ours %s us" % (name, *map(_shown, (by["bare"], by["ours"]))))
    return {name: min(by["ours"]) / min(by["bare"]) for name, by in times.items()}


def _shown(values):
    return " ".join("%.1f" % value for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", action="store_true", help="store the figures of this run")
    arguments = parser.parse_args()
    if not arguments.store and not os.path.exists(STORED):
        sys.exit(
            "No figures are stored: run python benchmarks/gate.py --store on a quiet machine, and commit %s."
            % STORED
        )
    found = measure()
    if arguments.store:
        with open(STORED, "w") as file:
            json.dump({name: round(value, 3) for name, value in found.items()}, file, indent=1)
            file.write("\n")
        return
    with open(STORED) as file:
        stored = json.load(file)
    failed = False
    for name, value in found.items():
        limit = stored[name] * TOLERANCE
        failed = failed or value > limit
        print(
            "%-10s %.2f times the bare application's processor time; stored %.2f, at most %.2f: %s"
            % (name, value, stored[name], limit, "TOO MUCH" if value > limit else "ok")
        )
    if failed:
        sys.exit("This tree needs more processor time than the stored figures allow.")


if __name__ == "__main__":
    main()
