"""Names of Channels 1.x: what moved still works, and warns with its new place. The rest is where it was."""

import importlib
import sys
import unittest
import warnings

from django import channels
from django.channels import asgi, consume, route
from django.channels.test import ChannelTestCase, Client, HttpClient, WSClient, apply_routes, base

PACKAGE = channels.__name__


class OldNamesTests(unittest.TestCase):
    def used(self, use):
        """Return what `use()` returns, and the one deprecation warning that it gives."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = use()
        found = [each for each in caught if issubclass(each.category, DeprecationWarning)]
        self.assertEqual(len(found), 1, [str(each.message) for each in caught])
        self.assertTrue(str(found[0].message).startswith(PACKAGE + "."))
        return value, str(found[0].message)

    def imported(self, name):
        sys.modules.pop("%s.%s" % (PACKAGE, name), None)
        return self.used(lambda: importlib.import_module("%s.%s" % (PACKAGE, name)))

    def test_channels_tests(self):
        module, warning = self.imported("tests")
        self.assertIs(module.ChannelTestCase, ChannelTestCase)
        self.assertIs(module.HttpClient, HttpClient)
        self.assertIs(module.apply_routes, apply_routes)
        self.assertIs(module.Client, Client)
        self.assertIn("use %s.test instead" % PACKAGE, warning)

    def test_channels_test_websocket(self):
        module, warning = self.imported("test.websocket")
        self.assertIs(module.WSClient, WSClient)
        self.assertIn("use %s.test instead" % PACKAGE, warning)

    def test_channels_utils(self):
        module, warning = self.imported("utils")
        self.assertEqual(module.name_that_thing(route), consume.consumer_name(route))

    def test_default_channel_layer(self):
        value, warning = self.used(lambda: channels.DEFAULT_CHANNEL_LAYER)
        self.assertEqual(value, asgi.DEFAULT_LAYER_ALIAS)
        self.assertIn("use %s.asgi.DEFAULT_LAYER_ALIAS instead" % PACKAGE, warning)

    def test_channel_test_case_mixin(self):
        from django.channels import test

        for module in (base, test):
            value, warning = self.used(lambda: module.ChannelTestCaseMixin)  # noqa: B023
            self.assertIs(value, base.ChannelTestMixin)

    def test_setup_logger(self):
        from django.channels import log

        logger, warning = self.used(lambda: log.setup_logger("channels_tests.old", verbosity=2))
        self.assertEqual((logger.name, logger.level), ("channels_tests.old", 10))
        self.assertIn("LOGGING", warning)

    def test_a_name_that_never_was_is_an_error(self):
        for module in (channels, base):
            with self.assertRaisesRegex(AttributeError, "Groop"):
                getattr(module, "Groop")  # noqa: B009


#: What the documentation of Channels 1.1 names, by module, apart from what moved.
DOCUMENTED = {
    "asgi": "get_channel_layer",
    "auth": "channel_session_user channel_session_user_from_http http_session_user transfer_user",
    "binding.base": "Binding CREATE DELETE UPDATE",
    "binding.websockets": "WebsocketBinding WebsocketBindingWithMembers",
    "delay.models": "DelayedMessage",
    "exceptions": "ChannelSocketException ConsumeLater DenyConnection RequestAborted RequestTimeout "
    "SendNotAvailableOnDemultiplexer WebsocketCloseException",
    "generic": "BaseConsumer",
    "generic.websockets": "JsonWebsocketConsumer WebsocketConsumer WebsocketDemultiplexer "
    "WebsocketMultiplexer",
    "handler": "AsgiHandler AsgiRequest",
    "message": "Message",
    "routing": "include route route_class",
    "security.websockets": "AllowedHostsOnlyOriginValidator BaseOriginValidator allowed_hosts_only",
    "sessions": "channel_and_http_session channel_session enforce_ordering http_session",
    "signals": "consumer_finished consumer_started worker_process_ready worker_ready",
    "test": "ChannelLiveServerTestCase ChannelTestCase Client HttpClient "
    "TransactionChannelTestCase WSClient apply_routes",
}

#: The same of classes: their attributes and methods.
MEMBERS = {
    "binding.base.Binding": "create delete deserialize exclude fields group_names has_permission model "
    "run_action serialize update",
    "binding.websockets.WebsocketBinding": "consumer stream",
    "channel.Channel": "send",
    "channel.Group": "add discard send",
    "generic.BaseConsumer": "as_route channel_names channel_session channel_session_user dispatch "
    "get_handler method_mapping",
    "generic.websockets.WebsocketConsumer": "close connect connection_groups disconnect group_send groups "
    "http_user http_user_and_session raw_connect raw_disconnect raw_receive receive send "
    "slight_ordering strict_ordering",
    "generic.websockets.JsonWebsocketConsumer": "decode_json encode_json",
    "generic.websockets.WebsocketDemultiplexer": "consumers multiplexer_class",
    "generic.websockets.WebsocketMultiplexer": "encode_json group_send send",
    "handler.AsgiHandler": "encode_response",
    "security.websockets.BaseOriginValidator": "validate_origin",
    "test.ChannelLiveServerTestCase": "live_server_url live_server_ws_url",
    "test.ChannelTestCase": "get_next_message test_channel_aliases",
    "test.Client": "consume join_group receive send send_and_consume",
    "test.HttpClient": "force_login get_cookies login session set_cookie set_header",
}

OPTIONS = {
    "runserver": ("--noasgi", "--noworker", "--nothreading", "--noreload", "--nostatic"),
    "runworker": ("--layer=x", "--threads=2", "--only-channels=a.*", "--exclude-channels=b", "-v2"),
}


class DocumentedNamesTests(unittest.TestCase):
    """A project of 1.x finds what the documentation of 1.1 names, where it names it."""

    def test_modules_have_their_names(self):
        for module, names in DOCUMENTED.items():
            found = importlib.import_module("%s.%s" % (PACKAGE, module))
            with self.subTest(module):
                self.assertEqual([each for each in names.split() if not hasattr(found, each)], [])

    def test_the_package_has_its_names(self):
        for name in ("Channel", "Group", "channel_layers", "include", "route", "route_class"):
            self.assertTrue(hasattr(channels, name), name)

    def test_classes_have_their_members(self):
        for place, names in MEMBERS.items():
            module, _, name = place.rpartition(".")
            found = getattr(importlib.import_module("%s.%s" % (PACKAGE, module)), name)
            with self.subTest(place):
                self.assertEqual([each for each in names.split() if not hasattr(found, each)], [])

    def test_commands_take_their_options(self):
        for name, options in OPTIONS.items():
            place = "%s.management.commands.%s" % (PACKAGE, name)
            command = importlib.import_module(place).Command()
            parser = command.create_parser("manage.py", name)
            for option in options:
                with self.subTest(name, option=option):
                    parser.parse_args([option])
