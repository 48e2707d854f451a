import json

from channels import Group
from channels.sessions import channel_session, enforce_ordering

from .models import Liveblog


@enforce_ordering
@channel_session
def connect_blog(message, slug):
    try:
        liveblog = Liveblog.objects.get(slug=slug)
    except Liveblog.DoesNotExist:
        message.reply_channel.send({"text": json.dumps({"error": "bad_slug"})})
        message.reply_channel.send({"close": True})
        return
    message.reply_channel.send({"accept": True})
    message.channel_session["pings"] = 0
    Group(liveblog.group_name).add(message.reply_channel)


@enforce_ordering
@channel_session
def ping_blog(message, slug):
    message.channel_session["pings"] += 1
    message.reply_channel.send({"text": json.dumps({"pings": message.channel_session["pings"]})})


@enforce_ordering
@channel_session
def disconnect_blog(message, slug):
    liveblog = Liveblog.objects.get(slug=slug)
    Group(liveblog.group_name).discard(message.reply_channel)
