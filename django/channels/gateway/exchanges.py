"""
What the states of both protocols share: the actions they ask for, and one event at a time.

An event of a connection (its connect, a frame, its end) is an *exchange*: it is sent to a worker, and
the next is not sent before the worker's answer says that it is done. Pure: no I/O, no clock.
"""

# What a state asks its connection to do: a list of tuples, one of these first.
DISPATCH = "dispatch"  # (DISPATCH, channel, message): send it through the layer
WRITE = "write"  # (WRITE, event, note): give this ASGI 3 event to the server, then say written(event, note)
DROP = "drop"  # (DROP,): forget what is not written yet
CUT = "cut"  # (CUT,): what was written is not complete, and the client is to see that
FINISH = "finish"  # (FINISH,): nothing more is written; the connection can go
HOLD = "hold"  # (HOLD, name, channel, message): should this gateway be lost, the layer sends that
COUNT = "count"  # (COUNT, name): one more in the layer's statistics
LOG = "log"  # (LOG, "warning" or "error", text): a line in the log


class Exchange:
    """
    One connection's exchanges: at most one event is out (`busy` is its number), and the session that
    travels with each of them.
    """

    def __init__(self, reply_channel, path):
        self.reply_channel = reply_channel
        self.path = path
        self.session = {}
        self.busy = None

    def event(self, channel, number, message):
        """The action that sends an event out, as exchange `number`."""
        self.busy = number
        message["reply_channel"] = self.reply_channel
        message["exchange"] = number
        if self.session:
            message["channel_session"] = self.session.copy()
        return (DISPATCH, channel, message)

    def merge(self, patch):
        """Take over what a consumer changed in the session; returns whether it changed anything."""
        if not isinstance(patch, dict):
            return False
        self.session.update(patch.get("set") or {})
        for key in patch.get("removed") or ():
            self.session.pop(key, None)
        return True
