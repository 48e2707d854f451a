"""Waiting for one event of a server without a task."""

import asyncio
import unittest

from django.channels.gateway.watch import Watch, receives_in_any_task


class WatchTests(unittest.TestCase):
    def run_with(self, scenario):
        asyncio.run(scenario())

    def test_the_event_is_told_when_it_comes(self):
        async def scenario():
            events, told = asyncio.Queue(), []
            Watch(events.get(), told.append)
            self.assertEqual(told, [])
            events.put_nowait("gone")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.assertEqual(told, ["gone"])

        self.run_with(scenario)

    def test_an_event_that_is_there_is_told_at_once(self):
        async def scenario():
            events, told = asyncio.Queue(), []
            events.put_nowait("gone")
            Watch(events.get(), told.append)
            self.assertEqual(told, ["gone"])

        self.run_with(scenario)

    def test_nothing_is_told_after_cancel(self):
        for comes_first in (False, True):

            async def scenario(comes_first=comes_first):
                events, told = asyncio.Queue(), []
                watch = Watch(events.get(), told.append)
                if comes_first:  # the call is on its way
                    events.put_nowait("gone")
                watch.cancel()
                watch.cancel()
                events.put_nowait("gone")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.assertEqual(told, [])

            self.run_with(scenario)

    def test_an_error_and_an_unusual_wait_are_told_as_none(self):
        async def fails():
            raise RuntimeError("broken")

        async def sleeps():
            await asyncio.sleep(0)

        async def scenario():
            for function in (fails, sleeps):
                told = []
                Watch(function(), told.append)
                self.assertEqual(told, [None])

        self.run_with(scenario)

    def test_only_uvicorns_own_receive_is_known(self):
        class RequestResponseCycle:
            async def receive(self):
                pass

        class Other(RequestResponseCycle):
            pass

        self.assertFalse(receives_in_any_task(RequestResponseCycle().receive))
        RequestResponseCycle.__module__ = "uvicorn.protocols.http.h11_impl"
        RequestResponseCycle.__qualname__ = "RequestResponseCycle"
        self.assertTrue(receives_in_any_task(RequestResponseCycle().receive))
        self.assertFalse(receives_in_any_task(Other().receive))
        self.assertFalse(receives_in_any_task(lambda: None))
