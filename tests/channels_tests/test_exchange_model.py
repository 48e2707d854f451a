"""
A model of exchanges, driven by random interleavings: whatever clients, workers and losses do, every
socket's events are handled in order, one at a time, and their end is told once.

The sockets' states and the layer are the real ones; the client, the server and the workers' consumers
are the model's.
"""

import unittest

try:
    import hypothesis
    from hypothesis import stateful
    from hypothesis import strategies as st
except ImportError:
    hypothesis = None

from django.channels.gateway import websocket
from django.channels.gateway.state import SEND, WRITE
from django.channels.gateway.websocket import WebSocket
from django.channels.layers.memory import MemoryChannelLayer

from .support.requirements import require

CHANNELS = ["websocket.connect", "websocket.receive", "websocket.disconnect"]
SLOTS = ["slot-1", "slot-2", "slot-3"]


class Peer:
    """One client, and what became of its events."""

    def __init__(self, name):
        self.state = WebSocket(name, "/")
        self.sent = 0  # frames the client has sent on the open socket
        self.handled = []  # events whose consumer has run to its end, in order
        self.begun = []  # events that a worker has begun
        self.working = 0  # workers that hold an event of this socket
        self.written = []
        self.lost = False
        self.client_gone = False

    @property
    def closed(self):
        return [event["code"] for event in self.written if event["type"] == "websocket.close"]


if hypothesis is not None:

    class Exchanges(stateful.RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.layer = MemoryChannelLayer(capacity=5)
            self.peers = {}
            self.held = {}  # slot to (channel, message)
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

        @stateful.precondition(lambda self: len(self.held) < len(SLOTS))
        @stateful.rule()
        def a_worker_claims(self):
            slot = next(slot for slot in SLOTS if slot not in self.held)
            channel, message = self.layer.claim(slot, CHANNELS)
            if channel is not None:
                self.held[slot] = (channel, message)
                peer = self.peers[message["reply_channel"]]
                peer.working += 1
                peer.begun += events_of(channel, message)

        def release(self, data):
            """One of the claimed messages, which its worker holds no longer."""
            slot = data.draw(st.sampled_from(sorted(self.held)))
            channel, message = self.held.pop(slot)
            self.layer.acknowledge(slot)
            peer = self.peers[message["reply_channel"]]
            peer.working -= 1
            return channel, message, peer

        @stateful.precondition(lambda self: self.held)
        @stateful.rule(
            data=st.data(),
            outcome=st.sampled_from(["fine"] * 6 + ["answer", "error", "close", "deny"]),
        )
        def a_worker_ends(self, data, outcome):
            self.end(*self.release(data), outcome)

        def end(self, channel, message, peer, outcome):
            peer.handled += events_of(channel, message)
            answer = {"done": message["exchange"], "replies": []}
            if channel == "websocket.connect":
                answer["replies"].append({"close": True} if outcome == "deny" else {"accept": True})
            elif outcome == "answer":
                answer["replies"].append({"text": "answer"})
            elif outcome == "close":
                answer["replies"].append({"close": 4000})
            if outcome == "error":
                answer["error"] = True
            self.perform(peer, peer.state.reply(answer))

        @stateful.precondition(lambda self: len(self.held) > 1)
        @stateful.rule(data=st.data(), late=st.booleans())
        def a_worker_dies(self, data, late):
            channel, message, peer = self.release(data)
            if channel == "websocket.disconnect":
                # Such a message is tried again, by another worker.
                peer.begun.pop()
                self.dispatch(peer, channel, dict(message, redelivered=True))
                return
            peer.lost = True
            self.perform(peer, peer.state.reply({"lost": message["exchange"]}))
            if late:  # its answer arrives after it was given up
                self.perform(
                    peer,
                    peer.state.reply({"done": message["exchange"], "replies": [{"text": "late"}]}),
                )

        @stateful.precondition(lambda self: self.peers)
        @stateful.rule(data=st.data(), message=st.sampled_from([{"text": "x"}, {}]))
        def others_send(self, data, message):
            peer = data.draw(st.sampled_from(list(self.peers.values())))
            self.perform(peer, peer.state.group(message))

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
                self.dispatch(self.peers[message["reply_channel"]], channel, message)

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
            """Everybody leaves and every worker works on: each end that is owed comes."""
            for peer in self.peers.values():
                self.perform(peer, peer.state.gone(1001))
                peer.client_gone = True
            for _ in range(1000):
                self.the_gateway_tries_again()
                for slot, (channel, message) in list(self.held.items()):
                    del self.held[slot]
                    self.layer.acknowledge(slot)
                    peer = self.peers[message["reply_channel"]]
                    peer.working -= 1
                    self.end(channel, message, peer, "fine")
                self.a_worker_claims()
                if not self.held and self.layer.global_statistics()["messages_pending"] == 0:
                    break
            for peer in self.peers.values():
                assert peer.state.over
                denied = 1000 in peer.closed and "websocket.accept" not in [
                    event["type"] for event in peer.written
                ]
                if peer.begun and not denied:
                    assert peer.begun[-1] == "websocket.disconnect", peer.begun
                if not peer.lost and not peer.closed:
                    # Nobody closed it from here: every frame that the client sent was handled.
                    frames = [event for event in peer.handled if isinstance(event, int)]
                    assert frames == list(range(1, peer.sent + 1))


def events_of(channel, message):
    """The events that a message stands for: frames by their number, the others by their channel."""
    if channel != "websocket.receive":
        return [channel]
    return [frame["order"] for frame in message.get("frames") or [message]]


class ExchangeModelTests(unittest.TestCase):
    def test_random_interleavings(self):
        require("hypothesis.stateful")
        stateful.run_state_machine_as_test(
            Exchanges,
            settings=hypothesis.settings(
                max_examples=150,
                stateful_step_count=60,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            ),
        )
