"""Bindings that override what receives changes, as projects for Channels 1.1 do."""

import json

from django.channels import route
from django.channels.apps import ChannelsConfig
from django.channels.binding.base import CREATE, DELETE, UPDATE, Binding, BindingMetaclass
from django.channels.binding.websockets import WebsocketBinding
from django.channels.class_checks import check_bindings
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError

from .models import Document, IntegerValue, Tag
from .test_binding import forget


class HooksTests(ChannelTestCase):
    def setUp(self):
        self.calls = []
        self.client = WSClient()
        self.client.join_group("values")

    def define(self, *models, **body):
        """Define a binding of IntegerValue with these methods. It ends with the test."""
        body = dict(
            {
                "__module__": __name__,
                "model": IntegerValue,
                "stream": "values",
                "fields": ["__all__"],
                "group_names": classmethod(lambda cls, instance: ["values"]),
                "has_permission": lambda self, user, action, pk: True,
            },
            **body,
        )
        binding = BindingMetaclass("HookedBinding", (body.pop("base", WebsocketBinding),), body)
        self.addCleanup(forget, binding, models or [IntegerValue])
        self.binding = binding
        return binding

    def actions(self):
        found = []
        while True:
            received = self.client.receive()
            if received is None:
                return found
            found.append(received["payload"]["action"])

    def send(self, **payload):
        """Send a change as a client does. Return what the client receives, as decoded from JSON."""
        with apply_routes([route("websocket.receive", self.binding.consumer)]):
            client = WSClient()
            client.send_and_consume("websocket.receive", {"text": json.dumps(payload)})
        return client.receive()


class ReceiverTests(HooksTests):
    def define_recording(self, **body):
        test = self

        def pre_change_receiver(cls, instance, action):
            test.calls.append(("pre", action, instance.pk is None))
            super(test.binding, cls).pre_change_receiver(instance, action)

        def post_change_receiver(cls, instance, action, **kwargs):
            test.calls.append(("post", action, kwargs["using"]))
            super(test.binding, cls).post_change_receiver(instance, action, **kwargs)

        return self.define(
            pre_change_receiver=classmethod(pre_change_receiver),
            post_change_receiver=classmethod(post_change_receiver),
            **body,
        )

    def test_each_change_is_received_before_and_after(self):
        self.define_recording()
        value = IntegerValue.objects.create(name="one")
        value.save()
        value.delete()
        self.assertEqual(
            self.calls,
            [
                ("pre", CREATE, True),
                ("post", CREATE, "default"),
                ("pre", UPDATE, False),
                ("post", UPDATE, "default"),
                ("pre", DELETE, False),
                ("post", DELETE, "default"),
            ],
        )
        self.assertEqual(self.actions(), [CREATE, UPDATE, DELETE])

    def test_a_change_that_an_override_leaves_out_is_not_sent(self):
        def post_change_receiver(cls, instance, action, **kwargs):
            if not instance.admin_only:
                super(self.binding, cls).post_change_receiver(instance, action)

        self.define(post_change_receiver=classmethod(post_change_receiver))
        hidden = IntegerValue.objects.create(name="hidden", admin_only=True)
        hidden.save()
        self.assertEqual(self.actions(), [])
        hidden.admin_only = False
        hidden.save()
        hidden.save()
        self.assertEqual(self.actions(), [UPDATE, UPDATE])
        hidden.admin_only = True
        hidden.delete()
        self.assertEqual(self.actions(), [])

    def test_a_save_that_was_left_out_changes_nothing_of_a_later_one(self):
        groups = []

        def post_change_receiver(cls, instance, action, **kwargs):
            if instance.name != "left out":
                super(self.binding, cls).post_change_receiver(instance, action, **kwargs)

        self.define(
            post_change_receiver=classmethod(post_change_receiver),
            group_names=classmethod(lambda cls, instance: groups),
        )
        value = IntegerValue.objects.create(name="left out")
        groups.append("values")
        value.name = "seen"
        value.save()
        self.assertEqual(self.actions(), [UPDATE])

    def test_a_save_may_be_passed_on_as_a_deletion(self):
        def post_change_receiver(cls, instance, action, **kwargs):
            action = DELETE if instance.admin_only else action
            super(self.binding, cls).post_change_receiver(instance, action, **kwargs)

        self.define(post_change_receiver=classmethod(post_change_receiver))
        value = IntegerValue.objects.create(name="one")
        value.admin_only = True
        value.save()
        self.assertEqual(self.actions(), [CREATE, DELETE])

    def test_a_save_may_be_passed_on_as_a_creation(self):
        def pre_change_receiver(cls, instance, action):
            action = CREATE if instance.value == 7 else action
            super(self.binding, cls).pre_change_receiver(instance, action)

        self.define(pre_change_receiver=classmethod(pre_change_receiver))
        value = IntegerValue.objects.create(name="one")
        value.value = 7
        value.save()
        self.assertEqual(self.actions(), [CREATE, CREATE])

    def test_signal_receivers_may_be_overridden(self):
        def pre_save_receiver(cls, instance, **kwargs):
            self.calls.append(sorted(set(kwargs) & {"raw", "using", "update_fields"}))
            super(self.binding, cls).pre_save_receiver(instance, **kwargs)

        def post_save_receiver(cls, instance, created, **kwargs):
            self.calls.append(created)
            super(self.binding, cls).post_save_receiver(instance, created, **kwargs)

        self.define(
            pre_save_receiver=classmethod(pre_save_receiver),
            post_save_receiver=classmethod(post_save_receiver),
        )
        IntegerValue.objects.create(name="one")
        self.assertEqual(self.calls, [["raw", "update_fields", "using"], True])
        self.assertEqual(self.actions(), [CREATE])

    def test_send_messages_may_be_an_instance_method(self):
        def send_messages(binding, instance, group_names, action, **kwargs):
            if group_names:
                self.calls.append((binding.instance.name, set(group_names), action))
            super(self.binding, binding).send_messages(instance, group_names, action, **kwargs)

        self.define(send_messages=send_messages)
        value = IntegerValue.objects.create(name="one")
        value.save()
        value.delete()
        self.assertEqual(
            self.calls, [("one", {"values"}, action) for action in (CREATE, UPDATE, DELETE)]
        )
        self.assertEqual(self.actions(), [CREATE, UPDATE, DELETE])

    def test_serialize_sees_the_arguments_of_the_signal(self):
        def serialize(binding, instance, action):
            self.calls.append(binding.signal_kwargs["update_fields"])
            return super(self.binding, binding).serialize(instance, action)

        self.define(serialize=serialize)
        value = IntegerValue.objects.create(name="one")
        value.save(update_fields=["value"])
        self.assertEqual(self.calls, [None, frozenset(["value"])])


