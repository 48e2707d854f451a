"""
What to write where Python's own exception doesn't say it: arguments of Channels 4, and `await` of a call that
isn't asynchronous. `run_consumer` adds the hint to the text of the exception, for the log and for tests.
"""

from __future__ import annotations

import re
from typing import Any

from .habits import PAGE
from .pages import see

#: Arguments of Channels 4's calls, and what to write here.
_ARGUMENTS = {
    "text_data": "send(text=…) of a WebsocketConsumer, send(content) of a JsonWebsocketConsumer, or "
    'send({"text": …}) of a Channel or a Group',
    "bytes_data": 'send(bytes=…) of a WebsocketConsumer, or send({"bytes": …}) of a Channel or a Group',
    "code": "close(4000), the code by position, or close(status=4000)",
    "reason": "close(4000): a close is sent without a reason",
    "headers": "accept(subprotocol), without headers",
}

_UNEXPECTED = re.compile(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'")

#: The calls that have such arguments, here or there.
_CALLS = ("send", "asend", "close", "accept", "group_send", "send_json")

#: What Python says of `await None`, until 3.13 and from 3.14.
_AWAITED = (
    "object NoneType can't be used in 'await' expression",
    "'NoneType' object can't be awaited",
)


def hint_for(error: BaseException) -> str:
    """Return what to write instead of what raised `error`, or ""."""
    text = str(error)
    if not isinstance(error, TypeError):
        return ""
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


def add_hint(error: BaseException) -> None:
    """Add the hint for `error` to its text, once."""
    args: Any = error.args
    if len(args) == 1 and isinstance(args[0], str) and PAGE not in args[0]:
        hint = hint_for(error)
        if hint and hint not in args[0]:
            error.args = ("%s. %s" % (args[0].rstrip("."), hint),)
