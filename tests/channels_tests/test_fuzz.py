"""
Random input for everything that reads what clients or the site send. Only documented exceptions come out.

`make test` runs the same examples each time; `make fuzz` runs others, for a minute in each test.
"""

import asyncio
import json
import math
import unittest

from django.channels import Channel, Group, include, protocol, route
from django.channels.compat import get_script_prefix, set_script_prefix
from django.channels.exceptions import (
    BadFrame,
    InvalidChannelName,
    InvalidMessage,
    MessageTooLarge,
)
from django.channels.gateway.headers import has_one_end
from django.channels.gateway.http import Request
from django.channels.gateway.limits import Limits, check_head
from django.channels.gateway.scopes import connect_event, request_event
from django.channels.gateway.websocket import WebSocket
from django.channels.generic.websockets import JsonWebsocketConsumer, WebsocketDemultiplexer
from django.channels.handler import ASGIHandler, ASGIRequest
from django.channels.layers.engine import codec
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.layers.messages import clean
from django.channels.layers.names import check_channel_name, check_group_name
from django.channels.log import shown
from django.channels.message import Message
from django.channels.routing import Router
from django.channels.security.origins import Origin, explain
from django.channels.security.websockets import allowed_hosts_only, origin_allowed
from django.channels.sessions import ChannelSession
from django.core import exceptions
from django.core.exceptions import SuspiciousOperation
from django.http import HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException
from django.test import SimpleTestCase, override_settings

from .support import fuzz
from .support.fuzz import FuzzMixin
from .support.waiting import TIMEOUT

try:
    from asgi_redis.codec import Codec as RedisCodec
    from asgi_redis.codec import EncryptingCodec
    from asgi_redis.contract import Unreadable as RedisUnreadable
except ImportError:
    RedisCodec = None

if fuzz.hypothesis is not None:
    from hypothesis import strategies as st


