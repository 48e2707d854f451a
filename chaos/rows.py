"""The rows of the table: one coroutine a promise, which raises Failure or returns what it measured."""

import asyncio
import os
import random
import signal
import time
from collections import Counter, namedtuple

from load import Refused, Socket, Traffic, audit, fetch, percentile
from stack import LEASE, Failure, memory, require, reset_peak, wait_for

MB = 2**20

Row = namedtuple("Row", "name title function backends seconds quick config")
ROWS = []

#: For rows in which nobody dies: the layer's own timing, which a busy machine does not outrun.
PATIENT = {"heartbeat": 5.0, "lease": 15.0}


def row(name, title, backends=("redis",), seconds=240, quick=("redis",), **config):
    """
    On `backends`, and with --quick on those of `quick`; `config` goes to the layer. A row that takes longer
    than `seconds` has failed.
    """

    def register(function):
        ROWS.append(Row(name, title, function, backends, seconds, quick, config))
        return function

    return register


async def in_thread(function, *args):
    return await asyncio.get_event_loop().run_in_executor(None, lambda: function(*args))


async def until(condition, seconds, what):
    """Seconds until `condition()` is true; Failure after so many."""
    begun = time.monotonic()
    while not condition():
        require(time.monotonic() - begun < seconds, "waited %g s in vain for %s", seconds, what)
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


def both(stack):
    """A gateway under each server."""
    gateways = [stack.gateway("uvicorn", wait=False), stack.gateway("daphne", wait=False)]
    for gateway in gateways:
        stack.await_gateway(gateway)
    return gateways


def ports(gateways):
    return [gateway.port for gateway in gateways]


def require_untouched(traffic, found):
    """The promises of a restart that nobody is to notice."""
    statuses = traffic.statuses()
    text = (
        "%d frames, %d requests on %d sockets: closed %s, lost %d, unanswered %d, twice %d, "
        "out of order %d, HTTP %s"
    )
    measured = text % (
        found["frames"],
        len(traffic.answers),
        len(traffic.flows),
        traffic.codes() or 0,
        found["lost"],
        found["unanswered"],
        found["twice"] + found["marked"],
        found["disorder"],
        statuses,
    )
    bad = (
        traffic.codes()
        or traffic.refused
        or set(statuses) - {200}
        or any(found[key] for key in found if key != "frames")
    )
    require(not bad, "%s; refused %s; %s", measured, traffic.refused[:5], found)
    return measured


async def settle(stack, traffic):
    """Stop the load, and let the last disconnects be handled; what the audit found."""
    await traffic.stop()
    connected = {flow.id for flow in traffic.flows}

    def all_gone():
        return connected <= {line["id"] for line in stack.records() if line["kind"] == "disconnect"}

    try:
        await until(all_gone, 10, "disconnects")
    except Failure:
        pass  # the audit says how many
    return audit(traffic, stack.records())


@row(
    "rolling",
    "rolling restart of all workers, one by one",
    backends=("redis", "postgresql"),
    seconds=300,
)
async def rolling(stack, options):
    gateways = both(stack)
    workers = [stack.worker() for _ in range(3)]
    traffic = Traffic(ports(gateways))
    await traffic.start()
    slowest, rounds = 0.0, 2 if options.quick else 10
    for _ in range(rounds):
        for index, worker in enumerate(workers):
            worker.signal(signal.SIGTERM)
            slowest = max(slowest, await in_thread(worker.wait, 12))
            require(worker.popen.returncode == 0, "a worker left with %s", worker.popen.returncode)
            workers[index] = await in_thread(stack.worker)
    measured = require_untouched(traffic, await settle(stack, traffic))
    return "%d times 3 workers: %s; slowest leave %.1f s" % (rounds, measured, slowest)


