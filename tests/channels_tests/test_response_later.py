"""ResponseLater wherever a request passes: middleware of both styles, decorators, templates, async code."""

import logging
import warnings
from unittest import mock, skipIf, skipUnless

import django
from django import http, template
from django.channels.exceptions import ResponseLater
from django.channels.handler import ViewConsumer
from django.channels.routing import route
from django.contrib.auth.models import Group as Row
from django.core import mail, signals
from django.db import connection
from django.template.response import SimpleTemplateResponse
from django.test import RequestFactory, SimpleTestCase, TestCase, override_settings

from .http_site import re_path
from .support.contexts import enter
from .support.waiting import TIMEOUT
from .test_async_consumers import AsyncCase
from .test_worker_http import SESSIONS, Site

HERE = __name__

#: The places where the request is answered later, by name. A test sets them.
raising = set()

#: What the outermost middleware saw, and the session that it used.
noted, noted_session = [], []


def may_raise(place):
    if place in raising:
        raise ResponseLater()


class Raising:
    """Middleware of both styles that has every hook. Each may answer later."""

    def __init__(self, get_response=None):
        self.get_response = get_response

    def __call__(self, request):
        self.process_request(request)
        return self.process_response(request, self.get_response(request))

    def process_request(self, request):
        may_raise("process_request")

    def process_view(self, request, view, args, kwargs):
        may_raise("process_view")

    def process_template_response(self, request, response):
        may_raise("process_template_response")
        return response

    def process_response(self, request, response):
        may_raise("process_response")
        return response

    def process_exception(self, request, exception):
        may_raise("process_exception")


class Outer(Raising):
    """The outermost middleware: it notes what it sees, and begins a session."""

    def process_request(self, request):
        request.session["seen"] = 1
        noted_session[:] = [request.session]

    def process_view(self, request, view, args, kwargs):
        pass

    def process_template_response(self, request, response):
        return response

    def process_response(self, request, response):
        noted.append(response.status_code)
        return http.HttpResponse("another") if "replaced" in raising else response

    def process_exception(self, request, exception):
        noted.append(type(exception).__name__)


class Copying(Raising):
    """Middleware that passes on another request."""

    def __call__(self, request):
        return self.get_response(RequestFactory().get("/"))


def view(request):
    Row.objects.create(name="kept")
    may_raise("view")
    if "process_exception" in raising:
        raise KeyError("the view failed")
    if "template" in raising:
        return SimpleTemplateResponse(tagged())
    return SimpleTemplateResponse(template.engines["django"].from_string("hello"))


def decorated(function):
    def wrapper(request):
        may_raise("decorator before")
        response = function(request)
        may_raise("decorator after")
        return response

    return wrapper


def tagged():
    """Return a template whose tag answers later."""

    class Node(template.Node):
        def render(self, context):
            may_raise("template")
            return ""

    found = template.engines["django"].from_string("{% if 1 %}x{% endif %}")
    found.template.nodelist.append(Node())
    return found


class MiddlewareTests(Site, TestCase):
    """The middleware of the settings, in the style that MIDDLEWARE has, or had before Django 1.10."""

    PLACES = (
        "view",
        "decorator before",
        "decorator after",
        "template",
        "process_request",
        "process_view",
        "process_template_response",
        "process_response",
        "process_exception",
    )

    def setUp(self):
        super().setUp()
        del noted[:]
        raising.clear()
        self.errors, self.records = [], []
        self.on(signals.got_request_exception, lambda **kwargs: self.errors.append(kwargs))
        handler = logging.Handler()
        handler.emit = self.records.append
        for name in ("", "django", "django.request", "django.channels"):
            logging.getLogger(name).addHandler(handler)
            self.addCleanup(logging.getLogger(name).removeHandler, handler)

    def ask(self, *places, **changes):
        """Return what a request is answered with if it is answered later at `places`."""
        raising.clear()
        raising.update(places)
        del noted[:]
        return self.request(**changes)

    def serve_all(self, *inner):
        names = [SESSIONS, HERE + ".Outer", HERE + ".Raising", *inner]
        enter(
            self,
            override_settings(
                ADMINS=[("a", "a@example.com")],
                SESSION_ENGINE="django.contrib.sessions.backends.db",
            ),
        )
        mail.outbox = []
        self.serve(decorated(view), names)

    def check_places(self):
        for atomic in (False, True):
            for place in self.PLACES:
                with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=atomic):
                    self.assertEqual(self.ask(place), [{"ack": 0}], (place, atomic))
                self.assertEqual(noted, [202], (place, atomic))
                session = noted_session[0]
                self.assertEqual(type(session)(session.session_key).get("seen"), 1, place)
                runs_view = place not in ("decorator before", "process_request", "process_view")
                is_kept = runs_view and not (atomic and place == "process_exception")
                self.assertEqual(Row.objects.filter(name="kept").exists(), is_kept, (place, atomic))
                Row.objects.all().delete()
                if django.VERSION < (1, 10) and place == "template":
                    del self.errors[:]  # these Djangos send the signal before they ask the handler
        self.assertEqual([record.getMessage() for record in self.records], [])
        self.assertEqual((self.errors, mail.outbox), ([], []))

    def test_it_is_an_ordinary_and_silent_end_everywhere(self):
        self.serve_all()
        self.check_places()

    @skipUnless((1, 10) <= django.VERSION < (2, 0), "MIDDLEWARE_CLASSES and MIDDLEWARE: 1.10, 1.11")
    def test_it_is_one_in_middleware_of_the_old_style(self):
        self.serve_all()
        with self.settings(MIDDLEWARE=None), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Django's, that the style is deprecated
            self.check_places()

    def test_other_exceptions_of_middleware_are_errors(self):
        self.serve_all()
        with mock.patch(HERE + ".may_raise", side_effect=KeyError("x")), self.logs():
            self.assertEqual(self.response(self.ask()).status, 500)
        self.assertEqual(self.response(self.ask()).status, 200)

    @skipIf(django.VERSION < (1, 10), "Middleware that wraps another is new in Django 1.10")
    def test_middleware_may_pass_on_another_request_or_return_another_response(self):
        self.serve_all(HERE + ".Copying")
        self.assertEqual(self.ask("view"), [{"ack": 0}])
        self.assertEqual(self.ask("process_request", "replaced"), [{"ack": 0}])


