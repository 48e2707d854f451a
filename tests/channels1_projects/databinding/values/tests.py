import json

from channels import Group
from channels.binding.base import CREATE, DELETE, UPDATE, Binding
from channels.binding.websockets import WebsocketBinding
from channels.signals import consumer_finished
from channels.test import ChannelTestCase, WSClient, apply_routes

from .consumers import Demultiplexer
from .models import IntegerValue


class BindingTests(ChannelTestCase):
    def test_outbound_create(self):
        client = WSClient()
        client.join_group("intval-updates")
        value = IntegerValue.objects.create(name="fifty", value=50)
        consumer_finished.send(sender=None)
        received = client.receive()
        self.assertEqual(received["stream"], "intval")
        self.assertEqual(received["payload"]["action"], "create")
        self.assertEqual(received["payload"]["model"], "values.integervalue")
        self.assertEqual(received["payload"]["pk"], value.pk)
        self.assertEqual(received["payload"]["data"], {"name": "fifty", "value": 50})
        self.assertIsNone(client.receive())

    def inbound(self, client, **payload):
        text = {"stream": "intval", "payload": payload}
        client.send_and_consume("websocket.receive", path="/binding/", text=text)

    def test_inbound(self):
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/binding/")
        self.inbound(client, action=CREATE, data={"name": "one", "value": 1})
        value = IntegerValue.objects.get()
        self.assertEqual((value.name, value.value), ("one", 1))
        self.inbound(client, action=UPDATE, pk=value.pk, data={"value": 2})
        value.refresh_from_db()
        self.assertEqual((value.name, value.value), ("one", 2))
        self.inbound(client, action=DELETE, pk=value.pk)
        self.assertFalse(IntegerValue.objects.exists())
        actions = [client.receive()["payload"]["action"] for _ in range(3)]
        self.assertEqual(actions, ["create", "update", "delete"])

    def test_one_route(self):
        client = WSClient()
        with apply_routes([Demultiplexer.as_route(path="/other/")]):
            client.send_and_consume("websocket.connect", path="/other/")
            Group("intval-updates").send({"text": "ok"}, immediately=True)
            self.assertEqual(client.receive(json=False), "ok")


class CountingBinding(WebsocketBinding):
    """A binding with its own action, and with a say in what is sent."""

    model = IntegerValue
    stream = "counting"
    fields = ["value"]
    quiet = True

    @classmethod
    def group_names(cls, instance):
        return ["counting"]

    @classmethod
    def pre_change_receiver(cls, instance, action):
        instance.before = action
        super(CountingBinding, cls).pre_change_receiver(instance, action)

    @classmethod
    def post_change_receiver(cls, instance, action, **kwargs):
        if not cls.quiet:
            super(CountingBinding, cls).post_change_receiver(instance, action, **kwargs)

    def has_permission(self, user, action, pk):
        return action in ("add", UPDATE)

    def run_action(self, action, pk, data):
        if action == "add":
            if self.has_permission(self.user, action, pk):
                value = IntegerValue.objects.get(pk=pk)
                value.value += data["number"]
                value.save()
        else:
            super(CountingBinding, self).run_action(action, pk, data)

    @classmethod
    def get_handler(cls):
        handler = super(CountingBinding, cls).get_handler()

        def counted(message, **kwargs):
            if message.channel.name == "websocket.receive":
                cls.handled += 1
            return handler(message, **kwargs)

        return counted


class PlainBinding(Binding):
    """A binding with its own protocol."""

    model = "values.IntegerValue"
    fields = ["name"]

    @classmethod
    def group_names(cls, instance):
        return ["plain"]

    def serialize(self, instance, action):
        return {"text": json.dumps([action, instance.name])}

    def deserialize(self, message):
        action, pk, data = json.loads(message["text"])
        return action, pk, {"name": data}

    def has_permission(self, user, action, pk):
        return True

    def create(self, data):
        IntegerValue.objects.create(name=data["name"].upper())


class CustomTests(ChannelTestCase):
    def setUp(self):
        CountingBinding.handled = 0
        CountingBinding.quiet = False
        self.value = IntegerValue.objects.create(name="one", value=1)

    def tearDown(self):
        CountingBinding.quiet = True

    def test_an_action_of_its_own(self):
        client = WSClient()
        client.join_group("counting")
        payload = {"action": "add", "pk": self.value.pk, "data": {"number": 4}}
        routes = [Streams.as_route(path="^/$")]
        with apply_routes(routes):
            client.send_and_consume("websocket.connect", path="/")
            client.send_and_consume(
                "websocket.receive", path="/", text={"stream": "counting", "payload": payload}
            )
        self.value.refresh_from_db()
        self.assertEqual((self.value.value, CountingBinding.handled), (5, 1))
        payload = client.receive()["payload"]
        self.assertEqual((payload["action"], payload["data"]), ("update", {"value": 5}))

    def test_changes_that_are_not_sent(self):
        CountingBinding.quiet = True
        client = WSClient()
        client.join_group("counting")
        self.value.save()
        self.assertEqual(self.value.before, "update")
        self.assertIsNone(client.receive())

    def test_a_protocol_of_its_own(self):
        client = WSClient()
        client.join_group("plain")
        self.value.save()
        self.assertEqual(client.receive(), ["update", "one"])
        with apply_routes([PlainRoutes.as_route(path="^/$")]):
            client.send_and_consume("websocket.connect", path="/")
            client.send_and_consume("websocket.receive", path="/", text=["create", None, "two"])
        self.assertEqual(client.receive(), ["create", "TWO"])


class Streams(Demultiplexer):
    consumers = {"counting": CountingBinding.consumer}

    def connection_groups(self, **kwargs):
        return []


class PlainRoutes(Demultiplexer):
    def receive(self, content, **kwargs):
        PlainBinding.trigger_inbound(self.message)

    def connection_groups(self, **kwargs):
        return []
