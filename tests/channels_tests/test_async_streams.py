"""
Clients of token streams that leave or read nothing, and workers that are told to end meanwhile.

Gateway and worker are real processes.
"""

import functools
import json
import signal
import socket
import time
import unittest
import urllib.request

import django

from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import SCALE, TIMEOUT, wait_until
from .test_async_killed import OnDatabase
from .test_database_layer import SQLiteCase

ROUTING = """
import asyncio
import contextlib
import json
import threading

from {channels} import Group, route

TOKEN = "x" * 50000


def connect(message):
    message.reply_channel.send({"accept": True})


async def forever(message):
    number = 0
    while True:
        await message.reply_channel.asend({"text": "%d %s" % (number, TOKEN)})
        number += 1
        if "slowly" in message["text"]:
            await asyncio.sleep(0.01)


async def plain(message):
    await forever(message)


async def clears_up(message):
    try:
        await forever(message)
    finally:
        await Group("others").asend({"text": "ended"})
        await message.reply_channel.asend({"text": "the last"})


async def swallows(message):
    while True:
        try:
            await forever(message)
        except asyncio.CancelledError:
            print("swallowed", flush=True)


async def shields(message):
    await asyncio.shield(forever(message))


async def in_a_task(message):
    await asyncio.ensure_future(forever(message))


async def in_many_tasks(message):
    await asyncio.gather(*(forever(message) for _ in range(5)))


async def leaves_a_task(message):
    task = asyncio.ensure_future(forever(message))
    await asyncio.sleep(0.2)
    del task


@contextlib.asynccontextmanager
async def says(message):
    await message.reply_channel.asend({"text": "begins"})
    try:
        yield
    finally:
        await message.reply_channel.asend({"text": "ends"})


async def in_a_context(message):
    async with says(message):
        await forever(message)


async def with_a_timeout(message):
    await asyncio.wait_for(forever(message), 3600)


async def model():
    while True:
        yield TOKEN
        await asyncio.sleep(0)


async def from_a_generator(message):
    generator = model()
    try:
        async for token in generator:
            await message.reply_channel.asend({"text": token})
    finally:
        await generator.aclose()


async def to_a_group(message):
    await Group("own").aadd(message.reply_channel)
    while True:
        await Group("own").asend({"text": TOKEN})
        await message.reply_channel.asend({"text": TOKEN})


def noted(name, consumer):
    async def run(message, **kwargs):
        print("begun %s" % name, flush=True)
        try:
            await consumer(message)
        except BaseException as error:
            print("ended %s %s" % (name, type(error).__name__), flush=True)
            raise
        print("ended %s" % name, flush=True)

    return run


def stats(message):
    loop = message.worker.loop
    found = {"threads": sorted(each.name for each in threading.enumerate())}
    if loop._loop is not None:
        found["tasks"] = len(asyncio.all_tasks(loop._loop))
        found["windows"] = len(loop.windows._windows)
        found["places"] = loop.places.used
        found["paused"] = loop.places.paused
        found["events"] = len(loop._events)
    message.reply_channel.send({"text": json.dumps(found)})


KINDS = {
    each.__name__: each
    for each in (
        plain, clears_up, swallows, shields, in_a_task, in_many_tasks, leaves_a_task, in_a_context,
        with_a_timeout, from_a_generator, to_a_group,
    )
}

channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", stats, path=r"^/stats/$"),
] + [
    route("websocket.receive", noted(name, each), path=r"^/%s/$" % name)
    for name, each in KINDS.items()
]
"""


VIEWS = """
import asyncio

from django.http import StreamingHttpResponse


def index(request):
    async def parts():
        print("begun a response", flush=True)
        try:
            yield b"first"
            await asyncio.sleep(3600)
        finally:
            print("ended a response", flush=True)

    return StreamingHttpResponse(parts())
"""


class Client:
    """A WebSocket of the test, on a plain socket, so that it may leave as it likes."""

    def __init__(self, server, path):
        import websocket

        self.socket = websocket.create_connection(server.websocket_url(path), timeout=TIMEOUT)

    def ask(self, text):
        self.socket.send(text)
        return self

    def read(self, number):
        for _ in range(number):
            self.socket.recv()

    def close(self):
        """Leave with a close frame."""
        self.socket.send_close()
        self.socket.shutdown()

    def vanish(self):
        """Leave without one."""
        self.socket.shutdown()  # which closes it

    def reset(self):
        """Leave as a client does that crashes."""
        sock = self.socket.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()


