"""
Test cases whose channel layers are captive, and Client, which sends, runs consumers and receives.

Nothing runs by itself here: a test puts messages on channels, and runs the consumer of one message at
a time in its own thread.
"""

import functools
import weakref
from contextlib import contextmanager

from django.db import connections
from django.test import TestCase, TransactionTestCase, override_settings

from ..asgi import DEFAULT_LAYER_ALIAS, channel_layers, import_backend
from ..channel import Group
from ..exceptions import ChannelSocketException, ConsumeLater, DenyConnection
from ..layers.memory import MemoryChannelLayer
from ..message import Message
from ..outbox import outbox, send_held
from ..routing import Router
from ..security.websockets import check_origin
from ..sessions import ChannelSession
from ..signals import consumer_finished, consumer_started

#: The name of the package, in which the hooks of `run_commit_hooks` are defined.
_PACKAGE = __package__.rpartition(".")[0] + "."

#: What gateways do elsewhere: per layer, the session of each connection, by reply channel.
_sessions = weakref.WeakKeyDictionary()

#: Inside a ChannelTestCase: by database alias, how many transactions are the test case's own.
_own_transactions = {}


def next_message(layer, channel):
    """The next Message on `channel`, with the session of its connection, or None."""
    run_commit_hooks()
    name, content = layer.receive_many([channel])
    if name is None:
        return None
    message = Message(content, name, layer)
    reply_channel = content.get("reply_channel")
    if reply_channel is not None:
        sessions = _sessions.setdefault(layer, {})
        if reply_channel not in sessions:
            sessions[reply_channel] = ChannelSession({}, reply_channel)
        message.channel_session = sessions[reply_channel]
    return message


def forget_session(layer, reply_channel):
    """The connection of `reply_channel` begins anew."""
    _sessions.get(layer, {}).pop(reply_channel, None)


def run_commit_hooks():
    """
    Send what waits for a commit that will never come, because the test case rolls back.

    Inside a ChannelTestCase, that is done whenever a test looks for messages outside of a transaction of
    its own. Hooks of the site are left alone.
    """
    for alias, own in _own_transactions.items():
        connection = connections[alias]
        if not connection.in_atomic_block or len(connection.savepoint_ids) > own:
            continue
        waiting = getattr(connection, "run_on_commit", [])  # there is none before Django 1.9
        due = [hook for hook in waiting if _is_ours(hook[1])]
        if due:
            connection.run_on_commit = [hook for hook in waiting if not _is_ours(hook[1])]
            for hook in due:
                hook[1]()


def _is_ours(hook):
    return getattr(hook, "__module__", None) is not None and hook.__module__.startswith(_PACKAGE)


class ChannelTestMixin:
    """Captive layers in memory for a test case, emptied before each test."""

    #: The aliases of the layers to swap; None for all that are configured.
    test_channel_aliases = None

    @classmethod
    def setUpClass(cls):
        # Already here, since setUpTestData may send too; but what Django is about to override for
        # the class counts.
        overridden = getattr(cls, "_overridden_settings", None) or {}
        layers = {k: v for k, v in overridden.items() if k == "CHANNEL_LAYERS"}
        cls._former_layers = {}
        with override_settings(**layers):
            aliases = cls.test_channel_aliases
            for alias in list(channel_layers if aliases is None else aliases):
                cls._former_layers[alias] = channel_layers.set(alias, captive_layer(alias))
        try:
            super().setUpClass()
        except BaseException:
            cls._restore_layers()
            raise

    @classmethod
    def tearDownClass(cls):
        try:
            super().tearDownClass()
        finally:
            cls._restore_layers()

    @classmethod
    def _restore_layers(cls):
        for alias, layer in cls._former_layers.items():
            channel_layers.set(alias, layer)
        cls._former_layers = {}

    def run(self, result=None):
        # Not in setUp, so that a test case need not call super().setUp().
        for alias in self._former_layers:
            layer = channel_layers[alias]
            layer.flush()
            _sessions.pop(layer, None)
        with self._known_transactions():
            return super().run(result)

    @contextmanager
    def _known_transactions(self):
        before = dict(_own_transactions)
        for connection in connections.all():
            if connection.in_atomic_block:
                _own_transactions[connection.alias] = len(connection.savepoint_ids)
        try:
            yield
        finally:
            _own_transactions.clear()
            _own_transactions.update(before)

    def get_next_message(self, channel, alias=DEFAULT_LAYER_ALIAS, require=False):
        """
        The next message on `channel` (text) as a Message, or None; with `require`, the test fails
        if there is none.
        """
        message = next_message(channel_layers[alias], channel)
        if message is None and require:
            self.fail("Expected a message on channel %s, got none" % channel)
        return message


class ChannelTestCase(ChannelTestMixin, TestCase):
    """A django.test.TestCase with captive layers: each test runs in a transaction."""


class TransactionChannelTestCase(ChannelTestMixin, TransactionTestCase):
    """A django.test.TransactionTestCase with captive layers: commits are real."""


