"""Follow the page that runs a whole deployment, Redis included, on one computer."""

import os
import re
import shlex
import sys
import unittest

from channels_tests.support import pages
from channels_tests.support.ports import can_connect, free_port
from channels_tests.support.processes import Process
from channels_tests.support.requirements import find_program, require
from channels_tests.support.sites import Project
from channels_tests.support.waiting import TIMEOUT, wait_until


class RehearsalTests(unittest.TestCase):
    """The page that runs nginx, uvicorn, workers and Redis on one computer, followed by a test."""

    PAGE = "addon/deploy/rehearsal.txt"

    SETTINGS = """
from pathlib import Path

BASE_DIR = Path(BASE_DIR)
INSTALLED_APPS += ["django.contrib.staticfiles"]
"""

    ROUTING = """
from {channels} import route


def echo(message):
    message.reply_channel.send({"text": "%s: " + message["text"]})


channel_routing = [route("websocket.receive", echo)]
"""

    def setUp(self):
        if not pages.page_exists(self.PAGE):
            raise unittest.SkipTest("the page is the add-on's")
        require("uvicorn", "websockets", "websocket", "redis-server")
        nginx = find_program("nginx", "/usr/sbin/nginx")
        if nginx is None:
            require("nginx")
        self.ports = {port: str(free_port()) for port in ("6380", "8001", "8080")}
        self.programs = {
            "redis-server": require("redis-server"),
            "/usr/sbin/nginx": nginx,
            "python": sys.executable,
            "sh": require("sh"),
        }
        found = {
            pages.path_of(text): self.here(text)
            for kind, text in pages.blocks(self.PAGE)
            if pages.path_of(text)
        }
        if os.getuid() == 0:  # root's nginx would run its workers as another user
            found["rehearsal/nginx.conf"] = "user root;\n" + found["rehearsal/nginx.conf"]
        found["mysite/routing.py"] = self.ROUTING % "old"
        self.project = Project(found, self.SETTINGS)
        self.addCleanup(self.project.close)
        self.started = {}

    def here(self, text):
        """Return the text of the page with free ports."""
        return re.sub(r"\b(6380|8001|8080)\b", lambda port: self.ports[port.group()], text)

    def start(self, words):
        words[0] = self.programs[words[0]]
        # A shell finds the Python that runs the tests.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        env = self.project.environment(DJANGO_SETTINGS_MODULE="mysite.rehearsal", PATH=path)
        process = Process(words, self.project.directory, env)
        self.addCleanup(process.kill)
        return process

    def follow(self, text):
        """Run the commands of a block: those that start a service go on, and the others end."""
        for command, _ in pages.commands(self.here(text)):
            words = shlex.split(command)
            if words[0] in ("sudo", "export") or "pip" in words:
                continue
            if words[0] == "kill":  # of the process whose id is in a file
                self.assertEqual(self.start(["sh", "-c", command]).wait(), 0)
            elif "layerstats" in words or "manage.py" in words and "runworker" not in words:
                process = self.start(words)
                self.assertEqual(process.wait(4 * TIMEOUT), 0, process.output)
            else:
                name = "runworker" if "runworker" in command else words[0]
                self.started[name] = self.start(words)

    def check_the_site_answers_through_nginx(self):
        from websocket import create_connection

        for port in map(int, self.ports.values()):
            wait_until(lambda port=port: can_connect(port), "the servers to listen", 4 * TIMEOUT)
        url = "ws://localhost:%s/" % self.ports["8080"]
        self.socket = create_connection(url, timeout=4 * TIMEOUT)
        self.addCleanup(self.socket.close)
        self.socket.send("hello")
        self.assertEqual(self.socket.recv(), "old: hello")
        self.project.write("mysite/routing.py", self.ROUTING % "new")

    def check_new_code_closes_no_socket(self):
        def is_new():
            self.socket.send("again")
            return self.socket.recv() == "new: again"

        wait_until(is_new, "the new code", 4 * TIMEOUT)

    def test_the_site_answers_through_nginx_and_new_code_closes_no_socket(self):
        checks = 0
        for kind, text in pages.blocks(self.PAGE):
            if kind == "console":
                self.follow(text)
            elif kind == "check":
                getattr(self, "check_" + text.replace(" ", "_"))()
                checks += 1
        self.assertEqual(checks, 2)
        self.assertEqual(
            set(self.started), {"redis-server", "python", "runworker", "/usr/sbin/nginx"}
        )
