"""A site whose database server falls silent, with its connections open: nothing waits for long."""

import threading
import time
import unittest
import urllib.error
import urllib.request

from .support.databases import MariaDB, PostgreSQL
from .support.proxy import Proxy
from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import SCALE, TIMEOUT, wait_until

#: Seconds that a new connection may take: longer than anything may wait once the silence is noticed.
CONNECT_TIMEOUT = int(12 * SCALE)

SETTINGS = """
try:
    import MySQLdb
except ImportError:
    import pymysql

    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()

DEBUG = False
INSTALLED_APPS += ["{channels}.layers.database"]
CHANNEL_LAYERS["default"]["BACKEND"] = "{channels}.layers.database.DatabaseChannelLayer"
CHANNEL_LAYERS["default"]["CONFIG"] = {"DATABASE": "silent", "socket_timeout": %g}
""" % (2 * SCALE)

FILES = {
    "mysite/routing.py": """
from {channels} import route


def connect(message):
    message.reply_channel.send({"accept": True})


channel_routing = [route("websocket.connect", connect)]
""",
    "mysite/views.py": """
import os
import time

from django.http import HttpResponse


def index(request):
    if "wait" in request.GET:
        print("waits", flush=True)
        while not os.path.exists("silent"):
            time.sleep(0.02)
    return HttpResponse("hello")
""",
}


class SilentSiteTests:
    """`server_class` is the server, which is reached through a proxy."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        require("uvicorn")
        require("websocket")
        server = cls.server_class.shared()
        name = "silent_site"
        connection = server.connect()
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE %s" % name)
        connection.close()
        cls.proxy, cls.started = Proxy(server.port), []
        database = server.settings(NAME=name, PORT=str(cls.proxy.port))
        database["OPTIONS"] = dict(database["OPTIONS"], connect_timeout=CONNECT_TIMEOUT)
        cls.project = Project(FILES, "%s\nDATABASES['silent'] = %r\n" % (SETTINGS, database))
        try:
            with cls.project.manage("migrate", "--database=silent", "--verbosity=0") as process:
                if process.wait(TIMEOUT * 3):
                    raise AssertionError(process.output)
            cls.gateway = serve(cls.project, "uvicorn", args=["--log-level", "warning"])
            cls.started.append(cls.gateway)
            cls.worker = cls.project.manage("runworker", "--threads", "2")
            cls.started.append(cls.worker)
            cls.worker.wait_for_output("Worker of")
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        for process in cls.started:
            process.kill()
        cls.proxy.close()
        cls.project.close()
        super().tearDownClass()

    def get(self, path="/"):
        try:
            with urllib.request.urlopen(self.gateway.url(path), timeout=5 * TIMEOUT) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def handshake(self):
        """Return whether a socket was opened: refused ones are closed, or get 503."""
        import websocket

        try:
            socket = websocket.create_connection(
                self.gateway.websocket_url("/"), timeout=3 * TIMEOUT
            )
            try:
                opcode, data = socket.recv_data()
            finally:
                socket.close()
        except websocket.WebSocketBadStatusException as error:
            return error.status_code
        self.assertEqual(opcode, websocket.ABNF.OPCODE_CLOSE)
        return int.from_bytes(data[:2], "big")

    def start(self, found, call, *args):
        thread = threading.Thread(target=lambda: found.append(call(*args)), daemon=True)
        thread.start()
        return thread

    def test_what_comes_in_a_silence_is_answered_though_a_connection_hangs(self):
        wait_until(lambda: self.get() == 200, "the site")
        early, new, sockets = [], [], []
        waiting = self.start(early, self.get, "/?wait")
        self.worker.wait_for_output("waits")
        self.proxy.stall()
        try:
            self.project.write("silent", "")  # the view ends in the silence
            # The gateway has noticed it then. If it was about to open a connection, that takes as long.
            waiting.join(CONNECT_TIMEOUT + 3 * TIMEOUT)
            self.assertEqual(early, [502])
            began, threads = time.monotonic(), []
            for _ in range(4):
                threads.append(self.start(new, self.get))
                threads.append(self.start(sockets, self.handshake))
                threads[-1].join(0.6)
            for thread in threads:
                thread.join(max(0, began + CONNECT_TIMEOUT - 1 - time.monotonic()))
            self.assertEqual((len(new), len(sockets)), (4, 4))
            # What was given to a connection before its silence was noticed may have been sent.
            self.assertLessEqual(set(new), {502, 503})
            self.assertLessEqual(set(sockets), {503, 1013})
            wait_until(lambda: self.get() == 503, "a request that was certainly not sent")
        finally:
            self.proxy.resume()
        self.proxy.cut()
        wait_until(lambda: self.get() == 200, "the site")
        self.assertIsNone(self.worker.popen.poll())


class PostgreSQLSilentSiteTests(SilentSiteTests, unittest.TestCase):
    server_class = PostgreSQL


class MariaDBSilentSiteTests(SilentSiteTests, unittest.TestCase):
    server_class = MariaDB
