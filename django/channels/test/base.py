"""
Test cases with in-memory test layers, and Client, which sends, runs consumers and receives.

No gateway and no worker runs here: a test puts messages on channels, and runs the consumer of one message
at a time in its own thread. Everything here belongs to the thread of the test.
"""

from __future__ import annotations

import functools
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Sequence

from django.db import connections
from django.test import TestCase, TransactionTestCase, override_settings

from ..asgi import DEFAULT_LAYER_ALIAS, channel_layers
from ..backends import InvalidChannelLayerError, import_backend
from ..channel import Group
from ..consume import HANDLED, LATER, call_afterwards, run_consumer
from ..layers.base import BaseChannelLayer
from ..layers.memory import MemoryChannelLayer
from ..message import Message
from ..moved import moved_names
from ..outbox import PendingSend, deliver_all
from ..protocol import REPLY_CHANNEL
from ..routing import Router
from ..sessions import ChannelSession
from .shared import warn_of_shared_layer

#: The name of the package, in which the hooks of `run_commit_hooks` are defined.
_PACKAGE = __package__.rpartition(".")[0] + "."

#: For each layer, the session of each connection by reply channel. Elsewhere the gateway keeps it.
_sessions: Any = weakref.WeakKeyDictionary()

#: Inside a ChannelTestCase: how many open transactions of each database alias are the test case's own.
_own_transactions: dict[str, int] = {}


def next_message(layer: BaseChannelLayer, channel: str) -> Message | None:
    """Return the next Message on `channel`, with the session of its connection, or None."""
    run_commit_hooks()
    name, content = layer.receive_many([channel])
    if name is None or content is None:
        return None
    message = Message(content, name, layer)
    reply_channel = content.get(REPLY_CHANNEL)
    if reply_channel is not None:
        message.channel_session = session_of(layer, reply_channel)
    return message


def session_of(layer: BaseChannelLayer, reply_channel: str) -> Any:
    """Return the channel session of the connection of `reply_channel`."""
    sessions = _sessions.setdefault(layer, {})
    if reply_channel not in sessions:
        sessions[reply_channel] = ChannelSession({}, reply_channel)
    return sessions[reply_channel]


def forget_session(layer: BaseChannelLayer, reply_channel: str) -> None:
    """Give the connection of `reply_channel` an empty session."""
    _sessions.get(layer, {}).pop(reply_channel, None)


def run_commit_hooks() -> None:
    """
    Send the messages that wait for a commit that never comes, because the test case rolls back.

    A ChannelTestCase calls this whenever a test reads messages outside its own transactions. Only
    hooks of this package run; those of the site don't.
    """
    for alias, own in _own_transactions.items():
        connection = connections[alias]
        if not connection.in_atomic_block or len(connection.savepoint_ids) > own:
            continue
        waiting = getattr(connection, "run_on_commit", [])
        due = [hook for hook in waiting if _is_ours(hook[1])]
        if due:
            connection.run_on_commit = [hook for hook in waiting if not _is_ours(hook[1])]
            for hook in due:
                hook[1]()


def drop_commit_hooks(hooks: Sequence[Any] | None = None) -> None:
    """
    Forget the messages that wait for a commit: all, or those of these hooks. Before a test, they are the
    messages about the rows that `setUpTestData` and fixtures made in the transaction of the class.
    """
    for connection in connections.all():
        waiting = getattr(connection, "run_on_commit", [])
        if waiting:
            connection.run_on_commit = [
                hook
                for hook in waiting
                if not _is_ours(hook[1]) or (hooks is not None and hook[1] not in hooks)
            ]


def _commit_first(layer: Any) -> None:
    """
    Send what waits for a commit before this layer does anything for the test. Otherwise a message about a
    change reaches who joined the group after it, or arrives after what was sent later.
    """
    for name in ("group_add", "group_discard", "deliver", "deliver_group"):
        setattr(layer, name, _after_hooks(getattr(layer, name)))


