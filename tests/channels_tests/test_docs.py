"""
Test the documentation: its examples run, and its names, signatures and numbers are those of the code.

If the first line of a block of Python is a comment with the name of a file, the block is that file. Other
blocks are executed. Blocks in other languages name their language (`.. code-block:: console`).
"""

import ast
import importlib
import inspect
import io
import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
import types
import unittest
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

import django
import django.channels
from django.channels import Channel, Group
from django.channels.asgi import channel_layers
from django.channels.binding import base as binding_base
from django.channels.log import RateLimit
from django.channels.test import ChannelTestCase, HttpClient, WSClient, apply_routes, runner
from django.core.management import find_commands, load_command_class
from django.test import SimpleTestCase, modify_settings, override_settings

from .support import sites
from .support.requirements import require
from .support.waiting import TIMEOUT, wait_until

PACKAGE = django.channels.__name__
DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "docs")

#: The parts of docs/ that this project adds. Inside the patched Django, the rest is Django's own.
TREES = ["topics/channels.txt", "topics/channels", "ref/channels", "howto/deployment/asgi"]
TREES += ["internals/channels.txt", "internals/channels", "howto/channels"]
if os.path.isdir(os.path.join(DOCS, "addon")):
    TREES += ["addon/tutorial", "addon/deploy"]

_FILE = re.compile(r"# (\w+(?:/\w+)+\.py)$")


def pages():
    """Return the names of this project's pages, such as "topics/channels/groups.txt"."""
    found = []
    for name in TREES:
        path = os.path.join(DOCS, name)
        if os.path.isdir(path):
            found += [
                name + "/" + each for each in sorted(os.listdir(path)) if each.endswith(".txt")
            ]
        else:
            found.append(name)
    return found


def sources():
    """Yield the text of each Python file of the package, and of the Redis layer if it is present."""
    redis = os.path.join(os.path.dirname(DOCS), "asgi_redis", "asgi_redis")
    for top in (os.path.dirname(django.channels.__file__), redis):
        for folder, _, names in os.walk(top):
            for name in names:
                if name.endswith(".py"):
                    with open(os.path.join(folder, name), encoding="utf-8") as source:
                        yield source.read()


def text_of(name):
    with open(os.path.join(DOCS, name), encoding="utf-8") as page:
        return page.read()


def python_blocks(text):
    """Return `(line number, source)` of each block of Python in a page, with this package's name."""
    lines = text.split("\n")
    blocks = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        directive = re.match(r" *\.\. code-block:: *(\w+)", line)
        if directive is None and (not line.endswith("::") or line.lstrip().startswith(".. ")):
            continue
        indent = len(line) - len(line.lstrip())
        block, start = [], None
        while number < len(lines):
            line = lines[number]
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            if line.strip() and start is None:
                start = number + 1
            block.append(line)
            number += 1
        if directive is None or directive.group(1) == "python":
            source = textwrap.dedent("\n".join(block)).strip("\n") + "\n"
            source = source.replace("django.channels", PACKAGE)
            if django.VERSION < (1, 10):  # as the pages say
                source = re.sub(r"\bis_authenticated\b", "is_authenticated()", source)
            blocks.append((start, source))
    return blocks