#: The streams: see ROUTING.
KINDS = (
    "plain clears_up swallows shields in_a_task in_many_tasks leaves_a_task in_a_context with_a_timeout "
    "from_a_generator to_a_group"
).split()

#: Seconds that a busy machine may take in addition.
SLACK = TIMEOUT / 2

LEAVES = ("close", "vanish", "reset")


class StreamTests:
    server = "uvicorn"

    def setUp(self):
        super().setUp()
        require("uvicorn", "websockets", "websocket")
        layer = self.make_layer()
        layer.flush()
        self.project = Project(
            {"mysite/routing.py": ROUTING, "mysite/views.py": VIEWS},
            self.layer_settings({"heartbeat": 0.2, "lease": 2 * SCALE}),
        )
        self.addCleanup(self.project.close)
        self.gateway = serve(self.project, self.server)
        self.addCleanup(self.gateway.kill)

    def worker(self, *args):
        worker = self.project.manage("runworker", "--threads", "2", *args)
        self.addCleanup(worker.kill)
        worker.wait_for_output("Quit with")
        return worker

    def stats(self, watcher):
        """Return what the worker has: numbers of events, places, windows and the like."""
        return json.loads(watcher.ask("x").socket.recv())

    def has_ended(self, watcher):
        found = self.stats(watcher)
        return not any(found.get(key) for key in ("events", "places", "windows", "tasks"))

    def client(self, path, text=None):
        client = Client(self.gateway, path)
        self.addCleanup(client.vanish)
        return client if text is None else client.ask(text)

    def test_what_a_client_has_left_ends_and_leaves_nothing_behind(self):
        worker, watcher = self.worker(), self.client("/stats/")
        ways = [(leave, read) for leave in LEAVES for read in (0, 5)]
        cases = [("plain", *way) for way in ways]
        cases += [(kind, *ways[number % 6]) for number, kind in enumerate(KINDS)]
        for kind, leave, read in cases:
            with self.subTest(kind=kind, leave=leave, read=read):
                start = len(worker.output)
                client = self.client("/%s/" % kind, "slowly" if read else "fast")
                worker.wait_for_output("begun %s" % kind, start)
                client.read(read)
                getattr(client, leave)()
                worker.wait_for_output("ended %s" % kind, start)
                wait_until(functools.partial(self.has_ended, watcher), "the event to end")

    def test_a_worker_that_is_told_to_end_does_so_in_time_although_its_clients_read_nothing(self):
        for kind in ("plain", "swallows", "in_many_tasks", "in_a_context"):
            with self.subTest(kind):
                worker, watcher = self.worker("--grace", "1.5"), self.client("/stats/")
                start = len(worker.output)
                self.client("/%s/" % kind, "fast")
                worker.wait_for_output("begun %s" % kind, start)
                wait_until(functools.partial(self.is_paused, watcher), "it to wait for its client")
                began = time.monotonic()
                self.assertEqual(worker.stop(signal.SIGTERM), 1)
                self.assertLess(time.monotonic() - began, 3.5 + SLACK, worker.output)

    def test_a_consumer_that_waits_for_its_client_ends_if_its_gateway_is_killed(self):
        worker, watcher = self.worker(), self.client("/stats/")
        client = self.client("/plain/", "fast")
        client.read(5)
        # The gateway has handled these, and sends what it leaves for its end before what the watcher asks.
        wait_until(functools.partial(self.is_paused, watcher), "it to wait for its client")
        self.gateway.kill()
        worker.wait_for_output("ended plain")

    @unittest.skipIf(django.VERSION < (4, 2), "this Django lacks asynchronous streams")
    def test_a_response_that_waits_ends_if_its_gateway_is_killed(self):
        worker, watcher = self.worker(), self.client("/stats/")
        with urllib.request.urlopen(self.gateway.url("/")):
            worker.wait_for_output("begun a response")
            self.stats(watcher)  # what the gateway leaves for its end is sent before this
            self.gateway.kill()
            worker.wait_for_output("ended a response")

    def is_paused(self, watcher):
        return self.stats(watcher).get("paused")


class SQLiteTests(StreamTests, OnDatabase, SQLiteCase, unittest.TestCase):
    pass
