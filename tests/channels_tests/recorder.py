"""Keeps the actions that a state of the gateway asks for, sorted by kind, for tests without a server."""

from django.channels import protocol
from django.channels.gateway.state import (
    ABORT,
    COUNT,
    DISCARD,
    FINISH,
    LOG,
    SEND,
    SET_WILL,
    WRITE,
)


class Recorder:
    """Carries out the actions of `state` by keeping them. A subclass may override `write`."""

    def __init__(self, state):
        self.state = state
        self.sent, self.written, self.counted, self.logged, self.wills = [], [], [], [], []
        self.finished = self.discarded = self.aborted = False

    def write(self, event, note):
        self.written.append(event)

    def do(self, actions):
        for action in actions:
            if action[0] == SEND:
                self.sent.append(action[1:])
            elif action[0] == WRITE:
                self.write(*action[1:])
            elif action[0] == COUNT:
                self.counted.append(action[1])
            elif action[0] == LOG:
                self.logged.append(action[2] % action[3:])
            elif action[0] == SET_WILL:
                self.wills.append(action[1:])
            elif action[0] == FINISH:
                self.finished = True
            elif action[0] == DISCARD:
                self.discarded = True
            elif action[0] == ABORT:
                self.aborted = True
            else:
                raise AssertionError("unknown action %r" % (action,))
        return self

    @property
    def channels(self):
        """The channels that were sent to, in order."""
        return [channel for channel, _ in self.sent]

    def reply(self, **message):
        """A message arrives on the reply channel."""
        return self.do(self.state.reply(message))

    def answer(self, **message):
        """The consumer of the event in flight sends this at once, while it runs."""
        return self.do(self.state.reply(protocol.during(self.state.in_flight, message)))

    def done(self, *replies, **more):
        """The worker acknowledges the event in flight, with these replies."""
        message = dict(protocol.ack(self.state.in_flight, list(replies)), **more)
        return self.do(self.state.reply(message))

    def lost(self, event_id):
        """The layer says that the worker of this event died."""
        return self.do(self.state.reply(protocol.lost(event_id)))