class ModelsTests(HooksTests):
    def test_changes_of_several_models_are_sent(self):
        self.define(
            IntegerValue,
            Tag,
            get_registered_models=classmethod(lambda cls: [IntegerValue, Tag]),
        )
        IntegerValue.objects.create(name="one")
        tag = Tag.objects.create(name="red")
        tag.name = "blue"
        tag.save()
        tag.delete()
        payloads = [self.client.receive()["payload"] for _ in range(4)]
        self.assertEqual(
            [(each["model"], each["action"]) for each in payloads],
            [
                ("channels_tests.integervalue", CREATE),
                ("channels_tests.tag", CREATE),
                ("channels_tests.tag", UPDATE),
                ("channels_tests.tag", DELETE),
            ],
        )
        self.assertEqual(
            [each["data"]["name"] for each in payloads], ["one", "red", "blue", "blue"]
        )

    def test_a_model_may_be_named(self):
        self.assertIs(self.define(Document, model="channels_tests.Document").model, Document)
        Document.objects.create(slug="a")
        self.assertEqual(self.actions(), [CREATE])

    def test_check_warns_of_a_name_that_is_not_a_field(self):
        def unknown():
            return [each.msg for each in check_bindings(None) if each.id == "channels.W020"]

        before = unknown()
        self.define(fields=["value", "nmae", "pk"])
        self.define(fields=None, exclude=["secrets"])
        found = unknown()[len(before) :]
        self.assertEqual(len(found), 2)
        self.assertIn("HookedBinding.fields has 'nmae'", found[0])
        self.assertIn("HookedBinding.exclude has 'secrets'", found[1])

    def test_a_binding_that_is_defined_before_the_app_is_ready_is_connected_then(self):
        ChannelsConfig.is_ready = False
        try:
            # As packages do: the fields are set after the class was made.
            binding = self.define(Document, model="channels_tests.Document", fields=None)
            binding.fields = ["title"]
        finally:
            ChannelsConfig.is_ready = True
        Document.objects.create(slug="a")
        self.assertEqual(self.actions(), [])
        BindingMetaclass.register_all()
        self.assertIs(binding.model, Document)
        self.assertEqual(binding.model_label, "channels_tests.document")
        Document.objects.create(slug="b")
        self.assertEqual(self.actions(), [CREATE])


