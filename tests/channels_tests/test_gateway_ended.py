"""What ends while its event waits in the gateway: without a server, without a clock."""

import unittest
from unittest import mock

from django.channels import log, protocol
from django.channels.exceptions import LayerUnavailable, NotSent
from django.channels.gateway import sender
from django.channels.gateway.application import Gateway
from django.channels.gateway.connection import Connection
from django.channels.gateway.http import Request
from django.channels.gateway.limits import Limits
from django.channels.gateway.reader import InboxReader
from django.channels.gateway.sender import EventSender
from django.channels.gateway.websocket import WebSocket
from django.channels.layers.memory import MemoryChannelLayer

from .test_gateway_sender import Inbox, Loop


class ReportingInbox(Inbox):
    """An inbox that can say later that something was not sent."""

    def __init__(self):
        super().__init__()
        self.reports = []  # of what was sent: what is called if that fails

    def send(self, channel, message, failed):
        self.reports.append(failed)
        super().send(channel, message, failed)

    def set_will(self, *args):
        pass

    clear_will = drop_channel = set_will


class Site(Gateway):
    """A gateway on an inbox that keeps what is sent, without a server: the tests call what a server would."""

    def __init__(self):
        self.layer, self.loop, self.inbox = MemoryChannelLayer(), Loop(), ReportingInbox()
        self.name = "gateway.test!"
        self.connections, self._number = {}, 0
        self.events = EventSender(self.layer, self.inbox, self.loop, Limits())
        self.reader = InboxReader(
            self.name, self.inbox, self.connections, self.events, log.Reachability("test")
        )
        self.send_event = self.events.send
        self.room = mock.Mock()
        for lane in self.events._lanes.values():
            lane.limit = lane.window.limit = lane.window.most = 4

    def _leave_rooms(self, connection):
        pass

    def open(self, state_class):
        """Return a connection whose first event is sent, or waits for its turn."""
        self._number += 1
        channel = "%s%d" % (self.name, self._number)
        connection = Connection(self, state_class(channel, "/"), None)
        connection.client = ("192.0.2.1", channel)
        self.connections[channel] = connection
        message = {"path": "/", "root_path": ""}
        if state_class is WebSocket:
            connection.perform(connection.state.connect(message))
        else:
            connection.perform(connection.state.request(message, False, None))
        return connection

    def open_sockets(self, number):
        """Return accepted sockets. A frame has come from each, from the last socket first."""
        connections = [self.open(WebSocket) for _ in range(number)]
        self.acknowledge([{"accept": True}])
        for connection in reversed(connections):
            connection.perform(connection.state.frame("x"))
        return connections

    def acknowledge(self, replies=()):
        """Have a worker handle all that was sent, and return it: channels, and connections' channels."""
        found = []
        while self.inbox.sent:
            channel, message = self.inbox.sent.pop(0)
            found.append((channel, message[protocol.REPLY_CHANNEL]))
            ack = protocol.ack(message[protocol.EVENT_ID], list(replies), ran=20)
            self.reader.handle(message[protocol.REPLY_CHANNEL], ack)
        return found

    def reset(self):
        """Handle that the layer has lost its data, with what was sent."""
        self.inbox.sent.clear()
        with mock.patch("django.channels.gateway.reader.logger"):
            self.reader.handle(self.name, protocol.reset())

    def try_again(self):
        """Run the task that tries again once."""
        coroutine = self.loop.tasks.pop()

        async def sleep(seconds):
            pass

        with mock.patch.object(sender.asyncio, "sleep", sleep):
            try:
                coroutine.send(None)
            except StopIteration:
                pass

    def let_go(self, connections):
        """Handle that the clients of these connections have gone."""
        for connection in connections:
            connection.perform(connection.state.gone())
            self._detach(connection)


