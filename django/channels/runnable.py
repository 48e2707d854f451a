"""
Whether a consumer can be run: it takes a message and the names of its route's groups. Pure: calls nothing.

A consumer that can't be run would fail at its first message, in a worker's log. So `route()` refuses it, with
the remedy. `route()` doesn't know the groups of the includes around it: `missing_arguments` is for `check`,
which does.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

from .callables import is_own, remedy_of_unbound, unbound, unwrapped, view_class
from .compat import PARTIALS_ARE_METHODS
from .coroutines import is_async
from .habits import PACKAGE, PAGE

#: The first parameters of an ASGI application.
_ASGI = ["scope", "receive", "send"]

#: Names by which Channels 4 calls its consumers' methods, and what the methods get here.
_FOREIGN = {
    "text_data": "text",
    "bytes_data": "bytes",
    "close_code": "message (the code is message['code'])",
    "code": "message (the code is message['code'])",
    "event": "message",
}

#: The keyword argument of the consumers of a demultiplexer's streams.
MULTIPLEXER = "multiplexer"

#: Methods that Channels 4 calls, the method that is called here, and how.
_UNCALLED = {
    "receive_json": ("receive", "JsonWebsocketConsumer calls receive(self, content, **kwargs)"),
    "websocket_connect": ("connect", "connect(self, message, **kwargs) is called"),
    "websocket_receive": ("receive", "receive(self, text=None, bytes=None, **kwargs) is called"),
    "websocket_disconnect": ("disconnect", "disconnect(self, message, **kwargs) is called"),
}

#: Methods whose result is used at once, so that they can't be asynchronous, and what to do in their place.
_SYNCHRONOUS = {
    "connection_groups": "connect() may be, and joins by `await Group(name).aadd(message.reply_channel)`.",
    "get_handler": "The handler that it returns may be.",
    "decode_json": "receive() may be.",
    "encode_json": "Make the content ready before send(content).",
}

#: What those decorators of `security.websockets` set on a consumer that don't ask by themselves.
_ORIGIN_MARKS = ("any_origin", "allowed_origins")


class Call(NamedTuple):
    """How a consumer calls one of its methods, besides `self` and the names of the route's groups."""

    #: What it is given by position, for an error.
    positional: tuple[str, ...] = ()
    #: Of these keywords it gets one. It must take at least one of them.
    keywords: tuple[str, ...] = ()


def problem_of(consumer: Any, groups: Iterable[str] = ()) -> str:
    """
    Return why `consumer` can't be run with keyword arguments of these names, and what to write, or "".
    """
    if isinstance(consumer, type):
        return _problem_of_class(consumer, groups)
    name = _name(consumer)
    problem = _problem_of_generator(consumer) or _problem_of_decorator(consumer)
    problem = problem or _problem_of_kind(consumer, groups)
    if problem:
        return "%s %s" % (name, problem)
    parameters = _parameters(consumer)
    if parameters is None:
        return ""
    if [each.name for each in parameters[:3]] == _ASGI:
        return "%s is an ASGI application, and a consumer takes a message. %s" % (name, PAGE)
    problem = _mismatch(parameters, Call(("message",)), groups)
    return problem and "%s cannot be run: %s." % (name, problem)


def _problem_of_kind(consumer: Any, groups: Iterable[str]) -> str:
    """Return why a view, or a method without its instance, can't be run, and what to write, or ""."""
    view = view_class(consumer)
    # Another dispatch() may take a message.
    if view is not None and str(view.dispatch.__module__).startswith("django."):  # type: ignore[attr-defined]
        return "is a view, not a consumer: put %s.as_view() into urls.py." % view.__name__
    method = unbound(consumer)
    if method is not None:
        code = method.__code__
        required = code.co_varnames[1 : code.co_argcount - len(method.__defaults__ or ())]
        if "message" in required and "message" not in groups:
            return "is a method, so that `self` would be the message. %s." % remedy_of_unbound(
                method
            )
    return ""


