"""Errors whose own methods raise, wherever a site may raise them: each client is answered, no thread ends."""

import asyncio
import io
import logging
import sys
import threading
from unittest import mock

from django.channels import route, route_class
from django.channels.compat import sync_to_async
from django.channels.coroutines import in_thread
from django.channels.exceptions import (
    ChannelFull,
    ChannelSocketException,
    ConsumeLater,
    DenyConnection,
    LayerUnavailable,
    RequestAborted,
    RequestTimeout,
)
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.outbox import outbox
from django.channels.protocol import ACK, ERROR, REPLIES
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings

from .http_site import re_path
from .test_async_consumers import AsyncCase


def _raise(error):
    """Return a function that raises `error`, whatever it is called with."""

    def function(*args, **kwargs):
        raise error("of the error itself")

    return function


def _odd_classes():
    """Yield exceptions of a site whose own methods and attributes fail."""
    methods = "__bool__ __eq__ __hash__ __str__ __repr__ __len__ __getattribute__ with_traceback"
    attributes = "__class__ __traceback__ __cause__ __context__ __suppress_context__ args code"
    for base in (Exception, BaseException):
        for name in methods.split():
            yield type("Bad" + name, (base,), {name: _raise(SystemExit)})
        for name in attributes.split():
            yield type("Bad" + name, (base,), {name: property(_raise(KeyError))})
            yield type("Exits" + name, (base,), {name: property(_raise(SystemExit))})
        for pretended in (ConsumeLater, DenyConnection, ChannelSocketException, int):
            yield type("Pretends", (base,), {"__class__": pretended})
        for name in ("__name__", "__module__"):
            meta = type("Meta", (type,), {name: property(_raise(KeyError))})
            yield meta("OfBadMeta", (base,), {})
    for kind in (
        StopIteration,
        StopAsyncIteration,
        asyncio.CancelledError,
        GeneratorExit,
        SystemExit,
        KeyboardInterrupt,
        RecursionError,
    ):
        yield kind
        yield type("Own" + kind.__name__, (kind,), {"__class__": property(_raise(KeyError))})


def _loop():
    error = KeyError("one")
    error.__cause__ = ValueError("two")
    error.__cause__.__cause__ = error
    return error


def _chain():
    error = KeyError("the first")
    for number in range(3000):
        following = KeyError(number)
        following.__cause__ = error
        error = following
    return error


def _with_notes():
    error = KeyError(1)
    error.__notes__ = 7
    return error


def _in_many_groups():
    error = KeyboardInterrupt()
    for _ in range(300):
        error = BaseExceptionGroup("many", [error, KeyError(1)])  # noqa: F821
    return error


class _Text(str):
    __str__ = __repr__ = rstrip = _raise(SystemExit)


ERRORS = [_loop, _chain, _with_notes, lambda: KeyError(_Text("x")), *_odd_classes()]
if sys.version_info >= (3, 11):
    ERRORS.append(_in_many_groups)


class _Site:
    #: Makes what `fail` raises.
    error = None
    #: The coroutines that wait for a thread. What they leave is closed before their event ends.
    waiting = 0


def fail(*args, **kwargs):
    raise _Site.error()


# Consumers, by the name of their path.


def direct(message):
    message.reply_channel.send({"text": "held"})
    fail()


async def awaited(message):
    await asyncio.sleep(0)
    fail()


async def called_in_thread(message):
    _Site.waiting += 1
    try:
        await in_thread(fail)
    finally:
        _Site.waiting -= 1


async def called_by_asgiref(message):
    _Site.waiting += 1
    try:
        await sync_to_async(fail)()
    finally:
        _Site.waiting -= 1


async def in_tasks(message):
    async def task():
        fail()

    await asyncio.gather(task(), task())


class InClass(WebsocketConsumer):
    def receive(self, text=None, bytes=None, **kwargs):
        fail()


class InAsyncClass(WebsocketConsumer):
    async def receive(self, text=None, bytes=None, **kwargs):
        await asyncio.sleep(0)
        fail()


class _Ends(ChannelSocketException):
    run = fail


def in_its_exception(message):
    raise _Ends()


async def in_its_awaited_exception(message):
    raise _Ends()


def in_a_code(message):
    raise type("Denies", (DenyConnection,), {"code": property(fail)})()


