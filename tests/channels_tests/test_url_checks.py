"""The system check for consumers that stand in the URLconf."""

from django.channels.generic.websockets import WebsocketConsumer
from django.channels.sessions import channel_session
from django.channels.url_checks import check_urls
from django.http import HttpResponse
from django.test import SimpleTestCase, override_settings
from django.views.generic import View

from . import http_site

try:
    from django.urls import include
except ImportError:  # until Django 1.11 goes
    from django.conf.urls import include


class Chat(WebsocketConsumer):
    pass


@channel_session
def receive(message):
    pass


def view(request):
    return HttpResponse()


class Page(View):
    pass


class UrlTests(SimpleTestCase):
    def check(self, *patterns):
        """Return the consumers that the check finds in a URLconf."""
        urls = type("URLconf", (), {"urlpatterns": list(patterns)})
        with override_settings(ROOT_URLCONF=urls):
            found = check_urls(None)
        self.assertEqual({each.id for each in found} - {"channels.W029"}, set())
        return [each.msg.split()[5].rpartition(".")[2].rstrip(",") for each in found]

    def test_consumers_are_found(self):
        for consumer, name in ((Chat, "Chat"), (receive, "receive")):
            pattern = http_site.re_path("^chat/$", consumer)
            self.assertEqual(self.check(pattern), [name])
            self.assertEqual(self.check(http_site.re_path("^a/", include([pattern]))), [name])

    def test_views_are_not(self):
        pages = [
            http_site.re_path("^%d$" % n, each) for n, each in enumerate((view, Page.as_view()))
        ]
        self.assertEqual(self.check(*pages), [])

    def test_what_cannot_be_read_is_left_to_django(self):
        self.assertEqual(self.check(object()), [])
        for urls in (None, "", "no.such.module", 5):
            with override_settings(ROOT_URLCONF=urls):
                self.assertEqual(check_urls(None), [])
