"""What the frames of all sockets of a gateway may take: reading pauses, and goes on."""

import asyncio
import functools
import unittest
from unittest import mock

from django.channels import protocol
from django.channels.gateway.frames import (
    FIRST_BATCH,
    MAX_BATCH_TIME,
    MIN_UNREAD_WEIGHT,
    UNLIMITED,
    UNLIMITED_UNREAD,
    AddressRooms,
    FrameQueue,
    FrameRoom,
    SharedRoom,
    UnreadRoom,
)
from django.channels.gateway.state import COUNT, LOG, SEND, WRITE
from django.channels.gateway.websocket import OTHERS, OWN, WebSocket
from django.channels.layers.memory import MemoryChannelLayer

from .support.waiting import TIMEOUT

KB = 1024


class RoomTests(unittest.TestCase):
    def setUp(self):
        self.all = FrameRoom(1000)
        self.room, self.other = FrameRoom(600, self.all), FrameRoom(600, self.all)

    def test_a_socket_with_frames_is_not_read_above_the_limit_of_its_address(self):
        self.room.take(600)
        self.assertFalse(self.room.allows(True))
        self.assertTrue(self.other.allows(True))
        self.room.give(1)
        self.assertTrue(self.room.allows(True))

    def test_a_socket_without_frames_is_read_up_to_twice_the_limit(self):
        self.room.take(1199)
        self.assertTrue(self.room.allows(False))
        self.room.take(1)
        self.assertFalse(self.room.allows(False))

    def test_the_limit_of_all_holds_for_each_address(self):
        self.room.take(500)
        self.other.take(500)
        self.assertEqual(self.all.used, 1000)
        self.assertFalse(self.room.allows(True))
        self.assertFalse(self.other.allows(True))
        self.assertEqual(self.all.full_rooms, 1)
        self.other.give(500)
        self.room.give(500)
        self.assertEqual((self.all.used, self.all.full_rooms), (0, 0))

    def test_who_waits_is_called_once_when_there_is_room(self):
        called = []
        self.room.take(700)
        self.room.call_when_free(lambda: called.append("socket"))
        self.room.give(50)
        self.assertEqual(called, [])
        self.room.give(100)
        self.assertEqual(called, ["socket"])
        self.room.give(100)
        self.assertEqual(called, ["socket"])

    def test_room_that_another_address_frees_is_noticed(self):
        called = []
        self.other.take(900)
        self.room.take(200)
        self.room.call_when_free(lambda: called.append("socket"))
        self.other.give(200)
        self.assertEqual(called, ["socket"])

    def test_who_has_left_is_not_called(self):
        called = []
        self.room.take(700)
        for name in ("left", "waits"):
            callback = functools.partial(called.append, name)
            self.room.call_when_free(callback)
            if name == "left":
                left = callback
        self.room.forget(left)
        self.room.give(700)
        self.assertEqual(called, ["waits"])

    def test_who_leaves_after_the_call_lets_another_have_the_room(self):
        called = []
        first, second = (functools.partial(called.append, name) for name in ("first", "second"))
        self.room.take(700)
        for callback in (first, second):
            self.room.call_when_free(callback)
        self.room.give(200)
        self.assertEqual(called, ["first"])
        self.room.forget(first, is_leaving=True)
        self.assertEqual(called, ["first", "second"])


