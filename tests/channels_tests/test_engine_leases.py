"""The lease thread's steps: heartbeats, recovery of the dead, expiry, delay; and what ends the thread."""

import threading
import unittest
from types import SimpleNamespace
from unittest import mock

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.engine import leases
from django.channels.layers.engine.recovery import DROP
from django.channels.layers.engine.store import Due, Heartbeat, Recovered

from .fake_store import FakeLayer
from .support.waiting import TIMEOUT, wait_until

LOGGER = "django.channels.layers"


class StepCase(unittest.TestCase):
    """Time stands still unless a test moves it."""

    def setUp(self):
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        patch = mock.patch.object(leases, "time", clock)
        patch.start()
        self.addCleanup(patch.stop)
        self.layer = FakeLayer()
        self.store, self.leases = self.layer.store, self.layer.leases

    def step(self, *heartbeat, **fields):
        """One step, in which the store's heartbeat finds this."""
        self.store.answers["heartbeat"] = [Heartbeat(*(heartbeat or ([],)), **fields)]
        return self.leases.step()


class HeartbeatTests(StepCase):
    def test_a_heartbeat_renews_every_name_of_the_process(self):
        process = self.leases.process
        self.leases.acquire("gateway.a!")
        self.step()
        self.assertEqual(self.store.named("register"), [(process,), ("gateway.a!",)])
        self.assertEqual(self.store.named("heartbeat"), [([process, "gateway.a!"],)])
        self.leases.release("gateway.a!")
        self.step()
        self.assertEqual(self.store.named("heartbeat")[-1], ([process],))

    def test_the_owner_of_a_lost_lease_is_told_and_the_others_are_not(self):
        told = []
        for name in ("gateway.a!", "gateway.b!"):
            self.leases.acquire(name, lambda name=name: told.append(name))
        self.step(["gateway.b!"])
        self.assertEqual(told, ["gateway.b!"])

    def test_a_lease_that_a_call_found_ended_is_taken_again_though_the_heartbeat_finds_it(self):
        told = []
        for name in ("gateway.a!", "gateway.b!"):
            self.leases.acquire(name, lambda name=name: told.append(name))
        self.leases.has_ended("gateway.b!")
        self.step()  # another lease of this name is there, so it is not missing
        self.step()
        self.assertEqual(told, ["gateway.b!"])
        self.assertEqual(self.store.named("register")[2:], [("gateway.b!",)])

    def test_a_released_lease_that_a_call_found_ended_is_not_taken_again(self):
        self.leases.acquire("gateway.a!")
        self.leases.has_ended("gateway.a!")
        self.leases.release("gateway.a!")
        self.step()
        self.assertEqual(self.store.named("register"), [("gateway.a!",)])

    def test_a_lost_lease_of_a_name_released_meanwhile_is_not_taken_again(self):
        told = []
        self.leases.acquire("gateway.a!", lambda: told.append(1))

        def released(names):
            self.leases.release("gateway.a!")
            return Heartbeat(["gateway.a!"])

        self.store.answers["heartbeat"] = [released]
        self.leases.step()
        self.assertEqual(told, [])
        self.assertEqual(self.store.named("register"), [("gateway.a!",)])

    def test_a_later_owner_of_the_name_is_not_told_of_the_loss_of_an_earlier_one(self):
        told = []
        self.leases.acquire("gateway.a!", lambda: told.append("earlier"))

        def taken_over(names):
            self.leases.release("gateway.a!")
            self.leases.acquire("gateway.a!", lambda: told.append("later"))
            return Heartbeat(["gateway.a!"])

        self.store.answers["heartbeat"] = [taken_over]
        self.leases.step()
        self.step()
        self.assertEqual(told, [])

    def test_the_owner_is_told_once_although_a_reply_got_lost(self):
        told = []
        self.leases.acquire("gateway.a!", lambda: told.append(1))
        self.store.answers["register"] = [LayerUnavailable("the reply is lost")]
        with self.assertRaises(LayerUnavailable):
            self.step(["gateway.a!"])
        self.step()  # the lease was taken, so it is not missing any more
        self.step()
        self.assertEqual(told, [1])

    def test_threads_that_claim_at_once_take_one_lease(self):
        taken, barrier = [], threading.Barrier(4)

        def take():
            barrier.wait(TIMEOUT)
            taken.append(self.leases.process)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual(len(taken), 4)
        self.assertEqual(len(set(taken)), 1)
        self.assertEqual(self.store.named("register"), [(taken[0],)])

    def test_the_next_step_comes_as_the_next_lease_ends(self):
        self.assertEqual(self.step(), 5.0)
        self.assertAlmostEqual(self.step([], next_end=2.0), 2.0 + leases.AFTER_END)
        self.assertEqual(self.step([], next_end=7.0), 5.0)

    def test_counters_are_shared_with_each_heartbeat(self):
        self.layer.count("full", 3)
        self.step()
        self.assertEqual([each[0] for each in self.store.named("add_counters")], [{"full": 3}])

    def test_messages_are_swept_with_every_fourth_heartbeat(self):
        self.store.usual["sweep"] = {"thumbnails": 2}
        for _ in range(3):
            self.step()
        self.assertEqual(self.store.named("sweep"), [])
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.step()
        self.assertEqual(len(self.store.named("sweep")), 1)
        self.assertIn("Messages on thumbnails (2) expired", logs.output[0])
        self.assertEqual(self.layer.statistics(), {"expired": 2})
        with self.assertLogs(LOGGER, "WARNING"):
            for _ in range(4):
                self.step()
            self.now += 1
            self.layer.notices.flush()
            leases.logger.warning("end")
        self.assertEqual(len(self.store.named("sweep")), 2)

    def test_expired_events_are_reported_only_if_there_are_any(self):
        self.step()
        self.assertEqual(self.store.named("expire"), [])
        self.store.answers["expire"] = [Recovered([], [("http.request", DROP)])]
        with self.assertLogs(LOGGER, "WARNING"):
            self.step([], expired=True)
        self.assertEqual(self.store.named("expire")[0], (self.layer.recovery.decide_expired,))
        self.assertEqual(self.layer.statistics(), {"expired": 1})

    def test_events_that_another_process_is_expiring_do_not_make_this_one_spin(self):
        self.assertGreater(self.step([], expired=True), 0)


