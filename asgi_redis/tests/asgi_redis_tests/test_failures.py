"""What the layer does and logs when Redis is missing, old, full, read-only, or refuses the log-in."""

import asyncio
import os
import socket
import threading
import time
import unittest

from django.core.exceptions import ImproperlyConfigured

from asgi_redis import RedisChannelLayer
from channels_tests.support.ports import free_port
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import SCALE, TIMEOUT, wait_until

from .test_recovery import start_lease
from .test_standalone import RedisLayerCase, key


class FailuresTests(RedisLayerCase, unittest.TestCase):
    def assertUnavailable(self, layer, pattern):
        """Every call says so, and none hangs."""
        for call in (
            lambda: layer.send("test.x", {}),
            lambda: layer.receive_many(["test.x"], block=True),
            lambda: layer.claim("slot", ["test.x"], block=True),
            lambda: layer.group_add("group", "test.x"),
            lambda: layer.send_group("group", {}),
            lambda: layer.flush(),
            lambda: layer.global_statistics(),
            lambda: layer.send_later("test.x", {}, 1),
        ):
            with self.assertRaisesRegex(layer.LayerUnavailable, pattern):
                call()

    def start(self, **options):
        server = RedisServer(**options).start()
        self.addCleanup(server.stop)
        return server

    def test_no_server(self):
        layer = self.make_layer(hosts=[("127.0.0.1", free_port())])
        began = time.monotonic()
        self.assertUnavailable(layer, "(?i)refused")
        self.assertLess(time.monotonic() - began, TIMEOUT)
        layer.wake("slot")  # no thread is left to wake

    def test_no_cluster(self):
        url = "redis://127.0.0.1:%d" % free_port()
        layer = self.make_layer(hosts=[url], cluster=True, socket_connect_timeout=0.5)
        self.assertUnavailable(layer, "127.0.0.1")

    def test_a_server_that_never_answers(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(8)
            layer = self.make_layer(
                hosts=["redis://127.0.0.1:%d" % listener.getsockname()[1]],
                socket_timeout=0.1,
                socket_connect_timeout=0.1,
            )
            self.assertUnavailable(layer, "(?i)time")

    def test_a_server_that_stops_answering(self):
        server = self.start()
        layer = self.make_layer(hosts=[server.url], socket_timeout=0.5 * SCALE)
        layer.send("test.x", {})
        os.kill(server.process.pid, 19)  # SIGSTOP
        try:
            with self.assertRaisesRegex(layer.LayerUnavailable, "(?i)time"):
                layer.send("test.x", {})
        finally:
            os.kill(server.process.pid, 18)  # SIGCONT
        layer.send("test.x", {})

    def test_a_server_that_is_too_old(self):
        server = OldServer("6.0.16")
        self.addCleanup(server.close)
        layer = self.make_layer(hosts=[("127.0.0.1", server.port)])
        self.assertUnavailable(layer, "6.0.16 is too old: asgi_redis needs Redis 6.2")

    def test_a_wrong_password(self):
        server = self.start(requirepass="right")
        for url in (server.url, server.url.replace("//", "//:wrong@")):
            layer = self.make_layer(hosts=[url])
            self.assertUnavailable(layer, "password")
        layer = self.make_layer(hosts=[server.url.replace("//", "//:right@")])
        layer.send("test.x", {})

    def test_a_read_only_replica_and_its_promotion(self):
        primary = self.start()
        replica = self.start(replicaof="127.0.0.1 %d" % primary.port)
        layer = self.make_layer(hosts=[replica.url])
        for _ in range(2):
            with self.assertRaisesRegex(layer.LayerUnavailable, "read-only replica"):
                layer.send("test.x", {})
        replica.client().replicaof("NO", "ONE")
        layer.send("test.x", {})
        self.assertEqual(layer.receive_many(["test.x"]), ("test.x", {}))

    def test_out_of_memory(self):
        server = self.start(maxmemory_policy="noeviction")
        layer = self.make_layer(hosts=[server.url])
        layer.send("test.x", {"number": 1})
        server.client().config_set("maxmemory", "1mb")
        with self.assertRaisesRegex(layer.LayerUnavailable, "out of memory"):
            for _ in range(90):
                layer.send("test.y", {"text": "x" * 100000})
        # What is there can be handled, leases go on, and then there is room again.
        layer.leases.step()
        self.assertEqual(layer.claim("slot", ["test.x"])[1], {"number": 1})
        layer.acknowledge("slot")
        server.client().config_set("maxmemory", "0")
        layer.send("test.x", {})

    def test_a_server_that_comes_back(self):
        server = self.start()
        layer = self.make_layer(hosts=[server.url])
        layer.send("test.x", {})
        server.kill()
        with self.assertRaises(layer.LayerUnavailable):
            layer.send("test.x", {})
        server.start()
        layer.send("test.x", {})
        self.assertEqual(layer.receive_many(["test.x"]), ("test.x", {}))

    def test_a_claim_that_waits_when_the_server_goes(self):
        server = self.start()
        layer = self.make_layer(hosts=[server.url])
        error = []

        def claim():
            try:
                layer.claim("slot", ["test.x"], block=True)
            except layer.LayerUnavailable as caught:
                error.append(caught)

        thread = threading.Thread(target=claim)
        thread.start()
        client = server.client()
        wait_until(
            lambda: any(each["cmd"] == "blpop" for each in client.client_list()), "it to wait"
        )
        server.kill()
        thread.join(TIMEOUT)
        self.assertEqual(len(error), 1)

    def test_a_gateway_may_start_before_its_server(self):
        server = RedisServer()
        self.addCleanup(server.stop)
        layer = self.make_layer(hosts=[server.url], heartbeat=0.1, lease=1)

        async def run():
            inbox = layer.open_inbox("gateway.early!")
            try:
                with self.assertRaises(layer.LayerUnavailable):
                    await asyncio.wait_for(inbox.receive(), TIMEOUT)
                server.start()
                reading = asyncio.ensure_future(inbox.receive())
                loop = asyncio.get_event_loop()
                await loop.run_in_executor(
                    None, lambda: wait_until(lambda: inbox.leased, "its lease")
                )
                layer.send("gateway.early!1", {"number": 1})
                return await asyncio.wait_for(reading, TIMEOUT)
            finally:
                await inbox.close()

        self.assertEqual(asyncio.run(run()), [("gateway.early!1", {"number": 1})])

    def test_an_inbox_that_may_not_be_read_names_the_remedy(self):
        server = self.start()
        words = "SETUSER", "channels", "on", ">secret", "~*", "+@all", "-xread"
        server.client().execute_command("ACL", *words)
        layer = self.make_layer(hosts=["redis://channels:secret@127.0.0.1:%d" % server.port])

        async def run():
            inbox = layer.open_inbox("gateway.x!")
            try:
                with self.assertRaisesRegex(layer.LayerUnavailable, "ACL"):
                    await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()

        asyncio.run(run())

    def test_scripts_that_the_server_forgot(self):
        layer = self.make_layer()
        layer.flush()
        layer.send("test.x", {})

        async def run():
            inbox = layer.open_inbox("gateway.x!")
            failed = []
            inbox.send("test.x", {}, failed.append)
            while inbox._writing is not None:
                await asyncio.sleep(0.01)
            layer.store.servers.call(("SCRIPT", "FLUSH"))
            inbox.send("test.x", {}, failed.append)
            while inbox._writing is not None:
                await asyncio.sleep(0.01)
            await inbox.close()
            return failed

        self.assertEqual(asyncio.run(run()), [])
        layer.store.servers.call(("SCRIPT", "FLUSH"))
        for _ in range(3):
            self.assertEqual(layer.receive_many(["test.x"]), ("test.x", {}))


class OldServer:
    """Answers INFO as a Redis of that version would, and everything else with OK."""

    def __init__(self, version):
        self._info = b"# Server\r\nredis_version:%s\r\n" % version.encode()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(8)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            while True:
                head = lines.readline()
                if not head:
                    return
                words = []
                for _ in range(int(head[1:])):
                    words.append(lines.read(int(lines.readline()[1:]) + 2)[:-2])
                if words[0].upper() == b"INFO":
                    connection.sendall(b"$%d\r\n%s\r\n" % (len(self._info), self._info))
                else:
                    connection.sendall(b"+OK\r\n")


class SettingsTests(unittest.TestCase):
    def test_what_channels_1_accepted(self):
        RedisChannelLayer(
            hosts=[("localhost", 6379)],
            prefix="asgi:",
            expiry=60,
            group_expiry=86400,
            capacity=100,
            channel_capacity={"http.request": 200, "http.response*": 10},
            symmetric_encryption_keys=[key("secret")],
        )
        RedisChannelLayer()
        self.assertEqual(RedisChannelLayer(CAPACITY=7).capacity, 7)
        RedisChannelLayer(hosts=["unix:///run/redis.sock?db=1"])
        RedisChannelLayer(hosts=[{"address": "redis://localhost"}])

    def test_what_cannot_work_is_told_with_the_remedy(self):
        for config, text in (
            ({"hosts": ["redis://a", "redis://b"]}, "cluster=True"),
            ({"hosts": [5]}, "list of URLs"),
            ({"hosts": ["localhost:6379"]}, "list of URLs"),
            ({"sentinels": [("a", 1)]}, "service"),
            ({"sentinels": [("a", 1)], "service": "x", "hosts": ["redis://a"]}, "either"),
            ({"sentinels": ["a"], "service": "x"}, "list of \\(host, port\\)"),
            ({"prefix": "my{site}"}, "braces"),
            ({"partitions": 0.5}, "partitions"),
            ({"heartbeat": 5, "lease": 6}, "3 heartbeats"),
            ({"symmetric_encryption_keys": "abc"}, "list"),
            ({"partitons": 2}, "Did you mean 'partitions'"),
        ):
            with self.subTest(config=config):
                with self.assertRaisesRegex(ImproperlyConfigured, text):
                    RedisChannelLayer(**config)


class NeighboursTests(RedisLayerCase, unittest.TestCase):
    def test_flush_leaves_other_applications_alone(self):
        client = RedisServer.shared().client()
        layers = [self.make_layer(prefix=prefix) for prefix in ("site", "site:", "site*", "site#0")]
        for layer in layers:
            layer.send("test.x", {})
        client.set("site:of-somebody-else", 1)
        client.set("{site", 1)
        self.addCleanup(client.delete, "site:of-somebody-else", "{site")
        for index, layer in enumerate(layers):
            layer.flush()
            for number, other in enumerate(layers):
                pending = other.channel_statistics("test.x")["messages_pending"]
                self.assertEqual(pending, 0 if number <= index else 1, (index, number))
        self.assertEqual(client.exists("site:of-somebody-else", "{site"), 2)

    def test_nothing_is_left_of_channels_that_nobody_reads(self):
        layer = self.make_layer(prefix="leftovers:", expiry=60)
        self.addCleanup(layer.flush)
        for _ in range(3):
            layer.send(layer.new_channel("test.body?"), {})
        layer.send(layer.new_channel("test.local!"), {})
        keys = layer.store.servers.scan("*leftovers:*")
        self.assertEqual(len(keys), 9)  # a queue and a wake list each, and which project it is
        for each in keys:
            self.assertLess(0, layer.store.servers.call(("PTTL", each)))


class ForkTests(RedisLayerCase, unittest.TestCase):
    def test_a_child_has_a_lease_of_its_own(self):
        layer = self.make_layer(prefix="fork:", heartbeat=0.1, lease=SCALE)
        layer.flush()
        layer.send("test.fork", {"number": 1})
        layer.claim("slot", ["test.fork"])
        layer.send("test.fork", {"number": 2})
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if layer.claim("slot", ["test.fork"])[1] == {"number": 2}:
                    status = 0 if layer.leases.runs else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(layer.global_statistics()["messages_held"], 2)
        start_lease(layer)
        # The child sends no heartbeats any more; the parent still holds its lease.
        wait_until(layer.dead_letters, "the child's message")
        self.assertEqual(layer.dead_letters()[0].message, {"number": 2})
        self.assertEqual(layer.global_statistics()["messages_held"], 1)
        layer.flush()
