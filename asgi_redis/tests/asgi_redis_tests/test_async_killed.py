"""Worker processes that are killed while asynchronous consumers run, on Redis."""

import unittest

from channels_tests.support.redis_server import RedisServer
from channels_tests.test_async_killed import KilledTests

from .test_standalone import RedisLayerCase


class OnRedis:
    """Settings of a project on the shared server."""

    def layer_settings(self, config):
        config = dict(config, hosts=[RedisServer.shared().url])
        return """
CHANNEL_LAYERS["default"]["BACKEND"] = "asgi_redis.RedisChannelLayer"
CHANNEL_LAYERS["default"]["CONFIG"] = %r
""" % (config,)


class RedisTests(KilledTests, OnRedis, RedisLayerCase, unittest.TestCase):
    pass
