"""The conformance suite on one Redis server, with msgpack alone and with encryption."""

import unittest
from unittest import mock

from asgi_redis.direct import Direct, DirectLink
from django.channels.test.conformance import LayerConformance
from redis.crc import key_slot

from asgi_redis import RedisChannelLayer
from channels_tests.support.redis_server import RedisServer


def key(name):
    """Return an encryption key that is long enough."""
    return name + " for the tests of asgi_redis"


class OneSlot:
    """What every command of our scripts must keep to: a Cluster refuses keys of several slots."""

    @classmethod
    def setUpClass(cls):
        cls._crossing = set()
        cls._checks = []
        for kind in (Direct, DirectLink):
            check = mock.patch.object(kind, "_exchange", cls._checked(kind._exchange))
            check.start()
            cls._checks.append(check)
        super().setUpClass()

    @classmethod
    def _checked(cls, exchange):
        def checked(link, connection, commands, *args, **options):
            for command in commands:
                if command[0] in ("EVALSHA", "EVAL"):
                    keys = command[3 : 3 + int(command[2])]
                    slots = {
                        key_slot(key.encode() if isinstance(key, str) else key) for key in keys
                    }
                    if len(slots) > 1:
                        cls._crossing.add(tuple(keys))
            return exchange(link, connection, commands, *args, **options)

        return checked

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for check in cls._checks:
            check.stop()
        if cls._crossing:
            raise AssertionError("keys of several slots in one command: %s" % cls._crossing)


class RedisLayerCase(OneSlot):
    """Makes layers on the shared server, and closes them."""

    config = {}
    busy = {"heartbeat": 0.1, "lease": 60}

    def make_layer(self, **config):
        options = dict(self.config, **config)
        layer = RedisChannelLayer(**dict({"hosts": [RedisServer.shared().url]}, **options))
        layer.alias = "default"
        self.addCleanup(layer.close)
        return layer


class SharedServerTests(unittest.TestCase):
    """In either order, the second test meets nothing that the first one left."""

    def leave(self, name):
        for number in (0, 3):
            client = RedisServer.shared().client(db=number)
            self.addCleanup(client.close)
            self.assertEqual(client.keys("*"), [])
            client.set(name, 1)

    def test_a_test_meets_no_key_of_another(self):
        self.leave("one")

    def test_another_test_meets_no_key_either(self):
        self.leave("another")


class StandaloneTests(RedisLayerCase, LayerConformance, unittest.TestCase):
    pass


class PartitionsTests(RedisLayerCase, LayerConformance, unittest.TestCase):
    """One server, but keys in many partitions: as on a cluster, and every step that crosses them."""

    config = {"partitions": 8}


class EncryptionTests(RedisLayerCase, LayerConformance, unittest.TestCase):
    config = {"symmetric_encryption_keys": [key("conformance")]}
