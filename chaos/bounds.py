"""Rows of what is bounded: slow clients, long streams, idle sockets, blocked threads, full channels."""

import asyncio
import json
import os
import random
import re
import time
from collections import Counter
from datetime import datetime
from functools import partial
from statistics import median

from load import Lag, Refused, Socket, Traffic, fetch, percentile
from stack import memory, require, reset_peak
from table import (
    ALL,
    PATIENT,
    in_thread,
    is_small,
    require_untouched,
    row,
    servers,
    start_both,
    stop_and_audit,
    until,
)

MB = 2**20

#: Megabytes that the docs (ref/channels/faults.txt) allow for clients that do not read: in each gateway for
#: what is said to all, plus this for each of these clients.
SHARED_BOUND, CLIENT_BOUND = 5, 0.5

#: A 99th percentile below this (milliseconds) is undisturbed: it is what else the machine does.
UNDISTURBED = 100

#: Greatest number of times that a room is measured: noise only ever adds to what a machine takes.
TRIES = 3

#: Seconds that a gateway gives a client to take its close frame, and somewhat less.
CLOSE_TIMEOUT = 8


class Room:
    """A room of sockets on `gateways`: its first speaks, all hear it, and how late they do is kept."""

    SIZE = 32768

    def __init__(self, gateways, rate):
        self.gateways, self.rate = gateways, rate
        self.sockets = []
        self.latencies = {gateway.port: [] for gateway in gateways}
        self._number = 0
        self._filler = b"x" * (self.SIZE - 20)

    async def fill(self, count):
        """Open sockets, spread over the gateways, until there are `count`."""
        self.sockets = [each for each in self.sockets if each.code is None]
        while len(self.sockets) < count:
            port = self.gateways[self._number % len(self.gateways)].port

            def hear(payload, heard=self.latencies[port]):
                heard.append(time.monotonic() - float(payload[:20]))

            socket = Socket(port, "/room/hall?id=%d-%d" % (port, self._number), hear)
            self.sockets.append(await socket.open(receive_buffer=65536))
            self._number += 1

    async def speak(self, readers, seconds, enough=None):
        """
        Speak for so many seconds, or until the coroutine function `enough`, asked twice a second, says so;
        all `readers` are to hear all of it. Returns how much was said, and the 99th percentile of each
        gateway's readers (milliseconds, by port).
        """
        for each in readers:
            each.received = 0
        for heard in self.latencies.values():
            heard.clear()
        said, begun = 0, time.monotonic()
        asked = begun
        while time.monotonic() < begun + seconds:
            self.sockets[0].send(b"%020.6f" % time.monotonic() + self._filler)
            said += 1
            await asyncio.sleep(max(0, begun + said / self.rate - time.monotonic()))
            if enough is not None and time.monotonic() > asked + 0.5:
                asked = time.monotonic()
                if await enough():
                    break
        await until(
            lambda: all(each.received >= said for each in readers), 20, "the room's messages"
        )
        return said, {port: percentile(heard, 0.99) for port, heard in self.latencies.items()}


async def count_of(gateway, name):
    """A counter of the gateway's own process."""
    _, _, body = await fetch(gateway.port, "/statistics")
    return json.loads(body.decode()).get(name, 0)


