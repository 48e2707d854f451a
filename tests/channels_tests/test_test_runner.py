"""channels.test.runner keeps tests off the layer of the running site; channels.test.shared warns of them."""

import asyncio
import io
import unittest
import warnings
from contextlib import redirect_stderr

from django.channels import Channel, Group, route
from django.channels.asgi import channel_layers
from django.channels.layers.base import BaseChannelLayer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test import Client, WSClient
from django.channels.test.base import ChannelTestMixin
from django.channels.test.runner import ChannelTestRunner, empty_layers, in_memory_layers
from django.conf import settings
from django.test import SimpleTestCase, override_settings

from .applications import INSTALLED


class SiteLayer(BaseChannelLayer):
    """Stands for a layer that the running site uses."""

    crosses_processes = True

    def new_channel(self, pattern="", **kwargs):
        return pattern + "1"

    def deliver(self, channel, message):
        raise AssertionError("a test reached the running site")

    deliver_group = group_add = receive_many = deliver


def count(message):
    return "counted"


ROUTING = [route("jobs", count)]
LAYERS = {
    "default": {
        "BACKEND": __name__ + ".SiteLayer",
        "ROUTING": __name__ + ".ROUTING",
        "TEST_CONFIG": {"any": 1},
    },
    "small": {
        "BACKEND": MemoryChannelLayer.__module__ + ".MemoryChannelLayer",
        "CONFIG": {"capacity": 2},
        "ROUTING": [],
    },
}


def run(*cases):
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    for case in cases:
        case.available_apps = INSTALLED  # Django's own runner requires this
    with redirect_stderr(io.StringIO()):
        return ChannelTestRunner(verbosity=0).run_suite(unittest.TestSuite(map(load, cases)))


class RunnerTests(unittest.TestCase):
    def assert_all_passed(self, result, number):
        self.assertEqual([trace for _, trace in result.errors + result.failures], [])
        self.assertEqual(result.testsRun, number)

    def setUp(self):
        overridden = override_settings(CHANNEL_LAYERS=LAYERS)
        overridden.enable()
        self.addCleanup(overridden.disable)

    def test_a_plain_test_case_reaches_no_layer_of_the_site(self):
        class Plain(SimpleTestCase):
            def test_sends(self):
                Group("all").send({"text": "hello"})
                Channel("jobs").send({"row": 1})
                self.assertEqual(Client().consume("jobs"), "counted")

        self.assert_all_passed(run(Plain), 1)
        self.assertIsInstance(channel_layers["default"], SiteLayer)

    def test_each_test_begins_with_empty_layers(self):
        class Plain(unittest.TestCase):
            def test_1(self):
                self.assertIsNone(Client().get_next_message("jobs"))
                Channel("jobs").send({"row": 1})

            test_2 = test_3 = test_1

        self.assert_all_passed(run(Plain), 3)

    def test_a_layer_in_memory_keeps_its_options(self):
        with in_memory_layers():
            self.assertEqual(channel_layers["small"].capacity, 2)

    def test_a_test_case_of_channels_runs_as_before(self):
        class Own(ChannelTestMixin, SimpleTestCase):
            @classmethod
            def setUpClass(cls):
                super().setUpClass()
                cls.layer = channel_layers["default"]

            def test_sends(self):
                Channel("jobs").send({"row": 1})
                self.assertIs(channel_layers["default"], self.layer)
                self.assertEqual(Client().consume("jobs"), "counted")

        self.assert_all_passed(run(Own), 1)

    def test_a_test_may_override_the_layers(self):
        class Plain(unittest.TestCase):
            def test_override(self):
                with override_settings(CHANNEL_LAYERS=LAYERS):
                    self.assertIsInstance(channel_layers["default"], SiteLayer)
                self.assertIsInstance(channel_layers["default"], MemoryChannelLayer)

        self.assert_all_passed(run(Plain), 1)

    def test_layers_are_emptied_by_hand(self):
        with in_memory_layers():
            Channel("jobs").send({"row": 1})
            empty_layers()
            self.assertIsNone(Client().get_next_message("jobs"))


class SiteRecorder(SiteLayer):
    """Stands for a layer that the running site uses, and takes what is sent."""

    def deliver(self, channel, message):
        pass

    deliver_group = deliver


