"""What a consumer leaves open on its database connections is rolled back before the next one runs."""

import contextlib
import logging
import threading
import unittest

import django
from django.channels import Channel, route
from django.channels.compat import on_commit
from django.channels.consume import call_afterwards
from django.channels.coroutines import in_thread
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.signals import consumer_finished
from django.channels.test import ChannelTestCase, Client, apply_routes
from django.channels.transactions import _lines, open_here
from django.channels.worker import WorkerGroup
from django.db import connections, transaction

from .models import Tag
from .support.layers import next_message
from .support.waiting import TIMEOUT, wait_until
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase


def add_row(alias, name):
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO open_transactions (name) VALUES (%s)", [name])


def rows(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT name FROM open_transactions ORDER BY name")
        return [row[0] for row in cursor.fetchall()]


def leave_block(alias):
    transaction.atomic(alias).__enter__()
    add_row(alias, "left")


def leave_two_blocks(alias):
    leave_block(alias)
    leave_block(alias)


def leave_block_without_savepoint(alias):
    leave_block(alias)
    transaction.atomic(alias, savepoint=False).__enter__()


def leave_block_inside_another(alias):
    with transaction.atomic(alias):
        leave_block(alias)


def leave_block_and_raise(alias):
    leave_block(alias)
    raise KeyError("broken")


def leave_block_that_must_roll_back(alias):
    leave_block(alias)
    transaction.set_rollback(True, alias)


def run_bad_sql(alias):
    with contextlib.suppress(Exception):
        connections[alias].cursor().execute("SELECT nothing FROM nowhere")


def leave_block_after_bad_sql(alias):
    leave_block(alias)
    run_bad_sql(alias)


def leave_block_and_savepoint(alias):
    leave_block(alias)
    transaction.savepoint(alias)


def leave_block_and_close(alias):
    leave_block(alias)
    connections[alias].close()


def leave_autocommit_off(alias):
    transaction.set_autocommit(False, alias)
    add_row(alias, "left")


def leave_autocommit_off_in_block(alias):
    transaction.set_autocommit(False, alias)
    leave_block(alias)


def leave_own_begin(alias):
    connections[alias].cursor().execute("BEGIN")
    add_row(alias, "left")


def end_backend(alias, pid):
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    connections[alias].close()


LEAVING = [
    leave_block,
    leave_two_blocks,
    leave_block_without_savepoint,
    leave_block_inside_another,
    leave_block_and_raise,
    leave_block_that_must_roll_back,
    leave_block_after_bad_sql,
    leave_block_and_savepoint,
    leave_block_and_close,
    leave_autocommit_off,
    leave_autocommit_off_in_block,
]


class Lines(logging.Handler):
    """Keeps the lines about what was rolled back."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        if "rolled back" in record.getMessage():
            self.found.append(record.getMessage())


def listen(test):
    """Return the list of the lines that are logged during a test."""
    _lines.clear()
    lines = Lines()
    logger = logging.getLogger("django.channels.worker")
    logger.addHandler(lines)
    test.addCleanup(logger.removeHandler, lines)
    return lines.found


class OpenTransactionTests:
    """A worker of one thread: each consumer follows the one before on the same connections."""

    alias = None
    leaving = LEAVING

    def make_table(self):
        with connections[self.alias].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS open_transactions")
            cursor.execute("CREATE TABLE open_transactions (name VARCHAR(20))")
        self.addCleanup(connections[self.alias].close)

    def begin(self):
        self.make_table()
        self.lines = listen(self)
        self.layer = MemoryChannelLayer()
        self.layer.alias = "test"
        self.layer.routing = [
            route("leave", self.leave),
            route("leave.async", self.leave_in_thread),
            route("next", self.next),
            route("next.async", self.next_in_thread),
        ]
        self.group = WorkerGroup(self.layer, threads=1)
        self.group.start()
        self.addCleanup(self.group.stop, TIMEOUT)
        self.has_left = threading.Event()

    def leave(self, message):
        try:
            self.action(self.alias)
        finally:
            self.has_left.set()

    async def leave_in_thread(self, message):
        await in_thread(self.leave, message)

    def next(self, message):
        connection = connections[self.alias]
        add_row(self.alias, "next")
        state = [connection.in_atomic_block, connection.autocommit, threading.get_ident()]
        Channel("seen", channel_layer=self.layer).send({"state": state})

    async def next_in_thread(self, message):
        await in_thread(self.next, message)

    def wait_for_site_threads(self):
        threads = self.group.loop.site_threads._used
        wait_until(lambda: not any(events for _, events in threads), "the end of all events")

    def run_next(self, channel):
        self.layer.send(channel, {})
        return next_message(self.layer, "seen")["state"]

    def check(self, actions, leave="leave", follow="next", logged=1, kept=()):
        features = connections[self.alias].features
        refuses = getattr(features, "autocommits_when_autocommit_is_off", False)
        for action in actions:
            if refuses and action is leave_autocommit_off_in_block:
                continue  # Django refuses a block there
            with self.subTest(action=action.__name__):
                self.action = action
                self.begin()
                try:
                    first = self.run_next(follow)
                    self.layer.send(leave, {})
                    self.assertTrue(self.has_left.wait(TIMEOUT))
                    # An asynchronous consumer doesn't wait for the end of the one before.
                    self.wait_for_site_threads()
                    self.assertEqual(self.run_next(follow), [False, True, first[2]])
                    self.assertEqual(rows(self.alias), sorted(["next", "next", *kept]))
                    self.assertEqual(len(self.lines), logged, self.lines)
                    for line in self.lines:
                        consumer = "OpenTransactionTests.leave%s " % (
                            "_in_thread" * (leave != "leave")
                        )
                        self.assertIn(consumer, line)
                        self.assertIn("the database %s:" % self.alias, line)
                finally:
                    self.doCleanups()

    def test_the_next_consumer_starts_outside_a_transaction(self):
        self.check(self.leaving)

    def test_so_does_the_next_asynchronous_consumer_of_a_thread(self):
        self.check(self.leaving, "leave.async", "next.async")

    def test_a_transaction_that_ended_is_kept_and_not_logged(self):
        def commit(alias):
            with transaction.atomic(alias):
                add_row(alias, "kept")

        self.check([commit], logged=0, kept=["kept"])
        self.check([commit], "leave.async", "next.async", logged=0, kept=["kept"])

    def test_an_asynchronous_consumer_may_end_a_block_in_a_later_call(self):
        async def consumer(message):
            block = transaction.atomic(self.alias)
            await in_thread(block.__enter__)
            await in_thread(add_row, self.alias, "kept")
            await in_thread(block.__exit__, None, None, None)
            self.has_left.set()

        self.leave_in_thread = consumer
        self.check([consumer], "leave.async", "next.async", logged=0, kept=["kept"])

    @unittest.skipIf(django.VERSION < (1, 9), "Django 1.8 lacks hooks")
    def test_hooks_of_what_is_rolled_back_do_not_run(self):
        called = []

        def action(alias):
            leave_block(alias)
            on_commit(lambda: called.append(1), alias)

        self.check([action])
        self.assertEqual(called, [])


class SQLiteTests(OpenTransactionTests, SQLiteCase, unittest.TestCase):
    leaving = [*LEAVING, leave_own_begin]

    def test_committed_work_with_autocommit_left_off_is_not_logged(self):
        def action(alias):
            transaction.set_autocommit(False, alias)
            add_row(alias, "kept")
            transaction.commit(alias)

        self.check([action], logged=0, kept=["kept"])

    def test_a_consumer_is_named_once_a_minute(self):
        left = []

        def action(alias):
            leave_block(alias)
            left.append(alias)

        self.action = action
        self.begin()
        for _ in range(5):
            self.layer.send("leave", {})
        # A layer doesn't order one channel after another: "next" could come before any "leave".
        wait_until(lambda: len(left) == 5, "the five consumers")
        self.run_next("next")
        self.assertEqual(len(self.lines), 1, self.lines)

    def test_a_receiver_and_the_end_of_a_response_leave_nothing_open(self):
        def receiver(**kwargs):
            leave_block(self.alias)

        def action(alias):
            consumer_finished.connect(receiver)
            self.addCleanup(consumer_finished.disconnect, receiver)

        self.action = action
        self.begin()
        self.layer.send("leave", {})
        wait_until(lambda: self.lines, "the line")
        consumer_finished.disconnect(receiver)
        self.assertEqual(self.run_next("next")[:2], [False, True])
        call_afterwards([lambda: leave_block(self.alias)])
        self.assertIn("The end of a response has ended inside", self.lines[-1])
        self.assertEqual(rows(self.alias), ["next"])


class PostgreSQLTests(OpenTransactionTests, PostgreSQLCase, unittest.TestCase):
    leaving = [*LEAVING, leave_own_begin]

    def test_a_connection_that_the_server_ends_in_a_block_is_replaced(self):
        def action(alias):
            leave_block(alias)
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pid = cursor.fetchone()[0]
            ending = threading.Thread(target=end_backend, args=(alias, pid))
            ending.start()
            ending.join(TIMEOUT)

        self.check([action])


def leave_own_start(alias):
    connections[alias].cursor().execute("START TRANSACTION")
    add_row(alias, "left")


def leave_own_begin_after_bad_sql(alias):
    leave_own_begin(alias)
    run_bad_sql(alias)


class MariaDBTests(OpenTransactionTests, MariaDBCase, unittest.TestCase):
    @property
    def leaving(self):
        connections[self.alias].ensure_connection()
        if not hasattr(connections[self.alias].connection, "server_status"):
            return LEAVING  # mysqlclient doesn't tell of the site's own BEGIN
        return [*LEAVING, leave_own_begin, leave_own_start, leave_own_begin_after_bad_sql]

    def test_own_transactions_that_have_ended_are_not_logged(self):
        def commit(alias):
            leave_own_begin(alias)
            connections[alias].cursor().execute("COMMIT")

        def roll_back(alias):
            leave_own_begin(alias)
            connections[alias].cursor().execute("ROLLBACK")

        def end_by_ddl(alias):
            leave_own_begin(alias)
            connections[alias].cursor().execute("CREATE TABLE IF NOT EXISTS ended_by (id int)")
            connections[alias].cursor().execute("DROP TABLE ended_by")

        self.make_table()
        for action in (commit, roll_back, end_by_ddl, rows):
            before = open_here()
            action(self.alias)
            self.assertEqual(open_here(), before, action.__name__)


class TestCaseTests(ChannelTestCase):
    def test_the_transaction_of_a_test_case_stays_as_it_was(self):
        def consumer(message):
            for savepoint in (True, False):
                transaction.atomic(savepoint=savepoint).__enter__()
                Tag.objects.create(name="left")

        lines = listen(self)
        blocks = open_here()
        Tag.objects.create(name="of the test")
        with apply_routes(route("leave", consumer)):
            Client().send_and_consume("leave")
        self.assertEqual(open_here(), blocks)
        self.assertEqual([tag.name for tag in Tag.objects.all()], ["of the test"])
        self.assertEqual(len(lines), 1)