class SocketTests(unittest.TestCase):
    def setUp(self):
        self.frames, self.unread = FrameRoom(100 * KB), UnreadRoom(200 * KB)

    def socket(self):
        socket = WebSocket("gateway.test!1", "/")
        socket.use_rooms(FrameRoom(1000 * KB, self.frames), self.unread)
        socket.connect({"path": "/", "root_path": ""})
        socket.reply(protocol.ack(0, [{"accept": True}]))
        return socket

    def test_room_for_one_frame_lets_one_socket_read_on_while_the_others_wait(self):
        called = []
        first, second = (functools.partial(called.append, name) for name in ("first", "second"))
        self.frames.take(100 * KB)
        sockets = self.socket(), self.socket()
        for socket, callback in zip(sockets, (first, second)):
            socket.call_when_free(callback)
        self.frames.give(1)
        sockets[0].stop_waiting(first)  # it reads on, and may need all of the room
        self.assertEqual(called, ["first"])

    def test_sockets_with_frames_are_not_read_while_all_together_have_too_much(self):
        sockets = [self.socket() for _ in range(20)]
        reads = 0
        for _ in range(100):
            for socket in sockets:
                if socket.reading:
                    socket.frame(None, b"x" * 10 * KB)
                    reads += 1
        self.assertLessEqual(self.frames.used, 210 * KB)
        self.assertGreaterEqual(reads, 10)
        for socket in sockets:
            while socket.in_flight is not None:
                socket.reply(protocol.ack(socket.in_flight))
        self.assertEqual((self.frames.used, self.frames.full_rooms), (0, 0))
        self.assertTrue(all(socket.reading for socket in sockets))

    def test_whatever_ends_a_socket_gives_its_room_back(self):
        def lose(socket):
            socket.lost()

        def refuse(socket):
            socket.refused("websocket.receive")

        def reset(socket):
            socket.reset()

        def leave(socket):
            socket.gone()
            while socket.in_flight is not None:
                socket.reply(protocol.ack(socket.in_flight))

        def close(socket):
            socket.reply(protocol.ack(socket.in_flight, [{"close": True}]))

        def forget(socket):
            socket.gone()
            socket.release()

        for end in (lose, refuse, reset, leave, close, forget):
            with self.subTest(end.__name__):
                socket = self.socket()
                for _ in range(5):
                    socket.frame(None, b"x" * 10 * KB)
                end(socket)
                self.assertEqual((self.frames.used, self.frames.full_rooms), (0, 0))

    def answer(self, socket, size):
        socket.frame("question")
        actions = socket.reply(protocol.ack(socket.in_flight, [{"bytes": b"x" * size}]))
        return [action for action in actions if action[0] == "write"]

    def test_what_a_client_reads_is_unread_no_more(self):
        socket = self.socket()
        (_, event, note), *_ = self.answer(socket, 10 * KB)
        self.assertEqual(self.unread.used, 10 * KB)
        socket.written(event, note)
        self.assertEqual(self.unread.used, 0)

    def test_all_have_much_unread_from_the_limit_on(self):
        for missing in (1, 0):
            slow, other = self.socket(), self.socket()
            slow._all_unread = other._all_unread = UnreadRoom(4 * MIN_UNREAD_WEIGHT)
            self.answer(slow, MIN_UNREAD_WEIGHT)
            self.answer(other, 3 * MIN_UNREAD_WEIGHT - missing)
            slow.frame("next")
            with self.subTest(missing=missing):
                self.assertEqual(slow.in_flight is not None, missing > 0)

    def test_a_client_that_does_not_read_waits_earlier_if_all_have_much_unread(self):
        slow, quick = self.socket(), self.socket()
        (_, event, note), *_ = self.answer(slow, MIN_UNREAD_WEIGHT)
        slow.frame("next")
        self.assertIsNotNone(slow.in_flight)
        slow.reply(protocol.ack(slow.in_flight))
        self.answer(self.socket(), 200 * KB)
        slow.frame("waits")
        self.assertIsNone(slow.in_flight)
        quick.frame("goes on")
        self.assertIsNotNone(quick.in_flight)
        slow.written(event, note)
        self.assertIsNotNone(slow.in_flight)


