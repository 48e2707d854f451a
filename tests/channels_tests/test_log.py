"""The log lines of runserver, without a server."""

import io
import logging
import os
import re
import sys
import threading
import time
from unittest import mock

from django.channels import log
from django.channels.exceptions import LayerUnavailable
from django.channels.gateway.connection import Connection
from django.channels.gateway.http import Request
from django.channels.gateway.state import LOG
from django.channels.gateway.websocket import WebSocket
from django.channels.layers.engine.options import Options
from django.channels.log import (
    WRITE_INTERVAL,
    ActionLog,
    LastResort,
    RateLimitByKey,
    Reachability,
    _ServerFormatter,
)
from django.channels.protocol import ack
from django.test import SimpleTestCase

HTTP = {
    "path": "/a%20b?x=1",
    "status": 200,
    "method": "GET",
    "client": "127.0.0.1:5000",
    "time_taken": 0.0124,
    "size": 17,
}
SOCKET = {"path": "/chat/", "client": "127.0.0.1:5001"}


class ActionLogTests(SimpleTestCase):
    def setUp(self):
        self.now = 100.0
        self.log = ActionLog(clock=lambda: self.now)

    def test_sockets_that_never_end_are_not_remembered_for_good(self):
        for number in range(20000):
            details = {"client": "192.0.2.1:%d" % number, "path": "/"}
            self.log("websocket", "connecting", details)
        self.assertLessEqual(len(self.log._since), 10000)

    def lines(self, *actions):
        with self.assertLogs("django.server", "INFO") as logs:
            for protocol, action, details in actions:
                self.log(protocol, action, details)
        return logs.records

    def test_a_request(self):
        (record,) = self.lines(("http", "complete", HTTP))
        self.assertEqual(
            record.getMessage(), "HTTP GET /a%20b?x=1 200 17 [0.012 s, 127.0.0.1:5000]"
        )
        self.assertEqual(record.status_code, 200)

    def test_a_client_does_not_choose_the_length_of_a_line(self):
        for path in ("/" + "a" * 5000, "/" + "\x1b" * 5000):
            (record,) = self.lines(("http", "complete", dict(HTTP, path=path)))
            self.assertLess(len(record.getMessage()), 300)
            self.assertIn("…", record.getMessage())

    def test_the_level_follows_the_status(self):
        for status, level in [(304, "INFO"), (404, "WARNING"), (500, "ERROR")]:
            (record,) = self.lines(("http", "complete", dict(HTTP, status=status)))
            self.assertEqual(record.levelname, level)

    def test_a_websocket(self):
        self.log("websocket", "connecting", SOCKET)
        self.now += 0.5
        (opened,) = self.lines(("websocket", "connected", SOCKET))
        self.assertEqual(opened.getMessage(), "WebSocket OPEN /chat/ 101 [0.500 s, 127.0.0.1:5001]")
        self.now += 60
        (closed,) = self.lines(("websocket", "disconnected", SOCKET))
        self.assertEqual(closed.getMessage(), "WebSocket CLOSE /chat/ [60.000 s, 127.0.0.1:5001]")

    def test_a_refused_websocket_has_one_line(self):
        records = self.lines(
            ("websocket", "connecting", SOCKET),
            ("websocket", "rejected", SOCKET),
            ("websocket", "disconnected", SOCKET),
        )
        self.assertEqual(
            [record.getMessage() for record in records],
            ["WebSocket REFUSED /chat/ 403 [0.000 s, 127.0.0.1:5001]"],
        )
        self.assertEqual(records[0].status_code, 403)

    def test_nothing_is_kept_of_a_closed_socket(self):
        accepted = ["connecting", "connected", "disconnected"]
        refused = ["connecting", "rejected", "disconnected"]
        self.lines(*[("websocket", action, SOCKET) for action in accepted + refused])
        self.assertEqual(self.log._since, {})


