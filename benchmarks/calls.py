"""A gate against regressions that needs no quiet machine: how many Python functions a message calls.

    python benchmarks/calls.py            # exit status 1 if a figure is 10 % above the stored one
    python benchmarks/calls.py --store    # store the figures of this tree

Processor time tells more (``gate.py``), but not on a machine that does other work. The calls are those of all
threads of one process with the in-memory layer: gateway, layer, worker, Django. This file takes the
place of a server: it speaks ASGI to the gateway. The figures depend on the versions of Python and of
Django, and are compared only with those of the same ones.

If redis-server is installed, ``calls_redis.py`` counts what a message over Redis costs: calls and round
trips, of the gateway and of the worker.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
STORED = os.path.join(HERE, "calls.json")

#: How much more a figure may be than the stored one.
TOLERANCE = 1.10

#: Clients at the same time, and what each of them does in a round.
CLIENTS, TIMES = 20, 50

SCOPE = {
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "server": ("127.0.0.1", 8000),
    "client": ("127.0.0.1", 40000),
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1:8000")],
}
HTTP = dict(SCOPE, type="http", scheme="http", method="GET", path="/hello/", raw_path=b"/hello/")
SOCKET = dict(SCOPE, type="websocket", scheme="ws", subprotocols=[])


class Client:
    """One connection of the gateway: what it receives is put here, what it sends is waited for."""

    def __init__(self, application, scope):
        self.incoming, self.outgoing = asyncio.Queue(), asyncio.Queue()
        self.task = asyncio.ensure_future(
            application(dict(scope, state={}), self.incoming.get, self.outgoing.put)
        )

    async def exchange(self, event):
        self.incoming.put_nowait(event)
        return await self.outgoing.get()

    async def end(self, event):
        self.incoming.put_nowait(event)
        await self.task


async def http(application, pause=0.0):
    """Requests, each with its answer, and `pause` seconds before each."""
    for _ in range(TIMES):
        if pause:
            await asyncio.sleep(pause)
        client = Client(application, HTTP)
        started = await client.exchange({"type": "http.request", "body": b"", "more_body": False})
        assert started["status"] == 200, started
        await client.end({"type": "http.disconnect"})


async def open_socket(application, path):
    client = Client(application, dict(SOCKET, path=path, raw_path=path.encode()))
    accepted = await client.exchange({"type": "websocket.connect"})
    assert accepted["type"] == "websocket.accept", accepted
    return client


async def close_socket(client):
    await client.end({"type": "websocket.disconnect", "code": 1000})


async def connect(application):
    """Sockets that connect and disconnect."""
    for _ in range(TIMES):
        await close_socket(await open_socket(application, "/echo/"))


async def echo(application, pause=0.0):
    """Frames that a consumer answers, one at a time for each socket, and `pause` seconds before each."""
    client = await open_socket(application, "/echo/")
    for _ in range(TIMES):
        if pause:
            await asyncio.sleep(pause)
        answer = await client.exchange({"type": "websocket.receive", "text": "hello"})
        assert answer["text"] == "hello", answer
    await close_socket(client)


async def at_once(workload, application):
    await asyncio.gather(*(workload(application) for _ in range(CLIENTS)))


async def broadcast(application):
    """Deliveries of what one member of a group sends to all."""
    members = [await open_socket(application, "/broadcast/") for _ in range(CLIENTS)]
    for _ in range(TIMES):
        members[0].incoming.put_nowait({"type": "websocket.receive", "text": "hello"})
        for member in members:
            await member.outgoing.get()
    for member in members:
        await close_socket(member)


def measure():
    """Return {workload: calls of Python functions for each message}."""
    sys.path[:0] = [os.path.join(HERE, "sites", name) for name in ("ours", "common")]
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    calls = [0]

    def count(frame, event, argument):
        if event == "call":
            calls[0] += 1

    threading.setprofile(count)  # the threads that the application starts
    from channels.asgi import get_channel_layer

    application, found = get_channel_layer(), {}

    async def run():
        for workload in (http, connect, echo):
            await at_once(workload, application)  # what is done once is done here
            calls[0] = 0
            await at_once(workload, application)
            found[workload.__name__] = calls[0] / (CLIENTS * TIMES)
        await broadcast(application)
        calls[0] = 0
        await broadcast(application)
        found["broadcast"] = calls[0] / (CLIENTS * TIMES)

    sys.setprofile(count)
    try:
        asyncio.run(run())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {name: round(value, 1) for name, value in found.items()}


def measure_redis():
    """Return what calls_redis.py finds; nothing where redis-server is missing."""
    if not shutil.which(os.environ.get("REDIS_SERVER") or "redis-server"):
        print("Not counted: messages over Redis. Install redis-server.")
        return {}
    command = [sys.executable, os.path.join(HERE, "calls_redis.py")]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def versions():
    import django

    return "Python %s, Django %d.%d" % (
        ".".join(platform.python_version_tuple()[:2]),
        *django.VERSION[:2],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", action="store_true", help="store the figures of this tree")
    arguments = parser.parse_args()
    if not arguments.store and not os.path.exists(STORED):
        sys.exit(
            "No figures are stored: run python benchmarks/calls.py --store, and commit %s." % STORED
        )
    found = measure()
    found.update(measure_redis())
    if arguments.store:
        with open(STORED, "w") as file:
            json.dump({"versions": versions(), "calls": found}, file, indent=1)
            file.write("\n")
    with open(STORED) as file:
        stored = json.load(file)
    if stored["versions"] != versions():
        print("Not compared: %s; the stored figures are of %s." % (versions(), stored["versions"]))
        print(found)
        return
    failed = False
    for name, value in found.items():
        if name not in stored["calls"]:
            sys.exit("No figure is stored for %r: run python benchmarks/calls.py --store." % name)
        limit = stored["calls"][name] * TOLERANCE
        failed = failed or value > limit
        verdict = "TOO MANY" if value > limit else "ok"
        print(
            "%-38s %6.1f; stored %.1f, at most %.1f: %s"
            % (name, value, stored["calls"][name], limit, verdict)
        )
    if failed:
        sys.exit("This tree calls more functions than the stored figures allow.")


if __name__ == "__main__":
    main()
