"""The gateway's sender and reader, without a server and without a clock: what is sent again, and when not."""

import asyncio
import unittest
from unittest import mock

from django.channels import log, protocol
from django.channels.exceptions import ChannelFull, LayerUnavailable, MessageTooLarge, NotSent
from django.channels.gateway import reader, rejected, sender
from django.channels.gateway.limits import Limits
from django.channels.gateway.reader import InboxReader
from django.channels.gateway.sender import EventSender
from django.channels.layers.memory import MemoryChannelLayer


class Loop:
    """An event loop with a clock that the test moves, which runs nothing by itself."""

    def __init__(self):
        self.now, self.tasks, self.timers = 1000.0, [], []

    def time(self):
        return self.now

    def create_task(self, coroutine):
        self.tasks.append(coroutine)
        return mock.Mock(done=lambda: False)

    def call_later(self, delay, callback):
        self.timers.append((delay, callback))
        return mock.Mock()


class Inbox:
    """An inbox that refuses while `error` is set."""

    error = None

    def __init__(self):
        self.sent, self.tried, self.discarded, self.batches = [], [], [], []
        self.failing_since = None
        self.unsent_since = None

    def send(self, channel, message, failed):
        self.tried.append((channel, message))
        if self.error is not None:
            failed(self.error)
        else:
            self.sent.append((channel, message))

    def withdraw(self):
        pass

    def group_discard(self, group, channel):
        self.discarded.append((group, channel))

    async def receive(self):
        if not self.batches:
            raise asyncio.CancelledError()
        batch = self.batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch


class State:
    """A state that notes what it is told."""

    path = "/path"

    #: Any event is due.
    in_flight = mock.ANY

    def __init__(self):
        self.told = []

    def refused(self, channel):
        return [("refused", channel)]

    def unreachable(self):
        return [("unreachable",)]

    def reply(self, message):
        if message.get("bad"):
            raise RuntimeError("a bad reply")
        return [("reply", message)]

    def group(self, message):
        return [("group", message)]

    def reset(self, told=False):
        return [("told",) if told else ("reset",)]


class Connection:
    def __init__(self, channel="gateway.test!1"):
        self.channel, self.state = channel, State()
        self.performed, self.groups, self.detached = [], set(), False
        self.client, self.flight = ("192.0.2.1", channel), None
        self.place = None

    def perform(self, actions):
        self.performed += actions

    def take_group(self, message, frame):
        self.perform(self.state.group(message))


def event(event_id=1, **more):
    return dict(more, **{protocol.REPLY_CHANNEL: "gateway.test!1", protocol.EVENT_ID: event_id})


class CrossingLayer(MemoryChannelLayer):
    """A layer across processes, on whose channels `waiting` messages wait, the oldest for `age` seconds."""

    crosses_processes = True
    waiting, age = 1, 5.2

    def channel_statistics(self, channel):
        return {"messages_pending": self.waiting, "messages_max_age": self.age}


class UntakenTests(unittest.TestCase):
    """Events that no worker takes are logged soon."""

    def setUp(self):
        self.loop, self.layer = Loop(), CrossingLayer()
        self.loop.run_in_executor = lambda executor, function, *args: function(*args)
        self.sender = EventSender(self.layer, Inbox(), self.loop, Limits())
        self.connection = Connection()

    def send(self):
        self.sender.send(self.connection, "websocket.connect", event())
        (self.timer,) = self.loop.timers

    def lines(self):
        """Let the timer end, and return what is logged."""
        delay, callback = self.loop.timers.pop()
        self.assertEqual(delay, 5.0)
        with self.assertLogs("django.channels.gateway", "WARNING") as found:
            callback()
            log.logging.getLogger("django.channels.gateway").warning("end")
        return [each.getMessage() for each in found.records][:-1]

    def test_an_event_that_waits_is_logged_after_five_seconds_and_once_a_minute(self):
        self.send()
        (line,) = self.lines()
        for word in ("websocket.connect", "5 s", "1 wait", str(self.layer), "manage.py runworker"):
            self.assertIn(word, line)
        self.assertEqual(self.lines(), [])

    def test_an_event_that_a_worker_has_taken_is_not_logged(self):
        self.send()
        self.layer.waiting = 0
        self.assertEqual(self.lines(), [])
        self.layer.waiting, self.layer.age = 1, 0.5
        self.assertEqual(self.lines(), [])
        self.sender.landed(self.connection)
        self.assertEqual(self.lines(), [])
        self.assertEqual(self.loop.timers, [])

    def test_an_outage_is_not_logged_here(self):
        self.send()
        with mock.patch.object(self.layer, "channel_statistics", side_effect=LayerUnavailable()):
            self.assertEqual(self.lines(), [])


