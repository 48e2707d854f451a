"""Rows of the table about asynchronous consumers that wait, many in one worker process."""

import json
import os
import signal
import time
from collections import Counter

from load import Socket
from stack import require
from table import row, until

#: Sockets, and jobs, whose consumers wait when the worker ends.
SOCKETS, JOBS = 450, 50

#: How many asynchronous consumers a worker may run.
PLACES = "600"

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