def _problem_of_class(consumer: type, groups: Iterable[str]) -> str:
    name = _name(consumer)
    as_view = getattr(consumer, "as_view", None)
    if callable(as_view) and not is_own(as_view):
        return "%s is a view, not a consumer: put %s.as_view() into urls.py." % (
            name,
            consumer.__name__,
        )
    calls = getattr(consumer, "method_calls", None)
    if hasattr(consumer, "trigger_inbound") and hasattr(consumer, "get_registered_models"):
        return "%s is a binding, not a consumer: write %s.consumer." % (name, consumer.__name__)
    if calls is None:
        if callable(getattr(consumer, "as_asgi", None)):
            return "%s is an ASGI application, and a consumer takes a message. %s" % (name, PAGE)
        parameters = _parameters(consumer)
        problem = "" if parameters is None else _mismatch(parameters, Call(("message",)), groups)
        return "%s cannot be run: %s." % (name, problem) if problem else ""
    problem = _problem_of_init(consumer)
    if problem:
        return "%s.__init__ cannot be run: %s. %s" % (name, problem, PAGE)
    for method, (real, called) in _UNCALLED.items():
        # A method of the site may call it.
        if hasattr(consumer, method) and is_own(getattr(consumer, real, None)):
            return "%s.%s would never be called: %s. %s" % (name, method, called, PAGE)
    problem = _problem_of_asynchronous(consumer)
    problem = problem or consumer.problem_of_attributes(groups)  # type: ignore[attr-defined]
    if problem:
        return "%s.%s" % (name, problem)
    return _problem_of_handlers(consumer, calls(), groups)


def _problem_of_handlers(consumer: type, calls: Mapping[Any, Call], groups: Iterable[str]) -> str:
    """Return why one of the methods in `calls` can't be called as it will be, or ""."""
    name = _name(consumer)
    for method, call in calls.items():
        if not isinstance(method, str):
            return "%s.method_mapping gives a %s where the name of a method is due: write %r." % (
                name,
                type(method).__name__,
                getattr(method, "__name__", "run"),
            )
        function = getattr(consumer, method, None)
        if function is None:
            return "%s.method_mapping names %r, a method that the class lacks." % (name, method)
        problem = _problem_of_generator(function) or _problem_of_decorator(function, True)
        if problem:
            return "%s.%s %s" % (name, method, problem)
        parameters = _parameters(function, _takes_self(consumer, method))
        if is_own(function):  # a frame fails if a group has its name, but this site may expect none
            groups = [each for each in groups if each not in call.keywords]
        problem = "" if parameters is None else _mismatch(parameters, call, groups, True)
        if problem:
            return "%s.%s cannot be run: %s." % (name, method, problem)
        if _has_origins(function):
            return (
                "%s.%s has a decorator for origins, which would not be asked: the origin is checked before. "
                "Write the decorator above the class." % (name, method)
            )
    return ""


def _problem_of_asynchronous(consumer: type) -> str:
    """Return the name of a method that can't be asynchronous and is, and what to write, or ""."""
    for method, instead in _SYNCHRONOUS.items():
        if is_async(getattr(consumer, method, None)):
            return "%s must not be asynchronous: write def, not async def. %s" % (method, instead)
    return ""


def _has_origins(function: Any) -> bool:
    """Return whether a method has a decorator for origins. By method_decorator, a validator is asked."""
    if any(getattr(function, each, None) for each in _ORIGIN_MARKS):
        return True
    while function is not None:
        if not inspect.isroutine(function) and getattr(function, "validates_origin", False):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _problem_of_generator(function: Any) -> str:
    """Return why a call of `function` would run nothing, and what to write, or ""."""
    inner = unwrapped(function)
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    if inspect.isasyncgenfunction(inner):
        return (
            "is an asynchronous generator, which would do nothing: use "
            "`await message.reply_channel.asend(…)` in place of `yield`."
        )
    if inspect.isgeneratorfunction(inner):
        return "is a generator function, so calling it runs nothing: leave `yield` out."
    return ""


def _problem_of_decorator(function: Any, is_method: bool = False) -> str:
    """Return why a decorator of others around `function` can't work, and what to write, or ""."""
    while hasattr(function, "__wrapped__"):
        inner = function.__wrapped__
        home = getattr(function, "__globals__", {}).get("__name__")
        # Around a function, it lets those pass who have logged in.
        if home == "django.contrib.auth.decorators" and is_method:
            return "has a decorator of views from %s: use login_required of %s.auth." % (
                home,
                PACKAGE,
            )
        # Such as transaction.atomic.
        if home == "contextlib" and is_async(inner) and not is_async(function):
            return (
                "is asynchronous inside a context manager that isn't, which ends before the function runs: "
                "move what needs it into a function that is called by sync_to_async."
            )
        function = inner
    return ""


def _problem_of_init(consumer: type) -> str:
    """Return why making an instance of `consumer` would not handle a message, or ""."""
    made: Any = consumer.__init__  # type: ignore[misc]
    if is_own(made):
        return ""
    parameters = _parameters(made, is_method=True)
    problem = "" if parameters is None else _mismatch(parameters, Call(("message",)), ())
    if problem:
        return problem
    # A decorated one may call it elsewhere.
    code = None if hasattr(made, "__wrapped__") else getattr(made, "__code__", None)
    if code is not None and "__init__" not in code.co_names:
        return (
            "it doesn't call super().__init__(message, **kwargs), which handles the message. An instance "
            "handles one message: keep what lasts in message.channel_session"
        )
    return ""