class AddressTests(unittest.TestCase):
    """Clients of one address that read nothing leave room for those of others."""

    def setUp(self):
        all_rooms = FrameRoom(1000 * KB), UnreadRoom(1000 * KB), SharedRoom(1000 * KB)
        self.unread, self.of_others = all_rooms[1:]
        self.rooms = {each: AddressRooms(1000 * KB, *all_rooms) for each in ("greedy", "other")}

    def socket(self, address):
        socket, rooms = WebSocket("gateway.test!1", "/"), self.rooms[address]
        socket.use_rooms(rooms.frames, rooms.unread, rooms.of_others)
        socket.connect({"path": "/", "root_path": ""})
        socket.reply(protocol.ack(0, [{"accept": True}]))
        return socket

    def answer(self, socket):
        """Have a consumer answer a question with 50 KB. Return whether it was handled."""
        socket.frame("question")
        if socket.in_flight is None:
            return False
        socket.reply(protocol.ack(socket.in_flight, [{"bytes": b"x" * (50 * KB)}]))
        return True

    def test_frames_of_others_are_handled_while_an_address_reads_no_answers(self):
        greedy = [self.socket("greedy") for _ in range(6)]
        for _ in range(20):
            for socket in greedy:
                self.answer(socket)
        self.assertLessEqual(self.unread.used, 500 * KB + 6 * MIN_UNREAD_WEIGHT)
        slow = self.socket("other")
        self.assertEqual([self.answer(slow) for _ in range(3)], [True] * 3)
        for socket in [*greedy, slow]:
            socket.gone()
            socket.release()
        self.assertEqual([each.unread.used for each in self.rooms.values()], [0, 0])
        self.assertEqual(self.unread.used, 0)

    def test_an_address_whose_clients_read_on_is_not_held_up_any_more(self):
        first, second = self.socket("greedy"), self.socket("greedy")
        for _ in range(5):
            self.answer(first)
            self.answer(second)
        self.assertFalse(self.answer(first))
        for _ in range(5):
            event = {"type": "websocket.send", "bytes": b"x" * (50 * KB)}
            second.written(event, OWN)
            first.written(event, OWN)
        self.assertTrue(self.answer(first))

    def test_frames_are_handled_one_at_a_time_while_too_much_is_unread(self):
        """Each of them may have an answer, and the client would leave those of a batch unread, too."""
        greedy, other = self.socket("greedy"), self.socket("other")
        self.rooms["greedy"].unread.add(500 * KB)
        for socket, expected in ((greedy, 1), (other, 5)):
            socket.frame("first")
            for _ in range(5):
                socket.frame("next")
            ((_, _, message),) = socket.reply(protocol.ack(socket.in_flight))
            self.assertEqual(len(message.get(protocol.FRAMES) or [message]), expected)

    def batches(self, socket, *times):
        """Return how many frames go together, if the consumers of the batches ran for these milliseconds."""
        socket.frame("first")
        numbers, message = [], None
        for ran in times:
            while socket.reading:
                socket.frame("next")
            ((_, _, message),) = socket.reply(protocol.ack(socket.in_flight, ran=ran))
            numbers.append(len(message.get(protocol.FRAMES) or [message]))
        return numbers

    def test_few_frames_go_together_at_first_and_more_after_quick_ones(self):
        numbers = self.batches(self.socket("other"), 0, 0, 0, 0, 0)
        self.assertEqual(numbers, [FIRST_BATCH, 2 * FIRST_BATCH, 4 * FIRST_BATCH, 64, 64])

    def test_few_frames_go_together_after_slow_ones_and_then_more_again(self):
        slow = MAX_BATCH_TIME * FIRST_BATCH // 2
        numbers = self.batches(self.socket("other"), 0, slow, 0, 0, 0, 0)
        self.assertEqual(numbers, [FIRST_BATCH, 2, 4, 8, 16, 32])

    def test_few_frames_go_together_if_their_answers_are_large(self):
        """Sending these takes a worker longer than its consumers ran."""
        socket = self.socket("other")
        socket.frame("first")
        numbers, message = [], None
        for length in (10, 10, 20 * KB, 20 * KB, 60 * KB, 10, 10):
            while socket.reading:
                socket.frame("next")
            answers = [{"text": "x" * length}] * (numbers[-1] if numbers else 1)
            actions = socket.reply(protocol.ack(socket.in_flight, answers))
            for action in actions:
                if action[0] == WRITE:
                    socket.written(action[1], OWN)
            ((_, _, message),) = [each for each in actions if each[0] == SEND]
            numbers.append(len(message.get(protocol.FRAMES) or [message]))
        self.assertEqual(numbers, [8, 16, 6, 6, 2, 4, 8])

    def test_no_client_is_closed_because_those_of_another_address_read_no_group(self):
        def send(socket, number):
            actions = socket.group({"text": "%010d" % number * (5 * KB)})
            return [each[1]["code"] for each in actions if each[0] == WRITE and "code" in each[1]]

        greedy, codes = [self.socket("greedy") for _ in range(6)], []
        for number in range(20):
            for index, socket in enumerate(greedy):
                codes += send(socket, 10 * number + index)
        self.assertEqual(set(codes), {1013})
        slow = self.socket("other")
        self.assertEqual([send(slow, 1000 + number) for number in range(3)], [[]] * 3)
        for socket in [*greedy, slow]:
            socket.gone()
        self.assertEqual([each.of_others.used for each in self.rooms.values()], [0, 0])
        self.assertEqual((self.of_others.used, self.of_others._numbers), (0, {}))

    def test_a_text_for_clients_of_two_addresses_counts_once_in_all(self):
        message = {"text": "x" * (100 * KB)}
        sockets = [self.socket(address) for address in ("greedy", "other", "greedy")]
        for socket in sockets:
            socket.group(message)
        self.assertEqual(self.of_others.used, 100 * KB)
        self.assertEqual([each.of_others.used for each in self.rooms.values()], [100 * KB] * 2)
        for socket in sockets[:2]:
            socket.written(dict(message, type="websocket.send"), OTHERS)
        self.assertEqual([each.of_others.used for each in self.rooms.values()], [100 * KB, 0])
        self.assertEqual(self.of_others.used, 100 * KB)