async def meet_the_mute(stack, room, count):
    """
    `count` of the room stop reading, and the others speak on until the gateways have closed these.
    Returns a dict of what was seen; `p99`, `codes`, and `grown` (MB) are dicts by the gateway's port.
    """
    mute = random.sample(room.sockets[1:], count)
    readers = [each for each in room.sockets if each not in set(mute)]
    counted, before, expected = {}, {}, Counter(each.port for each in mute)
    for gateway in room.gateways:
        counted[gateway.port] = await count_of(gateway, "slow_clients")
        reset_peak(gateway.pid)
        before[gateway.port] = memory(gateway.pid)
    for each in mute:
        each.transport.pause_reading()
    begun = first = time.monotonic()

    async def all_are_closed():
        nonlocal first
        closed = 0
        for gateway in room.gateways:
            closed += await count_of(gateway, "slow_clients") - counted[gateway.port]
        if not closed:
            first = time.monotonic()
        if closed >= count:
            # Those who read on now find out why.
            for each in mute:
                each.transport.resume_reading()
        return closed >= count

    said, p99 = await room.speak(readers, 120, all_are_closed)
    took = time.monotonic() - first
    await until(lambda: all(each.code is not None for each in mute), 20, "the slow to be closed")
    found = {
        "seconds": time.monotonic() - begun,
        "said": said,
        "p99": p99,
        "grown": {},
        "codes": {},
    }
    require(all(each.code is None for each in readers), "a reader was closed")
    for gateway in room.gateways:
        port = gateway.port
        found["grown"][port] = (memory(gateway.pid, "VmHWM") - before[port]) / MB
        found["codes"][port] = codes = Counter(each.code for each in mute if each.port == port)
        number = await count_of(gateway, "slow_clients") - counted[port]
        require(number == expected[port], "%d counted, %d closed", number, expected[port])
        # Daphne gives up after a second, a gateway after ten: then the code stays behind what was not read.
        late = gateway.name == "daphne" or took > CLOSE_TIMEOUT
        require(set(codes) <= ({1013, 1006} if late else {1013}), "closed with %s", codes)
        bound = SHARED_BOUND + CLIENT_BOUND * expected[port]
        grown = found["grown"][port]
        require(grown < bound, "%s + %.0f MB, bound %.0f MB", gateway.name, grown, bound)
    names = {each.path.partition("id=")[2] for each in mute}

    def told():
        return [
            line["code"]
            for line in stack.records()
            if line["kind"] == "disconnect" and line["id"] in names
        ]

    await until(lambda: len(told()) >= count, 10, "the disconnects of the slow")
    require(Counter(told()) == {1013: count}, "the site was told %s", Counter(told()))
    return found


@row(
    "slow",
    "clients of a room that never read",
    backends=("redis", "postgresql", "memory"),
    seconds=600,
    **PATIENT,
)
async def slow(stack, options):
    if stack.server.kind != "in memory":
        stack.worker()
        return await measure_room(stack, options, "uvicorn", "daphne")
    # There a room is in one process.
    return "\n".join([await measure_room(stack, options, name) for name in ("uvicorn", "daphne")])


