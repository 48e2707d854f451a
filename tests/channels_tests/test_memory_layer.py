"""The in-memory layer keeps the contract of a channel layer."""

import asyncio
import threading
import unittest
from types import SimpleNamespace
from unittest import mock

from django.channels.layers import memory
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.test.conformance import LayerConformance

from .support.waiting import TIMEOUT, wait_until


class MemoryLayerConformanceTests(LayerConformance, unittest.TestCase):
    shortest_expiry = 0.2

    def make_layer(self, **config):
        return MemoryChannelLayer(**config)


class WaitingReaderTests(unittest.TestCase):
    def test_two_readers_of_a_process_local_channel_are_both_woken(self):
        self.check("local.x!a")

    def test_two_readers_of_all_of_it_too(self):
        self.check("local.x!")

    def check(self, wanted):
        layer = MemoryChannelLayer()
        layer.block_for = 10 * TIMEOUT
        found = []

        def read():
            found.append(layer.receive_many([wanted], block=True)[1])

        readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
        for reader in readers:
            reader.start()
        wait_until(lambda: len(layer._waiters) == 2)
        with layer._lock:  # both, before the first reader looks
            layer._put("local.x!a", {"number": 1})
            layer._put("local.x!a", {"number": 2})
        for reader in readers:
            reader.join(TIMEOUT)
        self.assertEqual(sorted(each["number"] for each in found), [1, 2])


class ExpiryTests(unittest.TestCase):
    def test_events_of_sockets_outlast_a_time_without_workers(self):
        layer = MemoryChannelLayer(expiry=60)
        for channel in ("http.request", "websocket.receive", "websocket.disconnect"):
            layer.deliver(channel, {"channel": channel})
        later = memory.time.monotonic() + 3600
        with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
            for channel in ("websocket.receive", "websocket.disconnect"):
                self.assertEqual(layer.receive_many([channel])[0], channel)
            self.assertEqual(layer.receive_many(["http.request"]), (None, None))

    def test_the_gateway_is_told_of_an_event_that_nobody_took_in_time(self):
        async def received():
            layer = MemoryChannelLayer(channel_expiry={"websocket.*": 60})
            inbox = layer.open_inbox("gateway.test!")
            event = {"reply_channel": "gateway.test!7", "exchange": 3}
            layer.deliver("websocket.receive", event)
            layer.deliver("websocket.receive", {"text": "of no connection"})
            with mock.patch.object(memory, "time", SimpleNamespace(monotonic=lambda: later)):
                self.assertEqual(layer.receive_many(["websocket.receive"]), (None, None))
            self.assertEqual(layer.statistics()["expired"], 2)
            return await asyncio.wait_for(inbox.receive(), TIMEOUT)

        later = memory.time.monotonic() + 61
        self.assertEqual(asyncio.run(received()), [("gateway.test!7", {"lost": 3})])