def _after_hooks(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        run_commit_hooks()
        return method(*args, **kwargs)

    return wrapper


def _pending() -> str:
    """Return what to do if messages wait for a commit, as the rest of a sentence."""
    hooks = [hook for each in connections.all() for hook in getattr(each, "run_on_commit", [])]
    number = sum(_is_ours(hook[1]) for hook in hooks)
    if not number:
        return ""
    return (
        ", but messages wait for the commit of a transaction (%d). Read them after its block. TestCase of "
        "Django never commits: derive the test case from ChannelTestCase." % number
    )


def _aliases(aliases: Iterable[str]) -> list[str]:
    """Return the aliases of layers, of which one may be given alone."""
    return [aliases] if isinstance(aliases, str) else list(aliases)


def _is_ours(hook: Callable[[], Any]) -> bool:
    return getattr(hook, "__module__", None) is not None and hook.__module__.startswith(_PACKAGE)


if TYPE_CHECKING:

    class _TestCase(TransactionTestCase):
        pass
else:
    _TestCase = object


class ChannelTestMixin(_TestCase):
    """Replaces channel layers by in-memory test layers, which are emptied before each test."""

    #: The aliases of the layers to replace, or one alias; None for all that are configured.
    test_channel_aliases: Iterable[str] | None = None

    _former_layers: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        # Before super(), because setUpTestData may send. Django has not overridden the settings of the
        # class yet, so look at what it is about to override.
        overridden = getattr(cls, "_overridden_settings", None) or {}
        layers = {k: v for k, v in overridden.items() if k == "CHANNEL_LAYERS"}
        cls._former_layers = {}
        with override_settings(**layers):
            aliases = cls.test_channel_aliases
            for alias in _aliases(channel_layers if aliases is None else aliases):
                layer = make_test_layer(alias)
                _commit_first(layer)
                cls._former_layers[alias] = channel_layers.set(alias, layer)
        try:
            super().setUpClass()
        except BaseException:
            cls._restore_layers()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            super().tearDownClass()
        finally:
            cls._restore_layers()

    @classmethod
    def _restore_layers(cls) -> None:
        for alias, layer in cls._former_layers.items():
            channel_layers.set(alias, layer)
        cls._former_layers = {}

    def run(self, result: Any = None) -> Any:
        # Not in setUp, because a test case that defines setUp may not call super().
        drop_commit_hooks()
        for alias in self._former_layers:
            layer = channel_layers[alias]
            layer.flush()
            _sessions.pop(layer, None)
        with self._known_transactions():
            return super().run(result)

    @contextmanager
    def _known_transactions(self) -> Iterator[None]:
        before = dict(_own_transactions)
        for connection in connections.all():
            if connection.in_atomic_block:
                _own_transactions[connection.alias] = len(connection.savepoint_ids)
        try:
            yield
        finally:
            _own_transactions.clear()
            _own_transactions.update(before)

    def get_next_message(
        self, channel: str, alias: str = DEFAULT_LAYER_ALIAS, require: bool = False
    ) -> Any:
        """
        Return the next message on `channel` as a Message, or None. With `require`, the test fails if
        there is none.
        """
        message = next_message(channel_layers[alias], channel)
        if message is None and require:
            self.fail("Expected a message on channel %s, got none%s" % (channel, _pending()))
        return message


class ChannelTestCase(ChannelTestMixin, TestCase):
    """A django.test.TestCase with in-memory test layers: each test runs in a transaction."""

    @classmethod
    @contextmanager
    def captureOnCommitCallbacks(cls, **options: Any) -> Iterator[Any]:  # noqa: N802
        """Do as in Django. A message that `execute=True` has sent is not sent once more."""
        # Django counts the hooks now, and takes those that come later: run the earlier ones first.
        run_commit_hooks()
        own, parent = dict(_own_transactions), super()  # type: Any, Any
        try:
            with parent.captureOnCommitCallbacks(**options) as callbacks:
                yield callbacks
                _own_transactions.clear()  # a hook that Django runs now must not run itself once more
        finally:
            _own_transactions.update(own)
        if options.get("execute"):
            drop_commit_hooks(callbacks)


class TransactionChannelTestCase(ChannelTestMixin, TransactionTestCase):
    """A django.test.TransactionTestCase with in-memory test layers: commits are real."""


def make_test_layer(alias: str) -> Any:
    """
    Return an in-memory layer to replace the one that CHANNEL_LAYERS configures under `alias`, also if that
    one cannot be imported here.
    """
    entry = channel_layers.configs[alias]
    if issubclass(backend_of(alias), MemoryChannelLayer):
        if "TEST_CONFIG" in entry:
            return channel_layers.make_test_backend(alias)
        return channel_layers.make_backend(alias)
    layer = MemoryChannelLayer()
    layer.alias = alias
    layer.routing = entry.get("ROUTING", [])
    layer.gateway_options = entry.get("GATEWAY")
    return layer


def backend_of(alias: str) -> type[Any]:
    """Return the class of the layer `alias`, or BaseChannelLayer if it cannot be imported."""
    try:
        return import_backend(alias, channel_layers.configs[alias])
    except InvalidChannelLayerError:
        return BaseChannelLayer


class Client:
    """
    A connection without a protocol: sends on the layer of `alias`, with its own reply channel, runs
    consumers, and receives their replies.
    """

    def __init__(self, alias: str = DEFAULT_LAYER_ALIAS) -> None:
        self.alias = alias
        warn_of_shared_layer(self.channel_layer)
        self.reply_channel: str = self.channel_layer.new_channel("test.client?")

    @property
    def channel_layer(self) -> BaseChannelLayer:
        """The layer of `alias`."""
        return channel_layers[self.alias]

    def get_next_message(self, channel: str) -> Message | None:
        """Return the next message on `channel` as a Message, or None."""
        return next_message(self.channel_layer, channel)

    def get_consumer_by_channel(self, channel: str) -> Callable[..., Any] | None:
        """Return the consumer that is routed for `channel` without filters, or None."""
        match = self.channel_layer.router.match(Message({}, channel, self.channel_layer))
        return match and match[0]

    def send(self, to: str, content: dict[str, Any] | None = None) -> None:
        """Put `content` on the channel `to`, with this client's reply channel."""
        content = dict(content or {})
        content.setdefault(REPLY_CHANNEL, self.reply_channel)
        self.channel_layer.send(to, content)

    def consume(self, channel: str, fail_on_none: bool = True) -> Any:
        """
        Run the consumer of the next message on `channel`, as a worker does. Return what it returns (of a
        class, the instance).

        The test sees what the consumer raises, except ConsumeLater, DenyConnection in
        `websocket.connect` and ChannelSocketException. With `fail_on_none`, raises AssertionError if there
        isn't a message, or a consumer for it.
        """
        message = self.get_next_message(channel)
        if message is None:
            if fail_on_none:
                raise AssertionError("There is no message on channel %s%s" % (channel, _pending()))
            return None
        match = self.channel_layer.router.match(message)
        if match is None:
            if fail_on_none:
                raise AssertionError("No route takes the message %r" % message)
            return None
        return _consume(message, *match)

    def send_and_consume(
        self, channel: str, content: dict[str, Any] | None = None, fail_on_none: bool = True
    ) -> Any:
        """Do what `send` does, then what `consume` does."""
        self.send(channel, content)
        return self.consume(channel, fail_on_none=fail_on_none)

    def receive(self) -> Any:
        """Return the content (dict) of the next reply to this client, or None."""
        message = self.get_next_message(self.reply_channel)
        return message and message.content

    def join_group(self, group_name: str) -> None:
        """Add this client to a group."""
        Group(group_name, alias=self.alias).add(self.reply_channel)


def _consume(message: Message, consumer: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """Run one consumer, deliver what it sent, and keep its session for the connection's next event."""
    layer, content = message.channel_layer, dict(message.content)
    message.is_read = False
    session = message.channel_session
    if session is not None:
        # A copy: as with a worker, only a consumer that ends in order changes the session.
        data = layer.check_message(session.snapshot())
        message.channel_session = ChannelSession(data, message[REPLY_CHANNEL])
    deliveries = _Deliveries()
    result = run_consumer(message, consumer, kwargs, _consume, send_ahead=deliveries.send_ahead)
    if result.outcome == HANDLED and session is not None:
        _keep_session(message, content[REPLY_CHANNEL])
    deliveries.deliver(result.sends)
    call_afterwards(result.afterwards)
    if result.outcome == LATER:
        layer.send(message.channel_name, content)
    error = deliveries.error if result.error is None else result.error
    if error is not None:
        try:
            raise error
        finally:
            del error, result, deliveries  # the traceback holds this frame, and so them
    return result.returned


class _Deliveries:
    """
    What one consumer sends, in order. A send that fails loses no later one: the test sees the first `error`
    at the end, as a worker logs it. An awaited send raises its own error in the consumer.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def deliver(self, sends: Sequence[PendingSend]) -> None:
        error = deliver_all(sends)
        self.error = self.error or error

    def send_ahead(self, sends: Sequence[PendingSend], last: PendingSend) -> bool:
        self.deliver(sends)
        last.deliver()
        return True


def _keep_session(message: Message, reply_channel: str) -> None:
    """Give the connection's next event the session as the consumer left it, in the form that travels."""
    snapshot = getattr(message.channel_session, "snapshot", None)
    if snapshot is not None:
        data = message.channel_layer.check_message(snapshot())
        sessions = _sessions.setdefault(message.channel_layer, {})
        sessions[reply_channel] = ChannelSession(data, reply_channel)


class apply_routes:
    """
    Route the layers of `aliases` (["default"]) by `routes`, a route or a list of them, and by nothing else.

    A context manager, and a decorator of functions, methods and test case classes.
    """

    def __init__(self, routes: Any, aliases: Any = None) -> None:
        self.routes = routes if isinstance(routes, (list, tuple, dict, str)) else [routes]
        self.aliases = _aliases(DEFAULT_LAYER_ALIAS if aliases is None else aliases)
        self._former: list[Any] = []

    def __enter__(self) -> apply_routes:
        former = []
        for alias in self.aliases:
            layer = channel_layers[alias]
            former.append((layer, layer._router))
            router = Router(self.routes)
            router.check_default()
            layer.router = router
        self._former.append(former)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for layer, router in self._former.pop():
            layer.router = router

    def __call__(self, decorated: Any) -> Any:
        if isinstance(decorated, type):
            test_case: Any = decorated
            test_case.run = self(test_case.run)
            return decorated

        @functools.wraps(decorated)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self:
                return decorated(*args, **kwargs)

        return wrapper


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__, {"ChannelTestCaseMixin": "test.base.ChannelTestMixin"})
