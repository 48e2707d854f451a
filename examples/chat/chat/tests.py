"""How consumers are tested: no server, no socket, no waiting. `manage.py test` runs this."""

from channels.test import ChannelTestCase, WSClient

from .models import Line, Room, Window


class ChatTests(ChannelTestCase):
    def enter(self, nickname, path="/chat/lobby/"):
        client = WSClient()
        client.session["person"] = nickname.lower()
        client.session["nickname"] = nickname
        client.session.save()
        client.send_and_consume("websocket.connect", path=path)
        return client

    def received(self, client):
        """Everything that the client has got since it was last asked."""
        return list(iter(client.receive, None))

    def test_a_window_gets_the_history_and_then_who_is_here(self):
        history, people = self.received(self.enter("Ada"))
        self.assertEqual(history["lines"], [])
        self.assertEqual(people["people"], [["ada", "Ada"]])

    def test_a_line_reaches_everybody_in_the_room(self):
        ada, ben, cleo = self.enter("Ada"), self.enter("Ben"), self.enter("Cleo", "/chat/attic/")
        for client in (ada, ben, cleo):
            self.received(client)
        line = {"text": "Hello", "token": "1"}
        ada.send_and_consume("websocket.receive", text=line, path="/chat/lobby/")
        for client in (ada, ben):
            (content,) = self.received(client)
            self.assertEqual([line["text"] for line in content["lines"]], ["Hello"])
        self.assertEqual(self.received(cleo), [])
        self.assertEqual(Line.objects.get().room.name, "lobby")

    def test_who_leaves_is_no_longer_here(self):
        ada, ben = self.enter("Ada"), self.enter("Ben")
        self.received(ada)
        ben.send_and_consume("websocket.disconnect", path="/chat/lobby/")
        self.assertEqual(self.received(ada)[-1]["people"], [["ada", "Ada"]])

    def test_rows_of_a_server_that_crashed_are_swept(self):
        room = Room.objects.create(name="lobby")
        room.windows.create(reply_channel="gateway.gone!1", person="ben", nickname="Ben")
        self.enter("Ada")
        self.assertEqual([window.nickname for window in Window.objects.all()], ["Ada"])
        self.assertEqual(room.people(), {"ada": "Ada"})
