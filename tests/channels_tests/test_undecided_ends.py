"""
How a handshake ends that its own consumer refuses, fails on, or leaves to other code, which sends meanwhile.

Nothing of what the others send reaches a client that is refused.
"""

import asyncio
import logging
import unittest

from django.channels import Group
from django.channels.exceptions import (
    ChannelSocketException,
    ConsumeLater,
    DenyConnection,
    ResponseLater,
    WebsocketCloseException,
)
from django.channels.generic.async_websockets import (
    AsyncWebsocketConsumer,
    AsyncWebsocketDemultiplexer,
)
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
)
from django.http import HttpResponse
from django.test import Client as WSGIClient
from django.test import override_settings

from . import http_site
from .test_undecided import (
    MESSAGES,
    ROADS,
    SESSION,
    MemoryLayer,
    SQLiteLayer,
    UndecidedCase,
    code_after_acceptance,
    group,
)

ACCEPT = {"type": "websocket.accept"}


def always(value):
    """Return a function that returns `value`, whatever its arguments are."""
    return lambda *args: value


def closed(code=1000):
    return {"type": "websocket.close", "code": code}


def sends(*replies, **options):
    """Return a consumer that sends `replies` to its client."""

    def end(message):
        for each in replies:
            message.reply_channel.send(each, **options)

    return end


def raises(error, *replies, **options):
    """Return a consumer that sends `replies`, and then raises `error`."""

    def end(message):
        sends(*replies, **options)(message)
        raise error

    return end


class Anything(BaseException):
    pass


class Quiet(ChannelSocketException):
    def run(self, message):
        message.reply_channel.send({"close": 4400})


#: A name, how the own consumer ends, what is written, and the code of the disconnect event, or None.
REFUSALS = [
    ("close", sends({"close": True}), [closed()], None),
    ("close at once", sends({"close": 4403}, immediately=True), [closed()], None),
    ("accept False", sends({"accept": False}), [closed()], None),
    ("both in one", sends({"accept": True, "close": 4403}), [closed()], None),
    ("one after the other", sends({"accept": True}, {"close": 4403}), [ACCEPT, closed(4403)], 4403),
    ("DenyConnection", raises(DenyConnection(), {"accept": True}), [closed()], None),
    ("DenyConnection with code", raises(DenyConnection(code=4401)), [ACCEPT, closed(4401)], 4401),
    ("WebsocketCloseException", raises(WebsocketCloseException(4402)), [closed()], None),
    ("another answer", raises(Quiet()), [closed()], None),
]

FAILURES = [
    ("raises", raises(ValueError("x")), [closed(1011)], 1011),
    ("raises ResponseLater", raises(ResponseLater()), [closed(1011)], 1011),
    ("raises SystemExit", raises(SystemExit(3)), [closed(1011)], 1011),
    ("raises CancelledError", raises(asyncio.CancelledError()), [closed(1011)], 1011),
    ("raises another BaseException", raises(Anything()), [closed(1011)], 1011),
    ("accepts, raises", raises(Anything(), {"accept": True}), [ACCEPT, closed(1011)], 1011),
    ("always later", raises(ConsumeLater(), {"accept": True}), [closed(1011)], 1011),
]


def later(consumer):
    """Return `consumer` as an asynchronous one, which sends without `await`."""

    async def end(message):
        consumer(message)

    return end


def asends(*replies):
    async def end(message):
        for each in replies:
            await message.reply_channel.asend(each)

    return end


ASYNC_REFUSALS = [
    (name, later(end), *rest) for name, end, *rest in REFUSALS if name != "close at once"
]
ASYNC_REFUSALS += [("asend", asends({"close": 4403}), [closed()], None)]
ASYNC_FAILURES = [
    (name, later(end), *rest) for name, end, *rest in FAILURES if "Cancelled" not in name
]


class Plain(WebsocketConsumer):
    def connect(self, message, **kwargs):
        self.close(4403)


class Denies(WebsocketConsumer):
    def connect(self, message, **kwargs):
        self.accept()
        self.deny(4403)


class Awaits(AsyncWebsocketConsumer):
    async def connect(self, message, **kwargs):
        await self.close(4403)


class AwaitsAndDenies(AsyncWebsocketConsumer):
    async def connect(self, message, **kwargs):
        self.deny(4403)


class Stream(JsonWebsocketConsumer):
    pass


class Streams(WebsocketDemultiplexer):
    consumers = {"one": Plain, "two": Stream}


class LateStreams(WebsocketDemultiplexer):
    consumers = {"one": Stream, "two": Plain}


class AsyncStreams(AsyncWebsocketDemultiplexer):
    consumers = {"one": Stream, "two": AwaitsAndDenies}


CLASS_REFUSALS = [
    ("a class", Plain, [closed()], None),
    ("a class denies", Denies, [ACCEPT, closed(4403)], 4403),
    ("an asynchronous class", Awaits, [closed()], None),
    ("an asynchronous class denies", AwaitsAndDenies, [ACCEPT, closed(4403)], 4403),
    ("a demultiplexer", Streams, [closed()], None),
    ("a demultiplexer accepts, denies", LateStreams, [ACCEPT, closed(4403)], 4403),
    ("an asynchronous demultiplexer", AsyncStreams, [ACCEPT, closed(4403)], 4403),
]


