"""
What the layer keeps in its tables, and every operation on them: each atomic, none that waits for a
message.

The statements are in sql/. A subclass for each database (postgresql.py, mysql.py, sqlite.py) holds what
that database does in its own way: how the next message is taken.
"""

import threading
import time
from functools import lru_cache

from ...protocol import EVENT_CHANNELS
from .statements import numbered, statements

#: Rows that one INSERT takes.
MAX_ROWS = 200

#: Seconds after which the number of a message that was taken becomes its queue's floor.
FLOOR_LAG = 0.1

#: Seconds between two searches from the start of the queues, at least; and their share of the time, at most.
SEARCH_EVERY = 1.0
SEARCH_SHARE = 0.05

#: Seconds between them at the most: one that took long may have waited for the server.
SEARCH_MOST = 10.0

#: Seconds from which on a look for expired events is not taken with each beat.
LONG_LOOK = 0.25


class Store:
    """
    The tables of a layer. `prefix` keeps layers on one database apart; `options` are for the
    connections.
    """

    connections_class = None

    #: Whether the database tells who listens (PostgreSQL); else the interval in seconds of looking.
    notifies = False
    poll_every = 0.05

    #: Whether `change_counter` tells cheaply that there may be something new.
    sees_changes = False

    def __init__(self, alias, prefix, **options):
        self.connections = self.connections_class(alias, **options)
        self.sql = statements(self.connections.vendor)
        self.prefix = prefix
        self.range = {"low": prefix + ":", "high": prefix + ";"}
        #: The queues of gateways' events, each of which somebody waits for to be done.
        self.events = [{"queue": self.key(name)} for name in sorted(EVENT_CHANNELS)]
        self._pulse_at = 0.0
        self.floors = Floors()

    def key(self, name):
        """The key under which a queue, group, gateway or process named `name` is stored."""
        return self.range["low"] + name

    def name(self, key):
        """The name behind a key."""
        return key[len(self.range["low"]) :]

    # Statements.

    def write(self, name, parameters):
        """Execute one statement that writes; returns the number of rows it changed."""
        with self.connections.lend() as connection:
            return connection.run(self.sql[name], parameters)

    def read(self, name, parameters):
        """Execute one statement that reads; returns its rows."""
        with self.connections.lend() as connection:
            return connection.rows(self.sql[name], parameters)

    def many(self, name, row_name, rows):
        """A statement with {rows}, and its parameters, for `rows` (dicts)."""
        parameters = {
            "%s%d" % (key, number): value
            for number, row in enumerate(rows)
            for key, value in row.items()
        }
        return _with_rows(self.sql[name], self.sql[row_name], len(rows)), parameters

    def parts(self, rows):
        """`rows`, in lists that one statement takes."""
        if len(rows) == 1:
            yield rows
            return
        for start in range(0, len(rows), MAX_ROWS):
            yield rows[start : start + MAX_ROWS]

    # Messages.

    def room(self, queue, limit, floor, connection=None):
        """
        (how many wait, up to `limit`; whether it is a gateway's inbox; the first one's number or
        None). In a transaction, give its `connection`.
        """
        parameters = {"queue": queue, "limit": limit, "floor": floor}
        if connection is None:
            rows = self.read("room", parameters)
        else:
            rows = connection.rows(self.sql["room"], parameters)
        count, gateways, first = rows[0]
        return count, bool(gateways), first

    def insert(self, rows, topics=()):
        """
        Put `rows` (dicts of queue, channel, body, expiry in seconds) on their queues, in this
        order.
        """
        with self.connections.lend() as connection:
            self.insert_on(connection, rows)

    def insert_on(self, connection, rows):
        for part in self.parts(rows):
            connection.run(*self.many("insert", "insert_row", part))

    def take(self, wanted):
        """
        Take the next message of `wanted`, a list of (queue, channel), the first looked at first; a
        channel other than "" is that name alone of a queue that names share. Returns (id, queue,
        channel, body, losses) or None.
        """
        raise NotImplementedError

    def claim(self, slot, process, wanted):
        """
        `take`, and the message is `slot`'s, which forgets what it held. None: it holds what it
        held.
        """
        raise NotImplementedError

    def hold_on(self, connection, slot, process, row):
        """The message `row` that was taken becomes the slot's, in place of what the slot held."""
        number, queue, channel, body, losses = row
        parameters = {
            "slot": slot,
            "process": process,
            "id": number,
            "queue": queue,
            "channel": channel,
            "body": body,
            "losses": losses,
        }
        connection.run(self.sql["hold"], parameters)

    def drain(self, queue, limit):
        """Take up to `limit` messages of a gateway's inbox: a list of (channel, body) in order."""
        raise NotImplementedError

    def peek(self, queues):
        """Those of `queues` where something waits: a set."""
        queues = list(dict.fromkeys(queues))
        if not queues:
            return set()
        statement, parameters = [], {}
        for number, queue in enumerate(queues):
            statement.append(_numbered(self.sql["peek"], number))
            parameters["queue%d" % number] = queue
        with self.connections.lend() as connection:
            rows = connection.rows(" UNION ALL ".join(statement), parameters)
        return {row[0] for row in rows}

    # What slots hold.

    def acknowledge(self, slot):
        self.write("acknowledge", {"slot": slot})

    def release(self, slot, known, expiry):
        """
        Put what `slot` holds back at the head of its queue, but for the message numbered `known`,
        which is forgotten. `expiry(channel)` is in seconds. Returns its queue, or None.
        """

        def work(connection):
            rows = connection.rows(self.sql["held"], {"slot": slot})
            if not rows:
                return None
            number, queue, channel, body, losses = rows[0]
            connection.run(self.sql["acknowledge"], {"slot": slot})
            if number == known:
                return None
            self._put_back(connection, number, queue, channel, body, losses, expiry)
            return queue

        queue = self.connections.transaction(work)
        self.floors.forget(queue)
        return queue

    def _put_back(self, connection, number, queue, channel, body, losses, expiry):
        connection.run(
            self.sql["insert_back"],
            {
                "id": number,
                "queue": queue,
                "channel": channel,
                "body": body,
                "losses": losses,
                "expiry": expiry(channel),
            },
        )

    # Leases.

    def register(self, name, lease):
        """Take a lease of `lease` seconds."""
        self.write("register", {"name": name, "lease": lease})

    def beat(self, names, lease):
        """Renew leases; returns those of `names` that had been lost."""
        return [name for name in names if not self.write("beat", {"name": name, "lease": lease})]

    def forgive(self, lease):
        """
        If nobody at all has renewed a lease for half of its time, the database was away, and not they:
        everybody gets the time of another lease. Returns whether so.
        """
        rows = self.read("longest", self.range)
        left = rows[0][0] if rows else None
        if left is None or left > lease / 2:
            return False
        self.write("forgive", dict(self.range, lease=lease))
        return True

    def shortest_lease(self):
        """For how many seconds the lease lasts that ends first, should its holder be dead; or None."""
        rows = self.read("shortest", self.range)
        return rows[0][0] if rows else None

    def pulse(self):
        """
        (`shortest_lease`, whether there is something for `expire`) in one look. Where a look takes
        long, for PostgreSQL cannot clear away what is gone, the next ones leave the second out.
        """
        began = time.monotonic()
        if began < self._pulse_at:
            return self.shortest_lease(), False
        statement, parameters = self.many("pulse", "queue_name", self.events)
        with self.connections.lend() as connection:
            ((ending, expired),) = connection.rows(statement, dict(parameters, **self.range))
        ended = time.monotonic()
        if ended - began > LONG_LOOK:
            self._pulse_at = ended + min(SEARCH_MOST, (ended - began) / SEARCH_SHARE)
        return ending, bool(expired)

    def leave(self, name):
        """End a lease in order: what its holder left behind goes with it."""

        def work(connection):
            connection.run(self.sql["unregister"], {"name": name})
            self._clear(connection, name)

        self.connections.transaction(work)

    def reap(self, judge, most):
        """
        Clear up after holders whose lease has run out. `judge(channel, body, losses)` decides on
        each message that was held: it returns a list of (verb, parameters), verbs being "back" (a
        row for insert_back but for id), "insert" (a row of `insert`), "bury" (a row for bury).
        Of the dead letters the `most` newest are kept. Returns the names, the queues that got
        something, and how many dead letters went.
        """

        def work(connection):
            touched, buried = set(), False
            lost = [row[0] for row in connection.rows(self.sql["lost"], self.range)]
            for name in lost:
                for held in connection.rows(self.sql["held_by"], {"process": name}):
                    buried = self._judge(connection, judge, held, touched) or buried
                connection.run(self.sql["forget_held"], {"process": name})
                rows = []
                for queue, body in connection.rows(self.sql["farewells"], {"gateway": name}):
                    rows.append(
                        {
                            "queue": queue,
                            "channel": self.name(queue),
                            "body": body,
                            "expiry": FAREWELL_EXPIRY,
                        }
                    )
                    touched.add(queue)
                self.insert_on(connection, rows)
                self._clear(connection, name)
                connection.run(self.sql["unregister"], {"name": name})
            dropped = connection.run(self.sql["trim_dead"], keep) if buried else 0
            return lost, touched, dropped

        if not self.read("lost", self.range):
            return [], set(), 0
        keep = dict(self.range, most=most)
        lost, touched, dropped = self.connections.transaction(work)
        for queue in touched:
            self.floors.forget(queue)
        return lost, touched, dropped

    def _judge(self, connection, judge, held, touched):
        """Do as `judge` says; returns whether there is one more dead letter."""
        _, number, queue, channel, body, losses = held
        buried = False
        for verb, row in judge(channel, body, losses):
            if verb == "back":
                connection.run(
                    self.sql["insert_back"], dict(row, id=number, queue=queue, channel=channel)
                )
                touched.add(queue)
            elif verb == "insert":
                self.insert_on(connection, [row])
                touched.add(row["queue"])
            else:
                connection.run(self.sql["bury"], dict(row, queue=queue, channel=channel))
                buried = True
        return buried

    def _clear(self, connection, name):
        connection.run(self.sql["leave_groups"], {"gateway": name})
        connection.run(self.sql["drop_farewells"], {"gateway": name})
        if name.endswith("!"):
            connection.run(self.sql["drop_queue"], {"queue": name})

    def sweep(self):
        """
        Remove what has expired but for events, and memberships of gateways that are gone. Returns
        how many messages went, and of which channels: a dict of name to number, which may differ
        where somebody else sweeps, too.
        """
        look, parameters = self.many("stale", "queue_name", self.events)
        statement, _ = self.many("sweep", "queue_name", self.events)
        parameters.update(self.range)
        with self.connections.lend() as connection:
            channels = dict(connection.rows(look, parameters))
        number = 0
        if channels:
            number = self.connections.transaction(
                lambda connection: connection.run(statement, parameters), single=True
            )
        self.write("sweep_groups", self.range)
        return number, channels if number else {}

    def expire(self, report):
        """
        Take some of the events that nobody took in time. `report(message body)` gives the row for
        `insert` that tells its gateway so, or None; the one never happens without the other. Returns
        the channels of what was taken (a list), and the queues that got something.
        """
        statement, parameters = self.many("expired", "queue_name", self.events)

        def work(connection):
            taken, reports = [], []
            for number, queue, channel, body in connection.rows(statement, parameters):
                connection.run(self.sql["drop"], {"queue": queue, "id": number})
                taken.append(channel)
                row = report(body)
                if row is not None:
                    reports.append(row)
            if reports:
                self.insert_on(connection, reports)
            return taken, {row["queue"] for row in reports}

        return self.connections.transaction(work)

    # Groups.

    def group_add(self, group, gateway, channel, record):
        """
        Add a member. `gateway` is the inbox it may belong to, or ""; if that is a live gateway's,
        the membership is its, and `record` (a row for `insert`) goes there. Returns whether a
        record went.
        """

        def work(connection):
            owner = gateway
            if owner and not connection.rows(self.sql["registered"], {"name": owner})[0][0]:
                owner = ""
            added = connection.run(
                self.sql["group_add"], {"grp": group, "gateway": owner, "channel": channel}
            )
            if added and owner:
                self.insert_on(connection, [record])
            return bool(added and owner)

        return self.connections.transaction(work)

    def group_discard(self, group, gateway, channel, record):
        """Remove a member; returns whether `record` went to its gateway."""

        def work(connection):
            row = {"grp": group, "gateway": gateway, "channel": channel}
            if gateway and connection.run(self.sql["group_discard"], row):
                if record is not None:
                    self.insert_on(connection, [record])
                return record is not None
            connection.run(self.sql["group_discard"], dict(row, gateway=""))
            return False

        return self.connections.transaction(work)

    def group_channels(self, group):
        return [row[0] for row in self.read("group_channels", {"grp": group})]

    def group_routes(self, group):
        """(the gateways with members, the members that are no gateway's): two lists."""
        rows = self.read("group_routes", {"grp": group})
        return [row[0] for row in rows if row[0]], [row[1] for row in rows if not row[0]]

    def group_members(self, group, gateway):
        return self.read("group_members", {"grp": group, "gateway": gateway})[0][0]

    # Delay.

    def delay(self, queue, channel, body, seconds):
        self.write("delay", {"queue": queue, "channel": channel, "body": body, "delay": seconds})

    def next_due(self):
        """Seconds until the next delayed message is due, or None."""
        return self.read("next_due", self.range)[0][0]

    def move_due(self, accept):
        """
        Put what is due, up to 100, on its queue where `accept(channel, body, connection)` gives a
        row. Returns those rows, and how many were due.
        """

        def work(connection):
            rows, count = [], 0
            for number, _, channel, body in connection.rows(self.sql["due"], self.range):
                connection.run(self.sql["drop_delayed"], {"id": number})
                count += 1
                row = accept(channel, body, connection)
                if row is not None:
                    self.insert_on(connection, [row])
                    rows.append(row)
            return rows, count

        return self.connections.transaction(work)

    # Dead letters.

    def dead(self):
        """The dead letters, the oldest first: (id, channel, body, reason, when it died)."""
        return self.read("dead", self.range)

    def dead_ids(self):
        return [row[0] for row in self.read("dead_ids", self.range)]

    def requeue_dead(self, number, expiry):
        """Put a dead letter back on its queue. Returns the queue, or None."""

        def work(connection):
            rows = connection.rows(self.sql["dead_one"], dict(self.range, id=number))
            if not rows:
                return None
            _, queue, channel, body = rows[0]
            connection.run(self.sql["drop_dead"], dict(self.range, id=number))
            row = {"queue": queue, "channel": channel, "body": body, "expiry": expiry(channel)}
            self.insert_on(connection, [row])
            return queue

        return self.connections.transaction(work)

    def drop_dead(self, number):
        return self.write("drop_dead", dict(self.range, id=number))

    def count_dead(self):
        return self.read("count_dead", self.range)[0][0]

    # Counters.

    def add_counters(self, counts):
        """Add `counts` (a dict of name to number) to those of all processes."""
        # In one order, lest two processes wait for each other.
        rows = [{"name": self.key(name), "value": counts[name]} for name in sorted(counts)]
        statement, parameters = self.many("add_counters", "counter_row", rows)
        self.connections.transaction(
            lambda connection: connection.run(statement, parameters), single=True
        )

    def counters(self):
        """The counters of all processes: a dict of name to number."""
        return {self.name(key): value for key, value in self.read("counters", self.range)}

    # The whole.

    def flush(self, reset):
        """
        Empty everything but the leases; each live gateway gets the row that `reset(queue)` makes.
        """

        def work(connection):
            for table in ("message", "held", "group", "delayed", "dead", "counter"):
                connection.run(self.sql["flush_" + table], self.range)
            gateways = [row[0] for row in connection.rows(self.sql["gateways"], self.range)]
            self.insert_on(connection, [reset(queue) for queue in gateways])
            return gateways

        return self.connections.transaction(work)

    def pending(self):
        """For each queue: (queue, messages, seconds until the first expires)."""
        return self.read("pending", self.range)

    def count_held(self):
        return self.read("count_held", self.range)[0][0]

    # The outbox of a gateway.

    def carry_out(self, gateway, held, dropped, left, rows, topics=()):
        """
        What a gateway wants done, in one transaction: farewells `held` (rows) and `dropped`
        (channels), groups `left` (group, channel), and messages (`rows` for insert).
        """
        if not (held or dropped or left):
            self.insert(rows, topics)
            return

        def work(connection):
            for part in self.parts(held):
                connection.run(*self.many("farewell", "farewell_row", part))
            for channel in dropped:
                connection.run(self.sql["drop_farewell"], {"channel": channel})
            for group, channel in left:
                row = {"grp": group, "gateway": gateway, "channel": channel}
                connection.run(self.sql["group_discard"], row)
            self.insert_on(connection, rows)
            if topics:
                connection.rows(self.sql["notify"], {"topics": list(topics)})

        self.connections.transaction(work)


