"""A Redis that can be read and takes no writes: it is out of memory, or lacks the replicas that it needs."""

import asyncio
import socket
import threading
import time
import unittest
import urllib.error
import urllib.request
from unittest import mock

from django.channels.exceptions import LayerUnavailable, NotSent
from django.channels.layers import base

from asgi_redis import inbox as redis_inbox
from asgi_redis import sending as redis_sending
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import TIMEOUT, wait_until

from .test_processes import ProcessesCase
from .test_standalone import RedisLayerCase

#: By a word of the remedy: the option of the server, and its values that refuse and allow writes.
CAUSES = {
    "out of memory": ("maxmemory", "1mb", "0"),
    "too few replicas": ("min-replicas-to-write", "1", "0"),
}


class InboxTests(RedisLayerCase, unittest.TestCase):
    def setUp(self):
        for module, name in (
            (redis_inbox, "ASK_INTERVAL"),
            (redis_inbox, "WAIT"),
            (redis_sending, "RETRY_INTERVAL"),
            (base, "UNSENT_TIMEOUT"),
        ):
            patcher = mock.patch.object(module, name, 0.05)
            patcher.start()
            self.addCleanup(patcher.stop)
        self.server = RedisServer(maxmemory_policy="noeviction").start()
        self.addCleanup(self.server.stop)
        self.layer = self.make_layer(hosts=[self.server.url], heartbeat=60, lease=180)

    def for_each_cause(self, scenario):
        """Run `scenario(inbox, cause, refuse, allow)`: the last two have the server refuse writes, or not."""
        for cause in CAUSES:
            with self.subTest(cause=cause):
                asyncio.run(self.run_scenario(scenario, cause))

    async def run_scenario(self, scenario, cause):
        client, (option, refusing, allowing) = self.server.client(), CAUSES[cause]
        inbox = self.layer.open_inbox("gateway.x!")
        reading = asyncio.ensure_future(inbox.receive())
        try:
            await self.until(lambda: inbox._registered)
            await scenario(
                inbox,
                cause,
                lambda: client.config_set(option, refusing),
                lambda: client.config_set(option, allowing),
            )
        finally:
            client.config_set(option, allowing)
            await asyncio.wait({reading}, timeout=0)
            reading.cancel()
            await inbox.close()

    async def until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            await asyncio.sleep(0.01)

    async def received(self, inbox):
        """Return what `inbox` receives next."""
        return await asyncio.wait_for(inbox.receive(), TIMEOUT)

    def test_a_gateway_that_sends_nothing_is_told_with_the_remedy(self):
        async def scenario(inbox, cause, refuse, allow):
            refuse()
            with self.assertRaisesRegex(LayerUnavailable, cause):
                await self.received(inbox)
            self.assertIsNotNone(inbox.unsent_since)
            self.assertIsNone(inbox.failing_since, "it can be read")
            allow()
            await self.until(lambda: self.layer.send("gateway.x!1", {"n": 1}) is None)
            while True:
                try:
                    self.assertEqual(await self.received(inbox), [("gateway.x!1", {"n": 1})])
                    break
                except LayerUnavailable:
                    pass  # it was refused just before
            await self.reads(inbox)
            self.assertIsNone(inbox.unsent_since)

        self.for_each_cause(scenario)

    async def reads(self, inbox):
        """Wait until `inbox` has asked the server once more."""
        asked, reading = inbox._asked_at, asyncio.ensure_future(inbox.receive())
        await self.until(lambda: inbox._asked_at > asked and inbox.unsent_since is None)
        reading.cancel()

    def test_an_outage_does_not_outlast_its_end_in_a_gateway_that_sends_nothing(self):
        async def scenario(inbox, cause, refuse, allow):
            refuse()
            with mock.patch.object(base, "UNSENT_TIMEOUT", 1000.0):
                reading = asyncio.ensure_future(inbox.receive())
                await self.until(lambda: inbox.unsent_since is not None)
                allow()
                await self.until(lambda: inbox.unsent_since is None)
            self.assertFalse(reading.done(), "there was no need to tell")
            reading.cancel()

        self.for_each_cause(scenario)

    def test_what_the_server_refused_counts_as_not_sent(self):
        async def scenario(inbox, cause, refuse, allow):
            refuse()
            failed = []
            inbox.send("test.x", {"number": 1}, failed.append)
            await self.until(lambda: failed)
            self.assertIsInstance(failed[0], NotSent)
            self.assertIn(cause, str(failed[0]))
            allow()
            self.assertEqual(self.layer.receive_many(["test.x"]), (None, None))

        self.for_each_cause(scenario)

    def test_wills_that_the_server_refused_are_set_and_cleared_later(self):
        async def scenario(inbox, cause, refuse, allow):
            client, key = self.server.client(), inbox._wills_key

            def stored():
                return sorted(client.hkeys(key))

            inbox.set_will("gateway.x!1", ("test.gone", {"number": 1}))
            inbox.set_will("gateway.x!2", ("test.gone", {"number": 2}))
            await self.until(lambda: len(stored()) == 2)
            refuse()
            inbox.clear_will("gateway.x!1")
            inbox.set_will("gateway.x!3", ("test.gone", {"number": 3}))
            inbox.set_will("gateway.x!4", ("test.gone", {"number": 4}))
            await self.until(lambda: inbox._writing is None)
            inbox.clear_will("gateway.x!4")
            await self.until(lambda: inbox._writing is None)
            self.assertEqual(stored(), [b"gateway.x!1", b"gateway.x!2"])
            allow()
            await self.until(lambda: stored() == [b"gateway.x!2", b"gateway.x!3"])
            await self.until(lambda: not inbox._work and inbox._writing is None)

        self.for_each_cause(scenario)

    def test_what_is_pending_is_tried_again_once_however_many_sends_are_refused(self):
        async def scenario(inbox, cause, refuse, allow):
            refuse()
            loop, failed = asyncio.get_event_loop(), []
            with mock.patch.object(loop, "call_later", wraps=loop.call_later) as call_later:
                with mock.patch.object(redis_sending, "RETRY_INTERVAL", 1234.0):
                    inbox.set_will("gateway.x!1", ("test.gone", {"number": 1}))
                    for number in range(10):
                        inbox.send("test.x", {"number": number}, failed.append)
                        await self.until(lambda number=number: len(failed) > number)
                        await self.until(lambda: inbox._writing is None)
            delays = [call[0][0] for call in call_later.call_args_list]
            self.assertEqual(delays.count(1234.0), 1)

        self.for_each_cause(scenario)

    def test_an_unreadable_message_becomes_one_dead_letter_later(self):
        async def scenario(inbox, cause, refuse, allow):
            known = len(self.layer.dead_letters())
            refuse()
            with self.assertLogs("django.channels.layers", "ERROR") as logs:
                inbox._dead_letter("gateway.x!1", b"gateway.x!1\nnonsense", ValueError("nonsense"))
                await self.until(lambda: inbox._writing is None)
                self.assertEqual(len(self.layer.dead_letters()), known)
                allow()
                await self.until(lambda: len(self.layer.dead_letters()) > known)
                await self.until(lambda: inbox._writing is None)
            self.assertEqual(len(self.layer.dead_letters()), known + 1)
            self.assertEqual(len(logs.output), 1)

        self.for_each_cause(scenario)