class InboundTests(HooksTests):
    def test_actions_of_a_bindings_own(self):
        value = IntegerValue.objects.create(name="one")

        def run_action(binding, action, pk, data):
            self.calls.append((binding.action, pk, data, binding.kwargs))
            if action == "shout":
                binding.message.reply_channel.send({"text": json.dumps(data["name"].upper())})
            else:
                super(self.binding, binding).run_action(action, pk, data)

        self.define(run_action=run_action)
        self.assertEqual(self.send(action="shout", pk=str(value.pk), data={"name": "x"}), "X")
        self.assertEqual(self.send(action="shout", data={"name": "y", "id": 1}), "Y")
        self.assertEqual(
            self.calls,
            [
                ("shout", value.pk, {"name": "x"}, {}),
                ("shout", None, {"name": "y", "id": 1}, {}),
            ],
        )
        self.send(action="update", pk=value.pk, data={"value": 3})
        self.assertEqual(IntegerValue.objects.get().value, 3)
        refused = self.send(action="whisper", data={})
        self.assertEqual(
            refused["payload"]["errors"], {"action": ["Use create, update or delete."]}
        )
        self.assertEqual(self.send(action="shout", pk="no number", data={"name": "z"}), "Z")
        self.assertEqual(self.calls[-1][1], "no number")

    def test_an_own_action_may_refuse(self):
        def run_action(binding, action, pk, data):
            raise ValidationError({"name": ["Not this one."]})

        self.define(run_action=run_action)
        refused = self.send(action="shout", data={})
        self.assertEqual(refused["payload"]["request"], "shout")
        self.assertEqual(refused["payload"]["errors"], {"name": ["Not this one."]})

    def test_permission_is_asked_by_run_action(self):
        asked = []

        def has_permission(binding, user, action, pk):
            asked.append(action)
            return False

        def run_action(binding, action, pk, data):
            if not binding.has_permission(binding.user, action, pk):
                binding.message.reply_channel.send({"text": '"Permission denied"'})

        self.define(has_permission=has_permission)
        self.assertIsNone(self.send(action="create", data={"name": "x"}))
        self.assertEqual(asked, ["create"])
        self.define(has_permission=has_permission, run_action=run_action)
        self.assertEqual(self.send(action="create", data={"name": "x"}), "Permission denied")
        self.assertFalse(IntegerValue.objects.exists())

    def test_the_handler_may_be_decorated(self):
        def get_handler(cls):
            handler = super(self.binding, cls).get_handler()

            def decorated(message, **kwargs):
                self.calls.append("before")
                return handler(message, **kwargs)

            return decorated

        self.define(get_handler=classmethod(get_handler))
        self.send(action="create", data={"name": "x"})
        self.assertEqual((self.calls, IntegerValue.objects.count()), (["before"], 1))

    def test_trigger_inbound_may_be_replaced(self):
        def trigger_inbound(cls, message, **kwargs):
            self.calls.append((message["text"], message.user.is_authenticated))

        self.define(trigger_inbound=classmethod(trigger_inbound))
        self.send(action="anything")
        self.assertEqual(self.calls[0][0], '{"action": "anything"}')

    def test_without_a_session_the_user_is_anonymous(self):
        users = []

        def has_permission(binding, user, action, pk):
            users.append(user)
            return True

        self.define(has_permission=has_permission, channel_session_user=False)
        self.send(action="create", data={"name": "x"})
        self.assertIsInstance(users[0], AnonymousUser)

    def test_a_protocol_of_its_own(self):
        self.define(
            base=Binding,
            deserialize=lambda self, message: (message["verb"], message.get("pk"), {}),
            serialize=lambda self, instance, action: {"text": action},
            run_action=lambda binding, action, pk, data: self.calls.append((action, pk)),
            channel_session=True,
            channel_session_user=False,
        )
        with apply_routes([route("verbs", self.binding.consumer)]):
            WSClient().send_and_consume("verbs", {"verb": "list"})
        self.assertEqual(self.calls, [("list", None)])
