"""The benchmarks, side by side in one run: a bare ASGI 3 application, Channels 4 and this project.

``python benchmarks/run.py`` makes the virtual environments it needs in ``.bench/`` (from PyPI, once),
then starts each contender behind the same server with the same options, loads it with ``load.py`` and
stops it, round after round (A B C, A B C, ...), so that a slow minute of the machine hits all alike.
``README.md`` says what the figures mean and what they do not.

A new contender is an entry of CONTENDERS, a new measurement one of SCENARIOS. Standard library only.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
ENVIRONMENTS = os.path.join(ROOT, ".bench")

sys.path.insert(1, os.path.join(ROOT, "tests"))
from channels_tests.support.ports import can_connect, free_port  # noqa: E402
from channels_tests.support.processes import allow_open_files  # noqa: E402
from channels_tests.support.waiting import wait_until  # noqa: E402

MEASURING_BUDGET = 280  # seconds: no further round begins once the next one would not fit
START_SECONDS = 20
STOP_SECONDS = 5
RUN_SECONDS = 60  # a load that takes longer than this has failed
GENERATOR_LIMIT = 0.85  # of a core: above it the generator may be what was measured
OPEN_FILES = 4096

#: The same for every contender. "peer" is installed first and its versions bind the others.
SERVER = ["uvicorn[standard]>=0.30", "websockets>=13", "Django>=5.2,<5.3"]
REQUIREMENTS = {
    "peer": ["channels>=4.3,<4.4"],
    "ours": ["--editable", ROOT],
}
#: What both must have in the same version, and what the notes print.
SHARED = ("Django", "asgiref", "uvicorn", "websockets", "httptools", "uvloop")

#: What stands for each in the table, and which application of which site in which environment it is.
CONTENDERS = {
    "bare": {
        "title": "bare ASGI 3 app (the limit)",
        "environment": "peer",
        "site": "bare",
        "websocket": "asgi:application",
        "http": "asgi:application",
    },
    "channels4": {
        "title": "Channels {channels}",
        "http_title": "Django {django}, its ASGI handler",
        "environment": "peer",
        "site": "channels4",
        "websocket": "asgi:application",
        "http": "asgi:django_application",
    },
    "channels4-async": {
        "title": "Channels {channels}, async consumer *",
        "http_title": "Django {django}, async view *",
        "environment": "peer",
        "site": "channels4",
        "websocket": "asgi:async_application",
        "http": "asgi:django_application",
        "http_path": "/hello-async/",
        "for_information": True,
    },
    "ours": {
        "title": "this project",
        "environment": "ours",
        "site": "ours",
        "websocket": "asgi:channel_layer",
        "http": "asgi:channel_layer",
    },
}
PEER, OURS, LIMIT = "channels4", "ours", "bare"

SCENARIOS = {
    "echo": {
        "title": "WebSocket echo, synchronous consumer, 100 sockets with one message in flight each",
        "unit": "messages/s",
        "kind": "websocket",
        "sockets": 100,
        "required": 6.0,
    },
    "broadcast": {
        "title": "Broadcast from one of 1,000 sockets to all, synchronous consumer (times: to the last one)",
        "unit": "deliveries/s",
        "kind": "websocket",
        "sockets": 1000,
        "required": 15.0,
    },
    "http": {
        "title": "HTTP GET of a synchronous hello view, 32 keep-alive connections",
        "unit": "requests/s",
        "kind": "http",
        "sockets": 32,
        "required": 3.0,
    },
}


class BenchmarkError(Exception):
    """A figure could not be taken; the message says of what and why."""


# --- Environments -------------------------------------------------------------------------------


def python_of(environment):
    folder = "Scripts" if os.name == "nt" else "bin"
    return os.path.join(ENVIRONMENTS, environment, folder, "python")


def call(arguments, **options):
    """Run it; its output only if it fails."""
    done = subprocess.run(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode:
        raise BenchmarkError("%s failed:\n%s" % (" ".join(arguments), done.stdout))
    return done.stdout


def make_environment(environment, constraints):
    """A virtual environment with what ``environment`` needs, unless it is there already."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = file.read() if environment == "ours" else b""
    wanted = [sys.version, SERVER, REQUIREMENTS[environment], constraints]
    wanted = hashlib.sha256(repr(wanted).encode() + project).hexdigest()
    stamp = os.path.join(ENVIRONMENTS, environment, "installed")
    with contextlib.suppress(OSError), open(stamp) as file:
        if file.read() == wanted:
            return
    say("making .bench/%s ..." % environment)
    folder = os.path.join(ENVIRONMENTS, environment)
    call([sys.executable, "-m", "venv", "--clear", folder])
    with open(os.path.join(folder, "constraints.txt"), "w") as file:
        file.write("\n".join(constraints))
    call(
        [python_of(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        + ["--constraint", file.name]
        + SERVER
        + REQUIREMENTS[environment]
    )
    with open(stamp, "w") as file:
        file.write(wanted)


def versions_in(environment):
    """Distribution to version, lower-case."""
    listing = call(
        [
            python_of(environment),
            "-m",
            "pip",
            "list",
            "--format=json",
            "--disable-pip-version-check",
        ],
    )
    # Warnings of pip may stand around the one line of JSON.
    line = next(line for line in listing.splitlines() if line.startswith("["))
    return {entry["name"].lower(): entry["version"] for entry in json.loads(line)}


def make_environments():
    """Both environments, ours bound to the peer's versions. Returns ``{environment: versions}``."""
    make_environment("peer", [])
    peer = versions_in("peer")
    shared = ["%s==%s" % (name, peer[name.lower()]) for name in SHARED if name.lower() in peer]
    make_environment("ours", shared)
    ours = versions_in("ours")
    for name in SHARED:
        if peer.get(name.lower()) != ours.get(name.lower()):
            raise BenchmarkError(
                "%s differs: %s with the peer, %s with ours. Remove .bench/ and run again."
                % (name, peer.get(name.lower()), ours.get(name.lower()))
            )
    return {"peer": peer, "ours": ours}


def server_options(tuned, environment="peer"):
    """uvicorn's, the same for all; `tuned` takes uvloop instead of asyncio."""
    text = call([python_of(environment), "-m", "uvicorn", "--help"])
    chosen = ["--log-level", "warning", "--no-access-log", "--ws-per-message-deflate", "false"]
    for option, values in [
        ("--ws", ["websockets-sansio", "websockets"]),
        ("--http", ["httptools", "auto"]),
        ("--loop", ["uvloop", "auto"] if tuned else ["asyncio"]),
    ]:
        offered = re.search(r"%s \[([^]]*)\]" % option, re.sub(r"\s+", " ", text))
        offered = re.split(r"[|\s]+", offered.group(1)) if offered else ["auto"]
        chosen += [option, next((value for value in values if value in offered), "auto")]
    return chosen


# --- Processors ---------------------------------------------------------------------------------


def split_processors():
    """``(for the server, for the generator)``: the last one is the generator's. None: let it float."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return None, None
    return {allowed[0]}, {allowed[-1]}


@contextlib.contextmanager
def on(processors):
    """What is started in here runs there (a child inherits it)."""
    if processors is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_seconds():
    """What all processors of the machine have worked so far, where the system says so."""
    try:
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:]]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


# --- One run ------------------------------------------------------------------------------------


def wait_until_it_listens(process, port, log):
    """Wait until a process listens on `port`; BenchmarkError with the end of its log if it does not."""
    try:
        wait_until(
            lambda: process.poll() is not None or can_connect(port),
            "the server to listen",
            START_SECONDS,
        )
    except AssertionError:
        pass
    if process.poll() is not None or not can_connect(port):
        raise BenchmarkError("the server did not start:\n%s" % tail(log))


def tail(log):
    log.seek(0)
    return "".join(log.readlines()[-12:])


@contextlib.contextmanager
def running(contender, kind, options, processors):
    """The contender behind the server; gives the port. What the server wrote is a failure's text."""
    port = free_port()
    site = os.path.join(HERE, "sites", contender["site"])
    environ = dict(os.environ, DJANGO_SETTINGS_MODULE="settings")
    environ["PYTHONPATH"] = os.path.join(HERE, "sites", "common")
    command = [python_of(contender["environment"]), "-m", "uvicorn", contender[kind]]
    command += ["--app-dir", site, "--host", "127.0.0.1", "--port", str(port)] + options
    with tempfile.TemporaryFile("w+") as log:
        with on(processors):
            process = subprocess.Popen(command, env=environ, cwd=site, stdout=log, stderr=log)
        try:
            wait_until_it_listens(process, port, log)
            yield port, process.pid, log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def measure(name, scenario_name, settings):
    """One figure: start, load, stop. Returns what ``load.py`` printed, with ``log`` if the server wrote."""
    contender, scenario = CONTENDERS[name], SCENARIOS[scenario_name]
    kind = scenario["kind"]
    command = [sys.executable, os.path.join(HERE, "load.py"), scenario_name]
    command += ["--sockets", str(scenario["sockets"])]
    command += ["--warmup", str(settings["warmup"]), "--duration", str(settings["seconds"])]
    if kind == "http":
        command += ["--path", contender.get("http_path", "/hello/")]
    with running(contender, kind, settings["server"], settings["server_processors"]) as (
        port,
        pid,
        log,
    ):
        with on(settings["generator_processors"]):
            try:
                load = subprocess.run(
                    command + ["--port", str(port), "--server-pid", str(pid)],
                    capture_output=True,
                    text=True,
                    timeout=RUN_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise BenchmarkError(
                    "no figure in %d seconds\n%s" % (RUN_SECONDS, tail(log))
                ) from None
        if load.returncode:
            raise BenchmarkError("%s\n%s" % (load.stderr.strip(), tail(log)))
        result = json.loads(load.stdout)
        written = tail(log).strip()
        if written:
            result["log"] = written
    return result


def measure_all(settings):
    """Rounds of all scenarios with all contenders. Returns ``{scenario: {contender: [result, ...]}}``."""
    results = {
        scenario: {name: [] for name in settings["contenders"]}
        for scenario in settings["scenarios"]
    }
    begun = time.monotonic()
    for number in range(settings["rounds"]):
        spent = time.monotonic() - begun
        if number and spent + spent / number > MEASURING_BUDGET:
            say(
                "stopped after %d rounds: the next one would not fit in %d s"
                % (number, MEASURING_BUDGET)
            )
            break
        for scenario in settings["scenarios"]:
            for name in settings["contenders"]:
                try:
                    result = measure(name, scenario, settings)
                    text = "%10.0f %s" % (result["rate"], SCENARIOS[scenario]["unit"])
                except BenchmarkError as error:
                    result = {"error": str(error)}
                    text = "failed: %s" % error
                results[scenario][name].append(result)
                say("round %d  %-9s  %-15s  %s" % (number + 1, scenario, name, text))
    return results


# --- Figures ------------------------------------------------------------------------------------


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(above, below, key="rate"):
    """Of each round's two figures, which were taken seconds apart; None without any."""
    pairs = [
        first[key] / second[key]
        for first, second in zip(above, below)
        if first.get(key) and second.get(key)
    ]
    return spread(pairs) if pairs else None


def evaluate(results, settings):
    """The report as data: medians, spreads, ratios, and what is amiss with them."""
    report = []
    for scenario_name, by_contender in results.items():
        scenario = SCENARIOS[scenario_name]
        entry = dict(scenario, name=scenario_name, contenders=[], warnings=[])
        for name, rounds in by_contender.items():
            good = [result for result in rounds if "error" not in result]
            row = {
                "name": name,
                "title": title_of(name, scenario["kind"], settings),
                "rounds": rounds,
            }
            if good:
                row["rate"] = spread([result["rate"] for result in good])
                for key in ("p50_ms", "p99_ms", "server_us", "generator_cpu"):
                    known = [result[key] for result in good if result[key] is not None]
                    row[key] = statistics.median(known) if known else None
                if (row["generator_cpu"] or 0) > GENERATOR_LIMIT:
                    entry["warnings"].append("%s: the generator was at its limit" % row["title"])
            if len(good) < len(rounds):
                entry["warnings"].append(
                    "%s: %d of %d runs failed"
                    % (row["title"], len(rounds) - len(good), len(rounds))
                )
            noisy = next((result["log"] for result in good if "log" in result), None)
            if noisy:
                entry["warnings"].append(
                    "%s: the server wrote: %s" % (row["title"], noisy.splitlines()[-1][:200])
                )
            entry["contenders"].append(row)
        ours, peer, limit = by_contender[OURS], by_contender[PEER], by_contender[LIMIT]
        entry["ratio"] = ratio(ours, peer)
        entry["cpu_ratio"] = ratio(peer, ours, "server_us")
        entry["limit_ratio"] = ratio(limit, peer)
        entry["met"] = bool(entry["ratio"]) and entry["ratio"]["median"] >= scenario["required"]
        report.append(entry)
    return report


def title_of(name, kind, settings):
    contender = CONTENDERS[name]
    title = (
        contender.get("http_title", contender["title"]) if kind == "http" else contender["title"]
    )
    peer = settings["versions"]["peer"]
    return title.format(channels=peer["channels"], django=peer["django"])


def print_report(report, notes):
    for entry in report:
        print("\n%s\n" % entry["title"])
        line = "  %-38s %12s  %17s %8s %8s %8s %7s"
        heads = ("", entry["unit"], "min - max", "p50 ms", "p99 ms", "CPU us", "client")
        print(line % heads)
        for row in entry["contenders"]:
            if "rate" not in row:
                print("  %-38s %12s" % (row["title"], "failed"))
                continue
            rate = row["rate"]
            cells = (
                row["title"],
                number(rate["median"]),
                "%s - %s" % (number(rate["min"]), number(rate["max"])),
                decimals(row["p50_ms"], 2),
                decimals(row["p99_ms"], 2),
                decimals(row["server_us"], 1),
                "" if row["generator_cpu"] is None else "%.0f %%" % (100 * row["generator_cpu"]),
            )
            print(line % cells)
        for label, value, required in (
            ("this project / peer", entry["ratio"], entry["required"]),
            ("the same by processor time", entry["cpu_ratio"], None),
            ("the limit / peer", entry["limit_ratio"], None),
        ):
            if value is None:
                continue
            line = "  %-38s %10.1f x  %17s" % (
                label,
                value["median"],
                "%.1f - %.1f" % (value["min"], value["max"]),
            )
            if required is not None:
                line += "   required: %g x  %s" % (required, "met" if entry["met"] else "NOT MET")
            print(line)
        for warning in entry["warnings"]:
            print("  ! %s" % warning)
    print()
    if any(CONTENDERS[row["name"]].get("for_information") for row in report[0]["contenders"]):
        print("* for information: asynchronous code, not what the required ratios compare with")
    for note in notes:
        print(note)


def number(value):
    return "{:,.0f}".format(value)


def decimals(value, places):
    return "" if value is None else "%.*f" % (places, value)


def processor_name():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(settings, others):
    """The notes below the table: what the figures were taken on."""
    versions = settings["versions"]
    shared = ", ".join(
        "%s %s" % (name, versions["peer"][name.lower()])
        for name in SHARED
        if name.lower() in versions["peer"]
    )
    notes = [
        "machine: %s, %d processors, %s" % (processor_name(), os.cpu_count(), platform.platform()),
        "python %s; for all: %s" % (platform.python_version(), shared),
        "peer: channels %s; ours: channels %s"
        % (versions["peer"]["channels"], versions["ours"]["channels"]),
        "server: uvicorn %s" % " ".join(settings["server"]),
    ]
    if settings["server_processors"] is None:
        notes.append("processors: server and generator float over all of them")
    else:
        notes.append(
            "processors: server on %s, generator on %s"
            % (
                ",".join(map(str, sorted(settings["server_processors"]))),
                ",".join(map(str, sorted(settings["generator_processors"]))),
            )
        )
    notes.append(
        "CPU us: the server's processor time for each; client: the generator's share of a core"
    )
    notes.append(
        "rounds: %d of %g s each after %g s of warm-up, contenders in turn; medians; a ratio is the median"
        " of the rounds' ratios" % (settings["rounds"], settings["seconds"], settings["warmup"])
    )
    if others is not None:
        text = "other programs meanwhile used %d %% of the machine" % round(100 * others)
        notes.append(text + (": TAKE THESE FIGURES AS NOISY" if others > 0.05 else ""))
    return notes


# --- The command --------------------------------------------------------------------------------


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenario", nargs="*", help="of: %s (default: all)" % ", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="under a minute, and noisier")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where a required ratio is missed"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write everything there too ('-': stdout, no table)"
    )
    parser.add_argument("--rounds", type=int, help="default: 5 (2 with --quick)")
    parser.add_argument(
        "--seconds", type=float, help="that one figure takes: 1.5 (0.5 with --quick)"
    )
    parser.add_argument(
        "--tuned",
        action="store_true",
        help="what suits the peer best: uvloop, and a separate processor for the server",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.scenario) - set(SCENARIOS)
    if unknown:
        parser.error("no such scenario: %s" % ", ".join(sorted(unknown)))
    return arguments


def raise_open_files(number=OPEN_FILES):
    """Allow more open files than many shells do, for many sockets. Root may exceed the hard limit."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    allow_open_files(number)


def children_seconds():
    times = os.times()
    return times.children_user + times.children_system


def main():
    arguments = parse_arguments()
    if sys.version_info < (3, 10):
        sys.exit(
            "Django 5.2 next to the peer needs Python 3.10 or newer: make bench PYTHON=python3.11"
        )
    raise_open_files()
    try:
        versions = make_environments()
        options = server_options(arguments.tuned)
    except BenchmarkError as error:
        sys.exit(str(error))
    server_processors, generator_processors = (
        split_processors() if arguments.tuned else (None, None)
    )
    settings = {
        "rounds": arguments.rounds or (2 if arguments.quick else 5),
        "seconds": arguments.seconds or (0.5 if arguments.quick else 1.5),
        "warmup": 0.25 if arguments.quick else 0.5,
        "scenarios": [name for name in SCENARIOS if name in (arguments.scenario or SCENARIOS)],
        "contenders": [
            name
            for name, contender in CONTENDERS.items()
            if not (arguments.quick and contender.get("for_information"))
        ],
        "server": options,
        "server_processors": server_processors,
        "generator_processors": generator_processors,
        "versions": versions,
    }
    begun, busy, own = time.monotonic(), busy_seconds(), children_seconds()
    results = measure_all(settings)
    elapsed = time.monotonic() - begun
    others = None
    if busy is not None:
        used = busy_seconds() - busy - (children_seconds() - own)
        others = max(0.0, used / (elapsed * os.cpu_count()))
    settings["rounds"] = max(len(rounds) for by in results.values() for rounds in by.values())
    report = evaluate(results, settings)
    notes = describe(settings, others)
    if arguments.json:
        data = {"scenarios": report, "notes": notes, "versions": versions, "others": others}
        data["seconds"] = elapsed
        text = json.dumps(data, indent=2)
        if arguments.json == "-":
            print(text)
        else:
            with open(arguments.json, "w") as file:
                file.write(text + "\n")
    if arguments.json != "-":
        print_report(report, notes)
    if any(
        "error" in result for by in results.values() for rounds in by.values() for result in rounds
    ):
        sys.exit("some runs failed, see above")
    if arguments.check and not all(entry["met"] for entry in report):
        sys.exit("a required ratio was missed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
