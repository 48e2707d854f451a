"""channels.binding: changes of models out to groups, and from sockets into models."""

import datetime
import json

from django.channels import Group, route
from django.channels.binding import Binding
from django.channels.binding.base import CREATE, DELETE, UPDATE, BindingMetaclass
from django.channels.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from django.channels.compat import relation_of
from django.channels.generic.websockets import WebsocketDemultiplexer
from django.channels.signals import consumer_finished
from django.channels.test import (
    ChannelTestCase,
    Client,
    HttpClient,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models.deletion import Collector
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from .applications import INSTALLED
from .models import Document, IntegerValue, Tag


def defined_for_a_test(test, name, bases, **body):
    """Define a binding, and disconnect it when the test ends."""
    body.setdefault("__module__", __name__)
    binding = BindingMetaclass(name, bases, body)
    test.addCleanup(forget, binding, [binding.model])
    return binding


def forget(binding, bound):
    """Disconnect a binding from the signals of the models `bound`."""
    BindingMetaclass.binding_classes.remove(binding)
    uid = "%s.%s" % (binding.__module__, binding.__qualname__)
    for model in bound:
        for signal in (pre_save, post_save, pre_delete, post_delete):
            signal.disconnect(sender=model, dispatch_uid=uid)
        # With a receiver for it, Django fetches the rows that it deletes.
        for field in model._meta.many_to_many:
            through = relation_of(field).through
            m2m_changed.disconnect(sender=through, dispatch_uid="channels.binding")


class WithBinding:
    """Defines a binding of IntegerValue as the documentation of 1.1 does."""

    fields = ["name", "value"]
    exclude = None
    base = WebsocketBinding
    extra = {}

    def setUp(self):
        def group_names(cls, instance):
            if instance.admin_only:
                return ["admins"]
            return ["admins", "everybody"]

        self.permission = []

        def has_permission(binding, user, action, pk):
            self.permission.append((getattr(user, "username", None), action, pk))
            return user.username != "mallory"

        self.binding = defined_for_a_test(
            self,
            "IntegerValueBinding",
            (self.base,),
            model=IntegerValue,
            stream="intval",
            fields=self.fields,
            exclude=self.exclude,
            group_names=classmethod(group_names),
            has_permission=has_permission,
            **self.extra,
        )
        self.admin, self.anybody = HttpClient(), HttpClient()
        self.admin.join_group("admins")
        self.anybody.join_group("everybody")

    def receive_both(self):
        consumer_finished.send(sender=None)  # as 1.1's documentation has it; it does no harm
        return self.admin.receive(), self.anybody.receive()

    def actions(self):
        return [each and each["payload"]["action"] for each in self.receive_both()]


class OutboundTests(WithBinding, ChannelTestCase):
    def test_create(self):
        value = IntegerValue.objects.create(name="fifty", value=50, secret="x")
        expected = {
            "stream": "intval",
            "payload": {
                "action": "create",
                "model": "channels_tests.integervalue",
                "pk": value.pk,
                "data": {"name": "fifty", "value": 50},
            },
        }
        self.assertEqual(self.receive_both(), (expected, expected))
        self.assertEqual(self.receive_both(), (None, None))

    def test_update(self):
        value = IntegerValue.objects.create(name="fifty", value=50)
        self.receive_both()
        value.value = 51
        value.save()
        for received in self.receive_both():
            self.assertEqual(received["payload"]["action"], "update")
            self.assertEqual(received["payload"]["data"], {"name": "fifty", "value": 51})

    def test_update_of_an_instance_made_by_hand(self):
        value = IntegerValue.objects.create(name="fifty", value=50)
        self.receive_both()
        IntegerValue(pk=value.pk, name="fifty", value=52).save()
        self.assertEqual(self.actions(), ["update", "update"])

    def test_delete(self):
        value = IntegerValue.objects.create(name="fifty", value=50)
        self.receive_both()
        pk = value.pk
        value.delete()
        for received in self.receive_both():
            self.assertEqual(received["payload"]["action"], "delete")
            self.assertEqual(received["payload"]["pk"], pk)
        self.assertEqual(self.receive_both(), (None, None))

    def test_delete_by_queryset(self):
        IntegerValue.objects.create(name="fifty", value=50)
        self.receive_both()
        IntegerValue.objects.all().delete()
        self.assertEqual(self.actions(), ["delete", "delete"])

    def test_who_no_longer_sees_it_is_told_it_is_gone(self):
        value = IntegerValue.objects.create(name="fifty", value=50)
        self.receive_both()
        value.admin_only = True
        value.save()
        self.assertEqual(self.actions(), ["update", "delete"])
        value.admin_only = False
        value.save()
        self.assertEqual(self.actions(), ["update", "create"])
        value.admin_only = True
        value.save()
        self.receive_both()
        value.delete()
        self.assertEqual(self.actions(), ["delete", None])

    def test_a_transaction_inside_the_test(self):
        if not hasattr(transaction, "on_commit"):
            self.skipTest("Django 1.8 lacks hooks for commits")
        with transaction.atomic():
            IntegerValue.objects.create(name="fifty", value=50)
            self.assertEqual(self.receive_both(), (None, None))
        self.assertEqual(self.actions(), ["create", "create"])
        try:
            with transaction.atomic():
                IntegerValue.objects.create(name="sixty", value=60)
                raise KeyError
        except KeyError:
            pass
        self.assertEqual(self.receive_both(), (None, None))

    def test_inside_a_consumer_it_leaves_at_its_end(self):
        def consumer(message):
            IntegerValue.objects.create(name="fifty", value=50)

        with apply_routes(route("test", consumer)):
            Client().send_and_consume("test")
        self.assertEqual(self.actions(), ["create", "create"])

    def test_send_messages_by_hand(self):
        value = IntegerValue.objects.create(name="fifty", value=50)
        self.receive_both()
        IntegerValue.objects.filter(pk=value.pk).update(value=1)
        value.refresh_from_db()
        self.binding.send_messages(value, self.binding.group_names(value), UPDATE)
        self.assertEqual(self.admin.receive()["payload"]["data"]["value"], 1)


class AllFieldsTests(WithBinding, ChannelTestCase):
    fields = ["__all__"]
    exclude = ["secret"]

    def test_all_but(self):
        moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
        IntegerValue.objects.create(name="fifty", value=50, secret="x", changed=moment)
        self.assertEqual(
            self.admin.receive()["payload"]["data"],
            {
                "name": "fifty",
                "value": 50,
                "admin_only": False,
                "changed": "2026-01-02T03:04:05",
                "tags": [],
            },
        )


class MembersTests(WithBinding, ChannelTestCase):
    base = WebsocketBindingWithMembers
    extra = {"send_members": ["unit", "doubled", "described", "_meta.label_lower"]}

    def test_members(self):
        self.binding.send_members = ["unit", "doubled", "described", "_meta.model_name"]
        IntegerValue.objects.create(name="fifty", value=50)
        self.assertEqual(
            self.admin.receive()["payload"]["data"],
            {
                "name": "fifty",
                "value": 50,
                "unit": "m",
                "doubled": 100,
                "described": "fifty=50",
                "_meta__model_name": "integervalue",
            },
        )


class CommitTests(WithBinding, TransactionChannelTestCase):
    available_apps = INSTALLED

    def test_sent_at_commit_and_not_at_rollback(self):
        if not hasattr(transaction, "on_commit"):
            self.skipTest("Django 1.8 lacks hooks for commits")
        with transaction.atomic():
            value = IntegerValue.objects.create(name="fifty", value=50)
            self.assertEqual(self.receive_both(), (None, None))
        self.assertEqual(self.actions(), ["create", "create"])
        try:
            with transaction.atomic():
                value.delete()
                raise KeyError
        except KeyError:
            pass
        self.assertEqual(self.receive_both(), (None, None))


class OtherKeyTests(ChannelTestCase):
    def test_a_primary_key_of_text(self):
        binding = defined_for_a_test(
            self,
            "DocumentBinding",
            (WebsocketBinding,),
            model=Document,
            stream="doc",
            fields=["title"],
            group_names=classmethod(lambda cls, instance: ["docs"]),
            has_permission=lambda binding, user, action, pk: True,
        )
        client = WSClient()
        client.join_group("docs")
        Document.objects.create(slug="a-b", title="A")
        self.assertEqual(client.receive()["payload"]["pk"], "a-b")

        class Demultiplexer(WebsocketDemultiplexer):
            consumers = {"doc": binding.consumer}

        with apply_routes(Demultiplexer.as_route()):
            payload = {"action": UPDATE, "pk": "a-b", "data": {"title": "B"}}
            client.send_and_consume("websocket.receive", text={"stream": "doc", "payload": payload})
        received = client.receive()["payload"]
        self.assertEqual((received["action"], received["data"]), ("update", {"title": "B"}))


class InboundTests(WithBinding, ChannelTestCase):
    fields = ["name", "value", "tags"]

    def setUp(self):
        super().setUp()
        binding = self.binding

        class Demultiplexer(WebsocketDemultiplexer):
            http_user = True
            consumers = {"intval": binding.consumer}

            def connection_groups(self):
                return ["everybody"]

        context = apply_routes([Demultiplexer.as_route(path="^/$")])
        context.__enter__()
        self.addCleanup(context.__exit__)
        self.client = WSClient()
        self.client.force_login(get_user_model().objects.create_user("ada"))
        self.client.send_and_consume("websocket.connect", path="/")

    def ask(self, **payload):
        content = {"stream": "intval", "payload": payload}
        self.client.send_and_consume("websocket.receive", text=content, path="/")

    def test_create(self):
        self.ask(action=CREATE, data={"name": "one", "value": 1, "secret": "not accepted"})
        value = IntegerValue.objects.get()
        self.assertEqual((value.name, value.value, value.secret), ("one", 1, ""))
        self.assertEqual(self.permission, [("ada", "create", None)])
        self.assertEqual(self.client.receive()["payload"]["action"], "create")

    def test_update(self):
        value = IntegerValue.objects.create(name="one", value=1, secret="s")
        self.ask(action=UPDATE, pk=value.pk, data={"value": 2, "secret": "no", "admin_only": True})
        value = IntegerValue.objects.get()
        self.assertEqual(
            (value.name, value.value, value.secret, value.admin_only), ("one", 2, "s", False)
        )
        self.assertEqual(self.permission, [("ada", "update", value.pk)])

    def test_other_models_are_still_deleted_in_one_query(self):
        self.assertTrue(Collector("default").can_fast_delete(Session.objects.all()))

    def test_many_to_many(self):
        tags = [Tag.objects.create(name="a"), Tag.objects.create(name="b")]
        self.ask(action=CREATE, data={"name": "one", "tags": [tags[0].pk]})
        value = IntegerValue.objects.get()
        self.assertEqual(list(value.tags.all()), tags[:1])
        self.ask(action=UPDATE, pk=value.pk, data={"tags": [tags[1].pk]})
        self.assertEqual(list(value.tags.all()), tags[1:])

    def test_delete(self):
        value = IntegerValue.objects.create(name="one", value=1)
        self.ask(action=DELETE, pk=value.pk)
        self.assertEqual(IntegerValue.objects.count(), 0)
        self.assertEqual(self.permission, [("ada", "delete", value.pk)])

    def test_refused(self):
        value = IntegerValue.objects.create(name="one", value=1)
        self.client.force_login(get_user_model().objects.create_user("mallory"))
        self.client.send_and_consume("websocket.connect", path="/")
        for payload in (
            {"action": CREATE, "data": {"name": "two"}},
            {"action": UPDATE, "pk": value.pk, "data": {"value": 3}},
            {"action": DELETE, "pk": value.pk},
        ):
            self.ask(**payload)
        self.assertEqual(list(IntegerValue.objects.values_list("name", "value")), [("one", 1)])
        self.assertEqual([user for user, _, _ in self.permission], ["mallory"] * 3)

    def test_nonsense_is_answered_with_the_errors(self):
        for payload, name in (
            ({}, "__all__"),
            ({"action": "drop"}, "action"),
            ({"action": ["create"]}, "action"),
            ({"action": CREATE, "data": [1]}, "data"),
            ({"action": DELETE, "pk": 12345}, "pk"),
            ({"action": DELETE}, "pk"),
        ):
            with self.subTest(payload=payload):
                self.ask(**payload)
                received = self.client.receive()["payload"]
                self.assertEqual((received["action"], list(received["errors"])), ("error", [name]))

    def test_consumer_by_a_route(self):
        with apply_routes(route("binding.intval", self.binding.consumer)):
            client = Client()
            payload = {"action": CREATE, "data": {"name": "one", "value": 1}}
            client.send_and_consume("binding.intval", {"text": json.dumps(payload)})
        self.assertEqual(IntegerValue.objects.get().name, "one")


class DefinitionTests(ChannelTestCase):
    def test_fields_are_required(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "__all__"):
            defined_for_a_test(self, "X", (Binding,), model=IntegerValue)

    def test_fields_are_a_list(self):
        with self.assertRaisesRegex(ImproperlyConfigured, r"\['__all__'\]"):
            defined_for_a_test(self, "X", (Binding,), model=IntegerValue, fields="__all__")

    def test_model_is_a_class(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "model class"):
            defined_for_a_test(self, "X", (Binding,), model="app.Model", fields=[])

    def test_an_asynchronous_method_is_refused(self):
        async def method(self, *args):
            return False

        async def group_names(cls, instance):
            return []

        for name, value in (
            ("has_permission", method),
            ("create", method),
            ("run_action", method),
            ("group_names", classmethod(group_names)),
        ):
            with self.subTest(name=name), self.assertRaisesRegex(ImproperlyConfigured, name):
                defined_for_a_test(
                    self, "X", (WebsocketBinding,), model=IntegerValue, fields=[], **{name: value}
                )

    def test_a_coroutine_is_no_permission(self):
        async def no():
            return False

        binding = defined_for_a_test(
            self,
            "X",
            (WebsocketBinding,),
            model=IntegerValue,
            fields=["name"],
            stream="x",
            channel_session_user=False,
            has_permission=lambda self, user, action, pk: no(),
            group_names=classmethod(lambda cls, row: []),
        )
        with apply_routes(route("websocket.receive", binding.consumer)):
            text = json.dumps({"action": CREATE, "data": {"name": "x"}})
            with self.assertRaisesRegex(TypeError, "must not be asynchronous"):
                WSClient().send_and_consume("websocket.receive", text=text, path="/")
        self.assertFalse(IntegerValue.objects.exists())

    def test_own_protocol(self):
        def deserialize(self, message):
            return message["action"], message.get("pk"), message["data"]

        made = []
        binding = defined_for_a_test(
            self,
            "Plain",
            (Binding,),
            model=IntegerValue,
            fields=["name"],
            channel_session_user=False,
            group_names=classmethod(lambda cls, instance: ["plain"]),
            serialize=lambda self, instance, action: {"what": action, "name": instance.name},
            deserialize=deserialize,
            has_permission=lambda self, user, action, pk: True,
            create=lambda self, data: made.append(data),
        )
        Group("plain").add("test.plain")
        IntegerValue.objects.create(name="one").delete()
        self.assertEqual(
            self.get_next_message("test.plain").content, {"what": "create", "name": "one"}
        )
        self.assertEqual(
            self.get_next_message("test.plain").content, {"what": "delete", "name": "one"}
        )
        with apply_routes(route("in", binding.consumer)):
            data = {"name": "x", "id": 5, "pk": 5}  # a client never says which row it is
            Client().send_and_consume("in", {"action": "create", "data": data})
        self.assertEqual(made, [{"name": "x"}])
