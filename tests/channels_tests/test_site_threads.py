"""The threads in which the event loop runs blocking code of the site: sharing, and database connections."""

import threading
import unittest
from unittest import mock

from django.channels import site_threads
from django.channels.site_threads import SiteThread, SiteThreads

from .support.waiting import TIMEOUT, wait_until


class SiteThreadsTests(unittest.TestCase):
    def setUp(self):
        self._released = []
        patch = mock.patch.object(
            site_threads,
            "release_connections",
            lambda: self._released.append(threading.current_thread()),
        )
        patch.start()
        self.addCleanup(patch.stop)
        self.threads = SiteThreads(2)
        self.addCleanup(self.threads.end)

    @property
    def released(self):
        """The names of the threads of this pool that have released their connections."""
        # Loops of other tests may end meanwhile.
        own = set().union(*(executor._threads for executor, _ in self.threads._used))
        return [thread.name for thread in self._released if thread in own]

    @staticmethod
    def thread():
        return threading.current_thread().name

    def event(self):
        """Return the thread of an event, and its name, which a call has found out."""
        found = SiteThread(self.threads)
        return found, found.submit(self.thread).result(TIMEOUT)

    def test_the_end_of_an_event_leaves_the_connections_of_others_that_share_its_thread(self):
        (one, name), (two, _), (three, shared) = [self.event() for _ in range(3)]
        self.assertEqual(shared, name)
        one.close()
        three.submit(int).result(TIMEOUT)
        self.assertEqual(self.released, [])
        three.close()
        wait_until(lambda: self.released, "the release")
        self.assertEqual(self.released, [name])
        two.close()

    def test_an_event_that_begins_meanwhile_keeps_its_connections(self):
        entry = self.threads.acquire()
        go_on = threading.Event()
        entry[0].submit(go_on.wait, TIMEOUT)
        self.threads.release(entry)
        self.assertIs(self.threads.acquire(), entry)
        go_on.set()
        entry[0].submit(int).result(TIMEOUT)
        self.assertEqual(self.released, [])

    def test_a_call_after_the_end_of_its_event_holds_no_thread(self):
        one, _ = self.event()
        one.close()
        one.submit(int).result(TIMEOUT)
        self.assertEqual([number for _, number in self.threads._used], [0])
        wait_until(
            lambda: len(self.released) == 2, "the connections of the late call to be released"
        )