class EndedTests(unittest.TestCase):
    """What ends while its event waits is not sent, and takes no turn of others."""

    def setUp(self):
        self.site = Site()

    def lanes(self):
        return {(lane.in_flight, len(lane.waiting)) for lane in self.site.events._lanes.values()}

    def check_others(self, state_class=WebSocket):
        """Check that the events of 20 new connections are handled, and that all lanes are free then."""
        connections = [self.site.open(state_class) for _ in range(20)]
        if state_class is WebSocket:
            self.site.acknowledge([{"accept": True}])
            for connection in connections:
                connection.perform(connection.state.frame("x"))
        handled = [channel for _, channel in self.site.acknowledge()]
        self.assertEqual(sorted(handled), sorted(each.channel for each in connections))
        self.assertEqual(self.lanes(), {(0, 0)})

    def test_frames_that_wait_at_a_reset_are_not_sent_and_hold_up_no_new_socket(self):
        sockets = self.site.open_sockets(20)
        self.site.reset()
        sent = self.site.acknowledge()
        self.assertEqual(sent, [("websocket.disconnect", each.channel) for each in sockets])
        self.site.let_go(sockets)
        self.assertEqual(self.site.connections, {})
        self.check_others()

    def test_handshakes_that_wait_at_a_reset_are_not_sent(self):
        sockets = [self.site.open(WebSocket) for _ in range(20)]
        self.site.reset()
        self.assertEqual(self.site.acknowledge(), [])
        self.site.let_go(sockets)
        self.check_others()

    def test_requests_that_wait_at_a_reset_are_answered_and_not_run(self):
        requests = [self.site.open(Request) for _ in range(20)]
        self.site.reset()
        self.assertEqual(self.site.acknowledge(), [])
        self.site.let_go(requests)
        self.check_others(Request)

    def give_up(self, after=sender.TRY_TIMEOUT):
        """Have the reader meet a long outage, so many seconds later."""
        self.site.loop.now += after
        self.site.inbox.failing_since = float("-inf")
        with self.assertLogs("django.channels.gateway", "WARNING"):
            self.site.reader._give_up_requests()

    def test_a_request_that_is_being_sent_in_an_outage_is_answered_when_that_has_failed(self):
        self.site.inbox.error = NotSent("away")
        request = self.site.open(Request)
        self.site.inbox.error = None
        self.site.try_again()
        self.site.inbox.failing_since = float("-inf")
        self.site.reader._give_up_requests()
        self.assertEqual(list(request._outgoing), [])
        self.site.inbox.sent.clear()
        self.site.inbox.reports[-1](NotSent("still away"))
        self.site.loop.tasks.pop().close()
        self.give_up(after=0)
        self.assertEqual(request._outgoing[0][1]["status"], 503)

    def test_requests_that_wait_in_an_outage_are_refused_and_not_run(self):
        requests = [self.site.open(Request) for _ in range(20)]
        self.give_up()
        statuses = [each._outgoing[0][1]["status"] for each in requests]
        self.assertEqual(statuses, [502] * 4 + [503] * 16)
        self.site.let_go(requests)
        self.assertEqual(len(self.site.acknowledge()), 4)
        self.assertEqual(self.site.connections, {})
        self.check_others(Request)

    def test_requests_that_run_leave_their_turns_and_are_not_refused_in_an_outage(self):
        requests = [self.site.open(Request) for _ in range(20)]
        for each in requests[:4]:
            notice = protocol.running(each.state.in_flight, 20)
            self.site.reader.handle(each.channel, notice)
        self.assertEqual(len(self.site.inbox.sent), 8)
        self.give_up()
        statuses = [each._outgoing[0][1]["status"] for each in requests]
        self.assertEqual(statuses, [502] * 8 + [503] * 12)
        self.site.let_go(requests)
        self.assertEqual(len(self.site.acknowledge()), 8)
        self.assertEqual(self.site.connections, {})
        self.check_others(Request)

    def test_what_an_outage_has_refused_is_not_sent_after_a_reset(self):
        for kind, frames in ((Request, False), (WebSocket, False), (WebSocket, True)):
            with self.subTest(kind=kind, frames=frames):
                self.setUp()
                inbox, away = self.site.inbox, LayerUnavailable("away")
                if frames:
                    connections = self.site.open_sockets(6)
                    for failed in inbox.reports[-4:]:
                        failed(away)
                else:
                    inbox.error = away
                    connections = [self.site.open(kind) for _ in range(6)]
                inbox.error = None
                self.site.reset()
                self.site.try_again()
                channels = {channel for channel, _ in self.site.acknowledge()}
                self.assertEqual(channels, {"websocket.disconnect"} if frames else set())
                self.site.let_go(connections)
                self.assertEqual(self.site.connections, {})
                self.check_others(kind)

    def test_an_error_that_comes_after_a_reset_ends_no_later_event(self):
        (connection,) = self.site.open_sockets(1)
        self.site.reset()
        self.site.inbox.reports[-2](ValueError("a bug"))
        ((_, disconnect),) = self.site.inbox.sent
        self.assertEqual(connection.state.in_flight, disconnect[protocol.EVENT_ID])

    def test_a_request_that_a_reset_has_answered_is_not_refused_besides(self):
        for _ in range(20):
            self.site.open(Request)
        self.site.reset()
        self.site.loop.now += 3600
        self.site.events.check_turns()
        self.assertNotIn("refused", self.site.layer.statistics())
