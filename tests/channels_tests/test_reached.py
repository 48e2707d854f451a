"""channels.W017 and W018 look into what consumers call: functions, methods and classes of the site."""

import functools
import json
import logging
import types
from unittest import mock

from django.channels import route, route_class
from django.channels.auth import (
    channel_session_user,
    channel_session_user_from_http,
    login_required,
    transfer_user,
)
from django.channels.generic.websockets import WebsocketConsumer
from django.channels.reached import reached
from django.channels.sessions import channel_and_http_session
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.dispatch import Signal
from django.shortcuts import get_object_or_404
from django.test import SimpleTestCase

from .test_consumer_checks import check, made

logger = logging.getLogger(__name__)
changed = Signal()


def plain(message):
    pass


def save_vote(user, text):
    logger.info("%s", json.loads(text))
    cache.set("votes", count(User.objects.filter(pk=user.pk)))
    return get_object_or_404(Group, pk=1)


def count(rows):
    return len(rows) or count(rows)


class Service:
    limit = 5

    def vote(self, message):
        save_vote(message.user, message["text"])


class LogsIn:
    def run(self, message):
        self._log_in(message)

    def _log_in(self, message):
        transfer_user(message.http_session, message.channel_session)


class Caller:
    def __call__(self, message):
        LogsIn().run(message)


service, logs_in, caller = Service(), LogsIn(), Caller()


@channel_session_user
def vote(message):
    save_vote(message.user, message["text"])


@channel_session_user
def vote_by_service(message):
    service.vote(message)


def log_in(message):
    if message["path"]:
        logs_in.run(message)


def two_steps(message):
    log_in(message)


def by_class(message):
    LogsIn().run(message)


def by_object(message):
    caller(message)


def by_import(message):
    from .http_site import view

    view(message)


def by_import_like_a_standard_module(message):
    from .json import view

    view(message)


def by_text(message):
    from django.utils.module_loading import import_string

    import_string("mysite.log_in")(message)


def by_signal(message):
    changed.send(message)


def decorated_later(message):
    channel_session_user_from_http(plain)(message)


own_module = types.ModuleType("own_module")
own_module.log_in = log_in


def by_module(message):
    own_module.log_in(message)


def anonymous(connect, receive):
    routes = [route("websocket.connect", connect), route("websocket.receive", receive)]
    return [each.id for each in check(*routes)]


class UserTests(SimpleTestCase):
    def test_code_of_the_site_that_logs_nobody_in_is_seen_through(self):
        for receive in (vote, vote_by_service):
            self.assertEqual(anonymous(plain, receive), ["channels.W018"], receive)

        def closure(message):
            save_vote(None, message["path"])

        for connect in (service.vote, closure, functools.partial(closure)):
            self.assertEqual(anonymous(connect, vote), ["channels.W018"], connect)
        room = made(
            WebsocketConsumer, channel_session_user=True, receive=lambda self, **kw: vote(1)
        )
        self.assertEqual([each.id for each in check(route_class(room))], ["channels.W018"])

    def test_code_that_may_log_in_is_found_where_it_is_called(self):
        for connect in (
            log_in,
            two_steps,
            by_class,
            by_object,
            by_import,
            by_import_like_a_standard_module,
            by_text,
            by_signal,
            by_module,
            caller,
            logs_in.run,
            decorated_later,
            functools.partial(by_class),
            mock.Mock(),
            lambda message: two_steps(message),
        ):
            with self.subTest(connect):
                self.assertEqual(anonymous(connect, vote), [])

    def test_the_decorators_of_routed_consumers_count_on_their_own_channels_only(self):
        room = made(WebsocketConsumer, receive=login_required(lambda self, message, **kw: None))
        self.assertIn("channels.W018", [each.id for each in check(route_class(room))])

    def test_too_much_code_is_unknown(self):
        with mock.patch("%s.MAX_REACHED" % reached.__module__, 3):
            self.assertEqual(anonymous(plain, vote), [])
            self.assertIsNone(reached(vote))

    def test_what_is_reached(self):
        found = {
            each.__name__ for each in reached(vote_by_service) if not hasattr(each, "__wrapped__")
        }
        self.assertEqual(found, {"vote_by_service", "vote", "save_vote", "count"})
        self.assertEqual(reached(5), [])


class SessionTests(SimpleTestCase):
    def test_a_session_that_code_of_the_site_does_not_remember(self):
        def closure(message):
            save_vote(None, "")

        reads = route("websocket.receive", channel_and_http_session(plain))
        (problem,) = check(route("websocket.connect", closure), reads)
        self.assertEqual(problem.id, "channels.W017")

        def remembers(message):
            channel_and_http_session(save_vote)(message)

        self.assertEqual(check(route("websocket.connect", remembers), reads), [])
