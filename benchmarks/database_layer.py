#!/usr/bin/env python
"""The database layer next to the Redis layer and to the databases' own rate, on one machine in one run.

    python benchmarks/database_layer.py [--databases sqlite,postgresql,mariadb] [--messages 4000]

It starts its own servers on free ports (tests/channels_tests/support), and Redis where
`redis-server` and asgi_redis are installed. For each it prints

* raw: one INSERT and one claiming DELETE after another, by the driver alone, on a table like the
  layer's: what the server can do;
* send + receive: one process sends, another receives, both at once, until all have come;
* send + claim: the same by `claim`, as workers do (each message is held until it is done);
* wake-up: from `send` until a reader in another process, which waits, has the message; the median;
* idle: queries a second that a process makes whose four threads wait (PostgreSQL);
* once: 8 processes claim 20,000 messages: how many were handled, and how many twice.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGETS = {"share": 0.40, "wake": {"postgresql": 0.010, "sqlite": 0.060}, "idle": 2.0}


def set_up():
    """Django with the add-on, and the tests' helpers importable, whatever the current directory is."""
    sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "asgi_redis")]
    import runtests_addon

    sys.meta_path.insert(0, runtests_addon.AliasFinder())
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=[],
            LOGGING_CONFIG=None,
        )
        import django

        django.setup()


# Layers by name; made anew in each process from a plain description.


def make_layer(description, **options):
    options = dict({"capacity": 10**6, "expiry": 600}, **options)
    if description["kind"] == "redis":
        from asgi_redis import RedisChannelLayer

        return RedisChannelLayer(hosts=[description["url"]], **options)
    from channels.layers.database import DatabaseChannelLayer

    from channels_tests.support.aliases import add_alias
    from channels_tests.support.databases import mysql_driver

    if description["kind"] == "mariadb":
        mysql_driver()
    add_alias("bench", description["settings"])
    return DatabaseChannelLayer(database="bench", **options)


