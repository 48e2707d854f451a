"""channels.auth: the user of a connection."""

from importlib import import_module
from unittest import skipIf

import django
from django.channels import Channel, auth
from django.channels.asgi import channel_layers
from django.channels.message import Message
from django.channels.sessions import ChannelSession, channel_and_http_session
from django.channels.test import ChannelTestCase
from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest


class AuthTests(ChannelTestCase):
    def setUp(self):
        self.user = get_user_model().objects.create_user("ada", "ada@example.com", "secret")
        self.user.backend = settings.AUTHENTICATION_BACKENDS[0]
        request = HttpRequest()
        request.session = import_module(settings.SESSION_ENGINE).SessionStore()
        login(request, self.user)
        request.session.save()
        self.http_session = request.session

    def message(self, channel="websocket.connect", data=None, cookie=True):
        content = {"reply_channel": "reply?1", "headers": []}
        if cookie:
            text = "%s=%s" % (settings.SESSION_COOKIE_NAME, self.http_session.session_key)
            content["headers"].append([b"cookie", text.encode("ascii")])
        return Message(content, channel, channel_layers["default"], session_data=data)

    def run_with(self, decorator, message):
        users = []
        decorator(lambda message: users.append(message.user))(message)
        return users[0]

    def test_the_old_decorator_gives_the_user_and_both_sessions(self):
        seen = []
        message = self.message()
        auth.channel_and_http_session_user_from_http(
            lambda message: seen.extend([message.user, message.http_session.session_key])
        )(message)
        self.assertEqual(seen, [self.user, self.http_session.session_key])
        later = self.message("websocket.receive", dict(message.channel_session), cookie=False)
        channel_and_http_session(lambda message: seen.append(message.http_session.session_key))(
            later
        )
        self.assertEqual(seen[2], self.http_session.session_key)

    def test_transfer_user(self):
        session = ChannelSession({}, "reply?1")
        auth.transfer_user(self.http_session, session)
        self.assertEqual(auth.session_user(session), self.user)
        self.assertEqual(len(session.patch()["set"]), 3)

    def test_transfer_of_nobody_logs_out(self):
        session = ChannelSession({}, "reply?1")
        auth.transfer_user(self.http_session, session)
        session["room"] = "kept"
        auth.transfer_user({}, session)
        self.assertFalse(auth.session_user(session).pk)
        self.assertEqual(session.snapshot(), {"room": "kept"})

    def test_http_session_user(self):
        self.assertEqual(self.run_with(auth.http_session_user, self.message()), self.user)

    def test_http_session_user_without_session_is_anonymous(self):
        user = self.run_with(auth.http_session_user, self.message(cookie=False))
        self.assertFalse(user.pk)
        self.assertEqual(str(user), "AnonymousUser")

    def test_channel_session_user_is_anonymous_at_first(self):
        self.assertFalse(self.run_with(auth.channel_session_user, self.message()).pk)

    def test_from_http_then_channel(self):
        connect = self.message()
        self.assertEqual(self.run_with(auth.channel_session_user_from_http, connect), self.user)
        data = connect.channel_session.snapshot()
        receive = self.message("websocket.receive", data=data, cookie=False)
        self.assertEqual(self.run_with(auth.channel_session_user, receive), self.user)
        self.assertIsNone(receive.session_patch())
        # Decorated with it on every event, as some sites do: a missing cookie must not log anybody out.
        receive = self.message("websocket.receive", data=data, cookie=False)
        self.assertEqual(self.run_with(auth.channel_session_user_from_http, receive), self.user)

    @skipIf(django.VERSION < (1, 10), "is_authenticated is a method there")
    def test_whether_somebody_is_logged_in_can_be_sent(self):
        for user in (AnonymousUser(), self.user):
            Channel("test").send({"accept": user.is_authenticated})
            self.assertIs(self.get_next_message("test")["accept"], user is self.user)

    def test_user_is_looked_up_when_used(self):
        connect = self.message()
        self.run_with(auth.channel_session_user_from_http, connect)
        receive = self.message(
            "websocket.receive", data=connect.channel_session.snapshot(), cookie=False
        )
        with self.assertNumQueries(0):
            user = self.run_with(auth.channel_session_user, receive)
        with self.assertNumQueries(1):
            self.assertEqual(user.username, "ada")

    def test_a_changed_password_ends_the_channel_session(self):
        connect = self.message()
        self.run_with(auth.channel_session_user_from_http, connect)
        data = connect.channel_session.snapshot()
        self.user.set_password("other")
        self.user.save()
        receive = self.message("websocket.receive", data=data, cookie=False)
        user = self.run_with(auth.channel_session_user, receive)
        import django

        if django.VERSION < (1, 10):  # where sessions are verified by a middleware only
            self.skipTest("Django before 1.10 verifies sessions only with its middleware")
        self.assertFalse(user.pk)
        self.assertEqual(sorted(receive.session_patch()["removed"]), sorted(data))

    @skipIf(django.VERSION < (4, 1), "no SECRET_KEY_FALLBACKS there")
    def test_a_new_secret_key_gives_the_visitor_no_new_session(self):
        with self.settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            user = self.run_with(auth.http_session_user, self.message())
            self.assertEqual(user, self.user)
        self.assertTrue(self.http_session.exists(self.http_session.session_key))

    def test_a_user_who_is_deleted_is_anonymous(self):
        connect = self.message()
        self.run_with(auth.channel_session_user_from_http, connect)
        data = connect.channel_session.snapshot()
        self.user.delete()
        for decorator in (auth.http_session_user, auth.channel_session_user_from_http):
            self.assertFalse(self.run_with(decorator, self.message()).pk)
        receive = self.message("websocket.receive", data=data, cookie=False)
        self.assertFalse(self.run_with(auth.channel_session_user, receive).pk)

    @skipIf(django.VERSION < (1, 10), "sessions are verified by a middleware there")
    def test_a_changed_password_makes_the_visitor_anonymous(self):
        self.user.set_password("other")
        self.user.save()
        for decorator in (auth.http_session_user, auth.channel_session_user_from_http):
            self.assertFalse(self.run_with(decorator, self.message()).pk)
