"""Rows of clients that read slowly, and of streams that wait: neither may hold up the other clients."""

import asyncio
import signal
import socket
import time
from collections import Counter

from bounds import MB, UNDISTURBED, count_of
from load import Traffic, percentile
from stack import memory, require, reset_peak
from table import (
    ALL,
    PATIENT,
    is_small,
    require_untouched,
    row,
    servers,
    stop_and_audit,
    until,
)

#: Seconds in which the bystanders are watched, without the others and with them.
WATCHED = 8

#: Bytes that the kernel keeps for a client on each side. By default it takes a whole page of some megabytes.
BUFFER = 65536

#: Clients of a crowd that connect at a time: fewer than a channel has room for.
ARRIVE = 20

#: Times that this is measured, at most: noise only ever adds to what a machine takes.
TRIES = 3


class Reader:
    """A client that asks for `path`, and reads `burst` bytes each `pause` seconds once `go` is set."""

    def __init__(self, port, path, burst=2048, pause=2.0):
        self.port, self.path, self.burst, self.pause = port, path, burst, pause
        self.status, self.received, self.over = 0, 0, False
        self.writer = None

    async def run(self):
        try:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.setblocking(False)
            await asyncio.get_event_loop().sock_connect(sock, ("127.0.0.1", self.port))
            reader, self.writer = await asyncio.open_connection(sock=sock, limit=4096)
            request = "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % self.path
            self.writer.write(request.encode())
            self.status = int((await reader.readline()).split(b" ")[1])
            while True:
                data = await reader.read(self.burst)
                if not data:
                    break
                self.received += len(data)
                await asyncio.sleep(self.pause)
        except (OSError, IndexError):
            pass
        self.over = True


