"""
What people write who know Channels 2 to 4, and what to write here. Errors name the replacement and the page.

* An import of a module that Channels 4 has and this package doesn't raises ModuleNotFoundError: see
  `FormerModules`. The import of a name that only Channels 4 has raises ImportError: see `former_names`.
* An attribute of a consumer or a message that only Channels 4 has, or that a decorator sets, raises
  AttributeError: see `missing_attribute`.
* What the exceptions of Python mean that these habits lead to is in hints.py.

`importlib.util.find_spec` doesn't find these modules, so a package that asks what is installed isn't misled.
"""

from __future__ import annotations

import re
import sys
from inspect import getattr_static
from opcode import opmap
from typing import Any, Callable, Iterable, Sequence

from .pages import see
from .protocol import EVENT_CHANNELS, event_keys
from .remedies import home_of, remedies_of, remedy_for, remedy_of_consumer

PACKAGE = __package__

#: The name of this package where it runs next to Channels 4 in one process: see scripts/second_name.py.
OTHER_NAME = "django_channels"

#: The page of the documentation that compares the two.
PAGE = see("topics/channels/from-channels-2")

_CONSUMERS = (
    "WebsocketConsumer and JsonWebsocketConsumer of {0}.generic.websockets, or those with Async of "
    "{0}.generic.async_websockets".format(PACKAGE)
)
_SEND = (
    "Channel(name).send({…}) and Group(name).send({…}) of %s, or await their asend({…}) in async def"
    % PACKAGE
)
_ROUTE = (
    "a list of route(), route_class() and include() of %s, as ROUTING in CHANNEL_LAYERS" % PACKAGE
)
_USER = (
    "http_user = True on a class, or the decorators channel_session_user_from_http and "
    "channel_session_user of %s.auth" % PACKAGE
)
_ORIGIN = (
    "the origin is checked by default; see allowed_origins in %s.security.websockets" % PACKAGE
)
_TEST = (
    "WSClient and ChannelTestCase of {0}.test, and ChannelLiveServerTestCase of {0}.test for "
    "ChannelsLiveServerTestCase".format(PACKAGE)
)
_CLIENT = "WSClient of %s.test" % PACKAGE
_SESSION = (
    "the decorator channel_and_http_session of %s.sessions, which gives message.http_session later, "
    "too. http_session gives it at websocket.connect alone" % PACKAGE
)
_SERVED = (
    "{0}.asgi.get_channel_layer() in asgi.py, which serves HTTP, too. AsgiHandler and ViewConsumer are in "
    "{0}.handler".format(PACKAGE)
)
_STATIC = "nothing: runserver serves static files by itself"
_REDIS = "the BACKEND 'asgi_redis.RedisChannelLayer', of the distribution asgi_redis 2.0 or newer"
_MEMORY = "the BACKEND %r" % (PACKAGE + ".layers.memory.MemoryChannelLayer")
_LEFT_OUT = "nothing: leave it out"

#: Modules of Channels 4 below this package, and what is here in their place.
MODULES = {
    "consumer": "a function that takes the message, or a class of %s.generic" % PACKAGE,
    "db": "the ORM directly; in async def, its asynchronous methods or asgiref.sync.sync_to_async",
    "generic.http": "a view, in urls.py",
    "generic.websocket": _CONSUMERS,
    "http": _SERVED,
    "middleware": "a decorator of your own around the consumer",
    "security.websocket": _ORIGIN,
    "testing": _TEST,
}

