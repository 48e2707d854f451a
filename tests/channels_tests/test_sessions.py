"""channels.sessions: the session that travels with a connection's events, and the site's own."""

import asyncio
import shutil
import tempfile
import warnings
from importlib import import_module

import django
from django.channels import Channel, auth, sessions
from django.channels.asgi import channel_layers
from django.channels.exceptions import DenyConnection, InvalidMessage, WebsocketCloseException
from django.channels.generic.websockets import JsonWebsocketConsumer
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.routing import Router, route, route_class
from django.channels.test import ChannelTestCase, WSClient, apply_routes
from django.channels.worker import Worker
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.cache import cache
from django.core.cache.backends.base import CacheKeyWarning
from django.test import SimpleTestCase, override_settings

from .support.untimed import leave_out_run_times


def new_message(content=None, channel="websocket.receive", data=None, reply_channel="reply?1"):
    content = dict(content or {})
    if reply_channel:
        content["reply_channel"] = reply_channel
    return Message(content, channel, channel_layers["default"], session_data=data)


class ChannelSessionTests(SimpleTestCase):
    def test_is_a_django_session(self):
        session = sessions.ChannelSession({"room": "one"}, "reply?1")
        self.assertIsInstance(session, SessionBase)
        self.assertEqual(session["room"], "one")
        session["more"] = 1
        session.setdefault("again", 2)
        self.assertEqual(session.pop("room"), "one")
        self.assertEqual(sorted(session.keys()), ["again", "more"])
        self.assertIn("more", session)
        self.assertTrue(session.modified)
        session.save()
        self.assertEqual(session.get("more"), 1)

    def test_key_follows_the_reply_channel(self):
        one = sessions.ChannelSession({}, "gateway.a!1")
        again = sessions.ChannelSession({}, "gateway.a!1")
        other = sessions.ChannelSession({}, "gateway.a!2")
        self.assertEqual(one.session_key, again.session_key)
        self.assertNotEqual(one.session_key, other.session_key)
        self.assertTrue(one.exists(one.session_key))
        self.assertFalse(one.exists(other.session_key))
        self.assertEqual(len(one.session_key), 32)  # as Django's, for which a site has columns
        self.assertEqual(
            sessions.session_for_reply_channel("gateway.a!1").session_key, one.session_key
        )

    def test_untouched_session_has_no_patch_and_reads_nothing(self):
        class Unread(dict):
            def __deepcopy__(self, memo):
                raise AssertionError("read without need")

        session = sessions.ChannelSession(Unread(a=1), "reply?1")
        self.assertIsNone(session.patch())
        self.assertEqual(session.snapshot(), {"a": 1})

    def test_reading_makes_no_patch(self):
        session = sessions.ChannelSession({"a": {"b": [1]}}, "reply?1")
        self.assertEqual(session["a"], {"b": [1]})
        self.assertIsNone(session.patch())

    def test_patch_holds_what_changed(self):
        data = {"same": 1, "room": "lobby", "half": 0.5, "old": 2, "gone": 3}
        session = sessions.ChannelSession(data, "reply?1")
        session["old"] = 4
        session["new"] = 5
        session["same"] = 1
        session["room"] = "".join(["lob", "by"])  # equal, and another object
        session["half"] = float("0.5")
        del session["gone"]
        self.assertEqual(session.patch(), {"set": {"old": 4, "new": 5}, "removed": ["gone"]})

    def test_nested_change_is_noticed_and_does_not_leak(self):
        data = {"list": [1], "dict": {"inner": {"a": 1}}, "other": [0]}
        session = sessions.ChannelSession(data, "reply?1")
        session["list"].append(2)
        session["dict"]["inner"]["a"] = True
        self.assertEqual(
            session.patch(),
            {"set": {"list": [1, 2], "dict": {"inner": {"a": True}}}, "removed": []},
        )
        self.assertEqual(data, {"list": [1], "dict": {"inner": {"a": 1}}, "other": [0]})

    def test_another_type_in_a_list_is_a_change(self):
        session = sessions.ChannelSession({"list": [1, [0]], "same": [1]}, "reply?1")
        session["list"][1][0] = False
        self.assertEqual(session.patch(), {"set": {"list": [1, [False]]}, "removed": []})

    def test_patch_refuses_what_no_layer_carries(self):
        session = sessions.ChannelSession({}, "reply?1")
        session["who"] = {"user": object()}
        with self.assertRaisesRegex(InvalidMessage, "channel_session.who.user"):
            session.patch()

    def test_flush_removes_everything_and_keeps_the_key(self):
        session = sessions.ChannelSession({"a": 1, "b": 2}, "reply?1")
        key = session.session_key
        session.flush()
        self.assertEqual(session.session_key, key)
        self.assertEqual(list(session.keys()), [])
        patch = session.patch()
        self.assertEqual((patch["set"], sorted(patch["removed"])), ({}, ["a", "b"]))
        session["c"] = 3
        self.assertEqual(session.patch()["set"], {"c": 3})

    def test_the_asynchronous_names_do_the_same(self):
        session = sessions.ChannelSession({"a": 1}, "reply?1")
        key = session.session_key
        asyncio.run(session.acycle_key())
        self.assertEqual((session.session_key, session["a"]), (key, 1))
        asyncio.run(session.aflush())
        self.assertEqual((session.session_key, session.patch()["removed"]), (key, ["a"]))

    def test_cycle_key_keeps_data_and_key(self):
        session = sessions.ChannelSession({"a": 1}, "reply?1")
        key = session.session_key
        session.cycle_key()
        self.assertEqual((session.session_key, session["a"]), (key, 1))
        self.assertIsNone(session.patch())

    def test_delete_of_another_key_does_nothing(self):
        session = sessions.ChannelSession({"a": 1}, "reply?1")
        session.delete("another-session-key")
        self.assertEqual(session["a"], 1)
        session.delete()
        self.assertEqual(session.patch(), {"set": {}, "removed": ["a"]})


