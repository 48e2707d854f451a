from channels import Channel, Group
from channels.test import ChannelTestCase, WSClient
from django.contrib.auth.models import User

from .models import Room


class ChatTests(ChannelTestCase):
    def setUp(self):
        User.objects.create_user("ann", "", "secret")
        self.hall = Room.objects.create(title="Hall")
        self.office = Room.objects.create(title="Office", staff_only=True)
        self.client = WSClient()
        self.client.login(username="ann", password="secret")
        self.client.send_and_consume("websocket.connect", path="/chat/stream/")

    def command(self, **payload):
        self.client.send_and_consume("websocket.receive", text=payload, path="/chat/stream/")
        self.client.consume("chat.receive")

    def test_join_send_leave(self):
        self.command(command="join", room=self.hall.id)
        # What a consumer sends leaves at its end, when the socket is in the group already.
        self.assertEqual(self.client.receive()["action"], "joined")
        self.assertEqual(self.client.receive(), {"join": self.hall.id, "title": "Hall"})
        self.command(command="send", room=self.hall.id, message="hello")
        said = {"room": self.hall.id, "username": "ann", "message": "hello"}
        self.assertEqual(self.client.receive(), said)
        self.command(command="leave", room=self.hall.id)
        self.assertEqual(self.client.receive(), {"leave": self.hall.id})
        Group("room-%s" % self.hall.id).send({"text": "{}"}, immediately=True)
        self.assertIsNone(self.client.receive())

    def test_a_room_for_staff(self):
        self.command(command="join", room=self.office.id)
        self.assertEqual(self.client.receive(), {"error": "ROOM_ACCESS_DENIED"})

    def test_disconnect(self):
        watcher = WSClient()
        watcher.join_group("room-%s" % self.hall.id)
        self.command(command="join", room=self.hall.id)
        self.assertEqual(watcher.receive()["action"], "joined")
        self.client.send_and_consume("websocket.disconnect", path="/chat/stream/")
        self.assertEqual(watcher.receive()["action"], "left")

    def test_what_a_connection_sends_first(self):
        client = WSClient()
        client.set_header("origin", b"http://testserver")
        client.set_header("host", b"testserver")
        client.set_cookie("theme", "dark")
        self.assertEqual(client.get_cookies(), {"theme": "dark"})
        client.send("websocket.connect", path="/chat/stream/")
        client.consume("websocket.connect", check_accept=False)
        self.assertEqual(client.receive(), {"accept": True})
        self.assertIsNone(client.receive())
        client.send_and_consume(
            "websocket.receive", text={"command": "join", "room": 1}, path="/chat/stream/"
        )
        client.consume("chat.receive")
        self.assertEqual(client.receive(), {"error": "USER_HAS_TO_LOGIN"})

    def test_a_message_for_no_command(self):
        Channel("chat.receive").send({"command": "dance", "reply_channel": "x"})
        message = self.get_next_message("chat.receive", require=True)
        self.assertEqual(message["command"], "dance")
        self.assertIsNone(self.get_next_message("chat.receive"))
