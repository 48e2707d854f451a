"""
Mistakes that neither Channels 2 to 4 nor a misspelt name explain: each ends in an error, or a line of the
log, that says what to write.
"""

import functools

from django.channels import include, route, route_class
from django.channels.auth import channel_session_user, login_required
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.handler import AsgiHandler
from django.channels.routing import InvalidRoute, Router
from django.test import SimpleTestCase


def consumer(message):
    pass


class Echo(WebsocketConsumer):
    pass


class RouteTests(SimpleTestCase):
    def assert_refused(self, call, *words, error=InvalidRoute):
        with self.assertRaises(error) as raised:
            call()
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_a_channel_that_no_message_can_be_on(self):
        for channels in ("websocket.*", "my channel", "", ["websocket.connect", 5], None, 5):
            self.assert_refused(functools.partial(route, channels, consumer), "name")
        self.assert_refused(lambda: route("websocket.*", consumer), "'websocket.*'", "a list")
        self.assert_refused(lambda: Router({5: consumer}), "5")
        self.assertEqual(route(("a", "b?"), consumer).channel_names(), {"a", "b?"})

    def test_what_a_dotted_path_leads_to_must_be_callable(self):
        self.assert_refused(lambda: route("own", __name__), "isn't callable", "function")
        self.assert_refused(lambda: route("own", __name__ + ".__doc__"), "isn't callable")

    def test_a_generator_would_run_nothing_wherever_it_hides(self):
        class Called:
            def __call__(self, message):
                yield message

        class CalledAsync:
            async def __call__(self, message):
                yield message

        def more(message, number=0):
            yield number

        class Yields(WebsocketConsumer):
            def receive(self, text=None, bytes=None, **kwargs):
                yield text

        class YieldsAsync(WebsocketConsumer):
            async def receive(self, text=None, bytes=None, **kwargs):
                yield text

        partial = functools.partial(more, number=1)
        for each in (Called(), CalledAsync(), partial, channel_session_user(more), AsgiHandler()):
            self.assert_refused(functools.partial(route, "own", each), "generator", "yield")
        for each in (Yields, YieldsAsync):
            self.assert_refused(
                functools.partial(route_class, each), ".receive ", "generator", "yield"
            )

    def test_attrs_that_are_no_dict(self):
        self.assert_refused(lambda: Echo.as_route(["groups"]), "path='^/…$'", "is a dict")

    def test_a_decorator_that_is_given_something_else_than_a_consumer(self):
        self.assert_refused(lambda: channel_session_user(None), "None", error=TypeError)
        self.assert_refused(lambda: login_required(4401), "code=4401", error=TypeError)

    def test_a_code_that_no_client_can_be_sent_is_refused_where_it_is_written(self):
        for code in (401, "4401", 1006):
            call = functools.partial(login_required, code=code)
            self.assert_refused(call, repr(code), "3000 to 4999", error=ValueError)

    def test_include_of_what_is_no_list(self):
        self.assert_refused(lambda: include(route("own", consumer)), "list of routes")
