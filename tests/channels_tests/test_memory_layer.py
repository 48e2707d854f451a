"""The in-memory layer keeps the contract of a channel layer."""

import unittest

from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test.conformance import LayerConformance


class MemoryLayerConformanceTests(LayerConformance, unittest.TestCase):
    shortest_expiry = 0.2

    def make_layer(self, **config):
        return MemoryChannelLayer(**config)
