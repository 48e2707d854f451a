"""A site of several processes, for real: uvicorn gateways and `manage.py runworker` on one Redis."""

import signal
import threading
import time
import unittest
import urllib.error
import urllib.request

from channels_tests.support.redis_server import RedisServer
from channels_tests.support.requirements import require
from channels_tests.support.sites import Project, serve
from channels_tests.support.waiting import SCALE, TIMEOUT, wait_until

ROUTING = """
import os
import time

from {channels} import Group, route


def connect(message):
    message.reply_channel.send({"accept": True})
    if message["path"] == "/room/":
        Group("room").add(message.reply_channel)
        message.reply_channel.send({"text": "in the room"})


def receive(message):
    text = message["text"]
    if text.startswith("to all: "):
        Group("room").send({"text": text})
    elif text == "pid":
        message.reply_channel.send({"text": str(os.getpid())})
    elif text == "sleep":
        print("asleep", flush=True)
        time.sleep(600)
    else:
        message.reply_channel.send({"text": "echo: " + text})


def disconnect(message):
    print("gone: %s %s" % (message["path"], message["code"]), flush=True)


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
"""

VIEWS = """
import os
import time

from django.http import HttpResponse


def index(request):
    if request.GET.get("sleep"):
        print("asleep", flush=True)
        time.sleep(600)
    return HttpResponse("hello from %d" % os.getpid())
"""

SETTINGS = """
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "asgi_redis.RedisChannelLayer",
        "ROUTING": "mysite.routing.channel_routing",
        "CONFIG": {"hosts": ["redis://127.0.0.1:%d/0"], "heartbeat": 0.2, "lease": %g%s},
    }
}
"""


class ProcessesCase(unittest.TestCase):
    """One Redis and one project a test; what is started is stopped."""

    #: More options of the layer, as they are written in a dict.
    config = ""

    routing = ROUTING

    def setUp(self):
        require("uvicorn", "websockets", "websocket")
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.stop)
        self.project = Project(
            {"mysite/routing.py": self.routing, "mysite/views.py": VIEWS},
            SETTINGS % (self.redis.port, SCALE, self.config),
        )
        self.addCleanup(self.project.close)

    def gateway(self):
        server = serve(self.project, "uvicorn")
        self.addCleanup(server.kill)
        return server

    def worker(self, *args):
        worker = self.project.manage("runworker", "--threads", "2", *args)
        self.addCleanup(worker.kill)
        worker.wait_for_output("Quit with")
        return worker

    def socket(self, gateway, path="/"):
        import websocket

        socket = websocket.create_connection(gateway.websocket_url(path), timeout=TIMEOUT)
        self.addCleanup(socket.close)
        return socket

    def close_code(self, socket):
        """The code with which the server closes it."""
        while True:
            opcode, data = socket.recv_data(control_frame=True)
            if opcode == 8:
                return int.from_bytes(data[:2], "big")


class SeveralProcessesTests(ProcessesCase):
    def test_requests_sockets_and_groups_across_two_gateways_and_two_workers(self):
        gateways = [self.gateway(), self.gateway()]
        workers = [self.worker(), self.worker()]
        for gateway in gateways:
            body = urllib.request.urlopen(gateway.url("/"), timeout=TIMEOUT).read()
            self.assertIn(b"hello from ", body)
        rooms = [self.socket(gateway, "/room/") for gateway in gateways for _ in range(3)]
        for room in rooms:
            self.assertEqual(room.recv(), "in the room")
        rooms[0].send("to all: hi")
        for room in rooms:
            self.assertEqual(room.recv(), "to all: hi")
        # Many at once, until both workers have had something to do.
        pids, deadline = set(), time.monotonic() + TIMEOUT

        def ask(socket):
            while len(pids) < len(workers) and time.monotonic() < deadline:
                socket.send("pid")
                pids.add(int(socket.recv()))

        threads = [threading.Thread(target=ask, args=(room,)) for room in rooms]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * TIMEOUT)
        self.assertEqual(pids, {worker.popen.pid for worker in workers})
        # A worker that is told to end hands over to the other.
        self.assertEqual(workers[0].stop(signal.SIGTERM), 0)
        rooms[1].send("still there?")
        self.assertEqual(rooms[1].recv(), "echo: still there?")

    def test_a_gateway_that_is_told_to_end_leaves_nothing_behind(self):
        gateway = self.gateway()
        worker = self.worker()
        self.socket(gateway, "/room/").recv()
        self.assertEqual(gateway.stop(signal.SIGTERM) in (0, -signal.SIGTERM), True)
        worker.wait_for_output("gone: /room/ ")
        client = self.redis.client()

        def left():
            kinds = ("g:", "i:", "b:", "m:", "r:", "h:")
            keys = [key.decode().partition("}")[2] for key in client.keys("*")]
            return [key for key in keys if key.startswith(kinds)]

        wait_until(lambda: not left(), "its keys to go")
        self.assertEqual(worker.output.count("gone: "), 1)