class FormatterTests(SimpleTestCase):
    """The stand-in for the formatter that Django has since 1.10."""

    def test_styles_by_status(self):
        formatter = _ServerFormatter()

        class Style:
            def __getattr__(self, name):
                return lambda text: name

        formatter.colors = Style()
        for status, style in [
            (101, "HTTP_INFO"),
            (200, "HTTP_SUCCESS"),
            (302, "HTTP_REDIRECT"),
            (304, "HTTP_NOT_MODIFIED"),
            (403, "HTTP_BAD_REQUEST"),
            (404, "HTTP_NOT_FOUND"),
            (500, "HTTP_SERVER_ERROR"),
        ]:
            record = logging.makeLogRecord(
                {"msg": "x", "status_code": status, "server_time": "now"}
            )
            self.assertEqual(formatter.format(record), "[now] " + style)

    def test_no_status_no_style(self):
        record = logging.makeLogRecord(
            {"msg": "%s closed", "args": ("/",), "status_code": None, "server_time": "now"}
        )
        self.assertEqual(_ServerFormatter().format(record), "[now] / closed")


class LastResortTests(SimpleTestCase):
    def test_an_exception_cannot_write_lines_of_its_own(self):
        try:
            raise ValueError("x\n2026-01-01 ERROR forged\r\x1b[2J\u2028y")
        except ValueError:
            record = logging.LogRecord(
                "django.channels", logging.ERROR, "", 0, "Failed:", (), sys.exc_info()
            )
        first, *others = LastResort().format(record).split("\n")
        self.assertTrue(first.endswith("ERROR django.channels: Failed:"), first)
        self.assertIn("ValueError: x", "".join(others))
        for line in others:
            self.assertTrue(line.startswith("    ") and line.isprintable(), repr(line))


class SafeLoggerTests(SimpleTestCase):
    def test_every_logger_of_the_package_is_one(self):
        package = os.path.dirname(log.__file__)
        names = set()
        for folder, _, files in os.walk(package):
            for name in files:
                if name.endswith(".py"):
                    with open(os.path.join(folder, name), encoding="utf-8") as source:
                        names.update(
                            re.findall(r'getLogger\("(django\.channels[^"]*)"', source.read())
                        )
        self.assertEqual(names, set(log.LOGGERS))
        for name in names:
            self.assertIsInstance(logging.getLogger(name), log.SafeLogger)

    def test_a_handler_that_raises_is_shown_on_stderr_with_the_line(self):
        logger = logging.getLogger("django.channels.worker")
        handler = logging.Handler()
        handler.emit = mock.Mock(side_effect=OSError("disk full"))
        logger.addHandler(handler)
        try:
            with mock.patch("sys.stderr", io.StringIO()) as stderr:
                logger.error("A client of %s\nwaits.", "x")
        finally:
            logger.removeHandler(handler)
        self.assertIn("OSError: disk full", stderr.getvalue())
        self.assertIn("Message: A client of x\\nwaits.", stderr.getvalue())

    def test_a_traceback_colours_no_line_of_any_handler(self):
        logger = logging.getLogger("django.channels.worker")
        first, second = io.StringIO(), io.StringIO()
        handlers = [logging.StreamHandler(first), logging.StreamHandler(second)]
        for handler in handlers:
            logger.addHandler(handler)
        try:
            for error in (
                ValueError("x\x1b[2J\ry\nz"),
                ValueError("plain\n\tline"),
                ValueError("\ud800"),
            ):
                with mock.patch.object(logging.getLogger("django.channels"), "propagate", False):
                    logger.error("Failed:", exc_info=(type(error), error, None))
        finally:
            for handler in handlers:
                logger.removeHandler(handler)
        lines = [
            "Failed:",
            "ValueError: x\\x1b[2J\\ry",
            "z",
            "Failed:",
            "ValueError: plain",
            "\tline",
        ]
        lines += ["Failed:", "ValueError: \\ud800", ""]
        self.assertEqual(first.getvalue().split("\n"), lines)
        self.assertEqual(second.getvalue(), first.getvalue())

    def test_an_interrupt_of_the_main_thread_is_not_kept(self):
        logger = logging.getLogger("django.channels.worker")
        handler = logging.Handler()
        handler.emit = mock.Mock(side_effect=KeyboardInterrupt)
        logger.addHandler(handler)
        try:
            with self.assertRaises(KeyboardInterrupt):
                logger.error("x")
        finally:
            logger.removeHandler(handler)


