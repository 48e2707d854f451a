"""All benchmarks in one command: each workload with all its contenders, in turn, round after round.

    python benchmarks/suite.py                 # at most 20 minutes
    python benchmarks/suite.py --quick         # at most 3 minutes
    python benchmarks/suite.py echo http       # only these workloads
    python benchmarks/suite.py --readme        # also into the README, between its markers
    python benchmarks/suite.py --report-only   # the table and the charts of the last run again

It writes ``results/results.json``, ``results/results.md`` and a chart of each workload. ``README.md`` says
what the figures mean, and how a contender is added.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request

import contenders
import redis_layer
import report
import run
from contenders import CONTENDERS
from run import BenchmarkError, say
from workloads import WORKLOADS

from channels_tests.support.ports import free_port

RESULTS = os.path.join(run.HERE, "results")

#: Seconds that a whole run may take, and a quick one.
BUDGET, QUICK_BUDGET = 20 * 60, 3 * 60

#: Rounds at most. The budget may end them earlier.
ROUNDS = 7


# --- What contenders need -----------------------------------------------------------------------


class Needs:
    """The servers that contenders need, each started once. `missing` says why there is none."""

    def __init__(self, stack):
        self._stack = stack
        self.values = {}
        self.pids = {}
        self.missing = {}

    def provide(self, name):
        if name is None or name in self.values or name in self.missing:
            return
        try:
            getattr(self, "_" + name)()
        except (
            Exception
        ) as error:  # SkipTest included: the tests' helpers raise it without a program
            self.missing[name] = str(error) or type(error).__name__

    def _redis(self):
        port, process = self._stack.enter_context(redis_layer.redis_server())
        self.values["redis"] = "redis://127.0.0.1:%d/0" % port
        self.pids["redis"] = [process.pid]

    def _sqlite(self):
        folder = tempfile.mkdtemp(prefix="channels-bench-")
        self._stack.callback(shutil.rmtree, folder, True)
        entry = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(folder, "site.sqlite3"),
        }
        self.values["sqlite"] = json.dumps(entry)
        self.pids["sqlite"] = []

    def _postgresql(self):
        from channels_tests.support.databases import PostgreSQL

        server = PostgreSQL()
        self._stack.callback(server.remove)
        server.prepare()
        server.start()
        self.values["postgresql"] = json.dumps(server.settings())
        self.pids["postgresql"] = [server.process.pid]


# --- One run ------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(contender, needs, options):
    """Start the processes of a contender. Gives the ports, all process ids, and the log of the first."""
    environment, need = contender["environment"], contender.get("needs")
    folder = os.path.join(run.HERE, "sites", contender["site"])
    common = os.path.join(run.HERE, "sites", "common")
    python = run.python_of(environment)
    port, other_port = free_port(), free_port()
    known = {
        "{python}": python,
        "{bin}": os.path.dirname(python),
        "{port}": str(port),
        "{other_port}": str(other_port),
        "{common}": common,
        "{redis}": needs.values.get("redis", ""),
        "{database}": needs.values.get(need, "") if need in ("sqlite", "postgresql") else "",
    }

    def fill(text):
        for name, value in known.items():
            text = text.replace(name, value)
        return text

    environ = dict(os.environ, DJANGO_SETTINGS_MODULE="settings", PYTHONWARNINGS="ignore")
    environ["PYTHONPATH"] = os.pathsep.join([common, folder])
    environ["PORT"] = str(port)
    environ["NODE_PATH"] = os.path.join(run.ENVIRONMENTS, "node", "node_modules")
    environ.update({name: fill(value) for name, value in contender.get("env", {}).items()})
    with contextlib.ExitStack() as stack:
        pids, first = [], None
        if need == "postgresql":
            run.call(
                [python, os.path.join(common, "manage.py"), "migrate"], env=environ, cwd=folder
            )
        for command in contender["commands"]:
            filled = []
            for part in command:
                filled += options if part == "{options}" else [fill(part)]
            process, log = stack.enter_context(redis_layer.started(filled, env=environ, cwd=folder))
            pids.append(process.pid)
            if first is None:
                first = log
                run.wait_until_it_listens(process, port, log)
        ports = [port]
        if any("{other_port}" in command for command in contender["commands"]):
            run.wait_until_it_listens(process, other_port, log)
            ports.append(other_port)
        if len(pids) > 1:
            for each in ports:
                wait_for_a_worker(each, first)
        yield ports, pids + needs.pids.get(need, []), first


def wait_for_a_worker(port, log):
    """Wait until a worker has answered a request. No port tells when one is ready."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d/hello/" % port, timeout=run.START_SECONDS):
            pass
    except urllib.error.HTTPError as error:  # a site without pages: an answer all the same
        error.close()
    except OSError as error:
        raise BenchmarkError("No worker answered: %s\n%s" % (error, run.tail(log))) from None


def measure(name, workload, settings, needs):
    """Start a contender, load it, stop it. Return what ``load.py`` printed."""
    contender = CONTENDERS[name]
    quick = settings["quick"]
    load = contender.get("loads", {}).get(workload["load"], workload["load"])
    command = [sys.executable, os.path.join(run.HERE, "load.py"), load]
    command += ["--sockets", str(workload["sockets"][quick])]
    command += ["--warmup", str(settings["warmup"]), "--duration", str(settings["seconds"])]
    command += contender.get("load", [])
    with running(contender, needs, settings["options"]) as (ports, pids, log):
        command += ["--port", str(ports[0]), "--server-pid", ",".join(map(str, pids))]
        for each in ports[1:]:
            command += ["--other-port", str(each)]
        try:
            return json.loads(
                run.call(command, timeout=workload.get("timeout", run.RUN_SECONDS)).splitlines()[-1]
            )
        except BenchmarkError as error:
            raise BenchmarkError("%s\n%s" % (error, run.tail(log))) from None
        except Exception as error:
            raise BenchmarkError("%s: %s" % (type(error).__name__, error)) from None


