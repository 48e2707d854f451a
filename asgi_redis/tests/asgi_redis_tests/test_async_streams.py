"""Clients of token streams that leave or read nothing, and workers that end meanwhile, on Redis."""

import unittest

from channels_tests.test_async_streams import StreamTests

from .test_async_killed import OnRedis
from .test_standalone import RedisLayerCase


class RedisTests(StreamTests, OnRedis, RedisLayerCase, unittest.TestCase):
    pass
