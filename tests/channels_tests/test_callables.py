"""Routes to a method without its instance, or to a view: refused if it can't run, else warned of."""

import functools

from django.channels import include, route, route_class
from django.channels.callables import unbound, view_class
from django.channels.generic.websockets import WebsocketConsumer, WebsocketDemultiplexer
from django.channels.handler import AsgiHandler
from django.channels.routing import InvalidRoute, Router
from django.channels.sessions import channel_session
from django.contrib.auth.decorators import login_required as django_login_required
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import render
from django.test import SimpleTestCase
from django.views.generic import TemplateView, View

from .test_consumer_checks import check


class Jobs:
    def run(self, message):
        pass

    @channel_session
    def decorated(self, message, **kwargs):
        pass

    @transaction.atomic
    def atomic(self, message):
        pass

    async def later(self, message):
        pass

    def alone(self):
        pass

    def optional(self, message=None, **kwargs):
        pass

    @classmethod
    def of_class(cls, message):
        pass

    @staticmethod
    def static(self, **kwargs):
        pass


class Chat:
    """Only groups its functions."""

    def connect(message):
        pass

    receive = lambda message: None  # noqa: E731


class Room(WebsocketConsumer):
    def connect(self, message, **kwargs):
        pass

    def receive(self, text=None, bytes=None, **kwargs):
        pass


class Page(View):
    pass


class OwnView(View):
    def dispatch(self, message, **kwargs):
        pass


def view(request):
    return render(request, "page.html")


def other_view(request, pk):
    if request.method == "POST":
        return HttpResponse(pk)


def answer(request):
    response = HttpResponse("hello")
    for each in AsgiHandler.encode_response(response):
        request.reply_channel.send(each)


def helper(message):
    def inner(self, message=None):
        pass

    return inner


class RouteTests(SimpleTestCase):
    def assert_refused(self, consumer, *words):
        for call in (
            lambda: route("jobs", consumer),
            lambda: Router({"jobs": consumer}),
            lambda: include([route("jobs", consumer)]),
        ):
            with self.assertRaises(InvalidRoute) as raised:
                call()
            for word in words:
                self.assertIn(word, str(raised.exception))

    def test_a_method_that_needs_its_message_is_refused(self):
        for name in ("run", "decorated", "atomic", "later"):
            with self.subTest(name):
                method = getattr(Jobs, name)
                self.assert_refused(method, "is a method", "Write Jobs().%s, or a function" % name)
                self.assert_refused(functools.partial(method), "is a method")
                route("jobs", getattr(Jobs(), name))
        self.assert_refused(Room.connect, "write Room.as_route(path=")

        class Local:
            def run(self, message):
                pass

        self.assert_refused(Local.run, "is a method", "Local().run")
        several = type("Several", (WebsocketDemultiplexer,), {"consumers": {"jobs": Jobs.run}})
        with self.assertRaisesRegex(InvalidRoute, "consumers\\['jobs'\\].*is a method"):
            route_class(several)

    def test_a_view_is_refused(self):
        for each in (
            Page.as_view(),
            TemplateView.as_view(template_name="a.html"),
            django_login_required(Page.as_view()),
            transaction.atomic(Page.as_view()),
        ):
            self.assert_refused(each, "is a view, not a consumer", ".as_view() into urls.py")
        self.assertIs(view_class(Page.as_view()), Page)

    def test_what_may_run_is_not_refused(self):
        for each in (
            Jobs().run,
            Jobs.alone,
            Jobs.optional,
            Jobs.of_class,
            Jobs.static,
            Chat.connect,
            Chat.receive,
            Room.receive,
            functools.partial(Jobs.run, Jobs()),
            channel_session(Jobs().run),
            OwnView.as_view(),
            view,
            other_view,
            answer,
        ):
            with self.subTest(each):
                kwargs = {"path": r"^/(?P<pk>\d+)/$"} if each is other_view else {}
                route("own", each, **kwargs)


class CheckTests(SimpleTestCase):
    def found(self, consumer, **filters):
        return [
            each for each in check(route("own", consumer, **filters)) if each.id != "channels.E007"
        ]

    def test_a_method_that_runs_on_the_message_is_warned_of(self):
        for method in (Jobs.alone, Jobs.optional, functools.partial(Jobs.optional), Room.receive):
            (problem,) = self.found(method)
            self.assertEqual(problem.id, "channels.W024")
            self.assertIn("its `self` is the message", problem.msg)
            self.assertIn("Room.as_route" if method is Room.receive else "Jobs().", problem.hint)
        several = type("Several", (WebsocketDemultiplexer,), {"consumers": {"own": Jobs.optional}})
        (problem,) = check(route_class(several))
        self.assertIn("Jobs.optional is a method", problem.msg)

    def test_a_view_that_may_run_is_warned_of(self):
        for each in (OwnView.as_view(), view, channel_session(view), transaction.atomic(view)):
            (problem,) = self.found(each)
            self.assertEqual(problem.id, "channels.W024")
            self.assertIn("seems to be a view", problem.msg)
            self.assertIn("urls.py", problem.hint)
        (problem,) = self.found(other_view, path=r"^/(?P<pk>\d+)/$")
        self.assertIn("other_view seems to be a view", problem.msg)

    def test_consumers_are_left_alone(self):
        for each in (
            Jobs().run,
            Jobs().optional,
            Jobs.of_class,
            Jobs.static,
            Chat.connect,
            Chat.receive,
            functools.partial(Jobs.run, Jobs()),
            channel_session(Jobs().decorated),
            answer,
            lambda message: None,
        ):
            with self.subTest(each):
                self.assertEqual(self.found(each), [])
        self.assertEqual(check(route_class(Room)), [])
        self.assertIsNone(unbound(helper(None)))
