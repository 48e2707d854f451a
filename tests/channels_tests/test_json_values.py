"""NaN and infinities, which JSON doesn't have, reach a client as null by every road that encodes JSON."""

import json
import math

from django.channels import Channel, Group, route, route_class
from django.channels.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from django.channels.generic.json_text import dump_json, encode_json
from django.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.test import SimpleTestCase

from .models import IntegerValue
from .test_binding import defined_for_a_test

NAN, INFINITY = float("nan"), float("inf")


class Percentage(float):
    """A float of the site's own, as NumPy's is."""


VALUES = [NAN, INFINITY, -INFINITY, Percentage("nan"), 1e400]


def strict(text):
    """Return what a browser's JSON.parse returns. Raises ValueError where that does."""

    def refuse(constant):
        raise ValueError("JSON.parse does not know %s" % constant)

    return json.loads(text, parse_constant=refuse)


class EncodingTests(SimpleTestCase):
    def test_numbers_that_json_lacks_become_null_wherever_they_stand(self):
        for value in VALUES:
            for content, expected in (
                (value, None),
                ([1.5, value], [1.5, None]),
                ((value,), [None]),
                ({"a": {"b": [value, "NaN"]}}, {"a": {"b": [None, "NaN"]}}),
                ({"deep": [[[[value]]], True, None]}, {"deep": [[[[None]]], True, None]}),
            ):
                with self.subTest(content=content):
                    self.assertEqual(strict(encode_json(content)), expected)

    def test_everything_beside_them_stays_as_it_is(self):
        numbers = [0.1, 1e308, 5e-324, -0.0, 2**70, 12345678901234567, 1 / 3]
        content = {"n": numbers, "text": "NaN, Infinity \u20ac \ud83d\ude00 \ud800", 7: "seven"}
        found = strict(encode_json(dict(content, bad=NAN)))
        self.assertEqual(found.pop("bad"), None)
        self.assertEqual(found, strict(encode_json(content)))
        self.assertEqual(found["n"], numbers)
        self.assertEqual(math.copysign(1, found["n"][3]), -1)

    def test_a_key_that_is_nan_is_text(self):
        self.assertEqual(strict(encode_json({NAN: NAN})), {"NaN": None})

    def test_other_errors_stay(self):
        loop = [NAN]
        loop.append(loop)
        with self.assertRaisesMessage(ValueError, "Circular"):
            encode_json(loop)
        for encode in (encode_json, dump_json):
            with self.assertRaises(TypeError):
                encode([NAN, object()])


class Sums(JsonWebsocketConsumer):
    groups = ["json"]

    def receive(self, content, **kwargs):
        content = {"value": float(content)}
        self.send(content)
        self.group_send("json", content)
        self.message.reply_channel.send_json(content)
        Group("json").send_json(content)
        self.message.reply_channel.send(Channel.encode_json(content))
        Group("json").send(Group.encode_json(content))


class Stream(JsonWebsocketConsumer):
    def receive(self, content, multiplexer, **kwargs):
        content = {"value": float(content)}
        multiplexer.send(content)
        multiplexer.group_send("json", "sums", content)
        Demultiplexer.group_send("json", "sums", content)
        Group("json").send(WebsocketMultiplexer.encode("sums", content))
        self.message.reply_channel.send(WebsocketDemultiplexer.encode("sums", content))


class Demultiplexer(WebsocketDemultiplexer):
    consumers = {"sums": Stream}


async def awaited(message):
    await message.reply_channel.asend_json({"value": float(message["text"])})
    await Group("json").asend_json({"value": float(message["text"])})


class RoadTests(ChannelTestCase):
    def check(self, routes, text, expected, number):
        with apply_routes(routes):
            client = WSClient()
            client.send_and_consume("websocket.connect", check_accept=False)
            client.join_group("json")
            while client.get_next_message(client.reply_channel):
                pass
            for value in ("nan", "inf", "-inf"):
                client.send_and_consume("websocket.receive", {"text": text % value})
                found = []
                while True:
                    message = client.get_next_message(client.reply_channel)
                    if message is None:
                        break
                    found.append(strict(message["text"]))
                self.assertEqual(found, [expected] * number)

    def test_a_class_for_json(self):
        self.check([route_class(Sums)], '"%s"', {"value": None}, 6)

    def test_streams(self):
        frame = '{"stream": "sums", "payload": "%s"}'
        expected = {"stream": "sums", "payload": {"value": None}}
        self.check([route_class(Demultiplexer)], frame, expected, 5)

    def test_awaited_sends(self):
        self.check([route("websocket.receive", awaited)], "%s", {"value": None}, 2)


class BindingTests(ChannelTestCase):
    def test_a_binding_sends_null_and_the_row_is_saved(self):
        for base in (WebsocketBinding, WebsocketBindingWithMembers):
            defined_for_a_test(
                self,
                "RatioBinding",
                (base,),
                model=IntegerValue,
                stream="ratios",
                fields=["name"],
                group_names=classmethod(lambda cls, instance: ["ratios"]),
                has_permission=lambda self, user, action, pk: True,
                serialize_data=lambda self, instance: {"value": NAN, "name": instance.name},
            )
            client = WSClient()
            client.join_group("ratios")
            IntegerValue.objects.create(name=base.__name__)
            message = client.get_next_message(client.reply_channel)
            data = {"value": None, "name": base.__name__}
            self.assertEqual(strict(message["text"])["payload"]["data"], data)
            self.doCleanups()
        self.assertEqual(IntegerValue.objects.count(), 2)

    def test_a_field_and_a_member(self):
        bound = defined_for_a_test(
            self,
            "FieldBinding",
            (WebsocketBindingWithMembers,),
            model=IntegerValue,
            stream="ratios",
            fields=["name", "value"],
            group_names=classmethod(lambda cls, instance: []),
            has_permission=lambda self, user, action, pk: True,
            send_members=["ratio"],
        )
        instance = IntegerValue(name="x", value=INFINITY)
        instance.ratio = NAN
        data = bound().serialize_data(instance)
        self.assertEqual(data, {"name": "x", "value": None, "ratio": None})
