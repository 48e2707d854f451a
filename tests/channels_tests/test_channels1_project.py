"""
Sites as the documentation and the examples of Channels 1.1 write them, which must run unchanged.

The consumers and routes are a site's own files of that time; only the package's name differs inside
the patched Django. They are driven through WSClient.
"""

import json

from django.channels import Channel, Group, include, route, route_class
from django.channels.auth import (
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
)
from django.channels.exceptions import DenyConnection
from django.channels.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer
from django.channels.handler import AsgiHandler
from django.channels.security.websockets import allowed_hosts_only
from django.channels.sessions import (
    channel_and_http_session,
    channel_session,
    enforce_ordering,
    http_session,
)
from django.channels.test import ChannelTestCase, HttpClient, WSClient, apply_routes
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.test import override_settings

# "Getting started", first consumers.


def http_consumer(message):
    # Make standard HTTP response - access ASGI path attribute directly
    response = HttpResponse("Hello world! You asked for %s" % message.content["path"])
    # Encode that response into message format (ASGI)
    for chunk in AsgiHandler.encode_response(response):
        message.reply_channel.send(chunk)


# "Getting started", the chat with rooms, persisted data and models.


class ChatMessage:
    """In the place of the site's model."""

    saved = []


def msg_consumer(message):
    # Save to model
    room = message.content["room"]
    ChatMessage.saved.append((room, message.content["message"]))
    # Broadcast to listening sockets
    Group("chat-%s" % room).send({"text": message.content["message"]})


@enforce_ordering
@channel_session
def ws_connect(message):
    # Work out room name from path (ignore slashes)
    room = message.content["path"].strip("/")
    # Save room in session and add us to the group
    message.channel_session["room"] = room
    Group("chat-%s" % room).add(message.reply_channel)
    # Accept the connection request
    message.reply_channel.send({"accept": True})


@enforce_ordering(slight=True)
@channel_session
def ws_message(message):
    # Stick the message onto the processing queue
    Channel("chat-messages").send(
        {"room": message.channel_session["room"], "message": message["text"]}
    )


@enforce_ordering
@channel_session
def ws_disconnect(message):
    Group("chat-%s" % message.channel_session["room"]).discard(message.reply_channel)


rooms_routing = [
    route("websocket.connect", ws_connect),
    route("websocket.receive", ws_message),
    route("websocket.disconnect", ws_disconnect),
    route("chat-messages", msg_consumer),
]


# "Getting started", authentication: people chat with those of the same first letter.


@allowed_hosts_only
@channel_session_user_from_http
def ws_add(message):
    # Accept connection
    message.reply_channel.send({"accept": True})
    # Add them to the right group
    Group("chat-%s" % message.user.username[0]).add(message.reply_channel)


@channel_session_user
def ws_user_message(message):
    Group("chat-%s" % message.user.username[0]).send({"text": message["text"]})


@channel_session_user
def ws_user_disconnect(message):
    Group("chat-%s" % message.user.username[0]).discard(message.reply_channel)


letters_routing = {
    "websocket.connect": ws_add,
    "websocket.receive": ws_user_message,
    "websocket.disconnect": ws_user_disconnect,
}


# The pattern of the multichat example: frames are commands, handed on to an application channel.


@channel_session_user_from_http
def multichat_connect(message):
    message.reply_channel.send({"accept": True})
    message.channel_session["rooms"] = []


def multichat_receive(message):
    # The payload goes on, with the reply channel, to a channel of our own
    payload = json.loads(message["text"])
    payload["reply_channel"] = message.content["reply_channel"]
    Channel("chat.receive").send(payload)


@channel_session_user
def multichat_disconnect(message):
    for room_id in message.channel_session.get("rooms", set()):
        Group("room-%s" % room_id).discard(message.reply_channel)


@channel_session_user
def chat_join(message):
    room_id = message["room"]
    Group("room-%s" % room_id).add(message.reply_channel)
    message.channel_session["rooms"] = list(set(message.channel_session["rooms"]).union([room_id]))
    Group("room-%s" % room_id).send(
        {"text": json.dumps({"joined": message.user.username, "room": room_id})}
    )


@channel_session_user
def chat_leave(message):
    Group("room-%s" % message["room"]).discard(message.reply_channel)
    message.channel_session["rooms"] = list(
        set(message.channel_session["rooms"]).difference([message["room"]])
    )
    message.reply_channel.send({"text": json.dumps({"left": message["room"]})})


@channel_session_user
def chat_send(message):
    if message["room"] not in message.channel_session["rooms"]:
        message.reply_channel.send({"text": json.dumps({"error": "ROOM_ACCESS_DENIED"})})
        return
    Group("room-%s" % message["room"]).send(
        {"text": json.dumps({"from": message.user.username, "message": message["message"]})}
    )


