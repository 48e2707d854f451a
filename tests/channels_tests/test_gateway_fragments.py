"""Frames of a WebSocket that aren't whole messages: they are counted before the server parses them."""

import asyncio
import functools
import random
import socket
import sys
import unittest
from unittest import mock

from django.channels.gateway import internals, rounds
from django.channels.gateway.buffers import MAX_WRITE_BUFFER, WriteBuffers
from django.channels.gateway.connection import CLOSE_TIMEOUT
from django.channels.gateway.daphne import bound_frames
from django.channels.gateway.fragments import (
    FIRST_READ,
    FRAMES_PER_SECOND,
    LITTLE_READ,
    MAX_BURST,
    MAX_FRAGMENTS,
    MAX_FRAMES_OF_A_READ,
    FrameCounter,
    ReadSize,
    bound_uvicorn,
)

from .support.requirements import require
from .support.waiting import TIMEOUT
from .test_gateway_daphne import Server

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, length=0, fin=True, masked=True, compressed=False):
    """A frame as a client sends it."""
    first = opcode | (0x80 if fin else 0) | (0x40 if compressed else 0)
    mask = 0x80 if masked else 0
    if length < 126:
        head = bytes([first, mask | length])
    elif length < 65536:
        head = bytes([first, mask | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, mask | 127]) + length.to_bytes(8, "big")
    return head + (b"\xff" * 4 if masked else b"") + b"\x01" * length


def message(fragments, length=1):
    """A message of so many fragments."""
    middle = frame(0, length, fin=False) * (fragments - 2)
    return frame(TEXT, length, fin=False) + middle + frame(0, length)