CONSUMERS = [direct, awaited, called_in_thread, in_tasks, InClass, InAsyncClass]
CONSUMERS += [in_its_exception, in_its_awaited_exception, in_a_code]
if sync_to_async is not None:
    CONSUMERS.append(called_by_asgiref)


# Views.


async def view_awaited(request):
    fail()


def view_stream(request):
    def parts():
        yield "one"
        fail()

    return StreamingHttpResponse(parts())


def view_first_part(request):
    return StreamingHttpResponse(map(fail, [1]))


async def view_async_stream(request):
    async def parts():
        yield "one"
        fail()

    return StreamingHttpResponse(parts())


def view_close(request):
    response = HttpResponse("x")
    response.close = fail
    return response


def handler500(request, *args, **kwargs):
    if request.path == "/error_page":
        fail()
    return HttpResponse("sorry", status=500)


VIEWS = {
    "view": fail,
    "error_page": fail,
    "awaited": view_awaited,
    "stream": view_stream,
    "first_part": view_first_part,
    "async_stream": view_async_stream,
    "close": view_close,
}
urlpatterns = [re_path("^%s$" % name, view) for name, view in VIEWS.items()]


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], MIDDLEWARE_CLASSES=[], ALLOWED_HOSTS=["*"])
class OddErrorTests(AsyncCase):
    def setUp(self):
        super().setUp()
        routes = []
        for consumer in CONSUMERS:
            make = route_class if isinstance(consumer, type) else route
            names = [] if make is route_class else ["websocket.%s" % self.event(consumer)]
            routes.append(make(*names, consumer, path="^/%s$" % consumer.__name__))
        self.start(*routes)
        threads = mock.patch.object(threading, "excepthook", self.seen.append, create=True)
        threads.start()
        self.addCleanup(threads.stop)
        # The lines are many, and long, but they must be written.
        handler = logging.StreamHandler(io.StringIO())
        for name in ("django", "django.channels", "asyncio"):
            log = logging.getLogger(name)
            for attribute, value in (("handlers", [handler]), ("propagate", False)):
                patch = mock.patch.object(log, attribute, value)
                patch.start()
                self.addCleanup(patch.stop)
        silent = mock.patch.object(sys, "stderr", None)
        silent.start()
        _Site.waiting = 0
        self.addCleanup(silent.stop)

    @staticmethod
    def event(consumer):
        return "connect" if consumer is in_a_code else "receive"

    def check(self, client):
        """
        Check that an event is acknowledged, and by threads that live on. Return the messages to its client.
        """
        messages = [self.next(client)]
        while ACK not in messages[-1]:
            messages.append(self.next(client))
        self.assertEqual(self.seen, [])
        self.assertIsNone(outbox.pending)
        self.assertEqual(_Site.waiting, 0)
        self.assertEqual(self.layer.statistics().get("threads_restarted", 0), 0)
        return messages

    def test_each_consumer_is_answered_for(self):
        for _Site.error in ERRORS:
            for consumer in CONSUMERS:
                if sys.version_info < (3, 8) and consumer is in_tasks:
                    if not issubclass(type(_Site.error()), Exception):
                        continue  # Python 3.7 itself never resumes what awaits such a task
                with self.subTest(consumer.__name__, error=ERRORS.index(_Site.error)):
                    channel = "websocket." + self.event(consumer)
                    self.check(self.send(channel, path="/" + consumer.__name__, text="x"))

    def test_each_view_is_answered_for(self):
        for _Site.error in ERRORS:
            for name in VIEWS:
                with self.subTest(name, error=ERRORS.index(_Site.error)):
                    self.check(self.request(name))

    def test_an_error_of_this_package_that_a_view_raises_is_answered(self):
        for _Site.error in (
            ChannelFull,
            LayerUnavailable,
            RequestAborted,
            RequestTimeout,
            asyncio.CancelledError,
        ):
            for name in VIEWS:
                with self.subTest(name, error=_Site.error):
                    messages = self.check(self.request(name))
                    replies = [*messages, *(messages[-1].get(REPLIES) or ())]
                    is_whole = any(each.get("more_content") is False for each in replies)
                    self.assertTrue(is_whole or messages[-1].get(ERROR), "no answer")

    def request(self, name):
        return self.send("http.request", path="/" + name, method="GET", query_string=b"", body=b"")
