"""A HEAD of a streaming view, on every server: its body is closed unread, once, and holds no thread."""

import os
import socket
import unittest

from .support.sites import SiteBehindServer
from .support.waiting import TIMEOUT, wait_until

VIEWS = """
from django.core.signals import request_finished
from django.http import StreamingHttpResponse


def note(text):
    with open("events", "a") as out:
        out.write(text + "\\n")


def finished(**kwargs):
    note("finished")


request_finished.connect(finished)


class Parts:
    def __iter__(self):
        return self

    def __next__(self):
        note("read")
        return b"x"

    def close(self):
        note("closed")


def index(request):
    return StreamingHttpResponse(Parts())
"""

#: More than a site of one process has threads.
REQUESTS = 12


class EveryServer(SiteBehindServer):
    """Tests of one server, for a subclass of TestCase that names it."""

    files = {"mysite/views.py": VIEWS}
    settings = 'ALLOWED_HOSTS = ["*"]'

    def events(self):
        try:
            with open(os.path.join(self.project.directory, "events")) as lines:
                return lines.read().split()
        except FileNotFoundError:
            return []

    def test_a_stream_is_closed_once_and_unread(self):
        for number in range(1, REQUESTS + 1):
            address = ("127.0.0.1", self.server.port)
            with socket.create_connection(address, TIMEOUT) as client:
                client.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                with client.makefile("rb") as reader:
                    head, _, body = reader.read().partition(b"\r\n\r\n")
            self.assertIn(b" 200", head[:13])
            self.assertEqual(body, b"")
            wait_until(lambda: len(self.events()) >= 2 * number, "the end")  # noqa: B023
        self.assertEqual(self.events(), ["closed", "finished"] * REQUESTS)


class DaphneTests(EveryServer, unittest.TestCase):
    program = "daphne"


class UvicornTests(EveryServer, unittest.TestCase):
    program = "uvicorn"


class HypercornTests(EveryServer, unittest.TestCase):
    program = "hypercorn"


class GranianTests(EveryServer, unittest.TestCase):
    program = "granian"
