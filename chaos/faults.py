"""Rows in which a worker, a gateway or the layer's server dies, goes away or is started again."""

import asyncio
import os
import random
import signal
import time
from collections import Counter

from load import Refused, Socket, Traffic, fetch
from stack import LEASE, Failure, require
from table import in_thread, ports, require_untouched, row, start_both, stop_and_audit, until


@row(
    "rolling",
    "rolling restart of all workers, one by one",
    backends=("redis", "postgresql"),
    seconds=300,
)
async def rolling(stack, options):
    gateways = start_both(stack)
    workers = [stack.worker() for _ in range(3)]
    traffic = Traffic(ports(gateways))
    await traffic.start()
    slowest, rounds = 0.0, 2 if options.quick else 10
    for _ in range(rounds):
        for index, worker in enumerate(workers):
            worker.signal(signal.SIGTERM)
            slowest = max(slowest, await in_thread(worker.seconds_until_end, 12))
            require(worker.popen.returncode == 0, "a worker left with %s", worker.popen.returncode)
            workers[index] = await in_thread(stack.worker)
    measured = require_untouched(traffic, await stop_and_audit(stack, traffic))
    return "%d times 3 workers: %s; slowest leave %.1f s" % (rounds, measured, slowest)


@row(
    "reload",
    "SIGHUP to `runworker --processes 3`: new code",
    backends=("redis", "postgresql"),
)
async def reload(stack, options):
    gateways = start_both(stack)
    supervisor = stack.worker("--processes", "3")
    traffic = Traffic(ports(gateways))
    await traffic.start()
    times, rounds = [], 1 if options.quick else 4
    for version in range(2, 2 + rounds):
        # A busy machine takes seconds to start the first processes.
        await until(lambda old=version - 1: old in traffic.versions, 30, "answers of the old code")
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
    measured = require_untouched(traffic, await stop_and_audit(stack, traffic))
    return "%d times, all 3 renewed in %.1f s at most: %s" % (rounds, max(times), measured)


@row(
    "killed",
    "SIGKILL of a random worker every 3 s",
    backends=("redis", "postgresql"),
    quick=("redis", "postgresql"),
)
async def killed(stack, options):
    gateways = start_both(stack)
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
    found = await stop_and_audit(stack, traffic)
    stack.require_alive(gateways + [supervisor])
    statuses, codes = traffic.statuses(), traffic.codes()
    worst = max(seconds for _, seconds, _, _ in traffic.answers)
    done = Counter(line["n"] for line in stack.records() if line["kind"] == "request")
    found["twice"] += sum(number > 1 for number in done.values())
    measured = (
        "%d kills: HTTP %s, slowest answer %.1f s (lease + 2 = %g); %d frames, closed with %s, "
        "handshakes refused %s; "
        "lost %d, unanswered %d, twice %d, out of order %d, marked %d, no disconnect %d"
    ) % (
        kills,
        statuses,
        worst,
        LEASE + 2,
        found["frames"],
        codes,
        traffic.refused,
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
    # A socket whose connect was lost is closed before it was open.
    require(set(traffic.refused) <= {403}, measured)
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
    count, milliseconds, most = (1500, 20, 4) if options.quick else (12000, 50, 20)
    layer = stack.layer

    def send(first, last):
        for n in range(first, last):
            layer.send("job", {"n": n, "ms": milliseconds})

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
        # Every 3 s, but not as steadily as leases of 3 s run out: what comes back would be hit by the next.
        await asyncio.sleep(random.uniform(2, 4))
        if kills < most:
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
        "%d kills: %d of %d jobs handled, %d marked redelivered, %d twice; poison taken %d times, "
        "dead letters: %s"
        % (
            kills,
            len(handled),
            count,
            sum(line["kind"] == "job" and line["redelivered"] for line in lines),
            twice,
            poisoned,
            [(each.message["n"], each.reason) for each in letters],
        )
    )
    require([each.message["n"] for each in letters] == [count], measured)
    # Fewer times where a random SIGKILL came before it did its own work.
    require(1 <= poisoned <= 3, measured)
    require(len({line["n"] for line in unmarked}) == len(unmarked), measured)
    return measured


