"""What manage.py check and check --deploy say about what is open to clients."""

import functools
import sys
from unittest import mock

from django.channels import include, route, route_class
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.security import checks
from django.channels.security.websockets import BaseOriginValidator, allowed_origins, any_origin
from django.core.checks import run_checks
from django.test import SimpleTestCase, override_settings

MEMORY = "django.channels.layers.memory.MemoryChannelLayer"
#: The newest version with a fault of each package, and the first without.
VERSIONS = {
    "daphne": ("4.2.1", "4.2.2"),
    "twisted": ("22.10.0", "24.7.0rc1"),
    "h11": ("0.14.0", "0.16.0"),
    "h2": ("4.1.0", "4.3.0+local"),
    "httptools": ("0.6.1", "0.6.3"),
    "gunicorn": ("22.0.0", "23.0.0"),
}
OLD = {name: old for name, (old, _) in VERSIONS.items()}
GOOD = {name: good for name, (_, good) in VERSIONS.items()}


@any_origin
def public(message):
    pass


@allowed_origins("https://partner.example")
def partners(message):
    pass


def plain(message):
    pass


class Public(WebsocketConsumer):
    any_origin = True


class Nobody(BaseOriginValidator):
    def validate_origin(self, message, origin):
        return False


class Validated(Public):
    origin_validator = Nobody


class VersionTests(SimpleTestCase):
    def names(self, versions, python=(3, 11)):
        """The packages that `check`, and those that only `check --deploy` names."""
        with mock.patch.object(checks, "installed_version", versions.get):
            with mock.patch.object(sys, "version_info", python):
                found = checks.check_versions(None), checks.check_old_python(None)
        for each in found[0] + found[1]:
            self.assertEqual(each.id, "channels.W005")
        return [[each.msg.split()[0] for each in some] for some in found]

    def test_old_versions_are_named(self):
        self.assertEqual(self.names(OLD), [list(OLD), []])

    def test_newer_and_missing_ones_are_not(self):
        self.assertEqual(self.names(GOOD), [[], []])
        self.assertEqual(self.names({}), [[], []])
        self.assertEqual(self.names({"daphne": "5"}), [[], []])

    def test_what_this_python_cannot_have_is_named_with_deploy_alone(self):
        newer_python = [name for name in OLD if name != "gunicorn"]
        self.assertEqual(self.names(OLD, (3, 7)), [["gunicorn"], newer_python])
        can_have = ["twisted", "h11", "httptools", "gunicorn"]
        self.assertEqual(self.names(OLD, (3, 8)), [can_have, ["daphne", "h2"]])

    def test_the_versions_of_this_environment_are_found(self):
        self.assertRegex(checks.installed_version("django"), r"^[0-9]+\.[0-9]+")
        self.assertIsNone(checks.installed_version("no-such-package"))


class DeployTests(SimpleTestCase):
    def ids(self, deploy=True):
        found = run_checks(tags=["channels"], include_deployment_checks=deploy)
        return [each.id for each in found if each.id not in ("channels.W005",)]

    @override_settings(
        ALLOWED_HOSTS=["example.com", "*"],
        CSRF_TRUSTED_ORIGINS=["https://a.example", "http://b.example"],
        CHANNEL_SESSION_KEY_IN_QUERY=True,
        CHANNEL_DAPHNE_ROOT_PATH=True,
    )
    def test_open_settings_are_named(self):
        with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": MEMORY}}):
            expected = ["channels.W006", "channels.W008", "channels.W009", "channels.W010"]
            self.assertEqual(self.ids(), expected)
            self.assertEqual(self.ids(deploy=False), [])

    def routes(self, *routes):
        with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": MEMORY, "ROUTING": routes}}):
            return [each.msg for each in checks.check_routes(None)]

    def test_open_routes_are_named(self):
        found = self.routes(
            route("websocket.connect", public),
            include([route_class(Public, path="^/x")], path="^/y"),
            route("websocket.connect", partners),
        )
        self.assertEqual(len(found), 1)
        for consumer in (public, Public):
            self.assertIn("%s.%s" % (__name__, consumer.__name__), found[0])
        self.assertNotIn("partners", found[0])

    def test_the_function_of_a_partial_is_named(self):
        found = self.routes(route("websocket.connect", functools.partial(public, room=1)))
        self.assertIn("%s.public" % __name__, found[0])

    def test_other_routes_are_not(self):
        found = self.routes(
            route("websocket.connect", plain),
            route("websocket.receive", public),
            route("http.request", public),
            route_class(Validated),
        )
        self.assertEqual(found, [])

    def test_broken_layers_are_the_business_of_other_checks(self):
        for layers in ([], {"default": None}, {"default": {"ROUTING": "no.such.routing"}}):
            with override_settings(CHANNEL_LAYERS=layers):
                self.assertEqual(checks.check_routes(None), [])
