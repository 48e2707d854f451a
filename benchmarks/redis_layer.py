"""The benchmarks of the Redis layer, side by side in one run on one Redis that it starts.

``python benchmarks/redis_layer.py`` measures calls from synchronous code against channels_redis 4.3, echo
against Channels 4 in process and Channels 1.1 with daphne 1.4 and asgi_redis 1.4 (where a Python 3.7 is
found: PYTHON37), broadcast against Channels 4 with channels_redis, and what an idle site costs. Needs
``redis-server`` on the path. Environments and the load are those of ``run.py``.
"""

import argparse
import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import run
from run import BenchmarkError, number, say, spread

from channels_tests.support.ports import free_port
from channels_tests.support.redis_server import RedisServer

PEER, OURS, FORMER = "redis-peer", "redis-ours", "redis-former"

run.REQUIREMENTS[PEER] = ["channels>=4.3,<4.4", "channels_redis>=4.3,<4.4", "hiredis"]
run.REQUIREMENTS[OURS] = [
    "--editable",
    run.ROOT,
    "--editable",
    os.path.join(run.ROOT, "asgi_redis") + "[fast]",
]
FORMER_REQUIREMENTS = [
    "channels==1.1.8",
    "daphne==1.4.2",
    "asgi_redis==1.4.3",
    "asgiref==1.1.2",
    "Django==1.11.29",
    "redis<3",
    "Twisted<21",
    "autobahn<21",
]

SECONDS, WARMUP = 2.0, 0.5
IDLE_SECONDS = 10.0
REQUIRED = {
    "frame": 10,
    "request": 10,
    "group": 20,
    "echo": 3,
    "echo-former": 8,
    "broadcast": 15,
}


# --- Environments -------------------------------------------------------------------------------


def find_python37():
    named = os.environ.get("PYTHON37")
    found = (
        [named]
        if named
        else sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.7*/bin/python")))
    )
    found += [shutil.which("python3.7")]
    return next((path for path in found if path and os.path.exists(path)), None)


def make_former_environment():
    """Channels 1.1 and its own, on Python 3.7; why not, where that fails."""
    folder = os.path.join(run.ENVIRONMENTS, FORMER)
    stamp = os.path.join(folder, "installed")
    if os.path.exists(stamp):
        return None
    python = find_python37()
    if python is None:
        return "no Python 3.7 is found (PYTHON37 names one)"
    say("making .bench/%s ..." % FORMER)
    try:
        run.call([python, "-m", "venv", "--clear", folder])
        run.call([run.python_of(FORMER), "-m", "pip", "install", "--quiet"] + FORMER_REQUIREMENTS)
    except BenchmarkError as error:
        return str(error).strip().splitlines()[-1]
    with open(stamp, "w") as file:
        file.write("installed")
    return None


# --- Processes ----------------------------------------------------------------------------------


@contextlib.contextmanager
def started(command, **options):
    """Start a process and end it afterwards; gives the process and its log."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            yield process, log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(run.STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def redis_server():
    """Start a Redis server; gives its port and its process."""
    server = RedisServer().start()
    try:
        yield server.port, server.process
    finally:
        server.remove()


@contextlib.contextmanager
def site(name, redis_port, server_options):
    """A contender's processes: gives the port and the processes, the server first."""
    environment, folder, settings, workers = {
        "ours": (OURS, "ours", "redis_settings", True),
        "channels4": (PEER, "channels4", "settings", False),
        "channels4-redis": (PEER, "channels4", "redis_settings", False),
        "channels1": (FORMER, "channels1", "settings", True),
    }[name]
    port = free_port()
    common = os.path.join(run.HERE, "sites", "common")
    folder = os.path.join(run.HERE, "sites", folder)
    environ = dict(
        os.environ,
        DJANGO_SETTINGS_MODULE=settings,
        PYTHONPATH=common,
        BENCH_REDIS="redis://127.0.0.1:%d/0" % redis_port,
        PYTHONWARNINGS="ignore",
    )
    python = run.python_of(environment)
    application = "asgi:channel_layer" if workers else "asgi:application"
    if environment == FORMER:
        command = [os.path.join(os.path.dirname(python), "daphne")]
        command += ["-b", "127.0.0.1", "-p", str(port), "-v", "0", application]
        environ["PYTHONPATH"] += os.pathsep + folder
    else:
        command = [python, "-m", "uvicorn", application, "--app-dir", folder]
        command += ["--host", "127.0.0.1", "--port", str(port)] + server_options
    with contextlib.ExitStack() as stack:
        options = {"env": environ, "cwd": folder}
        server, log = stack.enter_context(started(command, **options))
        run.wait_until_it_listens(server, port, log)
        processes = [server]
        if workers:
            command = [python, os.path.join(common, "manage.py"), "runworker", "--threads", "4"]
            processes.append(stack.enter_context(started(command, **options))[0])
            time.sleep(2)
        yield port, processes, log


