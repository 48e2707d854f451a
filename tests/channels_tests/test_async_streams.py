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

import django

from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import SCALE, TIMEOUT, wait_until
from .test_async_killed import OnDatabase
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase

ROUTING = """
import asyncio
import contextlib
import json
import os
import threading

from django.conf import settings
from {channels} import Group, route, windows

if "ASK_INTERVAL" in os.environ:
    windows.ASK_INTERVAL = float(os.environ["ASK_INTERVAL"])

GO = os.path.join(settings.BASE_DIR, "go")


def say(text):
    # In one step, because several threads print.
    os.write(1, text.encode() + b"\\n")


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
            say("swallowed")


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
        say("begun %s" % name)
        try:
            await consumer(message)
        except BaseException as error:
            say("ended %s %s" % (name, type(error).__name__))
            raise
        say("ended %s" % name)

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


async def late(message):
    while not os.path.exists(GO):
        await asyncio.sleep(0.05)
    await forever(message)


def gone(message):
    say("gone %s" % message["path"])


KINDS = {
    each.__name__: each
    for each in (
        plain, clears_up, swallows, shields, in_a_task, in_many_tasks, leaves_a_task, in_a_context,
        with_a_timeout, from_a_generator, to_a_group, late,
    )
}

channel_routing = [
    route("http.disconnect", gone),
    route("websocket.connect", connect),
    route("websocket.receive", stats, path=r"^/stats/$"),
] + [
    route("websocket.receive", noted(name, each), path=r"^/%s/$" % name)
    for name, each in KINDS.items()
]
"""


VIEWS = """
import asyncio
import os
import time

from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from {channels}.asgi import channel_layers
from {channels}.exceptions import ResponseLater

GO = os.path.join(settings.BASE_DIR, "go")


def say(text):
    # In one step, because several threads print.
    os.write(1, text.encode() + b"\\n")


def parts_of(path, begin):
    try:
        if begin:
            yield b"first"
        say("begun %s" % path)
        channel_layers["default"].block_for = 0.1  # seconds until a stream asks again
        while not os.path.exists(GO):
            time.sleep(0.05)
        while True:
            yield b"x" * 50000
    finally:
        say("ended %s" % path)


def late(request):
    return StreamingHttpResponse(parts_of("/late", False))


def parts(request):
    return StreamingHttpResponse(parts_of("/parts", True))


def later(request):
    say("begun /later")
    raise ResponseLater


def at_once(request):
    return HttpResponse("hello")


def index(request):
    async def parts():
        say("begun /")
        try:
            yield b"first"
            await asyncio.sleep(3600)
        finally:
            say("ended /")

    return StreamingHttpResponse(parts())
"""


URLS = """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [
    re_path(r"^$", views.index),
    re_path(r"^late$", views.late),
    re_path(r"^parts$", views.parts),
    re_path(r"^later$", views.later),
    re_path(r"^at-once$", views.at_once),
]
"""

#: Seconds after which a gateway that says nothing is asked whether it is there, where a test waits for that.
ASK_INTERVAL = 0.2 * SCALE


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


class KilledGatewayTests:
    server = "uvicorn"

    def setUp(self):
        super().setUp()
        require("uvicorn", "websockets", "websocket")
        self.layer = self.make_layer()
        self.layer.flush()
        self.project = Project(
            {"mysite/routing.py": ROUTING, "mysite/views.py": VIEWS, "mysite/urls.py": URLS},
            self.layer_settings({"heartbeat": 0.2, "lease": 2 * SCALE}),
        )
        self.addCleanup(self.project.close)
        self.gateway = serve(self.project, self.server)
        self.addCleanup(self.gateway.kill)

    def worker(self, *args, **env):
        worker = self.project.manage("runworker", "--threads", "4", *args, **env)
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

    def test_what_runs_for_a_killed_gateway_ends_and_the_end_of_its_requests_is_told(self):
        worker, watcher = self.worker(ASK_INTERVAL=str(ASK_INTERVAL)), self.client("/stats/")
        held = ["/later", "/late", "/parts"]
        if django.VERSION >= (4, 2):  # it has asynchronous streams
            held.append("/")
        for path in held:
            self.request(path)
            worker.wait_for_output("begun %s\n" % path)
        self.assertTrue(self.request("/at-once").recv(1))
        # This one begins to send when no gateway can leave a last will for it.
        self.client("/late/", "fast")
        worker.wait_for_output("begun late\n")
        client = self.client("/plain/", "fast")
        client.read(5)
        # The gateway has handled these, and sends what it leaves for its end before what the watcher asks.
        wait_until(functools.partial(self.is_paused, watcher), "it to wait for its client")
        stored = functools.partial(self.stored_wills, "http.disconnect")
        wait_until(lambda: stored() == len(held), "the last wills to be stored")
        self.gateway.kill()
        for path in held:
            worker.wait_for_output("gone %s\n" % path)
        worker.wait_for_output("ended plain")
        self.project.write("go", "")
        worker.wait_for_output("ended late ClientDisconnected")
        for path in held[1:]:
            worker.wait_for_output("ended %s\n" % path)
        wait_until(lambda: stored() == 0, "the last wills to be sent")
        self.assertEqual(worker.output.count("gone /"), len(held), worker.output)

    def request(self, path):
        client = socket.create_connection(("127.0.0.1", self.gateway.port), TIMEOUT)
        self.addCleanup(client.close)
        client.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        return client

    def is_paused(self, watcher):
        return self.stats(watcher).get("paused")


class StreamTests(KilledGatewayTests):
    def test_a_response_whose_first_part_finds_its_gateway_killed_ends(self):
        """The gateway could leave no last will for it."""
        worker = self.worker(ASK_INTERVAL=str(ASK_INTERVAL))
        self.request("/late")
        worker.wait_for_output("begun /late\n")
        self.gateway.kill()
        self.project.write("go", "")
        worker.wait_for_output("ended /late\n")

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


class SQLiteTests(StreamTests, OnDatabase, SQLiteCase, unittest.TestCase):
    pass


class PostgreSQLKilledGatewayTests(
    KilledGatewayTests, OnDatabase, PostgreSQLCase, unittest.TestCase
):
    pass


class MariaDBKilledGatewayTests(KilledGatewayTests, OnDatabase, MariaDBCase, unittest.TestCase):
    pass
