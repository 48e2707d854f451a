"""
The database layer when a statement, or the reply to it, gets lost: at the n-th statement for each n.

The double stands between the layer and the driver. A statement is not sent, or its reply is lost, or it
arrives late: after others of the same process, over a connection that this process has given up. Whatever
happens, each message was handled, waits, is claimed, or is a dead letter: exactly one of these.
"""

import asyncio
import threading
import unittest
from collections import Counter
from unittest import mock

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.database import tables
from django.channels.layers.engine import inbox as engine_inbox
from django.channels.layers.engine.store import LeaseEnded, Outgoing, Will
from django.channels.protocol import reset

from .support.waiting import TIMEOUT, wait_until
from .test_database_layer import MariaDBCase, PostgreSQLCase, SQLiteCase

UNSENT, LOST, LATE = "unsent", "lost", "late"

#: Statements after which one that was late arrives.
DELAY = 3


class Fault:
    """What happens to the `number`-th statement (from 1) of the threads whose names begin with `thread`."""

    def __init__(self, kind, number, thread="MainThread"):
        self.kind, self.number, self.thread = kind, number, thread
        self.calls = 0
        self.late = None  # a statement that has not arrived yet

    @property
    def has_happened(self):
        return self.calls >= self.number

    def concerns(self):
        return threading.current_thread().name.startswith(self.thread)

    def arrive(self):
        """Let the late statement arrive now."""
        late, self.late = self.late, None
        if late is not None:
            raw, cursor, statement, parameters = late
            try:
                cursor.execute(statement, parameters)
            except Exception:  # noqa: S110  (too late: the caller has got its error)
                pass
            raw.close()


class LossyCursor:
    """The cursor of one connection, with a Fault."""

    def __init__(self, connection, fault, error):
        self._connection, self._fault, self._error = connection, fault, error
        self._cursor = connection.cursor
        self._in_transaction = False

    def __getattr__(self, name):
        return getattr(self._cursor, name)

    def execute(self, statement, parameters=()):
        fault = self._fault
        if not fault.concerns():
            return self._cursor.execute(statement, parameters)
        was_in, word = self._in_transaction, statement.split()[0]
        self._in_transaction = word in ("BEGIN", "START") or (was_in and word != "COMMIT")
        fault.calls += 1
        if fault.late and fault.calls > fault.number + DELAY and not was_in:
            fault.arrive()
        if fault.calls != fault.number:
            return self._cursor.execute(statement, parameters)
        if fault.kind == LATE and not was_in and not self._in_transaction:
            fault.late = (self._connection.raw, self._cursor, statement, parameters)
            self._connection.raw = mock.Mock()  # giving it up closes nothing
        elif fault.kind == LOST:
            self._cursor.execute(statement, parameters)
            if self._cursor.description:
                self._cursor.fetchall()  # SQLite keeps its lock until then
        raise self._error


