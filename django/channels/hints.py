"""
What to write where Python's own exception doesn't say it: arguments of Channels 4, and `await` of a call that
isn't asynchronous. `run_consumer` adds the hint to the text of the exception, for the log and for tests.
`hinted` does so for the sends of Channel and Group, which views call too.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import TYPE_CHECKING, Any, Callable, TypeVar, cast

from .habits import PAGE
from .pages import see

if TYPE_CHECKING:
    from .message import Message

#: Arguments of Channels 4's calls, and what to write here.
_ARGUMENTS = {
    "text": "send(content) of a JsonWebsocketConsumer, which encodes it",
    "text_data": "send(text=…) of a WebsocketConsumer, send(content) of a JsonWebsocketConsumer, or "
    'send({"text": …}) of a Channel or a Group',
    "bytes_data": 'send(bytes=…) of a WebsocketConsumer, or send({"bytes": …}) of a Channel or a Group',
    "code": "close(4000), the code by position, or close(status=4000)",
    "reason": "close(4000): a close is sent without a reason",
    "headers": "accept(subprotocol), without headers",
}

#: What Python says of None in the place of a Channel or a session.
_OF_NONE = re.compile(
    r"'NoneType' object (has no attribute '(name|send|asend|send_json|get|setdefault|pop|update)'"
    r"|is not subscriptable|does not support item assignment)"
)

#: What Python says of message["text"]["key"].
_OF_TEXT = re.compile(
    r"string indices must be integers|'str' object has no attribute '(get|items)'"
)

#: What Python says of an attribute that a message hasn't. Those that people look for are in habits.py.
_OF_MESSAGE = re.compile(r"'Message' object has no attribute '(\w+)'$")

#: What Python says of self.groups.append("room") where the class has no groups.
_OF_GROUPS = re.compile(r"'NoneType' object has no attribute '(append|add|extend|insert|discard)'")

#: What Python says of self.channel_session["key"] or self.http_user.pk: they are True or False.
_OF_SWITCH = re.compile(
    r"'bool' object (is not subscriptable|does not support item (assignment|deletion)|has no attribute '"
    r"(get|setdefault|pop|update|save|flush|keys|items|pk|id|username|is_\w+|get_username)')"
)

#: What Python says of len(Group("room")), and of a method of it that isn't called.
_OF_GROUP = re.compile(
    r"object of type '(Group|Channel)' has no len\(\)|'method' object is not iterable"
)

#: What Python says of Group.add("room", channel).
_OF_CLASS = "'str' object has no attribute '_check_may_block'"

#: What Python says of super().connect() and the like.
_OF_SUPER = re.compile(
    r".*\b(connect|disconnect)\(\) missing 1 required positional argument: 'message'"
)

_UNEXPECTED = re.compile(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'")

#: Keywords that stand for the keys of a message, or for the message.
_MESSAGE = ("text", "bytes", "message", "data", "json", "type", "accept", "close")

#: The calls that have such arguments, here or there.
_CALLS = ("send", "asend", "close", "accept", "group_send", "send_json")

#: What Python says of `await None`, until 3.13 and from 3.14.
_AWAITED = (
    "object NoneType can't be used in 'await' expression",
    "'NoneType' object can't be awaited",
)


#: As much of the text of an exception is searched. It may hold what a client sent, as of `Model(**content)`,
#: and the patterns take time that grows with the square of it.
_MAX_SEARCHED = 500


def _text_of(error: BaseException) -> str:
    return str(error)[:_MAX_SEARCHED]


def hint_for(error: BaseException, message: Message | None = None) -> str:
    """Return what to write instead of what raised `error` in the consumer of `message`, or ""."""
    text = _text_of(error)
    if message is not None and message.reply_channel is None and _OF_NONE.match(text):
        return (
            "A message on %s that was sent without a reply channel lacks message.reply_channel and "
            'message.channel_session. Send it with {"reply_channel": message.reply_channel.name}.'
            % message.channel_name
        )
    if message is not None and message.get("text") is not None and _OF_TEXT.match(text):
        return (
            "If this reads message['text']: it is text. Decode it with json.loads, or use the class "
            "JsonWebsocketConsumer, whose receive(self, content, **kwargs) gets it decoded. "
            + see("ref/channels/messages")
        )
    found = _OF_MESSAGE.match(text)
    if message is not None and found is not None and found.group(1) in message:
        return "Write message[%r]. %s" % (found.group(1), see("ref/channels/messages"))
    if _OF_GROUPS.match(text):
        return (
            "If this is self.groups: it is read before connect() runs. Return the names from "
            "connection_groups(self, **kwargs), or call Group(name).add(self.message.reply_channel)."
        )
    if _OF_SWITCH.match(text):
        return (
            "If this is an attribute of the class such as self.channel_session or self.http_user: it is True "
            "or False. Write self.message.channel_session or self.message.user."
        )
    if text == _OF_CLASS:
        return "Write Group(name).add(channel), with the name of one."
    if not isinstance(error, TypeError):
        return ""
    if _OF_GROUP.match(text):
        return "If this is a Group: Group(name).channels() returns the names of its members."
    found = _OF_SUPER.match(text)
    if found is not None:
        return "Write super().%s(message, **kwargs). %s" % (found.group(1), PAGE)
    if text.startswith(_AWAITED):
        return (
            "If this awaits a call of channels: send, accept, close and group_send are synchronous in a "
            "Channel, a Group and the classes of generic.websockets. Await asend({…}), or use the classes of "
            "generic.async_websockets, or leave await out. " + see("topics/channels/async")
        )
    found = _UNEXPECTED.search(text)
    if found is not None and found.group(1) in _CALLS and found.group(2) in _ARGUMENTS:
        return "Write %s. %s" % (_ARGUMENTS[found.group(2)], PAGE)
    return ""


_Function = TypeVar("_Function", bound=Callable[..., Any])

#: What Python says of @route("websocket.connect"), and of route_class() and include() without their first.
_OF_ROUTE = re.compile(r".*\bmissing \d required positional arguments?: .*'(consumer|routing)'$")


def hint_for_route(error: TypeError) -> str:
    """Return what to write instead of a call of route(), route_class() or include() without it, or ""."""
    if not _OF_ROUTE.match(_text_of(error)):
        return ""
    return (
        "These aren't decorators. Write a list: channel_routing = [route('websocket.receive', consumer, "
        "path=r'^/…$'), route_class(Consumer, path=r'^/…$'), include('app.routing.channel_routing')]. Its "
        "dotted path is the ROUTING of CHANNEL_LAYERS."
    )


def hinted_route(function: _Function) -> _Function:
    """Return `function`, the __init__ of a route, whose TypeError says what to write."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                add_hint(error, hint_for_route)
            raise

    return cast("_Function", call)


