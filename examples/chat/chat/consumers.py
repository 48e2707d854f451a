"""What happens on the chat's WebSockets: one plain function for each kind of event.

A consumer is a view without a response. It gets the event as `message`, may use the database and
take its time, and sends to `message.reply_channel` (this browser window) or to a Group (a room).
"""

import json

from channels.sessions import http_session

from .models import Line, Room, Window

PAGE = 50  # lines of history sent at a time
NO_NICKNAME = 4401  # a close code: those from 4000 up are for applications to choose


@http_session
def arrive(message, name, after):
    """A window opens on the room `name`. Back after a break, it has the lines up to `after`."""
    message.reply_channel.send({"accept": True})
    visitor = message.http_session or {}
    if "nickname" not in visitor:
        message.reply_channel.send({"close": NO_NICKNAME})
        return
    room, _ = Room.objects.get_or_create(name=name)
    message.channel_session["room"] = room.pk  # it stays with the socket, and costs no query
    room.group.add(message.reply_channel)  # before the history is read, so that no line is lost
    send_history(message, room, int(after) if after else None)
    with room.roll_call():
        room.sweep()
        room.windows.create(
            reply_channel=message.reply_channel.name,
            person=visitor["person"],
            nickname=visitor["nickname"],
        )


def hear(message, **path):
    """A window says a line, or that somebody is typing, or asks for more of what it missed."""
    room = Room(pk=message.channel_session["room"])
    window = Window.objects.get(reply_channel=message.reply_channel.name)
    content = json.loads(message["text"])
    if "typing" in content:
        room.tell(typing=window.person)
    elif "after" in content:
        send_history(message, room, int(content["after"]))
    elif content["text"].strip():
        line, _ = Line.objects.get_or_create(
            token=content["token"],
            defaults={
                "room": room,
                "person": window.person,
                "nickname": window.nickname,
                "text": content["text"].strip()[:1000],
            },
        )
        room.tell(lines=[line.as_dict()])


def depart(message, **path):
    """A window closed, or lost its network; or the server that held it died."""
    for window in Window.objects.filter(reply_channel=message.reply_channel.name):
        with window.room.roll_call():
            window.delete()


def send_history(message, room, after):
    """The window gets the last lines; or the first ones `after` one, and if there are more."""
    if after is None:
        lines = list(room.lines.order_by("-pk")[:PAGE])[::-1]
    else:
        lines = list(room.lines.filter(pk__gt=after).order_by("pk")[:PAGE])
    content = {
        "lines": [line.as_dict() for line in lines],
        "more": after is not None and len(lines) == PAGE,
        "history": True,
    }
    message.reply_channel.send({"text": json.dumps(content)})
