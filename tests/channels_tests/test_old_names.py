"""Names of Channels 1.x that moved: each still works, and warns with its new place."""

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