websocket_routing = [
    route("websocket.connect", multichat_connect),
    route("websocket.receive", multichat_receive),
    route("websocket.disconnect", multichat_disconnect),
]

custom_routing = [
    route("chat.receive", chat_join, command="^join$"),
    route("chat.receive", chat_leave, command="^leave$"),
    route("chat.receive", chat_send, command="^send$"),
]

multichat_routing = [
    include(__name__ + ".websocket_routing", path=r"^/chat/stream"),
    include(__name__ + ".custom_routing"),
]


# "Routing": a room from the path, by keyword, under an include.


@channel_session_user_from_http
def room_connect(message, room):
    Group("chat-%s" % room).add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def room_disconnect(message):
    Group("disconnected").send({"text": message["path"]})


def poll_consumer(message):
    message.reply_channel.send({"status": 204, "headers": [], "content": b""})


chat_routing = [
    route("websocket.connect", room_connect, path=r"^/(?P<room>[a-zA-Z0-9_]+)/$"),
    route("websocket.disconnect", room_disconnect),
]

http_routing = [route("http.request", poll_consumer, path=r"^/poll/$", method=r"^POST$")]

included_routing = [
    include(chat_routing, path=r"^/chat"),
    include(http_routing),
]


# "Generic consumers", and the live blog's use of them.


class Liveblog(WebsocketConsumer):
    http_user = True
    strict_ordering = True

    def connection_groups(self, **kwargs):
        return ["liveblog-%s" % kwargs["slug"]]

    def connect(self, message, **kwargs):
        if kwargs["slug"] == "closed":
            raise DenyConnection()
        self.message.reply_channel.send({"accept": True})

    def receive(self, text=None, bytes=None, **kwargs):
        self.group_send("liveblog-%s" % kwargs["slug"], text="%s: %s" % (self.message.user, text))


class Counter(JsonWebsocketConsumer):
    channel_session = True

    def receive(self, content, **kwargs):
        session = self.message.channel_session
        session["sum"] = session.get("sum", 0) + content["add"]
        self.send({"sum": session["sum"]}, close=session["sum"] > 9)


generic_routing = [
    route_class(Liveblog, path=r"^/liveblog/(?P<slug>[^/]+)/stream/$"),
    Counter.as_route(path=r"^/counter/"),
]


