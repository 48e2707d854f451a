"""
A model of connections, driven by random interleavings. Whatever clients, workers and losses do, every
socket's events are handled in order, one at a time, and its disconnect is handled once.

The sockets' states and the layer are real. The client, the server and the workers' consumers are parts of
the model.
"""

import unittest

try:
    import hypothesis
    from hypothesis import stateful
    from hypothesis import strategies as st
except ImportError:
    hypothesis = None

from django.channels import protocol
from django.channels.gateway import websocket
from django.channels.gateway.state import SEND, WRITE
from django.channels.gateway.websocket import WebSocket
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.protocol import EVENT_ID, FRAMES, REDELIVERED, REPLY_CHANNEL

from .support.layers import run_model
from .support.requirements import require

CHANNELS = ["websocket.connect", "websocket.receive", "websocket.disconnect"]
CONSUMERS = ["consumer-1", "consumer-2", "consumer-3"]


class Peer:
    """One client, and what became of its events."""

    def __init__(self, name):
        self.state = WebSocket(name, "/")
        self.sent = 0  # frames the client has sent on the open socket
        self.handled = []  # events whose consumer has run to its end, in order
        self.begun = []  # events that a worker has begun
        self.working = 0  # workers that have claimed an event of this socket
        self.written = []
        self.lost = False
        self.client_gone = False

    @property
    def closed(self):
        return [event["code"] for event in self.written if event["type"] == "websocket.close"]