class Page:
    """The examples of one page: `files` has the files by path, and `run()` executes the other blocks."""

    def __init__(self, name):
        self.name = name
        self.files = {}
        self.blocks = []
        for number, source in python_blocks(text_of(name)):
            title = _FILE.match(source.split("\n", 1)[0])
            if title is None:
                self.blocks.append((number, source))
            else:
                self.files[title.group(1)] = source

    @contextmanager
    def importable(self):
        """Make the page's files importable. Afterwards, remove them and their modules."""
        folder = os.path.realpath(tempfile.mkdtemp(prefix="channels-docs-"))
        tops = {path.split("/")[0] for path in self.files}
        try:
            for path, source in self.files.items():
                path = os.path.join(folder, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(os.path.join(os.path.dirname(path), "__init__.py"), "a").close()
                with open(path, "w", encoding="utf-8") as out:
                    out.write(source)
            sys.path.insert(0, folder)
            importlib.invalidate_caches()
            yield self
        finally:
            if folder in sys.path:
                sys.path.remove(folder)
            for name in list(sys.modules):
                if name.split(".")[0] in tops:
                    del sys.modules[name]
            shutil.rmtree(folder, ignore_errors=True)

    def run(self):
        """Execute the blocks that aren't files, in order, and return their namespace."""
        namespace = {"__name__": "documentation"}
        for number, source in self.blocks:
            code = compile("\n" * (number - 1) + source, os.path.join(DOCS, self.name), "exec")
            exec(code, namespace)
        return namespace


@override_settings(ALLOWED_HOSTS=["testserver"])
class PageTests(ChannelTestCase):
    """The examples of the pages do what the pages say."""

    @contextmanager
    def page(self, name, routing=None):
        page = Page("topics/channels/%s.txt" % name)
        with page.importable():
            if routing is None:
                yield page
            else:
                module, _, attribute = routing.rpartition(".")
                with apply_routes(getattr(importlib.import_module(module), attribute)):
                    yield page

    def connect(self, path, **headers):
        client = WSClient()
        for name, value in headers.items():
            client.set_header(name, value)
        client.send_and_consume("websocket.connect", path=path)
        return client

    def say(self, client, path, text):
        client.send_and_consume("websocket.receive", path=path, text=text)
        return client.receive(json=False)

    def user(self, name):
        from django.contrib.auth.models import User

        return User.objects.create_user(name)

    # One test for each page.

    def test_consumers_describe(self):
        with self.page("consumers") as page:
            describe = page.run()["describe"]

            def consumer(message):
                message.content["text"] = "x"
                describe(message)

            with apply_routes([django.channels.route("websocket.receive", consumer)]):
                WSClient().send_and_consume("websocket.receive", path="/a/", text="x")

    def test_consumers_rooms(self):
        with self.page("consumers", "rooms.routing.channel_routing"):
            lobby, other = self.connect("/lobby/"), self.connect("/other/")
            self.assertEqual(self.say(lobby, "/lobby/", "hi"), "hi")
            self.assertIsNone(other.receive())
            lobby.send_and_consume("websocket.disconnect", path="/lobby/")
            self.assertEqual(Group("room-lobby").channels(), [])

    def test_consumers_included(self):
        with self.page("consumers", "mysite.routing.channel_routing"):
            self.assertEqual(self.say(self.connect("/rooms/lobby/"), "/rooms/lobby/", "hi"), "hi")

    def test_consumers_exceptions(self):
        with self.page("consumers", "rooms.routing.channel_routing"):
            client = self.connect("/bouncer")
            self.assertEqual(self.say(client, "/bouncer", "hi"), "hi")
            self.assertEqual(self.say(client, "/bouncer", "a long story"), "refused: too long")
            self.assertEqual(self.say(client, "/bouncer", "quit"), {"close": 4000})
            with self.assertRaisesRegex(AssertionError, "rejected"):
                self.connect("/bouncer?banned")

    def test_consumers_channels_of_our_own(self):
        with self.page("consumers", "rooms.routing.channel_routing"):
            from rooms import forward, thumbnails, views

            client = self.connect("/bouncer")
            Channel("long-work").send({"reply_channel": client.reply_channel})
            client.consume("long-work")
            self.assertEqual(client.receive(json=False), "working…")
            self.assertEqual(client.receive(json=False), "done: 499500")

            thumbnails.upload(None)
            message = self.get_next_message("thumbnails", require=True)
            self.assertEqual(thumbnails.make_thumbnail(message), "thumbnail of picture 17")

            with apply_routes([django.channels.route("websocket.receive", forward.received)]):
                client.send_and_consume("websocket.receive", text="x")
            message = self.get_next_message("long-work", require=True)
            self.assertEqual(message.reply_channel.name, client.reply_channel)

            if django.VERSION >= (1, 9):
                client.join_group("room-1")
                views.announce("saved")
                self.assertEqual(client.receive(json=False), "saved")

    def test_groups(self):
        with self.page("groups"):
            from news import consumers, publish

            routes = [
                django.channels.route("websocket.connect", consumers.connected),
                django.channels.route("websocket.receive", consumers.received),
            ]
            with apply_routes(routes):
                client = self.connect("/")
                publish.publish("it rains")
                self.assertEqual(client.receive(json=False), "it rains")
                self.assertIsNone(self.say(client, "/", "enough"))
                publish.publish("it pours")
                self.assertIsNone(client.receive())

    def test_sessions(self):
        with self.page("sessions"):
            from counter import consumers, members, origins, visits

            def routes(module):
                return [
                    django.channels.route("websocket.connect", module.connected),
                    django.channels.route("websocket.receive", module.received),
                ]

            with apply_routes(routes(consumers)):
                client = self.connect("/")
                self.assertEqual([self.say(client, "/", "x") for _ in range(3)], ["1", "2", "3"])

            with apply_routes(routes(visits)):
                self.assertEqual(self.say(self.connect("/"), "/", "x"), "0")
                client = WSClient()
                client.session.save()
                for count in ("1", "2"):
                    client.send_and_consume("websocket.connect", path="/")
                    self.assertEqual(self.say(client, "/", "x"), count)

            with apply_routes(routes(members)):
                client = WSClient()
                client.force_login(self.user("ada"))
                client.send_and_consume("websocket.connect", path="/")
                self.assertEqual(self.say(client, "/", "x"), "ada")
                with self.assertRaisesRegex(AssertionError, "rejected"):
                    self.connect("/")

            allowed = [
                (origins.public, "https://anywhere.example", True),
                (origins.partners, "https://partner.example", True),
                (origins.partners, "https://a.cdn.example:8443", True),
                (origins.partners, "https://anywhere.example", False),
                (origins.strict, "http://testserver", True),
                (origins.strict, None, False),
                (origins.own, "https://app.example", True),
                (origins.own, "http://testserver", False),
            ]
            for consumer, origin, expected in allowed:
                with apply_routes([django.channels.route("websocket.connect", consumer)]):
                    headers = {"origin": origin} if origin else {}
                    if expected:
                        self.connect("/", **headers)
                    else:
                        with self.assertRaisesRegex(AssertionError, "rejected"):
                            self.connect("/", **headers)

    def test_generic(self):
        with self.page("generic", "echo.routing.channel_routing"):
            for path in ("/echo/", "/echo-again/"):
                self.assertEqual(self.say(self.connect(path), path, "hi"), "hi")
            from echo import jobs, streams, sums

            with apply_routes([sums.Sums.as_route()]):
                client = self.connect("/")
                client.send_and_consume("websocket.receive", text={"numbers": [1, 2, 3]})
                self.assertEqual(client.receive(), {"sum": 6})
                self.assertEqual(client.receive(), {"somebody_got": 6})

            with apply_routes([streams.Streams.as_route()]):
                client = self.connect("/")
                self.assertEqual(client.receive(), {"stream": "echo", "payload": {"welcome": True}})
                for stream, result in (("echo", {"echo": "abc"}), ("count", {"length": 3})):
                    frame = {"stream": stream, "payload": "abc"}
                    client.send_and_consume("websocket.receive", text=frame)
                    self.assertEqual(client.receive(), {"stream": stream, "payload": result})
                client.send_and_consume("websocket.disconnect")

            with apply_routes([jobs.Jobs.as_route()]):
                job = WSClient().send_and_consume("jobs.stop", {"name": "tea"})
                self.assertEqual(job.result, "stopped tea")

    def test_http(self):
        with self.page("http", "polls.routing.channel_routing"):
            from polls import views as polls
            from reports import views as reports

            client = HttpClient()
            client.send_and_consume("http.request", path="/ping")
            self.assertEqual(client.receive()["content"], b"pong")

            rows = b"".join(reports.report(None).streaming_content)
            self.assertEqual(rows.count(b"\n"), 1000)

            urls = type(sys)("docs_urls")
            try:
                from django.urls import re_path
            except ImportError:
                from django.conf.urls import url as re_path
            urls.urlpatterns = [
                re_path("^wait$", polls.wait_for_news),
                re_path("^publish$", polls.publish),
            ]
            with override_settings(ROOT_URLCONF=urls):
                waiting, publisher = HttpClient(), HttpClient()
                waiting.send_and_consume("http.request", path="/wait")
                self.assertIsNone(waiting.receive())
                publisher.send_and_consume("http.request", path="/publish")
                self.assertEqual(publisher.receive()["content"], b"published")
                answer = waiting.receive()
                self.assertEqual(
                    (answer["status"], answer["content"]), (200, b"here is the news\n")
                )

    def test_delay(self):
        with self.page("delay", "reminders.routing.channel_routing"):
            from reminders import later

            later.remind("tea", 0)
            client = WSClient()
            client.consume("asgi.delay")
            out = io.StringIO()
            with redirect_stdout(out):
                wait_until(
                    lambda: client.consume("reminders", fail_on_none=False) or out.getvalue()
                )
            self.assertEqual(out.getvalue(), "tea\n")

    def test_layers(self):
        with self.page("layers") as page:
            found = page.run()
            self.assertEqual((found["channel"], found["message"]), ("jobs.print", {"page": 1}))
            case = found["MemoryLayerTests"]
            result = unittest.TestResult()
            case("test_a_message_comes_out_as_it_went_in").run(result)
            self.assertTrue(result.testsRun and result.wasSuccessful(), result.errors)

    def test_coming_from_channels_2(self):
        with self.page("from-channels-2", "chat.routing.channel_routing"):
            from chat.consumers import Room

            one, other = self.connect("/ws/chat/lobby/"), self.connect("/ws/chat/lobby/")
            one.send_and_consume(
                "websocket.receive", path="/ws/chat/lobby/", text={"message": "hello"}
            )
            Room.group_send("chat-lobby", {"message": "tea is ready"})
            for client in (one, other):
                self.assertEqual(client.receive(), {"message": "hello"})
                self.assertEqual(client.receive(), {"message": "tea is ready"})

    def test_readme(self):
        path = os.path.join(os.path.dirname(DOCS), "README.md")
        if not os.path.exists(path):
            self.skipTest("Django's tree has its own README")
        with open(path, encoding="utf-8") as readme:
            (source,) = re.findall(r"```python\n# mysite/routing.py\n(.*?)```", readme.read(), re.S)
        namespace = {}
        exec(re.sub(r"\bchannels import", PACKAGE + " import", source), namespace)
        with apply_routes(namespace["channel_routing"]):
            one, other = self.connect("/"), self.connect("/")
            self.assertEqual(self.say(one, "/", "hello"), "hello")
            self.assertEqual(other.receive(json=False), "hello")

    def test_tutorial_members(self):
        with self.page("tutorial"):
            from mysite import members

            routes = [
                django.channels.route("websocket.connect", members.connected),
                django.channels.route("websocket.receive", members.received),
            ]
            with apply_routes(routes):
                client = WSClient()
                client.force_login(self.user("ada"))
                client.send_and_consume("websocket.connect", path="/")
                self.assertEqual(self.say(client, "/", "hi"), "ada: hi")
                with self.assertRaisesRegex(AssertionError, "rejected"):
                    self.connect("/")


class BindingPageTests(unittest.TestCase):
    """The page about data binding, which defines a model."""

    databases = {"default"}  # so that Django's runner makes it, also if this test runs alone

    def test_binding(self):
        with Page("topics/channels/binding.txt").importable():
            with modify_settings(INSTALLED_APPS={"append": "notes"}):
                from django.db import connection
                from notes.models import Note
                from notes.routing import channel_routing

                self.addCleanup(self.disconnect, Note)
                with connection.schema_editor() as editor:
                    editor.create_model(Note)
                try:
                    self.bind(Note, channel_routing)
                finally:
                    with connection.schema_editor() as editor:
                        editor.delete_model(Note)

    @staticmethod
    def disconnect(model):
        """Disconnect the model's signals, which would refer to it until the process ends."""
        from django.channels.binding.base import BindingMetaclass
        from django.db.models import signals

        for binding in [each for each in BindingMetaclass.binding_classes if each.model is model]:
            BindingMetaclass.binding_classes.remove(binding)
            name = "%s.%s" % (binding.__module__, binding.__qualname__)
            for signal in ("pre_save", "post_save", "pre_delete", "post_delete"):
                getattr(signals, signal).disconnect(sender=model, dispatch_uid=name)
        django.apps.registry.apps.all_models.pop("notes", None)
        django.apps.registry.apps.clear_cache()

    def bind(self, Note, routing):
        outer = self

        class Bound(ChannelTestCase):
            def runTest(self):
                from django.contrib.auth.models import User

                with apply_routes(routing):
                    staff, guest = WSClient(), WSClient()
                    staff.force_login(
                        User.objects.create_superuser("ada", "ada@example.com", "secret")
                    )
                    for client in (staff, guest):
                        client.send_and_consume("websocket.connect", path="/boards/main/")

                    def change(client, **payload):
                        frame = {"stream": "notes", "payload": payload}
                        client.send_and_consume(
                            "websocket.receive", path="/boards/main/", text=frame
                        )

                    limit = mock.patch.object(binding_base, "_refusals", RateLimit())
                    with limit, outer.assertLogs("django.channels.binding", "WARNING"):
                        change(guest, action="create", data={"title": "No"})
                    outer.assertEqual(Note.objects.count(), 0)
                    change(staff, action="create", data={"title": "Milk"})
                    note = Note.objects.get()
                    outer.assertEqual(
                        guest.receive(),
                        {
                            "stream": "notes",
                            "payload": {
                                "action": "create",
                                "pk": note.pk,
                                "model": "notes.note",
                                "data": {"title": "Milk", "text": ""},
                            },
                        },
                    )
                    note.board = "other"
                    note.save()
                    outer.assertEqual(guest.receive()["payload"]["action"], "delete")

        result = unittest.TestResult()
        unittest.TestSuite([Bound()]).run(result)
        self.assertEqual([trace for _, trace in result.errors + result.failures], [])
        self.assertEqual(result.testsRun, 1)


class TestCasePageTests(unittest.TestCase):
    """The test cases on the pages pass, each with the routing of its page."""

    databases = {"default"}  # for a run of this class alone

    def run_test_case(self, page, routing, name):
        entry = dict(channel_layers.configs["default"], ROUTING=routing)
        with Page(page).importable(), override_settings(CHANNEL_LAYERS={"default": entry}):
            module, _, attribute = name.rpartition(".")
            case = getattr(importlib.import_module(module), attribute)
            case.available_apps = None  # Django's own runner requires this
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        self.assertEqual([trace for _, trace in result.errors + result.failures], [])
        self.assertGreater(result.testsRun, 0)

    def test_tutorial(self):
        self.run_test_case(
            "topics/channels/tutorial.txt",
            "mysite.routing.channel_routing",
            "mysite.tests.WallTests",
        )

    def test_testing(self):
        self.run_test_case(
            "topics/channels/testing.txt",
            "greetings.routing.channel_routing",
            "greetings.tests.GreetingTests",
        )

    def test_testing_live(self):
        require("daphne", "websocket")
        self.run_test_case(
            "topics/channels/testing.txt",
            "greetings.routing.channel_routing",
            "greetings.test_live.LiveTests",
        )

    def test_testing_replaces_the_layers_of_all_tests(self):
        # pytest isn't among the requirements of the tests, so its decorator is stood in for.
        pytest = types.ModuleType("pytest")
        pytest.fixture = lambda **options: lambda function: function
        entry = {"BACKEND": "never.imported.Layer", "ROUTING": "greetings.routing.channel_routing"}
        seen = []

        class Plain(SimpleTestCase):
            def test_send(self):
                Channel("visits").send({"name": "ada"})
                seen.append(channel_layers["default"].receive_many(["visits"])[0])

        case = unittest.defaultTestLoader.loadTestsFromTestCase(Plain)
        with override_settings(CHANNEL_LAYERS={"default": entry}), mock.patch.dict(
            sys.modules, pytest=pytest
        ), Page("topics/channels/testing.txt").importable():
            with redirect_stderr(io.StringIO()):
                runner.ChannelTestRunner(verbosity=0).run_suite(case)
            self.assertEqual(seen, ["visits"])
            conftest = importlib.import_module("mysite.conftest")
            layers = conftest.layers()
            next(layers)
            Channel("visits").send({"name": "ada"})
            conftest.empty(None)
            self.assertEqual(channel_layers["default"].receive_many(["visits"]), (None, None))
            self.assertEqual(list(layers), [])


class ServerPageTests(unittest.TestCase):
    """The examples of the pages work behind real servers."""

    def test_tutorial_behind_servers(self):
        require("websocket")
        import websocket

        page = Page("topics/channels/tutorial.txt")
        (settings,) = [source for _, source in page.blocks if "CHANNEL_LAYERS" in source]
        files = {path: text for path, text in page.files.items() if path != "mysite/members.py"}
        for program in ("daphne", "uvicorn"):
            with self.subTest(program), sites.Project(files, settings) as project:
                with project.manage("check") as check:
                    self.assertEqual(check.wait(3 * TIMEOUT), 0, check.output)
                with sites.serve(project, program) as server:
                    sockets = [
                        websocket.create_connection(
                            server.websocket_url("/wall/"), timeout=TIMEOUT, suppress_origin=True
                        )
                        for _ in range(2)
                    ]
                    # When the socket's own frame comes back, it is a member of the group.
                    sockets[1].send("one")
                    self.assertEqual(sockets[1].recv(), "one")
                    sockets[0].send("hello")
                    self.assertEqual(sockets[1].recv(), "hello")
                    with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
                        websocket.create_connection(
                            server.websocket_url("/nowhere/"), timeout=TIMEOUT, suppress_origin=True
                        )
                    self.assertEqual(caught.exception.status_code, 403)
                    for socket in sockets:
                        socket.close()


class NamesTests(SimpleTestCase):
    """Names, signatures, options and numbers on the pages are those of the code."""

    def described(self):
        """Yield `(page, kind, module, names, arguments or None)` of each description in the reference."""
        for name in pages():
            module, outer = None, None
            for line in text_of(name).split("\n"):
                match = re.match(r"( *)\.\. (\w+):: (\S[^(]*?)(?:\((.*)\))?$", line)
                if match is None:
                    continue
                indent, kind, target, arguments = match.groups()
                if kind in ("module", "currentmodule"):
                    module = target
                elif kind in ("class", "exception", "function", "data"):
                    outer = "%s.%s" % (module, target)
                    yield name, kind, module, [target], arguments
                elif kind in ("method", "classmethod", "attribute"):
                    yield name, kind, module, [outer[len(module) + 1 :], target], arguments

    def resolve(self, module, names):
        found = importlib.import_module(module.replace("django.channels", PACKAGE, 1))
        for name in names:
            if isinstance(found, type) and name == "consumer":  # of the metaclass
                return getattr(type(found), name)
            try:
                found = inspect.getattr_static(found, name)
            except AttributeError:
                found = getattr(found, name)
            if isinstance(found, (classmethod, staticmethod)):
                found = found.__func__
        return found

    def test_the_reference(self):
        count = 0
        for page, kind, module, names, arguments in self.described():
            where = "%s: %s.%s" % (page, module, ".".join(names))
            try:
                found = self.resolve(module, names)
            except AttributeError:
                # An attribute that __init__ sets isn't an attribute of the class. One that is only
                # annotated there isn't, either.
                source = _sources(self.resolve(module, names[:-1])) if names[1:] else ""
                self.assertRegex(source, r"(self\.|\n    )%s\b(.* = |: )" % names[-1], where)
            count += 1
            if arguments is None or kind in ("attribute", "data"):
                continue
            namespace = {}
            exec("def wanted(%s): pass" % arguments, namespace)
            wanted = inspect.signature(namespace["wanted"]).parameters
            known = _parameters(found)
            self.assertEqual(
                [str(each) for each in wanted.values()],
                [str(each) for name, each in known.items() if name in wanted],
                where,
            )
            # Arguments that the page omits are for other parts of the package, and have defaults.
            # `misplaced` refuses what it is given.
            for name in set(known) - set(wanted) - {"misplaced"}:
                self.assertIsNot(known[name].default, inspect.Parameter.empty, where)
        self.assertGreater(count, 100)

    def test_every_description_has_text(self):
        inside = "attribute class classmethod data exception function method staticmethod".split()
        below = ["django-admin", "django-admin-option"]  # Django's pages don't indent what they say
        pattern = re.compile(r"( *)\.\. (%s):: " % "|".join(inside + below))
        without = []
        for page in pages():
            lines = text_of(page).split("\n")
            for number, line in enumerate(lines, 1):
                match = pattern.match(line)
                if match is None:
                    continue
                rest = (each for each in lines[number:] if each.strip())
                following = next((each for each in rest if ".. versionadded::" not in each), "")
                indent = len(following) - len(following.lstrip())
                text = not following.lstrip().startswith(".. ") and not following.startswith("==")
                if not text or (match.group(2) in inside and indent <= len(match.group(1))):
                    without.append("%s:%d: %s" % (page, number, line.strip()))
        self.assertEqual(without, [])

    def test_names_in_running_text(self):
        pattern = re.compile(
            r"(?::(?:class|func|exc|data|mod|meth):`~?|``)(django\.channels[\w.]*)(?:\(\))?`"
        )
        count = 0
        for page in pages():
            text = re.sub(r"\\\n\s*", "", text_of(page))
            for name in pattern.findall(text):
                with self.subTest("%s: %s" % (page, name)):
                    self.assertTrue(_exists(name.replace("django.channels", PACKAGE, 1)), name)
                    count += 1
        self.assertGreater(count, 40)

    def test_exceptions_in_running_text(self):
        exceptions = importlib.import_module(PACKAGE + ".exceptions")
        text = text_of("topics/channels/consumers.txt")
        table = text[text.index("A consumer that raises          has") :].split("\n\n")[0]
        names = re.findall(r"^``(\w+)``", table, re.MULTILINE)
        self.assertEqual(len(names), 4)
        for name in names:
            self.assertTrue(issubclass(getattr(exceptions, name), Exception))

    def test_options_of_commands(self):
        """The options on the page exist, with their defaults, and the page lists all of them."""
        commands, options, named, last, previous = {}, {}, {}, None, ""
        for line in text_of("ref/channels/commands.txt").split("\n"):
            program = re.match(r"\.\. program:: (\w+)", line)
            option = re.match(r"\.\. django-admin-option:: (--[\w-]+)(?: (\w+))?$", line)
            default = re.search(r"``([\w.]+)``\.$", line)
            if program:
                name = program.group(1)
                app = PACKAGE + (".delay" if name == "rundelay" else "")
                commands[name] = load_command_class(app, name)
                parser = commands[name].create_parser("manage.py", name)
                options = {text: each for each in parser._actions for text in each.option_strings}
                named[name] = set()
            elif option:
                self.assertIn(option.group(1), options, name)
                last = options[option.group(1)]
                self.assertEqual(last.nargs != 0, option.group(2) is not None, option.group(1))
                named[name].add(option.group(1))
            elif default and re.search(r"[Tt]he default is\b", previous + " " + line):
                self.assertEqual(str(last.default), default.group(1), last.dest)
            previous = line
        folder = os.path.dirname(django.channels.__file__)
        known = find_commands(os.path.join(folder, "management"))
        known += find_commands(os.path.join(folder, "delay", "management"))
        self.assertEqual(set(named), set(known), "describe them in ref/channels/commands.txt")
        for name, command in commands.items():
            source = inspect.getsource(type(command).add_arguments)
            undocumented = set(re.findall(r"\"(--[\w-]+)\"", source)) - named[name]
            self.assertEqual(undocumented, set(), "describe them in ref/channels/commands.txt")

    def test_limits(self):
        text = text_of("ref/channels/limits.txt")
        rows = re.findall(r"^``([\w.]+\.[A-Z_]+)`` +(\d+)", text, re.MULTILINE)
        self.assertGreater(len(rows), 25)
        for name, number in rows:
            module, _, attribute = name.rpartition(".")
            value = getattr(importlib.import_module("%s.%s" % (PACKAGE, module)), attribute)
            self.assertEqual(value, int(number), name)
        from django.channels.layers.memory import MemoryChannelLayer

        layer = MemoryChannelLayer()
        named = {"capacity": layer.capacity, "expiry": layer.expiry, "block_for": layer.block_for}
        for name, value in named.items():
            match = re.search(r"\(``%s``\) +(\d+)" % name, text)
            self.assertEqual(int(match.group(1)), value, name)
        limits = importlib.import_module(PACKAGE + ".gateway.limits").Limits()._asdict()
        options = dict(re.findall(r"^``([a-z_]+)`` +(\d+)", text, re.MULTILINE))
        numbers = {name: value for name, value in limits.items() if type(value) is int}
        self.assertEqual({name: int(options[name]) for name in numbers}, numbers)

    def test_counters(self):
        """The page lists the counters that the code counts."""
        text = text_of("ref/channels/limits.txt")
        named = set(re.findall(r"^``(\w+)``$", text, re.MULTILINE))
        reasons = importlib.import_module(PACKAGE + ".gateway.refusal").REASONS
        counted = {counter for _, counter in reasons.values()}
        folder = os.path.dirname(django.channels.__file__)
        gateway = os.path.join(folder, "gateway")
        paths = [os.path.join(gateway, name) for name in os.listdir(gateway)]
        others = ("places.py", "replies.py", "streams.py", "worker.py")
        paths += [os.path.join(folder, name) for name in others]
        for path in paths:
            if path.endswith(".py"):
                with open(path, encoding="utf-8") as source:
                    counted |= set(re.findall(r"(?:COUNT, |\.count\()\"(\w+)\"", source.read()))
        self.assertEqual(counted - named, set())
        self.assertEqual(named - counted, set())

    def test_control_keys(self):
        """Every key that gateway, worker and layer exchange is on the page about messages."""
        protocol = importlib.import_module(PACKAGE + ".protocol")
        path = inspect.getfile(protocol)
        with open(path, encoding="utf-8") as source:
            text = source.read()
        keys = re.findall(
            r"^([A-Z_]+) = \"\w+\"$", text[text.index("# Control keys of events") :], re.M
        )
        self.assertGreater(len(keys), 15)
        page = text_of("ref/channels/messages.txt")
        for name in keys:
            self.assertRegex(page, r"[`\"]%s[`\"]" % re.escape(getattr(protocol, name)), name)

    def test_loggers(self):
        """The table lists the loggers that the code uses."""
        table = re.findall(
            r"^``(django\.channels\.\w+)``  ", text_of("topics/channels/how-it-works.txt"), re.M
        )
        used = set()
        for source in sources():
            used |= set(re.findall(r"getLogger\(\"(django\.channels\.[\w.]+)\"\)", source))
        self.assertEqual(set(table), used, "list them in topics/channels/how-it-works.txt")

    def test_threads(self):
        """The page about the architecture lists the threads that the code starts."""
        named = re.findall(
            r"^``(channels-[a-z-]+)(?:-1`` …|``) ",
            text_of("internals/channels/architecture.txt"),
            re.M,
        )
        named = set(named) | {
            "channels-connect",
            "channels-end-with-parent",
            "channels-live-server",
            "channels-poll",
        }
        started = set()
        for source in sources():
            if re.search(r"threading\.Thread\(|start_thread\(|thread_name(?:_prefix)?=", source):
                started |= set(re.findall(r"\"(channels-[a-z-]+?)(?:-%d|-)?\"[ ,)]", source))
        if "channels-prefetch" not in started:  # of the Redis layer: not in the patched Django
            named.discard("channels-prefetch")
        self.assertEqual(
            started, named, "describe the threads in docs/internals/channels/architecture.txt"
        )

    def test_what_decides_is_in_the_file_that_is_named(self):
        """Each "``name`` (:file:`path`)" of the page for maintainers: the file has the name."""
        text = text_of("internals/channels/where.txt")
        text = re.sub(r"\s+", " ", text)
        path, count = None, 0
        for found in re.finditer(
            r"``(\w+)`` \((?::file:`([^`]+)`|the same file)\)|:file:`([^`]+)`", text
        ):
            name, path = found.group(1), found.group(2) or found.group(3) or path
            folder = os.path.dirname(inspect.getfile(django.channels))
            if path.startswith(("tests/", "asgi_redis/")):
                folder = os.path.dirname(DOCS)
                if not os.path.exists(os.path.join(folder, "asgi_redis")):
                    continue  # in the patched Django
            with open(os.path.join(folder, path), encoding="utf-8") as source:
                self.assertRegex(source.read(), r"\b%s\b" % (name or ""), path)
            count += 1
        self.assertGreater(count, 40)

    def test_what_the_architecture_names_is_in_the_file_that_is_named(self):
        """Each "``Class.name`` (:file:`path`)" of that page: the file has this class with this name."""
        text = re.sub(r"\s+", " ", text_of("internals/channels/architecture.txt"))
        pattern = r"``(\w+)\.(\w+)``(?: \(|, | in )?:file:`([^`]+)`"
        count = 0
        for owner, name, path in re.findall(pattern, text):
            module = os.path.join(os.path.dirname(inspect.getfile(django.channels)), path)
            with open(module, encoding="utf-8") as source:
                body = re.search(r"^class %s\b.*?(?=^\S|\Z)" % owner, source.read(), re.M | re.S)
            self.assertIsNotNone(body, "%s has no class %s" % (path, owner))
            self.assertRegex(body.group(), r"\bdef %s\b" % name, "%s of %s" % (owner, path))
            count += 1
        self.assertGreater(count, 4)

    def test_each_file_that_the_pages_for_maintainers_name_exists(self):
        folder, root = os.path.dirname(inspect.getfile(django.channels)), os.path.dirname(DOCS)
        count = 0
        for page in pages():
            if not page.startswith("internals/channels"):
                continue
            for path in re.findall(r":file:`([\w/]+\.\w+)`", text_of(page)):
                is_of_tree = path.startswith(("tests/", "asgi_redis/", "scripts/"))
                if is_of_tree and not os.path.exists(os.path.join(root, path.split("/")[0])):
                    continue  # in the patched Django
                found = os.path.join(root if is_of_tree else folder, path)
                self.assertTrue(os.path.exists(found), "%s: %s" % (page, path))
                count += 1
        self.assertGreater(count, 40)

    def test_settings(self):
        """Every CHANNEL_LAYERS on the pages makes layers, if their packages are installed."""
        count = 0
        for page in pages():
            for number, source in python_blocks(text_of(page)):
                for config in _layers_in(source):
                    for alias, entry in config.items():
                        with self.subTest("%s, line %d: %s" % (page, number, alias)):
                            backend = entry["BACKEND"]
                            if importlib.util.find_spec(backend.split(".")[0]) is None:
                                continue
                            with override_settings(CHANNEL_LAYERS=config):
                                channel_layers.make_backend(alias)  # connects to nothing
                        count += 1
        self.assertGreater(count, 3)

    def test_checks(self):
        """The page lists the ids of the system checks in the code."""
        known = set()
        modules = (
            ".checks",
            ".class_checks",
            ".consumer_checks",
            ".old_python",
            ".route_checks",
            ".security.checks",
            ".url_checks",
        )
        for module in modules:
            with open(inspect.getfile(importlib.import_module(PACKAGE + module))) as source:
                known.update(re.findall(r"id=\"(channels\.\w\d+)\"", source.read()))
        named = set(re.findall(r"\*\*(channels\.\w\d+)\*\*", text_of("ref/channels/settings.txt")))
        self.assertEqual(named, known)

    def test_the_default_of_the_setting(self):
        from django.channels.asgi import DEFAULT_CHANNEL_LAYERS

        page = Page("ref/channels/settings.txt")
        (found,) = _layers_in(page.blocks[0][1])
        self.assertEqual(found, DEFAULT_CHANNEL_LAYERS)

    def test_every_block_of_python_is_python(self):
        count = 0
        for page in pages():
            for number, source in python_blocks(text_of(page)):
                with self.subTest("%s, line %d" % (page, number)):
                    compile(source, page, "exec")
                    count += 1
        self.assertGreater(count, 40)

    def test_pages_say_where_is_authenticated_is_a_method(self):
        for name in pages():
            # The tutorial asks for a newer Django.
            if name.startswith("addon/") or not re.search(r"\.is_authenticated\b", text_of(name)):
                continue
            with self.subTest(name):
                self.assertRegex(text_of(name), r"Before\s+Django\s+1\.10, ``is_authenticated`` is")

    def test_json_blocks_are_frames(self):
        text = text_of("topics/channels/binding.txt")
        blocks = re.findall(r"code-block:: json\n\n((?:    .*\n|\n)+)", text)
        self.assertEqual(len(blocks), 2)
        decoder = json.JSONDecoder()
        for block in blocks:
            block = block.strip()
            while block:
                frame, end = decoder.raw_decode(block)
                self.assertEqual(set(frame), {"stream", "payload"})
                block = block[end:].strip()

    def test_pages_are_linked(self):
        """Every :doc: link to one of these pages works, and every page is in a table of contents."""
        ours = {name[: -len(".txt")] for name in pages()}
        listed = {"topics/channels", "ref/channels/index", "howto/deployment/asgi/index"}
        listed |= {"internals/channels", "howto/channels/index"}  # tables of contents list these
        listed |= {"addon/tutorial/index", "addon/deploy/index"}  # scripts/docs/index.txt
        for page in pages():
            text, folder = text_of(page), os.path.dirname(page)
            for target in re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", text):
                name = target[1:] if target[0] == "/" else os.path.join(folder, target)
                if name.startswith(tuple(tree.split(".")[0] for tree in TREES)):
                    self.assertIn(os.path.normpath(name), ours, page)
            for tree in re.findall(r"\.\. toctree::\n(?:   :.*\n)*\n((?:   .*\n)+)", text):
                listed |= {os.path.normpath(os.path.join(folder, each)) for each in tree.split()}
        self.assertEqual(ours - listed, set(), "list them in a toctree, as of topics/channels.txt")


def _sources(cls):
    """Return the source of a class and of its bases in this package."""
    return "".join(
        inspect.getsource(each) for each in cls.__mro__ if each.__module__.startswith(PACKAGE)
    )


def _parameters(found):
    """Return the parameters of a callable by name, without `self`, `cls` and annotations."""
    if isinstance(found, type):
        found = next(vars(each)["__init__"] for each in found.__mro__ if "__init__" in vars(each))
        if found in (object.__init__, Exception.__init__):
            return {}
    parameters = list(inspect.signature(found).parameters.items())
    if parameters and parameters[0][0] in ("self", "cls"):
        del parameters[0]
    empty = inspect.Parameter.empty
    return {name: each.replace(annotation=empty) for name, each in parameters}


def _exists(name):
    parts = name.rstrip(".").split(".")
    for index in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:index]))
        except ImportError:
            continue
        for part in parts[index:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _layers_in(source):
    """Yield the values of the assignments to CHANNEL_LAYERS in a block of Python."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CHANNEL_LAYERS":
            try:
                yield ast.literal_eval(node.value)
            except ValueError:  # made of other names
                continue