class SenderTests(unittest.TestCase):
    def setUp(self):
        self.loop, self.inbox, self.connection = Loop(), Inbox(), Connection()
        self.sender = EventSender(MemoryChannelLayer(), self.inbox, self.loop, Limits())
        for lane in self.sender._lanes.values():
            lane.limit = lane.window.limit = lane.window.start = 1000  # no event waits for its turn

    def send(self, channel="websocket.receive", message=None):
        message = event() if message is None else message
        self.sender.send(self.connection, channel, message)
        return message

    def retry(self, after=0.01, attempts=1):
        """Run the task that tries again, until it has slept `attempts` times more."""
        self.pauses = []

        class Enough(Exception):
            pass

        async def sleep(seconds):
            if len(self.pauses) == attempts:
                raise Enough()
            self.pauses.append(seconds)
            self.loop.now += after

        with mock.patch.object(sender.asyncio, "sleep", sleep):
            try:
                self.loop.tasks.pop().send(None)
            except (StopIteration, Enough):
                pass

    def test_an_event_that_is_taken_is_sent_once(self):
        message = self.send()
        self.assertEqual(self.inbox.sent, [("websocket.receive", message)])
        self.assertEqual((self.loop.tasks, self.connection.performed), ([], []))

    def test_a_refused_event_is_sent_again_and_then_no_more(self):
        self.inbox.error = ChannelFull("full")
        message = self.send()
        self.assertEqual(self.connection.performed, [])
        self.inbox.error = None
        self.retry(attempts=5)
        self.assertEqual(self.inbox.sent, [("websocket.receive", message)])
        self.assertEqual(self.pauses, [sender.RETRY_INTERVAL])
        self.assertNotIn(protocol.REDELIVERED, message)

    def test_one_task_tries_all_channels_again(self):
        self.inbox.error = ChannelFull("full")
        first, second = self.send(), self.send("http.request", event(2))
        self.assertEqual(len(self.loop.tasks), 1)
        self.inbox.error = None
        self.retry()
        self.assertEqual([message for _, message in self.inbox.sent], [first, second])

    def test_later_events_wait_behind_a_refused_one_of_their_channel(self):
        self.inbox.error = ChannelFull("full")
        first = self.send()
        self.inbox.error = None
        second = self.send(message=event(2))
        other = self.send("http.request", event(3))
        self.assertEqual(self.inbox.sent, [("http.request", other)])
        self.retry()
        sent = [message for _, message in self.inbox.sent]
        self.assertEqual(sent, [other, first, second])

    def test_a_part_of_a_body_never_waits(self):
        self.inbox.error = ChannelFull("full")
        self.send("body?x", {"content": b"x"})
        self.assertEqual(self.connection.performed, [("refused", "body?x")])
        self.assertEqual(self.loop.tasks, [])

    def test_an_event_is_refused_after_its_time(self):
        for channel in ("http.request", "websocket.connect", "websocket.receive"):
            self.setUp()
            self.inbox.error = ChannelFull("full")
            self.send(channel)
            self.retry(after=sender.SEND_TIMEOUT)
            self.assertEqual(self.connection.performed, [])
            self.inbox.tried.clear()
            self.send(channel, event(2))  # it waits behind the other
            self.loop.tasks.append(self.sender._retry())
            self.retry(after=0.01)
            self.assertEqual(self.connection.performed, [("refused", channel)])
            self.assertEqual([message[protocol.EVENT_ID] for _, message in self.inbox.tried], [2])

    def test_a_disconnect_is_sent_however_late(self):
        for channel in ("http.disconnect", "websocket.disconnect"):
            self.setUp()
            self.inbox.error = ChannelFull("full")
            message = self.send(channel)
            self.retry(after=100 * sender.SEND_TIMEOUT, attempts=3)
            self.assertEqual(len(self.inbox.tried), 4)
            self.inbox.error = None
            self.loop.tasks.append(self.sender._retry())
            self.retry(attempts=2)
            self.assertEqual(self.inbox.sent, [(channel, message)])
            self.assertEqual(self.connection.performed, [])

    def test_a_frame_outlives_an_outage_of_the_layer(self):
        self.inbox.error = LayerUnavailable("away")
        message = self.send()
        self.retry(after=100 * sender.SEND_TIMEOUT, attempts=3)
        self.assertEqual(self.connection.performed, [])
        self.assertEqual(message[protocol.REDELIVERED], protocol.MAYBE)

    def test_what_has_not_reached_the_layer_is_told_from_what_may_have(self):
        self.inbox.error = NotSent("away")
        message = self.send("http.request")
        self.assertNotIn(protocol.REDELIVERED, message)
        self.assertEqual(self.sender.held(), {self.connection})
        self.inbox.error = LayerUnavailable("away")
        self.retry(after=0.01, attempts=1)
        self.assertEqual(message[protocol.REDELIVERED], protocol.MAYBE)
        self.assertEqual(self.sender.held(), set())

    def test_a_frame_that_outlived_an_outage_has_its_time_on_a_full_channel(self):
        self.inbox.error = LayerUnavailable("away")
        self.send()
        self.retry(after=100 * sender.SEND_TIMEOUT)
        self.inbox.error = ChannelFull("full")
        self.loop.tasks.append(self.sender._retry())
        self.retry(after=1, attempts=1)
        self.assertEqual(self.connection.performed, [])
        self.loop.tasks.append(self.sender._retry())
        self.retry(after=sender.SEND_TIMEOUT + 1, attempts=1)
        self.assertEqual(self.connection.performed, [("refused", "websocket.receive")])

    def test_a_request_does_not_outlive_an_outage(self):
        for error, action in (
            (NotSent("away"), ("refused", "http.request")),
            (LayerUnavailable("away"), ("unreachable",)),  # a worker may have handled it
        ):
            with self.subTest(error=error):
                self.setUp()
                self.inbox.error = error
                self.send("http.request")
                self.retry(after=sender.SEND_TIMEOUT + 1)
                self.assertEqual(self.connection.performed, [action])

    def test_an_event_that_no_layer_takes_is_refused_at_once_and_logged(self):
        self.inbox.error = MessageTooLarge("too large")
        with self.assertLogs("django.channels.gateway", "ERROR") as logs:
            self.send()
        self.assertEqual(self.connection.performed, [("refused", "websocket.receive")])
        self.assertIn("An event of /path was not sent: too large", logs.output[0])

    def test_a_client_does_not_choose_the_length_of_a_line(self):
        self.connection.state.path = "/" + "\x1b" * 5000
        self.inbox.error = MessageTooLarge("too large")
        with self.assertLogs("django.channels.gateway", "ERROR") as logs:
            self.send()
        self.assertLess(len(logs.output[0]), 400)
        self.assertIn("…", logs.output[0])

    def test_intervals_grow_up_to_a_bound_and_shrink_after_a_quiet_time(self):
        self.inbox.error = ChannelFull("full")
        self.send("websocket.disconnect")
        self.retry(attempts=20)
        self.assertEqual(self.pauses[:2], [sender.RETRY_INTERVAL, 1.5 * sender.RETRY_INTERVAL])
        self.assertEqual(self.pauses[-1], sender.MAX_RETRY_INTERVAL)
        for quiet, interval in (
            (sender.RETRY_RESET_AFTER, sender.MAX_RETRY_INTERVAL),
            (sender.RETRY_RESET_AFTER + 0.1, sender.RETRY_INTERVAL),
        ):
            self.loop.now += quiet
            self.loop.tasks.append(self.sender._retry())
            self.retry(after=0)
            self.assertEqual(self.pauses, [interval])

    def test_a_batch_of_refused_events_is_bounded(self):
        self.inbox.error = ChannelFull("full")
        for number in range(sender.RETRY_BATCH + 5):
            self.send(message=event(number))
        self.assertEqual(len(self.inbox.tried), 1)
        self.inbox.tried.clear()
        self.inbox.error = None
        self.retry()
        self.assertEqual(len(self.inbox.tried), sender.RETRY_BATCH)

    def test_a_bug_with_one_event_does_not_lose_the_others(self):
        self.inbox.error = ChannelFull("full")
        self.send()
        second = self.send(message=event(2))
        self.inbox.error = None
        send, failures = self.inbox.send, [RuntimeError("a bug")]

        def fail_once(*args):
            if failures:
                raise failures.pop()
            send(*args)

        self.inbox.send = fail_once
        with self.assertLogs("django.channels.gateway", "ERROR") as logs:
            self.retry()
        self.assertIn("a bug", logs.output[0])
        self.assertEqual(self.inbox.sent, [("websocket.receive", second)])

    def test_rejected_clients_are_logged_once_in_an_interval(self):
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            for _ in range(3):
                self.sender.rejected.count()
            self.loop.timers.pop()[1]()
            self.loop.timers.pop()[1]()  # none was rejected meanwhile, and the timer ends
            self.sender.rejected.count()
        self.assertEqual([line.rpartition(" ")[2] for line in logs.output], ["1", "2", "1"])
        self.assertEqual([delay for delay, _ in self.loop.timers], [rejected.LOG_INTERVAL])

    def test_closing_stops_the_task_and_the_timer(self):
        self.sender.close()
        self.inbox.error = ChannelFull("full")
        self.send()
        with self.assertLogs("django.channels.gateway", "WARNING"):
            self.sender.rejected.count()
        self.sender.close()
        self.sender._retry_task.cancel.assert_called_once_with()
        self.sender.rejected.timer.cancel.assert_called_once_with()
        self.loop.tasks.pop().close()


