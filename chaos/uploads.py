"""
Rows of uploads: clients that send the body of a request slowly may not hold up the others, and a body that no
view reads may not stay on the layer.
"""

import asyncio
import json
import time

from bounds import MB, layerstats, upload
from clients import ARRIVE, Crowd, Reader, bystanders_beside
from load import fetch
from stack import require
from table import ALL, PATIENT, in_thread, is_small, row, servers, until

#: What each client sends in all, and how much of it in how many seconds: a little more than the least rate.
SIZE, PART, PAUSE = 128 * 1024, 4096, 3.0

#: The size of a body that no view reads, and how long (seconds) any of it may be on the layer after the
#: answers. Messages expire after 60 seconds.
UNREAD, UNREAD_TIME = 9 * MB // 4, 15


class Uploader(Reader):
    """
    A client that sends `path` a body of SIZE bytes slowly, until `hurry` is set. Its status is 0 until it has
    sent something, then 100 until it has an answer.
    """

    def __init__(self, port, path):
        super().__init__(port, path)
        self.hurry = asyncio.Event()

    async def run(self):
        try:
            reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            head = "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            self.writer.write((head % (self.path, SIZE)).encode())
            left = SIZE
            while left:
                part = left if self.hurry.is_set() else min(PART, left)
                self.writer.write(b"u" * part)
                await self.writer.drain()
                self.status, left = 100, left - part
                if left:
                    try:
                        await asyncio.wait_for(self.hurry.wait(), PAUSE)
                    except asyncio.TimeoutError:
                        pass
            answer = await reader.read(-1)
            self.status = int(answer.split(b" ")[1]) if answer.endswith(b"%d" % SIZE) else -1
        except (OSError, IndexError):
            self.status = -2
        self.over = True


async def finish(crowd):
    """Have all send the rest of their bodies, a few at a time, and wait for their answers. Return a text."""
    unanswered = sum(each.status == 100 for each in crowd.members)
    for start in range(0, len(crowd.members), ARRIVE):
        several = crowd.members[start : start + ARRIVE]
        for each in several:
            each.hurry.set()
        await until(
            lambda several=several: all(each.over for each in several), 30, "answers to uploads"
        )
    return "%d still sent; all answered: %s" % (unanswered, crowd.statuses())


@row(
    "uploaders",
    "clients that send a body slowly, on a site of 4 threads",
    backends=ALL,
    quick=("redis",),
    seconds=400,
    **PATIENT,
)
async def uploaders(stack, options):
    count = 200 if is_small(stack, options) else 1000

    def crowd(ports):
        return Crowd(ports, "/upload?burst=1&pause=0", count, Uploader)

    programs = servers(options, quick=("uvicorn",))
    return "\n".join([await bystanders_beside(stack, each, crowd, finish) for each in programs])


async def pending(stack, gateway):
    """Return how many messages wait on the layer."""
    if stack.server.kind != "in memory":
        return (await in_thread(layerstats, stack))["layer"]["messages_pending"]
    _, _, body = await fetch(gateway.port, "/statistics")
    return json.loads(body.decode())["messages_pending"]


@row(
    "unread",
    "uploads whose views read nothing",
    backends=ALL,
    quick=("redis", "memory"),
    seconds=300,
    **PATIENT,
)
async def unread(stack, options):
    count = 60 if is_small(stack, options) else 300
    lines = []
    for program in servers(options):
        gateway = stack.gateway(program)
        worker = None if stack.server.kind == "in memory" else stack.worker(threads=4)
        answers = []
        for start in range(0, count, ARRIVE):
            several = range(start, min(start + ARRIVE, count))
            paths = ["/work?n=%d" % number for number in several]
            answers += await asyncio.gather(*[upload(gateway.port, each, UNREAD) for each in paths])
        require(all(b" 200 " in each[:13] for each in answers), "answers: %s", set(answers))
        begun = time.monotonic()
        left = await pending(stack, gateway)
        while left:
            waited = time.monotonic() - begun
            require(waited < UNREAD_TIME, "%d messages on the layer after %d s", left, waited)
            await asyncio.sleep(0.1)
            left = await pending(stack, gateway)
        lines.append(
            "%s: %d bodies of %.2f MB; nothing of them on the layer %.1f s after the answers"
            % (program, count, UNREAD / MB, time.monotonic() - begun)
        )
        for each in (gateway, worker):
            if each is not None:
                each.kill()
    return "\n".join(lines)