def load(scenario, port, log, sockets):
    command = [sys.executable, os.path.join(run.HERE, "load.py"), scenario]
    command += ["--sockets", str(sockets), "--port", str(port)]
    command += ["--warmup", str(WARMUP), "--duration", str(SECONDS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=run.RUN_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(
            "no figure in %d seconds\n%s" % (run.RUN_SECONDS, run.tail(log))
        ) from None
    if done.returncode:
        raise BenchmarkError("%s\n%s" % (done.stderr.strip(), run.tail(log)))
    return json.loads(done.stdout)


def cpu_seconds(process):
    with open("/proc/%d/stat" % process.pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- Figures ------------------------------------------------------------------------------------


def calls(layer, environment, redis_port):
    command = [run.python_of(environment), os.path.join(run.HERE, "redis_calls.py")]
    command += ["--layer", layer, "--url", "redis://127.0.0.1:%d/0" % redis_port]
    return json.loads(run.call(command, timeout=run.RUN_SECONDS).splitlines()[-1])


def redis_command(redis_port, *words):
    return run.call(["redis-cli", "-p", str(redis_port)] + list(words))


def commands_so_far(redis_port):
    for line in redis_command(redis_port, "INFO", "stats").splitlines():
        if line.startswith("total_commands_processed:"):
            return int(line.split(":")[1])
    raise BenchmarkError("Redis does not say how many commands it has processed")


def idle(redis_port, server_options):
    """What 1,000 quiet sockets and 4 idle worker threads cost: shares of a core, Redis commands a second."""
    sys.path.insert(0, run.HERE)
    from load import close, open_websockets

    with site("ours", redis_port, server_options) as (port, processes, log):
        sockets = open_websockets(port, "/broadcast/", 1000)
        time.sleep(2)
        before = [cpu_seconds(each) for each in processes]
        commands, begin = commands_so_far(redis_port), time.monotonic()
        time.sleep(IDLE_SECONDS)
        elapsed = time.monotonic() - begin
        used = [(cpu_seconds(each) - was) / elapsed for each, was in zip(processes, before)]
        rate = (commands_so_far(redis_port) - commands) / elapsed
        with contextlib.suppress(Exception):
            close(sockets, True)
    return {"gateway": used[0], "worker": used[1], "commands": rate}


def measure_round(results, redis_port, redis_process, server_options, contenders):
    def take(key, function):
        redis_command(redis_port, "FLUSHALL")
        try:
            results.setdefault(key, []).append(function())
            say("%-20s %s" % (key, json.dumps(results[key][-1])[:150]))
        except BenchmarkError as error:
            results.setdefault("failures", []).append("%s: %s" % (key, error))
            say("%-20s failed: %s" % (key, error))

    take("calls ours", lambda: calls("ours", OURS, redis_port))
    take("calls peer", lambda: calls("channels_redis", PEER, redis_port))

    def through(name, scenario, sockets):
        def function():
            with site(name, redis_port, server_options) as (port, processes, log):
                counted = list(processes) if name == "channels4" else processes + [redis_process]
                before = sum(map(cpu_seconds, counted))
                result = load(scenario, port, log, sockets)
                # Of all its processes, the handshakes and the warm-up included.
                used = sum(map(cpu_seconds, counted)) - before
                result["cpu_us"] = 1e6 * used / (result["rate"] * (SECONDS + WARMUP))
                return result

        return function

    take("echo ours", through("ours", "echo", 100))
    take("echo channels4", through("channels4", "echo", 100))
    if "channels1" in contenders:
        take("echo channels1", through("channels1", "echo", 100))
    take("broadcast ours", through("ours", "broadcast", 1000))
    take("broadcast channels4", through("channels4-redis", "broadcast", 1000))


def compare(above, below):
    pairs = [one / other for one, other in zip(above, below) if one and other]
    return spread(pairs) if pairs else None


def print_table(results, why_no_former):
    met = []

    def row(title, unit, ours, peer, required, peer_name, higher=True):
        if not ours or not peer:
            print("  %-44s no figure" % title)
            met.append(False)
            return
        ratio = compare(ours, peer) if higher else compare(peer, ours)
        good = ratio["median"] >= required
        met.append(good)
        places = 0 if higher else 3
        print(
            "  %-44s %10.*f  %-34s %10.*f  %-6s %6.1f x (%.1f - %.1f)  required %g x: %s"
            % (
                (title, places, spread(ours)["median"], peer_name, places, spread(peer)["median"])
                + (unit, ratio["median"], ratio["min"], ratio["max"], required)
                + ("met" if good else "NOT MET",)
            )
        )

    ours, peer = results.get("calls ours", []), results.get("calls peer", [])

    def pick(key):
        return [each[key] for each in ours], [each[key] for each in peer]

    print("\nthis project, next to:")
    row("send + receive, a frame", "/s", *pick("frame"), REQUIRED["frame"], "channels_redis")
    row("send + receive, a request", "/s", *pick("request"), REQUIRED["request"], "channels_redis")
    for members in ("10", "1000", "10000"):
        first = [each["group"][members] for each in ours]
        second = [each["group"][members] for each in peer]
        title = "send_group to %s members of a gateway" % number(int(members))
        if members == "1000":
            row(title, "ms", first, second, REQUIRED["group"], "channels_redis", higher=False)
        elif first and second:
            print(
                "  %-44s %10.3f  %-34s %10.3f  ms"
                % (title, spread(first)["median"], "channels_redis", spread(second)["median"])
            )
    rates = {
        key: [each["rate"] for each in results.get(key, [])]
        for key in (
            "echo ours",
            "echo channels4",
            "echo channels1",
            "broadcast ours",
            "broadcast channels4",
        )
    }
    title = "echo: gateway, Redis, worker; 100 sockets"
    row(
        title,
        "/s",
        rates["echo ours"],
        rates["echo channels4"],
        REQUIRED["echo"],
        "Channels 4, sync consumer in process",
    )
    if why_no_former:
        print("  %-44s Channels 1.1 was not measured: %s" % ("", why_no_former))
    else:
        row(
            title,
            "/s",
            rates["echo ours"],
            rates["echo channels1"],
            REQUIRED["echo-former"],
            "Channels 1.1, daphne 1.4",
        )
    row(
        "broadcast to 1,000 sockets",
        "/s",
        rates["broadcast ours"],
        rates["broadcast channels4"],
        REQUIRED["broadcast"],
        "Channels 4 with channels_redis",
    )
    print(
        "\nprocessor time for each message or delivery, of all processes and Redis, in microseconds:"
    )
    for key in rates:
        costs = [each["cpu_us"] for each in results.get(key, [])]
        if costs:
            print("  %-44s %10.1f" % (key, spread(costs)["median"]))
    for each in results.get("idle", []):
        good = each["gateway"] + each["worker"] < 0.01 and each["commands"] < 20
        met.append(good)
        print(
            "  idle: 1,000 quiet sockets, 4 worker threads: gateway %.2f %% and worker %.2f %% of a core, "
            "%.1f Redis commands/s  required under 1 %% and 20: %s"
            % (
                100 * each["gateway"],
                100 * each["worker"],
                each["commands"],
                "met" if good else "NOT MET",
            )
        )
    for failure in results.get("failures", []):
        print("  ! %s" % failure.splitlines()[0])
    return all(met)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where a required ratio is missed"
    )
    parser.add_argument("--tuned", action="store_true", help="uvloop, for all, instead of asyncio")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    arguments = parser.parse_args()
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is not installed: these benchmarks start their own.")
    run.raise_open_files()
    try:
        run.make_environment("peer", [])
        shared = run.versions_in("peer")
        pins = [
            "%s==%s" % (name, shared[name.lower()]) for name in run.SHARED if name.lower() in shared
        ]
        run.make_environment(PEER, pins)
        run.make_environment(OURS, pins)
        why_no_former = make_former_environment()
        server_options = run.server_options(arguments.tuned)
    except BenchmarkError as error:
        sys.exit(str(error))
    contenders = [] if why_no_former else ["channels1"]
    results = {}
    busy, own, begun = run.busy_seconds(), run.children_seconds(), time.monotonic()
    with redis_server() as (port, process):
        for _ in range(arguments.rounds):
            measure_round(results, port, process, server_options, contenders)
        redis_command(port, "FLUSHALL")
        try:
            results["idle"] = [idle(port, server_options)]
        except BenchmarkError as error:
            results.setdefault("failures", []).append("idle: %s" % error)
        version = redis_command(port, "INFO", "server").split("redis_version:")[1].split()[0]
    others = None
    if busy is not None:
        used = run.busy_seconds() - busy - (run.children_seconds() - own)
        others = max(0.0, used / ((time.monotonic() - begun) * os.cpu_count()))
    met = print_table(results, why_no_former)
    print(
        "\nRedis %s, %d processors, rounds: %d; processes float"
        % (version, os.cpu_count(), arguments.rounds)
    )
    if others is not None:
        print("other programs meanwhile used about %d %% of the machine" % round(100 * others))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=2)
    if arguments.check and not met:
        sys.exit("a required ratio was missed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