def _hint_for_send(error: TypeError) -> str:
    """Return what to write instead of a call of Channel.send or Group.send with other arguments, or ""."""
    found = _UNEXPECTED.search(_text_of(error))
    if found is None or found.group(2) not in _MESSAGE:
        return hint_for(error)
    write = {"data": "send_json(…)", "json": "send_json(…)", "message": '%s({"text": …})'}
    write["type"] = write["message"]
    write.update(dict.fromkeys(("accept", "close"), '%s({"{key}": True})'))
    text = write.get(found.group(2), '%s({"{key}": …})').replace("{key}", found.group(2))
    text = text.replace("%s", found.group(1))
    return "A message is one dict. Write %s. %s" % (text, see("ref/channels/messages"))


#: What was not given.
_MISSING: Any = object()

#: The methods of asgiref's AsyncToSync that call what they were given, by version.
_ASGIREF = ("main_wrap", "__call__")


def hinted(function: _Function) -> _Function:
    """
    Return `function`, a synchronous send of Channel or Group. If it is called with other arguments, or by
    asgiref's async_to_sync, the TypeError says what to write. Nothing has been sent then.
    """

    @functools.wraps(function)
    def call(self: Any, content: Any = _MISSING, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1)
        if caller.f_code.co_name in _ASGIREF:
            _refuse_async_to_sync(function, caller)
        try:
            # Most calls have one argument, and Python makes such a call twice as fast.
            if content is not _MISSING and not args and not kwargs:
                return function(self, content)
            given = args if content is _MISSING else (content, *args)
            return function(self, *given, **kwargs)
        except (AttributeError, TypeError) as error:
            if isinstance(self, (str, dict)):  # the class was called in place of one of it
                name = function.__qualname__.replace(".", "(name).")
                text = "Write %s({…}), with the name of one: %r isn't one." % (name, self)
                raise TypeError(text) from None
            if isinstance(error, TypeError):
                _add_hint_to_call(error)
            raise

    return cast("_Function", call)


def hinted_async(function: _Function) -> _Function:
    """Do as `hinted`, for an asynchronous send."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except TypeError as error:
            _add_hint_to_call(error)
            raise

    return cast("_Function", call)


def _add_hint_to_call(error: TypeError) -> None:
    # Without a frame below the call, the call itself has failed, and not what it runs.
    if error.__traceback__ is not None and error.__traceback__.tb_next is None:
        add_hint(error, _hint_for_send)


def _refuse_async_to_sync(function: Callable[..., Any], caller: Any) -> None:
    """Raise TypeError if `caller` is the frame that awaits what async_to_sync was given."""
    if (
        caller.f_globals.get("__name__") == "asgiref.sync"
        and type(caller.f_locals.get("self")).__name__ == "AsyncToSync"
    ):
        name = function.__qualname__
        raise TypeError(
            "%s is synchronous: call it without async_to_sync. In async def, await a%s(…). %s"
            % (name, function.__name__, see("topics/channels/async"))
        )


def add_hint(error: BaseException, hint_of: Callable[[Any], str] = hint_for) -> None:
    """Add the hint for `error` to its text, once. Raises nothing."""
    try:
        args: Any = error.args
        if len(args) == 1 and isinstance(args[0], str) and PAGE not in args[0]:
            hint = hint_of(error)
            if hint and hint not in args[0]:
                error.args = ("%s. %s" % (args[0].rstrip("."), hint),)
    except BaseException:
        pass  # from a class of the site, for example from its __str__: it stays as it is
