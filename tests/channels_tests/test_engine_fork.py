"""A child process waits for no lock that a thread of its parent holds: the child lacks that thread."""

import os
import shutil
import tempfile
import threading
import unittest

from django.channels.layers.base import BaseChannelLayer
from django.channels.layers.database.layer import DatabaseChannelLayer
from django.channels.layers.memory import MemoryChannelLayer

from .fake_store import FakeLayer

LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
PACKAGES = (BaseChannelLayer.__module__.partition(".layers")[0], FakeLayer.__module__)


def locks_of(thing, path="layer", seen=None):
    """Return {path: lock} of the locks to which the objects of the package that `thing` leads to have."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return {}
    seen[id(thing)] = thing
    if isinstance(thing, LOCKS):
        return {path: thing}
    if isinstance(thing, threading.Event):
        return {path: thing._cond}
    parts = {}
    if isinstance(thing, dict):
        parts = {"%s[%r]" % (path, key): value for key, value in thing.items()}
    elif isinstance(thing, (list, tuple)):
        parts = {"%s[%d]" % (path, index): value for index, value in enumerate(thing)}
    elif type(thing).__module__.startswith(PACKAGES):
        parts = {"%s.%s" % (path, key): value for key, value in vars(thing).items()}
    found = {}
    for name, part in parts.items():
        found.update(locks_of(part, name, seen))
    return found


class ForkTests(unittest.TestCase):
    def check(self, layer):
        self.assertEqual(layer.receive_many(["work"]), (None, None))
        locks = locks_of(layer)
        self.assertGreater(len(locks), 3)

        def hold():
            for lock in locks.values():
                lock.acquire()

        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
        layer.after_fork()
        held = [path for path, lock in locks_of(layer).items() if not lock.acquire(blocking=False)]
        for path, lock in locks_of(layer).items():
            if path not in held:
                lock.release()
        self.assertEqual(held, [])
        layer.close()  # not if a lock is held, for which it would wait

    def test_of_a_layer_on_the_engine(self):
        self.check(FakeLayer())

    def test_of_a_layer_in_memory(self):
        self.check(MemoryChannelLayer())

    def test_of_a_layer_over_sqlite(self):
        folder = tempfile.mkdtemp(prefix="channels-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.check(DatabaseChannelLayer(file=os.path.join(folder, "layer.sqlite3")))
