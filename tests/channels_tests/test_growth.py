"""What a layer remembers doesn't grow with the consumers, channels and groups of the past."""

import asyncio
import collections
import contextlib
import shutil
import tempfile
import unittest
from unittest import mock

from django.channels.layers import names
from django.channels.layers.database import capacity, claiming
from django.channels.layers.memory import MemoryChannelLayer

from .example_layer import DirectoryChannelLayer
from .support.waiting import wait_until
from .test_database_layer import SQLiteCase

#: How many of each come and go while the size is measured. Much more than any of these layers' threads.
NUMBER = 150

#: Entries that may come without being growth: a timer, a cached channel, the connections of two threads.
SLACK = 60


def entries(root):
    """Return the number of entries in all containers that `root` and the objects of this project hold."""
    total, seen, left = 0, set(), [root]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            total += len(each)
            left += each.values()
        elif isinstance(each, (list, tuple, set, frozenset, collections.deque)):
            total += len(each)
            left += each
        elif type(each).__module__.startswith(("channels", "django.channels", "django_channels")):
            left.append(getattr(each, "__dict__", {}))
            for kind in type(each).__mro__:
                names = getattr(kind, "__slots__", ())
                names = (names,) if isinstance(names, str) else names
                left += [getattr(each, name, None) for name in names]
    return total


class GrowthCase:
    def setUp(self):
        super().setUp()
        self.layer = self.make_layer()
        self.addCleanup(self.layer.close)
        self.layer.flush()  # of what another test left in a file that the class shares

    def assert_constant(self, step, number=NUMBER):
        """Check that the layer holds no more after `number` calls of `step(index)` than after the first."""
        for index in range(5):
            step(index)
        before = entries(self.layer)
        for index in range(5, 5 + number):
            step(index)
        # A thread of the layer may hold a few for a moment.
        wait_until(lambda: entries(self.layer) <= before + SLACK, "no more entries than before")

    def test_consumers_that_acknowledge_are_forgotten(self):
        def step(number):
            self.layer.send("growth", {"number": number})
            name, message = self.layer.claim("consumer-%d" % number, ["growth"])
            self.assertEqual(message, {"number": number})
            self.layer.acknowledge("consumer-%d" % number)

        self.assert_constant(step)

    def test_consumers_that_find_nothing_are_forgotten(self):
        self.assert_constant(lambda number: self.layer.claim("consumer-%d" % number, ["growth"]))

    def test_consumers_that_requeue_are_forgotten(self):
        def step(number):
            self.layer.claim("consumer-%d" % number, ["growth"])
            self.layer.requeue("consumer-%d" % number)

        self.layer.send("growth", {})
        self.assert_constant(step)

    @contextlib.contextmanager
    def few_are_remembered(self):
        """Make the bounds of what is remembered by name small."""
        with mock.patch.object(claiming, "MAX_KINDS", 5), mock.patch.object(
            capacity, "MAX_QUEUES", 5
        ), mock.patch.object(names, "MAX_REMEMBERED", 5):
            yield

    def test_channels_that_were_polled_are_forgotten(self):
        with self.few_are_remembered():
            self.assert_constant(lambda number: self.layer.receive_many(["growth-%d" % number]))

    def test_channels_that_were_sent_to_are_forgotten(self):
        def step(number):
            name = "growth-%d" % number
            self.layer.send(name, {"number": number})
            self.assertEqual(self.layer.receive_many([name]), (name, {"number": number}))

        with self.few_are_remembered():
            self.assert_constant(step)

    def test_members_and_groups_that_left_are_forgotten(self):
        def step(number):
            self.layer.group_add("group-%d" % number, "channel-%d" % number)
            self.layer.group_discard("group-%d" % number, "channel-%d" % number)

        self.assert_constant(step)

    def test_inboxes_that_closed_are_forgotten(self):
        async def step(number):
            await self.layer.open_inbox("gateway.test%d!" % number).close()

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        self.assert_constant(lambda number: loop.run_until_complete(step(number)), number=50)


class MemoryGrowthTests(GrowthCase, unittest.TestCase):
    make_layer = MemoryChannelLayer


@unittest.skipIf(DirectoryChannelLayer is None, "the example locks files with fcntl")
class DirectoryGrowthTests(GrowthCase, unittest.TestCase):
    def make_layer(self):
        directory = tempfile.mkdtemp(prefix="channels-directory-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return DirectoryChannelLayer(directory=directory)


class SQLiteGrowthTests(SQLiteCase, GrowthCase, unittest.TestCase):
    pass
