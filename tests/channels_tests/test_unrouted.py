"""What the log says of a WebSocket whose path no route takes."""

from django.channels import include, route
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.message import Message
from django.channels.unrouted import denial
from django.test import SimpleTestCase


def consumer(message, **kwargs):
    pass


def said(path, *routes):
    layer = MemoryChannelLayer()
    layer.routing = list(routes)
    return denial(Message({"path": path}, "websocket.connect", layer))


LIVE = (
    route("websocket.connect", consumer, path=r"^/live/(?P<room>\w+)/$"),
    route("websocket.receive", consumer, path=r"^/plain$"),
)


class DenialTests(SimpleTestCase):
    def test_a_site_below_a_path_is_told_what_to_write(self):
        text = said("/shop/live/a/", *LIVE)
        self.assertIn("WebSocket /shop/live/a/ denied: no route", text)
        self.assertIn("but one takes /live/a/", text)
        self.assertIn(
            "If the site is below /shop, write include(…, path=r'^(?:/shop(?=/))?')", text
        )
        self.assertIn("nginx", text)
        self.assertIn("below /a/b/c,", said("/a/b/c/live/x/", *LIVE))
        self.assertNotIn("but one", said("/a/b/c/d/live/x/", *LIVE))

    def test_what_it_tells_to_write_takes_the_path(self):
        mounted = include(list(LIVE), path=r"^(?:/shop(?=/))?")
        layer = MemoryChannelLayer()
        layer.routing = [mounted]
        for path in ("/shop/live/a/", "/live/a/", "/shop/plain"):
            channel = "websocket.receive" if "plain" in path else "websocket.connect"
            self.assertIsNotNone(layer.router.match(Message({"path": path}, channel, layer)))

    def test_a_slash_too_many_or_too_few(self):
        for path, near in (("/live/a", "/live/a/"), ("/plain/", "/plain")):
            text = said(path, *LIVE)
            self.assertIn("but one takes %s. Correct the URL in the page." % near, text)

    def test_a_path_that_is_near_none(self):
        for path in ("/", "/chat/", "", "//", "/live/", "/a/b/c/d/e/", "\n\x1b[31m"):
            text = said(path, *LIVE)
            self.assertTrue(text.endswith("takes this path."), text)
            self.assertNotIn("\x1b", text)
        self.assertTrue(said("/live/a/").endswith("takes this path."))