#: Names of Channels 4 in modules that are here too.
NAMES = {
    "auth": {
        "AuthMiddleware": _USER,
        "AuthMiddlewareStack": _USER,
        "UserLazyObject": _USER,
        "get_user": "message.user, by " + _USER,
        "login": "django.contrib.auth.login() in a view: a socket can't set cookies",
        "logout": "django.contrib.auth.logout() in a view: a socket can't set cookies",
    },
    "exceptions": {
        "AcceptConnection": 'message.reply_channel.send({"accept": True})',
        "StopConsumer": _LEFT_OUT,
    },
    "generic.websockets": {
        "AsyncJsonWebsocketConsumer": "%s.generic.async_websockets.AsyncJsonWebsocketConsumer"
        % PACKAGE,
        "AsyncWebsocketConsumer": "%s.generic.async_websockets.AsyncWebsocketConsumer" % PACKAGE,
    },
    "layers": {
        "BaseChannelLayer": "%s.layers.base.BaseChannelLayer" % PACKAGE,
        "InMemoryChannelLayer": _MEMORY,
        "channel_layers": "%s.channel_layers" % PACKAGE,
        "get_channel_layer": _SEND,
    },
    "routing": {
        "ChannelNameRouter": _ROUTE,
        "ProtocolTypeRouter": "%s.asgi.get_channel_layer() in asgi.py, which serves HTTP and WebSockets"
        % PACKAGE,
        "URLRouter": _ROUTE,
        "get_default_application": "%s.asgi.get_channel_layer() in asgi.py" % PACKAGE,
    },
    "sessions": {
        "CookieMiddleware": _SESSION,
        "SessionMiddleware": _SESSION,
        "SessionMiddlewareStack": _SESSION,
    },
    "staticfiles": {"StaticFilesHandlerMixin": _STATIC, "StaticFilesWrapper": _STATIC},
    "test": {
        "ApplicationCommunicator": _CLIENT,
        "ChannelsLiveServerTestCase": "ChannelLiveServerTestCase of %s.test" % PACKAGE,
        "HttpCommunicator": "HttpClient of %s.test" % PACKAGE,
        "WebsocketCommunicator": _CLIENT,
    },
}

#: Modules of other distributions, and what is here in their place.
OTHERS = {"channels_redis": _REDIS, "channels_postgres": "the BACKEND of the database layer"}

#: Attributes of Channels 4's consumers, by name.
_ATTRIBUTES = {
    "base_send": "self.message.reply_channel.send({…})",
    "channel_layer": "self.message.channel_layer, or Group(name) and Channel(name)",
    "channel_name": "self.message.reply_channel.name",
    "receive_json": "receive(self, content, **kwargs) of JsonWebsocketConsumer",
    "scope": "self.message (path, headers, query_string), self.message.user and self.kwargs",
    "session": "self.message.http_session, by http_user_and_session = True on the class",
    "user": "self.message.user, by http_user = True on the class",
    "send_json": "send(content) of JsonWebsocketConsumer",
    "websocket_connect": "connect(self, message, **kwargs)",
    "websocket_disconnect": "disconnect(self, message, **kwargs)",
    "websocket_receive": "receive(self, text=None, bytes=None, **kwargs)",
}

#: Methods of Channels 4's layer, which newcomers look for on a Group, a Channel or a layer.
_TARGET_ATTRIBUTES = {
    "group_add": "Group(name).add(channel)",
    "group_discard": "Group(name).discard(channel)",
    "group_send": "Group(name).send({…})",
}

#: Keys of events, which newcomers look for as attributes.
_MESSAGE_KEYS = ("text", "bytes", "path", "headers", "query_string", "method", "code", "body")

#: What newcomers call on a message to answer it.
_REPLIES = ("send", "reply", "close", "accept")

#: Attributes that decorators set on a message.
_MESSAGE_ATTRIBUTES = {
    "user": _USER,
    "http_session": "http_user_and_session = True on a class, or the decorator http_session of %s.sessions"
    % PACKAGE,
}


def instead(name: str, remedy: str) -> str:
    """Return the text of the error for `name`, a name of Channels 4."""
    return "%s is of Channels 2 to 4, which this package isn't. Here: %s. %s" % (name, remedy, PAGE)


