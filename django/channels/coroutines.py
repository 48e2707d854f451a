"""
Recognise asynchronous consumers, run one to its end, and run blocking calls in a thread.

Asynchronous consumers run on the event loop of a worker. In tests, and in a worker without a loop, `run_here`
runs them on a new loop. `in_thread` runs a blocking call in the thread that suits the loop. This module knows
no layer and no worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
from concurrent.futures import Future
from typing import Any, Awaitable, Callable, Coroutine, Generator

from .compat import (
    KEPT_BY_ASGIREF,
    SynchronousOnlyOperation,
    async_to_sync,
    iscoroutinefunction,
    sync_to_async,
)
from .thread_state import apply_state, current_state

#: The function for blocking calls of the current consumer: `await caller(function, *args)`. None elsewhere.
_caller: contextvars.ContextVar[Any] = contextvars.ContextVar("channels_caller", default=None)


def unfinished(returned: Any) -> Any:
    """Return the awaitable that finishes a consumer which `returned` this, or None if it has ended."""
    if inspect.isawaitable(returned):
        # A class-based consumer returns its instance, whose `unfinished` is what its handler returned.
        return getattr(returned, "unfinished", returned)
    if inspect.isasyncgen(returned):
        raise TypeError(
            "A consumer cannot be an asynchronous generator: use `await message.reply_channel.asend(…)` in "
            "place of `yield`."
        )
    return None


async def finish(awaitable: Awaitable[Any]) -> Any:
    """
    Await what a consumer left to be awaited, and what that returns to be awaited: a function that is
    `async def` may leave out an `await` before the last call. Return the result.
    """
    result = await awaitable
    while result is not None:
        following = unfinished(result)
        if following is None or following is awaitable:
            break
        awaitable = following
        result = await awaitable
    return result


def off_loop(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """
    Return what `function(*args, **kwargs)` returns, which may block, and may leave something to be awaited.
    Where an event loop runs, it returns a coroutine that calls the function in a thread, and awaits the rest
    on the loop: methods that asynchronous code overrides call their `super()` there.
    """
    if asyncio._get_running_loop() is None:
        return function(*args, **kwargs)
    return _off_loop(functools.partial(function, *args, **kwargs))


async def _off_loop(call: Callable[[], Any]) -> Any:
    returned = await in_thread(call)
    waiting = unfinished(returned)
    return returned if waiting is None else await finish(waiting)


def answer_of(answer: Any, method: str) -> Any:
    """
    Return `answer`, which a method of the site gave that isn't awaited. Raises TypeError for a coroutine: it
    would count as true, and allow what the method refuses.
    """
    if inspect.isawaitable(answer):
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        raise TypeError("%s must not be asynchronous: write def, not async def." % method)
    return answer


def is_async(function: Any) -> bool:
    """Return whether `function` is known to return a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    # That of a class is called on its instances.
    call = None if isinstance(function, type) else getattr(function, "__call__", None)  # noqa: B004
    return bool(iscoroutinefunction(function) or iscoroutinefunction(call))


class _Thread(threading.local):
    #: Whether the event loop of this thread is that of a worker process.
    shares_loop = False


_thread = _Thread()


def share_loop() -> None:
    """Have `check_may_block` refuse what would block the event loop of this thread, in any code."""
    _thread.shares_loop = True


def call_blocking_with(caller: Callable[..., Awaitable[Any]]) -> None:
    """Make `in_thread` use `caller` in the current task, and in the tasks that it starts."""
    _caller.set(caller)


class RaisesWhereItWaits(Coroutine[Any, Any, Any]):
    """
    A coroutine for a task, in which a GeneratorExit of what it awaits is an error like any other.

    A task throws the error of a future into its coroutine. Python takes a GeneratorExit that is thrown for
    the order to close: it ends the inner coroutines without a chance to await, and leaves asynchronous
    generators waiting. What these have to do in the end runs where Python collects them, and asgiref's part
    of it gives their context variables to whatever runs there. So the future raises its error by itself.
    """

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, error: Any, *args: Any) -> Any:
        if issubclass(type(error), GeneratorExit):  # `isinstance` asks an error, which may raise
            return self._coroutine.send(None)  # the future has ended, and raises it
        return self._coroutine.throw(error, *args)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        # For asyncio's logs, and for code that looks at the stacks of tasks.
        return getattr(self._coroutine, name)


