"""The database layer and a server that stays silent: each call raises, and works when the server is back."""

import asyncio
import time
import unittest

from django.channels.exceptions import LayerUnavailable
from django.channels.layers.database import DatabaseChannelLayer
from django.core.exceptions import ImproperlyConfigured
from django.db import connections as aliases

from .support.aliases import add_alias, mariadb_alias, postgresql_alias, remove_alias
from .support.proxy import Proxy
from .support.waiting import SCALE, TIMEOUT, wait_until
from .test_database_layer import SQLiteCase


class SilenceTests:
    """`alias` goes through `proxy`."""

    socket_timeout = 0.5 * SCALE

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        settings = dict(aliases.databases[cls.direct_alias()])
        cls.proxy = Proxy(int(settings["PORT"]))
        settings["PORT"] = str(cls.proxy.port)
        settings["OPTIONS"] = dict(settings["OPTIONS"], connect_timeout=2)
        cls.alias = add_alias("channels_" + cls.__name__, settings)

    @classmethod
    def tearDownClass(cls):
        remove_alias(cls.alias)
        cls.proxy.close()
        super().tearDownClass()

    def setUp(self):
        self.layer = self.make_layer()
        self.layer.flush()
        self.addCleanup(self.proxy.resume)

    def make_layer(self, **config):
        layer = DatabaseChannelLayer(
            database=self.alias,
            socket_timeout=self.socket_timeout,
            heartbeat=20,
            lease=60,
            **config,
        )
        self.addCleanup(layer.close)
        return layer

    def assertRaisesSoon(self, call, *args):
        began = time.monotonic()
        with self.assertRaises(LayerUnavailable) as raised:
            call(*args)
        self.assertLess(time.monotonic() - began, self.socket_timeout + 2 + TIMEOUT / 2)
        return str(raised.exception)

    def test_each_call_raises_when_the_server_stays_silent(self):
        layer = self.layer
        layer.claim("consumer", ["work"])
        for directions in ({}, {"requests": False}):
            for call in (
                lambda: layer.send("work", {}),
                lambda: layer.claim("consumer", ["work"]),
                lambda: layer.group_add("room", "work"),
                lambda: layer.store.heartbeat(["a"]),
                layer.store.send_due,
            ):
                self.proxy.resume()
                wait_until(lambda: self.works(layer), "the server to be back")
                self.proxy.stall(**directions)
                text = self.assertRaisesSoon(call)
                self.assertIn("did not answer within %g seconds" % self.socket_timeout, text)
        # And while a new connection is opened.
        self.assertRaisesSoon(layer.send, "work", {})
        self.proxy.resume()
        wait_until(lambda: self.works(layer), "the server to be back")

    def works(self, layer):
        try:
            layer.group_channels("room")
            return True
        except LayerUnavailable:
            return False

    def test_a_look_at_whole_tables_may_take_longer(self):
        with self.layer.store.connections.long_timeout():
            self.sleep(3 * self.socket_timeout)
        with self.assertRaises(LayerUnavailable):
            self.sleep(3 * self.socket_timeout)
        self.layer.store.sweep()

    def sleep(self, seconds):
        statement = "SELECT %s(%g)" % (self.sleep_function, seconds)
        self.layer.store.connections.statement(lambda each: each.rows(statement))

    def test_a_gateway_gets_what_was_sent_while_its_connections_were_cut(self):
        async def live():
            inbox = self.layer.open_inbox("gateway.a!")
            found = []
            for number in range(1, 16):
                self.insist(self.layer.deliver, "gateway.a!1", {"n": number}, str(number))
                self.proxy.cut()
            while len(found) < 15:
                try:
                    found += [each["n"] for _, each in await inbox.receive() if "n" in each]
                except LayerUnavailable:
                    pass
            await inbox.close()
            return found

        found = asyncio.run(asyncio.wait_for(live(), TIMEOUT))
        self.assertEqual(found, list(range(1, 16)))

    def insist(self, call, channel, message, send_id):
        while True:
            try:
                return call(channel, message, send_id=send_id)
            except LayerUnavailable:
                time.sleep(0.01)


class PostgreSQLSilenceTests(SilenceTests, unittest.TestCase):
    sleep_function = "pg_sleep"
    direct_alias = staticmethod(postgresql_alias)


class MariaDBSilenceTests(SilenceTests, unittest.TestCase):
    sleep_function = "sleep"
    direct_alias = staticmethod(mariadb_alias)


class OptionTests(SQLiteCase, unittest.TestCase):
    def test_a_time_out_that_cannot_be_kept_is_refused(self):
        for value in (0, -1, "5", True):
            with self.subTest(value), self.assertRaisesRegex(
                ImproperlyConfigured, "socket_timeout"
            ):
                self.make_layer(socket_timeout=value)
        with self.assertRaisesRegex(ImproperlyConfigured, "for servers"):
            self.make_layer(socket_timeout=5).store  # noqa: B018
