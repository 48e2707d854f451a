"""
The outbox: what a consumer sends is held here until it ends.
"""

import threading


class Outbox(threading.local):
    """
    What the consumer of this thread has sent: a list of (layer, "send" or "group", name, message),
    clean messages in the order of the calls; None while no consumer runs, when sends leave at once.
    """

    held = None

    def open(self):
        """Begin to hold; returns what was held by a consumer around this one, for `close`."""
        outer, self.held = self.held, []
        return outer

    def close(self, outer=None):
        """End holding; returns what was held."""
        held, self.held = self.held, outer
        return held


outbox = Outbox()


class PendingMessageStore:
    """
    The outbox under the name and calls it has in Channels 1.1 (`prepare`, `active`, `send_and_flush`),
    for code that runs a consumer without a worker.
    """

    @property
    def active(self):
        return outbox.held is not None

    def prepare(self, **kwargs):
        outbox.open()

    def send_and_flush(self, **kwargs):
        send_held(outbox.close() or ())


pending_message_store = PendingMessageStore()


def send_held(held):
    """Send what an outbox held, in order."""
    for layer, kind, name, message in held:
        (layer.deliver if kind == "send" else layer.deliver_group)(name, message)