class DecoratorTests(SimpleTestCase):
    def test_channel_session(self):
        @sessions.channel_session
        def consumer(message, room):
            """Doc."""
            message.channel_session["room"] = room
            return "done"

        message = new_message(data={"n": 1})
        self.assertEqual(consumer(message, room="x"), "done")
        self.assertEqual(message.session_patch(), {"set": {"room": "x"}, "removed": []})
        self.assertEqual((consumer.__name__, consumer.__doc__), ("consumer", "Doc."))

    def test_channel_session_needs_a_connection(self):
        consumer = sessions.channel_session(lambda message: None)
        with self.assertRaisesRegex(ValueError, "reply_channel"):
            consumer(new_message(reply_channel=None))

    def test_channel_session_twice(self):
        @sessions.channel_session
        @sessions.channel_session
        def consumer(message):
            message.channel_session["n"] = 1

        message = new_message()
        consumer(message)
        self.assertEqual(message.channel_session["n"], 1)

    def test_enforce_ordering_has_nothing_left_to_do(self):
        def consumer(message):
            return message

        self.assertEqual(sessions.enforce_ordering(consumer)(1), 1)
        self.assertEqual(sessions.enforce_ordering(slight=True)(consumer)(2), 2)
        self.assertEqual(sessions.enforce_ordering()(consumer)(3), 3)


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db")
class HttpSessionTests(ChannelTestCase):
    def setUp(self):
        self.store = import_module(settings.SESSION_ENGINE).SessionStore()
        self.store["colour"] = "green"
        self.store.create()
        self.store["colour"] = "green"
        self.store.save()

    def cookie(self, key=None):
        value = "a=b; %s=%s" % (settings.SESSION_COOKIE_NAME, key or self.store.session_key)
        return [[b"host", b"x"], [b"cookie", value.encode("ascii")]]

    def run_with(self, decorator, content, body=None, **kwargs):
        seen = []

        @decorator
        def consumer(message):
            seen.append(message.http_session)
            if body:
                body(message)

        message = new_message(content, channel=kwargs.pop("channel", "websocket.connect"), **kwargs)
        consumer(message)
        return seen[0], message

    def test_by_cookie(self):
        session, _ = self.run_with(sessions.http_session, {"headers": self.cookie()})
        self.assertEqual(session["colour"], "green")

    def test_several_headers_name_the_session_that_a_view_has(self):
        name = settings.SESSION_COOKIE_NAME
        own, other = (
            ("%s=%s" % (name, key)).encode("ascii") for key in (self.store.session_key, "other")
        )
        for values in (
            [other, own],
            [own, b"x=y"],
            [b"x=y", own],
            [other + b"; " + own],
            [own + b"; "],
        ):
            content = {"headers": [[b"cookie", value] for value in values]}
            session, _ = self.run_with(sessions.http_session, content)
            self.assertEqual(session and session["colour"], "green", values)
        content = {"headers": [[b"cookie", own], [b"cookie", other]]}
        self.assertIsNone(self.run_with(sessions.http_session, content)[0])

    def test_the_query_string_names_no_session_unless_the_site_says_so(self):
        query = b"x=1&session_key=" + self.store.session_key.encode("ascii")
        content = {"headers": [], "query_string": query}
        session, message = self.run_with(sessions.http_session, content)
        self.assertIsNone(session)
        session, message = self.run_with(sessions.channel_and_http_session, content)
        self.assertIsNone(session)
        self.assertIsNone(message.session_patch())
        with override_settings(CHANNEL_SESSION_KEY_IN_QUERY=True):
            session, _ = self.run_with(sessions.http_session, content)
            self.assertEqual(session["colour"], "green")

    @override_settings(CHANNEL_SESSION_KEY_IN_QUERY=True)
    def test_the_cookie_wins_over_the_query_string(self):
        other = type(self.store)()
        other["colour"] = "of somebody else"
        other.save()
        query = b"session_key=" + other.session_key.encode("ascii")
        for key, colour in ((self.store.session_key, "green"), ("nosuchsessionkey", None)):
            session, _ = self.run_with(
                sessions.http_session, {"headers": self.cookie(key), "query_string": query}
            )
            self.assertEqual(session and session["colour"], colour)

    def test_none_without_a_session(self):
        for content in (
            {},
            {"headers": [], "query_string": b""},
            {"headers": self.cookie("no-such-session-key")},
            {"query_string": b"session_key=nosuchsessionkey"},
            {"headers": [[b"cookie", b"\xff\xfe"]], "query_string": b"\xff=\xff"},
            {"headers": [[b"x-cookie", self.cookie()[1][1]]]},
        ):
            with self.subTest(content=content):
                session, _ = self.run_with(sessions.http_session, content)
                self.assertIsNone(session)

    def test_saved_if_modified(self):
        def body(message):
            message.http_session["colour"] = "red"

        self.run_with(sessions.http_session, {"headers": self.cookie()}, body)
        again = type(self.store)(self.store.session_key)
        self.assertEqual(again["colour"], "red")

    def test_not_saved_if_unmodified(self):
        def body(message):
            message.http_session["colour"]

        with self.assertNumQueries(1):
            self.run_with(sessions.http_session, {"headers": self.cookie()}, body)

    def test_saved_where_the_consumer_ends_by_closing_the_socket(self):
        def body(message):
            message.http_session["colour"] = "blue"
            raise WebsocketCloseException()

        with self.assertRaises(WebsocketCloseException):
            self.run_with(sessions.http_session, {"headers": self.cookie()}, body)
        self.assertEqual(type(self.store)(self.store.session_key)["colour"], "blue")

    def test_not_saved_where_the_consumer_raises(self):
        def body(message):
            message.http_session["colour"] = "blue"
            raise KeyError("x")

        with self.assertRaises(KeyError):
            self.run_with(sessions.http_session, {"headers": self.cookie()}, body)
        self.assertEqual(type(self.store)(self.store.session_key)["colour"], "green")

    def test_channel_and_http_session_remembers_the_key(self):
        session, connect = self.run_with(
            sessions.channel_and_http_session, {"headers": self.cookie()}
        )
        self.assertEqual(session["colour"], "green")
        travelled = connect.channel_session.snapshot()
        session, _ = self.run_with(
            sessions.channel_and_http_session, {}, channel="websocket.receive", data=travelled
        )
        self.assertEqual(session["colour"], "green")

    def test_channel_and_http_session_without_one(self):
        session, message = self.run_with(sessions.channel_and_http_session, {"headers": []})
        self.assertIsNone(session)
        self.assertIsNone(message.session_patch())

    def test_both_decorators(self):
        def both(func):
            return sessions.http_session(sessions.channel_and_http_session(func))

        session, message = self.run_with(both, {"headers": self.cookie()})
        self.assertEqual(session["colour"], "green")
        self.assertEqual(list(message.session_patch()["set"].values()), [self.store.session_key])

    def test_a_decorator_inside_another_one_shares_its_session(self):
        for decorator in (sessions.http_session, sessions.channel_and_http_session):

            def inner(message):
                message.http_session["colour"] = "red"

            def outer(message, decorator=decorator):
                session = message.http_session
                decorator(inner)(message)
                self.assertIs(message.http_session, session)
                message.http_session["size"] = 1

            with self.subTest(decorator.__name__):
                self.run_with(decorator, {"headers": self.cookie()}, outer)
                again = type(self.store)(self.store.session_key)
                self.assertEqual((again["colour"], again["size"]), ("red", 1))

    def test_a_session_that_is_flushed_leaves_no_row(self):
        from django.contrib.sessions.models import Session

        def body(message):
            message.http_session.flush()
            message.http_session["after"] = 1

        for decorator in (sessions.http_session, sessions.channel_and_http_session):
            self.store = type(self.store)()
            self.store["colour"] = "green"
            self.store.save()
            before = Session.objects.count()
            self.run_with(decorator, {"headers": self.cookie()}, body)
            self.assertEqual(Session.objects.count(), before - 1)

    def test_a_session_that_ended_is_forgotten_by_its_connection(self):
        _, connect = self.run_with(sessions.channel_and_http_session, {"headers": self.cookie()})
        data = connect.channel_session.snapshot()

        def flush(message):
            message.http_session.flush()

        def save_an_ended_one(message):
            message.http_session["colour"] = "red"
            type(self.store)(self.store.session_key).delete()
            message.http_session.save()

        def change_an_ended_one(message):
            message.http_session["colour"] = "red"
            type(self.store)(self.store.session_key).delete()

        bodies = [flush, change_an_ended_one]
        if django.VERSION >= (1, 10):  # before, `save` begins the session again
            bodies.append(save_an_ended_one)
        for decorator in (sessions.channel_and_http_session, sessions.remembered_http_session):
            for body in bodies:
                self.store.save(must_create=not self.store.exists(self.store.session_key))
                _, message = self.run_with(decorator, {}, body, data=data)
                self.assertEqual(message.session_patch(), {"set": {}, "removed": list(data)})

    def test_a_key_that_the_consumer_forgot_is_not_remembered_again(self):
        _, connect = self.run_with(sessions.channel_and_http_session, {"headers": self.cookie()})
        data = connect.channel_session.snapshot()

        def forget(message):
            self.assertEqual(message.http_session["colour"], "green")
            del message.channel_session[sessions.HTTP_SESSION_KEY]

        _, message = self.run_with(sessions.remembered_http_session, {}, forget, data=data)
        self.assertEqual(message.session_patch(), {"set": {}, "removed": list(data)})

    def test_a_new_key_is_followed(self):
        _, connect = self.run_with(sessions.channel_and_http_session, {"headers": self.cookie()})
        data = connect.channel_session.snapshot()

        def cycle(message):
            message.http_session.cycle_key()

        _, message = self.run_with(sessions.channel_and_http_session, {}, cycle, data=data)
        data = message.channel_session.snapshot()
        session, _ = self.run_with(sessions.channel_and_http_session, {}, data=data)
        self.assertEqual(session["colour"], "green")