class LostReplyTests:
    config = {"heartbeat": 20.0, "lease": 60.0}
    total = 4
    kinds = (LOST, LATE)  # in a transaction, what would be late is not sent

    def setUp(self):
        super().setUp()
        self.layer = self.make_layer(**self.config)
        self.layer.leases.start = lambda: None
        while self.layer.leases.recover():
            pass  # other tests left processes, and a call recovers only a few
        self.layer.flush()
        self.addCleanup(self.layer.flush)
        patch = mock.patch.object(engine_inbox, "RETRY_INTERVAL", 0.005)
        patch.start()
        self.addCleanup(patch.stop)

    def lossy_layer(self, fault):
        layer = self.make_layer(**self.config)
        layer.leases.start = lambda: None  # the test alone makes calls
        layer.leases.process  # noqa: B018  its lease is taken before the first fault
        layer.store.listener.start = lambda: None
        connections = layer.store.connections
        connections.close_idle()
        real = connections.open

        def open_lossy():
            connection = real()
            connection.cursor = LossyCursor(connection, fault, self.error(connections))
            return connection

        connections.open = open_lossy
        return layer

    def error(self, connections):
        return connections.wrapper().Database.OperationalError("the connection was cut")

    def insist(self, call, *args, **kwargs):
        """Call until it succeeds, as the callers of a layer do."""
        for _ in range(5):
            try:
                return call(*args, **kwargs)
            except LayerUnavailable:
                continue
        self.fail("it fails each time")

    def each_fault(self, kinds, thread="MainThread", **details):
        """Yield a fault at each statement that `thread` executes while the caller has it."""
        for kind in kinds:
            number, fault = 0, None
            while fault is None or fault.has_happened:
                number += 1
                fault = Fault(kind, number, thread)
                with self.subTest(kind=kind, statement=number, **details):
                    yield fault

    def for_each_fault(self, scenario, thread="MainThread"):
        """Run `scenario(fault)` with a fault at each statement that it executes."""
        for fault in self.each_fault(self.kinds, thread):
            self.layer.flush()
            scenario(fault)
            fault.arrive()
        self.assertGreater(fault.number, 3, "the scenario executes that many statements")

    def everything(self):
        """Return a Counter of the numbers that wait, are claimed, or are dead letters."""
        store, found = self.layer.store, Counter()
        for table in ("message", "claim WHERE id <> 0"):
            statement = "SELECT channel, body FROM channels_database_" + table
            for channel, body in store.connections.statement(
                lambda each, statement=statement: each.rows(statement)
            ):
                if "!" not in channel:
                    found[self.number(body)] += 1
        for _, _, body, _, _ in store.dead_letters():
            found[self.number(body)] += 1
        return found

    def count(self, table):
        statement = "SELECT count(*) FROM channels_database_" + table
        run = self.layer.store.connections.statement
        return run(lambda each: each.rows(statement))[0][0]

    def number(self, body):
        return int(body.split('"number":')[1].split("}")[0].split(",")[0])

    def received(self, channel):
        """Return the numbers of all messages on a channel."""
        found = []
        while True:
            message = self.layer.receive_many([channel])[1]
            if message is None:
                return found
            found.append(message["number"])

    # A worker.

    def test_a_worker_loses_and_doubles_no_message(self):
        expected = Counter(range(1, self.total + 1))

        def scenario(fault):
            for number in range(1, self.total + 1):
                self.layer.send("work", {"number": number})
            damaged = self.layer.store.encode("work", {"number": 2}) + "]"
            self.layer.store.connections.transaction(
                lambda each: each.run(
                    "UPDATE channels_database_message SET body = '%s' WHERE body = '%s'"
                    % (damaged, damaged[:-1])
                )
            )
            worker = self.lossy_layer(fault)
            handled, requeued = Counter(), set()
            with self.assertLogs("django.channels.layers", "ERROR"):
                while sum(handled.values()) < self.total - 2 or not self.layer.dead_letters():
                    message = self.insist(worker.claim, "consumer", ["work"])[1]
                    if message is None:
                        continue  # the server still holds locks of the connection that was cut
                    number = message["number"]
                    if number % 2 and number not in requeued:
                        requeued.add(number)
                        self.insist(worker.requeue, "consumer")
                        continue
                    handled[number] += 1
                    self.insist(worker.finish, "consumer", "gateway.a!1", {"number": number})
                self.insist(worker.acknowledge, "consumer")
            self.assertEqual(handled + self.everything(), expected)
            self.assertEqual(set(self.received("gateway.a!")), set(handled))
            fault.arrive()
            self.assertEqual(handled + self.everything(), expected)
            self.assertEqual(self.layer.global_statistics()["messages_held"], 0)
            (letter,) = self.layer.dead_letters()
            self.assertEqual(letter.reason, "unreadable")
            worker.close()

        self.for_each_fault(scenario)

    def test_a_claim_that_arrives_late_takes_nothing(self):
        store, late = self.layer.store, self.layer.store.next_turn()
        for number in (1, 2):
            self.layer.send("work", {"number": number})
        self.assertEqual(self.layer.claim("consumer", ["work"])[1], {"number": 1})
        process, wanted = store.key(self.layer.leases.process), [(store.key("work"), "")]
        for _ in range(2):
            with self.assertRaises(LayerUnavailable):
                store.next_row(wanted, "consumer", process, late)
            self.assertEqual(self.everything(), Counter([1, 2]))
            self.layer.requeue("consumer")
        self.assertEqual(self.received("work"), [1, 2])

    def test_an_acknowledgement_that_arrives_late_forgets_no_other_message(self):
        store = self.layer.store
        for number in (1, 2):
            self.layer.send("work", {"number": number})
        self.layer.claim("consumer", ["work"])
        late = store._turns["consumer"]
        self.layer.claim("consumer", ["work"])
        store.write("acknowledge", {"consumer": "consumer", "turn": late})
        self.assertEqual(self.everything(), Counter([2]))
        self.layer.acknowledge("consumer")

    def test_a_claim_of_a_process_without_a_lease_is_recovered(self):
        doomed = self.make_layer(**self.config)
        doomed.leases.start = lambda: None
        self.layer.send("work", {"number": 1})
        doomed.claim("consumer", ["work"])
        key = doomed.store.key(doomed.leases.process)
        doomed.store.write("unregister", {"name": key})
        with mock.patch.object(self.layer, "options", self.layer.options._replace(lease=-1.0)):
            self.layer.store.sweep()
        recovered = []

        def is_recovered():
            recovered.extend(self.layer.leases.recover())  # few at a time: other tests left some
            return doomed.leases.process in recovered

        with self.assertLogs("django.channels.layers", "WARNING"):
            wait_until(is_recovered, "its turn")
        self.assertEqual([each.message for each in self.layer.dead_letters()], [{"number": 1}])

    # Senders.

    def test_what_is_sent_with_an_id_arrives_once(self):
        plain = ["work.x", "reader?a"]

        def scenario(fault):
            for name in plain:
                self.layer.group_add("room", name)
            sender = self.lossy_layer(fault)
            self.insist(sender.deliver, "work.y", {"number": 1}, send_id="one")
            self.insist(sender.deliver_group, "room", {"number": 2}, send_id="two")
            self.insist(sender.deliver, "work.y", {"number": 3}, send_id="three")
            self.insist(sender.send_later, "work.z", {"number": 4}, 0.0, send_id="four")
            fault.arrive()
            self.layer.leases.send_due()
            self.assertEqual(self.received("work.y"), [1, 3])
            self.assertEqual(self.received("work.z"), [4])
            for name in plain:
                self.assertEqual(self.received(name), [2])
            sender.close()

        self.for_each_fault(scenario)

    def test_a_group_of_more_members_than_a_statement_takes_gets_each_message_once(self):
        names = ["reader?%d" % number for number in range(450)]
        for name in names:
            self.layer.group_add("room", name)
        for _ in range(2):
            self.layer.deliver_group("room", {"number": 1}, send_id="one")
        for name in (names[0], names[250], names[449]):
            self.assertEqual(self.received(name), [1])

    def few_rows(self):
        """Let one statement take 3 rows, or 300 bytes of bodies."""
        for name, most in (("MAX_ROWS", 3), ("MAX_STATEMENT", 300)):
            patch = mock.patch.object(tables, name, most)
            patch.start()
            self.addCleanup(patch.stop)

    def test_a_batch_without_ids_leaves_whole_or_not_at_all(self):
        """Also one that needs several statements, by its number of messages or by their size."""
        self.few_rows()
        batches = [[{"number": n} for n in range(size)] for size in (1, 3, 4, 7)]
        batches.append([{"number": n, "text": "x" * 200} for n in range(3)])
        for messages in batches:
            for fault in self.each_fault(self.kinds, size=len(messages)):
                self.layer.flush()
                sender = self.lossy_layer(fault)
                try:
                    sender.deliver_all([("work.b", message) for message in messages])
                except LayerUnavailable:
                    pass
                fault.arrive()
                sender.close()
                self.assertIn(self.count("message"), (0, len(messages)))

    def test_a_message_to_a_large_group_reaches_all_members_or_none(self):
        self.few_rows()
        for number in range(7):
            self.layer.group_add("room", "reader?%d" % number)
        for fault in self.each_fault((LOST,)):
            self.layer.store.write("flush_message", self.layer.store.range)
            sender = self.lossy_layer(fault)
            try:
                sender.send_group("room", {"number": 1})
            except LayerUnavailable:
                pass
            sender.close()
            self.assertIn(self.count("message"), (0, 7))

    def test_a_large_batch_of_a_gateway_that_is_tried_again_is_sent_once(self):
        self.few_rows()
        name, store = "gateway.a!", self.layer.store
        body = store.encode("work", {"number": 1})
        wills = [Will("gateway.a!%d" % n, "websocket.disconnect", body) for n in range(7)]
        sends = [Outgoing("work", body, True, id="gateway.a!%d#1" % n) for n in range(7)]
        for fault in self.each_fault(self.kinds):
            self.layer.flush()
            store.register(name)
            gateway = self.lossy_layer(fault)
            self.insist(gateway.store.gateway_batch, name, wills, [], [], sends)
            fault.arrive()
            self.assertEqual((self.count("message"), self.count("will")), (7, 7))
            store.leave(name)
            self.assertEqual((self.count("message"), self.count("will")), (14, 0))
            gateway.close()

    def test_large_messages_that_need_several_statements_arrive_once(self):
        names = ["reader?%d" % number for number in range(6)]
        for name in names:
            self.layer.group_add("room", name)
        for _ in range(2):
            message = {"number": 1, "text": "x" * 900000}
            self.layer.deliver_group("room", message, send_id="one")
        for name in names:
            self.assertEqual(self.received(name), [1])

    def test_a_refused_message_is_not_remembered(self):
        layer = self.make_layer(channel_capacity={"work.*": 1}, **self.config)
        self.layer.send("work.x", {"number": 0})
        with self.assertRaises(layer.ChannelFull):
            layer.deliver("work.x", {"number": 1}, send_id="again")
        self.assertEqual(self.received("work.x"), [0])
        layer.store.room.clear()
        layer.deliver("work.x", {"number": 1}, send_id="again")
        self.assertEqual(self.received("work.x"), [1])

    def test_remembered_ids_are_swept(self):
        with mock.patch("django.channels.layers.database.%s.SENT_LIFETIME" % self.module, -1.0):
            self.layer.deliver("work.x", {"number": 1}, send_id="one")
            self.layer.deliver_group("none", {"number": 1}, send_id="two")
        self.assertEqual(self.count("sent"), 1)
        self.layer.store.sweep()
        self.assertEqual(self.count("sent"), 0)

    def test_what_a_process_counted_is_added_once(self):
        def scenario(fault):
            counting = self.lossy_layer(fault)
            for number in (1, 2, 3):
                counting.count("tests", number)
                self.insist(counting.share_counters)
            fault.arrive()
            self.assertEqual(self.layer.global_statistics()["counters"]["tests"], 6)
            counting.close()

        self.for_each_fault(scenario)

    # A gateway.

    def in_gateway(self, function, layer):
        """Run the coroutine function `function(inbox)` in the event loop of a gateway on `layer`."""

        async def run():
            inbox = layer.open_inbox("gateway.a!")
            try:
                return await asyncio.wait_for(function(inbox), TIMEOUT)
            finally:
                await inbox.close()

        return asyncio.run(run())

    def test_a_gateway_receives_each_message_once_and_in_order(self):
        def scenario(fault):
            gateway = self.lossy_layer(fault)
            gateway.block_for = 0.02

            async def live(inbox):
                found = []
                for first in (1, 3, 5):
                    for number in (first, first + 1):
                        self.layer.send("gateway.a!%d" % number, {"number": number})
                    while len(found) < first + 1:
                        try:
                            found += [message["number"] for _, message in await inbox.receive()]
                        except LayerUnavailable:
                            pass
                while self.layer.channel_statistics("gateway.a!")["messages_pending"]:
                    await asyncio.sleep(0.01)
                return found

            self.assertEqual(self.in_gateway(live, gateway), [1, 2, 3, 4, 5, 6])
            gateway.close()

        self.for_each_fault(scenario, thread="channels-inbox")

    def test_an_event_that_is_tried_again_is_sent_once(self):
        def scenario(fault):
            gateway = self.lossy_layer(fault)

            async def live(inbox):
                def send(number):
                    event = {"reply_channel": "gateway.a!1", "event_id": number, "number": number}
                    inbox.send("work", event, lambda error: send(number))

                inbox.set_will("gateway.a!1", ("websocket.disconnect", {"number": 9}))
                for number in (1, 2, 3):
                    send(number)
                    while not self.layer.channel_statistics("work")["messages_pending"] >= number:
                        await asyncio.sleep(0.005)
                inbox.clear_will("gateway.a!1")
                while self.count("will"):
                    await asyncio.sleep(0.005)

            self.in_gateway(live, gateway)
            fault.arrive()
            self.assertEqual(sorted(self.received("work")), [1, 2, 3])
            self.assertEqual(self.received("websocket.disconnect"), [])
            gateway.close()

        self.for_each_fault(scenario, thread="channels-outbox")

    def test_a_batch_of_a_gateway_that_was_recovered_changes_nothing(self):
        """It was on its way when the lease ended, or when the gateway took the lease again."""
        store, name = self.layer.store, "gateway.a!"
        will = Will("gateway.a!1", "websocket.disconnect", store.encode("", {"number": 1}))
        event = Outgoing("work", store.encode("work", {"number": 2}), id="gateway.a!1#1")
        plain = Outgoing("work", store.encode("work", {"number": 3}))
        batches = [
            ([will], []),
            ([], [event]),
            ([], [plain]),
            ([], [event, plain]),
            ([will], [event]),
        ]
        store.register(name)
        early = [store.next_turn() for _ in batches]
        for again in (False, True):
            with mock.patch.object(self.layer, "options", self.layer.options._replace(lease=-1.0)):
                store.register(name)
            store.recover(self.layer.recovery.decide_lost)
            if again:
                store.register(name)
            for turn, (wills, sends) in zip(early, batches):
                with mock.patch.object(store, "next_turn", lambda turn=turn: turn):
                    with self.assertRaises(LeaseEnded):
                        store.gateway_batch(name, wills, [], [], sends)
        self.assertEqual(self.count("will"), 0)
        self.assertEqual(self.received("work"), [])
        for wills, sends in batches:
            store.gateway_batch(name, wills, [], [], sends)
        self.assertEqual(self.received("work"), [2, 3, 3])
        store.leave(name)
        self.assertEqual(self.received("websocket.disconnect"), [1])

    def test_a_gateway_that_comes_back_learns_which_ends_were_told(self):
        gateway, name = self.lossy_layer(Fault(LOST, 0)), "gateway.a!"
        key = self.layer.store.key(name)

        async def live(inbox):
            inbox.set_will("gateway.a!1", ("websocket.disconnect", {"number": 1}))
            while not self.count("will"):
                await asyncio.sleep(0.005)
            self.layer.store.write("unregister", {"name": key})  # the server lost its data
            gateway.leases.step()
            self.assertEqual(await inbox.receive(), [(name, reset())])
            with mock.patch.object(self.layer, "options", self.layer.options._replace(lease=-1.0)):
                self.layer.store.register(name)
            self.layer.store.recover(self.layer.recovery.decide_lost)
            gateway.leases.step()
            self.assertEqual(await inbox.receive(), [(name, reset(["gateway.a!1"]))])
            self.layer.store.write("forget_claims", {"process": key})  # the fence alone is gone
            inbox.set_will("gateway.a!2", ("websocket.disconnect", {"number": 2}))
            while not self.count("will"):
                gateway.leases.step()
                await asyncio.sleep(0.005)
            inbox.clear_will("gateway.a!2")

        self.in_gateway(live, gateway)
        self.assertEqual(self.received("websocket.disconnect"), [1])
        gateway.close()

    # Clearing up.

    def test_whoever_clears_up_loses_and_doubles_no_message(self):
        def scenario(fault):
            doomed = self.make_layer(lost={"work": "retry"}, **self.config)
            doomed.leases.start = lambda: None
            for number, channel in ((1, "work"), (2, "other")):
                self.layer.send(channel, {"number": number})
                doomed.claim("consumer-%s" % channel, [channel])
            self.layer.send_later("later", {"number": 3}, 0)
            process = doomed.leases.process
            doomed.store.write("register", {"name": doomed.store.key(process), "lease": -1.0})
            survivor = self.lossy_layer(fault)
            logger = "django.channels.layers"
            with mock.patch.object(survivor.policy, "decide", doomed.policy.decide):
                with self.assertLogs(logger, "WARNING"):
                    survivor.notices.expired({"work": 1})  # if the reply of `recover` gets lost
                    decide = survivor.recovery.decide_lost
                    # The server may still hold the locks of the connection that was cut.
                    while self.count("claim WHERE id <> 0"):
                        survivor.recovery.lost(self.insist(survivor.store.recover, decide))
            while self.count("delayed"):
                self.insist(survivor.store.send_due)
            fault.arrive()
            self.assertEqual(self.everything(), Counter([1, 2, 3]))
            self.assertEqual(self.received("work"), [1])
            self.assertEqual(self.received("later"), [3])
            self.assertEqual([each.message for each in self.layer.dead_letters()], [{"number": 2}])
            survivor.close()

        self.for_each_fault(scenario)


class SQLiteLostReplyTests(LostReplyTests, SQLiteCase, unittest.TestCase):
    module = "sending"
    kinds = (UNSENT, LOST)  # nothing can be late in a file


class PostgreSQLLostReplyTests(LostReplyTests, PostgreSQLCase, unittest.TestCase):
    module = "postgresql"


class MariaDBLostReplyTests(LostReplyTests, MariaDBCase, unittest.TestCase):
    module = "sending"
    kinds = (LOST,)  # a claim is a transaction there

    def error(self, connections):
        return connections.wrapper().Database.OperationalError(2013, "Lost connection to server")