class GatewayLineTests(SimpleTestCase):
    """A client does not choose the length of the gateway's lines."""

    LONG = "/" + "\x1b" * 5000

    def lines_of(self, state, actions):
        gateway = mock.Mock()
        gateway.lines = RateLimitByKey(0)  # no line is suppressed
        connection = Connection(gateway, state, None)
        with self.assertLogs("django.channels.gateway") as logs:
            connection.perform([action for action in actions if action[0] is LOG])
        for record in logs.records:
            text = record.getMessage()
            self.assertTrue(text.isprintable())
            self.assertLess(len(text), 600)
            self.assertIn("…", text)
        return [record.getMessage() for record in logs.records]

    def test_of_a_websocket(self):
        def connecting():
            socket = WebSocket("gateway.x!1", self.LONG)
            socket.connect({})
            return socket

        socket = connecting()
        (line,) = self.lines_of(socket, socket.timeout())
        self.assertIn("was not accepted in time", line)
        for reply, words in [
            ({"accept": True, "subprotocol": "\n" + "p" * 5000}, "the client did not offer it"),
            ({"text": 5}, "must be str"),
            ({"text": "x", "close": "9" * 5000}, "isn't a close code"),
        ]:
            with self.subTest(words=words):
                socket = connecting()
                (line,) = self.lines_of(socket, socket.reply(ack(0, [reply])))
                self.assertIn(words, line)

    def test_of_a_request(self):
        for reply, words in [
            ({"status": 200, "headers": [[b"x", b"\n"]]}, "a 500 was sent instead"),
            ({"status": 200, "headers": [], "content": "text"}, "must be bytes"),
        ]:
            with self.subTest(words=words):
                request = Request("gateway.x!1", self.LONG)
                request.in_flight = 0
                (line,) = self.lines_of(request, request.reply(ack(0, [reply])))
                self.assertIn(words, line)


class ReachabilityTests(SimpleTestCase):
    """One line for a process that loses its layer, and one when it has it again."""

    def setUp(self):
        self.reachability = Reachability("default (Layer)")

    def lines(self, call):
        with self.assertLogs("django.channels.layers", "WARNING") as logs:
            call()
            logging.getLogger("django.channels.layers").warning("end")
        return [record.getMessage() for record in logs.records[:-1]]

    def test_many_threads_that_fail_for_long_log_one_line_and_one_at_the_end(self):
        def outage():
            for _ in range(20):
                threads = [
                    threading.Thread(
                        target=self.reachability.failed, args=(OSError("away"), time.monotonic())
                    )
                    for _ in range(4)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            for _ in range(20):
                self.reachability.succeeded(time.monotonic())

        lines = self.lines(outage)
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("default (Layer) cannot be reached: away", lines[0])
        self.assertRegex(lines[1], r"default \(Layer\) can be reached again, after \d+\.\d s")

    def test_a_layer_that_can_only_be_read_is_not_reached_by_a_call_that_reads(self):
        error = LayerUnavailable("full")
        error.is_readable = True

        def outage():
            for _ in range(3):
                self.reachability.failed(error, time.monotonic())
                self.reachability.succeeded(time.monotonic())

        self.assertEqual(len(self.lines(outage)), 1)
        # On a full disk, some heartbeats succeed between others that fail.
        heartbeat = time.monotonic() + 1.5 * Options().heartbeat
        self.assertEqual(self.lines(lambda: self.reachability.succeeded(heartbeat)), [])
        later = time.monotonic() + WRITE_INTERVAL
        lines = self.lines(lambda: self.reachability.succeeded(later))
        self.assertRegex(lines[0], "can be reached again")

    def test_a_call_that_began_before_a_change_changes_nothing(self):
        before = time.monotonic()
        self.lines(lambda: self.reachability.failed(OSError("away"), before))
        self.assertEqual(self.lines(lambda: self.reachability.succeeded(before)), [])
        self.assertTrue(self.reachability.is_away)
        during = time.monotonic()
        self.lines(lambda: self.reachability.succeeded(time.monotonic()))
        self.assertEqual(self.lines(lambda: self.reachability.failed(OSError("late"), during)), [])
        self.assertFalse(self.reachability.is_away)