if hypothesis is not None:

    class Connections(stateful.RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.layer = MemoryChannelLayer(capacity=5)
            self.peers = {}
            self.claimed = {}  # consumer to (channel, message)
            self.refused = []

        # What happens.

        @stateful.precondition(lambda self: len(self.peers) < 6)
        @stateful.rule()
        def a_client_connects(self):
            name = "gateway.model!%d" % len(self.peers)
            peer = self.peers[name] = Peer(name)
            self.perform(peer, peer.state.connect({"path": "/"}))

        def open_peers(self):
            return [
                peer
                for peer in self.peers.values()
                if peer.state.phase == websocket.OPEN and not peer.client_gone
            ]

        @stateful.precondition(lambda self: self.open_peers())
        @stateful.rule(data=st.data(), number=st.integers(1, 5))
        def a_client_sends_frames(self, data, number):
            peer = data.draw(st.sampled_from(self.open_peers()))
            for _ in range(number):
                if peer.state.phase != websocket.OPEN or not peer.state.reading:
                    return
                peer.sent += 1
                self.perform(peer, peer.state.frame(text=str(peer.sent)))

        @stateful.precondition(lambda self: len(self.open_peers()) > 2)
        @stateful.rule(data=st.data())
        def a_client_goes(self, data):
            peer = data.draw(st.sampled_from(self.open_peers()))
            peer.client_gone = True
            self.perform(peer, peer.state.gone(1001))

        @stateful.precondition(lambda self: len(self.claimed) < len(CONSUMERS))
        @stateful.rule()
        def a_worker_claims(self):
            consumer = next(consumer for consumer in CONSUMERS if consumer not in self.claimed)
            channel, message = self.layer.claim(consumer, CHANNELS)
            if channel is not None:
                self.claimed[consumer] = (channel, message)
                peer = self.peers[message[REPLY_CHANNEL]]
                peer.working += 1
                peer.begun += events_of(channel, message)

        def take(self, data):
            """Take one of the claimed messages from its worker."""
            consumer = data.draw(st.sampled_from(sorted(self.claimed)))
            channel, message = self.claimed.pop(consumer)
            self.layer.acknowledge(consumer)
            peer = self.peers[message[REPLY_CHANNEL]]
            peer.working -= 1
            return channel, message, peer

        @stateful.precondition(lambda self: self.claimed)
        @stateful.rule(
            data=st.data(),
            outcome=st.sampled_from(["fine"] * 6 + ["answer", "error", "close", "deny", "later"]),
        )
        def a_worker_ends(self, data, outcome):
            self.end(*self.take(data), outcome)

        def end(self, channel, message, peer, outcome):
            peer.handled += events_of(channel, message)
            replies = []
            if channel == "websocket.connect":
                if outcome != "later":
                    replies.append({"close": True} if outcome == "deny" else {"accept": True})
            elif outcome == "answer":
                replies.append({"text": "answer"})
            elif outcome == "close":
                replies.append({"close": 4000})
            ack = protocol.ack(message[EVENT_ID], replies, error=outcome == "error")
            self.perform(peer, peer.state.reply(ack))

        @stateful.precondition(lambda self: len(self.claimed) > 1)
        @stateful.rule(data=st.data(), late=st.booleans())
        def a_worker_dies(self, data, late):
            channel, message, peer = self.take(data)
            if channel == "websocket.disconnect":
                # The layer retries this message with another worker.
                peer.begun.pop()
                self.dispatch(peer, channel, dict(message, **{REDELIVERED: True}))
                return
            peer.lost = True
            self.perform(peer, peer.state.reply(protocol.lost(message[EVENT_ID])))
            if late:  # the answer arrives after the notice of loss
                ack = protocol.ack(message[EVENT_ID], [{"text": "late"}])
                self.perform(peer, peer.state.reply(ack))

        @stateful.precondition(lambda self: self.peers)
        @stateful.rule(data=st.data(), message=st.sampled_from([{"text": "x"}, {}]))
        def others_send(self, data, message):
            peer = data.draw(st.sampled_from(list(self.peers.values())))
            self.perform(peer, peer.state.group(message))

        @stateful.precondition(lambda self: self.peers)
        @stateful.rule(data=st.data(), accept=st.booleans())
        def others_send_to_the_reply_channel(self, data, accept):
            peer = data.draw(st.sampled_from(list(self.peers.values())))
            before = len(peer.written)
            undecided = peer.state.phase == websocket.CONNECTING
            message = {"accept": True, "text": "x"} if accept else {"text": "x"}
            self.perform(peer, peer.state.reply(message))
            if undecided and (not accept or peer.state.in_flight is not None):
                assert len(peer.written) == before

        # What carries out the states' actions.

        def perform(self, peer, actions):
            for action in actions:
                if action[0] == WRITE:
                    peer.written.append(action[1])
                elif action[0] == SEND:
                    self.dispatch(peer, *action[1:])

        def dispatch(self, peer, channel, message):
            try:
                self.layer.send(channel, message)
            except self.layer.ChannelFull:
                if channel == "websocket.disconnect":
                    self.refused.append((channel, message))  # the gateway tries again
                else:
                    self.perform(peer, peer.state.refused(channel))

        @stateful.rule()
        def the_gateway_tries_again(self):
            again, self.refused = self.refused, []
            for channel, message in again:
                self.dispatch(self.peers[message[REPLY_CHANNEL]], channel, message)

        # What must hold at every moment.

        @stateful.invariant()
        def one_event_of_a_socket_at_a_time(self):
            for peer in self.peers.values():
                assert peer.working <= 1

        @stateful.invariant()
        def events_begin_in_order_each_of_them_once(self):
            for peer in self.peers.values():
                frames = [event for event in peer.begun if isinstance(event, int)]
                assert frames == list(range(1, len(frames) + 1)), peer.begun
                ends = [event for event in peer.begun if event == "websocket.disconnect"]
                assert len(ends) <= 1
                if peer.begun:
                    assert peer.begun[0] == "websocket.connect"
                    assert "websocket.connect" not in peer.begun[1:]
                    assert "websocket.disconnect" not in peer.begun[:-1]

        @stateful.invariant()
        def a_socket_whose_event_was_lost_is_closed_or_was_gone(self):
            for peer in self.peers.values():
                if peer.lost:
                    assert peer.closed or peer.client_gone

        @stateful.invariant()
        def nothing_is_written_after_a_close(self):
            for peer in self.peers.values():
                types = [event["type"] for event in peer.written]
                assert "websocket.close" not in types[:-1]
                assert types.count("websocket.accept") <= 1

        def teardown(self):
            """All clients leave, and the workers handle what is left: each disconnect is handled."""
            for peer in self.peers.values():
                self.perform(peer, peer.state.gone(1001))
                peer.client_gone = True
            for _ in range(1000):
                self.the_gateway_tries_again()
                for consumer, (channel, message) in list(self.claimed.items()):
                    del self.claimed[consumer]
                    self.layer.acknowledge(consumer)
                    peer = self.peers[message[REPLY_CHANNEL]]
                    peer.working -= 1
                    self.end(channel, message, peer, "fine")
                self.a_worker_claims()
                if not self.claimed and self.layer.global_statistics()["messages_pending"] == 0:
                    break
            for peer in self.peers.values():
                assert peer.state.over
                denied = 1000 in peer.closed and "websocket.accept" not in [
                    event["type"] for event in peer.written
                ]
                if peer.begun and not denied:
                    assert peer.begun[-1] == "websocket.disconnect", peer.begun
                if not peer.lost and not peer.closed:
                    # The site did not close it, so every frame that the client sent was handled.
                    frames = [event for event in peer.handled if isinstance(event, int)]
                    assert frames == list(range(1, peer.sent + 1))


def events_of(channel, message):
    """Return the events in a message: frames by their number, others by their channel."""
    if channel != "websocket.receive":
        return [channel]
    return [frame["order"] for frame in message.get(FRAMES) or [message]]


class ConnectionModelTests(unittest.TestCase):
    def test_random_interleavings(self):
        require("hypothesis.stateful")
        run_model(Connections, 150, 60)
