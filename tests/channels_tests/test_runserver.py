"""`manage.py runserver` as a real process: serving, autoreload, log, options, errors, end."""

import contextlib
import signal
import socket
import unittest
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import django
from django.test import SimpleTestCase

from .support.ports import can_connect, free_port
from .support.requirements import require
from .support.sites import FILES, Project
from .support.waiting import SCALE, START_TIMEOUT, TIMEOUT, wait_until

STARTED = r"Starting Daphne development server at http://(\S+):(\d+)/"

#: Makes every import of Daphne an ImportError.
NO_DAPHNE = "import sys\nsys.modules['daphne'] = None\n"

THREADED_VIEWS = """
import threading
from django.http import HttpResponse

both = threading.Barrier(2)

def index(request):
    try:
        both.wait(%r)
    except threading.BrokenBarrierError:
        return HttpResponse("alone")
    return HttpResponse("together")
"""

# A layer that says it crosses processes, to see what the command makes of such layers.
CROSSING_LAYER = """
from {channels}.layers.memory import MemoryChannelLayer

class CrossingLayer(MemoryChannelLayer):
    crosses_processes = True
"""
CROSSING_SETTINGS = "CHANNEL_LAYERS['default']['BACKEND'] = 'mysite.layers.CrossingLayer'"

STATIC_SETTINGS = """
INSTALLED_APPS = ["{channels}", "django.contrib.staticfiles", "mysite"]
"""


def has_ipv6():
    try:
        free_port("::1")
    except OSError:
        return False
    return True


#: Seconds after which a file is written again, if the reloader has not seen it.
REWRITE_INTERVAL = 5


class RunserverTestCase(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        require("daphne", "websocket")

    def start(self, *args, project=None, settings="", files=None, **env):
        """Starts runserver in a new project; the process."""
        if project is None:
            project = Project(files, settings)
            self.addCleanup(project.close)
        process = project.manage("runserver", *args, **env)
        self.addCleanup(process.kill)
        return process

    def serve(self, *args, **kwargs):
        """Starts runserver on a free port and waits for it: (process, "host:port")."""
        process = self.start("0", *args, **kwargs)
        return process, self.address(process)

    def address(self, process, start=0):
        return "{}:{}".format(*process.wait_for_output(STARTED, start).groups())

    def get(self, address, path="/"):
        with urlopen(f"http://{address}{path}", timeout=TIMEOUT) as response:
            return response.read().decode()

    def status(self, address, path):
        try:
            with urlopen(f"http://{address}{path}", timeout=TIMEOUT) as response:
                return response.status
        except HTTPError as error:
            error.close()
            return error.code

    def change(self, process, project, path, text, pattern):
        """Writes a file until the process has written what matches `pattern`; the match.

        Once may be too early: Django's reloader sees only what changes after its first look.
        """
        start = len(process.output)
        for again in range(10):
            project.write(path, text + "\n" * again)
            try:
                return process.wait_for_output(pattern, start, REWRITE_INTERVAL)
            except AssertionError:
                if again == 9:
                    raise

    @contextlib.contextmanager
    def websocket(self, address, path="/"):
        from websocket import create_connection

        connection = create_connection(f"ws://{address}{path}", timeout=TIMEOUT)
        try:
            yield connection
        finally:
            connection.close()


class ServingTests(RunserverTestCase):
    def test_http_and_websocket_and_their_log_lines(self):
        process, address = self.serve("--noreload")
        self.assertEqual(self.get(address), "hello")
        self.assertEqual(self.status(address, "/missing?a=b"), 404)
        with self.websocket(address, "/echo") as connection:
            connection.send("one")
            self.assertEqual(connection.recv(), "echo: one")
        process.wait_for_output(r"\] HTTP GET / 200 5 \[\d+\.\d{3} s, 127\.0\.0\.1:\d+\]")
        process.wait_for_output(r"HTTP GET /missing\?a=b 404 \d+ \[")
        process.wait_for_output(r"WebSocket OPEN /echo 101 \[\d+\.\d{3} s, ")
        process.wait_for_output(r"WebSocket CLOSE /echo \[\d+\.\d{3} s, ")

    def test_log_lines_have_djangos_colours(self):
        # Django colours what goes to a terminal.
        # It ends when its terminal goes, also if the tests were started by nohup, which has SIGHUP ignored.
        terminal = (
            "import pty, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL);"
            "pty.spawn([sys.executable] + sys.argv[1:])"
        )
        project = Project()
        self.addCleanup(project.close)
        process = project.python("-c", terminal, "manage.py", "runserver", "0", "--noreload")
        self.addCleanup(process.kill)
        address = self.address(process)
        self.get(address)
        self.status(address, "/missing")
        process.wait_for_output(r"HTTP GET / 200 ")  # success is not coloured
        process.wait_for_output(r"\x1b\[[0-9;]+mHTTP GET /missing 404 .*\x1b\[0m")

    def test_worker_threads_work_side_by_side(self):
        views = THREADED_VIEWS % TIMEOUT
        process, address = self.serve("--noreload", files={"mysite/views.py": views})
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(self.get, [address] * 2))
        self.assertEqual(answers, ["together", "together"])

    def test_nothreading_is_one_worker_thread(self):
        views = THREADED_VIEWS % (0.5 * SCALE)
        process, address = self.serve(
            "--noreload", "--nothreading", files={"mysite/views.py": views}
        )
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(self.get, [address] * 2))
        self.assertEqual(answers, ["alone", "alone"])

    @unittest.skipUnless(has_ipv6(), "this machine lacks an IPv6 loopback address")
    def test_ipv6(self):
        for args in (["-6", "0"], ["[::1]:0"]):
            process = self.start("--noreload", *args)
            address = self.address(process)
            self.assertTrue(address.startswith("[::1]:"), address)
            self.assertEqual(self.get(address), "hello")
            self.assertEqual(process.interrupt(), 0, process.output)

    def test_noasgi_is_the_wsgi_server(self):
        port = free_port()
        process = self.start(str(port), "--noasgi", "--noreload")
        process.wait_for_output(r"Starting (WSGI )?development server at")
        wait_until(lambda: can_connect(port), "the WSGI server", START_TIMEOUT)
        self.assertEqual(self.get(f"127.0.0.1:{port}"), "hello")
        process.wait_for_output(r'"GET / HTTP/1.1" 200')
        self.assertNotIn("Daphne", process.output)