def same(one, other):
    """Return whether both are equal, NaN and the sign of zero included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or repr(one) == repr(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def nested(depth, kind=list):
    """Return a value that is `depth` levels deep."""
    value = []
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


class CodecTests(FuzzMixin, unittest.TestCase):
    def test_clean_copies_a_message_or_names_what_is_wrong(self):
        def check(message):
            try:
                copy = clean(message)
            except (InvalidMessage, MessageTooLarge):
                return
            self.assertTrue(same(clean(copy), copy))
            self.assertTrue(same(codec.decode(codec.encode(copy)), copy))

        self.fuzz(check, st.one_of(fuzz.messages, fuzz.values))
        loop = []
        loop.append(loop)
        for value in (nested(100000), nested(100000, dict), loop):
            with self.assertRaises(InvalidMessage):
                clean({"a": value})
        self.assertTrue(same(clean({"a": nested(199)}), {"a": nested(199)}))

    def test_the_codec_of_the_database_gives_back_each_clean_message(self):
        def check(message):
            text = codec.encode(message)
            self.assertTrue(text.isascii())
            self.assertTrue(same(codec.decode(text), message), text)

        self.fuzz(check, fuzz.clean_messages)
        self.fuzz(
            lambda text: check({"\0": text, "\0\0": b"x"}),
            fuzz.clean_values if fuzz.hypothesis else None,
        )

    def test_the_codec_of_the_database_refuses_what_it_did_not_write(self):
        def check(text):
            try:
                codec.decode(text)
            except (ValueError, TypeError, KeyError, RecursionError):
                pass  # what TransactionStore.decode makes Unreadable

        self.fuzz(check, st.one_of(fuzz.text, fuzz.json_values.map(json.dumps)))
        self.fuzz(lambda value: check('{"\\u0000": %s}' % json.dumps(value)), fuzz.json_values)
        check("[" * 100000)


@unittest.skipIf(RedisCodec is None, "asgi_redis is not installed here")
class RedisCodecTests(FuzzMixin, unittest.TestCase):
    def codecs(self):
        yield RedisCodec()
        try:
            yield EncryptingCodec(["0123456789abcdefghijklmnopqrstuvwxyz"], "")
        except ImportError:
            pass

    def test_each_clean_message_comes_back(self):
        for each in self.codecs():

            def check(message, each=each):
                packed = each.pack(message, b"channel")
                self.assertTrue(same(each.unpack(packed, b"channel"), message))

            self.fuzz(check, fuzz.clean_messages)

    def test_anything_else_is_unreadable(self):
        for each in self.codecs():

            def check(payload, each=each):
                try:
                    self.assertIsInstance(each.unpack(payload, b"channel"), dict)
                except RedisUnreadable:
                    pass

            payloads = st.one_of(
                st.binary(max_size=100),
                st.binary(max_size=100).map(lambda some: b"\xc1" + some),
                fuzz.clean_values.map(lambda value: RedisCodec().pack(value)),
            )
            self.fuzz(check, payloads)
            check(b"\x91" * 100000)
            check(b"\x81\xa1a" * 100000)

    def test_a_changed_entry_is_unreadable_if_it_is_encrypted(self):
        for each in list(self.codecs())[1:]:

            def check(message, place, value, each=each):
                packed = bytearray(each.pack(message, b"channel"))
                packed[place % len(packed)] ^= value
                with self.assertRaises(RedisUnreadable):
                    each.unpack(bytes(packed), b"channel")

            self.fuzz(check, fuzz.clean_messages, st.integers(0, 10000), st.integers(1, 255))


class NameTests(FuzzMixin, unittest.TestCase):
    def test_a_name_passes_or_is_refused_as_one(self):
        def check(name):
            for function in (check_channel_name, check_group_name, Group, Channel):
                try:
                    function(name)
                except (InvalidChannelName, ValueError, TypeError) as error:
                    # Channel(None) and the like are told in their own words.
                    self.assertIsInstance(error, (InvalidChannelName, ValueError), repr(name))
                    self.assertLess(len(str(error)), 1000)

        self.fuzz(check, st.one_of(fuzz.text, fuzz.values))
        check("x" * 100000)

    def test_what_a_line_of_the_log_shows_is_one_short_line(self):
        def check(value):
            line = shown(value)
            self.assertTrue(line.isprintable())
            self.assertLessEqual(len(line), 2500)

        self.fuzz(check, st.one_of(fuzz.text, fuzz.values))


class StateTests(FuzzMixin, unittest.TestCase):
    """Whatever a site sends to a client, its connection acts on it, and raises nothing."""

    WRITES = {"websocket.accept", "websocket.send", "websocket.close"}

    def test_a_socket_takes_any_message(self):
        def check(steps):
            state = WebSocket("gateway.a!1", "/")
            state.perform = None
            actions = state.connect({"path": "/", "subprotocols": ["a"]})
            for kind, message in steps:
                # As every layer does. What has control keys comes from a worker.
                protocol.drop_control_keys(message, "gateway.a!1")
                if kind == "own":
                    message = protocol.during(state.in_flight or 0, message)
                elif kind == "ack":
                    message = protocol.ack(state.in_flight or 0, [message])
                elif kind == "frame":
                    actions += state.frame(str(message))
                    continue
                elif kind == "group":
                    actions += state.group(message)
                    continue
                elif kind == "gone":
                    actions += state.gone(1001)
                    continue
                actions += state.reply(message)
            for action in actions:
                if action[0] == "write":
                    self.assertIn(action[1]["type"], self.WRITES)
            json.dumps([action[1:] for action in actions], default=repr, skipkeys=True)

        kinds = st.sampled_from(["other", "own", "ack", "frame", "group", "gone"])
        self.fuzz(check, st.lists(st.tuples(kinds, fuzz.clean_messages), max_size=6))

    def test_a_request_takes_any_message(self):
        def check(steps):
            state = Request("gateway.a!1", "/")
            actions = state.request({"path": "/", "body": b""}, True, lambda: "body?1")
            for kind, message in steps:
                protocol.drop_control_keys(message, "gateway.a!1")
                if kind == "ack":
                    message = protocol.ack(state.in_flight or 0, [message])
                elif kind == "group":
                    actions += state.group(message)
                    continue
                elif kind == "gone":
                    actions += state.gone()
                    continue
                elif kind == "status":
                    message = dict({"status": 200}, **message)
                actions += state.reply(message)
            for action in actions:
                if action[0] == "write" and action[1]["type"] == "http.response.start":
                    self.assertIsInstance(action[1]["status"], int)
                    for name, value in action[1]["headers"]:
                        self.assertNotRegex(name + value, b"[\r\n]")

        kinds = st.sampled_from(["other", "status", "ack", "group", "gone"])
        self.fuzz(check, st.lists(st.tuples(kinds, fuzz.clean_messages), max_size=5))

    def test_no_message_of_a_site_has_a_control_key(self):
        channels = ["websocket.connect", "gateway.a!1", "own-channel", "http.request"]

        def check(message, name):
            protocol.drop_control_keys(message, name)
            self.assertFalse(
                {protocol.ACK, protocol.LOST, protocol.ERROR} & set(message) and "!" in name
            )

        self.fuzz(check, fuzz.clean_messages, st.sampled_from(channels))

    def test_any_value_in_a_channel_session_leaves_or_is_named(self):
        def check(before, items):
            session = ChannelSession(before, "reply!1")
            for key, value in items:
                session[key] = value
            try:
                patch = session.patch()
            except (InvalidMessage, MessageTooLarge):
                return
            if patch is not None:
                clean({"patch": patch})

        items = st.lists(st.tuples(fuzz.names, fuzz.values), max_size=4)
        self.fuzz(check, fuzz.clean_messages, items)


@override_settings(ALLOWED_HOSTS=["example.com"], DEBUG=False)
class HandlerTests(FuzzMixin, SimpleTestCase):
    #: What Django raises for a request that it cannot read, and answers with a 4xx.
    REFUSALS = (
        SuspiciousOperation,
        MultiPartParserError,
        UnicodeError,
        # Of Django 3.2 and later.
        getattr(exceptions, "BadRequest", SuspiciousOperation),
    )

    def test_a_request_is_read_or_refused(self):
        def check(scope, body):
            if not has_one_end(scope["headers"]):
                return  # the gateway refuses it, and Django raises ValueError for some lengths
            event = request_event(scope)
            event["body"] = body
            try:
                request = ASGIRequest(event)
            except UnicodeError:
                return  # documented: the path isn't text
            for name in ("GET", "COOKIES", "POST", "FILES", "body", "scheme", "path", "encoding"):
                try:
                    getattr(request, name)
                except self.REFUSALS + (RawPostDataException,):  # the last: POST has read the body
                    pass
            for call in (request.get_host, request.build_absolute_uri, request.get_full_path):
                try:
                    call()
                except self.REFUSALS:
                    pass

        bodies = st.one_of(
            st.binary(max_size=60),
            st.binary(max_size=20).map(
                lambda some: (
                    b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n'
                    + some
                    + b"\r\n--x--"
                )
            ),
        )
        self.fuzz(check, fuzz.scopes, bodies)

    def test_the_handler_answers_every_request(self):
        handler = ASGIHandler()
        handler.get_response = lambda request: HttpResponse(request.META.get("HTTP_HOST", ""))
        self.addCleanup(set_script_prefix, get_script_prefix())

        def check(scope):
            event = request_event(scope)
            replies = list(handler(event))
            self.assertIsInstance(replies[0]["status"], int)
            self.assertFalse(replies[-1]["more_content"])
            for reply in replies:
                clean(reply)

        with self.settings(LOGGING_CONFIG=None), quiet("django.request"):
            self.fuzz(check, fuzz.scopes)

    def test_an_origin_is_allowed_or_refused(self):
        def check(headers, scheme, text):
            message = Message(
                {"headers": headers, "scheme": scheme, "path": "/"}, "websocket.connect", None
            )
            self.assertIn(origin_allowed(message, None), (True, False))
            allowed_hosts_only(lambda message: None).allows(message)
            self.assertIsInstance(explain(message, "consumer"), str)
            try:
                Origin(text)
            except ValueError:
                pass

        schemes = st.sampled_from(["ws", "wss", None, "x"])
        texts = st.one_of(fuzz.text, fuzz.text.map(lambda some: "https://" + some))
        self.fuzz(check, fuzz.headers, schemes, texts)


def answer(message, **kwargs):
    message.reply_channel.send({"accept": True})


ROUTES = [
    route("websocket.connect", answer, path=r"^/a/(?P<name>[^/]+)/$"),
    route("websocket.receive", answer, text=r"^x", path="/"),
    include([route("http.request", answer, method="^GET$", path="^/b")], path="^/a"),
    include(
        [route("own", answer, code=r"^\d+$"), route("websocket.connect", answer, order="0")],
        query_string="^",
    ),
    route("http.request", answer, body="x", headers="host", client="1"),
]


class RoutingTests(FuzzMixin, unittest.TestCase):
    def test_any_message_finds_a_route_or_none(self):
        router = Router(ROUTES)
        layer = MemoryChannelLayer()

        def check(channel, content):
            found = router.match(Message(content, channel, layer))
            self.assertTrue(found is None or callable(found[0]))

        channels = ["websocket.connect", "websocket.receive", "http.request", "own", "none"]
        self.fuzz(check, st.sampled_from(channels), fuzz.clean_messages)

    def test_the_message_of_any_handshake_finds_a_route_or_none(self):
        router = Router(ROUTES)

        def check(scope):
            if check_head(Limits(), scope) is not None:
                return  # the gateway refuses it
            for event in (connect_event(scope), request_event(scope)):
                clean(event)
                router.match(Message(event, "websocket.connect", None))

        self.fuzz(check, fuzz.scopes)


class Json(JsonWebsocketConsumer):
    def receive(self, content, **kwargs):
        self.encode_json(content)


class Streams(WebsocketDemultiplexer):
    consumers = {"text": Json}


class FrameTests(FuzzMixin, unittest.TestCase):
    def test_any_frame_of_a_client_is_read_or_bad(self):
        layer = MemoryChannelLayer()

        def check(content):
            for consumer in (Json, Streams):
                message = Message(
                    dict(content, reply_channel="gateway.a!1"), "websocket.receive", layer
                )
                try:
                    consumer(message)
                except BadFrame as error:
                    self.assertLess(len(str(error)), 1000)

        texts = st.one_of(
            fuzz.text,
            fuzz.json_values.map(json.dumps),
            fuzz.json_values.map(lambda value: json.dumps({"stream": "text", "payload": value})),
            fuzz.json_values.map(lambda value: json.dumps({"stream": value, "payload": 1})),
        )
        frames = st.one_of(
            texts.map(lambda text: {"text": text}),
            st.binary(max_size=9).map(lambda b: {"bytes": b}),
        )
        self.fuzz(check, frames)
        for text in ("[" * 100000, '{"a":' * 100000, "1" * 100000, "-" + "1" * 5000, "1e999"):
            check({"text": text})
            check({"text": '{"stream": "text", "payload": %s}' % text})


def quiet(name):
    """Return a context in which the logger `name` writes nothing."""
    import logging
    from unittest import mock

    return mock.patch.object(logging.getLogger(name), "disabled", True)


class GatewayTests(FuzzMixin, SimpleTestCase):
    """Whatever a server passes on, the gateway answers it, and stays as it was."""

    def visit_all(self, scopes):
        layer = MemoryChannelLayer(threads=1)
        layer.alias = "test"
        layer.routing = [
            route("websocket.connect", answer),
            route("http.request", lambda message: message.reply_channel.send({"status": 200})),
        ]
        found = []

        async def visit(scope):
            events, sent = asyncio.Queue(), []
            over = asyncio.Event()
            kind = scope["type"]
            first = {"http": "http.request", "websocket": "websocket.connect"}[kind]
            events.put_nowait({"type": first})

            async def send(event):
                sent.append(event)
                if event.get("more_body") is False or kind == "websocket":
                    over.set()
                    events.put_nowait({"type": kind + ".disconnect"})

            await asyncio.wait_for(layer(scope, events.get, send), TIMEOUT)
            found.append((scope, sent))

        async def main():
            try:
                for scope in scopes:
                    await visit(scope)
            finally:
                gateway = layer.gateway
                await gateway.stop()
                self.assertEqual(gateway.connections, {})

        asyncio.run(main())
        return found

    def test_every_request_and_handshake_is_answered(self):
        def check(scopes):
            for scope, sent in self.visit_all(scopes):
                kinds = [event["type"] for event in sent]
                if scope["type"] == "http":
                    self.assertEqual(kinds[0], "http.response.start")
                    self.assertEqual(set(kinds[1:]), {"http.response.body"})
                    self.assertIn(sent[0]["status"], (200, 400, 413, 414, 431))
                else:
                    self.assertIn(kinds[:1], (["websocket.accept"], ["websocket.close"]))

        with quiet("django.channels.gateway"), quiet("django.channels.worker"):
            self.fuzz(check, st.lists(fuzz.scopes, min_size=5, max_size=10), examples=6)
