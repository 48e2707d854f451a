"""
The conformance suite's tests of leases and wills: what becomes of a killed worker's messages, and of a killed
gateway's connections.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ...protocol import (
    EVENT_ID,
    HTTP_REQUEST,
    REDELIVERED,
    REPLY_CHANNEL,
    WEBSOCKET_DISCONNECT,
    lost,
)
from .case import LayerCase

if TYPE_CHECKING:
    from ...layers.base import BaseChannelLayer, Inbox, Message

Result = TypeVar("Result")


class DeathCase(LayerCase):
    """`self.layer` is that of a process which survives, with short leases."""

    deaths = 0

    def survive(self, **config: Any) -> None:
        """Use a layer with these options, and notice the death of other processes soon."""
        self.need("leases")
        # What becomes of the dead is logged, and would fill the output of the tests.
        logger = logging.getLogger("django.channels.layers")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        self.lease_options = dict(self.short_leases, **config)
        self.layer = self.make_layer(**self.lease_options)
        self.layer.block_for = 0.05

    def until_recovered(self, condition: Callable[[], Result]) -> Result:
        """Return the first true result of `condition()`. Meanwhile, live as a worker without work does."""

        def look() -> Result:
            self.layer.claim("survivor", ["test.quiet"], block=True)
            return condition()

        return self.until(look)

    def start_worker(self, *channels: str) -> int:
        """Start a process that claims a message of each channel, each with its own consumer."""
        DeathCase.deaths += 1
        names = ["consumer-%d-%d" % (DeathCase.deaths, index) for index in range(len(channels))]

        def work(layer: BaseChannelLayer) -> None:
            for name, channel in zip(names, channels):
                if not self.until(lambda: layer.claim(name, [channel], block=True)[1]):  # noqa: B023
                    raise AssertionError("no message of %s to claim" % channel)

        return self.start_process(work, **self.lease_options)

    def die_with(self, *channels: str) -> None:
        """Have a worker claim a message of each channel, and kill it."""
        self.kill(self.start_worker(*channels))

    def receive_soon(self, channel: str) -> Message:
        """Return the next message of `channel`, which comes when a dead process has been recovered."""
        found = self.until_recovered(lambda: self.layer.receive_many([channel])[1])
        if found is None:
            self.fail("nothing came on %s" % channel)
        return found


class LeaseTests(DeathCase):
    """A killed worker's message is reported, redelivered or dead-lettered; a living one's is not."""

    def test_an_event_of_a_killed_worker_is_reported_to_its_gateway_once(self) -> None:
        self.survive()
        self.layer.send(HTTP_REQUEST, {REPLY_CHANNEL: "test.gateway!1", EVENT_ID: 7})
        self.die_with(HTTP_REQUEST)
        self.assertEqual(self.receive_soon("test.gateway!"), lost(7))
        self.assertNothing("test.gateway!")
        self.assertNothing(HTTP_REQUEST)

    def test_a_disconnect_of_a_killed_worker_is_redelivered_first_and_marked(self) -> None:
        self.survive()
        self.layer.send(WEBSOCKET_DISCONNECT, {"number": 1})
        worker = self.start_worker(WEBSOCKET_DISCONNECT)
        self.layer.send(WEBSOCKET_DISCONNECT, {"number": 2})
        self.kill(worker)
        pending = "messages_pending"
        if "statistics" in self.layer.extensions:
            statistics = self.layer.channel_statistics
            self.until_recovered(lambda: statistics(WEBSOCKET_DISCONNECT)[pending] >= 2)
        first = self.receive_soon(WEBSOCKET_DISCONNECT)
        self.assertEqual(first, {"number": 1, REDELIVERED: True})
        self.assertEqual(self.receive_soon(WEBSOCKET_DISCONNECT), {"number": 2})
        self.assertNothing(WEBSOCKET_DISCONNECT)

    def test_the_policy_of_redelivery_goes_by_pattern(self) -> None:
        self.survive(lost={"test.retry.*": "retry"})
        self.layer.send("test.retry.a", {"number": 1})
        self.die_with("test.retry.a")
        self.assertEqual(self.receive_soon("test.retry.a"), {"number": 1, REDELIVERED: True})

    def test_a_message_that_is_lost_three_times_is_not_redelivered(self) -> None:
        self.survive(lost={"test.retry": "retry"})
        self.layer.send("test.retry", {"number": 1})
        statistics = self.layer.channel_statistics
        for _ in range(2):
            self.die_with("test.retry")
            self.until_recovered(lambda: statistics("test.retry")["messages_pending"])
        self.die_with("test.retry")
        letters = self.until_recovered(self.layer.dead_letters)
        self.assertEqual([each.message for each in letters], [{"number": 1}])
        self.assertNothing("test.retry")

    def test_messages_of_a_living_worker_stay_its_own(self) -> None:
        self.survive(lost={"test.*": "retry"})
        for number in (1, 2):
            self.layer.send("test.work", {"number": number})
        living = self.start_worker("test.work")
        # Its lease began before that of the one that is killed now, and is renewed.
        self.die_with("test.work")
        self.assertEqual(self.receive_soon("test.work"), {"number": 2, REDELIVERED: True})
        self.assertNothing("test.work")
        self.kill(living)
        self.assertEqual(self.receive_soon("test.work"), {"number": 1, REDELIVERED: True})

    def test_an_acknowledged_message_is_not_redelivered(self) -> None:
        self.survive(lost={"test.*": "retry"})
        for number in (1, 2):
            self.layer.send("test.work", {"number": number})

        def work(layer: BaseChannelLayer) -> None:
            for _ in range(2):  # the second claim acknowledges the first
                self.until(lambda: layer.claim("consumer-ack", ["test.work"], block=True)[1])

        self.kill(self.start_process(work, **self.lease_options))
        self.assertEqual(self.receive_soon("test.work"), {"number": 2, REDELIVERED: True})
        self.assertNothing("test.work")

    def test_several_survivors_recover_each_message_once(self) -> None:
        self.survive(lost={"test.*": "retry"})
        for number in range(3):
            self.layer.send("test.work", {"number": number})
        self.die_with(*["test.work"] * 3)
        others = [self.make_layer(**self.lease_options) for _ in range(2)]
        for index, layer in enumerate(others):
            layer.claim("survivor-%d" % index, ["test.quiet"])
        found = [self.receive_soon("test.work")["number"] for _ in range(3)]
        self.assertEqual(sorted(found), [0, 1, 2])
        self.assertNothing("test.work")

    def test_a_process_that_closes_its_layer_is_not_recovered(self) -> None:
        self.survive(lost={"test.*": "retry"})
        for number in (1, 2):
            self.layer.send("test.work", {"number": number})
        leaving = self.make_layer(**self.lease_options)
        leaving.claim("consumer-leaving", ["test.work"])
        leaving.acknowledge("consumer-leaving")
        leaving.close()
        self.die_with("test.work")
        self.assertEqual(self.receive_soon("test.work"), {"number": 2, REDELIVERED: True})
        self.assertNothing("test.work")


class WillTests(DeathCase):
    """The wills of a gateway's open connections are sent once when it dies or closes."""

    def with_gateway(self, layer: BaseChannelLayer, live: Callable[[Inbox], None]) -> None:
        """Run `live(inbox)` in a gateway on `layer`, and return when the layer has all that it sent."""

        async def run() -> None:
            inbox = layer.open_inbox("test.gateway!")
            live(inbox)
            inbox.send("test.gateway!", {"last": True}, self.fail)
            received: list[Any] = []
            while ("test.gateway!", {"last": True}) not in received:
                received += await asyncio.wait_for(inbox.receive(), self.timeout)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(run())  # and the loop is left open, as that of a killed gateway is

    def set_wills(self, inbox: Inbox) -> None:
        """Set four wills; the layer owes those of connections 1 and 2."""
        for number in (1, 2, 3):
            inbox.set_will("test.gateway!%d" % number, ("test.will", {"number": number}))
        inbox.set_will("test.gateway!2", ("test.will", {"number": 2, "later": True}))
        inbox.clear_will("test.gateway!3")

    def assertWills(self) -> None:
        wills = [self.receive_soon("test.will") for _ in range(2)]
        self.assertEqual(
            sorted(wills, key=lambda will: int(will["number"])),
            [{"number": 1}, {"number": 2, "later": True}],
        )
        self.assertNothing("test.will")

    def test_the_wills_of_a_killed_gateway_are_sent_once(self) -> None:
        self.need("wills")
        self.survive()
        gateway = self.start_process(
            lambda layer: self.with_gateway(layer, self.set_wills), **self.lease_options
        )
        self.assertNothing("test.will")
        self.kill(gateway)
        self.assertWills()

    def test_a_will_that_is_cleared_later_is_not_sent(self) -> None:
        self.need("wills")
        self.survive()

        def work(layer: BaseChannelLayer) -> None:
            def live(inbox: Inbox) -> None:
                self.set_wills(inbox)
                inbox.set_will("test.gateway!4", ("test.will", {"number": 4}))

            async def run() -> None:
                inbox = layer.open_inbox("test.gateway!")
                live(inbox)
                for number in range(2):
                    inbox.send("test.gateway!", {"number": number}, self.fail)
                    await asyncio.wait_for(inbox.receive(), self.timeout)
                    inbox.clear_will("test.gateway!4")

            asyncio.new_event_loop().run_until_complete(run())

        self.kill(self.start_process(work, **self.lease_options))
        self.assertWills()

    def test_wills_find_no_channel_full(self) -> None:
        self.need("wills")
        self.survive(capacity=1)
        gateway = self.start_process(
            lambda layer: self.with_gateway(layer, self.set_wills), **self.lease_options
        )
        self.kill(gateway)
        self.assertWills()

    def test_an_orderly_close_sends_the_wills_of_open_connections(self) -> None:
        self.need("wills")
        self.survive()

        async def run() -> None:
            inbox = self.layer.open_inbox("test.gateway!")
            self.set_wills(inbox)
            await inbox.close()

        asyncio.run(run())
        self.assertWills()

    def test_the_readers_of_bodies_and_windows_get_the_wills_for_them(self) -> None:
        self.need("wills")
        self.survive()
        channels = ["test.body?%d" % number for number in range(20)]
        local = ["test.window!%d" % number for number in range(3)]

        async def run() -> None:
            inbox = self.layer.open_inbox("test.gateway!")
            for channel in channels + local:
                inbox.set_will(channel, (channel, {"end": channel}))
            await inbox.close()

        asyncio.run(run())
        found = [self.layer.receive_many([channel])[1] for channel in channels]
        self.assertEqual(found, [{"end": channel} for channel in channels])
        # A worker process reads all its windows at once.
        got = dict(self.layer.receive_many(["test.window!"]) for _ in local)
        self.assertEqual(got, {channel: {"end": channel} for channel in local})
        self.assertNothing(*channels, "test.window!")

    def test_memberships_of_a_killed_gateway_end(self) -> None:
        self.need("groups")
        self.survive()
        self.layer.group_add("test-group", "test.outside")

        def work(layer: BaseChannelLayer) -> None:
            self.with_gateway(layer, lambda inbox: None)
            layer.group_add("test-group", "test.gateway!1")

        gateway = self.start_process(work, **self.lease_options)
        members = ["test.gateway!1", "test.outside"]
        self.assertEqual(sorted(self.layer.group_channels("test-group")), members)
        self.kill(gateway)
        gone = lambda: self.layer.group_channels("test-group") == ["test.outside"]  # noqa: E731
        self.assertTrue(self.until_recovered(gone))