class EngineTests:
    """What holds with each of Django's session engines."""

    engine = "db"
    shared = True  # whether a session is in a store, where it may be deleted

    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        context = override_settings(
            SESSION_ENGINE="django.contrib.sessions.backends." + self.engine,
            SESSION_FILE_PATH=self.folder,
        )
        context.enable()
        self.addCleanup(context.disable)
        self.addCleanup(cache.clear)
        self.Store = import_module(settings.SESSION_ENGINE).SessionStore
        self.store = self.Store()
        self.store["colour"] = "green"
        self.store.save()

    def consume(self, body=lambda message: None, key=None, decorator=sessions.http_session):
        seen = []

        @decorator
        def consumer(message):
            seen.append(message.http_session)
            body(message)

        cookie = "%s=%s" % (settings.SESSION_COOKIE_NAME, key or self.store.session_key)
        headers = [[b"cookie", cookie.encode("latin-1")]]
        consumer(new_message({"headers": headers}, channel="websocket.connect"))
        return seen[0]

    def test_it_is_read(self):
        self.assertEqual(self.consume()["colour"], "green")

    def test_what_changes_is_saved(self):
        def body(message):
            message.http_session["colour"] = "red"

        session = self.consume(body)
        self.assertEqual(self.Store(session.session_key)["colour"], "red")

    def test_no_other_key_gives_a_session(self):
        key = self.store.session_key
        for other in (
            "x" * 32,
            key[:-1] + ("a" if key[-1] != "a" else "b"),
            "x" * 5000,
            "../../../etc/passwd",
            key + "\x00",
            "\x00",
            "\xff\xff\xff\xff\xff\xff\xff\xff",
            "a b",
            "a:b:c",
            "%00",
        ):
            with self.subTest(key=other):
                self.assertIsNone(self.consume(key=other))

    @override_settings(CHANNEL_SESSION_KEY_IN_QUERY=True)
    def test_no_query_string_gives_another_session(self):
        for query in (
            b"session_key=%00",
            b"session_key=%ED%A0%80",
            b"session_key=",
            b"session_key=%0a",
        ):
            message = new_message({"query_string": query, "headers": []})
            sessions.http_session(lambda message: None)(message)
            self.assertIsNone(message.http_session)

    def test_it_is_flushed(self):
        def body(message):
            message.http_session.flush()

        self.consume(body)
        if self.shared:
            self.assertFalse(self.Store().exists(self.store.session_key))
            self.assertIsNone(self.consume())

    def test_it_is_deleted_meanwhile(self):
        if not self.shared:
            return

        def body(message):
            message.http_session["colour"] = "red"
            self.Store(self.store.session_key).flush()

        def body_that_saves(message):
            body(message)
            if django.VERSION >= (1, 10):  # before, `save` begins the session again
                message.http_session.save()

        for decorator in (sessions.http_session, sessions.channel_and_http_session):
            for each in (body, body_that_saves):
                self.store = self.Store()
                self.store["colour"] = "green"
                self.store.save()
                self.consume(each, decorator=decorator)
                self.assertFalse(self.Store().exists(self.store.session_key))


