"""Worker processes that are killed while asynchronous consumers run, on Redis."""

import unittest

from channels_tests.support.redis_server import RedisServer
from channels_tests.test_async_killed import KilledTests

from .test_standalone import RedisLayerCase


class OnRedis:
    """
    Settings of a project on the shared server. By default it would have the prefix that other tests use as
    another project, and Redis remembers for a minute whose a prefix is.
    """

    def layer_settings(self, config):
        config = dict({"prefix": "project:"}, **config)
        config["hosts"] = [RedisServer.shared().url]
        return """
CHANNEL_LAYERS["default"]["BACKEND"] = "asgi_redis.RedisChannelLayer"
CHANNEL_LAYERS["default"]["CONFIG"] = %r
""" % (config,)

    def stored_wills(self, channel):
        """Return how many last wills on a channel the layer has."""
        call = self.layer.store.servers.call
        wills = [each for key in call(("KEYS", "*h:gateway.*")) for each in call(("HVALS", key))]
        return sum(each.partition(b"\n")[0].endswith(b":" + channel.encode()) for each in wills)


class RedisTests(KilledTests, OnRedis, RedisLayerCase, unittest.TestCase):
    pass
