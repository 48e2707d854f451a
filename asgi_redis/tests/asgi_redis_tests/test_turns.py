"""Requests of clients take turns from the first one on: what holds on every layer."""

import unittest

from channels_tests.test_turns import CrossingTests

from .test_standalone import RedisLayerCase


class RedisTests(CrossingTests, RedisLayerCase, unittest.TestCase):
    pass