class StaticFilesTests(RunserverTestCase):
    files = {"mysite/static/style.css": "body { color: teal }"}

    def test_served_by_default(self):
        process, address = self.serve("--noreload", files=self.files, settings=STATIC_SETTINGS)
        self.assertEqual(self.get(address, "/static/style.css"), "body { color: teal }")
        self.assertEqual(self.status(address, "/static/missing.css"), 404)
        self.assertEqual(self.get(address), "hello")

    def test_the_app_may_stand_below_staticfiles(self):
        settings = """
INSTALLED_APPS = ["django.contrib.staticfiles", "mysite", "{channels}"]
"""
        process, address = self.serve("--noreload", files=self.files, settings=settings)
        self.assertEqual(self.get(address, "/static/style.css"), "body { color: teal }")
        with self.websocket(address, "/echo") as connection:
            connection.send("one")
            self.assertEqual(connection.recv(), "echo: one")

    def test_nostatic(self):
        process, address = self.serve(
            "--noreload", "--nostatic", files=self.files, settings=STATIC_SETTINGS
        )
        self.assertEqual(self.status(address, "/static/style.css"), 404)
        self.assertEqual(self.get(address), "hello")

    def test_without_debug_only_when_insecure(self):
        settings = STATIC_SETTINGS + "\nDEBUG = False\n"
        process, address = self.serve("--noreload", files=self.files, settings=settings)
        self.assertEqual(self.status(address, "/static/style.css"), 404)
        process, address = self.serve(
            "--noreload", "--insecure", files=self.files, settings=settings
        )
        self.assertEqual(self.status(address, "/static/style.css"), 200)


class AutoreloadTests(RunserverTestCase):
    def setUp(self):
        self.project = Project()
        self.addCleanup(self.project.close)
        self.process = self.start("0", project=self.project)
        self.assertEqual(self.get(self.address(self.process)), "hello")

    def test_a_changed_file_takes_effect(self):
        views = FILES["mysite/views.py"].replace("hello", "good-bye")
        started = self.change(self.process, self.project, "mysite/views.py", views, STARTED)
        self.assertEqual(self.get("{}:{}".format(*started.groups())), "good-bye")

    def assert_waits_for_mend(self, text, error):
        path = "mysite/routing.py"
        self.change(self.process, self.project, path, text, error)
        started = self.change(self.process, self.project, path, FILES[path], STARTED)
        self.assertEqual(self.get("{}:{}".format(*started.groups())), "hello")

    def test_an_error_waits_for_its_mend(self):
        self.assert_waits_for_mend("not = Python\n", "SyntaxError")

    @unittest.skipIf(django.VERSION < (1, 9), "its autoreloader keeps no file of such an error")
    def test_a_consumer_that_is_misspelt_waits_for_its_mend(self):
        misspelt = "from mysite import views\nfrom {channels} import route\nchannel_routing = %s\n"
        self.assert_waits_for_mend(misspelt % "[route('news', views.nope)]", "no attribute 'nope'")
        self.assert_waits_for_mend(misspelt % "[route('news', views)]", "isn't callable")