class OwnDatabase(SiteRecorder):
    def is_of_tests(self):
        return True


class SharedLayerTests(unittest.TestCase):
    def warnings_of(self, function):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
        return [each for each in caught if issubclass(each.category, RuntimeWarning)]

    @override_settings(CHANNEL_LAYERS=LAYERS)
    def test_a_client_on_the_layer_of_the_site_is_warned_of_and_named(self):
        for client in (Client, WSClient):
            (warning,) = self.warnings_of(client)
            self.assertIn(
                "uses the layer 'default' of CHANNEL_LAYERS (SiteLayer)", str(warning.message)
            )
            self.assertIn("Derive the test case from ChannelTestCase", str(warning.message))
            self.assertIn("test.runner.ChannelTestRunner'", str(warning.message))
            self.assertEqual(warning.filename, __file__)

    @override_settings(CHANNEL_LAYERS=LAYERS)
    def test_a_client_on_a_layer_in_memory_is_not(self):
        self.assertEqual(self.warnings_of(lambda: Client("small")), [])
        with in_memory_layers():
            self.assertEqual(self.warnings_of(WSClient), [])

    @override_settings(CHANNEL_LAYERS=LAYERS)
    def test_a_client_on_a_layer_that_a_test_has_set_is_not(self):
        former = channel_layers.set("default", SiteLayer())
        self.addCleanup(channel_layers.set, "default", former)
        self.assertEqual(self.warnings_of(Client), [])

    def use(self, layer_class):
        """Make the default layer of the settings one of this class, as the settings of a site do."""
        backend = "%s.%s" % (__name__, layer_class.__name__)
        settings.CHANNEL_LAYERS, former = (
            {"default": {"BACKEND": backend, "ROUTING": ROUTING}},
            getattr(settings, "CHANNEL_LAYERS", None),
        )
        self.addCleanup(channel_layers.forget)
        self.addCleanup(setattr, settings, "CHANNEL_LAYERS", former)
        channel_layers.forget()

    def test_each_send_of_a_plain_test_to_the_running_site_is_warned_of_and_named(self):
        self.use(SiteRecorder)
        for send, words in (
            (
                lambda: Group("all").send({"text": "a"}),
                ["the group 'all'", "site's clients get it"],
            ),
            (lambda: Group("all").send_json([1]), ["the group 'all'"]),
            (
                lambda: Channel("jobs").send({"a": 1}),
                ["the channel 'jobs'", "a worker of the site"],
            ),
            (lambda: Channel("asgi.delay").send({"a": 1}), ["the channel 'asgi.delay'"]),
            (lambda: asyncio.run(Channel("jobs").asend({"a": 1})), ["the channel 'jobs'"]),
        ):
            (warning,) = self.warnings_of(send)
            for word in words + [
                "'default' of CHANNEL_LAYERS (SiteRecorder)",
                "ChannelTestRunner'",
            ]:
                self.assertIn(word, str(warning.message))

        def send_with_a_line_number():
            Group("all").send({"text": "a"})

        (warning,) = self.warnings_of(send_with_a_line_number)
        self.assertEqual(warning.filename, __file__)

    def test_replies_aren_t_warned_of(self):
        self.use(SiteRecorder)
        send = Channel("websocket.send!abc").send
        self.assertEqual(self.warnings_of(lambda: send({"text": "a"})), [])

    def test_a_send_to_a_layer_of_the_tests_is_not(self):
        def send():
            Group("all").send({"text": "a"})
            Channel("jobs").send({"row": 1})

        self.use(OwnDatabase)
        self.assertEqual(self.warnings_of(send), [])
        self.use(SiteRecorder)
        layers = {"default": dict(LAYERS["default"], BACKEND=__name__ + ".SiteRecorder")}
        with override_settings(CHANNEL_LAYERS=layers):
            self.assertEqual(self.warnings_of(send), [])
        with in_memory_layers():
            self.assertEqual(self.warnings_of(send), [])
        self.assertEqual(len(self.warnings_of(send)), 2)
        former = channel_layers.set("default", SiteRecorder())
        self.addCleanup(channel_layers.set, "default", former)
        self.assertEqual(self.warnings_of(send), [])
