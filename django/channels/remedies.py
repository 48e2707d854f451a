"""
What to write in place of a name that a Channel, a Group, a message, a consumer or a binding doesn't have, and
where a name is that was looked for in another module. Pure: tables, and look-ups in them.
"""

from __future__ import annotations

import inspect
import types
from typing import Any, Iterable

PACKAGE = __package__

_CLOSE = 'send({"close": True})'
_MEMBERS = "channels(), which returns the names of the members"
_SEND = 'send({"text": …}), or send_json(…) for JSON'
_RECEIVE = "route(name, consumer) in the ROUTING: a consumer gets the messages of a channel"
_ADD = "Group(name).add(message.reply_channel)"
_HEADERS = "dict(message['headers']), which are bytes; sessions and users come from decorators"

#: By class, the attributes that people look for, and what there is.
_ATTRIBUTES: dict[str, dict[str, str]] = {
    "Group": {
        "all": _MEMBERS,
        "broadcast": _SEND,
        "close": _CLOSE,
        "count": "len(Group(name).channels())",
        "delete": "discard(channel) for each member",
        "emit": _SEND,
        "join": "add(channel)",
        "leave": "discard(channel)",
        "list": _MEMBERS,
        "members": _MEMBERS,
        "publish": _SEND,
        "remove": "discard(channel)",
        "write": _SEND,
    },
    "Channel": {
        "accept": 'send({"accept": True})',
        "add": "Group(name).add(channel)",
        "close": _CLOSE,
        "deny": _CLOSE + " before the handshake is accepted",
        "discard": "Group(name).discard(channel)",
        "emit": _SEND,
        "get": _RECEIVE,
        "publish": _SEND,
        "receive": _RECEIVE,
        "reject": _CLOSE + " before the handshake is accepted",
        "reply_channel": "the Channel itself, if it is message.reply_channel",
        "write": _SEND,
    },
    "Message": {
        "COOKIES": _HEADERS,
        "GET": "QueryDict(message['query_string']) of django.http, at websocket.connect",
        "META": _HEADERS,
        "add": _ADD,
        "close_code": "message['code']",
        "cookies": _HEADERS,
        "data": "message['text']",
        "group": _ADD,
        "groups": _ADD,
        "json": "json.loads(message['text']), or use the class JsonWebsocketConsumer",
        "kwargs": "the arguments of the consumer: it gets each named group of its route",
        "request": "message['path'], message['headers'] and message['query_string']",
    },
    "consumer": {
        "add_group": "Group(name).add(self.message.reply_channel)",
        "close_code": "self.message['code']",
        "content": "the argument `content` of receive(self, content, **kwargs)",
        "group_add": "Group(name).add(self.message.reply_channel)",
        "group_discard": "Group(name).discard(self.message.reply_channel)",
        "request": "self.message",
    },
}

#: What a binding hasn't, because a demultiplexer has the socket.
_OF_BINDING = {
    "as_asgi": "consumer",
    "as_route": "consumer",
    "as_view": "consumer",
    "group_send": "send_messages(instance, group_names, action)",
    "send": "send_messages(instance, group_names, action)",
}

#: The public names by their module, below this package.
PUBLIC = {
    "": "Channel Group channel_layers include route route_class",
    "asgi": "get_channel_layer",
    "auth": "channel_and_http_session_user_from_http channel_session_user channel_session_user_from_http "
    "http_session_user login_required transfer_user",
    "binding.base": "Binding",
    "binding.websockets": "WebsocketBinding WebsocketBindingWithMembers",
    "delay.models": "DelayedMessage",
    "exceptions": "BadFrame ChannelFull ChannelSocketException ClientDisconnected ConsumeLater "
    "DenyConnection InvalidChannelName InvalidMessage LayerUnavailable MessageTooLarge RequestAborted "
    "RequestTimeout ResponseLater WebsocketCloseException",
    "generic.async_websockets": "AsyncJsonWebsocketConsumer AsyncWebsocketConsumer "
    "AsyncWebsocketDemultiplexer",
    "generic.base": "BaseConsumer",
    "generic.websockets": "JsonWebsocketConsumer WebsocketConsumer WebsocketDemultiplexer "
    "WebsocketMultiplexer",
    "handler": "AsgiHandler AsgiRequest ViewConsumer",
    "layers.base": "BaseChannelLayer",
    "layers.database": "DatabaseChannelLayer",
    "layers.memory": "MemoryChannelLayer",
    "message": "Message",
    "routing": "InvalidRoute Router",
    "security.websockets": "BaseOriginValidator allowed_hosts_only allowed_origins any_origin",
    "sessions": "channel_and_http_session channel_session enforce_ordering http_session",
    "test": "ChannelLiveServerTestCase ChannelTestCase Client HttpClient TransactionChannelTestCase WSClient "
    "apply_routes",
    "worker": "Worker WorkerGroup",
}

_MODULE_OF = {name: module for module, names in PUBLIC.items() for name in names.split()}


def home_of(name: str) -> str:
    """Return the module of a public name, such as "channels.auth", or ""."""
    module = _MODULE_OF.get(name)
    return "" if module is None else (PACKAGE + "." + module).rstrip(".")


def remedy_for(kind: str, name: str) -> str:
    """Return what to write in place of the attribute `name` of a class of _ATTRIBUTES, or ""."""
    return _ATTRIBUTES.get(kind, {}).get(name, "")


def remedies_of(kind: str) -> Iterable[str]:
    """Return the names for which `remedy_for` has something to write, for a class of _ATTRIBUTES."""
    return _ATTRIBUTES[kind]


def remedy_of_consumer(consumer: Any, name: str) -> str:
    """
    Return what to write in place of the attribute `name` that a class-based consumer lacks, or "". Looks for
    it in the message and in the arguments of the route.
    """
    message, kwargs = consumer.__dict__.get("message"), consumer.__dict__.get("kwargs")
    if message is None:
        return ""
    if name in (kwargs or {}):
        return "self.kwargs[%r]" % name
    # The reply channel is text in the content, and a Channel as an attribute.
    if name in message.content and name != "reply_channel":
        return "self.message[%r]" % name
    if name in ("channel", "http_session", "reply_channel"):
        return "self.message.%s" % name
    return remedy_for("consumer", name)


def problem_of_binding(binding: type, name: str) -> str:
    """Return the text of the error for an attribute that a class of bindings doesn't have."""
    text = "type object %r has no attribute %r" % (binding.__name__, name)
    instead = _OF_BINDING.get(name)
    if instead == "consumer":
        text += (
            ". A binding isn't a consumer of a socket: put %s.consumer into the consumers of a "
            "WebsocketDemultiplexer, and that into the ROUTING" % binding.__name__
        )
    elif instead:
        text += ". Write %s.%s" % (binding.__name__, instead)
    return text


def takes_instance(group_names: Any) -> bool:
    """Return False if `group_names` is a plain function that can't be called with the instance alone."""
    if not isinstance(group_names, types.FunctionType):
        return True
    try:
        inspect.signature(group_names).bind(None)
    except TypeError:
        return False
    return True