class ElsewhereTests(Site, SimpleTestCase):
    def test_where_it_has_no_meaning_its_text_says_what_to_do(self):
        self.assertIn("Only a view or middleware may raise", str(ResponseLater()))
        self.assertEqual(str(ResponseLater("mine")), "mine")

    @skipIf(django.VERSION < (1, 10), "Middleware that wraps another is new in Django 1.10")
    def test_under_wsgi_it_is_an_error_also_beside_a_site_with_channels(self):
        from django.core.handlers.wsgi import WSGIHandler

        raising.clear()
        raising.add("process_request")
        self.serve(lambda request: http.HttpResponse("hello"), [HERE + ".Raising"])
        self.assertEqual(self.request(), [{"ack": 0}])
        statuses = []
        with self.logs() as logs:
            environ = RequestFactory().get("/").environ
            WSGIHandler()(environ, lambda status, headers: statuses.append(status))
        self.assertTrue(statuses[0].startswith("500"))
        self.assertIn("A consumer leaves its request open by sending nothing", logs.output[0])


if django.VERSION >= (4, 2):
    from django.utils.deprecation import MiddlewareMixin

    def async_middleware(get_response):
        async def inner(request):
            may_raise("before")
            response = await get_response(request)
            may_raise("after")
            noted.append(response.status_code)
            return response

        return inner

    async_middleware.async_capable, async_middleware.sync_capable = True, False

    class Both(MiddlewareMixin):
        def process_request(self, request):
            may_raise("process_request")

        async def process_view(self, request, view, args, kwargs):
            may_raise("process_view")

        def process_response(self, request, response):
            may_raise("process_response")
            return response

    async def async_view(request):
        may_raise("view")
        return http.HttpResponse("hello")


@skipIf(django.VERSION < (4, 2), "Asynchronous views run on the loop with Django 4.2 and newer")
class AsyncTests(AsyncCase):
    PLACES = ("before", "after", "process_request", "process_view", "process_response", "view")

    def test_it_is_an_ordinary_and_silent_end_on_the_event_loop(self):
        for site_view in (async_view, lambda request: http.HttpResponse("hello")):
            self.check(site_view)

    def check(self, site_view):
        errors = []

        def note(**kwargs):
            errors.append(kwargs)

        signals.got_request_exception.connect(note)
        self.addCleanup(signals.got_request_exception.disconnect, note)
        names = [HERE + ".async_middleware", HERE + ".Both", HERE + ".async_middleware"]
        with override_settings(
            ROOT_URLCONF=type("URLconf", (), {"urlpatterns": [re_path(r"^", site_view)]}),
            MIDDLEWARE=names,
            ALLOWED_HOSTS=["testserver"],
        ):
            self.start(route("http.request", ViewConsumer()))
            for place in (*self.PLACES, None):
                raising.clear()
                raising.add(place)
                client = self.send(
                    "http.request",
                    path="/",
                    method="GET",
                    headers=[[b"host", b"testserver"]],
                )
                reply = self.next(client)
                if place is None or (place == "view" and site_view is not async_view):
                    self.assertEqual(reply["replies"][0]["status"], 200)
                else:
                    self.assertEqual(reply, {"ack": 7}, place)
            self.group.stop(TIMEOUT)
        self.assertEqual(errors, [])