class SiteTests(ChannelTestCase):
    def test_documented_imports(self):
        from django.channels import channel_layers

        layer = channel_layers["default"]
        self.assertEqual(layer.alias, "default")
        self.assertIn("http.request", layer.router.channels)

    def users(self, *names):
        for name in names:
            get_user_model().objects.create_user(name, "", "secret")
            client = WSClient()
            self.assertTrue(client.login(username=name, password="secret"))
            yield client

    @apply_routes([route("http.request", http_consumer)])
    def test_first_consumer(self):
        client = HttpClient()
        client.send_and_consume("http.request", path="/some/path/")
        response = client.receive()
        self.assertEqual(response["status"], 200)
        self.assertEqual(response["content"], b"Hello world! You asked for /some/path/")

    @apply_routes(rooms_routing)
    def test_rooms(self):
        del ChatMessage.saved[:]
        one, two, elsewhere = WSClient(ordered=True), WSClient(ordered=True), WSClient()
        for client, path in ((one, "/lobby/"), (two, "/lobby/"), (elsewhere, "/attic/")):
            client.send_and_consume("websocket.connect", path=path)
            self.assertIsNone(client.receive())
        one.send_and_consume("websocket.receive", text="hello", path="/lobby/")
        one.consume("chat-messages")
        self.assertEqual(ChatMessage.saved, [("lobby", "hello")])
        self.assertEqual(one.receive(json=False), "hello")
        self.assertEqual(two.receive(json=False), "hello")
        self.assertIsNone(elsewhere.receive())
        two.send_and_consume("websocket.disconnect", path="/lobby/")
        self.assertEqual(Group("chat-lobby").channels(), [one.reply_channel])

    @apply_routes(letters_routing)
    @override_settings(ALLOWED_HOSTS=["example.com"])
    def test_users(self):
        ada, anna, bob = self.users("ada", "anna", "bob")
        for client in (ada, anna, bob):
            client.set_header("origin", "https://example.com")
            client.send_and_consume("websocket.connect")
        ada.send_and_consume("websocket.receive", text="for As")
        self.assertEqual(ada.receive(json=False), "for As")
        self.assertEqual(anna.receive(json=False), "for As")
        self.assertIsNone(bob.receive())
        bob.send_and_consume("websocket.disconnect")
        self.assertEqual(Group("chat-b").channels(), [])
        bob.set_header("origin", "https://evil.example")
        with self.assertRaises(AssertionError):
            bob.send_and_consume("websocket.connect")

    @apply_routes(multichat_routing)
    def test_multichat(self):
        def command(client, **content):
            client.send_and_consume("websocket.receive", text=content, path="/chat/stream/")
            client.consume("chat.receive")

        ada, bob = self.users("ada", "bob")
        for client in (ada, bob):
            client.send_and_consume("websocket.connect", path="/chat/stream/")
        command(ada, command="join", room="1")
        self.assertEqual(ada.receive(), {"joined": "ada", "room": "1"})
        command(bob, command="join", room="1")
        for client in (ada, bob):
            self.assertEqual(client.receive(), {"joined": "bob", "room": "1"})
        command(bob, command="send", room="1", message="hi")
        for client in (ada, bob):
            self.assertEqual(client.receive(), {"from": "bob", "message": "hi"})
        command(bob, command="send", room="2", message="psst")
        self.assertEqual(bob.receive(), {"error": "ROOM_ACCESS_DENIED"})
        command(bob, command="leave", room="1")
        self.assertEqual(bob.receive(), {"left": "1"})
        self.assertEqual(Group("room-1").channels(), [ada.reply_channel])
        ada.send_and_consume("websocket.disconnect", path="/chat/stream/")
        self.assertEqual(Group("room-1").channels(), [])

    @apply_routes(included_routing)
    def test_includes_and_keywords(self):
        client = WSClient()
        client.join_group("disconnected")
        client.send_and_consume("websocket.connect", path="/chat/lobby/")
        self.assertEqual(Group("chat-lobby").channels(), [client.reply_channel])
        client.send_and_consume("websocket.disconnect", path="/chat/lobby/")
        self.assertEqual(client.receive(json=False), "/chat/lobby/")
        with self.assertRaisesRegex(AssertionError, "No route"):
            client.send_and_consume("websocket.connect", path="/elsewhere/")
        client.send_and_consume("http.request", {"method": "POST"}, path="/poll/")
        self.assertEqual(client.receive()["status"], 204)

    @apply_routes(generic_routing)
    def test_generic(self):
        (ada,) = self.users("ada")
        path = "/liveblog/news/stream/"
        ada.send_and_consume("websocket.connect", path=path)
        ada.send_and_consume("websocket.receive", text="hello", path=path)
        self.assertEqual(ada.receive(json=False), "ada: hello")
        ada.send_and_consume("websocket.disconnect", path=path)
        self.assertEqual(Group("liveblog-news").channels(), [])
        with self.assertRaises(AssertionError):
            ada.send_and_consume("websocket.connect", path="/liveblog/closed/stream/")

        client = WSClient()
        client.send_and_consume("websocket.connect", path="/counter/")
        for number in (4, 5):
            client.send_and_consume("websocket.receive", text={"add": number}, path="/counter/")
        self.assertEqual([client.receive(), client.receive()], [{"sum": 4}, {"sum": 9}])

    def test_sessions_of_the_site(self):
        seen = []

        @http_session_user
        def with_user(message):
            seen.append(message.user.username)
            message.reply_channel.send({"accept": True})

        @http_session
        def with_session(message):
            message.http_session["seen"] = message.http_session.get("seen", 0) + 1
            message.reply_channel.send({"accept": True})

        @channel_and_http_session
        def with_both(message):
            seen.append(message.http_session["seen"])

        (ada,) = self.users("ada")
        with apply_routes(route("websocket.connect", with_user)):
            ada.send_and_consume("websocket.connect")
        with apply_routes(route("websocket.connect", with_session)):
            ada.send_and_consume("websocket.connect")
            ada.send_and_consume("websocket.connect")
        with apply_routes(route("websocket.receive", with_both)):
            ada.send_and_consume("websocket.receive", text="x")
        self.assertEqual(seen, ["ada", 2])
        self.assertEqual(type(ada.session)(ada.session.session_key)["seen"], 2)

    @override_settings(CHANNEL_SESSION_KEY_IN_QUERY=True)
    def test_session_key_in_the_query_string(self):
        (ada,) = self.users("ada")
        visitor = WSClient()
        with apply_routes(Liveblog.as_route(path=r"^/(?P<slug>\w+)/")):
            path = "/news/?session_key=" + ada.session.session_key
            visitor.send_and_consume("websocket.connect", path=path)
            visitor.send_and_consume("websocket.receive", text="hello", path="/news/")
            self.assertEqual(visitor.receive(json=False), "ada: hello")