class DatabaseEngineTests(EngineTests, ChannelTestCase):
    pass


class CacheEngineTests(EngineTests, ChannelTestCase):
    engine = "cache"

    def test_no_key_is_looked_up_that_is_too_long_for_memcached(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CacheKeyWarning)
            self.assertIsNone(self.consume(key="x" * 300))
        self.assertEqual([str(each.message) for each in caught], [])


class CachedDatabaseEngineTests(EngineTests, ChannelTestCase):
    engine = "cached_db"


class FileEngineTests(EngineTests, ChannelTestCase):
    engine = "file"

    def setUp(self):
        self.forget_the_folder()
        self.addCleanup(self.forget_the_folder)
        super().setUp()

    def forget_the_folder(self):
        """The engine keeps the path of the first session that a process opens."""
        store = import_module("django.contrib.sessions.backends.file").SessionStore
        if "_storage_path" in vars(store):
            del store._storage_path


class SignedCookiesEngineTests(EngineTests, ChannelTestCase):
    engine = "signed_cookies"
    shared = False

    def test_a_session_may_be_longer_than_a_key_of_another_engine(self):
        self.store["text"] = "".join(map(str, range(400)))
        self.store.save()
        self.assertGreater(len(self.store.session_key), 300)
        self.assertEqual(self.consume()["text"], self.store["text"])


