"""What manage.py check says about CHANNEL_LAYERS."""

import importlib
import os
import shutil
import sys
import tempfile
import types
import unittest
from unittest import mock

from django.channels import checks, include, route, route_class
from django.channels.asgi import ChannelLayerManager, channel_layers, get_channel_layer
from django.channels.checks import check_asgi, check_channel_layers, check_logging
from django.channels.habits import PACKAGE
from django.channels.layers.database import DatabaseChannelLayer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.protocol import EVENT_CHANNELS, event_keys
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, modify_settings, override_settings

MEMORY = MemoryChannelLayer.__module__ + ".MemoryChannelLayer"
DATABASE = "django.channels.layers.database.DatabaseChannelLayer"
#: As it is in this installation: the package is `channels` in the add-on.
DATABASE_HERE = MEMORY.replace("memory.MemoryChannelLayer", "database.DatabaseChannelLayer")


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
            (
                DATABASE,
                {"prefix": "mysite:"},
                ["option prefix is up to 99 ASCII letters", "'mysite:'"],
            ),
            (DATABASE, {"retry_safe_requests": "yes"}, ["retry_safe_requests", "True or False"]),
            (DATABASE, {"database": 5}, ["database", "an alias of DATABASES"]),
            (DATABASE, {"file": 5}, ["file", "the path of a file"]),
            (DATABASE, {"file": ""}, ["file"]),
        ]:
            with self.subTest(backend=backend, config=config):
                problems = check(backend, alias="chat", CONFIG=config)
                self.assert_refused(problems, "CHANNEL_LAYERS['chat']", " CONFIG ", *words)

    def test_an_option_of_gateways_that_is_refused_is_an_error(self):
        for options in ({"header_size": 1}, {"headers_size": "many"}, [1]):
            with self.subTest(options=options):
                found = check(GATEWAY=options)
                self.assertEqual([each.id for each in found], ["channels.E006"])
                self.assertIn("CHANNEL_LAYERS['default']: ", found[0].msg)
        self.assertEqual(check(GATEWAY={"headers_size": 1000}), [])

    def test_the_app_of_the_tables_is_missing(self):
        app = DATABASE_HERE[: -len(".DatabaseChannelLayer")]
        self.assertEqual(check(DATABASE), [])  # SQLite: the layer makes its tables itself
        where = DatabaseChannelLayer.__module__ + ".aliases"
        server = {"default": mock.Mock(vendor="postgresql")}
        with mock.patch(where, server), mock.patch.object(DatabaseChannelLayer, "make_store"):
            (problem,) = check(DATABASE, alias="chat")
            with modify_settings(INSTALLED_APPS={"append": app}):
                self.assertEqual(check(DATABASE), [])
        self.assertEqual(problem.id, "channels.E009")
        self.assertIn("CHANNEL_LAYERS['chat']", problem.msg)
        for word in (repr(app), "INSTALLED_APPS", "migrate"):
            self.assertIn(word, problem.hint)

    def test_an_option_that_is_read_with_the_store_is_checked_too(self):
        problems = check(DATABASE, CONFIG={"database": "no_such_alias"})
        self.assert_refused(problems, "no_such_alias")

    def test_test_config_is_checked_too(self):
        self.assert_refused(check(TEST_CONFIG={"capcity": 1}), "TEST_CONFIG", "'capacity'")

    def test_a_key_that_stands_inside_or_outside_of_config_by_mistake(self):
        (problem,) = check(CONFIG={"ROUTING": "mysite.routing"})
        self.assert_refused([problem], "'ROUTING'")
        self.assertIn("Move ROUTING out of CONFIG", problem.hint)
        (problem,) = check(hosts=["redis://127.0.0.1"])
        self.assertIn("options of the layer stand in CONFIG", problem.hint)

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


class NotALayer:
    """As the layers of Channels 1.x were, or another package's: an unrelated class."""

    def __init__(self, expiry=60):
        pass


