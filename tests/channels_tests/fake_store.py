"""A store of the engine that does what a test says, and remembers what it was asked for."""

import json
import threading

from django.channels.layers.engine.layer import EngineLayer
from django.channels.layers.engine.options import Options
from django.channels.layers.engine.store import Due, Heartbeat, Recovered, Store, Unreadable


def _recorder(name):
    def call(self, *args):
        with self.lock:
            self.calls.append((name,) + args)
            answers = self.answers.get(name)
            answer = answers.pop(0) if answers else self.usual.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer(*args) if callable(answer) else answer

    return call


class _FakeStore(Store):
    """
    `answers[name]` is a list of what the next calls of `name` return, raise or call; `usual[name]` is for
    those after them.
    """

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.calls, self.answers = [], {}
        self.usual = {
            "send": (),
            "gateway_batch": (),
            "receive_inbox": (),
            "send_group": 0,
            "dead_letter": 0,
            "heartbeat": Heartbeat([]),
            "recover": Recovered([], []),
            "expire": Recovered([], []),
            "sweep": {},
            "send_due": Due(0, None),
            "counters": {},
            "pending": [],
            "dead_letters": [],
        }

    def encode(self, channel, message):
        return json.dumps(message)

    def decode(self, channel, body):
        try:
            return json.loads(body)
        except ValueError as error:
            raise Unreadable("it is damaged") from error

    def named(self, *names):
        """The calls of these names, in order, without the names."""
        with self.lock:
            return [call[1:] for call in self.calls if call[0] in names]


_OWN = {"encode", "decode"}
_MORE = {"reach", "sweep", "gateway_batch", "receive_inbox", "subscribe", "unsubscribe"}
FakeStore = type(
    "FakeStore",
    (_FakeStore,),
    {name: _recorder(name) for name in (Store.__abstractmethods__ | _MORE) - _OWN},
)


class FakeLayer(EngineLayer):
    """A layer over a FakeStore. Its lease thread doesn't start: tests make the steps."""

    def __init__(self, starts=False, heartbeat=5.0, lease=15.0, **options):
        names = [name for name in options if name in Options._fields]
        shared = {name: options.pop(name) for name in names}
        super().__init__(Options(heartbeat=heartbeat, lease=lease, **shared), **options)
        self.store.answers["heartbeat"] = []
        if not starts:
            self.leases.start = lambda: None

    def make_store(self):
        return FakeStore()
