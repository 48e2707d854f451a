"""
A site on the database layer: uvicorn as the gateway, and `manage.py runworker`, as real processes.
"""

import glob
import json
import os
import re
import signal
import threading
import unittest
import urllib.error
import urllib.request

from django.db import transaction

from .support.aliases import MARIADB_SETTINGS
from .support.databases import MariaDB, PostgreSQL
from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import SCALE, TIMEOUT, wait_until
from .test_chat import ChatSite, Visitor, require_chat

SETTINGS = """
INSTALLED_APPS += ["{channels}.layers.database"]
CHANNEL_LAYERS["default"]["BACKEND"] = "{channels}.layers.database.DatabaseChannelLayer"
CHANNEL_LAYERS["default"]["CONFIG"] = {"DATABASE": "default", "heartbeat": 0.3, "lease": %g}
CHANNEL_LAYERS["default"]["CONFIG"]["channel_expiry"] = {"http.request": 3.0}
CHANNEL_LAYERS["default"]["TEST_CONFIG"] = {"prefix": "test"}
""" % (1.5 * SCALE)

FILES = {
    "mysite/routing.py": """
import os
import signal
import time

from {channels} import Channel, Group, route


def connect(message):
    message.reply_channel.send({"accept": True})
    message.channel_session["number"] = 0
    Group("everybody").add(message.reply_channel)


def receive(message):
    text = message["text"]
    if text == "all":
        Group("everybody").send({"text": "to all"})
    elif text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif text == "order":
        Channel("orders").send({"number": 1})
    else:
        message.channel_session["number"] += 1
        message.reply_channel.send({"text": "%s %d" % (text, message.channel_session["number"])})


def disconnect(message):
    print("disconnect %s" % message["code"], flush=True)


def order(message):
    print("order %s" % message["number"], flush=True)


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
    route("orders", order),
]
""",
    "mysite/views.py": """
import os
import signal

from django.db import transaction
from django.http import HttpResponse
from {channels} import Channel


def index(request):
    if "die" in request.GET:
        os.kill(os.getpid(), signal.SIGKILL)
    if "order" in request.GET:
        try:
            with transaction.atomic():
                Channel("orders").send({"number": 17}, immediately=True)
                raise ValueError
        except ValueError:
            pass
        with transaction.atomic():
            Channel("orders").send({"number": 18}, immediately=True)
    return HttpResponse("hello")
""",
}


TESTS = """
import urllib.request

from django.db import transaction
from django.test import TestCase, TransactionTestCase
from {channels} import Channel
from {channels}.asgi import get_channel_layer
from {channels}.test import ChannelLiveServerTestCase, ChannelTestCase


class InATransaction(TestCase):
    def test_a_send_waits_for_a_commit_that_never_comes_or_leaves_at_once(self):
        layer = get_channel_layer()
        layer.flush()
        Channel("there").send({"number": 1})
        Channel("there").send({"number": 2}, on_commit=False)
        self.assertEqual(layer.receive_many(["there"]), ("there", {"number": 2}))
        self.assertEqual(layer.receive_many(["there"]), (None, None))


class OutOfOne(TransactionTestCase):
    def test_a_send_leaves_on_commit(self):
        layer = get_channel_layer()
        layer.flush()
        with transaction.atomic():
            Channel("there").send({"number": 1})
        self.assertEqual(layer.receive_many(["there"]), ("there", {"number": 1}))


class OverASocket(ChannelLiveServerTestCase):
    def test_a_view(self):
        with urllib.request.urlopen(self.live_server_url) as response:
            self.assertEqual(response.read(), b"hello")


class Captive(ChannelTestCase):
    def test_channel_test_cases_need_no_database_of_the_layer(self):
        Channel("there").send({"number": 1})
        self.assertEqual(self.get_next_message("there").content, {"number": 1})
"""