class RecoveryTests(StepCase):
    def test_a_process_that_lives_alone_recovers_the_dead_after_one_heartbeat(self):
        self.step([], lost=True)
        self.assertEqual(self.store.named("recover"), [])
        self.now += 5.1
        self.store.answers["recover"] = [Recovered(["abc.7"], [])]
        with self.assertLogs(LOGGER, "WARNING"):
            self.step([], lost=True)
        self.assertEqual(self.store.named("recover"), [(self.layer.recovery.decide_lost,)])
        self.assertEqual(self.layer.statistics(), {"lost": 1})

    def test_it_waits_no_longer_than_that(self):
        pause = self.step([], lost=True)
        self.assertAlmostEqual(pause, 5.0)
        self.now += 4.0
        self.assertAlmostEqual(self.step([], lost=True), 1.0 + leases.AFTER_END)

    def test_nobody_is_recovered_without_need(self):
        self.step()
        self.now += 6
        self.step()
        self.assertEqual(self.store.named("recover"), [])

    def test_after_an_outage_all_leases_are_extended_before_anybody_is_recovered(self):
        self.step()
        self.now += 7.6  # more than half a lease
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.step([], lost=True)
        self.assertIn("was unreachable; all leases were extended", logs.output[0])
        self.assertEqual(self.store.named("extend_leases", "recover"), [()])
        self.now += 5.1
        self.step([], lost=True)
        self.assertEqual(len(self.store.named("recover")), 1)

    def test_a_heartbeat_that_is_answered_late_leaves_the_others_time_for_theirs(self):
        """The server was frozen meanwhile, and their heartbeats wait in it, too."""
        self.step()
        self.now += 5

        def answer(names):
            self.now += 7.6  # more than half a lease
            return Heartbeat([], lost=True)

        self.store.answers["heartbeat"] = [answer]
        self.leases.step()
        self.assertEqual(self.store.named("recover"), [])
        self.now += 5.1
        self.step([], lost=True)
        self.assertEqual(len(self.store.named("recover")), 1)

    def test_a_late_heartbeat_extends_nothing(self):
        self.step()
        self.now += 7.4
        self.step()
        self.assertEqual(self.store.named("extend_leases"), [])

    def test_a_store_that_is_away_at_the_start_forgives_nobody(self):
        self.store.answers["heartbeat"] = [LayerUnavailable("away")]
        self.assertRaises(LayerUnavailable, self.leases.step)
        self.now += 100
        self.step([], lost=True)
        self.assertEqual(self.store.named("extend_leases", "recover"), [])


