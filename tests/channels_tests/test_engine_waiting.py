"""Readers that wait: what ends a wait, and which reader a change wakes."""

import threading
import unittest

from django.channels.layers.engine.waiting import CHANGED, TIMEOUT, WOKEN, Waiters

from .support.waiting import TIMEOUT as LONG
from .support.waiting import wait_until


class WaitTests(unittest.TestCase):
    def setUp(self):
        self.waiters = Waiters()

    def begin(self, consumer=None):
        """Start a thread that waits for "work"; return it and the list of how its wait ends."""
        count, ends = len(self.waiters._waiters), []

        def run():
            ends.append(self.waiters.wait(("work",), self.waiters.version, LONG, consumer))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        wait_until(lambda: len(self.waiters._waiters) == count + 1)
        return thread, ends

    def end(self, begun):
        thread, ends = begun
        thread.join(2 * LONG)
        return ends

    def now(self, consumer=None):
        """A wait of zero seconds."""
        return self.waiters.wait(("work",), self.waiters.version, 0, consumer)

    def test_a_wait_in_which_nothing_happens_ends_by_its_time(self):
        self.assertEqual(self.now(), TIMEOUT)
        self.assertEqual(self.now("worker"), TIMEOUT)

    def test_a_change_after_the_look_ends_a_wait_at_once(self):
        version = self.waiters.version
        self.waiters.changed()
        self.assertEqual(self.waiters.wait(("work",), version, LONG), CHANGED)

    def test_wake_ends_the_next_wait_of_its_consumer_alone_and_once(self):
        self.waiters.wake("worker")
        self.assertEqual([self.now("other"), self.now()], [TIMEOUT, TIMEOUT])
        self.assertEqual([self.now("worker"), self.now("worker")], [WOKEN, TIMEOUT])

    def test_wake_ends_a_wait_that_has_begun_and_no_later_one(self):
        begun = self.begin("worker")
        self.waiters.wake("worker")
        self.assertEqual(self.end(begun), [WOKEN])
        self.assertEqual(self.now("worker"), TIMEOUT)

    def test_a_change_wakes_one_reader_and_what_it_found_the_next(self):
        first, last = self.begin(), self.begin()
        self.waiters.changed(["other"])
        self.assertEqual(len(self.waiters._waiters), 2)
        self.waiters.changed(["work"])
        self.assertEqual(self.end(last), [CHANGED])
        self.assertEqual((first[1], self.waiters.wanted()), ([], {"work"}))
        self.waiters.found(("work",))
        self.assertEqual(self.end(first), [CHANGED])

    def test_a_reader_that_will_not_look_hands_the_change_on(self):
        other, woken = self.begin(), self.begin("worker")
        with self.waiters._lock:  # both, before the reader can go on
            self.waiters._release(self.waiters._waiters[-1], CHANGED)
            self.waiters._woken.add("worker")
        self.assertEqual(self.end(woken), [WOKEN])
        self.assertEqual(self.end(other), [CHANGED])

    def test_a_reader_that_is_only_woken_hands_nothing_on(self):
        other, woken = self.begin(), self.begin("worker")
        self.waiters.wake("worker")
        self.assertEqual(self.end(woken), [WOKEN])
        self.assertEqual((other[1], self.waiters.wanted()), ([], {"work"}))
        self.waiters.changed()
        self.assertEqual(self.end(other), [CHANGED])
