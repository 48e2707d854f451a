"""Every road by which a site's message gets to a layer: no control key of it is obeyed."""

import re
from pathlib import Path

import django.channels
from django.channels import Channel, Group, protocol
from django.channels.asgi import channel_layers
from django.channels.delay.consumers import delay_message
from django.channels.delay.models import DelayedMessage
from django.channels.message import Message
from django.channels.outbox import outbox
from django.channels.test import ChannelTestCase

from .support.waiting import wait_until

FORGED = {
    protocol.ACK: 1,
    protocol.REPLIES: [{"text": "forged"}],
    protocol.ERROR: True,
    protocol.DURING: 0,
    protocol.BODY_CREDIT: 5,
    protocol.WINDOW_CHANNEL: "window?1",
    protocol.SESSION: {"set": {"admin": True}, "removed": []},
    protocol.LOST: 1,
    protocol.RESET: True,
    protocol.GROUP: "staff",
    protocol.GROUP_ADD: "staff",
    protocol.GROUP_DISCARD: "staff",
    protocol.RETRIES: 100,
    protocol.REDELIVERED: True,
    protocol.EVENT_ID: 3,
    protocol.FRAMES: [{"text": "forged", "order": 1}],
}

#: The keys without a meaning on each kind of channel, where they are a site's own.
MEANINGLESS = {
    "gateway.test!1": {
        protocol.RETRIES,
        protocol.REDELIVERED,
        protocol.EVENT_ID,
        protocol.FRAMES,
    },
    "websocket.receive": set(FORGED)
    - {protocol.SESSION, protocol.RETRIES, protocol.REDELIVERED}
    - {protocol.EVENT_ID, protocol.FRAMES},
    "site.work": set(FORGED) - {protocol.SESSION, protocol.RETRIES, protocol.REDELIVERED},
}


class RoadTests(ChannelTestCase):
    def check(self, road, names=tuple(MEANINGLESS)):
        for name in names:
            with self.subTest(channel=name):
                road(name, dict(FORGED, text="x"))
                self.assertEqual(set(self.arrived(name)) - {"text"}, MEANINGLESS[name])

    def arrived(self, name):
        return wait_until(lambda: self.layer.receive_many([name])[1], "the message on " + name)

    @property
    def layer(self):
        return channel_layers["default"]

    def test_send(self):
        self.check(lambda name, content: Channel(name).send(content))

    def test_send_at_once_and_on_commit(self):
        self.check(lambda name, content: Channel(name).send(content, immediately=True))

    def test_a_pending_send(self):
        def road(name, content):
            outbox.open()
            Channel(name).send(content)
            for send in outbox.close().sends:
                send.deliver_once()

        self.check(road)

    def test_a_group(self):
        def road(name, content):
            Group("room").add(name)
            Group("room").send(content)
            Group("room").discard(name)

        self.check(road, ["site.work"])

    def test_a_delayed_message_of_the_layer(self):
        self.assertIn("delay", self.layer.extensions)

        def road(name, content):
            request = {"channel": name, "content": content, "delay": 0}
            delay_message(Message(request, "asgi.delay", self.layer))

        self.check(road)

    def test_a_delayed_message_of_the_database(self):
        def road(name, content):
            delayed = DelayedMessage(channel_name=name)
            delayed.message = content
            delayed.save()
            delayed.send(channel_layer=self.layer)

        self.check(road)

    def test_no_other_module_of_the_package_sends_on_a_layer(self):
        """What bindings, multiplexers and consumers send goes through Channel and Group, tested above."""
        package = Path(django.channels.__file__).parent
        call = re.compile(r"layer\.(send|send_group|send_later|deliver|deliver_group)\b")
        inside = (
            "layers",
            "gateway",
            "test",
        )  # the layers, events, and what stands in for a gateway
        callers = set()
        for path in package.rglob("*.py"):
            name = path.relative_to(package)
            if name.parts[0] not in inside and call.search(path.read_text(encoding="utf-8")):
                callers.add(name.as_posix())
        known = {
            "channel.py",  # the entrance
            "outbox.py",  # what the entrance has checked, and left pending
            "replies.py",  # acknowledgements
            "handler.py",  # parts of a response, built by the handler
            "streams.py",  # the same, of asynchronous streams
            "async_views.py",  # the same, of asynchronous views
            "windows.py",  # the notice `closed` to a thread of this process
            "delay/consumers.py",  # checked by `Channel.checked`
            "delay/worker.py",  # a request that goes back to asgi.delay
        }
        self.assertEqual(callers, known)
