"""Which requests have their view on the event loop, with middleware that changes what the URL means."""

import asyncio
import threading
from unittest import skipIf, skipUnless

import django
from django import http
from django.channels.eventloop import CALL_THREADS
from django.channels.handler import ViewConsumer
from django.channels.routing import route
from django.channels.thread_state import IN_CONTEXT_VARIABLES
from django.core.signals import request_finished
from django.test import override_settings

from .support.waiting import TIMEOUT, wait_until
from .test_async_consumers import AsyncCase

try:
    from django.conf.urls.i18n import i18n_patterns
    from django.urls import path
except ImportError:  # until Django 1.11 goes; these tests need 4.2
    path = None

LOOP, THREAD = "on the loop", "in a thread"


def _where():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return THREAD
    return LOOP if threading.current_thread().name == "channels-loop" else THREAD


async def asynchronous(request):
    return http.HttpResponse("asynchronous %s" % _where())


def synchronous(request):
    return http.HttpResponse("synchronous %s" % _where())


def urlconf(*patterns):
    return type("URLconf", (), {"urlpatterns": list(patterns)})


if path is not None:
    SYNC_SITE = urlconf(path("view/", synchronous), path("other/", synchronous))
    ASYNC_SITE = urlconf(path("view/", asynchronous), path("sync/", synchronous))
    LOCALE_SITE = urlconf(
        *i18n_patterns(path("view/", asynchronous), path("sync/", synchronous)),
        path("other/", synchronous),
    )


behind_sync_middleware = skipUnless(
    IN_CONTEXT_VARIABLES,
    "With asgiref before 3.8, Django runs an asynchronous view behind synchronous middleware in a thread.",
)


class _Middleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        self.change(request)
        return self.get_response(request)


class ChooseURLconf(_Middleware):
    def change(self, request):
        if request.headers.get("X-Site") == "other":
            request.urlconf = ASYNC_SITE


class RewritePath(_Middleware):
    def change(self, request):
        request.path_info = request.path_info.replace("/old/", "/")


@skipIf(django.VERSION < (4, 2), "Asynchronous views run on the loop with Django 4.2 and newer")
class AsyncViewTests(AsyncCase):
    def serve(self, site, *middleware):
        names = ["%s.%s" % (__name__, each) if "." not in each else each for each in middleware]
        settings = override_settings(
            ROOT_URLCONF=site, MIDDLEWARE=names, ALLOWED_HOSTS=["testserver"], USE_I18N=True
        )
        settings.enable()
        self.addCleanup(settings.disable)
        if not hasattr(self, "group"):
            self.start(route("http.request", ViewConsumer()))

    def ask(self, url, **headers):
        """Return the body and the status of the response to a request."""
        pairs = [[b"host", b"testserver"]]
        pairs += [
            [name.replace("_", "-").encode(), value.encode()] for name, value in headers.items()
        ]
        reply = self.next(self.send("http.request", path=url, method="GET", headers=pairs))
        response = reply["replies"][0] if "replies" in reply else reply
        return response["content"].decode() if response["status"] == 200 else response["status"]

    def test_a_view_runs_where_its_kind_belongs(self):
        self.serve(ASYNC_SITE)
        self.assertEqual(self.ask("/view/"), "asynchronous on the loop")
        self.assertEqual(self.ask("/sync/"), "synchronous in a thread")
        self.assertEqual(self.ask("/missing/"), 404)

    def test_the_language_of_the_url_counts(self):
        self.serve(LOCALE_SITE, "django.middleware.locale.LocaleMiddleware")
        for language in ("de", "en", "fr"):
            self.assertEqual(self.ask("/%s/view/" % language), "asynchronous on the loop")
            self.assertEqual(self.ask("/%s/sync/" % language), "synchronous in a thread")
        self.assertEqual(self.ask("/xx/view/"), 404)
        self.assertEqual(self.ask("/view/"), 302)

    @behind_sync_middleware
    def test_a_urlconf_that_middleware_chooses_counts_after_the_first_requests(self):
        self.serve(SYNC_SITE, "ChooseURLconf")
        answers = [self.ask("/view/", x_site="other") for _ in range(4)]
        self.assertEqual(answers[0], "asynchronous in a thread")
        self.assertEqual(answers[-1], "asynchronous on the loop")
        # Their guess is another view, or the same one: the response is right in both cases.
        self.assertEqual(self.ask("/other/"), "synchronous in a thread")
        self.assertIn("synchronous", self.ask("/view/"))
        self.assertEqual(self.ask("/sync/", x_site="other"), "synchronous in a thread")

    def test_responses_that_close_slowly_keep_no_awaited_send_waiting(self):
        gate = threading.Event()

        def receiver(**kwargs):
            self.seen.append(threading.current_thread().name)
            gate.wait(10 * TIMEOUT)

        async def consumer(message):
            await message.reply_channel.asend({"text": "now"})

        request_finished.connect(receiver)
        self.addCleanup(request_finished.disconnect, receiver)
        self.start(route("http.request", ViewConsumer()), route("websocket.receive", consumer))
        self.addCleanup(gate.set)
        self.serve(ASYNC_SITE)
        for number in range(1, 3 * CALL_THREADS):
            self.assertEqual(self.ask("/view/"), "asynchronous on the loop")
            wait_until(lambda number=number: len(self.seen) == number, "the response to be closed")
        self.assertEqual(self.next(self.send(text="x"))["replies"], [{"text": "now"}])

    @behind_sync_middleware
    def test_a_path_that_middleware_rewrites_counts_after_the_first_requests(self):
        self.serve(ASYNC_SITE, "RewritePath")
        self.assertEqual(self.ask("/old/view/"), "asynchronous in a thread")
        self.assertEqual(self.ask("/old/view/"), "asynchronous on the loop")
        self.assertEqual(self.ask("/view/"), "asynchronous on the loop")
        self.assertEqual(self.ask("/sync/"), "synchronous in a thread")

    def test_a_changed_root_urlconf_counts_at_once(self):
        self.serve(SYNC_SITE)
        self.assertEqual(self.ask("/view/"), "synchronous in a thread")
        with override_settings(ROOT_URLCONF=ASYNC_SITE):
            self.assertEqual(self.ask("/view/"), "asynchronous on the loop")
        self.assertEqual(self.ask("/view/"), "synchronous in a thread")

    def test_a_urlconf_that_fails_is_answered_by_django(self):
        self.serve("channels_tests.missing_urlconf")
        with self.assertLogs("django.request", "ERROR"):
            self.assertEqual(self.ask("/view/"), 500)