class NoWorkerTests(ProcessesCase):
    # Long enough for a worker to take what comes while it runs.
    config = ', "expiry": {0:g}, "channel_expiry": {{"websocket.*": {0:g}}}'.format(2 * SCALE)

    def test_clients_whose_events_nobody_takes_are_told(self):
        gateway = self.gateway()
        worker = self.worker()
        socket = self.socket(gateway)
        self.assertEqual(worker.stop(signal.SIGTERM), 0)
        socket.send("hello?")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(gateway.url("/"), timeout=TIMEOUT)
        self.assertEqual(caught.exception.code, 502)
        caught.exception.close()
        self.assertEqual(self.close_code(socket), 1011)
        gateway.wait_for_output("expired before a worker took them")
        # With a worker, all is well again.
        self.worker()
        again = self.socket(gateway)
        again.send("hello?")
        self.assertEqual(again.recv(), "echo: hello?")


class LossTests(ProcessesCase):
    def test_a_killed_worker_is_reported(self):
        gateway = self.gateway()
        victim = self.worker()
        socket = self.socket(gateway)
        socket.send("sleep")
        victim.wait_for_output("asleep")
        status = []

        def get():
            try:
                urllib.request.urlopen(gateway.url("/?sleep=1"), timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                status.append(error.code)

        thread = threading.Thread(target=get)
        thread.start()
        victim.wait_for_output("asleep(.|\n)*asleep")
        victim.kill()
        other = self.worker()
        thread.join(TIMEOUT)
        self.assertEqual(status, [502])
        self.assertEqual(self.close_code(socket), 1011)
        other.wait_for_output("gone: / 1011")
        # The other processes did not notice.
        again = self.socket(gateway)
        again.send("hello")
        self.assertEqual(again.recv(), "echo: hello")

    def test_a_killed_gateways_sockets_say_goodbye(self):
        worker = self.worker()
        gateway, other = self.gateway(), self.gateway()
        for _ in range(3):
            self.socket(gateway, "/room/").recv()
        remaining = self.socket(other, "/room/")
        remaining.recv()
        gateway.kill()
        wait_until(lambda: worker.output.count("gone: /room/ 1006") == 3, "three goodbyes")
        remaining.send("to all: is anybody left?")
        self.assertEqual(remaining.recv(), "to all: is anybody left?")
        self.assertEqual(worker.output.count("gone: "), 3)

    def test_requests_that_come_while_redis_is_stopped_get_a_503(self):
        gateway = self.gateway()
        self.worker()
        urllib.request.urlopen(gateway.url("/"), timeout=TIMEOUT).close()
        self.redis.stop()
        gateway.wait_for_output("cannot be reached")
        status = []

        def get():
            with self.assertRaises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(gateway.url("/"), timeout=TIMEOUT)
            status.append(caught.exception.code)
            caught.exception.close()

        # Each begins while others wait, before and after the time for which a request outlives an outage.
        threads = [threading.Thread(target=get) for _ in range(6)]
        for thread in threads:
            thread.start()
            thread.join(0.8)
        for thread in threads:
            thread.join(TIMEOUT)
        self.redis.start()
        self.assertEqual(status, [503] * len(threads))

    def test_a_redis_that_restarts_empty_closes_sockets_and_no_process(self):
        gateway, worker = self.gateway(), self.worker()
        socket = self.socket(gateway, "/room/")
        socket.recv()
        self.redis.kill()
        self.redis.start()
        self.assertEqual(self.close_code(socket), 1012)

        def works():
            try:
                again = self.socket(gateway, "/room/")
                again.recv()
                again.send("to all: back")
                return again.recv() == "to all: back"
            except Exception:
                return False

        wait_until(works, "the site to work again")
        self.assertIsNone(gateway.popen.poll())
        self.assertIsNone(worker.popen.poll())
        self.assertNotIn("Traceback", gateway.output + worker.output)

    def test_a_flushall_closes_sockets(self):
        gateway = self.gateway()
        self.worker()
        socket = self.socket(gateway, "/room/")
        socket.recv()
        self.redis.client().flushall()
        self.assertEqual(self.close_code(socket), 1012)
