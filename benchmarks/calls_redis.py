"""What a message over Redis costs: Python calls and round trips, of the gateway and of the worker.

    python benchmarks/calls_redis.py       # prints one JSON object: {row: figure for each message}

``calls.py`` runs it and compares the figures. It starts a Redis server and a worker process with one
thread. One client does what ``calls.py`` says, and pauses before each message until the worker waits
again. So no two messages share a round trip, and the figures are the same on a busy machine. With many
clients a message costs a fraction of them.

A round trip is one exchange with the server, whatever the number of its commands. The gateway makes its own
through ``DirectLink``, the worker through ``Direct`` (asgi_redis/direct.py).
"""

import asyncio
import json
import os
import subprocess
import sys
import threading

import calls

#: Seconds before each message.
PAUSE = 0.02

counts = {"calls": 0, "round trips": 0}


def _count(frame, event, argument):
    if event == "call":
        counts["calls"] += 1


def _layer():
    """Return this process's layer, whose calls and round trips are counted from now on."""
    sys.path[:0] = [os.path.join(calls.HERE, "sites", name) for name in ("ours", "common")]
    os.environ["DJANGO_SETTINGS_MODULE"] = "redis_settings"
    threading.setprofile(_count)  # the threads that the application starts
    from asgi_redis.direct import Direct, DirectLink
    from channels.asgi import get_channel_layer

    for name in (Direct, DirectLink):
        name._exchange = _counted(name._exchange)
    return get_channel_layer()


def _counted(exchange):
    def counted(*arguments):
        counts["round trips"] += 1
        return exchange(*arguments)

    return counted


def _reset():
    counts.update(dict.fromkeys(counts, 0))


def work():
    """Be the worker process: each line of the input asks for the counts since the last one."""
    layer = _layer()
    from channels.worker import WorkerGroup

    group = WorkerGroup(layer, threads=1)
    group.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        found = dict(counts)
        _reset()
        print(json.dumps(found), flush=True)
    group.stop()


def measure():
    """Return {row: figure for each message}."""
    command = [sys.executable, os.path.abspath(__file__), "--work"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if worker.stdout.readline() != "ready\n":
            raise SystemExit("The worker did not start.")
        return asyncio.run(_measure(_layer(), worker))
    finally:
        worker.stdin.close()
        worker.wait()


async def _measure(application, worker):
    def ask():
        worker.stdin.write("\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    found = {}
    for workload in (calls.http, calls.echo):
        await workload(application, PAUSE)  # what is done once is done here
        ask()
        _reset()
        sys.setprofile(_count)
        await workload(application, PAUSE)
        sys.setprofile(None)
        for process, by in (("gateway", dict(counts)), ("worker", ask())):
            for what, count in by.items():
                row = "%s over Redis, %s, %s" % (workload.__name__, process, what)
                found[row] = round(count / calls.TIMES, 1)
    return found


def main():
    if sys.argv[1:] == ["--work"]:
        work()
        return
    sys.path.insert(1, os.path.join(os.path.dirname(calls.HERE), "tests"))
    from channels_tests.support.redis_server import RedisServer

    server = RedisServer().start()
    try:
        os.environ["BENCH_REDIS"] = server.url
        print(json.dumps(measure()))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
