"""
The site's WSGI or ASGI application in the process of the server, for HTTP: `get_channel_layer(http=…)`.

Requests then don't use the layer; WebSockets do.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NoReturn

from ..gateway.http import head_problem, response_content, response_start
from ..gateway.length import TOO_SHORT, Length
from ..gateway.scopes import request_event
from ..handler import AsgiRequest
from ..log import shown
from ..transactions import end_opened, open_here
from .consumer import Run, WSGICallable
from .environ import environ_of

if TYPE_CHECKING:
    from ..gateway.connection import ServerSend
    from ..gateway.upload import Upload

logger = logging.getLogger("django.channels.gateway")

#: Requests that run at the same time, and others wait. Each has a thread.
THREADS = 8

#: Bytes of one response that may wait for the client while the application goes on.
MAX_WAITING = 1024 * 1024


class WSGIRunner:
    """
    Runs a WSGI application in its own threads, for the gateway of one event loop.

    The body of a request is gathered before the application runs, so that slow uploads hold no thread. A
    response may be MAX_WAITING bytes ahead of its client; beyond that it holds its thread.
    """

    def __init__(self, application: WSGICallable, threads: int = THREADS) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="channels-http")

    def close(self) -> None:
        """End the threads, each after its request."""
        self._threads.shutdown(wait=False)

    async def __call__(
        self, scope: Mapping[str, Any], upload: Upload, first: bytes, send: ServerSend
    ) -> None:
        """Answer the request of `scope`, whose body is in `first` and `upload`."""
        upload.watch()
        response = _Response(asyncio.get_event_loop(), upload)
        message = dict(request_event(scope), body=first)
        running = response.loop.run_in_executor(
            self._threads, functools.partial(self._run, message, response)
        )
        try:
            while True:
                event = await response.next()
                if event is None:
                    _break_off(send)
                await send(event)
                if event["type"] == "http.response.body" and not event["more_body"]:
                    break
        except OSError:
            pass  # the client has gone
        finally:
            response.end()
            await running

    def _run(self, message: dict[str, Any], response: _Response) -> None:
        """Run the application. In a thread."""
        opened_before = open_here()
        try:
            request = AsgiRequest(message, response.body())
            run = Run(self._application, environ_of(request))
            try:
                _pass_on(run, message, response)
            finally:
                run.close()
        except _Gone:
            pass
        except BaseException:  # a SystemExit would end the server, with all its sockets
            logger.exception("The HTTP application failed on %s:", shown(message["path"]))
            response.fail()
        end_opened(opened_before, lambda: "The HTTP application")


def _pass_on(run: Run, message: dict[str, Any], response: _Response) -> None:
    """
    Put into `response` what the application answers to `message`. It keeps the rules for replies of workers.

    Raises RuntimeError for a response that breaks them.
    """
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in run.headers
    ]
    problem = head_problem({"status": run.code, "headers": headers})
    if problem:
        raise RuntimeError("The response " + problem)
    length = Length(message["method"], run.code, headers)
    start: Any = response_start(run.code, headers)
    for part in itertools.chain(run, [None]):
        content, more, problem = length.fit(part or b"", part is not None)
        if problem is TOO_SHORT:
            raise RuntimeError("The response is shorter than its Content-Length.")
        if problem:
            logger.error(problem, shown(message["path"]))
        if start is not None:
            response.put(start)
            start = None
        if content or not more:
            response.put(response_content(content, more))
        if not more:
            break


def _break_off(send: Any) -> NoReturn:
    """End the connection in the middle of a response. Raises: servers break off by themselves then."""
    if hasattr(send, "cut"):
        send.cut()
        raise OSError("The connection was cut.")
    raise RuntimeError("The HTTP application failed after its response had begun.")


class _Gone(Exception):
    """The client of a request has gone."""


class _Response:
    """
    What an application has given and the server has not taken yet, as events of ASGI.

    `put`, `fail` and `body` are for the application's thread, `next` and `end` for the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, upload: Upload) -> None:
        self.loop = loop
        self._upload = upload
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._changed = threading.Condition()
        self._waiting = 0
        self._begun = self._ended = False

    def _put(self, event: dict[str, Any] | None) -> None:
        self.loop.call_soon_threadsafe(self._events.put_nowait, event)

    def put(self, event: dict[str, Any]) -> None:
        """Add `event`. Wait while too much is waiting. Raises _Gone when the client has gone."""
        with self._changed:
            while self._waiting > MAX_WAITING and not self._ended:
                self._changed.wait()
            if self._ended:
                raise _Gone()
            self._begun = True
            self._waiting += len(event.get("body", b""))
        self._put(event)

    def fail(self) -> None:
        """Answer with a 500, or break the response off."""
        if not self._begun:
            headers = [(b"content-type", b"text/html; charset=utf-8")]
            self._put({"type": "http.response.start", "status": 500, "headers": headers})
            page = b"<!doctype html><title>Server Error (500)</title><h1>Server Error (500)</h1>"
            self._put({"type": "http.response.body", "body": page, "more_body": False})
        else:
            self._put(None)

    def body(self) -> Iterator[bytes]:
        """Yield what follows of the request's body."""
        while True:
            part: bytes = asyncio.run_coroutine_threadsafe(
                self._upload.next_part(), self.loop
            ).result()
            if not part:
                return
            yield part

    def end(self) -> None:
        """Have the thread stop: nothing more is taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def next(self) -> dict[str, Any] | None:
        """
        Return the next event. None: the response breaks off. Raises OSError when the client has gone.
        """
        getting = asyncio.ensure_future(self._events.get())
        gone = asyncio.ensure_future(self._upload.wait_until_gone())
        try:
            await asyncio.wait({getting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                raise OSError("The client has gone.")
            event = getting.result()
        finally:
            getting.cancel()
            gone.cancel()
        with self._changed:
            self._waiting -= len(event.get("body", b"")) if event else 0
            self._changed.notify_all()
        return event