class MethodTests(SimpleTestCase):
    """Each decorator on a method, where the message is the second argument."""

    def test_every_decorator(self):
        for decorator in (
            sessions.channel_session,
            sessions.http_session,
            sessions.channel_and_http_session,
            sessions.remembered_http_session,
            auth.channel_session_user,
            auth.http_session_user,
            auth.channel_session_user_from_http,
        ):
            with self.subTest(decorator=decorator.__name__):

                class Consumer:
                    @decorator
                    def receive(self, message, room):
                        return self, message, room

                consumer, message = Consumer(), new_message()
                self.assertEqual(consumer.receive(message, room="x"), (consumer, message, "x"))
                self.assertEqual(
                    consumer.receive(message=message, room="x"), (consumer, message, "x")
                )
                if (
                    decorator is not sessions.http_session
                    and decorator is not auth.http_session_user
                ):
                    with self.assertRaisesRegex(ValueError, "reply_channel"):
                        consumer.receive(new_message(reply_channel=None), room="x")


class WorkerTests(SimpleTestCase):
    """What a worker does with the session of an event."""

    def setUp(self):
        self.layer = MemoryChannelLayer()
        self.answers = []
        leave_out_run_times(self)

    def handle(self, consumer, channel="test", **content):
        self.layer.router = Router([route(channel, consumer)])
        content.setdefault("reply_channel", "reply?1")
        self.layer.send(channel, content)
        self.assertTrue(Worker(self.layer, signal_handlers=False).run_once())
        answers = []
        while True:
            _, answer = self.layer.receive_many(["reply?1"])
            if answer is None:
                return answers
            answers.append(answer)

    def test_change_is_known_before_what_the_consumer_sends(self):
        # Whoever answers to "joined" at once must find the room in the session.
        def join(message):
            message.reply_channel.send({"text": "joined"})
            message.channel_session["room"] = 1

        self.assertEqual(
            self.handle(join),
            [{"channel_session": {"set": {"room": 1}, "removed": []}}, {"text": "joined"}],
        )

    def test_what_cannot_travel_is_an_error_of_the_consumer(self):
        def consumer(message):
            message.channel_session["user"] = object()

        with self.assertLogs("django.channels.worker", "ERROR") as logs:
            answers = self.handle(consumer, "websocket.receive", event_id=3)
        self.assertEqual(answers, [{"ack": 3, "error": True}])
        self.assertIn("channel_session.user", logs.output[0])

    def test_denied_after_an_accept(self):
        def connect(message):
            message.reply_channel.send({"accept": True})
            raise DenyConnection()

        self.assertEqual(
            self.handle(connect, "websocket.connect", event_id=0),
            [{"ack": 0, "replies": [{"close": True}]}],
        )