class FrameCounterTests(unittest.TestCase):
    def setUp(self):
        self.counter = FrameCounter()

    def allows(self, data, now=1000.0, size=None):
        """Whether all of `data` is allowed, which comes in parts of `size`."""
        size = size or len(data)
        return all(
            self.counter.allows(data[start : start + size], now)
            for start in range(0, len(data), size)
        )

    def test_any_number_of_messages_is_allowed(self):
        for length in (0, 1, 125, 126, 65535, 65536):
            for opcode in (TEXT, BINARY):
                for compressed in (False, True):
                    data = frame(opcode, length, compressed=compressed)
                    for _ in range(1 + 100000 // (length + 1)):
                        self.assertTrue(self.allows(data))

    def test_a_client_may_send_a_burst_of_pings_and_then_some_each_second(self):
        for opcode in (PING, PONG, CLOSE):
            self.counter, now = FrameCounter(), 1000.0
            self.assertTrue(self.allows(frame(opcode, 5) * MAX_BURST, now))
            for _ in range(20):
                now += 1
                self.assertTrue(self.allows(frame(opcode, 5) * FRAMES_PER_SECOND, now))
            self.assertFalse(self.allows(frame(opcode), now))

    def test_a_message_may_have_so_many_fragments(self):
        now = 1000.0
        for _ in range(5):
            self.assertTrue(self.allows(message(MAX_FRAGMENTS), now))
            now += MAX_BURST / FRAMES_PER_SECOND
        self.assertFalse(self.allows(message(MAX_FRAGMENTS + 2), now))

    def test_fragments_of_one_message_are_bounded_however_slowly_they_come(self):
        now = 1000.0
        for opcode in (TEXT,) + (0,) * (MAX_FRAGMENTS - 1):
            now += 1
            self.assertTrue(self.allows(frame(opcode, fin=False), now))
            self.assertTrue(self.allows(frame(PING), now))
        self.assertFalse(self.allows(frame(0, fin=False), now))

    def test_fragments_of_many_messages_are_bounded(self):
        self.assertTrue(self.allows(message(16) * (MAX_BURST // 16)))
        self.assertFalse(self.allows(message(2)))

    def test_frames_are_found_however_the_bytes_are_divided(self):
        lengths = (0, 1, 125, 126, 127, 128, 65535, 65536, 70000)
        generator = random.Random(1)
        for _ in range(40):
            self.counter, extra, data = FrameCounter(), 0, b""
            for _ in range(20):
                opcode = generator.choice((TEXT, BINARY, PING, PONG))
                length = generator.choice(lengths) if opcode < CLOSE else generator.randrange(126)
                data += frame(opcode, length, masked=generator.random() < 0.9)
                extra += opcode >= CLOSE
            size = generator.choice((1, 2, 3, 7, 100, 4096, len(data)))
            self.assertTrue(self.allows(data, size=size if len(data) < 10**5 else 1000 + size))
            self.assertTrue(self.allows(frame(PING) * (MAX_BURST - extra)))
            self.assertFalse(self.allows(frame(PING)))

    def test_frames_are_taken_in_portions_that_end_with_a_frame(self):
        generator = random.Random(2)
        for _ in range(40):
            lengths = [generator.choice((0, 1, 5, 125, 126, 5000, 65536)) for _ in range(200)]
            data = b"".join(frame(TEXT, length) for length in lengths)
            self.counter, most, found = FrameCounter(), generator.randrange(1, 70), 0
            reads = generator.choice((1, 5, 100, 4096, 262144))
            reads = max(reads, len(data) // 1000)
            for start in range(0, len(data), reads):
                part = data[start : start + reads]
                while part:
                    size = self.counter.take(part, 1000.0, most)
                    self.assertGreater(size, 0)
                    self.assertLessEqual(self.counter.in_read, most)
                    self.assertTrue(size == len(part) or self.counter.in_read == most)
                    found += self.counter.in_read
                    part = part[size:]
            self.assertEqual(found, len(lengths))

    def test_the_announced_length_of_a_frame_hides_no_other(self):
        self.assertTrue(self.allows(frame(TEXT, 1000)[:-1]))
        self.assertTrue(self.allows(b"\x01" + frame(PING) * MAX_BURST))
        self.assertFalse(self.allows(frame(PING)))


class ReadSizeTests(unittest.TestCase):
    def read(self, transport, data):
        """Let a client send `data`, and return how large the reads are."""
        read_size, counter, sizes = ReadSize(transport), FrameCounter(), []
        while data:
            part, data = data[: transport.bufferSize], data[transport.bufferSize :]
            self.assertTrue(counter.allows(part, 1000.0))
            read_size.note(len(part), counter.in_read)
            sizes.append(len(part))
        return sizes

    def test_a_client_with_large_messages_is_read_in_larger_and_larger_parts(self):
        sizes = self.read(
            mock.Mock(spec=["bufferSize"], bufferSize=65536), frame(BINARY, 16384) * 20
        )
        self.assertEqual(sizes[:7], [4096, 8192, 16384, 32768, 65536, 65536, 65536])

    def test_a_client_that_sends_many_small_messages_is_read_in_small_parts_from_then_on(self):
        for before in (b"", frame(BINARY, 16384) * 20):
            transport = mock.Mock(spec=["bufferSize"], bufferSize=65536)
            flood = frame(TEXT, 1) * 20000
            sizes = self.read(transport, before + flood + frame(BINARY, 16384) * 20)
            at_once = sum(size > FIRST_READ for size in sizes[-40 - len(flood) // FIRST_READ :])
            self.assertLessEqual(at_once, 1)

    def test_small_messages_that_come_one_by_one_change_nothing(self):
        transport = mock.Mock(spec=["bufferSize"], bufferSize=65536)
        read_size = ReadSize(transport)
        read_size.note(FIRST_READ, MAX_FRAMES_OF_A_READ)
        self.assertEqual(transport.bufferSize, 2 * FIRST_READ)
        read_size.note(7, 1)
        self.assertEqual(transport.bufferSize, 2 * FIRST_READ)

    def test_a_transport_that_reads_less_by_itself_is_not_made_to_read_more(self):
        transport = mock.Mock(spec=["max_size"], max_size=1000)
        ReadSize(transport).note(1000, 1)
        self.assertEqual(transport.max_size, 1000)

    def test_a_transport_that_does_not_tell_is_left_alone(self):
        ReadSize(mock.Mock(spec=["write"])).note(65536, 1000)

    def test_the_transport_below_that_of_tls_is_set(self):
        below = mock.Mock(spec=["bufferSize"], bufferSize=65536)
        ReadSize(mock.Mock(spec=["transport"], transport=below))
        self.assertEqual(below.bufferSize, FIRST_READ)

    def test_the_transport_of_asyncio_reads_so_much(self):
        ours, clients = socket.socketpair()
        sizes = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                ReadSize(transport)

            def data_received(self, data):
                sizes.append(len(data))
                if sum(sizes) == 65536:
                    done.set()

        async def main():
            nonlocal done
            done = asyncio.Event()
            transport, _ = await asyncio.get_event_loop().create_connection(Protocol, sock=ours)
            await asyncio.wait_for(done.wait(), 20)
            transport.close()

        done = None
        clients.sendall(b"x" * 65536)
        self.addCleanup(clients.close)
        asyncio.run(main())
        self.assertEqual(max(sizes), FIRST_READ)

    def test_the_transport_of_twisted_reads_so_much(self):
        require("twisted")
        from twisted.internet import tcp

        ours, clients = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(clients.close)
        clients.sendall(b"x" * 65536)
        parts, protocol = [], mock.Mock()
        protocol.dataReceived = lambda data: parts.append(data)  # an old Twisted expects None
        connection = tcp.Connection(ours, protocol, mock.Mock())
        ReadSize(connection)
        connection.doRead()
        self.assertEqual(len(b"".join(parts)), FIRST_READ)


class UvicornProtocol:
    """uvicorn's protocol of a WebSocket. It also is its own transport."""

    client = ("10.0.0.1", 1)
    closing = False

    def connection_made(self, transport):
        self.transport, self.received = self, []

    def data_received(self, data):
        self.received.append(data)

    def is_closing(self):
        return self.closing

    def abort(self):
        self.closing = True


class UvicornTests(unittest.TestCase):
    def setUp(self):
        class Protocol(UvicornProtocol):
            pass

        self.protocol, self.noted = Protocol, []
        module = mock.Mock(spec=[], WebSocketProtocol=Protocol)
        patched = mock.patch.dict(sys.modules, {internals.WEBSOCKETS: module})
        patched.start()
        self.addCleanup(patched.stop)

    def connected(self):
        connection = self.protocol()
        connection.connection_made(None)
        return connection

    def test_a_flood_ends_its_connection_before_the_server_has_it(self):
        bound_uvicorn(self.noted.append)
        connection = self.connected()
        head, flood = b"GET / HTTP/1.1\r\n\r\n", frame(PING) * (MAX_BURST + 1)
        for data in (head, frame(TEXT, 5), flood, flood):
            connection.data_received(data)
        self.assertEqual(connection.received, [head, frame(TEXT, 5)])
        self.assertTrue(connection.closing)
        self.assertEqual(self.noted, ["10.0.0.1"])

    def test_little_is_read_at_once_from_a_client_with_many_small_messages(self):
        bound_uvicorn(self.noted.append)
        connection = self.connected()
        connection.max_size = 262144
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
        connection.data_received(frame(BINARY, 5000))
        self.assertEqual(connection.max_size, 2 * FIRST_READ)
        connection.data_received(frame(TEXT, 1) * 600)
        self.assertEqual(connection.max_size, LITTLE_READ)

    def test_a_connection_older_than_the_gateway_is_left_alone(self):
        connection = self.connected()
        bound_uvicorn(self.noted.append)
        flood = frame(PING) * (MAX_BURST + 1)
        connection.data_received(flood)
        self.assertEqual(connection.received, [flood])

    def test_the_newest_gateway_is_told_once(self):
        others = []
        bound_uvicorn(others.append)
        bound_uvicorn(self.noted.append)
        connection = self.connected()
        connection.data_received(b"head")
        connection.data_received(frame(PING) * (MAX_BURST + 1))
        self.assertEqual((others, self.noted), ([], ["10.0.0.1"]))


class ReadingTransport:
    """A transport of a server's loop, which reads up to 256 KB at once and doesn't tell, as uvloop's."""

    def __init__(self):
        self.is_reading, self.closing, self.written = True, False, []

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True

    def is_closing(self):
        return self.closing

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.closing = True


class PausingProtocol:
    """uvicorn's protocol of a WebSocket: it reads on when all its messages were taken."""

    client = ("10.0.0.1", 1)

    def __init__(self, loop):
        self.loop, self.read_paused = loop, False
        self.received, self.frames, self.error = [], 0, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.error is not None:
            raise self.error
        self.received.append(data)
        counter = FrameCounter()
        counter.allows(data, 0.0)
        self.frames += counter.in_read
        if not self.read_paused and self.stops_for(data):
            self.read_paused = True
            self.transport.pause_reading()

    def stops_for(self, data):
        """Whether there is a message in `data`, which now is in a queue."""
        return len(self.received) > 1

    def take_messages(self):
        """What `receive` does when it has given out the last message."""
        self.read_paused = False
        self.transport.resume_reading()


class PortionTests(unittest.TestCase):
    """What one client sent is given to the server in portions, each when it wants more."""

    HEAD = b"GET / HTTP/1.1\r\n\r\n"
    FLOOD = frame(TEXT, 1) * 37000

    def run_with(self, function, base=PausingProtocol):
        class Protocol(base):
            pass

        async def main():
            self.noted = []
            bound_uvicorn(self.noted.append)
            protocol = Protocol(asyncio.get_event_loop())
            self.transport = ReadingTransport()
            protocol.connection_made(self.transport)
            protocol.data_received(self.HEAD)
            protocol.received.clear()
            protocol.received.append(b"")
            protocol.frames = 0
            await function(protocol)

        module = mock.Mock(spec=[], WSProtocol=Protocol)
        with mock.patch.dict(sys.modules, {internals.WSPROTO: module}):
            asyncio.run(asyncio.wait_for(main(), TIMEOUT))

    async def take_all(self, protocol):
        """Take each portion. Return how many frames each of them had."""
        numbers, before = [protocol.frames], protocol.frames
        while protocol.read_paused:
            protocol.take_messages()
            await asyncio.sleep(0)
            if protocol.frames > before:
                numbers.append(protocol.frames - before)
                before = protocol.frames
        return numbers

    def test_other_code_runs_between_the_portions_of_many_small_messages(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD)
            self.assertFalse(self.transport.is_reading)
            numbers = await self.take_all(protocol)
            self.assertEqual(b"".join(protocol.received), self.FLOOD)
            self.assertLessEqual(max(numbers), FIRST_READ // 7 + MAX_FRAMES_OF_A_READ)
            self.assertTrue(self.transport.is_reading)

        self.run_with(test)

    def test_nothing_is_parsed_before_the_messages_of_the_last_portion_were_taken(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD)
            first = protocol.frames
            for _ in range(20):
                await asyncio.sleep(0)
            self.assertEqual(protocol.frames, first)
            protocol.take_messages()
            protocol.take_messages()
            self.assertEqual(protocol.frames, first)  # later, and once
            for _ in range(20):
                await asyncio.sleep(0)
            self.assertLess(protocol.frames, 2 * first + MAX_FRAMES_OF_A_READ)

        self.run_with(test)

    def test_of_many_clients_a_few_are_parsed_in_each_round_of_the_loop(self):
        async def test(protocol):
            others = []
            for _ in range(100):
                other = type(protocol)(protocol.loop)
                other.connection_made(ReadingTransport())
                other.data_received(self.HEAD)
                other.received.append(b"")
                # A transport of asyncio reads 4 KB at once.
                other.data_received(self.FLOOD[: 585 * 7])
                others.append(other)
            before, most, complete = 0, 0, len(self.FLOOD[: 585 * 7])
            while any(sum(map(len, other.received[2:])) < complete for other in others):
                for other in others:
                    if other.read_paused:
                        other.take_messages()
                await asyncio.sleep(0)
                frames = sum(other.frames for other in others)
                most, before = max(most, frames - before if before else 0), frames
            self.assertLessEqual(most, rounds.PORTIONS_OF_A_ROUND * MAX_FRAMES_OF_A_READ)

        self.run_with(test)

    def test_parts_without_a_message_are_parsed_one_after_the_other(self):
        """Fragments, or messages after the server's own close: it doesn't pause, and doesn't ask for more."""

        class Deaf(PausingProtocol):
            def stops_for(self, data):
                return False

        async def test(protocol):
            protocol.data_received(self.FLOOD)
            turns = 0
            while protocol.channels_portions.waiting:
                self.assertFalse(self.transport.is_reading)
                turns += 1
                await asyncio.sleep(0)
            self.assertGreater(turns, 30)
            self.assertEqual(b"".join(protocol.received), self.FLOOD)
            self.assertTrue(self.transport.is_reading)

        self.run_with(test, Deaf)

    def test_small_messages_behind_a_large_one_come_in_portions_too(self):
        async def test(protocol):
            large = frame(BINARY, 100000)
            protocol.data_received(large + self.FLOOD)
            self.assertLess(protocol.frames, 700)
            self.assertGreaterEqual(len(protocol.received[1]), len(large))
            await self.take_all(protocol)
            self.assertEqual(b"".join(protocol.received), large + self.FLOOD)

        self.run_with(test)

    def test_what_other_clients_send_is_parsed_at_once(self):
        async def test(protocol):
            for data in (
                frame(TEXT, 5),
                frame(BINARY, 200000),
                frame(BINARY, 4096) * 60,
                frame(TEXT, 1) * 64,
                frame(BINARY, 262144)[:262144],
                b"\x01" * 14,  # the rest of it
            ):
                protocol.data_received(data)
                self.assertEqual(protocol.received[-1], data)
                if protocol.read_paused:
                    protocol.take_messages()
            self.assertIs(protocol.transport, self.transport)

        self.run_with(test)

    def test_what_comes_meanwhile_is_parsed_afterwards(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD)
            more = frame(TEXT, 100) * 50
            protocol.data_received(more)  # a transport with TLS had it already
            self.assertFalse(self.transport.is_reading)
            await self.take_all(protocol)
            self.assertEqual(b"".join(protocol.received), self.FLOOD + more)
            # And then as ever.
            protocol.data_received(frame(TEXT, 5))
            self.assertEqual(protocol.received[-1], frame(TEXT, 5))
            protocol.take_messages()
            self.assertTrue(self.transport.is_reading)

        self.run_with(test)

    def test_a_flood_of_pings_behind_messages_ends_the_connection(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD[: 7 * 3000] + frame(PING) * 3 * MAX_BURST)
            self.assertFalse(self.transport.closing)
            await self.take_all(protocol)
            while not self.transport.closing:
                await asyncio.sleep(0)
            self.assertEqual(self.noted, ["10.0.0.1"])

        self.run_with(test)

    def test_nothing_is_parsed_after_the_end(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD)
            before = protocol.frames
            self.transport.closing = True
            await self.take_all(protocol)
            self.assertEqual((protocol.frames, protocol.channels_portions.waiting), (before, b""))

        self.run_with(test)

    def test_an_error_of_the_parser_ends_the_connection(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD)
            protocol.error = ValueError("a bug")
            reported = []
            protocol.loop.set_exception_handler(
                lambda loop, context: reported.append(context["exception"])
            )
            protocol.take_messages()
            while not reported:
                await asyncio.sleep(0)
            self.assertEqual(reported, [protocol.error])
            self.assertTrue(self.transport.closing)

        self.run_with(test)

    def test_the_server_writes_to_its_transport_as_before(self):
        async def test(protocol):
            protocol.data_received(self.FLOOD)
            protocol.transport.write(b"an answer")
            self.assertEqual(self.transport.written, [b"an answer"])
            self.assertFalse(protocol.transport.is_closing())

        self.run_with(test)

    def test_a_protocol_that_does_not_tell_whether_it_has_paused_gets_all_at_once(self):
        class Reading(UvicornProtocol):
            def __init__(self, loop):
                pass

        async def test(protocol):
            protocol.data_received(self.FLOOD)
            self.assertEqual(protocol.received[1:], [self.FLOOD])

        self.run_with(test, Reading)


class TwistedProtocol:
    """Daphne's protocol of a WebSocket. It also is its own transport."""

    STATE_CONNECTING, STATE_OPEN = 1, 3

    def __init__(self, data=b""):
        self.transport, self.received, self.aborted = self, [], 0
        self.state, self.data = self.STATE_CONNECTING, data

    def dataReceived(self, data):
        self.received.append(data)

    def abortConnection(self):
        self.aborted += 1


class DaphneTests(unittest.TestCase):
    def bounded(self, protocol):
        self.noted = []
        send = functools.partial(Server().handle_reply, protocol)
        bound_frames({"client": ["10.0.0.1", 1]}, send, self.noted.append)
        return protocol

    def test_a_flood_ends_its_connection_before_the_server_has_it(self):
        protocol = self.bounded(TwistedProtocol())
        protocol.state = protocol.STATE_OPEN
        flood = frame(PING) * (MAX_BURST + 1)
        for data in (frame(TEXT, 5), flood, flood):
            protocol.dataReceived(data)
        self.assertEqual(protocol.received, [frame(TEXT, 5)])
        self.assertEqual((protocol.aborted, self.noted), (1, ["10.0.0.1"]))

    def test_frames_before_the_answer_to_the_handshake_end_the_connection(self):
        protocol = self.bounded(TwistedProtocol())
        protocol.dataReceived(frame(TEXT, 5))
        self.assertEqual((protocol.aborted, protocol.received), (1, []))
        self.assertEqual(self.bounded(TwistedProtocol(b"early")).aborted, 1)

    def test_little_is_read_at_once_from_a_client_with_many_small_messages(self):
        protocol = TwistedProtocol()
        protocol.bufferSize = 65536
        self.bounded(protocol).state = protocol.STATE_OPEN
        self.assertEqual(protocol.bufferSize, FIRST_READ)
        protocol.dataReceived(frame(BINARY, 5000))
        self.assertEqual(protocol.bufferSize, 2 * FIRST_READ)
        protocol.dataReceived(frame(TEXT, 1) * 600)
        self.assertEqual(protocol.bufferSize, LITTLE_READ)

    def test_another_server_is_left_alone(self):
        async def send(event):
            pass

        bound_frames({}, send, None)


class Transport:
    def __init__(self, size, closing=False):
        self.size, self.closing, self.aborted = size, closing, False

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return self.size

    def abort(self):
        self.aborted = True


class WriteBufferTests(unittest.TestCase):
    def test_a_socket_whose_transport_holds_too_much_is_ended(self):
        few, many = Transport(MAX_WRITE_BUFFER), Transport(MAX_WRITE_BUFFER + 1)
        gateway = mock.Mock()
        gateway.connections = {
            name: mock.Mock(transport=transport)
            for name, transport in (("few", few), ("many", many))
        }
        for connection in gateway.connections.values():
            connection.state.path = "/"
        WriteBuffers(gateway).check()
        self.assertEqual((few.aborted, many.aborted), (False, True))
        gateway.layer.count.assert_called_once_with("slow_clients")

    def check_during(self, seconds, buffers, transport, taken=0):
        """Let time pass, with a check each second. The client takes so many bytes meanwhile."""
        for _ in range(seconds):
            self.now += 1
            transport.size = max(0, transport.size - taken)
            buffers.check()

    def buffers_of(self, *transports):
        self.now = 1000.0
        gateway = mock.Mock()
        gateway.loop.time = lambda: self.now
        gateway.connections = {
            number: mock.Mock(transport=each) for number, each in enumerate(transports)
        }
        return WriteBuffers(gateway)

    def test_a_closed_transport_whose_client_reads_nothing_is_ended(self):
        stuck, open_one = Transport(1000, closing=True), Transport(1000)
        buffers = self.buffers_of(stuck, open_one)
        self.check_during(int(CLOSE_TIMEOUT), buffers, stuck)
        self.assertFalse(stuck.aborted)
        self.check_during(3, buffers, stuck)
        self.assertEqual((stuck.aborted, open_one.aborted), (True, False))

    def test_a_closed_transport_whose_client_reads_slowly_is_not_ended(self):
        slow = Transport(3 * int(CLOSE_TIMEOUT), closing=True)
        buffers = self.buffers_of(slow)
        self.check_during(4 * int(CLOSE_TIMEOUT), buffers, slow, taken=1)
        self.assertFalse(slow.aborted)
        self.assertEqual(buffers._ending, {})

    def test_what_waits_for_a_socket_that_the_gateway_has_left_is_watched_too(self):
        for size in (0, 1000):
            transport, buffers = Transport(size), self.buffers_of()
            buffers.watch_end(transport)
            buffers.watch_end(None)
            self.check_during(2 * int(CLOSE_TIMEOUT), buffers, transport)
            self.assertEqual(transport.aborted, size > 0)
            self.assertEqual(buffers._ending, {})