#: Seconds for which an event waits for a worker in the row `expired`; by default 60, and of a socket a day.
EXPIRY = 3


@row(
    "expired",
    "every worker killed, and no new one for longer than the expiry",
    backends=("redis", "postgresql"),
    quick=("redis", "postgresql"),
    channel_expiry=dict.fromkeys(
        ("http.request", "websocket.connect", "websocket.receive"), EXPIRY
    ),
)
async def expired(stack, options):
    gateways = start_both(stack)
    worker = stack.worker()
    answers, handshakes, sockets = [], [], []

    async def ask(number, path="/work?n=%d"):
        begun = time.monotonic()
        status, _, _ = await fetch(gateways[number % 2].port, path % number)
        answers.append((status, time.monotonic() - begun))

    async def knock(number):
        begun = time.monotonic()
        try:
            await Socket(gateways[number % 2].port, "/echo?id=late%d" % number).open()
            status = 101
        except Refused as error:
            status = error.status
        handshakes.append((status, time.monotonic() - begun))

    for number in range(20):
        socket = Socket(gateways[number % 2].port, "/echo?id=%d" % number)
        sockets.append(await socket.open())
    held = [asyncio.ensure_future(ask(number, "/hold?n=%d")) for number in range(4)]

    def recorded(kind):
        return {line.get("id", line["at"]) for line in stack.records() if line["kind"] == kind}

    await until(lambda: len(recorded("hold")) == 4, 10, "requests that keep all threads")
    worker.kill()
    begun = time.monotonic()
    for each in sockets:
        each.send(b'{"n": 1}')
    waiting = held + [asyncio.ensure_future(ask(number)) for number in range(20)]
    waiting += [asyncio.ensure_future(knock(number)) for number in range(10)]
    await asyncio.wait(waiting, timeout=EXPIRY + 10)
    closes = [each.closed for each in sockets]
    await asyncio.wait(closes, timeout=max(0.1, begun + EXPIRY + 10 - time.monotonic()))
    closed = time.monotonic() - begun
    codes = Counter(each.code for each in sockets)
    statuses = Counter(status for status, _ in answers)
    refused = Counter(status for status, _ in handshakes)
    slowest = max([seconds for _, seconds in answers + handshakes] + [0.0])
    for each in waiting:
        each.cancel()
    measured = (
        "events wait %g s for a worker: HTTP %s, handshakes refused with %s, the slowest after %.1f s; "
        "sockets closed with %s after %.1f s"
    ) % (EXPIRY, dict(statuses), dict(refused), slowest, dict(codes), closed)
    require(statuses == {502: 24}, measured)
    # 0: Daphne cuts a handshake off by itself after 5 s.
    require(sum(refused.values()) == 10 and set(refused) <= {403, 0}, measured)
    require(codes == {1011: 20}, measured)
    require(max(slowest, closed) < max(EXPIRY, LEASE) + 3, measured)
    await in_thread(stack.worker)
    everyone = {str(number) for number in range(20)}
    later = await until(
        lambda: everyone <= recorded("disconnect"), 5, "the disconnects, from a new worker"
    )
    status, _, _ = await fetch(gateways[0].port, "/work?n=1")
    require(status == 200, "HTTP %d from the new worker", status)
    return measured + "; a new worker has all disconnects after %.1f s" % later