class BackendTests(SimpleTestCase):
    """Settings of other releases: the check and the start say which BACKEND to write."""

    def assert_refused(self, backend, *words):
        (problem,) = check(backend)
        self.assertEqual(problem.id, "channels.E002")
        layers = {"default": {"BACKEND": backend}}
        with override_settings(CHANNEL_LAYERS=layers):
            with self.assertRaises(ImproperlyConfigured) as raised:
                ChannelLayerManager()["default"]
        for word in (repr(backend),) + words:
            self.assertIn(word, problem.msg)
            self.assertIn(word, str(raised.exception))

    def test_layers_of_other_releases_are_refused_with_the_backend_to_write(self):
        for backend, instead in [
            ("asgi_ipc.IPCChannelLayer", DATABASE_HERE),
            ("asgi_ipc.core.IPCChannelLayer", "asgi_redis.RedisChannelLayer"),
            ("asgiref.base_layer.BaseChannelLayer", MEMORY),
            ("asgi_rabbitmq.RabbitmqChannelLayer", DATABASE_HERE),
            ("asgi_rabbitmq.RabbitmqLocalChannelLayer", DATABASE_HERE),
            ("channels.backends.database.DatabaseChannelBackend", DATABASE_HERE),
            ("channels.database_layer.DatabaseChannelLayer", DATABASE_HERE),
            ("channels.layers.InMemoryChannelLayer", MEMORY),
            ("channels_redis.core.RedisChannelLayer", "asgi_redis.RedisChannelLayer"),
            ("channels_redis.pubsub.RedisPubSubChannelLayer", "asgi_redis.RedisChannelLayer"),
        ]:
            with self.subTest(backend=backend):
                self.assert_refused(backend, repr(instead))

    def test_the_in_memory_layer_of_asgiref_works_with_its_options(self):
        config = {"expiry": 30, "group_expiry": 60, "capacity": 7, "channel_capacity": {"a*": 3}}
        self.assertEqual(check("asgiref.inmemory.ChannelLayer", CONFIG=config), [])

    def test_a_class_that_is_no_layer_is_refused(self):
        for backend in (__name__ + ".NotALayer", __name__ + ".consumer", "json.dumps"):
            with self.subTest(backend=backend):
                self.assert_refused(backend, "BaseChannelLayer", DATABASE_HERE)

    def test_a_misspelt_layer_of_the_asgi_redis_that_is_here_is_not_to_be_installed(self):
        ours = types.ModuleType("asgi_redis")
        ours.RedisChannelLayer = MemoryChannelLayer
        with mock.patch.dict(sys.modules, asgi_redis=ours):
            self.assert_refused(
                "asgi_redis.RedisChanelLayer",
                "did you mean 'asgi_redis.RedisChannelLayer'?",
                "check the path",
            )
            (problem,) = check("asgi_redis.RedisChanelLayer")
        self.assertNotIn("pip install", problem.msg)

    def test_the_package_in_place_of_the_layer(self):
        self.assert_refused("asgi_redis", "write 'asgi_redis.RedisChannelLayer'")

    def test_asgi_redis_1_is_to_be_replaced(self):
        # As it is when the package of that name is the old one.
        name, old = "asgi_redis", sys.modules.get("asgi_redis")
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].RedisChannelLayer = NotALayer
        try:
            self.assert_refused("asgi_redis.RedisChannelLayer", "asgi_redis 1.x", "pip install")
            self.assert_refused("asgi_redis.RedisSentinelChannelLayer", "pip install")
        finally:
            del sys.modules[name]
            if old is not None:
                sys.modules[name] = old

    def test_a_package_that_breaks_on_this_python_is_a_problem_and_no_traceback(self):
        with mock.patch.dict(sys.modules, {"no_such_layers": None}):
            self.assert_refused("no_such_layers.Layer", "cannot be imported")
        broken = mock.Mock(import_module=mock.Mock(side_effect=SyntaxError("async")))
        with mock.patch("django.channels.imports.importlib", broken):
            self.assert_refused("old_layers.Layer", "SyntaxError", "async")


class FilterTests(SimpleTestCase):
    def assert_warned(self, problems, *words):
        self.assertEqual([each.id for each in problems], ["channels.W004"], problems)
        for word in words:
            self.assertIn(word, problems[0].msg + " " + problems[0].hint)

    def test_every_key_of_a_standard_channel_may_be_a_filter(self):
        for channel in EVENT_CHANNELS:
            self.assertIn("path", event_keys(channel))
            every = dict.fromkeys(event_keys(channel), "(?:/|x)")
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

            def match(self, message):
                return None

        self.assertEqual(filters(Own()), [])


