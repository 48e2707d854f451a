"""django-knocker: notifications about saved objects, by language."""

from channels.test import ChannelTestCase, WSClient
from django.db import models
from knocker.mixins import KnockerModel
from knocker.signals import notify_items, pause_knocks
from meta.models import ModelMeta


class Post(KnockerModel, ModelMeta, models.Model):
    title = models.CharField(max_length=10)

    class Meta:
        app_label = "knocker"

    def get_title(self):
        return self.title

    def get_absolute_url(self):
        return "/post/"

    def should_knock(self, created=False):
        return True


class KnockerTests(ChannelTestCase):
    def test_a_saved_object_knocks(self):
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/knocker/en-us/")
        post = Post(title="news")
        notify_items(sender=Post, instance=post, created=True)
        received = client.receive()
        self.assertEqual((received["message"], received["url"]), ("news", "/post/"))
        with pause_knocks(post):
            notify_items(sender=Post, instance=post, created=True)
        self.assertIsNone(client.receive())
        client.send_and_consume("websocket.receive", text="x", path="/knocker/en-us/")
        client.send_and_consume("websocket.disconnect", path="/knocker/en-us/")
        notify_items(sender=Post, instance=post, created=True)
        self.assertIsNone(client.receive())