class OthersTests(unittest.TestCase):
    """What groups and other code send to sockets whose clients read nothing."""

    def setUp(self):
        self.room = SharedRoom(300 * KB)

    def socket(self):
        socket = WebSocket("gateway.test!1", "/")
        socket.use_rooms(UNLIMITED, UNLIMITED_UNREAD, self.room)
        socket.connect({"path": "/", "root_path": ""})
        socket.reply(protocol.ack(0, [{"accept": True}]))
        return socket

    def closes(self, actions):
        return [each[1]["code"] for each in actions if each[0] == WRITE and "code" in each[1]]

    def test_what_is_different_for_each_socket_is_bounded_for_all(self):
        slow = [self.socket() for _ in range(20)]
        codes = []
        for number in range(20):
            for socket in slow:
                codes += self.closes(socket.group({"text": "%010d" % number * (2 * KB)}))
        self.assertEqual(codes, [1013] * len(codes))
        self.assertGreater(len(codes), 0)
        # Each may have as much as a client always may, whatever others have.
        self.assertLessEqual(self.room.used, 300 * KB + 20 * MIN_UNREAD_WEIGHT)

    def test_the_closing_is_counted_and_says_which_option_bounds_it(self):
        self.room.take("x" * (300 * KB))
        actions = self.socket_with(60 * KB).group({"bytes": b"x" * (5 * KB)})
        self.assertIn((COUNT, "slow_clients"), actions)
        logged = [each for each in actions if each[0] == LOG]
        self.assertEqual(len(logged), 1)
        self.assertIn("unread_memory", logged[0][2])

    def socket_with(self, size):
        socket = self.socket()
        self.assertEqual(self.closes(socket.group({"bytes": b"x" * size})), [])
        return socket

    def test_a_client_with_little_unread_is_never_closed_for_others(self):
        self.room.take("x" * (300 * KB))
        self.assertEqual(self.closes(self.socket_with(30 * KB).group({"text": "x" * KB})), [])
        self.socket_with(900 * KB)

    def test_a_message_to_many_sockets_counts_once(self):
        message = {"text": "x" * (100 * KB)}
        sockets = [self.socket() for _ in range(50)]
        for socket in sockets:
            self.assertEqual(self.closes(socket.group(message)), [])
        self.assertEqual(self.room.used, 100 * KB)
        for socket in sockets[1:]:
            socket.written(dict(message, type="websocket.send"), OTHERS)
        self.assertEqual(self.room.used, 100 * KB)
        sockets[0].written(dict(message, type="websocket.send"), OTHERS)
        self.assertEqual(self.room.used, 0)

    def connecting(self):
        """A socket whose handshake waits for its consumer."""
        socket = WebSocket("gateway.test!1", "/")
        socket.use_rooms(UNLIMITED, UNLIMITED_UNREAD, self.room)
        socket.connect({"path": "/"})
        return socket

    def test_what_waits_for_handshakes_is_bounded_for_all(self):
        slow, dropped = [self.connecting() for _ in range(20)], []
        for number in range(20):
            for socket in slow:
                actions = socket.reply({"text": "%010d" % number * (2 * KB)})
                actions += socket.group({"bytes": b"%010d" % number * (2 * KB)})
                dropped += [each[1] for each in actions]
        self.assertEqual(set(dropped), {"handshake_full", "group_full"})
        self.assertLessEqual(self.room.used, 300 * KB + 20 * MIN_UNREAD_WEIGHT)
        # Each may have as much as a client always may.
        self.assertEqual(self.connecting().reply({"text": "x" * MIN_UNREAD_WEIGHT}), [])

    def test_a_message_to_many_handshakes_counts_once_until_it_is_sent(self):
        message = {"text": "x" * (100 * KB)}
        sockets = [self.connecting() for _ in range(5)]
        for socket in sockets:
            self.assertEqual(socket.group(message), [])
        self.assertEqual(self.room.used, 100 * KB)
        for socket in sockets[1:]:
            socket.reply(dict(protocol.ack(0), replies=[{"close": True}]))
        self.assertEqual(self.room.used, 100 * KB)
        actions = sockets[0].reply(dict(protocol.ack(0), replies=[{"accept": True}]))
        for each in actions:
            if each[0] == WRITE:
                self.assertEqual(self.room.used, 100 * KB)
                sockets[0].written(*each[1:])
        self.assertEqual((self.room.used, self.room._numbers), (0, {}))

    def test_nothing_of_a_handshake_counts_after_its_end(self):
        ends = {
            "gone": lambda socket: socket.gone(),
            "denied": lambda socket: socket.reply(protocol.during(0, {"accept": False})),
            "timed out": lambda socket: socket.timeout(),
            "decided": lambda socket: (
                socket.reply({"close": True, "text": None}),
                socket.reply(protocol.ack(0)),
            ),
        }
        for name, end in ends.items():
            with self.subTest(name):
                socket = self.connecting()
                socket.reply({"text": "x" * KB})
                socket.group({"bytes": b"x" * KB})
                self.assertEqual(self.room.used, 2 * KB)
                end(socket)
                self.assertEqual((self.room.used, self.room._numbers), (0, {}))

    def test_nothing_counts_after_the_end(self):
        ends = {
            "gone": lambda socket: socket.gone(),
            "closed": lambda socket: (socket.group({"close": True}), socket.release()),
            "behind": lambda socket: [socket.group({"text": "x" * 1000 * KB}) for _ in range(5)],
            "in the writer": lambda socket: (
                socket.wait_for_client({"type": "websocket.send", "text": "x" * KB}),
                socket.release(),
            ),
        }
        for name, end in ends.items():
            with self.subTest(name):
                socket = self.socket()
                message = {"text": "x" * KB}
                socket.group(message)
                end(socket)
                self.assertEqual((self.room.used, self.room._numbers), (0, {}))
                socket.written(dict(message, type="websocket.send"), OTHERS)