class SiteTests:
    """One site for the tests of a class; each test has its own workers. `settings()` names its
    database."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        require("uvicorn")
        require("websocket")
        require("daphne")
        cls.project = Project(FILES, SETTINGS + cls.settings())
        cls.addClassCleanup(cls.project.close)
        with cls.project.manage("migrate", "--verbosity", "0") as process:
            if process.wait(TIMEOUT * 3):
                raise AssertionError(process.output)
        cls.gateway = serve(cls.project, "uvicorn", args=["--log-level", "warning"])
        cls.addClassCleanup(cls.gateway.kill)

    @classmethod
    def addClassCleanup(cls, function, *args):  # Python before 3.8 has none
        if "_cleanups" not in cls.__dict__:
            cls._cleanups = []
        cls._cleanups.append((function, args))

    @classmethod
    def tearDownClass(cls):
        for function, args in reversed(cls.__dict__.get("_cleanups", [])):
            function(*args)
        super().tearDownClass()

    def worker(self):
        process = self.project.manage("runworker", "--threads", "2")
        self.addCleanup(process.kill)
        process.wait_for_output("Worker of")
        return process

    def connect(self, gateway=None):
        import websocket

        socket = websocket.create_connection(
            (gateway or self.gateway).websocket_url("/"), timeout=TIMEOUT
        )
        self.addCleanup(socket.close)
        return socket

    def get(self, path):
        try:
            with urllib.request.urlopen(self.gateway.url(path), timeout=TIMEOUT) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close_code(self, socket):
        """Read up to the close frame; its code."""
        import websocket

        while True:
            opcode, data = socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")

    def test_echo_groups_views_and_two_workers(self):
        self.worker()
        other = self.worker()
        first, second = self.connect(), self.connect()
        for number in range(1, 21):
            first.send("hello")
            self.assertEqual(first.recv(), "hello %d" % number)
        second.send("all")
        self.assertEqual(first.recv(), "to all")
        self.assertEqual(second.recv(), "to all")
        self.assertEqual(self.get("/"), (200, b"hello"))
        self.assertEqual(other.stop(signal.SIGTERM), 0, other.output)
        first.send("hello")
        self.assertEqual(first.recv(), "hello 21")

    @unittest.skipUnless(hasattr(transaction, "on_commit"), "Django 1.8 knows no on_commit")
    def test_a_rolled_back_send_was_never_made(self):
        worker = self.worker()
        self.assertEqual(self.get("/?order"), (200, b"hello"))
        worker.wait_for_output("order 18")
        self.assertNotIn("order 17", worker.output)

    def test_a_killed_worker_is_reported_to_its_clients(self):
        doomed = self.worker()
        socket = self.connect()
        socket.send("die")
        doomed.wait()
        self.assertEqual(self.close_code(socket), 1011)
        doomed = self.worker()
        self.assertEqual(self.get("/?die")[0], 502)
        doomed.wait()

    def test_a_request_that_no_worker_takes_is_answered(self):
        self.assertEqual(self.get("/")[0], 502)
        wait_until(lambda: "manage.py runworker" in self.gateway.output, "the warning")

        def is_counted():
            with self.project.manage("layerstats", "--json") as process:
                self.assertEqual(process.wait(), 0, process.output)
                # In addition to warnings of old Djangos, or of a driver.
                statistics = json.loads(process.wait_for_output(r"(?ms)^\{.*\}$").group())
            return statistics["layer"]["messages_expired"] and statistics["counters"].get("lost")

        wait_until(is_counted, "the counters of the gateway, in another process")

    def test_requests_that_come_in_an_outage_get_a_503(self):
        worker = self.worker()
        self.assertEqual(self.get("/")[0], 200)
        said = self.gateway.output.count("cannot be reached")
        self.begin_outage()
        try:
            wait_until(lambda: self.gateway.output.count("cannot be reached") > said, "the outage")
            status = []
            # Each begins while others wait, before and after the time for which one outlives an outage.
            threads = [
                threading.Thread(target=lambda: status.append(self.get("/")[0])) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
                thread.join(0.6)
            for thread in threads:
                thread.join(TIMEOUT)
        finally:
            self.end_outage()
        self.assertEqual(status, [503] * len(threads))
        wait_until(lambda: self.get("/") == (200, b"hello"), "the layer")
        self.assertIsNone(worker.popen.poll())

    def test_a_killed_gateway_says_farewell(self):
        worker = self.worker()
        gateway = serve(self.project, "uvicorn", args=["--log-level", "warning"])
        self.addCleanup(gateway.kill)
        socket = self.connect(gateway)
        socket.send("hello")
        self.assertEqual(socket.recv(), "hello 1")
        gateway.stop(signal.SIGKILL)
        worker.wait_for_output("disconnect 1006")


class SQLiteSiteTests(SiteTests, unittest.TestCase):
    @classmethod
    def settings(cls):
        return ""

    def begin_outage(self):
        (self.file,) = glob.glob(os.path.join(self.project.directory, "*-channels.sqlite3"))
        os.rename(self.file, self.file + ".away")
        os.mkdir(self.file)

    def end_outage(self):
        os.rmdir(self.file)
        os.rename(self.file + ".away", self.file)


class ServerSiteTests(SiteTests):
    """On a server, which restarts under load."""

    name = "site"

    @classmethod
    def settings(cls):
        cls.server = cls.server_class.shared()
        connection = cls.server.connect()
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE %s" % cls.name)
        connection.close()
        return "%s\nDATABASES['default'] = %r\n" % (
            cls.preamble,
            cls.server.settings(NAME=cls.name),
        )

    preamble = ""

    def begin_outage(self):
        self.server.stop()

    def end_outage(self):
        self.server.start()

    def test_the_server_restarts_under_load(self):
        worker = self.worker()
        sockets = [self.connect() for _ in range(5)]
        echoed, stop, failures = [0] * len(sockets), threading.Event(), []

        def load(index):
            try:
                while not stop.is_set():
                    sockets[index].send("hello")
                    self.assertEqual(sockets[index].recv(), "hello %d" % (echoed[index] + 1))
                    echoed[index] += 1
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=load, args=(index,)) for index in range(len(sockets))]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(echoed) > 5, "some load")
        self.server.stop()
        for process in (worker, self.gateway):
            process.wait_for_output("cannot be reached")
        self.server.start()
        # Not one message was lost, or given twice: what was under way is tried again by its sender.
        before = list(echoed)
        try:
            wait_until(
                lambda: failures or all(now > then + 5 for now, then in zip(echoed, before)),
                "the echoes after the restart",
                timeout=3 * TIMEOUT,
            )
        finally:
            stop.set()
            for thread in threads:
                thread.join(TIMEOUT)
        self.assertEqual(failures, [], self.gateway.output + worker.output)
        self.assertIsNone(worker.popen.poll())
        self.assertIsNone(self.gateway.popen.poll())


class PostgreSQLSiteTests(ServerSiteTests, unittest.TestCase):
    server_class = PostgreSQL

    @unittest.skipUnless(hasattr(transaction, "on_commit"), "Django 1.8 knows no on_commit")
    def test_the_tests_of_a_site(self):
        """Inside TestCase and out of it; and the runner can drop its database at the end."""
        self.project.write("mysite/tests.py", TESTS)
        process = self.project.manage("test", "mysite")
        self.addCleanup(process.kill)
        self.assertEqual(process.wait(3 * TIMEOUT), 0, process.output)
        self.assertIn("Ran 4 tests", process.output)


class MariaDBSiteTests(ServerSiteTests, unittest.TestCase):
    server_class = MariaDB
    preamble = MARIADB_SETTINGS


class DatabaseChatSite(ChatSite):
    """The chat as `make demo LAYER=database` starts it."""

    def environment(self, **extra):
        return super().environment(LAYER="database", **extra)


class ChatTests(unittest.TestCase):
    def test_the_chat_goes_on_with_one_of_its_two_workers(self):
        require_chat()
        require("websocket")
        with DatabaseChatSite() as site:
            pids = re.search(r"processes (\d+) and (\d+)", site.server.output).groups()
            ann, ben = Visitor(site, "ann").enter(), Visitor(site, "ben").enter()
            ann.say("hello")
            ben.await_line("hello")
            ann.await_people("ann", "ben")
            os.kill(int(pids[0]), signal.SIGTERM)
            for number in range(5):
                ann.say("line %d" % number)
                ben.await_line("line %d" % number)
            ben.close()
            ann.await_people("ann")
            site.server.stop()
            self.assertFalse(site.server.group_is_alive())
            self.assertNotIn("Traceback", site.server.output)