#: Seconds for which the last word of a lost gateway's connection is kept for the site.
FAREWELL_EXPIRY = 3600


class Floors:
    """
    Numbers below which a queue is known to be empty, so that a search need not pass what others
    have taken.

    PostgreSQL keeps the index entries of deleted rows as long as any transaction that could see them is
    open. A floor is a number passed FLOOR_LAG seconds ago; as a message may come in below (one put back, one
    whose sender was slow to commit), the search starts from the very beginning now and then.
    Thread-safe.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._floors = {}  # queue to [floor, next floor, when that was passed]
        self._search_at = 0.0

    def of(self, queues):
        """The floor of each of `queues`; all 0 when a search from the beginning is due."""
        if time.monotonic() >= self._search_at:
            return [0] * len(queues)
        floors = self._floors
        return [floors[queue][0] if queue in floors else 0 for queue in queues]

    def searched(self, seconds):
        """A search from the beginning took `seconds`."""
        pause = min(SEARCH_MOST, max(SEARCH_EVERY, seconds / SEARCH_SHARE))
        self._search_at = time.monotonic() + pause

    def passed(self, queue, number):
        """The message `number` of `queue` was taken."""
        now = time.monotonic()
        with self._lock:
            entry = self._floors.get(queue)
            if entry is None:
                if len(self._floors) > 1000:
                    self._floors.clear()
                self._floors[queue] = [0, number, now]
            elif now - entry[2] >= FLOOR_LAG:
                entry[0] = max(entry[0], min(entry[1], number - 1))
                entry[1], entry[2] = number, now

    def clear(self):
        """The tables were emptied, and their numbers may begin anew."""
        with self._lock:
            self._floors.clear()
            self._search_at = 0.0

    def forget(self, queue):
        """Something came in below."""
        with self._lock:
            self._floors.pop(queue, None)


@lru_cache(maxsize=512)
def _with_rows(statement, row, number):
    rows = ", ".join(numbered(row, each) for each in range(number))
    return statement.replace("{rows}", rows)


@lru_cache(maxsize=512)
def _numbered(statement, number):
    return numbered(statement, number)
