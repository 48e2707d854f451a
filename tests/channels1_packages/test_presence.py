"""django-channels-presence: the people in a room, kept in the database."""

from channels import Group, route
from channels.auth import channel_session_user, channel_session_user_from_http
from channels.test import ChannelTestCase, WSClient, apply_routes
from channels_presence.channels import ws_disconnect
from channels_presence.decorators import touch_presence
from channels_presence.models import Presence, Room
from channels_presence.signals import presence_changed
from django.contrib.auth.models import User


@channel_session_user_from_http
def connect(message):
    Room.objects.add("lobby", message.reply_channel.name, message.user)
    message.reply_channel.send({"accept": True})


@touch_presence
@channel_session_user
def receive(message):
    Group("lobby").send({"text": message["text"]})


def broadcast(sender, room, **kwargs):
    Group(room.channel_name).send({"text": str(room.presence_set.count())})


class PresenceTests(ChannelTestCase):
    def setUp(self):
        presence_changed.connect(broadcast)
        self.addCleanup(presence_changed.disconnect, broadcast)

    def test_people_come_and_go(self):
        User.objects.create_user("ann", "", "secret")
        ann, anybody = WSClient(), WSClient()
        ann.login(username="ann", password="secret")
        with apply_routes(
            [
                route("websocket.connect", connect),
                route("websocket.receive", receive),
                route("websocket.disconnect", ws_disconnect),
            ]
        ):
            ann.send_and_consume("websocket.connect")
            anybody.send_and_consume("websocket.connect")
            room = Room.objects.get()
            self.assertEqual([user.username for user in room.get_users()], ["ann"])
            self.assertEqual(room.get_anonymous_count(), 1)
            self.assertEqual([ann.receive(), ann.receive(), anybody.receive()], [1, 2, 2])
            ann.send_and_consume("websocket.receive", text='"heartbeat"')
            self.assertIsNotNone(Presence.objects.get(user__username="ann").last_seen)
            anybody.send_and_consume("websocket.disconnect")
            ann.receive()
            ann.send_and_consume("websocket.disconnect")
        Room.objects.prune_rooms()
        self.assertFalse(Room.objects.exists())
