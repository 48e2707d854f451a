"""One damaged row of the database layer harms no other: whatever column it is, and whatever is in it."""

import logging
import unittest

from django.channels.exceptions import NotSent
from django.channels.layers.engine.store import Entry, Will

from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase

#: Each table's columns, and the column that tells its rows apart.
TABLES = {
    "message": ("id", "queue id channel body expires losses"),
    "claim": ("consumer", "consumer process id queue channel body losses turn"),
    "sent": ("id", "id attempt expires"),
    "process": ("name", "name expires"),
    "will": ("channel", "channel gateway queue body"),
    "group": ("channel", "grp gateway channel"),
    "delayed": ("id", "queue channel body due"),
    "dead": ("id", "queue channel body losses reason died"),
    "counter": ("name", "name value"),
}

#: Columns that hold numbers, where the database has types.
NUMBERS = "id expires losses turn attempt due died value".split()

#: What SQLite may find in any column: bytes, text that isn't UTF-8, text, and a number.
VALUES = ("X'ff00fe'", "CAST(X'63ff' AS TEXT)", "'damaged'", "0.5", "''")

#: Bodies, or expressions for them, that no version of this layer writes.
BODIES = (
    "''",
    "'{'",
    "'[1, 2]'",
    "'null'",
    "'7'",
    "'2:{}'",
    "'%s'" % ("[" * 5000),
    "substr(body, 1, length(body) - 1)",
    "reverse(body)",
    "concat(body, body)",
    "md5(body)",
)


