"""django-television: listeners and data bindings over one socket."""

import json

from channels import Group
from channels.test import ChannelTestCase, WSClient
from django.contrib.auth.models import Group as Team
from django.contrib.auth.models import User
from television.registry import DEMULTIPLEXERS


class TelevisionTests(ChannelTestCase):
    def setUp(self):
        User.objects.create_user("ann", "", "secret", is_staff=True)
        self.client = WSClient()
        self.client.login(username="ann", password="secret")
        self.client.send_and_consume("websocket.connect", path="/tv/")

    def test_a_listener_answers(self):
        request = {"channel": "add", "payload": [1, 2], "replyTo": "r1"}
        self.client.send_and_consume("websocket.receive", text=request, path="/tv/")
        answer = {"replyTo": "r1", "payload": {"sum": 3, "user": "ann"}}
        self.assertEqual(self.client.receive(), answer)

    def test_groups(self):
        for group in ("users", "staff", "chat"):
            Group(group).send({"text": json.dumps(group)})
            self.assertEqual(self.client.receive(), group)
        self.client.send_and_consume("websocket.disconnect", path="/tv/")
        Group("staff").send({"text": "gone"})
        self.assertIsNone(self.client.receive())

    def test_a_bound_model(self):
        team = Team.objects.create(name="red")
        received = self.client.receive()
        self.assertEqual(received["stream"], "television-updates")
        self.assertEqual(received["payload"]["data"], {"name": "red", "pk": team.pk})
        self.assertEqual(len(DEMULTIPLEXERS), 1)
        self.client.send_and_consume(
            "websocket.receive", text={"channel": "auth.group.list"}, path="/tv/"
        )
        self.assertEqual(self.client.receive()["payload"], [{"name": "red", "pk": team.pk}])