class ReaderTests(unittest.TestCase):
    NAME = "gateway.test!"

    def setUp(self):
        self.inbox = Inbox()
        self.one, self.two = Connection(self.NAME + "1"), Connection(self.NAME + "2")
        self.connections = {each.channel: each for each in (self.one, self.two)}
        self.events = EventSender(MemoryChannelLayer(), self.inbox, Loop(), Limits())
        self.reader = InboxReader(
            self.NAME, self.inbox, self.connections, self.events, log.Reachability("test")
        )

    def join(self, *connections, group="g"):
        for each in connections:
            self.reader.handle(each.channel, protocol.group_added(group))

    def test_a_reply_goes_to_its_connection(self):
        self.reader.handle(self.one.channel, {"text": "x"})
        self.reader.handle(self.NAME + "unknown", {"text": "x"})
        self.assertEqual(self.one.performed, [("reply", {"text": "x"})])
        self.assertEqual(self.two.performed, [])

    def test_a_group_message_goes_to_the_members_alone(self):
        self.join(self.one)
        self.reader.handle(self.NAME, protocol.group_message("g", {"text": "x"}))
        self.reader.handle(self.NAME, protocol.group_message("other", {"text": "x"}))
        self.assertEqual(self.one.performed, [("group", {"text": "x"})])
        self.assertEqual(self.two.performed, [])

    def test_a_discarded_member_gets_nothing_more(self):
        self.join(self.one, self.two)
        self.reader.handle(self.one.channel, protocol.group_discarded("g"))
        self.reader.handle(self.one.channel, protocol.group_discarded("never-joined"))
        self.reader.handle(self.NAME + "unknown", protocol.group_discarded("g"))
        self.reader.handle(self.NAME, protocol.group_message("g", {"text": "x"}))
        self.assertEqual((self.one.performed, self.one.groups), ([], set()))
        self.assertEqual(len(self.two.performed), 1)
        self.assertEqual(self.reader.groups, {"g": {self.two: None}})

    def test_a_membership_of_a_client_that_has_gone_is_given_back(self):
        self.one.detached = True
        self.join(self.one, Connection(self.NAME + "unknown"))
        self.assertEqual(
            self.inbox.discarded, [("g", self.one.channel), ("g", self.NAME + "unknown")]
        )
        self.assertEqual(self.reader.groups, {})

    def test_a_connection_that_leaves_is_in_no_group(self):
        self.join(self.one, self.two)
        self.join(self.one, group="h")
        self.reader.leave_all(self.one)
        self.assertEqual(
            sorted(self.inbox.discarded), [("g", "gateway.test!1"), ("h", "gateway.test!1")]
        )
        self.assertEqual(self.reader.groups, {"g": {self.two: None}})
        self.assertEqual(self.one.groups, set())

    def test_a_reset_reaches_every_connection_and_empties_the_groups(self):
        self.join(self.one)
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            self.reader.handle(self.NAME, protocol.reset())
        self.assertEqual([self.one.performed, self.two.performed], [[("reset",)]] * 2)
        self.assertEqual((self.reader.groups, self.one.groups), ({}, set()))
        self.assertIn("closing 2 connections", logs.output[0])

    def test_a_reset_tells_each_connection_whether_its_end_was_told(self):
        with self.assertLogs("django.channels.gateway", "WARNING"):
            self.reader.handle(self.NAME, protocol.reset([self.one.channel]))
        self.assertEqual([self.one.performed, self.two.performed], [[("told",)], [("reset",)]])

    def run_reader(self):
        self.pauses = []

        async def sleep(seconds):
            self.pauses.append(seconds)

        with mock.patch.object(reader.asyncio, "sleep", sleep):
            try:
                self.reader.run().send(None)
            except asyncio.CancelledError:
                pass

    def test_a_message_that_fails_does_not_take_the_others_along(self):
        self.inbox.batches = [
            [(self.one.channel, {"bad": True}), (self.two.channel, {"text": "x"})],
            [(self.two.channel, {"text": "y"})],
        ]
        with self.assertLogs("django.channels.gateway", "ERROR") as logs:
            self.run_reader()
        self.assertIn("a bad reply", logs.output[0])
        self.assertEqual(len(self.two.performed), 2)
        self.assertEqual(self.pauses, [])

    def test_an_inbox_that_fails_is_read_again_in_growing_intervals(self):
        errors = [LayerUnavailable("away") for _ in range(6)]
        message = [(self.one.channel, {"text": "x"})]
        self.inbox.batches = errors + [message, RuntimeError("a bug"), message]
        with self.assertLogs("django.channels.gateway", "WARNING") as logs:
            self.run_reader()
        most = reader.MAX_RECONNECT_INTERVAL
        self.assertEqual(self.pauses, [0.1, 0.2, 0.4, 0.8, 1.6, most, 0.1])
        self.assertEqual([line.split(":")[0] for line in logs.output], ["ERROR"])
        self.assertEqual(len(self.one.performed), 2)

    def test_a_long_batch_lets_other_tasks_run_in_between(self):
        message = (self.one.channel, {"text": "x"})
        self.inbox.batches = [[message] * (2 * reader.BATCH_SIZE + 1)]
        self.run_reader()
        self.assertEqual(self.pauses, [0, 0])
        self.assertEqual(len(self.one.performed), 2 * reader.BATCH_SIZE + 1)
