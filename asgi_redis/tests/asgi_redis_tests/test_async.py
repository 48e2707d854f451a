"""Asynchronous consumers on Redis: what holds on every layer."""

import asyncio
import unittest

from asgi_redis import prefetch, scripts
from channels_tests.support.waiting import wait_until
from channels_tests.test_async_layers import AsyncLayerTests

from .test_standalone import RedisLayerCase


class RedisTests(AsyncLayerTests, RedisLayerCase, unittest.TestCase):
    def test_many_are_claimed_and_acknowledged_in_few_round_trips(self):
        event, claims, answers = asyncio.Event(), [], []

        async def consumer(message):
            self.gates[:] = [(asyncio.get_event_loop(), event)]
            self.seen.append(message["text"])
            await event.wait()
            message.reply_channel.send({"text": "done " + message["text"]})

        clients = [self.send(number) for number in range(56)]
        group = self.start(consumer, threads=1, start=False)
        store = group.channel_layer.store
        store._monitor.watch = lambda consumer: None  # however slow this machine is

        def counting(call):
            def count(commands):
                several = commands if isinstance(commands, list) else [commands]
                replies = call(commands)
                last = several[-1]
                if last[1] == scripts.ALL["claim"].sha:
                    claims.extend([1] if len(replies) > 1 else [])
                elif last[0] == "HDEL":
                    answers.append(len(last) - 2)
                return replies

            return count

        for name in ("call", "call_many"):
            setattr(store.servers, name, counting(getattr(store.servers, name)))
        group.start()
        wait_until(lambda: len(self.seen) == 56, "all consumers to wait")
        self.assertEqual(len(claims), prefetch.QUICK_RUNS + 48 // prefetch.LIMIT)
        self.open()
        for number, client in enumerate(clients):
            self.assertEqual(self.answers(client)[-1]["replies"], [{"text": "done %d" % number}])
        wait_until(lambda: not self.held(), "the claims to end")
        self.assertEqual(sum(answers), 56)
        self.assertLess(len(answers), 8)


class PartitionsTests(AsyncLayerTests, RedisLayerCase, unittest.TestCase):
    config = {"partitions": 8}
