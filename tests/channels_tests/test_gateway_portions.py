"""What one client sent is parsed in portions, or little of it is read at once: others get their turn."""

import asyncio
import sys
import types
import unittest
from unittest import mock

from django.channels.gateway import internals, portions, reading
from django.channels.gateway.internals import Bound, Class

from .support.requirements import require
from .support.waiting import TIMEOUT

#: A chunk of one byte, of a chunked body.
CHUNK = b"1\r\nx\r\n"


class Transport:
    def __init__(self):
        self.protocol, self.is_reading, self.closing, self.aborted = None, True, False, False

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True

    def abort(self):
        self.closing = self.aborted = True


class PortionTests(unittest.TestCase):
    def setUp(self):
        class Protocol:
            def __init__(self, loop):
                self.loop, self.transport = loop, Transport()
                self.transport.protocol = self
                self.flow = types.SimpleNamespace(read_paused=False)
                self.headers = [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
                self.parsed, self.error = [], None

            def data_received(self, data):
                self.parsed.append(data)
                if self.error is not None:
                    raise self.error

        self.protocol_class = Protocol
        modules = {"a_server": types.SimpleNamespace(Protocol=Protocol)}
        uses = internals.CHUNKS.kinds[0].uses
        classes = [Class(name, "Protocol", uses) for name in ("a_server", "not_installed")]
        bound = Bound("chunks", tuple(classes))
        with mock.patch.dict(sys.modules, modules), mock.patch.object(portions, "CHUNKS", bound):
            for _ in range(2):  # of two gateways
                portions.parse_in_portions()

    def run_with(self, function):
        async def main():
            protocol = self.protocol_class(asyncio.get_event_loop())
            await function(protocol)

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))

    async def parsed(self, protocol):
        while protocol.channels_waiting:
            await asyncio.sleep(0)
        return b"".join(protocol.parsed)

    def test_other_code_runs_between_the_portions_of_many_tiny_chunks(self):
        async def test(protocol):
            data, turns = CHUNK * 40000, 0
            protocol.data_received(data)
            while protocol.channels_waiting:
                self.assertFalse(protocol.transport.is_reading)
                turns += 1
                await asyncio.sleep(0)
            self.assertEqual(b"".join(protocol.parsed), data)
            self.assertTrue(protocol.transport.is_reading)
            self.assertGreaterEqual(turns, len(protocol.parsed) - 1)
            most = max(each.count(b"\n") for each in protocol.parsed)
            self.assertLessEqual(most, 2 * portions.LINES)

        self.run_with(test)

    def test_tiny_chunks_behind_large_ones_come_in_portions_too(self):
        async def test(protocol):
            protocol.data_received(b"x" * 50000 + CHUNK * 10000)
            await self.parsed(protocol)
            most = max(each.count(b"\n") for each in protocol.parsed)
            self.assertLess(most, 20 * portions.LINES)

        self.run_with(test)

    def test_what_other_clients_send_is_parsed_at_once(self):
        async def test(protocol):
            head, lines = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"%0128d\n" % 1 * 1000
            for data in (head, b"x" * 256000, CHUNK * 600, lines):
                protocol.data_received(data)
                self.assertEqual(protocol.parsed.pop(), data)
                self.assertEqual(protocol.channels_waiting, b"")

        self.run_with(test)

    def test_a_body_without_chunks_is_parsed_at_once_whatever_its_lines_are(self):
        async def test(protocol):
            lines, protocol.headers = b"\n" * 100000, [(b"content-length", b"100000")]
            protocol.data_received(lines)
            self.assertEqual(protocol.parsed.pop(), lines)
            # The next request may have chunks.
            protocol.data_received(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked" + lines)
            self.assertNotEqual(protocol.channels_waiting, b"")
            await self.parsed(protocol)

        self.run_with(test)

    def test_what_comes_meanwhile_is_parsed_afterwards(self):
        async def test(protocol):
            protocol.data_received(CHUNK * 1000)
            protocol.transport.resume_reading()  # the server does it
            protocol.data_received(b"the end")
            self.assertFalse(protocol.transport.is_reading)
            self.assertEqual(await self.parsed(protocol), CHUNK * 1000 + b"the end")

        self.run_with(test)

    def test_what_waits_is_bounded_although_the_server_reads_on(self):
        async def test(protocol):
            for _ in range(20):
                protocol.data_received(CHUNK * 40000)
                self.assertLessEqual(len(protocol.channels_waiting), portions.MAX_WAITING)
            self.assertEqual(await self.parsed(protocol), CHUNK * 800000)

        self.run_with(test)

    def test_reading_does_not_go_on_while_the_server_has_paused_it(self):
        async def test(protocol):
            protocol.flow.read_paused = True
            protocol.data_received(CHUNK * 1000)
            await self.parsed(protocol)
            self.assertFalse(protocol.transport.is_reading)

        self.run_with(test)

    def test_nothing_is_parsed_after_the_end_or_for_another_protocol(self):
        for attribute, value in (("closing", True), ("protocol", None)):
            with self.subTest(attribute):

                async def test(protocol, attribute=attribute, value=value):
                    protocol.data_received(CHUNK * 1000)
                    setattr(protocol.transport, attribute, value)
                    before = len(protocol.parsed)
                    await self.parsed(protocol)
                    self.assertEqual(len(protocol.parsed), before)
                    # Another protocol reads on.
                    self.assertEqual(protocol.transport.is_reading, attribute == "protocol")

                self.run_with(test)

    def test_an_error_of_the_parser_ends_the_connection(self):
        async def test(protocol):
            protocol.error = ValueError("a bug")
            with self.assertRaises(ValueError):
                protocol.data_received(CHUNK * 1000)
            self.assertTrue(protocol.transport.aborted)

        self.run_with(test)


class ChunkTests(unittest.TestCase):
    """What Twisted reads at once of a request."""

    HEAD = b"POST / HTTP/1.1\r\nHost: example.com\r\n"

    def setUp(self):
        require("twisted")
        from twisted.internet.testing import StringTransport
        from twisted.web import http

        class Channel(http.HTTPChannel):
            pass

        class Request(http.Request):
            def process(self):
                self.write(b"done")
                self.finish()

        class Transport(StringTransport):
            bufferSize = 65536

        modules = {internals.TWISTED: types.SimpleNamespace(HTTPChannel=Channel)}
        with mock.patch.dict(sys.modules, modules):
            for _ in range(2):  # of two gateways
                reading.read_little_of_chunks()
        self.channel = Channel()
        self.channel.requestFactory = Request
        self.transport = Transport()
        self.channel.makeConnection(self.transport)
        self.addCleanup(self.channel.setTimeout, None)

    def sizes(self, data):
        """Send `data`, and return how much is read at once."""
        sizes = []
        while data:
            size = self.transport.bufferSize
            sizes.append(len(data[:size]))
            self.channel.dataReceived(data[:size])
            data = data[size:]
        return sizes

    def test_little_is_read_at_once_of_a_body_in_tiny_chunks(self):
        head = self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        sizes = self.sizes(head + CHUNK * 30000 + b"0\r\n\r\n")
        self.assertLessEqual(max(sizes), 2 * reading.FIRST_READ)
        self.assertEqual(self.transport.bufferSize, reading.LITTLE_READ)
        self.assertIn(b"done", self.transport.value())

    def test_tiny_chunks_behind_large_ones_are_read_in_small_parts_from_then_on(self):
        head = self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        large = (b"10000\r\n" + b"y" * 65536 + b"\r\n") * 3
        sizes = self.sizes(head + large + CHUNK * 40000 + b"0\r\n\r\n")
        self.assertLessEqual(sum(size > reading.FIRST_READ for size in sizes[-40:]), 0)
        self.assertIn(b"done", self.transport.value())

    def test_other_bodies_are_read_in_larger_and_larger_parts(self):
        lines = b"a line\n" * 60000
        for name, head, body in (
            ("length", b"Content-Length: %d\r\n\r\n" % len(lines), lines),
            (
                "large chunks",
                b"Transfer-Encoding: chunked\r\n\r\n",
                (b"4000\r\n" + b"y" * 16384 + b"\r\n") * 20 + b"0\r\n\r\n",
            ),
        ):
            with self.subTest(name):
                self.setUp()
                sizes = self.sizes(self.HEAD + head + body)
                self.assertEqual(sizes[:5], [4096, 8192, 16384, 32768, 65536])
                self.assertIn(b"done", self.transport.value())

    def test_a_socket_on_the_same_connection_is_read_in_larger_parts_again(self):
        head = self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        self.sizes(head + CHUNK * 30000 + b"0\r\n\r\n")
        read_size = reading.ReadSize(self.transport)
        for _ in range(4):
            read_size.note(self.transport.bufferSize, 1)
        self.assertEqual(self.transport.bufferSize, 65536)