class OneOneTests(ChannelTestCase):
    """What `@channel_session` does in tests and on methods of projects for Channels 1.1."""

    def test_on_a_method_that_gets_no_message(self):
        class Counter(JsonWebsocketConsumer):
            @sessions.channel_session
            def connect(self, message, **kwargs):
                message.channel_session["count"] = 1
                message.reply_channel.send({"accept": True})

            @sessions.channel_session
            def receive(self, content, **kwargs):
                self.message.channel_session["count"] += content
                self.send(self.message.channel_session["count"])

        client = WSClient()
        with apply_routes([route_class(Counter)]):
            client.send_and_consume("websocket.connect")
            for _ in range(2):
                client.send_and_consume("websocket.receive", text=2)
        self.assertEqual([client.receive(), client.receive()], [3, 5])

    def test_with_a_session_that_the_test_gives(self):
        @sessions.channel_session
        def consumer(message):
            message.channel_session["room"] = message["room"]

        @auth.channel_session_user
        def with_user(message):
            return message.user.is_anonymous

        Channel("jobs").send({"room": "lobby"})
        message = self.get_next_message("jobs", require=True)
        with self.assertRaises(ValueError):
            consumer(message)
        message.channel_session = sessions.ChannelSession()
        consumer(message)
        self.assertEqual(message.channel_session["room"], "lobby")
        self.assertTrue(with_user(message))
