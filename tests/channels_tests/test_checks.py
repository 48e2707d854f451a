"""What manage.py check says about CHANNEL_LAYERS."""

from django.channels import include, route, route_class
from django.channels.checks import check_channel_layers
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.protocol import EVENT_CHANNELS, event_keys
from django.test import SimpleTestCase, override_settings

MEMORY = MemoryChannelLayer.__module__ + ".MemoryChannelLayer"
DATABASE = "django.channels.layers.database.DatabaseChannelLayer"


def consumer(message, **kwargs):
    pass


class SocketConsumer:
    def __init__(self, message, **kwargs):
        pass

    @classmethod
    def channel_names(cls):
        return {"websocket.connect", "websocket.receive", "websocket.disconnect"}


class BrokenLayer(MemoryChannelLayer):
    def __init__(self, **config):
        raise KeyError("region")


def check(backend=MEMORY, alias="default", **entry):
    """Return the problems of one layer."""
    layers = {"default": {"BACKEND": MEMORY}}
    layers[alias] = dict(entry, BACKEND=backend)
    with override_settings(CHANNEL_LAYERS=layers):
        return check_channel_layers(None)


def filters(*routes):
    """Return the warnings about the filters of a routing."""
    return check(ROUTING=list(routes))


class OptionTests(SimpleTestCase):
    def assert_refused(self, problems, *words):
        self.assertEqual([each.id for each in problems], ["channels.E004"], problems)
        for word in words:
            self.assertIn(word, problems[0].msg)

    def test_a_layer_in_order_has_no_problem(self):
        self.assertEqual(check(CONFIG={"capacity": 10}), [])
        self.assertEqual(check(DATABASE, CONFIG={"CAPACITY": 10, "lease": 30}), [])
        self.assertEqual(check(CONFIG=None), [])

    def test_an_option_that_a_layer_refuses_is_an_error_with_the_alias(self):
        for backend, config, words in [
            (MEMORY, {"capcity": 10}, ["'capcity'", "Did you mean 'capacity'?"]),
            (MEMORY, {"capacity": "many"}, ["capacity", "'many'"]),
            (MEMORY, {"capacity": 0}, ["capacity"]),
            (MEMORY, {"expiry": float("nan")}, ["expiry"]),
            (MEMORY, {"threads": -1}, ["threads"]),
            (MEMORY, {"channel_capacity": {"http.*": None}}, ["channel_capacity['http.*']"]),
            (MEMORY, {1: 2}, ["strings"]),
            (MEMORY, "text", []),
            (DATABASE, {"leese": 10}, ["Did you mean 'lease'?"]),
            (DATABASE, {"lease": 1, "heartbeat": 5}, ["lease", "heartbeat"]),
            (DATABASE, {"lost": {"http.*": "no such"}}, ["lost"]),
            (DATABASE, {"prefix": "not a name"}, ["not a name"]),
            (DATABASE, {"retry_safe_requests": "yes"}, ["retry_safe_requests", "True or False"]),
            (DATABASE, {"database": 5}, ["database", "an alias of DATABASES"]),
            (DATABASE, {"file": 5}, ["file", "the path of a file"]),
            (DATABASE, {"file": ""}, ["file"]),
        ]:
            with self.subTest(backend=backend, config=config):
                problems = check(backend, alias="chat", CONFIG=config)
                self.assert_refused(problems, "CHANNEL_LAYERS['chat']", " CONFIG ", *words)

    def test_an_option_that_is_read_with_the_store_is_checked_too(self):
        problems = check(DATABASE, CONFIG={"database": "no_such_alias"})
        self.assert_refused(problems, "no_such_alias")

    def test_test_config_is_checked_too(self):
        self.assert_refused(check(TEST_CONFIG={"capcity": 1}), "TEST_CONFIG", "'capacity'")

    def test_a_layer_that_raises_something_else_is_an_error_and_no_traceback(self):
        self.assert_refused(check(__name__ + ".BrokenLayer"), "KeyError", "region")

    def test_the_check_connects_to_nothing(self):
        from django.channels.layers.database.sqlite import SQLiteConnections

        opened = []
        original = SQLiteConnections.open
        SQLiteConnections.open = lambda self: opened.append(self) or original(self)
        try:
            self.assertEqual(check(DATABASE), [])
        finally:
            SQLiteConnections.open = original
        self.assertEqual(opened, [])

    def test_an_unknown_key_of_an_entry_is_a_warning_with_the_right_one(self):
        (problem,) = check(ROUTNG=[])
        self.assertEqual(problem.id, "channels.W002")
        self.assertIn("'ROUTNG'", problem.msg)
        self.assertIn("Did you mean 'ROUTING'?", problem.hint)


class FilterTests(SimpleTestCase):
    def assert_warned(self, problems, *words):
        self.assertEqual([each.id for each in problems], ["channels.W004"], problems)
        for word in words:
            self.assertIn(word, problems[0].msg + " " + problems[0].hint)

    def test_every_key_of_a_standard_channel_may_be_a_filter(self):
        for channel in EVENT_CHANNELS:
            self.assertIn("path", event_keys(channel))
            every = dict.fromkeys(event_keys(channel), "^x")
            self.assertEqual(filters(route(channel, consumer, **every)), [])

    def test_a_misspelt_filter_is_a_warning_with_the_right_name(self):
        for channel, name, right in [
            ("websocket.receive", "paht", "path"),
            ("websocket.receive", "Text", "text"),
            ("websocket.connect", "subprotocol", "subprotocols"),
            ("websocket.disconnect", "cod", "code"),
            ("http.request", "methods", "method"),
        ]:
            with self.subTest(channel=channel, name=name):
                problems = filters(route(channel, consumer, **{name: "^x"}))
                self.assert_warned(
                    problems, "'default'", repr(name), channel, "Did you mean %r?" % right
                )

    def test_a_key_of_another_standard_channel_is_a_warning(self):
        self.assert_warned(
            filters(route("websocket.receive", consumer, method="^GET$")), "websocket.receive"
        )

    def test_each_filter_of_a_class_is_one_warning(self):
        problems = filters(route_class(SocketConsumer, paht="^/"))
        self.assert_warned(
            problems, "websocket.connect or websocket.disconnect or websocket.receive"
        )

    def test_a_filter_of_an_include_is_checked_for_the_routes_in_it(self):
        inner = [route("http.request", consumer), include([route("websocket.receive", consumer)])]
        self.assert_warned(
            filters(include(inner, pth="^/")), "Include", "'pth'", "Did you mean 'path'?"
        )
        self.assertEqual(filters(include(inner, path="^/")), [])

    def test_the_keys_of_custom_channels_are_free(self):
        self.assertEqual(filters(route("chat.message", consumer, room="^x")), [])
        inner = [route("chat.message", consumer)]
        self.assertEqual(filters(include(inner, room="^x")), [])

    def test_a_custom_channel_beside_a_standard_one_is_not_named(self):
        problems = filters(route(["chat.message", "websocket.receive"], consumer, room="^x"))
        self.assert_warned(problems, "on websocket.receive has")

    def test_routes_of_the_sites_own_kind_are_left_alone(self):
        class Own:
            def channel_names(self):
                return {"websocket.receive"}

            def match(self, channel, content):
                return None

        self.assertEqual(filters(Own()), [])