@row("reload", "SIGHUP to `runworker --processes 3`: new code")
async def reload(stack, options):
    gateways = both(stack)
    supervisor = stack.worker("--processes", "3")
    traffic = Traffic(ports(gateways))
    await traffic.start()
    times, rounds = [], 1 if options.quick else 4
    for version in range(2, 2 + rounds):
        before = set(supervisor.children())
        path = os.path.join(stack.site, "chaossite", "version.py")
        with open(path, "w") as file:
            file.write("VERSION = %d\n" % version)
        begun = time.monotonic()
        supervisor.signal(signal.SIGHUP)
        await until(
            lambda before=before: (
                len(supervisor.children()) == 3 and not before & set(supervisor.children())
            ),
            60,
            "new processes",
        )
        times.append(time.monotonic() - begun)
        since = time.monotonic()
        await until(
            lambda version=version, since=since: traffic.versions.get(version, 0) > since + 0.3,
            10,
            "the new code",
        )
        old = traffic.versions[version - 1]
        require(old < since + 0.3, "old code answered %.1f s after the reload", old - since)
    measured = require_untouched(traffic, await settle(stack, traffic))
    return "%d times, all 3 renewed in %.1f s at most: %s" % (rounds, max(times), measured)


@row(
    "killed",
    "SIGKILL of a random worker every 3 s",
    backends=("redis", "postgresql"),
    quick=("redis", "postgresql"),
)
async def killed(stack, options):
    gateways = both(stack)
    supervisor = stack.worker("--processes", "4")
    await until(lambda: len(supervisor.children()) == 4, 20, "workers")
    traffic = Traffic(ports(gateways), frame_ms=10, request_ms=60, interval=0.05, requests=10)
    await traffic.start()
    kills = 0
    end = time.monotonic() + (9 if options.quick else 60)
    while time.monotonic() < end:
        await asyncio.sleep(3)
        os.kill(random.choice(supervisor.children()), signal.SIGKILL)
        kills += 1
    await asyncio.sleep(LEASE + 1)
    found = await settle(stack, traffic)
    stack.require_alive(gateways + [supervisor])
    statuses, codes = traffic.statuses(), traffic.codes()
    worst = max(seconds for _, seconds, _, _ in traffic.answers)
    measured = (
        "%d kills: HTTP %s, slowest answer %.1f s (lease + 2 = %g); %d frames, closed with %s; "
        "lost %d, unanswered %d, twice %d, out of order %d, marked %d, no disconnect %d"
    ) % (
        kills,
        statuses,
        worst,
        LEASE + 2,
        found["frames"],
        codes,
        found["lost"],
        found["unanswered"],
        found["twice"],
        found["disorder"],
        found["marked"],
        found["no_disconnect"],
    )
    require(set(statuses) <= {200, 502}, measured)
    require(worst < LEASE + 2, measured)
    require(set(codes) <= {1011}, measured)
    require(
        not (found["lost"] or found["unanswered"] or found["twice"] or found["disorder"]), measured
    )
    require(not found["no_disconnect"], measured)
    return measured