def captive_layer(alias):
    """A layer in memory that stands in for the one CHANNEL_LAYERS configures under `alias`."""
    entry = channel_layers.configs[alias]
    layer_class = import_backend(alias, entry)
    if issubclass(layer_class, MemoryChannelLayer):
        if "TEST_CONFIG" in entry:
            return channel_layers.make_test_backend(alias)
        return channel_layers.make_backend(alias)
    layer = MemoryChannelLayer()
    layer.alias = alias
    layer.routing = entry.get("ROUTING", [])
    return layer


class Client:
    """
    A connection without a protocol: sends on the layer of `alias` (text), with a reply channel of
    its own, runs consumers, and receives what they reply.
    """

    def __init__(self, alias=DEFAULT_LAYER_ALIAS):
        self.alias = alias
        self.reply_channel = self.channel_layer.new_channel("test.client?")

    @property
    def channel_layer(self):
        return channel_layers[self.alias]

    def get_next_message(self, channel):
        """The next message on `channel` (text) as a Message, or None."""
        return next_message(self.channel_layer, channel)

    def get_consumer_by_channel(self, channel):
        """The consumer that is routed for `channel` (text) alone, or None."""
        match = self.channel_layer.router.match(Message({}, channel, self.channel_layer))
        return match and match[0]

    def send(self, to, content=None):
        """Put `content` (dict) on the channel `to`, with this client's reply channel."""
        content = dict(content or {})
        content.setdefault("reply_channel", self.reply_channel)
        self.channel_layer.send(to, content)

    def consume(self, channel, fail_on_none=True):
        """
        Run the consumer of the next message on `channel`; returns what it returns (of a class, the
        instance). What it raises, the test sees, apart from the exceptions that tell the worker
        something.

        With `fail_on_none`, raises AssertionError if there is no message, or no consumer for it.
        """
        message = self.get_next_message(channel)
        if message is None:
            if fail_on_none:
                raise AssertionError("There is no message on channel %s" % channel)
            return None
        match = self.channel_layer.router.match(message)
        if match is None:
            if fail_on_none:
                raise AssertionError("No route takes the message %r" % message)
            return None
        return run_consumer(message, *match)

    def send_and_consume(self, channel, content=None, fail_on_none=True):
        """`send`, then `consume`."""
        self.send(channel, content)
        return self.consume(channel, fail_on_none=fail_on_none)

    def receive(self):
        """The content (dict) of the next reply to this client, or None."""
        message = self.get_next_message(self.reply_channel)
        return message and message.content

    def join_group(self, group_name):
        """Make this client a member of a group (its name)."""
        Group(group_name, alias=self.alias).add(self.reply_channel)


def run_consumer(message, consumer, kwargs):
    """Run one consumer as a worker does: its sends are held until its end, its session is kept."""
    content = dict(message.content)
    outer = outbox.open()
    result = None
    again = False
    # A worker also releases database connections here; a test case needs its own on.
    consumer_started.send(sender=run_consumer, environ={})
    try:
        if message.channel.name == "websocket.connect":
            check_origin(message, consumer)
        result = consumer(message, **kwargs)
    except DenyConnection:
        if message.channel.name != "websocket.connect":
            raise
        # An accept that was sent before must not open the socket after all.
        outbox.held[:] = [each for each in outbox.held if each[2] != message["reply_channel"]]
        message.reply_channel.send({"close": True})
    except ConsumeLater:
        outbox.held[:] = []
        again = True
    except ChannelSocketException as exception:
        exception.run(message)
    finally:
        held = outbox.close(outer)
        _keep_session(message)
        send_held(held)
        consumer_finished.send(sender=run_consumer, environ={})
    if again:
        message.channel_layer.send(message.channel.name, content)
    return result


def _keep_session(message):
    """What the next event of the connection finds in its session: what a layer would carry there."""
    sessions = _sessions.get(message.channel_layer, {})
    session = message.channel_session
    if session is not None and sessions.get(message["reply_channel"]) is session:
        data = message.channel_layer.check_message(session.snapshot())
        sessions[message["reply_channel"]] = ChannelSession(data, message["reply_channel"])


class apply_routes:
    """
    Context manager and decorator (of functions, methods and test case classes): the layers of
    `aliases` (["default"]) are routed by `routes` (a route, or a list of them) and nothing else.
    """

    def __init__(self, routes, aliases=None):
        self.routes = routes if isinstance(routes, (list, tuple, dict, str)) else [routes]
        if aliases is None:
            aliases = [DEFAULT_LAYER_ALIAS]
        self.aliases = [aliases] if isinstance(aliases, str) else list(aliases)
        self._former = []

    def __enter__(self):
        former = []
        for alias in self.aliases:
            layer = channel_layers[alias]
            former.append((layer, layer._router))
            router = Router(self.routes)
            router.check_default()
            layer.router = router
        self._former.append(former)
        return self

    def __exit__(self, *exc_info):
        for layer, router in self._former.pop():
            layer.router = router

    def __call__(self, decorated):
        if isinstance(decorated, type):
            decorated.run = self(decorated.run)
            return decorated

        @functools.wraps(decorated)
        def wrapper(*args, **kwargs):
            with self:
                return decorated(*args, **kwargs)

        return wrapper
