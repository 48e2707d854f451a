"""The example layer of the guide "Write a layer" keeps the contract of a channel layer."""

import os
import shutil
import tempfile
import unittest

from django.channels.test.conformance import LayerConformance
from django.core.exceptions import ImproperlyConfigured

from .example_layer import DirectoryChannelLayer
from .support.waiting import TIMEOUT, wait_until


@unittest.skipIf(DirectoryChannelLayer is None, "the example locks files with fcntl")
class DirectoryLayerTests(LayerConformance, unittest.TestCase):
    shortest_expiry = 0.2
    busy = {"heartbeat": 0.05, "lease": 60}
    timeout = 6 * TIMEOUT  # each step writes the whole file anew

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="channels-directory-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        super().setUp()

    def make_layer(self, **config):
        layer = DirectoryChannelLayer(directory=self.directory, **config)
        self.addCleanup(layer.close)
        return layer

    def test_the_example_is_short(self):
        path = os.path.join(os.path.dirname(__file__), "directory_layer.py")
        with open(path, encoding="utf-8") as file:
            self.assertLessEqual(len(file.readlines()), 300)

    def test_a_missing_directory_is_refused(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "directory"):
            DirectoryChannelLayer()

    def test_a_closed_layer_polls_no_more(self):
        layer = self.make_layer()
        layer.block_for = 0.1

        def poller_of():
            layer.receive_many(["test"], block=True)  # if it still waits, it starts the polls
            return layer.store._poller

        poller = wait_until(poller_of, "the polls to begin")
        self.assertTrue(poller.is_alive())
        layer.close()
        self.assertFalse(poller.is_alive())
