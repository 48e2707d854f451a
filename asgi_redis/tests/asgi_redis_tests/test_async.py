"""Asynchronous consumers on Redis: what holds on every layer."""

import unittest

from channels_tests.test_async_layers import AsyncLayerTests

from .test_standalone import RedisLayerCase


class RedisTests(AsyncLayerTests, RedisLayerCase, unittest.TestCase):
    pass


class PartitionsTests(AsyncLayerTests, RedisLayerCase, unittest.TestCase):
    config = {"partitions": 8}