class DamageTests:
    config = {"heartbeat": 20.0, "lease": 60.0}

    def setUp(self):
        super().setUp()
        logger = logging.getLogger("django.channels.layers")
        logger.setLevel(logging.CRITICAL)
        self.addCleanup(logger.setLevel, logging.NOTSET)
        self.layer = self.make_layer(channel_expiry={"http.request": 0.001}, **self.config)
        self.layer.leases.start = lambda: None
        self.empty()
        self.addCleanup(self.empty)

    def empty(self):
        """Delete all rows, whatever is in them."""
        for table in TABLES:
            self.run_sql("DELETE FROM channels_database_" + table)
        self.layer.store.room.clear()

    def run_sql(self, statement):
        self.layer.store.connections.transaction(lambda each: each.run(statement))

    def build(self):
        """Two of everything, of which either may be damaged."""
        layer, store = self.layer, self.layer.store
        store.register("gateway.a!")
        for number in (1, 2):
            event = {"reply_channel": "answer?a", "event_id": number}
            for channel in ("websocket.receive", "http.request", "work"):
                layer.send(channel, dict(event, event_id=number + 10 * (channel == "http.request")))
            store.claim("consumer-%d" % number, "dead.%d" % number, ["websocket.receive"])
            store.register("dead.%d" % number)
            gateway = "gateway.%d!" % number
            store.register(gateway)
            will = Will(gateway + "x", "goodbye", store.encode("goodbye", {"n": number}))
            store.gateway_batch(gateway, [will], [], [], [])
            layer.send("gateway.a!%d" % number, {"n": number})
            layer.group_add("room", "member.%d" % number)
            layer.send_later("later", {"n": number}, 0)
            layer.deliver("once", {"n": number}, send_id="id-%d" % number)
            layer.count("counted.%d" % number)
            layer.send("bad", {"n": number})
            layer.dead_letter(None, store.take(["bad"]), ValueError("a test"))
        layer.share_counters()

    def end_the_dead(self):
        self.run_sql(
            "UPDATE channels_database_process SET expires = 1 WHERE name <> 'channels:gateway.a!'"
        )

    def received(self, channel, key="n"):
        found = set()
        while True:
            name, message = self.layer.receive_many([channel])
            if name is None:
                return found
            found.add(message.get(key))

    def work(self):
        """Do all that a process does. Return what became of each thing that was built."""
        layer, store = self.layer, self.layer.store
        store.heartbeat(["gateway.a!"])
        store.sweep()
        self.end_the_dead()
        for _ in range(3):
            layer.leases.recover()
        layer.leases.expire()
        layer.leases.send_due()
        inbox, acked = set(), []
        for entry in store.receive_inbox("gateway.a!", acked, 100):
            try:
                inbox.add(store.decode(entry.channel, entry.body)["n"])
                acked.append(entry.id)
            except Exception as error:
                layer.dead_letter("gateway.a!", entry, error)
        self.assertEqual(list(store.receive_inbox("gateway.a!", acked, 100)), [])
        letters = layer.dead_letters()
        layer.send_group("room", {"n": 0})
        layer.group_channels("room")
        statistics = layer.global_statistics()
        counters = statistics["counters"]
        layer.send("work", {"event_id": 9})
        found = {
            "claims and expired": self.received("answer?a", "lost"),
            "wills": self.received("goodbye"),
            "delayed": self.received("later"),
            "work": self.received("work", "event_id"),
            "once": self.received("once"),
            "inbox": inbox,
            "letters": {
                each.message["n"] for each in letters if each.message and "n" in each.message
            },
            "counters": {n for n in (1, 2) if counters.get("counted.%d" % n)},
            "members": {n for n in (1, 2) if self.received("member.%d" % n)},
        }
        layer.requeue_dead_letters()
        layer.drop_dead_letters()
        return found

    def check(self, table, column, value, key, orders=("min", "max")):
        """Damage the first or second row of a table. All else must be as without."""
        # The greatest name of a process is that of the gateway that does all the work.
        for order in orders if table != "process" else ("min",):
            with self.subTest(table=table, column=column, value=value, which=order):
                self.empty()
                self.build()
                name = "channels_database_" + table
                # MySQL wants the inner SELECT in another one.
                self.run_sql(
                    "UPDATE %s SET %s = %s WHERE %s = (SELECT name FROM (SELECT %s(%s) AS name FROM %s) AS x)"
                    % (name, column, value, key, order, key, name)
                )
                found = self.work()
                expected = {"claims and expired": {1, 2, 11, 12}, "work": {1, 2, 9}}
                for each, numbers in found.items():
                    missing = expected.get(each, {1, 2}) - numbers
                    self.assertLessEqual(len(missing), 1, "%s: %r" % (each, found))
                lost = sum(
                    len(expected.get(each, {1, 2}) - numbers) for each, numbers in found.items()
                )
                self.assertLessEqual(lost, 1, found)

    def check_each_column(self):
        """Damage each column once, where the database has types."""
        for table, (key, columns) in TABLES.items():
            for number, column in enumerate(columns.split()):
                is_number = column in NUMBERS and (table, column) != ("sent", "id")
                values = ("-32768", "0") if is_number else ("'damaged'", "''")
                self.check(table, column, values[number % 2], key, ("min", "max")[number % 2 :][:1])

    def check_unreadable_bodies(self):
        """Each body that can't be read becomes a dead letter. The message behind it arrives."""
        for body in BODIES:
            with self.subTest(body=body[:20]):
                self.empty()
                self.layer.send("work", {"n": 1})
                self.run_sql("UPDATE channels_database_message SET body = %s" % body)
                self.layer.send("work", {"n": 2})
                self.assertEqual(self.received("work"), {2})
                (letter,) = self.layer.dead_letters()
                self.assertEqual((letter.channel, letter.reason), ("work", "unreadable"))


GREATEST = 2**63 - 1


class SQLiteDamageTests(DamageTests, SQLiteCase, unittest.TestCase):
    def test_a_message_with_the_greatest_number_blocks_none_of_its_queue(self):
        self.layer.send("work", {"n": 1})
        self.run_sql("UPDATE channels_database_message SET id = %d" % GREATEST)
        for number in (2, 3, 4):
            self.layer.send("work", {"n": number})
        self.assertEqual(self.received("work"), {1, 2, 3, 4})

    def test_a_row_with_the_greatest_number_blocks_no_other(self):
        for table in ("message", "delayed", "dead"):
            with self.subTest(table=table):
                self.empty()
                self.build()
                self.run_sql(
                    "UPDATE channels_database_%s SET id = %d WHERE id IN (SELECT max(id) "
                    "FROM channels_database_%s)" % (table, GREATEST, table)
                )
                self.layer.send("work", {"n": 3})
                self.layer.send_later("later", {"n": 3}, 0)
                self.layer.send("bad", {"n": 3})
                self.layer.dead_letter(None, self.layer.store.take(["bad"]), ValueError("a test"))
                self.layer.leases.send_due()
                self.assertEqual(self.received("later"), {1, 2, 3})
                self.assertIn(3, self.received("work"))
                self.assertEqual(len(self.layer.dead_letters()), 3)

    def test_without_damage_everything_arrives(self):
        self.build()
        found = self.work()
        self.assertEqual(found.pop("claims and expired"), {1, 2, 11, 12})
        self.assertEqual(found.pop("work"), {1, 2, 9})
        for each, numbers in found.items():
            self.assertEqual(numbers, {1, 2}, each)

    def test_a_damaged_value_harms_no_other_row(self):
        for table, (key, columns) in TABLES.items():
            for column in columns.split():
                for value in VALUES:
                    self.check(table, column, value, key)


