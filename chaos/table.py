"""
The table: how a row is made, and the steps that rows share. A row is a coroutine that raises Failure or
returns what it measured, as text. faults.py and bounds.py hold the rows.
"""

import asyncio
import time
from collections import namedtuple

from load import audit
from stack import Failure, require

Row = namedtuple("Row", "name title function backends seconds quick config")
ROWS = []

#: The backends of the rows about clients that could stop a site; the servers in front of each.
ALL = ("redis", "postgresql", "mariadb", "sqlite", "memory")
SERVERS = ("uvicorn", "daphne")

#: For rows in which no process dies: the layer's own timing, which a busy machine keeps up with.
PATIENT = {"heartbeat": 5.0, "lease": 15.0}


def row(name, title, backends=("redis",), seconds=240, quick=("redis",), **config):
    """
    Register the decorated coroutine as a row of the table.

    It runs on `backends`, and with --quick on those of `quick`. `config` is the layer's configuration. A row
    that takes longer than `seconds` has failed.
    """

    def register(function):
        ROWS.append(Row(name, title, function, backends, seconds, quick, config))
        return function

    return register


def is_small(stack, options):
    """Return whether a row with many clients runs smaller: in CI, and where the full one takes long."""
    return options.quick or stack.server.kind in ("MariaDB", "SQLite")


def servers(options, quick=SERVERS):
    """Return the names of the servers that a row runs one after the other: with --quick, those in `quick`."""
    if options.server:
        return (options.server,)
    return quick if options.quick else SERVERS


async def in_thread(function, *args):
    return await asyncio.get_event_loop().run_in_executor(None, lambda: function(*args))


async def until(condition, seconds, what):
    """Wait until `condition()` is true; return the seconds it took. Failure after `seconds`."""
    begun = time.monotonic()
    while not condition():
        require(
            time.monotonic() - begun < seconds,
            "waited %g s for %s, and it did not happen",
            seconds,
            what,
        )
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


def start_both(stack, **options):
    """Start a gateway under uvicorn and one under Daphne; return both. `options` are for `stack.gateway`."""
    gateways = [stack.gateway(each, wait=False, **options) for each in ("uvicorn", "daphne")]
    for gateway in gateways:
        stack.await_gateway(gateway)
    return gateways


def ports(gateways):
    return [gateway.port for gateway in gateways]


def require_untouched(traffic, found):
    """Require that no client noticed anything; return what was measured."""
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


async def stop_and_audit(stack, traffic, drain=15.0):
    """
    Stop the load, wait for the last disconnects, and return what the audit found. `drain`: seconds that the
    last answers may take.
    """
    await traffic.stop(drain)
    connected = {flow.id for flow in traffic.flows}

    def all_gone():
        return connected <= {line["id"] for line in stack.records() if line["kind"] == "disconnect"}

    try:
        await until(all_gone, 10, "disconnects")
    except Failure:
        pass  # the audit says how many
    return audit(traffic, stack.records())