class Contender:
    """One database, or Redis: `description` is what `make_layer` takes."""

    def __init__(self, kind):
        self.kind = kind
        self.clean = []
        self.description = getattr(self, "_" + kind)()

    def _sqlite(self):
        folder = tempfile.mkdtemp(prefix="channels-bench-")
        self.clean.append(lambda: shutil.rmtree(folder, ignore_errors=True))
        settings = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(folder, "site.sqlite3"),
        }
        return {"kind": "sqlite", "settings": settings, "folder": folder}

    def _server(self, server_class):
        from channels_tests.support.aliases import make_tables

        self.server = server_class.shared()
        make_tables(self.server)
        return self.server.settings()

    def _postgresql(self):
        from channels_tests.support.databases import PostgreSQL

        return {"kind": "postgresql", "settings": self._server(PostgreSQL)}

    def _mariadb(self):
        from channels_tests.support.databases import MariaDB

        return {"kind": "mariadb", "settings": self._server(MariaDB)}

    def _redis(self):
        import asgi_redis  # noqa: F401
        from channels_tests.support.redis_server import RedisServer

        return {"kind": "redis", "url": RedisServer.shared().url}

    def connect(self):
        """A plain connection of the driver, for the raw rate; the folder's own file on SQLite."""
        if self.kind == "sqlite":
            import sqlite3

            connection = sqlite3.connect(
                os.path.join(self.description["folder"], "raw.sqlite3"), isolation_level=None
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection
        connection = self.server.connect()
        if self.kind == "mariadb":
            connection.autocommit(True)
        else:
            connection.autocommit = True
        return connection

    def close(self):
        for function in self.clean:
            function()


# What is measured.

RAW = {
    "sqlite": (
        "CREATE TABLE raw (id integer PRIMARY KEY AUTOINCREMENT, queue text, body text)",
        "INSERT INTO raw (queue, body) VALUES (?, ?)",
        "DELETE FROM raw WHERE id = (SELECT id FROM raw WHERE queue = ? ORDER BY id LIMIT 1) "
        "RETURNING id, body",
    ),
    "postgresql": (
        "CREATE UNLOGGED TABLE raw (id bigserial, queue text, body text, PRIMARY KEY (queue, id))",
        "INSERT INTO raw (queue, body) VALUES (%s, %s)",
        "DELETE FROM raw WHERE queue = %s AND id = (SELECT id FROM raw WHERE queue = %s ORDER BY id "
        "LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, body",
    ),
    "mariadb": (
        "CREATE TABLE raw (id bigint AUTO_INCREMENT UNIQUE, queue varchar(100), body longtext, "
        "PRIMARY KEY (queue, id)) ENGINE=InnoDB",
        "INSERT INTO raw (queue, body) VALUES (%s, %s)",
        "DELETE FROM raw WHERE queue = %s ORDER BY id LIMIT 1",
    ),
}
BODY = {"text": "x" * 100, "reply_channel": "gateway.abcdefghijkl!17", "order": 17}


def raw_rate(contender, number, prepared=False):
    """
    Pairs of one INSERT and one claiming DELETE a second, one after the other: as Django connects, where no
    statement is prepared on the server, or on PostgreSQL `prepared`.
    """
    create, insert, claim = RAW[contender.kind]
    connection = contender.connect()
    if hasattr(connection, "prepare_threshold") and not prepared:
        connection.prepare_threshold = None
    cursor = connection.cursor()
    cursor.execute(create.replace("TABLE raw", "TABLE IF NOT EXISTS raw"))
    body = json.dumps(BODY)
    queues = ("queue",) * (claim.count("%s") or claim.count("?"))
    began = time.perf_counter()
    for _ in range(number):
        cursor.execute(insert, ("queue", body))
        cursor.execute(claim, queues)
        if contender.kind != "mariadb":
            cursor.fetchall()
    seconds = time.perf_counter() - began
    connection.close()
    return number / seconds


def _send(description, channel, number):
    layer = make_layer(description)
    for _ in range(number):
        layer.send(channel, BODY)
    layer.close() if hasattr(layer, "close") else None


def send_and_receive(contender, number, claim):
    """Messages a second, from one process that sends to this one, which receives."""
    layer = make_layer(contender.description)
    channel = "bench.claim" if claim else "bench.receive"
    take = (lambda: layer.claim("consumer", [channel], block=True)) if claim else (
        lambda: layer.receive_many([channel], block=True)
    )  # fmt: skip
    layer.send(channel, BODY)
    take()
    sender = multiprocessing.get_context("spawn").Process(
        target=_in_child, args=("_send", contender.description, channel, number)
    )
    sender.start()
    got = 0
    while not got:
        got += take()[0] is not None
    began = time.perf_counter()
    while got < number:
        got += take()[0] is not None
    seconds = time.perf_counter() - began
    sender.join()
    if claim:
        layer.acknowledge("consumer")
    layer.close() if hasattr(layer, "close") else None
    return (number - 1) / seconds


def _answer(description, number):
    layer = make_layer(description)
    while number:
        channel, message = layer.claim("consumer", ["bench.wake"], block=True)
        if channel is not None:
            now = time.time()
            layer.send("bench.woken", {"after": now - message["sent"]})
            number -= 1
    layer.acknowledge("consumer")


def wake_up(contender, number):
    """Seconds from a send until a waiting reader elsewhere has it: the median of `number`."""
    layer = make_layer(contender.description)
    process = multiprocessing.get_context("spawn").Process(
        target=_in_child, args=("_answer", contender.description, number)
    )
    process.start()
    times = []
    time.sleep(1.5)
    for turn in range(number):
        time.sleep(0.2 + 0.013 * (turn % 7))  # the reader waits, and at no fixed beat
        layer.send("bench.wake", {"sent": time.time()})
        message = None
        while message is None:
            message = layer.receive_many(["bench.woken"], block=True)[1]
        times.append(message["after"])
    process.join()
    layer.close() if hasattr(layer, "close") else None
    return statistics.median(times)


def _wait(description, seconds):
    layer, stop = make_layer(description), time.monotonic() + seconds

    def wait(number):
        while time.monotonic() < stop:
            layer.claim("consumer-%d" % number, ["bench.a", "bench.b"], block=True)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def idle_load(contender, seconds=20, warmup=5):
    """Queries a second of a process whose four threads wait, heartbeats included.

    The server counts them: it logs each statement of the connections that are made meanwhile.
    """
    if contender.kind != "postgresql":
        return None

    def log_statements(value):
        connection = contender.connect()
        connection.cursor().execute("ALTER DATABASE channels SET log_statement = '%s'" % value)
        connection.close()

    def logged():
        return len(re.findall(r"LOG:  (?:statement|execute) ", contender.server.process.output))

    log_statements("all")
    process = multiprocessing.get_context("spawn").Process(
        target=_in_child, args=("_wait", contender.description, warmup + seconds + 2)
    )
    process.start()
    time.sleep(warmup)
    before = logged()
    time.sleep(seconds)
    count = logged() - before
    process.join()
    log_statements("none")
    return count / seconds


def _claim_all(description, total, name):
    layer = make_layer(description)
    connected = 0
    while True:
        channel, message = layer.claim(name, ["bench.once"], block=False)
        if channel is None:
            if connected and not message:
                break
            time.sleep(0.01)
            continue
        connected += 1
        print(message["number"])
    layer.acknowledge(name)


def exactly_once(contender, total, processes=8):
    """(handled, handled twice, messages a second) of `total` messages claimed by several processes."""
    layer = make_layer(contender.description)
    for number in range(total):
        layer.send("bench.once", {"number": number})
    began = time.perf_counter()
    children = [
        subprocess.Popen(
            [
                sys.executable,
                os.path.abspath(__file__),
                "--child",
                json.dumps([contender.description, total, "consumer-%d" % number]),
            ],
            stdout=subprocess.PIPE,
        )
        for number in range(processes)
    ]
    numbers = []
    readers = [
        threading.Thread(target=lambda child=child: numbers.extend(child.stdout.read().split()))
        for child in children
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.perf_counter() - began
    for child in children:
        child.wait()
    layer.close() if hasattr(layer, "close") else None
    return len(set(numbers)), len(numbers) - len(set(numbers)), total / seconds


def spread(values):
    return " (%d to %d)" % (min(values), max(values))


def _in_child(name, *args):
    set_up()
    globals()[name](*args)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--databases", default="sqlite,postgresql,mariadb,redis")
    parser.add_argument("--messages", type=int, default=1500, help="for each rate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wakes", type=int, default=40)
    parser.add_argument("--once", type=int, default=20000, help="0 leaves it out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_up()
    if options.child:
        _claim_all(*json.loads(options.child))
        return
    failed = []
    for kind in options.databases.split(","):
        try:
            contender = Contender(kind)
        except Exception as error:
            print("%s: left out (%s)" % (kind, error))
            continue
        try:
            failed += report(contender, options)
        finally:
            contender.close()
    if failed:
        print("\nBelow the targets: " + "; ".join(failed))
    sys.exit(1 if failed else 0)


def report(contender, options):
    kind, failed = contender.kind, []
    print("\n%s" % kind)

    def line(name, text):
        print("  %-16s %s" % (name, text), flush=True)

    # In turns, because other work on the machine comes and goes; the median of each counts.
    raws, prepared, rates = [], [], {False: [], True: []}
    for _ in range(options.rounds):
        if kind in RAW:
            raws.append(raw_rate(contender, options.messages))
        if kind == "postgresql":
            prepared.append(raw_rate(contender, options.messages, prepared=True))
        for claim in rates:
            rates[claim].append(send_and_receive(contender, options.messages, claim))
    raw = statistics.median(raws) if raws else None
    if raws:
        line("raw", "%6d pairs/s%s" % (raw, spread(raws)))
    if prepared:
        line("raw, prepared", "%6d pairs/s%s" % (statistics.median(prepared), spread(prepared)))
    for name, claim in (("send + receive", False), ("send + claim", True)):
        rate = statistics.median(rates[claim])
        share = "" if raw is None else ", %.0f %% of raw" % (100 * rate / raw)
        line(name, "%6d messages/s%s%s" % (rate, spread(rates[claim]), share))
        if raw is not None and not claim and rate < TARGETS["share"] * raw:
            failed.append("%s, %s" % (kind, name))
    if options.wakes:
        wake = wake_up(contender, options.wakes)
        line("wake-up", "%6.1f ms (median of %d)" % (1000 * wake, options.wakes))
        if wake > TARGETS["wake"].get(kind, 1):
            failed.append("%s, wake-up" % kind)
        idle = idle_load(contender)
        if idle is not None:
            line("idle", "%6.2f queries/s for a process of 4 threads" % idle)
            if idle > TARGETS["idle"]:
                failed.append("%s, idle" % kind)
    if options.once:
        handled, twice, rate = exactly_once(contender, options.once)
        line(
            "once",
            "%d of %d handled, %d twice, 8 processes, %d/s" % (handled, options.once, twice, rate),
        )
        if handled != options.once or twice:
            failed.append("%s, once" % kind)
    return failed


if __name__ == "__main__":
    main()
