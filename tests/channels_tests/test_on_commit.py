"""
When a send leaves that is made inside transaction.atomic(): the layer's default, and the caller's
choice.
"""

import unittest

from django.channels import Channel, Group
from django.channels.asgi import channel_layers
from django.channels.exceptions import LayerUnavailable
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test import Client
from django.db import transaction
from django.test import TransactionTestCase

from .applications import INSTALLED


class Eager(MemoryChannelLayer):
    sends_on_commit = False


class Careful(MemoryChannelLayer):
    sends_on_commit = True


@unittest.skipUnless(hasattr(transaction, "on_commit"), "Django 1.8 knows no on_commit")
class OnCommitTests(TransactionTestCase):
    available_apps = INSTALLED

    def arrived(self, layer):
        return layer.receive_many(["there"])[1]

    def test_a_careful_layer_sends_on_commit_by_default(self):
        layer = Careful()
        with transaction.atomic():
            Channel("there", channel_layer=layer).send({"number": 1})
            self.assertIsNone(self.arrived(layer))
        self.assertEqual(self.arrived(layer), {"number": 1})

    def test_a_test_that_reads_before_the_commit_is_told_why_there_is_nothing(self):
        former = channel_layers.set("default", Careful())
        self.addCleanup(channel_layers.set, "default", former)
        with transaction.atomic():
            Channel("there").send({})
            with self.assertRaisesRegex(AssertionError, "messages wait for the commit") as raised:
                Client().consume("there")
            self.assertIn("derive the test case from ChannelTestCase", str(raised.exception))
        self.assertIsNotNone(Client().get_next_message("there"))
        with self.assertRaises(AssertionError) as raised:
            Client().consume("there")
        self.assertNotIn("wait for the commit", str(raised.exception))

    def test_what_is_rolled_back_was_never_sent(self):
        layer = Careful()
        layer.group_add("group", "there")
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Channel("there", channel_layer=layer).send({})
            Group("group", channel_layer=layer).send({})
            raise ZeroDivisionError
        self.assertIsNone(self.arrived(layer))

    def test_a_caller_may_send_at_once(self):
        layer = Careful()
        with transaction.atomic():
            Channel("there", channel_layer=layer).send({}, on_commit=False)
            self.assertEqual(self.arrived(layer), {})

    def test_an_eager_layer_sends_at_once_by_default(self):
        layer = Eager()
        with transaction.atomic():
            Channel("there", channel_layer=layer).send({})
            self.assertEqual(self.arrived(layer), {})

    def test_a_caller_may_wait_on_any_layer(self):
        layer = Eager()
        layer.group_add("group", "there")
        with transaction.atomic():
            Group("group", channel_layer=layer).send({}, on_commit=True)
            self.assertIsNone(self.arrived(layer))
        self.assertEqual(self.arrived(layer), {})

    def test_outside_of_a_transaction_it_leaves_at_once(self):
        layer = Careful()
        Channel("there", channel_layer=layer).send({})
        self.assertEqual(self.arrived(layer), {})

    def test_a_silent_send_runs_the_hooks_after_it(self):
        layer = Careful()

        def deliver(name, message):
            raise LayerUnavailable("away")

        layer.deliver = layer.deliver_group = deliver
        ran = []
        with transaction.atomic():
            Channel("there", channel_layer=layer).send({}, fail_silently=True)
            Group("group", channel_layer=layer).send({}, fail_silently=True)
            transaction.on_commit(lambda: ran.append(True))
        self.assertEqual((ran, layer.statistics()["sends_dropped"]), ([True], 2))
        with self.assertRaises(LayerUnavailable):
            Channel("there", channel_layer=layer).send({})
        with self.assertRaises(TypeError):
            Channel("there", channel_layer=layer).send({"bad": object()}, fail_silently=True)
