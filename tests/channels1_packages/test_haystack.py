"""django-haystack-channels: the search index is updated by a worker."""

from channels.test import ChannelTestCase, Client
from django.contrib.auth.models import User
from haystack_channels.signals import ChannelsAsyncSignalConsumer

found = []


class HaystackTests(ChannelTestCase):
    def setUp(self):
        class Index:
            def update_object(self, instance):
                found.append(instance.username)

        original = ChannelsAsyncSignalConsumer.get_index
        ChannelsAsyncSignalConsumer.get_index = lambda self, sender: Index()
        self.addCleanup(setattr, ChannelsAsyncSignalConsumer, "get_index", original)

    def test_a_saved_object_is_indexed_by_the_consumer(self):
        user = User.objects.create(username="ann")
        Client().consume("haystack_channels.item.saved")
        self.assertEqual(found, ["ann"])
        user.delete()
        message = self.get_next_message("haystack_channels.item.deleted", require=True)
        self.assertEqual((message["app_label"], message["model_name"]), ("auth", "user"))