class GatewayTests(unittest.TestCase):
    """A gateway without workers: the test acknowledges the events."""

    def setUp(self):
        self.layer = MemoryChannelLayer(threads=0)
        self.layer.alias, self.layer.routing = "test", []
        self.layer.gateway_options = {"frames_memory": 100 * KB}
        self.read = []

    async def visit(self, number):
        """Be a client that sends frames of 60 KB, as fast as they are read."""
        client = ["192.0.2.%d" % number, 1]
        scope = {"type": "websocket", "path": "/", "headers": [], "client": client}
        events = iter([{"type": "websocket.connect"}])
        accepted = asyncio.get_event_loop().create_future()

        async def receive():
            for event in events:
                return event
            await asyncio.sleep(0)
            await accepted
            self.read.append(number)
            return {"type": "websocket.receive", "bytes": b"x" * 60 * KB}

        async def send(event):
            if event["type"] == "websocket.accept":
                accepted.set_result(None)

        await self.layer.gateway(scope, receive, send)

    async def serve(self, channel, *replies):
        """Acknowledge the next event on `channel`."""
        message = None
        while message is None:
            await asyncio.sleep(0)
            _, message = self.layer.receive_many([channel])
        address, number = protocol.reply_address(message)
        self.layer.deliver(address, protocol.ack(number, list(replies)))

    async def settled(self):
        """Wait until nothing more is read. Return how much was."""
        before = None
        while before != len(self.read):
            before = len(self.read)
            for _ in range(50):
                await asyncio.sleep(0)
        return before

    def test_reading_pauses_and_goes_on_when_another_socket_is_served(self):
        async def main():
            visits = [asyncio.ensure_future(self.visit(number)) for number in range(2)]
            for _ in visits:
                await self.serve("websocket.connect", {"accept": True})
            before = await self.settled()
            self.assertLessEqual(before, 5)
            self.assertEqual(set(self.read), {0, 1})
            for _ in range(10):
                await self.serve("websocket.receive")
                await self.settled()
            self.assertGreater(len(self.read), before + 3)
            self.assertLessEqual(self.layer.gateway.frames.used, 300 * KB)
            for each in visits:
                each.cancel()
            await asyncio.wait(visits)

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))

    def test_nothing_is_left_of_a_socket_that_ends_while_its_reading_is_paused(self):
        async def main():
            visits = [asyncio.ensure_future(self.visit(number)) for number in range(2)]
            for _ in visits:
                await self.serve("websocket.connect", {"accept": True})
            await self.settled()
            connections = list(self.layer.gateway.connections.values())
            rooms = {each.state._frames.room for each in connections} | {self.layer.gateway.frames}
            self.assertTrue(any(each._paused for each in connections))
            self.assertTrue(any(room._waiters for room in rooms))
            for each in visits:
                each.cancel()
            await asyncio.wait(visits)
            self.assertEqual([each._paused for each in connections], [None, None])
            self.assertEqual([room._waiters for room in rooms if room._waiters], [])

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))

    def test_a_socket_that_reads_again_does_not_count_as_paused(self):
        async def main():
            visit = asyncio.ensure_future(self.visit(0))
            await self.serve("websocket.connect", {"accept": True})
            await self.settled()
            (connection,) = self.layer.gateway.connections.values()
            self.assertIsNotNone(connection._paused)
            before = len(self.read)
            with mock.patch.object(FrameQueue, "has_room", True):
                connection._check_again()
                while len(self.read) == before:
                    await asyncio.sleep(0)
                self.assertIsNone(connection._paused)
                visit.cancel()
                await asyncio.wait([visit])

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))

    def test_each_socket_has_the_rooms_of_its_address(self):
        async def main():
            visits = [asyncio.ensure_future(self.visit(number)) for number in (0, 0, 1)]
            for _ in visits:
                await self.serve("websocket.connect", {"accept": True})
            gateway = self.layer.gateway
            states = [each.state for each in gateway.connections.values()]
            unread = [each._all_unread for each in states]
            of_others = [each._all_of_others for each in states]
            self.assertEqual({each.outer for each in unread}, {gateway.unread})
            self.assertEqual({each.outer for each in of_others}, {gateway.unread_of_others})
            self.assertEqual((len(set(unread)), len(set(of_others))), (2, 2))
            for each in visits:
                each.cancel()
            await asyncio.wait(visits)

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))