class EndTests(RunserverTestCase):
    def assert_ended_well(self, process, status=0):
        self.assertEqual(status, 0, process.output)
        wait_until(lambda: not process.group_is_alive(), "its child to end")
        self.assertNotIn("Traceback", process.output)

    def test_ctrl_c(self):
        process, address = self.serve("--noreload")
        self.assertEqual(self.get(address), "hello")
        self.assert_ended_well(process, process.interrupt())

    def test_ctrl_c_with_an_open_websocket(self):
        process, address = self.serve("--noreload")
        with self.websocket(address) as connection:
            connection.send("one")
            connection.recv()
            self.assert_ended_well(process, process.interrupt())

    def test_ctrl_c_in_the_autoreloader(self):
        process, address = self.serve()
        self.assertEqual(self.get(address), "hello")
        self.assert_ended_well(process, process.interrupt())

    def test_sigterm(self):
        process, address = self.serve("--noreload")
        self.assertEqual(self.get(address), "hello")
        self.assert_ended_well(process, process.stop(signal.SIGTERM))

    def test_sigterm_in_the_autoreloader_leaves_no_child(self):
        process, address = self.serve()
        self.assertEqual(self.get(address), "hello")
        process.stop(signal.SIGTERM)
        wait_until(lambda: not process.group_is_alive(), "the child to end")
        with self.assertRaises(URLError):
            self.get(address)


class ErrorTests(RunserverTestCase):
    def run_to_end(self, *args, **kwargs):
        process = self.start(*args, **kwargs)
        return process.wait(), process.output

    def test_address_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            port = str(taken.getsockname()[1])
            for args in (["--noreload"], []):
                status, output = self.run_to_end(port, *args)
                self.assertEqual(status, 1, output)
                self.assertIn("Error: That port is already in use.", output)
                self.assertNotIn("Starting Daphne", output)

    def test_without_daphne_it_is_the_wsgi_server_and_says_once_how_to_get_daphne(self):
        for arguments in ([], ["--noreload"]):
            port = free_port()
            process = self.start(str(port), *arguments, files={"sitecustomize.py": NO_DAPHNE})
            process.wait_for_output(r"Starting (WSGI )?development server at")
            wait_until(lambda: can_connect(port), "the WSGI server", START_TIMEOUT)  # noqa: B023
            self.assertEqual(self.get("127.0.0.1:%d" % port), "hello")
            self.assertEqual(process.output.count("pip install 'daphne>=4.0'"), 1, process.output)
            self.assertNotIn("Traceback", process.output)

    def test_without_daphne_asgi_is_an_error(self):
        status, output = self.run_to_end("0", "--asgi", files={"sitecustomize.py": NO_DAPHNE})
        self.assertEqual(status, 1, output)
        self.assertIn("pip install 'daphne>=4.0'", output)
        self.assertNotIn("channels[daphne]", output)
        self.assertNotIn("Traceback", output)

    def test_unknown_layer(self):
        status, output = self.run_to_end("0", "--layer", "chat")
        self.assertEqual(status, 1, output)
        self.assertIn("CHANNEL_LAYERS has no 'chat'; it has: 'default'.", output)

    def test_noworker_needs_a_layer_that_crosses_processes(self):
        status, output = self.run_to_end("0", "--noworker")
        self.assertEqual(status, 1, output)
        self.assertIn("--noworker", output)
        self.assertIn("lives in this one", output)


class CrossingLayerTests(RunserverTestCase):
    """With a layer that other processes see, worker threads are runserver's own matter."""

    files = {"mysite/layers.py": CROSSING_LAYER}

    def test_worker_threads_run(self):
        process, address = self.serve("--noreload", files=self.files, settings=CROSSING_SETTINGS)
        self.assertEqual(self.get(address), "hello")
        self.assertEqual(process.interrupt(), 0, process.output)
        self.assertFalse(process.group_is_alive())

    @unittest.skipIf(django.VERSION < (2, 2), "Django says that it reloads since 2.2")
    def test_a_consumer_that_runs_may_end_before_a_reload(self):
        views = """
import os, time
from django.http import HttpResponse

def index(request):
    print("view began", flush=True)
    while not os.path.exists("go-on"):
        time.sleep(0.01)
    print("view ended", flush=True)
    return HttpResponse("hello")
"""
        project = Project(dict(self.files, **{"mysite/views.py": views}), CROSSING_SETTINGS)
        self.addCleanup(project.close)
        process, address = self.serve(project=project)
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            process.wait_for_output("view began")
            start = len(process.output)
            self.change(process, project, "mysite/views.py", views, "changed, reloading")
            project.write("go-on", "")
            process.wait_for_output(r"(?s)view ended.*" + STARTED, start)

    def test_noworker(self):
        process, address = self.serve(
            "--noreload", "--noworker", files=self.files, settings=CROSSING_SETTINGS
        )
        self.assertIn("no worker", process.output)
        with self.assertRaises(OSError):
            urlopen(f"http://{address}/", timeout=0.5)