class DelayTests(StepCase):
    def test_nothing_is_sent_before_it_is_due(self):
        self.leases.send_due()
        self.leases.expect(3.0)
        self.assertFalse(self.leases.is_due())
        self.now += 3.0
        self.assertTrue(self.leases.is_due())

    def test_the_store_is_asked_now_and_then_although_nothing_told_of_it(self):
        self.leases.send_due()
        self.now += 4.9
        self.assertFalse(self.leases.is_due())
        self.now += 0.2
        self.assertTrue(self.leases.is_due())

    def test_all_that_is_due_is_sent_and_full_channels_are_counted(self):
        self.store.answers["send_due"] = [Due(1, 0), Due(2, 0), Due(0, 4.0)]
        self.leases.send_due()
        self.assertEqual(len(self.store.named("send_due")), 3)
        self.assertEqual(self.layer.statistics(), {"delayed_full": 3})
        self.assertFalse(self.leases.is_due())
        self.now += 4.0
        self.assertTrue(self.leases.is_due())

    def test_a_message_delayed_while_the_store_looks_is_not_forgotten(self):
        for found, seconds in ((None, 1.0), (4.0, 1.0), (0.5, 0.5)):

            def look(found=found):
                self.leases.expect(1.0)
                return Due(0, found)

            self.store.answers["send_due"] = [look]
            self.leases.send_due()
            self.assertFalse(self.leases.is_due(), found)
            self.now += seconds
            self.assertTrue(self.leases.is_due(), found)

    def test_what_could_not_be_sent_is_tried_again_at_once(self):
        self.store.answers["send_due"] = [LayerUnavailable("away")]
        self.assertRaises(LayerUnavailable, self.leases.send_due)
        self.assertTrue(self.leases.is_due())

    def test_a_message_that_the_store_tells_of_is_looked_for_after_a_pause(self):
        self.store.due_pause = 0.5
        self.leases.send_due()
        self.store.wake_due()
        self.leases._wait(self.now + 5)
        self.assertFalse(self.leases.is_due())
        self.now += 0.5
        self.assertTrue(self.leases.is_due())

    def test_only_an_earlier_message_wakes_the_thread(self):
        self.leases.send_due()
        with mock.patch.object(self.store, "wake_due") as wake:
            self.leases.expect(5.0)
            self.leases.expect(6.0)
            self.assertEqual(wake.call_count, 1)
            self.leases.expect(1.0)
            self.assertEqual(wake.call_count, 2)


class ThreadTests(unittest.TestCase):
    """The thread itself, over a store whose heartbeats are quick."""

    def setUp(self):
        self.layer = FakeLayer(starts=True, heartbeat=0.02, lease=60)
        self.store, self.leases = self.layer.store, self.layer.leases
        self.addCleanup(self.leases.stop)

    def beats(self):
        return len(self.store.named("heartbeat"))

    def test_an_outage_is_logged_once_and_so_is_its_end(self):
        self.store.answers["heartbeat"] = [LayerUnavailable("away")] * 3
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.leases.start()
            wait_until(lambda: self.beats() >= 5)
        lines = [each for each in logs.output if "reached" in each]
        self.assertEqual(len(lines), 2, logs.output)
        self.assertIn("cannot be reached: away", lines[0])
        self.assertIn("can be reached again", lines[1])

    def test_a_bug_is_logged_and_the_thread_continues(self):
        self.store.answers["heartbeat"] = [ZeroDivisionError("a bug")]
        with self.assertLogs(LOGGER, "ERROR"):
            self.leases.start()
            wait_until(lambda: self.beats() >= 3)
        self.assertTrue(self.leases.runs)

    def test_the_first_start_counts(self):
        self.leases.start()
        thread = self.leases._thread
        self.leases.start()
        self.assertIs(self.leases._thread, thread)

    def test_stop_ends_a_waiting_thread_at_once_for_good(self):
        self.layer = FakeLayer(starts=True, heartbeat=600, lease=6000)
        self.layer.leases.start()
        wait_until(lambda: self.layer.store.named("heartbeat"))
        self.layer.leases.stop()
        self.assertFalse(self.layer.leases.runs)
        self.layer.leases.start()
        self.assertFalse(self.layer.leases.runs)

    def test_leaving_ends_the_lease_of_the_process_and_stops_its_renewal(self):
        process = self.leases.process
        self.leases.leave()
        self.assertEqual(self.store.named("leave"), [(process,)])
        count = self.beats()
        wait_until(lambda: self.beats() > count + 1)
        self.assertEqual(self.store.named("heartbeat")[-1], ([],))
        self.leases.leave()
        self.assertEqual(len(self.store.named("leave")), 1)