class SettingChangedTests(SimpleTestCase):
    def test_a_layer_that_was_made_follows_the_setting(self):
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", None))
        before = channel_layers["default"]
        layers = {"default": {"BACKEND": MEMORY, "CONFIG": {"capacity": 7}}}
        with override_settings(CHANNEL_LAYERS=layers):
            inside = channel_layers["default"]
            self.assertEqual(inside.capacity, 7)
            with mock.patch.object(inside, "close") as close, override_settings(CHANNEL_LAYERS={}):
                self.assertEqual(channel_layers["default"].capacity, before.capacity)
            close.assert_called_once_with()
        after = channel_layers["default"]
        self.assertEqual(after.capacity, before.capacity)
        with override_settings(SECRET_KEY="another"):
            self.assertIs(channel_layers["default"], after)

    def test_a_layer_that_a_test_has_set_stays(self):
        layer = MemoryChannelLayer()
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", layer))
        with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": MEMORY}}):
            self.assertIs(channel_layers["default"], layer)

    def test_a_layer_that_this_process_serves_is_not_closed(self):
        self.addCleanup(channel_layers.set, "default", channel_layers.set("default", None))
        layer = channel_layers["default"]
        layer.is_served = True
        with mock.patch.object(layer, "close") as close, override_settings(CHANNEL_LAYERS={}):
            self.assertIsNot(channel_layers["default"], layer)
        close.assert_not_called()


class ImportTests(SimpleTestCase):
    """What a module of the site raises while it is imported is shown as itself, with its file and line."""

    def problem_of(self, source, **entry):
        """Return the one problem of a layer if the module site_with_a_mistake has this source."""
        with tempfile.TemporaryDirectory() as folder:
            self.path = os.path.join(folder, "site_with_a_mistake.py")
            with open(self.path, "w") as module:
                module.write(source)
            sys.modules.pop("site_with_a_mistake", None)
            importlib.invalidate_caches()
            with mock.patch.object(sys, "path", [folder] + sys.path):
                entry = entry or {"ROUTING": "site_with_a_mistake.channel_routing"}
                (problem,) = check(**entry)
        return problem

    def test_an_error_in_the_module_of_the_routes_is_shown_with_its_line(self):
        for source, text in (
            (
                "import os\nos.nope\nchannel_routing = []",
                "AttributeError: module 'os' has no attribute",
            ),
            ("\nfrom os import nope", "ImportError: cannot import name 'nope'"),
            ("\nimport no_such_module", "No module named 'no_such_module'"),
        ):
            with self.subTest(source):
                problem = self.problem_of(source)
                self.assertEqual(problem.id, "channels.E003")
                self.assertIn(text, problem.msg)
                self.assertIn("(%s, line 2)" % self.path, problem.msg)
                for wrong in ("does not define", "Write the dotted path"):
                    self.assertNotIn(wrong, problem.msg + problem.hint)
        # The others are raised with their traceback, so that runserver watches the file.
        for source, error in (("\nnope", NameError), ("\nchannel_routing = [", SyntaxError)):
            with self.assertRaises(error):
                self.problem_of(source)

    def test_a_route_that_is_refused_is_shown_with_its_line(self):
        source = (
            "from %s import route\nchannel_routing = [\n    route('test', lambda: 1)]" % PACKAGE
        )
        problem = self.problem_of(source)
        self.assertIn("it doesn't take the message", problem.msg)
        self.assertEqual(problem.hint, "Raised at %s, line 3." % self.path)

    def test_a_name_that_the_module_lacks_is_named_with_the_remedy(self):
        problem = self.problem_of("channel_routes = []")
        self.assertIn("has no attribute 'channel_routing'", problem.msg)
        self.assertIn("Write the dotted path of a list of routes", problem.msg)

    def test_a_misspelt_name_is_named_with_the_one_that_is_near(self):
        problem = self.problem_of("channel_routng = []")
        self.assertIn("did you mean 'site_with_a_mistake.channel_routng'?", problem.msg)

    def test_a_module_in_place_of_what_stands_in_it_is_called_a_module(self):
        for path in ("wsgiref.validate", "os.path"):  # the second one has been imported
            problem = self.problem_of("", ROUTING=path)
            for word in (
                "'%s' cannot be imported: it is a module" % path,
                "a list of routes, such as",
            ):
                self.assertIn(word, problem.msg)

    def test_an_error_in_the_module_of_a_consumer_or_a_layer_is_shown_with_its_line(self):
        source = "import os\nos.nope"
        problem = self.problem_of(source, ROUTING={"test": "site_with_a_mistake.consumer"})
        self.assertIn("AttributeError: module 'os' has no attribute 'nope'", problem.msg)
        self.assertIn("(%s, line 2)" % self.path, problem.msg)
        problem = self.problem_of(source, backend="site_with_a_mistake.Layer")
        self.assertEqual(problem.id, "channels.E002")
        self.assertIn("AttributeError: module 'os' has no attribute 'nope'", problem.msg)
        self.assertIn("(%s, line 2)" % self.path, problem.msg)