def see(request, send):
    """The site's only view."""
    send()
    return HttpResponse("seen")


def view(case, client, content):
    """A view that WSGI or Django's test client runs."""
    urls = [http_site.re_path("", see, {"send": lambda: case.channel(client).send(content)})]
    site = type("URLconf", (), {"urlpatterns": urls})
    with override_settings(ROOT_URLCONF=site):
        WSGIClient().get("/")


ALL_ROADS = [*ROADS, group, view]


class Ends(UndecidedCase):
    def setUp(self):
        super().setUp()
        logging.disable(logging.CRITICAL)  # thousands of tracebacks
        self.addCleanup(logging.disable, logging.NOTSET)

    def check_ends(self, ends, session=SESSION):
        for number, (name, end, wanted, code) in enumerate(ends):
            # A part of them: by which road a message came no longer matters once it has arrived.
            roads, messages = ALL_ROADS[number % 3 :: 3], MESSAGES[number % 2 :: 2]
            with self.subTest(end=name):
                self.check(roads, messages, end, always(wanted), always(code), session)

    def test_nothing_of_others_reaches_a_client_that_is_refused(self):
        self.check_ends(REFUSALS)

    def test_nothing_of_others_reaches_a_client_whose_consumer_fails(self):
        self.check_ends(FAILURES, session={})

    def test_nothing_of_others_reaches_a_client_that_an_asynchronous_consumer_refuses(self):
        self.check_ends(ASYNC_REFUSALS)

    def test_nothing_of_others_reaches_a_client_whose_asynchronous_consumer_fails(self):
        self.check_ends(ASYNC_FAILURES, session={})

    def test_nothing_of_others_reaches_a_client_that_a_class_refuses(self):
        self.check_ends(CLASS_REFUSALS)

    def test_a_send_to_a_group_in_between_lets_nothing_of_others_through(self):
        error, text = ValueError("x"), {"type": "websocket.send", "text": "own"}
        for name, replies, raised, wanted in (
            ("closes", [{"accept": True}, {"close": 4403}], None, [ACCEPT, closed(4403)]),
            ("raises", [{"accept": True}], error, [ACCEPT, closed(1011)]),
            ("data", [{"text": "own"}, {"close": True}], None, [ACCEPT, text, closed()]),
            ("data, raises", [{"text": "own"}], error, [ACCEPT, text, closed(1011)]),
        ):

            def end(message):
                room = Group("room", channel_layer=self.layer)
                message.reply_channel.send(replies[0])  # noqa: B023
                room.send({"text": "to the room"})
                self.channel("work").send({"what": "else"})
                for each in replies[1:]:  # noqa: B023
                    message.reply_channel.send(each)
                    room.send({"text": "to the room"})
                if raised:  # noqa: B023
                    raise raised  # noqa: B023

            ends = [(name, end, wanted, wanted[-1]["code"])]
            session = {} if raised else SESSION
            with self.subTest(end=name):
                self.check_ends(ends, session)
                self.check_ends([(name, later(end), wanted, wanted[-1]["code"])], session)

    def test_other_code_answers_with_accept_or_close_if_the_consumer_does_not(self):
        def wanted(road, message):
            if road is group or not ("accept" in message or "close" in message):
                return []
            if message.get("accept") is False or (message.get("close") and "text" not in message):
                return [closed()]
            chosen = {"subprotocol": message["subprotocol"]} if "subprotocol" in message else {}
            return [dict(ACCEPT, **chosen)] + self.after_acceptance(road, message)[1:]

        def code(road, message):
            wanted_here = wanted(road, message)
            if wanted_here == [closed()]:
                return None
            return wanted_here[-1].get("code", 1001) if wanted_here else 1001

        self.check(ALL_ROADS, MESSAGES, lambda message: None, wanted, code)

    def test_what_others_send_waits_while_the_consumer_begins_again(self):
        def end(message):
            if len(self.clients) == 1:
                raise ConsumeLater()
            message.reply_channel.send({"accept": True, "subprotocol": "one"})

        self.check(ALL_ROADS, MESSAGES, end, self.after_acceptance, code_after_acceptance)

    def test_a_consumer_that_the_handshake_was_handed_to_answers(self):
        for answer, answered, code in (
            ({"accept": True, "subprotocol": "one"}, None, 1001),
            ({"close": True}, [closed()], None),
            ({"accept": False}, [closed()], None),
        ):

            def end(message):
                handed = {"to": message.reply_channel.name, "what": answer}  # noqa: B023
                self.channel("work").send(handed)

            def expected(road, message):
                return answered or self.after_acceptance(road, message)  # noqa: B023

            data = [{"text": "other"}, {"bytes": b"other"}]
            with self.subTest(answer=answer):
                self.check(ALL_ROADS, data, end, expected, always(code))


class MemoryTests(MemoryLayer, Ends, unittest.TestCase):
    pass


class SQLiteTests(SQLiteLayer, Ends, unittest.TestCase):
    pass
