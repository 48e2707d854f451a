import json

from channels import Channel
from channels.auth import channel_session_user, channel_session_user_from_http

from .exceptions import ClientError
from .models import Room
from .utils import get_room, tell_errors


@channel_session_user_from_http
def ws_connect(message):
    message.reply_channel.send({"accept": True})
    message.channel_session["rooms"] = []


def ws_receive(message):
    payload = json.loads(message["text"])
    payload["reply_channel"] = message.content["reply_channel"]
    Channel("chat.receive").send(payload)


@channel_session_user
def ws_disconnect(message):
    for room_id in message.channel_session.get("rooms", []):
        try:
            room = Room.objects.get(pk=room_id)
        except Room.DoesNotExist:
            continue
        room.group.discard(message.reply_channel)
        room.send(message.user.username, action="left")


@channel_session_user
@tell_errors
def chat_join(message):
    room = get_room(message["room"], message.user)
    room.send(message.user.username, action="joined")
    room.group.add(message.reply_channel)
    rooms = set(message.channel_session["rooms"])
    message.channel_session["rooms"] = sorted(rooms | {room.id})
    message.reply_channel.send({"text": json.dumps({"join": room.id, "title": room.title})})


@channel_session_user
@tell_errors
def chat_leave(message):
    room = get_room(message["room"], message.user)
    room.group.discard(message.reply_channel)
    rooms = set(message.channel_session["rooms"])
    message.channel_session["rooms"] = sorted(rooms - {room.id})
    room.send(message.user.username, action="left")
    message.reply_channel.send({"text": json.dumps({"leave": room.id})})


@channel_session_user
@tell_errors
def chat_send(message):
    if int(message["room"]) not in message.channel_session["rooms"]:
        raise ClientError("ROOM_ACCESS_DENIED")
    room = get_room(message["room"], message.user)
    room.send(message.user.username, message=message["message"])