class LeaseTests(RedisLayerCase, unittest.TestCase):
    def test_the_lease_of_a_gateway_is_renewed_while_the_memory_is_full(self):
        server = RedisServer(maxmemory_policy="noeviction").start()
        self.addCleanup(server.stop)
        layer = self.make_layer(hosts=[server.url], heartbeat=60, lease=180)

        async def run():
            inbox = layer.open_inbox("gateway.x!")
            reading = asyncio.ensure_future(inbox.receive())
            server.client().config_set("maxmemory", "1mb")
            before = server.client().zscore(layer.store.keys.leases, "g:" + inbox.gateway)
            layer.leases._reached = time.monotonic() - 1000  # all leases are extended first
            with self.assertLogs("django.channels.layers", "WARNING"):
                layer.leases.step()
            after = server.client().zscore(layer.store.keys.leases, "g:" + inbox.gateway)
            self.assertGreater(after, before)
            reading.cancel()
            server.client().config_set("maxmemory", "0")
            await inbox.close()

        asyncio.run(run())


class SiteTests(ProcessesCase):
    """A gateway under uvicorn and a worker, with leases that are shorter than the outage."""

    def status(self, gateway, path, statuses):
        try:
            with urllib.request.urlopen(gateway.url(path), timeout=TIMEOUT) as response:
                statuses[path] = response.status
        except urllib.error.HTTPError as error:
            statuses[path] = error.code
            error.close()
        except (OSError, socket.timeout) as error:
            statuses[path] = repr(error)

    def test_each_request_is_answered_and_sockets_stay_open_while_the_memory_is_full(self):
        gateway, worker = self.gateway(), self.worker()
        client, statuses = self.redis.client(), {}
        open_socket = self.socket(gateway)
        waiting = threading.Thread(target=self.status, args=(gateway, "/?sleep=1", statuses))
        waiting.start()
        worker.wait_for_output("asleep")
        client.config_set("maxmemory", "1mb")
        open_socket.send("hello")
        self.status(gateway, "/", statuses)
        waiting.join(TIMEOUT)
        self.assertEqual(statuses, {"/": 503, "/?sleep=1": 502})
        new = self.socket(gateway)
        self.assertEqual(self.close_code(new), 1013)
        gateway.wait_for_output("it is out of memory .maxmemory.: give it more")
        client.config_set("maxmemory", "0")
        self.assertEqual(open_socket.recv(), "echo: hello")
        wait_until(lambda: self.status(gateway, "/", statuses) or statuses["/"] == 200, "a page")
        self.assertNotIn("lost its data", gateway.output)