@row("gateway", "SIGKILL of a gateway", backends=("redis", "postgresql"))
async def gateway_killed(stack, options):
    count = 50
    gateways = start_both(stack)
    worker = stack.worker(threads=8)
    sockets = []
    for index in range(2 * count):
        port = gateways[index % 2].port
        sockets.append(await Socket(port, "/room/hall?id=%d" % index).open())
    members = await in_thread(stack.layer.group_channels, "room-hall")
    require(len(members) == 2 * count, "%d members before", len(members))
    doomed, other = gateways if random.random() < 0.5 else gateways[::-1]
    reader, writer = await asyncio.open_connection("127.0.0.1", doomed.port)
    writer.write(b"GET /stream?mb=64&ms=20&name=slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
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
    """Measure an outage: `fault(seconds)` takes the server away, which then `loses` its data or not."""
    may_close = set(may_close)
    gateways = start_both(stack)
    worker, supervisor = stack.worker(), stack.worker("--processes", "2")
    traffic = Traffic(ports(gateways), sockets=40)
    await traffic.start()
    await asyncio.sleep(1)
    seconds = 4 if options.quick else 10
    before = set(supervisor.children())
    await fault(seconds)
    back = time.monotonic()
    first = await until(lambda: traffic.last_echo > back, 5, "traffic to resume")

    # Every socket that is open, or came back, echoes again. Whether other frames wait says nothing: a
    # machine that is slower than the load always has some waiting.
    def silent():
        return [flow for flow in traffic.open_flows() if flow.echoed_at < back]

    def all_echo():
        return len(traffic.open_flows()) == traffic.sockets and not silent()

    try:
        everyone = await until(all_echo, 10, "all sockets")
    except Failure:
        everyone, missing = None, (len(traffic.open_flows()), len(silent()))
    await asyncio.sleep(1)
    found = await stop_and_audit(stack, traffic)
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
        else "never (%d open, %d of them silent)" % missing,
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
    require(not found["disorder"], "%s; %s", measured, found["gaps"][:5])
    require(not (found["lost"] or found["unanswered"] or found["twice"]), measured)
    return measured


@row(
    "stopped",
    "the server stopped, and started again with its data",
    backends=("redis", "postgresql"),
)
async def stopped(stack, options):
    # What Redis kept when it was stopped cannot be known, so its sockets begin anew.
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


async def under(stack, options, fault, seconds, bound=30):
    """
    Have sockets and requests in flight while `fault(seconds)` runs. 30 s after it ends, nothing may be
    without an answer, lost, twice without a mark, or out of order. Each request is answered within `bound`
    seconds. Return what was measured.
    """
    gateways = start_both(stack)
    workers = [stack.worker() for _ in range(2)]
    traffic = Traffic(ports(gateways), sockets=40)
    await traffic.start()
    begun = time.monotonic()
    await fault(seconds)
    ended = time.monotonic()
    await until(lambda: traffic.last_echo > ended, 30, "an answer after the fault")
    resumed = traffic.last_echo - ended
    traffic.request_timeout = 30.0
    await asyncio.sleep(2)
    found = await stop_and_audit(stack, traffic, drain=30 - resumed)
    stack.require_alive(gateways + workers)
    slowest = max(
        [seconds for at, seconds, _, _ in traffic.answers if at < ended and at + seconds > begun]
    )
    measured = "resumed %.1f s after, slowest answer %.1f s; HTTP %s, closed %s, refused %s; %s" % (
        resumed,
        slowest,
        traffic.statuses(),
        traffic.codes(),
        Counter(traffic.refused),
        found,
    )
    require(set(traffic.statuses()) <= {200, 502, 503}, measured)
    require(set(traffic.codes()) <= {1011, 1012, 1013}, measured)
    bad = ("lost", "unanswered", "twice", "disorder", "no_disconnect", "two_disconnects")
    require(not any(found[each] for each in bad), measured)
    require(slowest < bound, measured)
    return measured


@row("cut", "a proxy that cuts all connections ten times a second", topology="proxied", quick=())
async def cut(stack, options):
    async def fault(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stack.server.proxy.cut()
            await asyncio.sleep(0.1)

    return await under(stack, options, fault, 6)


@row(
    "severed",
    "a proxy that cuts all connections once a second",
    backends=("postgresql", "mariadb"),
    topology="proxied",
    quick=(),
)
async def severed(stack, options):
    async def fault(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stack.server.proxy.cut()
            await asyncio.sleep(1)

    return await under(stack, options, fault, 10)


@row("evicted", "`KILL` of all connections in a loop", backends=("mariadb",), quick=())
async def evicted(stack, options):
    async def fault(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await in_thread(stack.server.kill_connections)
            await asyncio.sleep(0.5)

    return await under(stack, options, fault, 6)


@row("kicked", "`CLIENT KILL TYPE normal` in a loop", quick=())
async def kicked(stack, options):
    async def fault(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stack.server.server.ask("CLIENT KILL TYPE normal SKIPME yes")
            await asyncio.sleep(0.05)

    return await under(stack, options, fault, 6)


@row(
    "stalled",
    "a proxy that lets nothing pass for 20 s, and closes nothing",
    backends=("redis", "postgresql", "mariadb"),
    topology="proxied",
    quick=(),
)
async def stalled(stack, options):
    return await stall(stack, options, 20)


#: Seconds in which a silent layer is noticed and requests are answered: 8 by design, and a busy machine.
SILENT = 9


async def stall(stack, options, seconds, **directions):
    """Let a proxy pass nothing in these directions (default: both) for so many seconds."""

    async def fault(seconds):
        stack.server.proxy.stall(**directions)
        await asyncio.sleep(seconds)
        stack.server.proxy.resume()

    return await under(stack, options, fault, seconds, SILENT)


@row("silent", "the same for 90 s", topology="proxied", quick=())
async def silent(stack, options):
    return await stall(stack, options, 90)


@row(
    "unheard",
    "a proxy that lets no reply pass for 20 s",
    backends=("redis", "postgresql", "mariadb"),
    topology="proxied",
    quick=(),
)
async def unheard(stack, options):
    return await stall(stack, options, 20, requests=False)


@row(
    "partition",
    "gateways cut off from the layer for longer than their leases, and back",
    backends=("redis", "postgresql", "mariadb"),
    topology="partitioned",
    quick=(),
)
async def partition(stack, options):
    async def fault(seconds):
        stack.server.proxy.stall()
        await asyncio.sleep(seconds)
        stack.server.proxy.resume()

    # Longer than a database keeps the locks of a transaction that was cut off, 10 s.
    return await under(stack, options, fault, 5 * LEASE)


@row(
    "promoted", "a frozen primary, and Sentinel promotes the replica", topology="sentinel", quick=()
)
async def promoted(stack, options):
    async def fault(seconds):
        stack.server.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        stack.server.signal(signal.SIGCONT)

    return await under(stack, options, fault, 20)


#: Seconds by which a replica is behind when it takes over.
BEHIND = 0.3


@row(
    "promoted-late",
    "the primary killed, and Sentinel promotes a replica that is 0.3 s behind",
    topology="sentinel",
    quick=(),
)
async def promoted_late(stack, options):
    return await fail_late(stack, options)


@row(
    "failover-late",
    "the same with a node of a Cluster",
    topology="cluster",
    quick=(),
)
async def failover_late(stack, options):
    return await fail_late(stack, options)


async def fail_late(stack, options):
    """Have replicas get nothing for a while, and kill their primary."""

    async def fault(seconds):
        await in_thread(stack.server.cut_replication)
        await asyncio.sleep(BEHIND)
        stack.server.server.kill()
        await asyncio.sleep(seconds)

    return await under(stack, options, fault, 10)


@row(
    "failover",
    "a node of a Cluster killed, and its replica takes over",
    topology="cluster",
    quick=(),
)
async def failover(stack, options):
    async def fault(seconds):
        stack.server.server.kill()
        await asyncio.sleep(seconds)

    return await under(stack, options, fault, 10)