def former_names(module: str, frames: int = 1) -> Callable[[str], Any]:
    """
    Return the `__getattr__` of `module`. For a name of NAMES or MODULES, it raises an error with the remedy:
    ImportError to `from module import name`, and otherwise AttributeError, so that `hasattr` works. `frames`
    is how far the code that asks for the name is above it.
    """
    inside = module[len(PACKAGE) + 1 :]
    names = dict(NAMES.get(inside, {}))
    for path, remedy in MODULES.items():
        parent, _, name = path.rpartition(".")
        if parent == inside:
            names[name] = remedy

    def get(name: str) -> Any:
        if name not in names:
            text = "module %r has no attribute %r" % (module, name)
            home = home_of(name)
            if not home or home == module:
                raise AttributeError(text)
            text += ". Write: from %s import %s" % (home, name)
        else:
            text = instead("%s.%s" % (module, name), names[name])
        if _imports_name(sys._getframe(frames)):
            raise ImportError(text, name=module)
        raise AttributeError(text)

    return get


def _imports_name(frame: Any) -> bool:
    """Return whether the code of `frame` runs `from … import …` now, rather than `hasattr` or a dot."""
    return bool(frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"])


def _attribute_error(text: str) -> AttributeError:
    """Return an AttributeError to which Python adds no "Did you mean" if its text names a remedy."""
    error = AttributeError(text)
    if "Write " in text or PAGE in text:
        error.obj = None  # from Python 3.10. Otherwise it sets this and `name`
    return error


def missing_method(owner: object, name: str) -> AttributeError:
    """Return the exception for an attribute that `owner`, a Channel, a Group or a layer, doesn't have."""
    kind = type(owner).__name__
    text = "%r object has no attribute %r" % (kind, name)
    if name in _TARGET_ATTRIBUTES:
        text += ". Write %s. %s" % (_TARGET_ATTRIBUTES[name], PAGE)
    elif remedy_for(kind, name):
        text += ". Write %s. %s" % (remedy_for(kind, name), see("ref/channels/api"))
    return _attribute_error(text)


class Missing:
    """
    A name that a class doesn't have: an instance that is asked for it raises what `missing_method` returns.

    In place of a `__getattr__`, because Python finds every other attribute and method of a class with that
    about three times more slowly, and a message asks its layer for dozens.
    """

    __slots__ = ("_name", "_error")

    def __init__(
        self, name: str, error: Callable[[object, str], AttributeError] = missing_method
    ) -> None:
        self._name, self._error = name, error

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            text = "type object %r has no attribute %r" % (owner.__name__, self._name)
            raise AttributeError(text)
        raise self._error(instance, self._name)


def add_missing(cls: type) -> None:
    """Give `cls` (Channel, Group or Message) a Missing for each name that people look for there."""
    names: set[str] = set(remedies_of(cls.__name__))
    error = missing_method
    if cls.__name__ == "Message":
        names.update(_MESSAGE_ATTRIBUTES, _ATTRIBUTES, _MESSAGE_KEYS, _REPLIES)
        names.update(*map(event_keys, EVENT_CHANNELS))
        error = missing_attribute
    else:
        names.update(_TARGET_ATTRIBUTES)
    for name in names:
        if not hasattr(cls, name):
            setattr(cls, name, Missing(name, error))


def without_missing(owner: object, names: Iterable[str]) -> list[str]:
    """Return those of `names` that aren't only a Missing of the class of `owner`."""
    cls, own = type(owner), vars(owner)
    return [
        each
        for each in names
        if each in own or not isinstance(getattr_static(cls, each, None), Missing)
    ]


def missing_attribute(owner: object, name: str) -> AttributeError:
    """Return the exception for an attribute that `owner`, a consumer or a message, doesn't have."""
    kind = type(owner).__name__
    if name in _MESSAGE_ATTRIBUTES and kind == "Message":
        return _attribute_error(
            "This message has no %s: ask for it with %s." % (name, _MESSAGE_ATTRIBUTES[name])
        )
    text = "%r object has no attribute %r" % (kind, name)
    remedy = remedy_for(kind, name) if kind == "Message" else remedy_of_consumer(owner, name)
    if name in _ATTRIBUTES:
        return _attribute_error(instead("%s.%s" % (kind, name), _ATTRIBUTES[name]))
    if remedy:
        return _attribute_error("%s. Write %s. %s" % (text, remedy, see("ref/channels/api")))
    if kind == "Message" and (name in _MESSAGE_KEYS or name in vars(owner).get("content", ())):
        text += ". Write message[%r]. %s" % (name, see("ref/channels/messages"))
    if kind == "Message" and name in _REPLIES:
        text += ". Write message.reply_channel.send({…}). " + see("ref/channels/messages")
    if kind != "Message" and not name.startswith("__"):
        text += (
            ". Each message gets its own instance, which handles it inside BaseConsumer.__init__: what "
            "another message has set on self, or what an __init__ sets after super().__init__(), isn't "
            "there. Keep it in self.message.channel_session, with channel_session = True on the class. "
            + PAGE
        )
    return _attribute_error(text)


#: A converter of Django's path(), such as <str:room>, but no part of a regular expression such as (?P<room>.
_CONVERTER = re.compile(r"(?<!\(\?P)(?<!\(\?)<(?:(\w+):)?([^\W\d]\w*)>")

#: What Django's converters match, by name.
_CONVERTERS = {"int": "[0-9]+", "slug": "[-a-zA-Z0-9_]+", "uuid": "[0-9a-f-]{36}", "path": ".+"}


def problem_of_path(pattern: str) -> str:
    """Return what to write if `pattern`, the filter of a path, is one of Django's path(), or ""."""

    def group(found: re.Match[str]) -> str:
        return "(?P<%s>%s)" % (found.group(2), _CONVERTERS.get(found.group(1) or "str", "[^/]+"))

    regex, number = _CONVERTER.subn(group, pattern)
    if not number:
        return ""
    return (
        'The filter path=%r is a pattern of path(), but filters are regular expressions. Write r"^/%s$". %s'
        % (pattern, regex.lstrip("^/").rstrip("$"), PAGE)
    )


#: The first argument of the calls that make routes.
_FIRST = {"route": "name of a channel", "route_class": "consumer", "include": "routing"}


def problem_of_call(call: str, first: Any, misplaced: tuple[Any, ...] = ()) -> str:
    """
    Return what to write instead of a `call`, such as "route(channel, consumer", whose first argument is
    `first`, or "". `misplaced` is what it was given by position instead of by name.
    """
    if isinstance(first, str) and ("/" in first or first.startswith("^")):
        function = call.partition("(")[0]
        names = [each.__name__ for each in misplaced if isinstance(each, type)]
        if names:
            call = "%s(%s" % (function, names[0])
        call = call.replace("(channel", "('websocket.receive'")
        return "%r is a path, not the %s of %s(). Write %s, path=%r). %s" % (
            first,
            _FIRST[function],
            function,
            call,
            first,
            PAGE,
        )
    if call.startswith("route(") and callable(first):
        return "The name of the channel comes first: write route('websocket.receive', %s). %s" % (
            getattr(first, "__name__", "consumer"),
            PAGE,
        )
    if misplaced:
        path = misplaced[0] if isinstance(misplaced[0], str) else "^/…$"
        return "The path is given by name: write %s, path=%r). %s" % (call, path, PAGE)
    return ""


class FormerModules:
    """
    The last finder of sys.meta_path: refuses modules that only Channels 4 and its layers have. It is asked
    only if no other finder has found the module. Thread-safe.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> None:
        """Raise ModuleNotFoundError if `fullname` is imported and is in MODULES or OTHERS."""
        remedy = OTHERS.get(fullname)
        for package in (PACKAGE, "channels"):
            if fullname.startswith(package + "."):
                remedy = MODULES.get(fullname[len(package) + 1 :])
        # Not to importlib.util.find_spec, by which packages ask what is installed.
        if remedy is not None and _is_import(sys._getframe(1)):
            raise ModuleNotFoundError(
                "No module named %r. %s" % (fullname, instead(fullname, remedy)), name=fullname
            )


def _is_import(frame: Any) -> bool:
    """Return whether the import statement has called, rather than a search for a module."""
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_code.co_name == "_find_and_load":
            return True
        frame = frame.f_back
    return False


def install() -> None:
    """Put the finder at the end of sys.meta_path, once."""
    if not any(type(each).__name__ == FormerModules.__name__ for each in sys.meta_path):
        sys.meta_path.append(FormerModules())