class RouteTests(SimpleTestCase):
    def assert_warned(self, id, problems, *words):
        self.assertEqual([each.id for each in problems], [id], problems)
        for word in words:
            self.assertIn(word, problems[0].msg + problems[0].hint)

    def test_a_route_behind_one_that_takes_its_messages(self):
        first, room = route("a", consumer), route("a", consumer, path=r"^/room/$")
        for routes in (
            [first, route("a", consumer)],
            [first, room],
            [room, route("a", consumer, path=r"^/room/$")],
            [include([first, room], path="^/x")],
        ):
            problems = check(ROUTING=routes)
            self.assert_warned("channels.W022", problems, "takes no message", "stands before it")
        for routes in (
            [room, first],
            [first, route(["a", "b"], consumer)],
            [room, route("a", consumer, path=r"^/other/$")],
            [include([first]), include([first])],
        ):
            self.assertEqual(check(ROUTING=routes), [])

    def test_a_filter_by_a_method_in_lower_case(self):
        problems = check(ROUTING=[route("http.request", consumer, method="^post$")])
        self.assert_warned("channels.W015", problems, "method='^post$'", "Write method='^POST$'")
        for method in ("^POST$", "(?i)^post$", "^[A-Z]"):
            self.assertEqual(check(ROUTING=[route("http.request", consumer, method=method)]), [])

    def test_an_include_that_takes_the_whole_path_leaves_none_to_its_routes(self):
        for outer in ("^/x$", r"^/x/$"):
            inner = route("websocket.receive", consumer, path="^/chat/$")
            problems = check(ROUTING=[include([inner], path=outer)])
            self.assert_warned(
                "channels.W015", problems, "path='^/chat/$'", repr(outer), "Remove the $"
            )
        for outer, inner in (("^/x", "^/chat/$"), ("^/x$", "^$"), (r"^/x\$", "^/chat/$")):
            routes = [route("websocket.receive", consumer, path=inner)]
            self.assertEqual(check(ROUTING=[include(routes, path=outer)]), [], outer)

    def test_a_path_with_a_query_string(self):
        for path in (r"^/chat/\?token=", r"^/chat/\?", "^/chat/?token=(?P<token>.*)"):
            each = route("websocket.connect", lambda message, **kwargs: None, path=path)
            problems = check(ROUTING=[each])
            self.assert_warned(
                "channels.W015", problems, "no query string", "message['query_string']"
            )
        for path in ("^/chat/?$", r"^/(?P<a>\w+)/(?P=a)/$", r"^/\\?$"):
            each = route("websocket.connect", lambda message, **kwargs: None, path=path)
            self.assertEqual(check(ROUTING=[each]), [], path)

    def test_a_path_that_is_a_url(self):
        for path in ("ws://localhost:8000/chat/", "^wss?://example.com/chat/", "chat/"):
            problems = check(ROUTING=[route("websocket.receive", consumer, path=path)])
            self.assert_warned("channels.W015", problems, repr(path), "Write path=r'^/chat/'.")

    def test_a_path_without_a_slash_in_an_include(self):
        routes = [route("websocket.receive", consumer, path="^room/$")]
        self.assertEqual(check(ROUTING=[include(routes, path="^/chat/")]), [])
        problems = check(ROUTING=[include([include(routes)])])
        self.assert_warned("channels.W015", problems, "path='^room/$'", "begins with a slash")

    def test_the_name_of_what_is_sent_to_a_client(self):
        for name, remedy in (
            ("websocket.send", 'message.reply_channel.send({"text"'),
            ("websocket.accept", 'message.reply_channel.send({"accept"'),
            ("http.response", 'message.reply_channel.send({"status"'),
            ("websocket.message", "route('websocket.receive', consumer)"),
        ):
            problems = check(ROUTING=[route(name, consumer)])
            self.assert_warned("channels.W015", problems, repr(name), remedy, "Messages")
        self.assertEqual(check(ROUTING=[route("websocket.notify", consumer)]), [])

    def test_a_pattern_that_is_near_a_channel_and_matches_none(self):
        routing = [route("thumbnails", consumer)]
        for pattern, near in [
            ("htp.request", "http.request"),
            ("websocket.recieve", "websocket.receive"),
            ("thumbnail", "thumbnails"),
            ("htp.*", "http.*"),
        ]:
            problems = check(ROUTING=routing, CONFIG={"channel_capacity": {pattern: 5}})
            words = [repr(pattern), "channel_capacity", "Did you mean %r?" % near]
            self.assert_warned("channels.W023", problems, *words)
        problems = check(DATABASE, ROUTING=routing, CONFIG={"lost": {"thumbnail": "retry"}})
        self.assert_warned("channels.W023", problems, "option lost")
        for pattern in (
            "http.*",
            "thumb*",
            "mail.send",
            "http.response!*",
            "gateway.*!*",
            "http.request*",
        ):
            self.assertEqual(check(ROUTING=routing, CONFIG={"channel_expiry": {pattern: 5}}), [])