class Crowd:
    """Many clients of one kind, spread over `ports`."""

    def __init__(self, ports, path, count, kind=Reader, **options):
        self.members = [kind(ports[n % len(ports)], path, **options) for n in range(count)]
        self._tasks = []

    async def come(self, seconds):
        """Have all connect, a few at a time, and wait until each has a status. Return the seconds it took."""
        begun = time.monotonic()
        for start in range(0, len(self.members), ARRIVE):
            several = self.members[start : start + ARRIVE]
            self._tasks += [asyncio.ensure_future(each.run()) for each in several]
            await until(
                lambda several=several: all(each.status or each.over for each in several),
                max(1, begun + seconds - time.monotonic()),
                "an answer to each of the crowd",
            )
        return time.monotonic() - begun

    async def leave(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for each in self.members:
            if each.writer is not None:
                each.writer.transport.abort()

    def statuses(self):
        return dict(Counter(each.status for each in self.members))


async def watch(traffic):
    """Return the 99th percentile of the bystanders' frames, and of their requests, in milliseconds."""
    del traffic.latencies[:], traffic.answers[:]
    await asyncio.sleep(WATCHED)
    requests = [seconds for _, seconds, _, _ in traffic.answers]
    # Those who get no answer at all wait for ever.
    return tuple(
        percentile(each, 0.99) if each else float("inf") for each in (traffic.latencies, requests)
    )


def held(without, among, bound=UNDISTURBED):
    """Return whether the bystanders' times are within twice of those without the crowd, or `bound` (ms)."""
    return all(
        beside < max(2 * alone, bound)
        for alone, beside in zip(map(max, zip(*without)), map(min, zip(*among)))
    )


async def bystanders_beside(
    stack, program, make_crowd, at_end=None, statuses=(200,), bound=UNDISTURBED
):
    """
    Measure bystanders without the crowd and with it, on a site of four threads. Return a text.

    `at_end(crowd)` looks at the crowd and returns a text; each of the crowd gets one of `statuses`. A 99th
    percentile below `bound` (milliseconds) is undisturbed.
    """
    gateway = stack.gateway(program, send_buffer=BUFFER)
    worker = None if stack.server.kind == "in memory" else stack.worker(threads=4)
    traffic = Traffic(
        [gateway.port], sockets=20, requests=2, interval=0.1, frame_ms=0, request_ms=0
    )
    await traffic.start()
    without, among, text = [await watch(traffic)], [], ""
    before = memory(gateway.pid)
    reset_peak(gateway.pid)
    crowd = make_crowd([gateway.port])
    try:
        came = await crowd.come(300)
        # What waited while they came is not what is measured.
        flows = traffic.open_flows()
        await until(
            lambda: all(each.sent - each.echoed < 2 for each in flows), 60, "the bystanders"
        )
        while not (among and held(without, among, bound)) and len(among) < TRIES:
            among.append(await watch(traffic))
        grown = (memory(gateway.pid, "VmHWM") - before) / MB
        text = "%s: %d came within %.1f s: %s; %d of them over; + %.0f MB" % (
            program, len(crowd.members), came, crowd.statuses(),
            sum(each.over for each in crowd.members), grown,
        )  # fmt: skip
        if at_end is not None:
            text += "; " + await at_end(crowd)
        counted = {
            name: await count_of(gateway, name) for name in ("slow_clients", "streams_refused")
        }
        text += "; counted %s" % counted
    finally:
        await crowd.leave()
    if not held(without, among, bound):
        without.append(await watch(traffic))  # the machine may have become slower meanwhile
    text += "\n  p99 of frames, requests (ms): without %s, with %s" % tuple(
        ", ".join("%.0f %.0f" % pair for pair in pairs) for pairs in (without, among)
    )
    require(held(without, among, bound), "%s", text)
    text += "\n  " + require_untouched(traffic, await stop_and_audit(stack, traffic))
    require(set(crowd.statuses()) <= set(statuses), "%s", text)
    require(grown < 512, "%s", text)
    if worker is not None:
        worker.signal(signal.SIGTERM)
        text += "; the worker ended %.1f s after SIGTERM" % worker.seconds_until_end(30)
        require(worker.popen.returncode == 0, "the worker ended with %s", worker.popen.returncode)
    gateway.kill()
    return text


@row(
    "readers",
    "clients that read a 5 MB page slowly, on a site of 4 threads",
    backends=ALL,
    quick=("redis",),
    seconds=900,
    **PATIENT,
)
async def readers(stack, options):
    # All pages go through the layer: through a database, 5 GB would take long.
    count = 200 if options.quick else 1000
    count = {"PostgreSQL": 200, "MariaDB": 40, "SQLite": 40}.get(stack.server.kind, count)

    def crowd(ports):
        return Crowd(ports, "/page?mb=5", count)

    programs = servers(options, quick=("uvicorn",))
    return "\n".join([await bystanders_beside(stack, each, crowd) for each in programs])


async def kill_a_worker_of(stack, make_crowd):
    """Kill the worker that streams to all of a crowd. Each of them must learn of it. Return a text."""
    gateway = stack.gateway()
    worker = stack.worker(threads=4)
    crowd = make_crowd([gateway.port])
    await crowd.come(60)
    worker.kill()
    limit = PATIENT["lease"] + 2 * PATIENT["heartbeat"]
    seconds = await until(
        lambda: all(each.over for each in crowd.members),
        limit,
        "the ends of a killed worker's streams",
    )
    counted = await count_of(gateway, "lost")
    await crowd.leave()
    require(counted >= len(crowd.members), "%d of %d counted", counted, len(crowd.members))
    gateway.kill()
    return "a killed worker's %d streams broke off within %.1f s (lease %g s), all counted as lost" % (
        len(crowd.members), seconds, PATIENT["lease"],
    )  # fmt: skip


@row(
    "events",
    "clients of idle server-sent events, on a site of 4 threads",
    backends=ALL,
    quick=("memory",),
    seconds=400,
    **PATIENT,
)
async def events(stack, options):
    """Asynchronous ones, which all are served; and others, of which as many as may hold threads."""
    count, killed = 100 if is_small(stack, options) else 500, 0
    lines = []

    def asynchronous(ports):
        return Crowd(ports, "/events?async=1", count)

    def synchronous(ports):
        return Crowd(ports, "/events", 20)

    async def leave(crowd):
        require(not any(each.over for each in crowd.members), "a stream ended by itself")
        await crowd.leave()

        def all_ended():
            kinds = Counter(line["kind"] for line in stack.records())
            return kinds["events-end"] == kinds["events"] - killed

        seconds = await until(all_ended, 10, "the end of the streams of clients that left")
        return "all streams ended %.2f s after their clients had left" % seconds

    if stack.server.kind != "in memory":
        lines.append(await kill_a_worker_of(stack, asynchronous))
        killed = count
    for program in servers(options, quick=("uvicorn",)):
        lines.append(await bystanders_beside(stack, program, asynchronous, leave))
        # One thread is left for the bystanders, so they may be slower.
        rest = {"statuses": (200, 503), "bound": 1000}
        lines.append(await bystanders_beside(stack, program, synchronous, **rest))
    return "\n".join(lines)
