"""Rows of clients that send the body of a request slowly: they may not hold up the other clients."""

import asyncio

from clients import ARRIVE, Crowd, Reader, bystanders_beside
from table import PATIENT, row, until

#: What each client sends in all, and how much of it in how many seconds: a little more than the least rate.
SIZE, PART, PAUSE = 128 * 1024, 4096, 3.0


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
    backends=("redis", "postgresql", "memory"),
    quick=("redis",),
    seconds=400,
    **PATIENT,
)
async def uploaders(stack, options):
    count = 200 if options.quick else 1000

    def crowd(ports):
        return Crowd(ports, "/upload?burst=1&pause=0", count, Uploader)

    programs = ("uvicorn",) if options.quick else ("uvicorn", "daphne")
    return "\n".join([await bystanders_beside(stack, each, crowd, finish) for each in programs])
