import json
from functools import wraps

from .exceptions import ClientError
from .models import Room


def tell_errors(function):
    """Send a ClientError of a consumer to the socket that the message is from."""

    @wraps(function)
    def consumer(message, *args, **kwargs):
        try:
            return function(message, *args, **kwargs)
        except ClientError as error:
            message.reply_channel.send({"text": json.dumps({"error": error.code})})

    return consumer


def get_room(room_id, user):
    if not user.is_authenticated():
        raise ClientError("USER_HAS_TO_LOGIN")
    try:
        room = Room.objects.get(pk=room_id)
    except Room.DoesNotExist:
        raise ClientError("ROOM_INVALID")
    if room.staff_only and not user.is_staff:
        raise ClientError("ROOM_ACCESS_DENIED")
    return room
