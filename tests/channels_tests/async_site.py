"""Asynchronous views, middleware and streams for the HTTP tests; Django 3.1 and newer."""

import asyncio
import contextvars

from asgiref.sync import sync_to_async
from django import http
from django.utils.decorators import async_only_middleware

number = contextvars.ContextVar("number", default=0)


async def view(request):
    await asyncio.sleep(0)
    return http.HttpResponse("asynchronously")


async def failing_view(request):
    raise RuntimeError("the view failed")


@async_only_middleware
def middleware(get_response):
    async def inner(request):
        response = await get_response(request)
        response["X-Async"] = "yes"
        return response

    return inner


async def parts(log, count=1000000):
    try:
        for each in range(count):
            await asyncio.sleep(0)
            log.append("made %d" % each)
            yield str(each)
    finally:
        await asyncio.sleep(0)
        log.append("closed")


async def failing_parts():
    yield b"a"
    raise KeyError("the view failed")


async def parts_of_one_task():
    task = asyncio.current_task()
    for each in (1, 2):
        number.set(each)
        yield b""
        yield b"same " if asyncio.current_task() is task and number.get() == each else b"other "


async def parts_from_a_thread():
    for each in "abc":
        yield await sync_to_async(lambda each=each: each)()


async def parts_beside_a_task(log):
    async def forever():
        log.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    task = asyncio.ensure_future(forever())
    yield b"a"
    await asyncio.sleep(0)
    yield b"b"
    del task


class Countdown:
    def __init__(self, start):
        self.left = start

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return str(self.left)


class Failing:
    """An asynchronous iterator that raises `error`, an exception class."""

    def __init__(self, error):
        self.error = error

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise self.error("x")


def raising(error):
    async def view(request):
        raise error("x")

    return view


async def later(request):
    from django.channels.exceptions import ResponseLater

    raise ResponseLater()


async def waiting(log, count):
    """Yield `count` parts, then wait for ever."""
    try:
        for each in range(count):
            yield str(each)
        log.append("waits")
        await asyncio.Event().wait()
    except BaseException as error:
        log.append(type(error).__name__)
        raise
    finally:
        log.append("closed")
