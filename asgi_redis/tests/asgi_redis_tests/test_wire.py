"""Which connections are used directly, and what closes one. Lost and late replies: test_lost_replies.py."""

import asyncio
import unittest
from unittest import mock

import redis
import redis.asyncio
from asgi_redis.wire import (
    AsyncRedisPyWire,
    RedisPyWire,
    SocketWire,
    TransportWire,
    make_async_wire,
    make_wire,
)
from redis.exceptions import InvalidResponse, RedisError

from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import SCALE, TIMEOUT

from .test_standalone import RedisLayerCase

PING = [("PING",)]

#: Seconds within which a server answers at once, also on a busy machine.
SHORT = 0.25 * SCALE


class Derived(redis.Connection):
    """As Sentinel's: it may do more with a reply."""


class BlockingTests(unittest.TestCase):
    def connect(self, kind=redis.Connection, **options):
        connection = kind(host="127.0.0.1", port=RedisServer.shared().port, protocol=2, **options)
        connection.connect()
        self.addCleanup(connection.disconnect)
        return make_wire(connection)

    def test_only_connections_that_do_nothing_more_are_used_directly(self):
        self.assertIsInstance(self.connect(), SocketWire)
        self.assertIsInstance(self.connect(Derived), RedisPyWire)
        self.assertIsInstance(self.connect(health_check_interval=10), RedisPyWire)
        with mock.patch("asgi_redis.wire.pack_command", None):
            self.assertIsInstance(self.connect(), RedisPyWire)

    def test_a_connection_that_keeps_its_socket_elsewhere_is_used_in_redis_pys_way(self):
        for kind in (redis.Connection, redis.asyncio.Connection):
            unknown = kind(host="127.0.0.1")  # not connected: no socket is found where it's kept
            make = make_wire if kind is redis.Connection else make_async_wire
            self.assertIn(type(make(unknown)), (RedisPyWire, AsyncRedisPyWire))

    def test_both_ways_give_the_same_replies(self):
        commands = [
            ("ECHO", "x" * 100000),
            ("NOSUCHCOMMAND",),
            ("GET", "no-such-key"),
            ("EVALSHA", "0" * 40, 0),
            ("EVAL", "return {1, 'two', {'three', false}}", 0),
        ]
        found = []
        for kind in (redis.Connection, Derived):
            replies = self.connect(kind).exchange(commands)
            found.append([repr(each) for each in replies])
        self.assertEqual(found[0], found[1])

    def test_the_deadline_of_one_exchange_does_not_stay(self):
        wire = self.connect(socket_timeout=TIMEOUT)
        self.assertEqual(wire.exchange([("BLPOP", "nothing", 0.01)], TIMEOUT / 2), [None])
        self.assertEqual(wire.connection._sock.gettimeout(), TIMEOUT)

    def test_a_server_that_closes_raises(self):
        for kind in (redis.Connection, Derived):
            wire = self.connect(kind)
            with self.assertRaises((RedisError, OSError)):
                wire.exchange([("QUIT",), ("PING",)])


class LoopTests(unittest.TestCase):
    def run_with(self, check, kind=redis.asyncio.Connection, **options):
        """Run `check(wire)` with a wire on a new connection."""

        async def run():
            port = RedisServer.shared().port
            connection = kind(host="127.0.0.1", port=port, protocol=2, **options)
            await connection.connect()
            try:
                await check(make_async_wire(connection))
            finally:
                await connection.disconnect(nowait=True)

        asyncio.run(asyncio.wait_for(run(), TIMEOUT))

    def test_only_connections_that_do_nothing_more_are_used_directly(self):
        class Other(redis.asyncio.Connection):
            pass

        async def direct(wire):
            self.assertIsInstance(wire, TransportWire)

        async def other(wire):
            self.assertIsInstance(wire, AsyncRedisPyWire)
            self.assertEqual(await wire.exchange(PING, None), [b"PONG"])

        self.run_with(direct)
        self.run_with(other, Other)
        self.run_with(other, health_check_interval=10)

    def test_a_reply_to_no_command_ends_the_connection(self):
        async def check(wire):
            wire._transport.write(b"PING\r\n")
            while wire._error is None:
                await asyncio.sleep(0.001)
            with self.assertRaises(InvalidResponse):
                await wire.exchange(PING, None)

        self.run_with(check)

    def test_a_server_that_closes_raises(self):
        async def check(wire):
            with self.assertRaises(redis.exceptions.ConnectionError):
                await wire.exchange([("QUIT",), ("PING",)], None)
            with self.assertRaises(redis.exceptions.ConnectionError):
                await wire.exchange(PING, None)

        self.run_with(check)

    def test_a_shorter_deadline_is_kept_after_a_longer_one(self):
        async def check(wire):
            await wire.exchange(PING, 1000.0)
            with self.assertRaisesRegex(redis.exceptions.TimeoutError, "no reply"):
                await wire.exchange([("BLPOP", "nothing", 1000)], 0.01)

        self.run_with(check)

    def test_a_longer_deadline_is_kept_after_a_shorter_one(self):
        async def check(wire):
            await wire.exchange(PING, SHORT)
            longer = [("BLPOP", "nothing", 2 * SHORT)]
            self.assertEqual(await wire.exchange(longer, TIMEOUT), [None])

        self.run_with(check)

    def test_without_a_time_out_no_exchange_ends_early(self):
        async def check(wire):
            await wire.exchange(PING, SHORT)
            longer = [("BLPOP", "nothing", 2 * SHORT)]
            self.assertEqual(await wire.exchange(longer, None), [None])

        self.run_with(check, socket_timeout=None)

    def test_each_reply_extends_the_deadline(self):
        async def check(wire):
            pauses = [("BLPOP", "nothing", SHORT)] * 4
            self.assertEqual(await wire.exchange(pauses, 3 * SHORT), [None] * 4)

        self.run_with(check)


class LayerTests(RedisLayerCase, unittest.TestCase):
    def test_a_layer_uses_its_connections_directly(self):
        servers = self.make_layer().store.servers

        async def check():
            link = servers.link(blocks=False)
            await link.connect()
            self.assertIsInstance(link._wire, TransportWire)
            await link.close()

        asyncio.run(check())
        servers.call(("PING",))
        self.assertIsInstance(servers._free[0][0], SocketWire)