class LoggingTests(SimpleTestCase):
    def check(self, value):
        # From Django 6.1, override_settings would configure the logging of this process.
        with mock.patch.object(checks, "settings", types.SimpleNamespace(LOGGING=value)):
            return [each.id for each in check_logging(None)]

    def ids(self, *names):
        return self.check({"version": 1, "loggers": dict.fromkeys(names, {})})

    @unittest.skipIf(PACKAGE == "django.channels", "the package has the name of its loggers")
    def test_loggers_with_the_name_of_the_package_are_named(self):
        self.assertEqual(self.ids(PACKAGE), ["channels.W027"])
        self.assertEqual(self.ids("django", PACKAGE + ".worker"), ["channels.W027"])

    def test_other_loggers_are_left_alone(self):
        for names in ((), ("django",), ("django.channels",), (PACKAGE, "django.channels.worker")):
            self.assertEqual(self.ids(*names), [], names)
        for value in ({}, None, {"version": 1}):
            self.assertEqual(self.check(value), [])
        self.assertEqual(self.ids(PACKAGE + "x"), [])


class AsgiFileTests(SimpleTestCase):
    def ids(
        self,
        text,
        routes=(consumer,),
        words=("serves Django's own application", "startasgi --force"),
    ):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        os.mkdir(os.path.join(folder, "asgi_file"))
        for name, content in (("__init__.py", ""), ("asgi.py", text)):
            if content is not None:
                with open(os.path.join(folder, "asgi_file", name), "w") as file:
                    file.write(content)
        layers = {"default": {"BACKEND": MEMORY}}
        if routes:
            layers["default"]["ROUTING"] = [route("own", each) for each in routes]
        sys.modules.pop("asgi_file", None)
        importlib.invalidate_caches()
        with mock.patch.object(sys, "path", [folder] + sys.path):
            with override_settings(CHANNEL_LAYERS=layers, ROOT_URLCONF="asgi_file.urls"):
                found = check_asgi(None)
        sys.modules.pop("asgi_file", None)
        for each in found:
            self.assertIn("asgi_file.asgi %s" % words[0], each.msg)
            self.assertIn(words[1], each.hint)
        return [each.id for each in found]

    def test_the_file_of_startproject_is_named_and_not_run(self):
        theirs = "from django.core.asgi import get_asgi_application\nraise SystemExit\n"
        self.assertEqual(self.ids(theirs), ["channels.W026"])
        self.assertEqual(self.ids(theirs, routes=()), [])

    def test_a_function_that_is_not_called_is_named(self):
        start = "from %s import asgi\n" % PACKAGE
        for line in (
            "channel_layer = asgi.get_channel_layer",
            "application=get_channel_layer  # it",
        ):
            words = ("has the function", "channel_layer = get_channel_layer()")
            self.assertEqual(self.ids(start + line + "\n", words=words), ["channels.W026"], line)
        self.assertEqual(self.ids(start + "layer = asgi.get_channel_layer()\n"), [])

    def test_a_server_that_runs_the_function_is_told_so(self):
        with self.assertRaisesRegex(
            ImproperlyConfigured, r"get_channel_layer\(\), with parenth.*ASGI"
        ):
            get_channel_layer({"type": "http", "path": "/"})

    def test_a_file_that_serves_a_layer_is_left_alone(self):
        ours = "from %s.asgi import get_channel_layer\n" % PACKAGE
        both = "from django.core.asgi import get_asgi_application\n" + ours
        for text in (ours, both, "", "application = None\n", None):
            self.assertEqual(self.ids(text), [], text)

    def test_a_site_without_the_file_or_a_package_is_left_alone(self):
        for urls in ("urls", "nowhere_at_all.urls", __name__):
            with override_settings(ROOT_URLCONF=urls, CHANNEL_LAYERS={"default": {"ROUTING": [1]}}):
                self.assertEqual(check_asgi(None), [])