def missing_arguments(consumer: Any, groups: Iterable[str]) -> list[str]:
    """Return the required arguments of `consumer`, and of its methods, that no group of its routes gives."""
    known, missing = set(groups), []
    for parameters, call in _all_calls(consumer):
        taken = len(call.positional)
        for number, each in enumerate(parameters):
            if (
                each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
                or each.default is not each.empty
            ):
                continue
            is_filled = number < taken and each.kind is not each.KEYWORD_ONLY
            if not is_filled and each.name not in known and each.name not in call.keywords:
                missing.append(each.name)
    return missing


def _all_calls(consumer: Any) -> Iterator[tuple[list[inspect.Parameter], Call]]:
    calls = getattr(consumer, "method_calls", None) if isinstance(consumer, type) else None
    found: Any = [(consumer, Call(("message",)), False)]
    if calls is not None:
        found = [
            (getattr(consumer, name, None), call, _takes_self(consumer, name))
            for name, call in calls().items()
        ]
    for function, call, is_method in found:
        parameters = None if function is None else _parameters(function, is_method)
        if parameters is not None:
            yield parameters, call


def _mismatch(
    parameters: list[inspect.Parameter], call: Call, groups: Iterable[str], is_method: bool = False
) -> str:
    """Return why a function with these parameters can't be called so, or ""."""
    wanted = ", ".join(call.positional + tuple("%s=None" % each for each in call.keywords))
    remedy = "it is called as (%s, **kwargs)" % wanted
    # In the place of one that is given, or where none that is given is taken. Elsewhere the name may be
    # that of a group in the path of an include.
    names_taken = {each.name for each in parameters}
    takes_none = bool(call.keywords) and not names_taken.intersection(call.keywords)
    foreign = [
        each.name
        for index, each in enumerate(parameters)
        if each.name in _FOREIGN
        and each.name not in groups
        and (takes_none or index < len(call.positional))
    ]
    if foreign and is_method:
        return "%r is an argument of Channels 4. Here: %s; %s. %s" % (
            foreign[0],
            _FOREIGN[foreign[0]],
            remedy,
            PAGE.rstrip("."),
        )
    by_position = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    given = set(call.keywords).union(
        each.name
        for each in by_position[: len(call.positional)]
        if each.kind is each.POSITIONAL_OR_KEYWORD
    )
    for each in groups:
        if each in given:
            return (
                "it gets %r already, so no group of the route's filters can have this name: rename the "
                "group, (?P<other_%s>…)" % (each, each)
            )
    if len(by_position) < len(call.positional) and not takes_any:
        return "it doesn't take the %s: %s" % (call.positional[len(by_position)], remedy)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return ""
    names = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    names.update(
        each.name
        for each in by_position[len(call.positional) :]
        if each.kind is each.POSITIONAL_OR_KEYWORD
    )
    if call.keywords and names.isdisjoint(call.keywords):
        return "it takes neither %s: %s" % (" nor ".join(call.keywords), remedy)
    for each in groups:
        if each not in names:
            source = "a group of the route's filters"
            if each == MULTIPLEXER:
                source = "which a demultiplexer gives"
            return "it doesn't take %r, %s: add it, or **kwargs" % (each, source)
    return ""


def _parameters(function: Any, is_method: bool = False) -> list[inspect.Parameter] | None:
    """Return the parameters of a function, without `self` of a method. None if they can't be known."""
    own = unwrapped(function)
    try:
        found = list(inspect.signature(own, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return None
    # A classmethod is bound already. What a decorated bound method wraps is a function, with `self`.
    if (is_method or inspect.ismethod(function)) and not inspect.ismethod(own):
        if found and found[0].kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            return found[1:]
    return found


def _takes_self(owner: type, method: str) -> bool:
    """Return whether Python gives this attribute of an instance the instance as its first argument."""
    # A staticmethod or an object with __call__ gets none.
    own = inspect.getattr_static(owner, method, None)
    if isinstance(own, functools.partial):
        return PARTIALS_ARE_METHODS
    return hasattr(type(own), "__get__") and not isinstance(own, staticmethod)


def _name(consumer: Any) -> str:
    return "The consumer %s.%s" % (
        getattr(consumer, "__module__", type(consumer).__module__),
        getattr(consumer, "__qualname__", type(consumer).__qualname__),
    )