def chosen_contenders(workload, quick):
    return workload["quick" if quick else "contenders"].split()


def measure_all(settings, needs, missing):
    """Measure round after round, until the budget is used. Return {workload: {contender: [result]}}."""
    results = {name: {} for name in settings["workloads"]}
    begun, rounds = time.monotonic(), 0
    while rounds < (1 if settings["quick"] else settings["rounds"]):
        spent = time.monotonic() - begun
        if rounds and spent + spent / rounds > settings["budget"]:
            break
        for name in settings["workloads"]:
            workload = WORKLOADS[name]
            if rounds >= workload.get("rounds", rounds + 1):
                continue
            for each in chosen_contenders(workload, settings["quick"]):
                contender = CONTENDERS[each]
                why = missing.get(contender["environment"]) or needs.missing.get(
                    contender.get("needs")
                )
                if why:
                    results[name].setdefault(each, []).append({"error": why})
                    continue
                if time.monotonic() - begun > settings["budget"]:
                    continue
                try:
                    result = measure(each, workload, settings, needs)
                    text = "%10.0f %s" % (result["rate"], workload["unit"])
                except BenchmarkError as error:
                    result = {"error": str(error).strip()[-300:]}
                    text = "failed: %s" % result["error"]
                results[name].setdefault(each, []).append(result)
                say("round %d  %-16s %-20s %s" % (rounds + 1, name, each, text))
        rounds += 1
    return results


# --- The result ---------------------------------------------------------------------------------


def summary(results, settings, elapsed, others):
    """Return the data of the report: medians and spreads, and the machine."""
    tables = []
    for name, by_contender in results.items():
        workload, rows = WORKLOADS[name], []
        for each, rounds in by_contender.items():
            good = [result for result in rounds if "error" not in result]
            row = {"name": each, "title": CONTENDERS[each]["title"], "rounds": len(good)}
            for key in ("rate", "server_us", "p50_ms", "p99_ms", "kb", "generator_cpu"):
                values = [result[key] for result in good if result.get(key) is not None]
                if values:
                    row[key] = {
                        "median": statistics.median(values),
                        "min": min(values),
                        "max": max(values),
                    }
            errors = [result["error"] for result in rounds if "error" in result]
            if errors:
                row["error"] = errors[-1]
            rows.append(row)
        sockets = workload["sockets"][settings["quick"]]
        tables.append(
            {"name": name, "sockets": sockets, "rows": rows}
            | {key: workload[key] for key in ("title", "unit")}
        )
    return {
        "tables": tables,
        "machine": {
            "processor": run.processor_name(),
            "processors": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d"),
        "quick": bool(settings["quick"]),
        "seconds": settings["seconds"],
        "elapsed": elapsed,
        "others": others,
        "options": settings["options"],
    }


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workload", nargs="*", help="of: %s" % ", ".join(WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="at most 3 minutes, and noisier")
    parser.add_argument("--readme", action="store_true", help="also write the table into README.md")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tuned", action="store_true", help="uvloop in the place of asyncio")
    arguments = parser.parse_args()
    unknown = set(arguments.workload) - set(WORKLOADS)
    if unknown:
        parser.error("no such workload: %s" % ", ".join(sorted(unknown)))
    return arguments


def measure_and_sum_up(arguments):
    quick = arguments.quick
    names = [name for name in WORKLOADS if name in (arguments.workload or WORKLOADS)]
    if quick and not arguments.workload:
        names = [name for name in names if WORKLOADS[name]["quick"]]
    if quick:
        for name in names:
            WORKLOADS[name]["quick"] = WORKLOADS[name]["quick"] or WORKLOADS[name]["contenders"]
    used = [
        CONTENDERS[each] for name in names for each in chosen_contenders(WORKLOADS[name], quick)
    ]
    # The peers first: the others get the versions that they have.
    wanted = [
        contenders.PEERS,
        *sorted({each["environment"] for each in used} - {contenders.PEERS}),
    ]
    missing = {each: why for each in wanted for why in [contenders.make(each)] if why}
    settings = {
        "quick": quick,
        "rounds": arguments.rounds,
        "seconds": 0.7 if quick else 1.5,
        "warmup": 0.4 if quick else 0.7,
        "budget": QUICK_BUDGET if quick else BUDGET,
        "workloads": names,
        "options": run.server_options(arguments.tuned, contenders.PEERS),
    }
    run.raise_open_files(20000)
    busy, own, begun = run.busy_seconds(), run.children_seconds(), time.monotonic()
    with contextlib.ExitStack() as stack:
        needs = Needs(stack)
        for each in used:
            needs.provide(each.get("needs"))
        results = measure_all(settings, needs, missing)
    elapsed, others = time.monotonic() - begun, None
    if busy is not None:
        spent = run.busy_seconds() - busy - (run.children_seconds() - own)
        others = max(0.0, spent / (elapsed * os.cpu_count()))
    return summary(results, settings, elapsed, others)


def main():
    arguments = parse_arguments()
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, "results.json")
    if not arguments.report_only:
        data = measure_and_sum_up(arguments)
        with open(path, "w") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
    with open(path) as file:
        data = json.load(file)
    report.write(data, RESULTS)
    print(report.markdown(data))
    if arguments.readme:
        report.into_readme(data, os.path.join(run.ROOT, "README.md"))
    failed = [row for table in data["tables"] for row in table["rows"] if not row["rounds"]]
    for row in failed:
        say("no figure of %s: %s" % (row["name"], row.get("error")))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