def call_in_executor(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """
    Return what `function(*args, **kwargs)` returns. Raise RuntimeError for a StopIteration: until Python
    3.12, asyncio can't bring one from a thread, and whatever awaits the call would wait for ever.
    """
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("A call in a thread raised StopIteration.") from error


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function(*args)`, which may block, in a thread with this context. Return its result."""
    caller = _caller.get()
    if caller is not None:
        return await caller(function, *args)
    context = contextvars.copy_context()
    loop = asyncio.get_event_loop()
    return await loop.run_in_executor(
        None, functools.partial(context.run, call_in_executor, function, *args)
    )


def check_may_block(what: str, instead: str) -> None:
    """
    Raise SynchronousOnlyOperation if an asynchronous consumer or stream runs here, whose event loop the call
    `what` would block. `instead` is what to write.
    """
    # The private name is that of every version of asyncio; the public one raises where no loop runs.
    if asyncio._get_running_loop() is None:
        return
    if _caller.get() is not None or _thread.shares_loop:
        raise SynchronousOnlyOperation(
            "%s would block the event loop of asynchronous consumers and streams. Write: %s"
            % (what, instead)
        )


class Stepped:
    """
    An awaitable that runs `awaitable` with its own language, time zone and URLs, where Django keeps them for
    each thread and not for each context: they are exchanged whenever it begins to wait, and when it goes on.
    """

    def __init__(self, awaitable: Awaitable[Any], state: Any) -> None:
        self._awaitable = awaitable
        self._state = state

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        resume: Callable[..., Any] = functools.partial(next, steps)
        while True:
            outer = current_state()
            apply_state(self._state)
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            finally:
                self._state = current_state()
                apply_state(outer)
            try:
                value = yield waits_for
            except BaseException as error:
                resume = functools.partial(steps.throw, error)
            else:
                resume = functools.partial(_send, steps, value)


def _send(steps: Any, value: Any) -> Any:
    return next(steps) if value is None else steps.send(value)


def with_state(awaitable: Awaitable[Any], state: Any) -> Awaitable[Any]:
    """Return an awaitable that runs with this state of Django, in a new task."""
    if not KEPT_BY_ASGIREF:
        return Stepped(awaitable, state)
    # The context has it, but asgiref shows it only to the thread that has set it. Before 3.8, it shows
    # to a task what was set in it, and what synchronous middleware has set for it in another thread.
    apply_state(state)
    return awaitable


def call_with(state: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Return what `function(*args)` returns, called in this thread with this state of Django."""
    before = current_state()
    apply_state(state)
    try:
        return function(*args)
    finally:
        apply_state(before)


def run_here(awaitable: Awaitable[Any]) -> Any:
    """
    Run to its end what a consumer left to be awaited. Return or raise what it does.

    It runs on a new event loop, in the context of the caller. What `in_thread` is given runs in this
    thread, with its database connections. So does what `sync_to_async` is given, if asgiref is installed.
    """
    if async_to_sync is not None and asyncio._get_running_loop() is None:
        return async_to_sync(_run_with_asgiref)(awaitable)
    return _Runner().run(with_state(awaitable, current_state()))


async def _run_with_asgiref(awaitable: Awaitable[Any]) -> Any:
    before = _caller.get()
    call_blocking_with(_call_by_asgiref)
    try:
        return await awaitable
    finally:
        call_blocking_with(before)  # asgiref gives the variables back to the caller


async def _call_by_asgiref(function: Callable[..., Any], *args: Any) -> Any:
    return await sync_to_async(function)(*args)


class _Runner:
    """Runs an awaitable on an event loop in another thread, and in this one what it asks for."""

    def __init__(self) -> None:
        #: (context, function, future) to call; None at the end.
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        result: Future[Any] = Future()
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run,
            args=(self._run_loop, awaitable, result),
            name="channels-consumer",
            daemon=True,
        )
        thread.start()
        while True:
            call = self._calls.get()
            if call is None:
                break
            _carry_out(*call)
        thread.join()
        return result.result()

    def _run_loop(self, awaitable: Awaitable[Any], result: Future[Any]) -> None:
        call_blocking_with(self._call)
        loop = asyncio.new_event_loop()
        try:
            result.set_result(loop.run_until_complete(RaisesWhereItWaits(_as_coroutine(awaitable))))
        except BaseException as error:
            result.set_exception(error)
        finally:
            loop.close()
            self._calls.put(None)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        future: Future[Any] = Future()
        call = functools.partial(function, *args)
        context = contextvars.copy_context()
        # It runs in the thread of the caller, where it blocks no loop of this consumer.
        context.run(_caller.set, None)
        self._calls.put((context, call, future))
        return await asyncio.wrap_future(future)


def _as_coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    async def run() -> Any:
        return await awaitable

    return run()


def _carry_out(context: contextvars.Context, call: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(context.run(call_in_executor, call))
    except BaseException as error:
        future.set_exception(error)
