"""Rows of the table about asynchronous consumers that wait, many in one worker process."""

import asyncio
import json
import os
import signal
import time
from collections import Counter

from load import Socket, fetch
from stack import require
from table import ALL, PATIENT, row, servers, until

#: Sockets, and jobs, whose consumers wait when the worker ends.
SOCKETS, JOBS = 450, 50

#: How many asynchronous consumers a worker may run. One address may have half of them.
PLACES = "1200"

#: A lease that survives the start of a worker on a busy machine.
LEASES = {"heartbeat": 1.0, "lease": 8.0}


def frame(number, milliseconds):
    return json.dumps({"n": number, "ms": milliseconds}).encode()


async def occupy(stack, gateway, milliseconds):
    """Have a consumer wait for each socket, and for each job. Return the sockets."""
    sockets = []
    for number in range(SOCKETS):
        sockets.append(await Socket(gateway.port, "/think?id=%d" % number).open())
    for number, each in enumerate(sockets):
        each.send(frame(number, milliseconds))
    for number in range(JOBS):
        stack.layer.send("waiting-job", {"n": number})

    def all_wait():
        kinds = Counter(line["kind"] for line in stack.records())
        return kinds["think"] == SOCKETS and kinds["begun"] == JOBS

    await until(all_wait, 60, "all consumers to wait")
    return sockets


def jobs_done(stack):
    return Counter(line["n"] for line in stack.records() if line["kind"] == "job")


async def require_each_once(stack, sockets, begun):
    """Require that each socket was closed and each job handled again, once. Return what was measured."""
    await until(lambda: all(each.code for each in sockets), 60, "all sockets to be closed")
    closed = time.monotonic() - begun
    await until(lambda: len(jobs_done(stack)) == JOBS, 120, "all jobs to be handled")
    handled = time.monotonic() - begun

    def ends():
        lines = stack.records()
        return Counter(line["id"] for line in lines if line["kind"] == "disconnect")

    await until(lambda: len(ends()) == SOCKETS, 60, "all disconnects")
    lines = stack.records()
    thoughts = Counter(line["id"] for line in lines if line["kind"] == "think")
    again = Counter(line["n"] for line in lines if line["kind"] == "begun" and line["redelivered"])
    codes = Counter(each.code for each in sockets)
    measured = (
        "%d sockets closed with %s after %.1f s, %d frames and %d disconnects handled twice; %d jobs "
        "redelivered after %.1f s, %d twice"
    ) % (
        SOCKETS,
        dict(codes),
        closed,
        sum(number > 1 for number in thoughts.values()),
        sum(number > 1 for number in ends().values()),
        len(again),
        handled,
        sum(number > 1 for number in jobs_done(stack).values()),
    )
    require(set(codes) == {1011}, measured)
    require(set(thoughts.values()) == {1} and set(ends().values()) == {1}, measured)
    require(set(again.values()) == {1} and len(again) == JOBS, measured)
    require(set(jobs_done(stack).values()) == {1}, measured)
    return measured


@row(
    "waiting",
    "a worker killed with 500 asynchronous consumers under way",
    backends=("redis", "postgresql"),
    **LEASES,
    lost={"waiting-job": "retry"},
    channel_capacity={"waiting-job": 1000, "websocket.receive": 1000},
)
async def waiting(stack, options):
    gateway = stack.gateway("uvicorn")
    worker = stack.worker("--async-concurrency", PLACES)
    sockets = await occupy(stack, gateway, 600000)
    stack.worker("--async-concurrency", PLACES)
    os.kill(worker.pid, signal.SIGKILL)
    return await require_each_once(stack, sockets, time.monotonic())


@row(
    "waiting-stopped",
    "SIGTERM to a worker with 500 asynchronous consumers under way",
    backends=("redis", "postgresql"),
    quick=(),
    **LEASES,
    lost={"waiting-job": "retry"},
    channel_capacity={"waiting-job": 1000, "websocket.receive": 1000},
)
async def waiting_stopped(stack, options):
    gateway = stack.gateway("uvicorn")
    worker = stack.worker("--async-concurrency", PLACES, grace=3)
    sockets = await occupy(stack, gateway, 600000)
    stack.worker("--async-concurrency", PLACES)
    os.kill(worker.pid, signal.SIGTERM)
    begun = time.monotonic()
    await until(lambda: not worker.alive, 10, "the worker to end after its grace period")
    require("still running" in worker.output, "it did not say so:\n%s", worker.output[-2000:])
    return await require_each_once(stack, sockets, begun)


#: Long polls of one client at a time, more than a process has places; how long each waits; and how long the
#: others are watched. A client that gets a 503 comes back after a second.
POLLS, POLL_MS, WATCHED = 250, 10000, 25

#: Milliseconds that a request of another client may take. Without turns, they wait for the end of a poll. If
#: all polls connect at once, the kernel may let a connection wait for three seconds.
BESIDE = 5000


async def poll_on(port, answers, deadline):
    """Poll again and again until the time `deadline` (monotonic), as one of the greedy client's."""
    while time.monotonic() < deadline:
        status = (await fetch(port, "/poll?ms=%d" % POLL_MS, timeout=120))[0]
        answers[status] += 1
        if status != 200:
            await asyncio.sleep(1)


async def watch_beside(port, seconds):
    """Return how many milliseconds each request took that another address made in `seconds`."""
    took, deadline = {"asynchronous": [], "synchronous": []}, time.monotonic() + seconds

    async def ask(kind, path):
        while time.monotonic() < deadline:
            begun = time.monotonic()
            status = (await fetch(port, path, timeout=120, address="127.0.0.2"))[0]
            require(status == 200, "another client got the status %d", status)
            took[kind].append(1000 * (time.monotonic() - begun))
            await asyncio.sleep(0.1)

    await asyncio.gather(ask("asynchronous", "/poll"), ask("synchronous", "/work?n=1"))
    return took


def polls_begun(stack):
    kinds = Counter(line["kind"] for line in stack.records())
    return kinds["poll"] - kinds["poll-end"]


async def beside_polls(stack, program):
    """Watch another client next to one with POLLS long polls. Return what was measured."""
    gateway = stack.gateway(program)
    worker = stack.worker() if stack.server.kind != "in memory" else None
    await watch_beside(gateway.port, 1)
    answers, before = Counter(), polls_begun(stack)
    end = time.monotonic() + WATCHED
    polls = [asyncio.ensure_future(poll_on(gateway.port, answers, end)) for _ in range(POLLS)]
    watching = asyncio.ensure_future(watch_beside(gateway.port, WATCHED))
    await asyncio.sleep(0.8 * POLL_MS / 1000)
    running = polls_begun(stack) - before
    took = await watching
    for each in polls:
        each.cancel()
    await asyncio.wait(polls)
    for each in (gateway, worker):
        if each is not None:
            each.kill()
    measured = "%s: %d of %d polls ran (%s); other requests took at most %s ms" % (
        program,
        running,
        POLLS,
        dict(answers),
        ", ".join("%.0f (%d %s)" % (max(each), len(each), kind) for kind, each in took.items()),
    )
    require(max(map(max, took.values())) < BESIDE, "%s", measured)
    require(running >= 90, "%s", measured)
    return measured


@row(
    "polls",
    "a client with 250 long polls of asynchronous views, and another one",
    backends=ALL,
    quick=("memory",),
    **PATIENT,
)
async def polls(stack, options):
    programs = servers(options, quick=("uvicorn",))
    return "\n".join([await beside_polls(stack, each) for each in programs])
