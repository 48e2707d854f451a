"""
A site's workers behind a WSGI server: each request crosses the channel layer, and the response is streamed.

The gateway does the work, as it does behind an ASGI server. It runs on the event loop of the thread
"channels-wsgi". The thread of the WSGI server that has a request serves its gateway: it reads the body when
asked, and passes the response on.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator

from ..asgi import DEFAULT_LAYER_ALIAS, get_channel_layer
from ..log import shown
from .environ import body_length, scope_of, status_line, wsgi_headers

if TYPE_CHECKING:
    from ..layers.base import BaseChannelLayer

logger = logging.getLogger("django.channels.gateway")

#: Seconds in which the workers have to begin a response, unless the caller says otherwise.
TIMEOUT = 60.0

#: Bytes of a body that the worker is given another second for, because it reads them before it responds.
BYTES_PER_SECOND = 1024 * 1024

#: Seconds that `close` waits for requests.
CLOSE_TIMEOUT = 10.0

#: Bytes of a body that are read from the server at a time.
READ_SIZE = 64 * 1024

_TIMEOUT_PAGE = b"<!doctype html><title>Gateway Timeout (504)</title><h1>Gateway Timeout (504)</h1>"

StartResponse = Callable[..., Any]


def get_wsgi_application(
    alias: str = DEFAULT_LAYER_ALIAS, timeout: float = TIMEOUT
) -> LayerApplication:
    """
    Set Django up, and return a WSGI application whose requests the workers of a channel layer answer.

    For a project's wsgi.py, in the place of Django's function of this name. `timeout` is in seconds.
    """
    return LayerApplication(get_channel_layer(alias), timeout)


class LayerApplication:
    """
    A WSGI application that sends each request over `layer`. Thread-safe, also when a server forks.

    If no worker begins the response within `timeout` seconds of the whole request, the client gets a 504. A
    large body adds a second for each `BYTES_PER_SECOND`.
    """

    def __init__(self, layer: BaseChannelLayer, timeout: float = TIMEOUT) -> None:
        self.layer = layer
        self.timeout = timeout
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        loop = self._running_loop()
        exchange = Exchange(loop, environ, self.timeout)
        serving = asyncio.run_coroutine_threadsafe(
            self.layer(exchange.scope, exchange.receive, exchange.send), loop
        )
        serving.add_done_callback(exchange.served)
        try:
            status, headers = exchange.head()
            start_response(status, headers)
        except BaseException:
            exchange.close()  # the server gets nothing that it could close
            raise
        return exchange

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._run, args=(self._loop,), name="channels-wsgi", daemon=True
                ).start()
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    def close(self) -> None:
        """
        Leave the layer after the requests of this process. The next request starts again.

        You need not call it: a process that ends leaves its layers.
        """
        with self._lock:
            loop, self._loop = self._loop, None
        # A child process inherits what is registered, but not the thread.
        if loop is None or self._pid != os.getpid():
            return

        async def stop() -> None:
            await self.layer.gateway.stop()

        try:
            asyncio.run_coroutine_threadsafe(stop(), loop).result(CLOSE_TIMEOUT)
        except Exception:
            logger.exception("The gateway of %s did not end in order.", type(self).__name__)
        loop.call_soon_threadsafe(loop.stop)


class Exchange:
    """
    One request between the thread of a WSGI server and the event loop of the gateway.

    `receive`, `send` and `_abort` run in the loop. The other methods run in the server's thread, which does
    what the loop asks it to, and is the result of the application, too: an iterator of the content.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, environ: dict[str, Any], timeout: float
    ) -> None:
        self.scope = scope_of(environ)
        self._loop = loop
        self._timeout = timeout
        self._input = environ["wsgi.input"]
        self._length = body_length(environ)
        self._left = self._length
        self._size = 0  # bytes of the body so far
        self._asked: queue.Queue[Callable[[], None]] = queue.Queue()
        self._deadline: float | None = None
        self._start: dict[str, Any] | None = None
        self._content: bytes | None = None
        self._finished = False  # no more content comes
        self._broken = False  # the response ends before its end
        self._aborted = False
        self._read_all = False
        self._gone: asyncio.Future[None] | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    # In the loop.

    async def receive(self) -> dict[str, Any]:
        """Return the next part of the body; after the last one, wait for the client's end."""
        if not self._read_all and not self._aborted:
            event: dict[str, Any] = await self._ask(self._read)
            self._read_all = not event.get("more_body")
            return event
        if not self._aborted:
            self._gone = self._loop.create_future()
            await self._gone
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        """Pass on a part of the response. Return when the server wants the next one."""
        if self._aborted:
            raise OSError("The client has gone.")
        await self._ask(functools.partial(self._pass_on, event))

    async def _ask(self, call: Callable[[], Any]) -> Any:
        """Have the thread call `call()`, and return what it returns."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(future)

        def settle(result: Any, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        def carry_out() -> None:
            result, problem = None, None
            try:
                result = call()
            except Exception as error:
                problem = error
            self._loop.call_soon_threadsafe(settle, result, problem)

        self._asked.put(carry_out)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def _abort(self) -> None:
        self._aborted = True
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(OSError("The client has gone."))
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # In the thread of the server.

    def served(self, serving: Any) -> None:
        """Take in that the gateway has ended. (Called in the loop.)"""
        failed = not serving.cancelled() and serving.exception() is not None
        if failed:
            logger.error(
                "The request %s failed:", shown(self.scope["path"]), exc_info=serving.exception()
            )

        def end() -> None:
            if not self._finished:
                self._finished = self._broken = True

        self._asked.put(end)

    def head(self) -> tuple[str, list[tuple[str, str]]]:
        """Return the status and the headers, when they have come; those of a 504 if they haven't."""
        while self._start is None and not self._finished:
            if not self._step():
                logger.warning(
                    "%s was answered with 504, because no worker began a response within %g seconds.",
                    shown(self.scope["path"]),
                    self._timeout,
                )
                return self._own_page(504, _TIMEOUT_PAGE)
        if self._start is None:
            return self._own_page(500, b"<!doctype html><title>Server Error (500)</title>")
        status: int = self._start["status"]
        return status_line(status), wsgi_headers(status, self._start["headers"])

    def _own_page(self, status: int, page: bytes) -> tuple[str, list[tuple[str, str]]]:
        self.close()
        self._finished, self._broken = True, False
        self._content = page
        return status_line(status), [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
        ]

    def _step(self) -> bool:
        """Do the next thing that the loop asks for. Return False after the timeout."""
        remaining = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            call = self._asked.get(timeout=remaining)
        except queue.Empty:
            return False
        call()
        return True

    def _read(self) -> dict[str, Any]:
        size = READ_SIZE if self._left is None else min(READ_SIZE, self._left)
        try:
            data = self._input.read(size) if size else b""
        except OSError:
            return {"type": "http.disconnect"}
        self._size += len(data)
        if self._left is None:
            more = bool(data)
        else:
            self._left -= len(data)
            more = self._left > 0
            if more and not data:
                return {"type": "http.disconnect"}
        if not more:
            self._timeout += self._size / BYTES_PER_SECOND
            self._deadline = time.monotonic() + self._timeout
        return {"type": "http.request", "body": data, "more_body": more}

    def _pass_on(self, event: dict[str, Any]) -> None:
        self._deadline = None
        if event["type"] == "http.response.start":
            self._start = event
        else:
            self._content = event.get("body", b"")
            self._finished = not event.get("more_body")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while True:
            content, self._content = self._content, None
            if content:
                return content
            if self._broken:
                # The server ends the connection, so that the client can tell.
                raise OSError("The response to %s broke off." % shown(self.scope["path"]))
            if self._finished:
                raise StopIteration
            self._step()

    def close(self) -> None:
        """End the request, if it isn't over: the server has called this because its client has gone."""
        if not self._aborted:
            self._loop.call_soon_threadsafe(self._abort)
