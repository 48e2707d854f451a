import asyncio
import json
import os
import time

from channels import Channel
from channels.exceptions import ChannelFull
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse

from .record import record

CHUNK = b"0123456789abcdef" * 4096  # 64 KiB


def work(request):
    """Takes `ms` milliseconds, and answers with its number."""
    time.sleep(int(request.GET.get("ms", 0)) / 1000.0)
    record("request", n=int(request.GET["n"]))
    return HttpResponse(request.GET["n"])


async def poll(request):
    """Waits for `ms` milliseconds, without a thread."""
    record("poll")
    try:
        await asyncio.sleep(int(request.GET.get("ms", 0)) / 1000.0)
    finally:
        record("poll-end")
    return HttpResponse("nothing new")


def page(request):
    """A page of `mb` megabytes."""
    return HttpResponse(CHUNK * (16 * int(request.GET["mb"])))


def stream(request):
    """`mb` megabytes, with `ms` milliseconds before each 64 KiB; how it ended is recorded."""
    name, pause = request.GET["name"], int(request.GET.get("ms", 0)) / 1000.0
    record("stream", name=name)

    def parts():
        try:
            for _ in range(int(request.GET["mb"]) * 16):
                if pause:
                    time.sleep(pause)
                yield CHUNK
        finally:
            record("stream-end", name=name)

    return StreamingHttpResponse(parts())


def events(request):
    """Server-sent events of which none comes. With `async=1` they wait without a thread."""

    async def wait():
        record("events")
        try:
            yield b": hello\n\n"
            await asyncio.Event().wait()
        finally:
            record("events-end")

    def block():
        for _ in range(60):
            yield b": hello\n\n"
            time.sleep(1)

    parts = wait() if request.GET.get("async") else block()
    return StreamingHttpResponse(parts, content_type="text/event-stream")


def upload(request):
    """Reads the body in bursts of `burst` megabytes with `pause` seconds between; answers its size."""
    burst, pause = int(request.GET["burst"]) * 2**20, float(request.GET["pause"])
    size, following = 0, burst
    while True:
        part = request.read(65536)
        if not part:
            return HttpResponse(str(size))
        size += len(part)
        if size >= following:
            following += burst
            time.sleep(pause)


def hold(request):
    """Keeps its thread until there is a file `released` in the site's folder."""
    record("hold")
    while not os.path.exists(os.path.join(settings.BASE_DIR, "released")):
        time.sleep(0.05)
    return HttpResponse("released")


def flood(request):
    """Send `n` messages to a channel without readers. Answer how many got ChannelFull, as JSON."""
    refused = 0
    for number in range(int(request.GET["n"])):
        try:
            Channel("unheard").send({"n": number}, immediately=True)
        except ChannelFull:
            refused += 1
    layer = Channel("unheard").channel_layer
    return HttpResponse(json.dumps({"refused": refused, "counted": layer.statistics()["full"]}))
