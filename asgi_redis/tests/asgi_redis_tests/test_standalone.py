"""The conformance suite on one Redis server, with msgpack alone and with encryption."""

import unittest

from django.channels.test.conformance import LayerConformance

from asgi_redis import RedisChannelLayer
from channels_tests.support.redis_server import RedisServer


def key(name):
    """Return an encryption key that is long enough."""
    return name + " for the tests of asgi_redis"


class RedisLayerCase:
    """Makes layers on the shared server, and closes them."""

    config = {}
    busy = {"heartbeat": 0.1, "lease": 0.5}

    def make_layer(self, **config):
        options = dict(self.config, **config)
        layer = RedisChannelLayer(**dict({"hosts": [RedisServer.shared().url]}, **options))
        layer.alias = "default"
        self.addCleanup(layer.close)
        return layer


class StandaloneTests(RedisLayerCase, LayerConformance, unittest.TestCase):
    pass


class PartitionsTests(RedisLayerCase, LayerConformance, unittest.TestCase):
    """One server, but keys in many partitions: as on a cluster, and every step that crosses them."""

    config = {"partitions": 8}


class EncryptionTests(RedisLayerCase, LayerConformance, unittest.TestCase):
    config = {"symmetric_encryption_keys": [key("conformance")]}
