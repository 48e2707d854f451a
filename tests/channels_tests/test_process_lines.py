"""Each start and end of a server's process is logged with time, pid and counts."""

import signal
from urllib.request import urlopen

from django.test import SimpleTestCase

from .support.requirements import require
from .support.sites import Project, serve
from .support.waiting import TIMEOUT
from .test_runserver import STARTED

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ "

WARNING_VIEW = """
import warnings
from django.http import HttpResponse

def index(request):
    warnings.warn("this view is old", UserWarning)
    return HttpResponse("hello")
"""


class ProcessLineTests(SimpleTestCase):
    def lines(self, process):
        pid = process.popen.pid
        return [
            TIME + r"\[%d\] Server process %d started, on the channel layer default " % (pid, pid),
            TIME
            + r"\[%d\] Server process %d ends: it has \d+ connections, of which [01] wait for a worker"
            % (pid, pid),
        ]

    def project(self, **kwargs):
        project = Project(**kwargs)
        self.addCleanup(project.close)
        return project

    def assert_server_logs(self, program, opened="0"):
        require(program, "websocket")
        from websocket import create_connection

        server = serve(self.project(), program)
        self.addCleanup(server.kill)
        connection = create_connection(server.websocket_url("/"), timeout=TIMEOUT)
        self.addCleanup(connection.close)
        connection.send("one")
        self.assertEqual(connection.recv(), "echo: one")
        server.stop(signal.SIGTERM)
        for line in self.lines(server):
            self.assertRegex(server.output, line)
        self.assertRegex(server.output, "it has %s connections" % opened)
        self.assertEqual(server.output.count("ends: it has"), 1)

    def test_of_daphne(self):
        self.assert_server_logs("daphne", opened="[01]")

    def test_of_uvicorn(self):
        self.assert_server_logs("uvicorn", opened="[01]")

    def test_of_runserver_which_shows_warnings_of_python_too(self):
        require("daphne")
        project = self.project(files={"mysite/views.py": WARNING_VIEW})
        process = project.manage("runserver", "0", "--noreload")
        self.addCleanup(process.kill)
        address = "%s:%s" % process.wait_for_output(STARTED).groups()
        with urlopen("http://%s/" % address, timeout=TIMEOUT) as response:
            self.assertEqual(response.read(), b"hello")
        process.wait_for_output("UserWarning: this view is old")
        process.interrupt()
        for line in self.lines(process):
            self.assertRegex(process.output, line)

    def test_a_site_that_sets_logging_decides_itself(self):
        require("daphne")
        server = serve(self.project(settings="LOGGING = {'version': 1}"), "daphne")
        self.addCleanup(server.kill)
        server.stop(signal.SIGTERM)
        self.assertNotIn("Server process", server.output)
