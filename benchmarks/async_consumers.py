"""A thousand sockets on one worker process, each of whose consumers waits for a second.

``python benchmarks/async_consumers.py`` runs the site in one process (in memory), and as a gateway and a
worker on a Redis that it starts. A socket sends its next frame when the last one was answered, so at most one
frame a second is answered for each socket. ``cores`` is how much of a processor the site's processes took
together. Needs the environment of ``make test``, and ``redis-server`` on the path.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(FOLDER), "tests"))

from channels_tests.support.ports import can_connect, free_port  # noqa: E402
from channels_tests.support.redis_server import RedisServer  # noqa: E402

START_SECONDS = 30.0


def environment(**changes):
    folders = [os.path.join(FOLDER, "sites", each) for each in ("ours", "common")]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(folders), **changes)


@contextlib.contextmanager
def process(command, env):
    started = subprocess.Popen(
        [sys.executable, *command], env=env, cwd=os.path.join(FOLDER, "sites", "ours")
    )
    try:
        yield started.pid
    finally:
        started.terminate()
        started.wait()


def spent(pid):
    """The seconds of a processor that a process took so far."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(pids, port, path, options):
    deadline = time.monotonic() + START_SECONDS
    while not can_connect(port):
        if time.monotonic() > deadline:
            raise SystemExit("The server did not start.")
        time.sleep(0.1)
    command = [sys.executable, os.path.join(FOLDER, "load.py"), "echo", "--socket-path", path]
    command += ["--port", str(port), "--sockets", str(options.sockets)]
    command += ["--warmup", str(options.warmup), "--duration", str(options.seconds)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(options.warmup + options.seconds / 4)
    before, begun = sum(map(spent, pids)), time.monotonic()
    time.sleep(options.seconds / 2)
    cores = (sum(map(spent, pids)) - before) / (time.monotonic() - begun)
    output, _ = load.communicate()
    if load.returncode:
        raise SystemExit("The load failed.")
    return dict(json.loads(output), cores=cores)


def show(name, result):
    text = "%-34s %8.0f answers/s   p50 %5.0f ms   p99 %5.0f ms   %.2f cores"
    values = (result["rate"], result["p50_ms"], result["p99_ms"], result["cores"])
    print(text % ((name, *values)), flush=True)


def server(port):
    command = ["-m", "uvicorn", "--port", str(port), "--log-level", "error"]
    # The load does not answer pings.
    return [*command, "--ws-ping-interval", "3600", "asgi:channel_layer"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=8.0)
    parser.add_argument(
        "--path", default="/echo-later/", help="/echo-later/, /echo-async/ or /echo/"
    )
    options = parser.parse_args()
    number = str(2 * options.sockets)  # one address has half of them
    port = free_port()
    env = environment(DJANGO_SETTINGS_MODULE="settings", BENCH_ASYNC=number)
    with process(server(port), env) as pid:
        show("in one process", measure([pid], port, options.path, options))
    redis = RedisServer.shared()
    env = environment(DJANGO_SETTINGS_MODULE="redis_settings", BENCH_REDIS=redis.url)
    worker = [os.path.join(FOLDER, "sites", "common", "manage.py"), "runworker", "-v0"]
    worker += ["--async-concurrency", number]
    port = free_port()
    with process(server(port), env) as gateway, process(worker, env) as pid:
        show("gateway and worker on Redis", measure([gateway, pid], port, options.path, options))


if __name__ == "__main__":
    main()