@row(
    "retried",
    "the same with `retried` channels, and a poison message",
    backends=("redis", "postgresql"),
    lost={"job": "retry"},
    channel_capacity={"job": 100000},
    channel_expiry={"job": 600},
)
async def retried(stack, options):
    supervisor = stack.worker("--processes", "3")
    await until(lambda: len(supervisor.children()) == 3, 20, "workers")
    count = 1500 if options.quick else 6000
    layer = stack.layer

    def send(first, last):
        for n in range(first, last):
            layer.send("job", {"n": n, "ms": 20})

    await in_thread(send, 0, count // 2)
    layer.send("job", {"n": count, "poison": True})
    await in_thread(send, count // 2, count)
    begun = time.monotonic()

    def done():
        lines = stack.records()
        return (
            len({line["n"] for line in lines if line["kind"] == "job"}) == count
            and len(layer.dead_letters()) >= 1
        )

    kills = 0
    while not done():
        require(
            time.monotonic() - begun < 180,
            "jobs handled: %d of %d; dead letters %s",
            len({line["n"] for line in stack.records() if line["kind"] == "job"}),
            count,
            [(each.message, each.reason) for each in layer.dead_letters()],
        )
        await asyncio.sleep(3)
        if kills < (4 if options.quick else 12):
            os.kill(random.choice(supervisor.children() or [supervisor.pid]), signal.SIGKILL)
            kills += 1
    await asyncio.sleep(LEASE + 1)
    letters = layer.dead_letters()
    lines = stack.records()
    handled = Counter(line["n"] for line in lines if line["kind"] == "job")
    unmarked = [
        line
        for line in lines
        if line["kind"] == "job" and handled[line["n"]] > 1 and not line["redelivered"]
    ]
    poisoned = sum(line["kind"] == "poison" for line in lines)
    twice = sum(number > 1 for number in handled.values())
    measured = (
        "%d kills: %d of %d jobs handled, %d twice (marked); poison taken %d times, dead letters: %s"
        % (
            kills,
            len(handled),
            count,
            twice,
            poisoned,
            [(each.message["n"], each.reason) for each in letters],
        )
    )
    require([each.message["n"] for each in letters] == [count], measured)
    require(poisoned == 3, measured)
    require(len({line["n"] for line in unmarked}) == len(unmarked), measured)
    return measured


@row("gateway", "SIGKILL of a gateway", backends=("redis", "postgresql"))
async def gateway_killed(stack, options):
    count = 50
    gateways = both(stack)
    worker = stack.worker(threads=8)
    sockets = []
    for index in range(2 * count):
        port = gateways[index % 2].port
        sockets.append(await Socket(port, "/room/hall?id=%d" % index).open())
    members = await in_thread(stack.layer.group_channels, "room-hall")
    require(len(members) == 2 * count, "%d members before", len(members))
    doomed, other = gateways if random.random() < 0.5 else gateways[::-1]
    reader, writer = await asyncio.open_connection("127.0.0.1", doomed.port)
    for name in ("slow",):
        writer.write(
            b"GET /stream?mb=64&ms=20&name=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % name.encode()
        )
    await reader.readexactly(1000)
    await asyncio.sleep(0.5)
    begun = time.monotonic()
    doomed.kill()

    def gone():
        return {
            line["id"]
            for line in stack.records()
            if line["kind"] == "disconnect" and line["code"] == 1006
        }

    expected = {str(index) for index in range(2 * count) if gateways[index % 2] is doomed}
    try:
        await until(lambda: gone() >= expected, LEASE + 2, "disconnects")
    except Failure:
        raise Failure(
            "%d of %d disconnects within lease + 2 s" % (len(gone() & expected), count)
        ) from None
    seconds = time.monotonic() - begun
    require(gone() == expected, "disconnects of sockets that live: %s", gone() - expected)
    members = await in_thread(stack.layer.group_channels, "room-hall")
    require(len(members) == count, "%d members after, %d expected", len(members), count)

    def stream_ended():
        return any(line["kind"] == "stream-end" for line in stack.records())

    ended = await until(stream_ended, 20, "the view whose client was there to end its stream")
    speaker = next(each for each in sockets if each.code is None)
    speaker.send(b"still here")
    living = [each for each in sockets if each.port == other.port]
    await until(lambda: all(each.received for each in living), 5, "the room's message")
    status, _, _ = await fetch(other.port, "/work?n=1")
    require(status == 200 and worker.alive, "HTTP %d afterwards", status)
    for each in living:
        each.close()
    return (
        "%s killed: %d disconnects (1006) after %.1f s (lease + 2 = %g), %d of %d members left, "
        "the stream's view ended after %.1f s, the others go on"
        % (doomed.name, count, seconds, LEASE + 2, len(members), 2 * count, seconds + ended)
    )


async def outage(stack, options, fault, may_close=(), loses=False):
    """`fault(seconds)` takes the server away for so long; whether it then `loses` what it holds."""
    may_close = set(may_close)
    gateways = both(stack)
    worker, supervisor = stack.worker(), stack.worker("--processes", "2")
    traffic = Traffic(ports(gateways), sockets=40)
    await traffic.start()
    await asyncio.sleep(1)
    seconds = 4 if options.quick else 10
    before = set(supervisor.children())
    await fault(seconds)
    back = time.monotonic()
    first = await until(lambda: traffic.last_echo > back, 5, "traffic to resume")

    # Every socket that is open, or came back, echoes again.
    def all_flow():
        flows = traffic.open_flows()
        return len(flows) == traffic.sockets and all(
            flow.echoed and flow.sent - flow.echoed < 4 for flow in flows
        )

    try:
        everyone = await until(all_flow, 10, "all sockets")
    except Failure:
        flows = traffic.open_flows()
        stuck = sum(flow.sent - flow.echoed >= 4 for flow in flows)
        everyone = None
    await asyncio.sleep(1)
    found = await settle(stack, traffic)
    stack.require_alive(gateways + [worker, supervisor])
    codes, statuses = traffic.codes(), traffic.statuses()
    measured = (
        "away for %d s: first echo after %.1f s, all sockets after %s; closed with %s; HTTP %s; "
        "%d frames, lost %d, unanswered %d, twice %d, marked %d, out of order %d, no disconnect %d; "
        "refused %s"
    ) % (
        seconds,
        first,
        "%.1f s" % everyone
        if everyone is not None
        else "never (%d open, %d stuck)" % (len(flows), stuck),
        codes or "none",
        statuses,
        found["frames"],
        found["lost"],
        found["unanswered"],
        found["twice"],
        found["marked"],
        found["disorder"],
        found["no_disconnect"],
        dict(Counter(traffic.refused)),
    )
    require(everyone is not None and everyone < 5, measured)
    require(set(supervisor.children()) == before, "workers were replaced; " + measured)
    require(set(codes) <= may_close, measured)
    require(set(statuses) <= {200, 502, 503}, measured)
    require(not found["no_disconnect"] or loses, measured)
    require(
        not (found["lost"] or found["unanswered"] or found["twice"] or found["disorder"]), measured
    )
    return measured


@row(
    "stopped",
    "the server stopped, and started again with its data",
    backends=("redis", "postgresql"),
)
async def stopped(stack, options):
    # What a Redis kept when it was stopped, nobody can tell: its sockets begin anew.
    may_close = {1012} if stack.server.kind == "Redis" else ()

    async def fault(seconds):
        await in_thread(stack.server.stop, True)
        await asyncio.sleep(seconds)
        await in_thread(stack.server.start)

    return await outage(stack, options, fault, may_close=may_close)


@row("frozen", "the server SIGSTOPped", backends=("redis", "postgresql"))
async def frozen(stack, options):
    async def fault(seconds):
        stack.server.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        stack.server.signal(signal.SIGCONT)

    return await outage(stack, options, fault)


@row(
    "emptied",
    "the server killed, and restarted empty",
    backends=("redis", "postgresql"),
    quick=("redis", "postgresql"),
)
async def emptied(stack, options):
    async def fault(seconds):
        await in_thread(stack.server.stop, False)
        await asyncio.sleep(seconds)
        await in_thread(stack.server.start)

    return await outage(stack, options, fault, may_close={1012}, loses=True)


@row("slow", "clients of a room that never read", backends=("redis", "memory"), **PATIENT)
async def slow(stack, options):
    total, mute = (250, 50) if options.quick else (1000, 200)
    size, rate = (24576, 15) if options.quick else (8192, 10)
    gateway = stack.gateway(send_buffer=65536)
    if stack.server.kind != "in memory":
        stack.worker()
    latencies = []

    def hear(payload):
        latencies.append(time.monotonic() - float(payload[:20]))

    sockets = []
    for index in range(total):
        sockets.append(
            await Socket(gateway.port, "/room/hall?id=%d" % index, hear).open(receive_buffer=65536)
        )
    filler = b"x" * (size - 20)

    async def speak(seconds):
        del latencies[:]
        sent, begun = 0, time.monotonic()
        while time.monotonic() < begun + seconds:
            sockets[0].send(b"%020.6f" % time.monotonic() + filler)
            sent += 1
            await asyncio.sleep(max(0, begun + sent / rate - time.monotonic()))
        return sent

    await speak(2)
    for each in sockets:
        each.received = 0
    sent = await speak(5 if options.quick else 10)
    await until(lambda: all(each.received >= sent for each in sockets), 10, "the room's messages")
    without = percentile(latencies, 0.99)
    muted = random.sample(sockets[1:], mute)
    readers = [each for each in sockets if each not in set(muted)]
    for each in muted:
        each.transport.pause_reading()
    for each in sockets:
        each.received = 0
    reset_peak(gateway.pid)
    before = memory(gateway.pid)
    # A slow client is closed once 4 MB, or 1,000 messages, wait for it.
    seconds = 4.75 * MB / (size * rate) + 2
    sent = await speak(seconds)
    with_mute = percentile(latencies, 0.99)
    await until(lambda: all(each.received >= sent for each in readers), 10, "the room's messages")
    peak = memory(gateway.pid, "VmHWM") - before
    for each in muted:
        each.transport.resume_reading()
    await until(lambda: all(each.code is not None for each in muted), 20, "the slow to be closed")
    codes = Counter(each.code for each in muted)
    require(all(each.code is None for each in readers), "a reader was closed")
    for each in readers:
        each.received = 0
    told = await speak(seconds / 2)
    await until(lambda: all(each.received >= told for each in readers), 10, "the room's messages")
    after = percentile(latencies, 0.99)
    measured = (
        "%d of %d never read %d KB x %d/s for %.0f s: the others got all %d messages, p99 %.0f ms "
        "(%.0f ms before, %.0f ms after); slow ones closed with %s; gateway + %.1f MB (%.2f MB each)"
        % (
            mute, total, size // 1024, rate, seconds, sent, with_mute, without, after,
            dict(codes), peak / MB, peak / MB / mute,
        )
    )  # fmt: skip
    without = max(without, after)
    # 1006: closed with 1013, which did not get through what the client has not read.
    require(set(codes) <= {1013, 1006}, measured)
    told = [line for line in stack.records() if line["kind"] == "disconnect"]
    require(len(told) == mute and {line["code"] for line in told} == {1013}, "told %s", told[:5])
    # Below 100 ms, what else the machine does is what one measures.
    require(with_mute < max(2 * without, 100), measured)
    require(peak < mute * 5 * MB, measured)
    for each in readers:
        each.close()
    return measured


async def read_in_bursts(port, path, burst, pause):
    """Bytes of a response's body, read `burst` at a time with `pause` seconds between."""
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
    backends=("redis", "memory"),
    seconds=300,
    **PATIENT,
)
async def streams(stack, options):
    megabytes, burst, pause = (160, 64, 2) if options.quick else (1024, 256, 5)
    gateway = stack.gateway()
    await fetch(gateway.port, "/work?n=1") if stack.server.kind == "in memory" else None
    worker = gateway if stack.server.kind == "in memory" else stack.worker()
    await fetch(gateway.port, "/work?n=1")
    lines = []
    for what in ("download", "upload"):
        before = {each: memory(each.pid) for each in (gateway, worker)}
        for each in before:
            reset_peak(each.pid)
        begun = time.monotonic()
        if what == "download":
            got = await read_in_bursts(
                gateway.port, "/stream?mb=%d&name=all" % megabytes, burst * MB, pause
            )
            require(got >= megabytes * MB, "%d bytes came", got)
        else:
            path = "/upload?burst=%d&pause=%g" % (burst, pause)
            answer = await upload(gateway.port, path, megabytes * MB)
            require(
                answer.endswith(b"%d" % (megabytes * MB)),
                "the upload was answered %r",
                answer[-200:],
            )
        grown = {each.name: (memory(each.pid, "VmHWM") - before[each]) / MB for each in before}
        lines.append(
            "%d MB %s in %.0f s: %s"
            % (
                megabytes,
                what,
                time.monotonic() - begun,
                ", ".join("%s + %.0f MB" % pair for pair in grown.items()),
            )
        )
        require(max(grown.values()) < 64, "%s", lines[-1])
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /stream?mb=1024&name=left HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readexactly(1000000)
    writer.transport.abort()

    def ended():
        return any(
            line["kind"] == "stream-end" and line["name"] == "left" for line in stack.records()
        )

    seconds = await until(ended, 10, "the iterator to be closed after its client went away")
    lines.append("a client that goes away: the iterator is closed after %.2f s" % seconds)
    return "\n".join(lines)


@row("idle", "idle sockets, then a broadcast", backends=("redis", "memory"), seconds=300, **PATIENT)
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
    gateway = stack.gateway()
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


@row("blocked", "consumers that block in 3 of 4 threads", backends=("redis", "memory"), **PATIENT)
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
    measured = require_untouched(traffic, await settle(stack, traffic))
    require(during < 1000, "p99 %.0f ms while 3 of 4 threads were blocked", during)
    for each in sleepers:
        each.close()
    return (
        "%d s: %d echoes meanwhile, p99 %.0f ms (%.0f ms before); the blocked answered after %.1f s; %s"
        % (seconds, count, during, before, took, measured)
    )


@row(
    "full",
    "a shared channel that is full",
    channel_capacity={"http.request": 50, "websocket.connect": 20, "job": 10},
)
async def full(stack, options):
    gateways = both(stack)
    await asyncio.sleep(0.5)
    requests = [
        asyncio.ensure_future(fetch(gateways[n % 2].port, "/work?n=%d" % n)) for n in range(120)
    ]
    handshakes = [Socket(gateways[n % 2].port, "/echo?id=%d" % n) for n in range(50)]
    opening = [asyncio.ensure_future(each.open(60)) for each in handshakes]
    for task in opening:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
    begun = time.monotonic()
    await until(lambda: sum(task.done() for task in requests) >= 70, 20, "answers of 503")
    await until(
        lambda: sum(each.code is not None for each in handshakes) >= 30, 20, "closes of 1013"
    )
    turned_away = time.monotonic() - begun
    early = [task.result() for task in requests if task.done()]
    require(
        len(early) == 70
        and all(status == 503 and headers.get("retry-after") for status, headers, _ in early),
        "the first answers: %s",
        Counter((status, headers.get("retry-after")) for status, headers, _ in early),
    )
    codes = Counter(each.code for each in handshakes if each.code is not None)
    require(codes == {1013: 30}, "closes: %s", codes)
    layer, refused = stack.layer, 0
    for n in range(15):
        try:
            layer.send("job", {"n": n})
        except layer.ChannelFull:
            refused += 1
    require(refused == 5, "ChannelFull was raised %d times, 5 expected", refused)
    require(layer.statistics().get("full") == 5, "counted %s", layer.statistics())
    logged = [len([line for line in g.output.splitlines() if "full" in line]) for g in gateways]
    stack.worker()
    late = [await task for task in requests]
    statuses = Counter(status for status, _, _ in late)
    require(statuses == {200: 50, 503: 70}, "answers %s", statuses)
    await until(
        lambda: sum(t.done() and not t.exception() for t in opening) == 50,
        20,
        "the other handshakes",
    )
    global_full = layer.global_statistics()["channel_full_count"]
    measured = (
        "capacity 50: 120 requests: %s with Retry-After; capacity 20: 50 handshakes: %s; turned away after "
        "%.1f s; ChannelFull 5 of 15; counted %d; log lines %s"
        % (dict(statuses), dict(codes), turned_away, global_full, logged)
    )
    require(all(0 < number <= turned_away + 2 for number in logged), measured)
    for each in handshakes:
        each.close()
    return measured


@row("daphne", "under Daphne too: a client that reads nothing of a stream", **PATIENT)
async def daphne(stack, options):
    gateway = stack.gateway("daphne")
    stack.worker()
    await fetch(gateway.port, "/work?n=1")
    before = memory(gateway.pid)
    reset_peak(gateway.pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=65536)
    writer.write(b"GET /stream?mb=1024&name=slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readexactly(1000)
    seconds = 4 if options.quick else 15
    await asyncio.sleep(seconds)
    grown = (memory(gateway.pid, "VmHWM") - before) / MB

    def ended():
        return any(line["kind"] == "stream-end" for line in stack.records())

    require(not ended(), "the view wrote all of it: Daphne + %.0f MB", grown)
    writer.transport.abort()
    left = await until(ended, 10, "the iterator to be closed after its client went away")
    measured = (
        "1 GB, read by nobody for %d s: Daphne + %.0f MB; closed %.2f s after the client left"
        % (
            seconds,
            grown,
            left,
        )
    )
    require(grown < 64, measured)
    return measured


__all__ = ["LEASE", "ROWS", "wait_for"]