class MariaDBDamageTests(DamageTests, MariaDBCase, unittest.TestCase):
    def test_a_body_that_cannot_be_read_becomes_a_dead_letter(self):
        self.check_unreadable_bodies()

    def test_if_no_greater_number_is_left_the_error_tells_what_to_do(self):
        def delay():
            self.layer.send_later("later", {"n": 2}, 0)

        def bury():
            self.layer.store.dead_letter(None, Entry(1, "work", "{}", 0), "unreadable")

        def send():
            self.layer.send("work", {"n": 2})

        for table, call in (("message", send), ("delayed", delay), ("dead", bury)):
            with self.subTest(table=table):
                name = "channels_database_" + table
                self.addCleanup(self.run_sql, "TRUNCATE TABLE " + name)
                call()
                self.run_sql("UPDATE %s SET id = %d" % (name, GREATEST))
                self.run_sql("ALTER TABLE %s AUTO_INCREMENT = %d" % (name, GREATEST))
                for _ in range(2):
                    with self.assertRaisesRegex(NotSent, "AUTO_INCREMENT = 1 for .*" + name):
                        call()
                # What the line in the log says.
                self.run_sql("DELETE FROM %s WHERE id > 9e18" % name)
                self.run_sql("ALTER TABLE %s AUTO_INCREMENT = 1" % name)
                call()

    def test_a_damaged_value_harms_no_other_row(self):
        self.check_each_column()


class PostgreSQLDamageTests(DamageTests, PostgreSQLCase, unittest.TestCase):
    def test_a_damaged_value_harms_no_other_row(self):
        self.check_each_column()

    def test_a_body_that_cannot_be_read_becomes_a_dead_letter(self):
        self.check_unreadable_bodies()

    def test_a_row_with_the_greatest_number_blocks_no_other(self):
        self.layer.send("work", {"n": 1})
        self.run_sql("UPDATE channels_database_message SET id = %d" % GREATEST)
        self.layer.send("work", {"n": 2})
        self.assertEqual(self.received("work"), {1, 2})
        self.layer.send("work", {"n": 3})
        self.assertEqual(self.received("work"), {3})

    def test_if_a_sequence_is_at_its_end_the_error_tells_what_to_do(self):
        sequence = "channels_database_message_id_seq"
        self.addCleanup(self.run_sql, "ALTER SEQUENCE %s RESTART" % sequence)
        self.run_sql("ALTER SEQUENCE %s RESTART %d" % (sequence, GREATEST))
        self.layer.send("work", {"n": 1})
        with self.assertRaisesRegex(NotSent, "ALTER SEQUENCE %s RESTART" % sequence):
            self.layer.send("work", {"n": 2})

    def test_a_time_that_never_comes_harms_no_other_row(self):
        for table, column in (("process", "expires"), ("delayed", "due"), ("message", "expires")):
            for value in ("'NaN'", "'Infinity'", "'-Infinity'"):
                self.check(table, column, value, TABLES[table][0])

    def test_a_body_or_a_number_that_is_damaged_harms_no_other_row(self):
        for table in ("message", "claim", "will", "delayed", "dead"):
            self.check(table, "body", "'{'", TABLES[table][0])
        for table in ("message", "claim", "dead"):
            self.check(table, "losses", "-32768", TABLES[table][0])

    def test_a_claim_with_the_number_of_a_waiting_message_is_requeued(self):
        self.layer.send("work", {"n": 1})
        self.layer.claim("consumer", ["work"])
        self.layer.send("work", {"n": 2})
        self.run_sql(
            "UPDATE channels_database_message SET id = (SELECT id FROM channels_database_claim "
            "WHERE consumer = 'consumer') WHERE queue = 'channels:work'"
        )
        self.layer.requeue("consumer")
        self.assertEqual(self.received("work"), {1, 2})
