"""Settings that were written for asgi_redis 1.x."""

import unittest

from django.channels.checks import check_channel_layers
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from asgi_redis import RedisChannelLayer, RedisLocalChannelLayer, RedisSentinelChannelLayer
from channels_tests.support.redis_server import RedisServer

from .test_topologies import SentinelTopology


class SentinelSettingsTests(SentinelTopology, unittest.TestCase):
    def test_messages_pass_through_the_primary(self):
        layer = RedisSentinelChannelLayer(
            hosts=[("127.0.0.1", self.sentinel.port)],
            services=["mymaster"],
            sentinel_refresh_interval=5,
        )
        self.addCleanup(layer.close)
        layer.flush()
        layer.send("test.x", {"number": 1})
        self.assertEqual(layer.receive_many(["test.x"]), ("test.x", {"number": 1}))


class LocalSettingsTests(unittest.TestCase):
    def test_messages_are_in_redis(self):
        hosts = [RedisServer.shared().url]
        local, remote = RedisLocalChannelLayer(hosts=hosts), RedisChannelLayer(hosts=hosts)
        self.addCleanup(local.close)
        self.addCleanup(remote.close)
        local.flush()
        local.send("http.request", {"path": "/"})
        self.assertEqual(remote.receive_many(["http.request"]), ("http.request", {"path": "/"}))


class SettingsTests(SimpleTestCase):
    def check(self, backend, **config):
        layers = {"default": {"BACKEND": backend, "CONFIG": config}}
        with override_settings(CHANNEL_LAYERS=layers):
            return check_channel_layers(None)

    def test_each_name_and_its_options_pass_the_check(self):
        shared = {
            "prefix": "asgi:",
            "expiry": 60,
            "group_expiry": 86400,
            "capacity": 100,
            "channel_capacity": {"http.request": 200, "http.response!*": 10},
            "stats_prefix": "asgi-meta:",
            "connection_kwargs": {"socket_timeout": 5, "socket_keepalive": True},
        }
        host = {"hosts": ["redis://:secret@127.0.0.1:6379/0"]}
        sentinel = {
            "hosts": [("10.0.0.1", 26379), ("10.0.0.2", 26379)],
            "services": ["local"],
            "sentinel_refresh_interval": 5,
        }
        for backend, config in (
            ("asgi_redis.RedisChannelLayer", host),
            ("asgi_redis.core.RedisChannelLayer", host),
            ("asgi_redis.RedisLocalChannelLayer", host),
            ("asgi_redis.local.RedisLocalChannelLayer", host),
            ("asgi_redis.RedisSentinelChannelLayer", sentinel),
            ("asgi_redis.sentinel.RedisSentinelChannelLayer", sentinel),
        ):
            with self.subTest(backend=backend):
                self.assertEqual(self.check(backend, **shared, **config), [])

    def test_a_list_of_services_that_is_not_one_is_refused_with_the_remedy(self):
        for services in (None, [], ["shard1", "shard2"]):
            with self.subTest(services=services):
                with self.assertRaisesRegex(ImproperlyConfigured, r"services=\['mymaster'\]"):
                    RedisSentinelChannelLayer(hosts=[("10.0.0.1", 26379)], services=services)
                (problem,) = self.check(
                    "asgi_redis.RedisSentinelChannelLayer", services=services or []
                )
                self.assertIn("services names", problem.msg)

    def test_one_service_may_be_text(self):
        layer = RedisSentinelChannelLayer(services="mymaster")
        self.assertIn("mymaster", layer.store.servers.where)
