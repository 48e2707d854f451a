"""
What the decorators of consumers share: code before and after a consumer, which may be asynchronous.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import Any, Awaitable, Callable, Iterator, TypeVar, cast

from .coroutines import finish, in_thread, is_async, unfinished

ConsumerT = TypeVar("ConsumerT", bound=Callable[..., Any])

#: What a decorator does around a consumer: code before and after a `yield`, as in a context manager.
Around = Callable[[Any], Iterator[None]]

#: Reads what a consumer would otherwise read from the database when it uses it.
Load = Callable[[Any], object]


#: The attribute of a decorated consumer with the names of its decorators, for `check`.
_NAMES = "channel_decorators"


def decorator(func: ConsumerT) -> ConsumerT:
    """
    Return `func`, a decorator of consumers that is written without parentheses. It raises TypeError if it is
    called with anything else than a function, method or class, and gives what it returns its name.
    """
    name = func.__name__

    @functools.wraps(func)
    def apply(*args: Any, **kwargs: Any) -> Any:
        given = args + tuple(kwargs.values())
        if len(given) != 1 or not callable(given[0]):
            raise TypeError(
                "@%s is written above a function or method, without parentheses, not given %s."
                % (name, ", ".join(map(repr, given)) or "nothing")
            )
        return named(func(*args, **kwargs), name)

    return cast(ConsumerT, apply)


def named(consumer: Any, name: str) -> Any:
    """Add `name` to the names of the decorators of `consumer`, and return it."""
    setattr(consumer, _NAMES, decorators_of(consumer) | {name})
    return consumer


def decorators_of(consumer: Any) -> frozenset[str]:
    """Return the names of the decorators of this package around `consumer`."""
    names = getattr(consumer, _NAMES, None)  # a proxy has any attribute
    return names if isinstance(names, frozenset) else frozenset()


def decorate(
    func: ConsumerT, around: Around, load: Load | None = None, closes: bool = False
) -> ConsumerT:
    """
    Return a consumer that does around `func` what `around(message)` says, a generator function with one
    `yield`. With `closes`, something follows the `yield`, and both parts may block.

    `func` may be a method: its message is then the second argument, or the attribute `message` of a
    class-based consumer. It may be asynchronous, too. Then what blocks runs in a thread, and `load(message)`
    is called there before `func`, because the consumer must not read from the database itself.
    """
    manager = contextmanager(around)

    @functools.wraps(func)
    async def wait(*args: Any, **kwargs: Any) -> Any:
        message = message_of(args, kwargs)
        steps = manager(message)
        if closes or load is not None:
            await in_thread(_begin, steps, message, load)
        else:
            steps.__enter__()
        return await _finish(steps, func(*args, **kwargs), closes)

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        message = message_of(args, kwargs)
        steps = manager(message)
        steps.__enter__()
        try:
            returned = func(*args, **kwargs)
            waiting = None if returned is None else unfinished(returned)
            if waiting is not None and load is not None:
                load(message)
        except BaseException as error:
            if steps.__exit__(type(error), error, error.__traceback__):
                return None
            raise
        if waiting is not None:
            return _finish(steps, waiting, closes)
        steps.__exit__(None, None, None)
        return returned

    return cast(ConsumerT, wait if is_async(func) else run)


def _begin(steps: Any, message: Any, load: Load | None) -> None:
    steps.__enter__()
    if load is not None:
        load(message)


async def _finish(steps: Any, awaitable: Awaitable[Any], closes: bool) -> Any:
    """Await a consumer. What follows it runs in a thread."""
    if not closes:
        return await finish(awaitable)
    try:
        result = await finish(awaitable)
    except BaseException as error:
        if await in_thread(steps.__exit__, type(error), error, error.__traceback__):
            return None
        raise
    await in_thread(steps.__exit__, None, None, None)
    return result


def message_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from .message import Message

    for value in args[:2]:
        if isinstance(value, Message):
            return value
    if "message" in kwargs:
        return kwargs["message"]
    own = getattr(args[0], "message", None)
    return own if isinstance(own, Message) else args[0]
