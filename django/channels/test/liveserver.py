"""
A real Daphne and real workers for tests: browsers and WebSocket clients connect to the site under test.

They run in threads of the test process, against the test database. Daphne's event loop can be
started once in a process, so one server (and one port) serves every test case in turn.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Iterator

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import TransactionTestCase, modify_settings

from ..asgi import DEFAULT_LAYER_ALIAS, channel_layers
from ..backends import InvalidChannelLayerError, import_backend
from ..routing import Router
from ..signals import consumer_started
from ..worker import WorkerGroup
from .base import make_test_layer

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer

#: Seconds that the server gets to listen, and a test's connections get to end.
TIMEOUT = 30.0


class ChannelLiveServerTestCase(TransactionTestCase):
    """
    A TransactionTestCase with a server: `live_server_url` and `live_server_ws_url` lead to it.

    Every test begins with an empty channel layer and no connection. A layer that crosses processes is
    made by its TEST_CONFIG, without which ImproperlyConfigured is raised; one in memory needs none.
    A database in memory has one connection, which tests and consumers share, so consumers then run
    one at a time, and a test should wait for their effect before it looks into the database.
    """

    #: The host name in the URLs. It must be an address of this machine.
    host = "localhost"

    #: Whether static files are served too, if the app django.contrib.staticfiles is installed.
    serve_static = True

    #: How many worker threads to run.
    threads = 4

    live_server_url: str | None = None
    live_server_ws_url: str | None = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # After Django has overridden the settings of the class, because they may include ALLOWED_HOSTS.
        cls._allowed_hosts = modify_settings(ALLOWED_HOSTS={"append": cls.host})
        cls._allowed_hosts.enable()
        try:
            for alias in channel_layers:
                _make_layer(alias)  # what the settings lack is said here, once
            address = "%s:%d" % (cls.host, server.listen(socket.gethostbyname(cls.host)))
            cls.live_server_url = "http://" + address
            cls.live_server_ws_url = "ws://" + address
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls._allowed_hosts.disable()
        super().tearDownClass()

    def run(self, result: Any = None) -> Any:
        # Not in setUp, so that a test case need not call super().setUp(); and inside what Django
        # does around a test, so that no consumer runs any more when it empties the database.
        try:
            with _site(self):
                return super().run(result)
        except Exception:
            if result is None:
                raise
            # The site could not be started or ended: an error of this test, not of the whole run.
            result.addError(self, sys.exc_info())
            return result


@contextmanager
def _site(case: ChannelLiveServerTestCase) -> Iterator[None]:
    """Provide what one test has: its layers, workers and shared connections."""
    with ExitStack() as stack:
        shared = [each for each in connections.all() if _in_memory(each)]
        for each in shared:
            _share(each, True)
            stack.callback(_share, each, False)

        def use_shared(**kwargs: Any) -> None:
            """Share the connections in a worker thread, because a new one would see another database."""
            for each in shared:
                connections[each.alias] = each

        if shared:
            consumer_started.connect(use_shared)
            stack.callback(consumer_started.disconnect, use_shared)
        for alias in channel_layers:
            layer = _make_layer(alias)
            if hasattr(
                layer, "close"
            ):  # a test runner can drop its database only when no client is connected
                stack.callback(layer.close)
            stack.callback(channel_layers.set, alias, channel_layers.set(alias, layer))
        layer = channel_layers[DEFAULT_LAYER_ALIAS]
        if layer.crosses_processes:
            layer.flush()
        if case.serve_static and "django.contrib.staticfiles" in settings.INSTALLED_APPS:
            from ..staticfiles import StaticFilesConsumer

            router = Router([] if layer.routing is None else layer.routing)
            router.check_default(http_consumer=StaticFilesConsumer())
            layer.router = router
        threads = 1 if shared else case.threads
        if layer.crosses_processes:
            workers = WorkerGroup(layer, threads=threads)
            stack.callback(workers.stop, TIMEOUT)
            workers.start()
        else:
            layer.threads = threads  # the gateway starts them
        server.serve(layer)
        stack.callback(server.end)
        yield


def _make_layer(alias: str) -> Any:
    """
    Return a layer for a test. Raises ImproperlyConfigured for one with a server but no TEST_CONFIG. One
    besides the default that cannot be imported here is replaced by one in memory.
    """
    try:
        layer_class = import_backend(alias, channel_layers.configs[alias])
    except InvalidChannelLayerError:
        if alias == DEFAULT_LAYER_ALIAS:
            raise
        return make_test_layer(alias)
    if layer_class.crosses_processes:
        return channel_layers.make_test_backend(alias)
    return make_test_layer(alias)


def _in_memory(connection: Any) -> bool:
    name = str(connection.settings_dict["NAME"])
    return connection.vendor == "sqlite" and (name == ":memory:" or "mode=memory" in name)


def _is_old(connection: Any) -> bool:
    return not hasattr(connection, "inc_thread_sharing")


def _share(connection: Any, shared: bool) -> None:
    """Let other threads use `connection`, or no longer."""
    if _is_old(connection):
        connection.allow_thread_sharing = shared
    elif shared:
        connection.inc_thread_sharing()
    else:
        connection.dec_thread_sharing()


class _Server:
    """Daphne in a daemon thread; what it serves is set by `serve`, for one test at a time."""

    def __init__(self) -> None:
        self.address: str | None = None
        self.port: int | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.layer: BaseChannelLayer | None = None
        self.sends: set[Any] = set()
        self.error: BaseException | None = None
        self.listening = threading.Event()

    def listen(self, address: str) -> int:
        """Start it on `address` (an IP address) unless it runs; return its port."""
        if self.address is None:
            try:
                from daphne.server import Server
            except ImportError as error:
                raise ImproperlyConfigured(
                    "ChannelLiveServerTestCase needs Daphne: install it with pip install daphne."
                ) from error
            thread = threading.Thread(
                target=self._run, args=(Server, address), name="channels-live-server", daemon=True
            )
            thread.start()
            self.listening.wait(TIMEOUT)
            self.address = None if self.port is None else address
        if self.port is None:
            raise self.error or RuntimeError("Daphne did not start to listen.")
        if address != self.address:
            raise ImproperlyConfigured(
                "One server serves all tests of a process, and it listens on %s: every test case "
                "must have a host of that address." % self.address
            )
        return self.port

    def _run(self, server_class: Any, address: str) -> None:
        outer = self

        class Server(server_class):
            def listen_success(self, port: Any) -> None:
                outer.port = port.getHost().port
                outer.listening.set()

            def listen_error(self, failure: Any) -> None:
                outer.error = failure.value
                outer.listening.set()

        try:
            Server(
                application=self.application,
                endpoints=["tcp:port=0:interface=%s" % address],
                signal_handlers=False,
                verbosity=0,
            ).run()
        except BaseException as error:
            self.error = error
            self.listening.set()

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        """Be an ASGI 3 application: the layer of the running test."""
        self.loop = asyncio.get_event_loop()
        layer = self.layer
        if layer is None:
            return await _unavailable(scope, receive, send)
        if scope["type"] == "websocket":
            self.sends.add(send)
        try:
            await layer(scope, receive, send)
        finally:
            self.sends.discard(send)

    def serve(self, layer: BaseChannelLayer) -> None:
        """Serve `layer` from now on."""
        self.layer = layer

    def end(self) -> None:
        """Close what the test has left open, and wait until its consumers have ended."""
        layer, self.layer = self.layer, None
        if self.loop is not None and layer is not None and self.loop in layer._gateways:
            asyncio.run_coroutine_threadsafe(self._end(layer), self.loop).result(TIMEOUT)

    async def _end(self, layer: BaseChannelLayer) -> None:
        for send in list(self.sends):
            await send({"type": "websocket.close", "code": 1000})
        await layer.gateway.stop()


async def _unavailable(scope: Any, receive: Any, send: Any) -> None:
    """Answer requests that arrive between two tests, for example from a browser that is still open."""
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"No test is running."})


#: The server of this process, not started before a test case needs it.
server = _Server()