async def measure_room(stack, options, *names):
    """A room on gateways under the servers of these names."""
    total, count, window = (250, 50, 4) if options.quick else (1000, 200, 8)
    gateways = [stack.gateway(name, send_buffer=65536) for name in names]
    room = Room(gateways, rate=12 if options.quick else 4)
    await room.fill(total)
    await room.speak(room.sockets, 2)
    without, among = [(await room.speak(room.sockets, window))[1]], []
    held = False
    while not held and len(among) < TRIES:
        await room.fill(total)
        with Lag() as lag:
            found = await meet_the_mute(stack, room, count)
        among.append(found["p99"])
        await room.fill(total)
        without.append((await room.speak(room.sockets, window))[1])
        held = all(
            min(each[port] for each in among)
            < max(2 * median(each[port] for each in without), UNDISTURBED)
            for port in room.latencies
        )
    measured = (
        "%d of %d never read %d KB x %d/s, until closed %.0f s later; the others got all %d messages"
        % (count, total, room.SIZE // 1024, room.rate, found["seconds"], found["said"])
    )
    for gateway in gateways:
        port = gateway.port
        measured += (
            "\n%s: p99 %s ms (%s ms without them); closed with %s, all counted; + %.1f MB"
            % (
                gateway.name,
                ", ".join("%.0f" % each[port] for each in among),
                ", ".join("%.0f" % each[port] for each in without),
                dict(found["codes"][port]),
                found["grown"][port],
            )
        )
    measured += "\nof which the load's own event loop: p99 %.0f ms" % percentile(lag.samples, 0.99)
    require(held, measured)
    for gateway in gateways:
        gateway.kill()
    return measured


async def read_in_bursts(port, path, burst, pause):
    """Read a response, `burst` bytes at a time with `pause` seconds between; return its size."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MB)
    writer.write(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.encode())
    await reader.readuntil(b"\r\n\r\n")
    total, following = 0, burst
    while True:
        data = await reader.read(MB)
        if not data:
            writer.close()
            return total
        total += len(data)
        if total > following:
            following += burst
            await asyncio.sleep(pause)


async def upload(port, path, size):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        % (path.encode(), size)
    )
    part = b"u" * 262144
    for _ in range(size // len(part)):
        writer.write(part)
        await writer.drain()
    answer = await reader.read(-1)
    writer.close()
    return answer


@row(
    "streams",
    "a streamed response read in bursts, an upload read in the same way",
    backends=("redis", "postgresql", "memory"),
    seconds=300,
    **PATIENT,
)
async def streams(stack, options):
    megabytes, burst, pause = (160, 64, 2) if options.quick else (1024, 256, 5)
    return await stream_through(stack, "uvicorn", megabytes, burst, pause)


@row(
    "daphne",
    "the same under Daphne, and a client that reads nothing of a stream",
    seconds=300,
    **PATIENT,
)
async def daphne(stack, options):
    megabytes, burst, pause = (64, 32, 1) if options.quick else (1024, 256, 5)
    return await stream_through(stack, "daphne", megabytes, burst, pause)


async def stream_through(stack, program, megabytes, burst, pause):
    """Stream both ways under `program`, `burst` megabytes at a time with `pause` seconds between."""
    gateway = stack.gateway(program)
    worker = gateway if stack.server.kind == "in memory" else stack.worker()
    await fetch(gateway.port, "/work?n=1")
    before, lines = {}, []

    def begin():
        for each in {gateway, worker}:
            before[each] = memory(each.pid)
            reset_peak(each.pid)

    def add(line, free=None):
        grown = {
            each.name: (memory(each.pid, "VmHWM") - before[each]) / MB for each in (gateway, worker)
        }
        lines.append("%s: %s" % (line, ", ".join("%s + %.0f MB" % pair for pair in grown.items())))
        if free:
            grown.pop(free)
        require(max(grown.values()) < 64, "%s", lines[-1])

    def ended(name):
        return any(
            line["kind"] == "stream-end" and line["name"] == name for line in stack.records()
        )

    begin()
    begun = time.monotonic()
    path = "/stream?mb=%d&name=all" % megabytes
    got = await read_in_bursts(gateway.port, path, burst * MB, pause)
    require(got >= megabytes * MB, "%d bytes came", got)
    add("%d MB download in %.0f s" % (megabytes, time.monotonic() - begun))
    begin()
    begun = time.monotonic()
    # Daphne queues a body whole before the application runs: the docs say so, and it is not bounded here.
    queues = program == "daphne"
    megabytes = min(megabytes, 64) if queues else megabytes
    path = "/upload?burst=%d&pause=%g" % (min(burst, megabytes // 2), pause)
    answer = await upload(gateway.port, path, megabytes * MB)
    require(answer.endswith(b"%d" % (megabytes * MB)), "the upload got %r", answer[-200:])
    line = "%d MB upload in %.0f s" % (megabytes, time.monotonic() - begun)
    add(line + queues * " (Daphne queues all of it)", free="daphne" if queues else None)
    begin()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=65536)
    writer.write(b"GET /stream?mb=1024&name=left HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readexactly(1000)
    await asyncio.sleep(2 * pause)
    require(not ended("left"), "the view wrote all of a stream that no client reads")
    add("1 GB that no client reads for %d s" % (2 * pause))
    writer.transport.abort()
    seconds = await until(
        lambda: ended("left"), 10, "the iterator to be closed after its client went away"
    )
    lines.append("a client that goes away: the iterator is closed after %.2f s" % seconds)
    return "\n".join(lines)


@row(
    "idle",
    "idle sockets, then a broadcast",
    backends=("redis", "postgresql", "memory"),
    seconds=300,
    **PATIENT,
)
async def idle(stack, options):
    total = 2000 if options.quick else 10000
    total = min(total, options.descriptors - 1000)

    async def open_all(port):
        sockets, numbers = [], iter(range(total))

        async def some():
            for index in numbers:
                socket = Socket(port, "/room/hall?id=%d" % index)
                for _ in range(20):
                    try:
                        sockets.append(await socket.open(30))
                        break
                    except Refused:
                        socket = Socket(port, "/room/hall?id=%d" % index)
                        await asyncio.sleep(0.1)

        await asyncio.gather(*[some() for _ in range(40)])
        return sockets

    async def close_all(sockets):
        for each in sockets:
            each.transport.abort()
        await asyncio.sleep(1)

    bare = stack.gateway(application="chaossite.bare:application")
    warm = await open_one(bare.port)
    before = memory(bare.pid)
    sockets = await open_all(bare.port)
    bare_each = (memory(bare.pid) - before) / 1024 / total
    await close_all(sockets + [warm])
    bare.kill()
    gateway = stack.gateway(application="chaossite.asgi:channel_layer")
    if stack.server.kind != "in memory":
        stack.worker()
    warm = await open_one(gateway.port)
    before = memory(gateway.pid)
    begun = time.monotonic()
    sockets = await open_all(gateway.port)
    opening = time.monotonic() - begun
    require(len(sockets) == total, "%d of %d sockets were opened", len(sockets), total)
    each_kb = (memory(gateway.pid) - before) / 1024 / total
    begun = time.monotonic()
    sockets[0].send(b"hello, all")
    await until(lambda: all(each.received for each in sockets), 30, "the broadcast")
    last = max(each.last for each in sockets) - begun
    await close_all(sockets + [warm])
    return (
        "%d sockets opened in %.1f s; %.1f KB each in the gateway, %.1f KB in the bare server; the "
        "broadcast reached all in %.2f s" % (total, opening, each_kb, bare_each, last)
    )


async def open_one(port):
    return await Socket(port, "/room/warm?id=warm").open(30)


@row(
    "blocked",
    "consumers that block in 3 of 4 threads",
    backends=("redis", "postgresql", "memory"),
    **PATIENT,
)
async def blocked(stack, options):
    seconds = 4 if options.quick else 30
    gateway = stack.gateway()
    if stack.server.kind != "in memory":
        stack.worker()
    answers = []
    sleepers = [
        await Socket(gateway.port, "/echo?id=sleeper%d" % n, answers.append).open()
        for n in range(3)
    ]
    traffic = Traffic(
        [gateway.port], sockets=40, requests=4, interval=0.1, frame_ms=0, request_ms=5
    )
    await traffic.start()
    await asyncio.sleep(2)
    before = percentile(traffic.latencies, 0.99)
    del traffic.latencies[:]
    begun = time.monotonic()
    for each in sleepers:
        each.send(b'{"n": 1, "ms": %d}' % (seconds * 1000))
    await asyncio.sleep(seconds - 1)
    require(not answers, "a sleeper was answered early")
    during, count = percentile(traffic.latencies, 0.99), len(traffic.latencies)
    await until(lambda: len(answers) == 3, 10, "the blocked sockets' answers")
    took = time.monotonic() - begun
    measured = require_untouched(traffic, await stop_and_audit(stack, traffic))
    require(during < 1000, "p99 %.0f ms while 3 of 4 threads were blocked", during)
    for each in sleepers:
        each.close()
    return (
        "%d s: %d echoes meanwhile, p99 %.0f ms (%.0f ms before); the blocked answered after %.1f s; %s"
        % (seconds, count, during, before, took, measured)
    )


#: A line of a gateway's log about clients that it turned away: the time, and how many.
TURNED_AWAY = re.compile(r"^(\S+ \S+),(\d{3}) .*rejected with 503 or 1013: (\d+)$", re.MULTILINE)


def turned_away(gateway):
    """Return the times and numbers of clients in its log: [(seconds, clients), ...]."""
    found = []
    for moment, milliseconds, number in TURNED_AWAY.findall(gateway.output):
        seconds = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S").timestamp()
        found.append((seconds + int(milliseconds) / 1000, int(number)))
    return found


def layerstats(stack):
    """Return what `manage.py layerstats --json` shows."""
    command = stack.manage("layerstats", "layerstats", "--json")
    command.wait(30)
    require(command.popen.returncode == 0, "layerstats failed:\n%s", command.output)
    return json.loads(command.output)


@row(
    "full",
    "a shared channel that is full",
    backends=("redis", "postgresql", "memory"),
    quick=("redis", "memory"),
    channel_capacity={"http.request": 50, "websocket.connect": 20, "unheard": 10},
    heartbeat=1.0,
    lease=15.0,
)
async def full(stack, options):
    requests, held = [], []
    if stack.server.kind == "in memory":
        gateways = [stack.gateway()]
        # The workers are its threads: all of them are kept.
        held = [asyncio.ensure_future(fetch(gateways[0].port, "/hold")) for _ in range(4)]

        def kept():
            return sum(line["kind"] == "hold" for line in stack.records())

        await until(lambda: kept() == 4, 10, "requests that keep all threads")
    else:
        # And no worker. What waits for one must still be there when it is counted.
        gateways = start_both(stack, handshake_timeout=60)

    def port(number):
        return gateways[number % len(gateways)].port

    handshakes = [Socket(port(n), "/echo?id=%d" % n) for n in range(50)]
    opening = [asyncio.ensure_future(each.open(60)) for each in handshakes]
    for task in opening:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
    begun = time.monotonic()
    # In three waves, so that the gateway turns clients away for some seconds.
    for wave in range(3):
        await asyncio.sleep(max(0, begun + 1.3 * wave - time.monotonic()))
        requests += [
            asyncio.ensure_future(fetch(port(n), "/work?n=%d" % (40 * wave + n))) for n in range(40)
        ]

    def waiting():
        """Return how many requests and how many handshakes are unanswered."""
        closed = sum(each.code is not None for each in handshakes)
        return sum(not task.done() for task in requests), len(handshakes) - closed

    # Several senders to the database layer may go over a capacity by a quarter.
    slack = 1.25 if stack.server.kind == "PostgreSQL" else 1
    # Requests wait for their turn in each gateway, up to the capacity. Handshakes fill their channel.
    kept = 50 * len(gateways)
    await until(lambda: waiting()[1] <= 20 * slack, 20, "1013")
    told = time.monotonic() - begun
    await until(lambda: waiting()[0] <= kept, 20, "503")
    seconds = time.monotonic() - begun
    await asyncio.sleep(1)
    taken, opened = waiting()
    require(taken >= 50 and opened >= 20, "only %d requests, %d handshakes wait", taken, opened)
    early = Counter(
        (task.result()[0], bool(task.result()[1].get("retry-after")))
        for task in requests
        if task.done()
    )
    require(set(early) == {(503, True)}, "status, whether with Retry-After: %s", early)
    codes = Counter(each.code for each in handshakes if each.code is not None)
    require(set(codes) == {1013}, "closes: %s", codes)
    away = sum(early.values()) + sum(codes.values())
    counted = [await count_of(gateway, "refused") for gateway in gateways]
    require(sum(counted) == away, "counted as refused: %s, clients: %d", counted, away)

    def logged():
        return [sum(number for _, number in turned_away(gateway)) for gateway in gateways]

    await until(lambda: logged() == counted, 5, "log lines of all who were turned away")
    if stack.server.kind != "in memory":
        for _ in range(5):  # it shows the gateways' last heartbeats
            shown = await in_thread(layerstats, stack)
            if shown["counters"].get("refused") == away:
                break
        require(shown["counters"].get("refused") == away, "layerstats: %s", shown)
    # Now a worker runs, and the waiting clients are served.
    open(os.path.join(stack.site, "released"), "w").close()
    if not held:
        await in_thread(stack.worker)
    statuses = Counter([(await task)[0] for task in requests])
    require(statuses == {200: taken, 503: 120 - taken}, "answers %s", statuses)
    await until(
        lambda: sum(task.done() and not task.exception() for task in opening) == 50,
        20,
        "the other handshakes",
    )
    for task in held:
        require((await task)[0] == 200, "a request that had kept a thread was not answered")
    _, _, body = await fetch(gateways[0].port, "/flood?n=15")
    raised = json.loads(body.decode())
    require(raised["refused"] == 5 <= raised["counted"], "ChannelFull in the site: %s", raised)
    times = [[moment for moment, _ in turned_away(gateway)] for gateway in gateways]
    gaps = [after - before for each in times for before, after in zip(each, each[1:])]
    lines = [
        len([line for line in each.output.splitlines() if "full" in line]) for each in gateways
    ]
    measured = (
        "capacity 50: 120 requests: %s with Retry-After; capacity 20: 50 handshakes: %s; turned away within "
        "%.1f s, handshakes %.1f s, counted %s%s; %s lines in the logs, at least %.2f s apart; "
        "ChannelFull 5 times for 15 messages, capacity 10"
        % (
            dict(statuses),
            dict(codes),
            seconds,
            told,
            counted,
            "" if held else " (layerstats %d)" % shown["counters"]["refused"],
            lines,
            min(gaps, default=0),
        )
    )
    require(min(gaps, default=0) > 0.95, measured)
    require(lines == [len(each) for each in times], measured)
    for each in handshakes:
        each.close()
    return measured


#: The sockets of the greedy client of the row "crowd", its frames without an answer on each, and how long
#: (milliseconds) a worker takes for one; and the sockets of the others.
GREEDY, GREEDY_FRAMES, GREEDY_MS, OTHERS = 200, 32, 20, 20

#: How many times as late as without the greedy client the others may be answered.
CROWD_FACTOR = 3


class Greedy:
    """A client with many sockets, each with as many frames without an answer as it may have."""

    def __init__(self, port, address="127.0.0.2"):
        self.port, self.address = port, address
        self.sockets = []
        self.answers = 0

    async def open(self, count):
        for number in range(count):
            socket = Socket(self.port, "/echo?id=greedy%d" % number)
            socket.on_text = partial(self._answered, socket)
            for _ in range(20):
                try:
                    await socket.open(30, address=self.address)
                    break
                except Refused:
                    socket = Socket(self.port, "/echo?id=greedy%d" % number)
                    socket.on_text = partial(self._answered, socket)
            self.sockets.append(socket)
            socket.n = 0
            for _ in range(GREEDY_FRAMES):
                self._send(socket)

    def _send(self, socket):
        socket.n += 1
        socket.send(b'{"n": %d, "ms": %d}' % (socket.n, GREEDY_MS))

    def _answered(self, socket, payload):
        self.answers += 1
        self._send(socket)

    def close(self):
        for each in self.sockets:
            each.transport.abort()


@row(
    "crowd",
    "a client with 200 sockets, and 20 others",
    backends=ALL,
    quick=("memory",),
    **PATIENT,
)
async def crowd(stack, options):
    lines = []
    for program in servers(options):
        gateway = stack.gateway(program)
        worker = stack.worker() if stack.server.kind != "in memory" else None
        lines.append("%s: %s" % (program, await crowd_on(stack, gateway, options)))
        for each in (gateway, worker):
            if each is not None:
                each.kill()
    return "\n".join(lines)


async def crowd_on(stack, gateway, options):
    """Measure the others with and without the greedy client. Return what was measured."""
    seconds = 5 if is_small(stack, options) else 15
    traffic = Traffic([gateway.port], sockets=OTHERS, requests=2, interval=0.2, frame_ms=5)
    await traffic.start()

    async def measure():
        traffic.latencies.clear()
        await asyncio.sleep(seconds)
        return percentile(traffic.latencies, 0.99)

    def held():
        return crowded < max(CROWD_FACTOR * alone, UNDISTURBED)

    alone = await measure()
    greedy = Greedy(gateway.port)
    await greedy.open(GREEDY)
    await asyncio.sleep(1)
    answers, begun = greedy.answers, time.monotonic()
    crowded = await measure()
    for _ in range(TRIES - 1):
        if not held():
            crowded = min(crowded, await measure())
    rate = (greedy.answers - answers) / (time.monotonic() - begun)
    closed = Counter(each.code for each in greedy.sockets if each.code is not None)
    greedy.close()
    if not held():
        await asyncio.sleep(1)
        alone = max(alone, await measure())  # the machine may have become slower meanwhile
    await traffic.stop()
    statuses = traffic.statuses()
    measured = (
        "%d others: p99 %.0f ms, %.0f ms without; closed %s, HTTP %s; the greedy got %.0f answers a second, "
        "closed %s"
        % (OTHERS, crowded, alone, traffic.codes() or 0, statuses, rate, dict(closed) or 0)
    )
    require(not traffic.codes() and not traffic.refused, measured)
    require(set(statuses) == {200}, measured)
    require(rate > 0, measured)
    require(held(), measured)
    return measured


#: Of the row "hoard": the sockets, and the megabytes that each sends to consumers that are all busy; and the
#: megabytes that a gateway may need for that: `frames_memory`, and what a server keeps for each socket.
HOARDERS, HOARD, HOARD_BOUND = 150, 2, 64 + 150 * 0.5


@row(
    "hoard",
    "150 sockets that send 2 MB each to busy consumers",
    backends=ALL,
    quick=("memory",),
    **PATIENT,
)
async def hoard(stack, options):
    lines = []
    for program in servers(options):
        gateway = stack.gateway(program)
        worker = stack.worker() if stack.server.kind != "in memory" else None
        await open_one(gateway.port)
        reset_peak(gateway.pid)
        before = memory(gateway.pid)
        sockets = []
        for number in range(HOARDERS):
            socket = Socket(gateway.port, "/echo?id=hoarder%d" % number)
            sockets.append(await socket.open(60, address="127.0.0.%d" % (2 + number % 10)))
        # The four threads of workers handle eight of these a second, and the next gateway gets its turn soon.
        frame = b'{"n": %d, "ms": 500, "filler": "' + b"x" * 16000 + b'"}'
        for each in sockets:
            for n in range(HOARD * MB // len(frame)):
                each.send(frame % (n + 1))
        await asyncio.sleep(5 if is_small(stack, options) else 20)
        grown = (memory(gateway.pid, "VmHWM") - before) / MB
        closed = Counter(each.code for each in sockets if each.code is not None)
        measured = "%s + %.0f MB for %d MB; closed %s" % (
            program,
            grown,
            HOARDERS * HOARD,
            dict(closed) or 0,
        )
        lines.append(measured)
        require(grown < HOARD_BOUND and not closed, "%s", measured)
        for each in sockets:
            each.transport.abort()
        for each in (gateway, worker):
            if each is not None:
                each.kill()
    return "\n".join(lines)
