"""The conformance suite's tests of a gateway's inbox."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Awaitable, Callable

from ...exceptions import ChannelFull, LayerUnavailable
from ...protocol import (
    EVENT_ID,
    HTTP_REQUEST,
    REPLY_CHANNEL,
    excluding,
    group_added,
    group_discarded,
    group_message,
    lost,
    reset,
)
from .case import MOMENT, LayerCase

if TYPE_CHECKING:
    from ...layers.base import Inbox, Message


class InboxTests(LayerCase):
    """An inbox gives what was sent and every notice, each once and in order, and sends without waiting."""

    def run_in_inbox(self, function: Callable[[Inbox], Awaitable[Any]], steps: int = 1) -> Any:
        """
        Run the coroutine function `function(inbox)` in an event loop, with an open inbox. Each of its `steps`
        may take as long as `timeout`.
        """
        self.need("inbox")

        async def run() -> Any:
            inbox = self.layer.open_inbox("test.inbox!")
            try:
                return await asyncio.wait_for(function(inbox), steps * self.timeout)
            finally:
                await inbox.close()

        return asyncio.run(run())

    async def read(self, inbox: Inbox, number: int) -> list[tuple[str, Message]]:
        """Return the next `number` entries of the inbox."""
        entries: list[tuple[str, Message]] = []
        while len(entries) < number:
            entries += await asyncio.wait_for(inbox.receive(), self.timeout)
        self.assertEqual(len(entries), number, entries)
        return entries

    def test_an_inbox_gives_what_was_sent_in_order(self) -> None:
        async def check(inbox: Inbox) -> None:
            sent = [("test.inbox!%d" % (number % 3), {"number": number}) for number in range(50)]
            for channel, message in sent:
                self.layer.send(channel, message)
            self.assertEqual(await self.read(inbox, 50), sent)

        self.run_in_inbox(check)

    def test_an_inbox_is_woken_from_another_thread(self) -> None:
        async def check(inbox: Inbox) -> None:
            thread = threading.Timer(MOMENT, self.layer.send, ("test.inbox!a", {"from": "afar"}))
            thread.start()
            self.assertEqual(await self.read(inbox, 1), [("test.inbox!a", {"from": "afar"})])
            thread.join()

        self.run_in_inbox(check)

    def test_a_cancelled_read_of_an_inbox_loses_nothing(self) -> None:
        async def check(inbox: Inbox) -> None:
            for number in range(20):
                read = asyncio.ensure_future(inbox.receive())
                await asyncio.sleep(0)
                if number % 2:
                    await asyncio.sleep(0.005)
                self.layer.send("test.inbox!a", {"number": number})
                for _ in range(number % 5):
                    await asyncio.sleep(0)  # the read may have the message by now
                read.cancel()
                try:
                    entries = await read
                except asyncio.CancelledError:
                    entries = await self.read(inbox, 1)
                self.assertEqual(entries, [("test.inbox!a", {"number": number})])

        self.run_in_inbox(check)

    def test_a_repeated_read_of_an_inbox_gives_each_message_once(self) -> None:
        async def check(inbox: Inbox) -> None:
            reads = [asyncio.ensure_future(inbox.receive()) for _ in range(2)]
            await asyncio.sleep(MOMENT)
            self.layer.send("test.inbox!a", {"number": 1})
            done, pending = await asyncio.wait(
                reads, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            self.layer.send("test.inbox!a", {"number": 2})
            await asyncio.wait(pending, timeout=self.timeout)
            entries = [entry for read in reads for entry in read.result()]
            self.assertEqual(sorted(entry[1]["number"] for entry in entries), [1, 2])

        self.run_in_inbox(check)

    def test_an_inbox_sends(self) -> None:
        async def check(inbox: Inbox) -> None:
            failures: list[Exception] = []
            for number in range(3):
                inbox.send("test.out", {"number": number}, failures.append)
            loop = asyncio.get_event_loop()
            for number in range(3):
                _, message = await loop.run_in_executor(None, self.receive, "test.out")
                self.assertEqual(message, {"number": number})
            self.assertEqual(failures, [])

        self.run_in_inbox(check)

    def test_a_message_that_cannot_be_sent_leaves_others_alone(self) -> None:
        bad: list[Any] = [{"x": b"x" * 5 * 1024 * 1024}, {"x": object()}]
        bad += [{"headers": [[b"h", "h" * 5 * 1024 * 1024]]}]

        async def check(inbox: Inbox) -> None:
            failures: list[Exception] = []
            others: list[Exception] = []
            for number, message in enumerate(bad):
                inbox.send("test.out", {"number": number}, others.append)
                inbox.set_will("test.inbox!%d" % number, ("test.will", message))
                inbox.send("test.bad", message, failures.append)
            inbox.send("test.out", {"number": len(bad)}, others.append)
            loop = asyncio.get_event_loop()
            for number in range(len(bad) + 1):
                _, message = await loop.run_in_executor(None, self.receive, "test.out")
                self.assertEqual(message, {"number": number})
            self.assertEqual(others, [])
            if self.layer.crosses_processes:
                await asyncio.sleep(0)
                self.assertEqual(len(failures), len(bad))
                for each in failures:
                    self.assertNotIsInstance(each, (ChannelFull, LayerUnavailable))

        self.run_in_inbox(check)

    def test_many_large_messages_leave_at_once(self) -> None:
        self.layer = self.make_layer(capacity=100)
        # Several leave in one step, and none arrives before its end.
        self.timeout *= 3
        large = b"x" * (1024 * 1024 - 1000)

        async def check(inbox: Inbox) -> None:
            failures: list[Exception] = []
            for number in range(14):
                inbox.send("test.out", {"number": number, "x": large}, failures.append)
            loop = asyncio.get_event_loop()
            for number in range(14):
                _, message = await loop.run_in_executor(None, self.receive, "test.out")
                self.assertEqual(message["number"], number)
            self.assertEqual(failures, [])

        self.run_in_inbox(check, steps=14)

    def test_an_inbox_is_told_of_a_full_channel(self) -> None:
        self.layer = self.make_layer(capacity=1)

        async def check(inbox: Inbox) -> None:
            failed = asyncio.get_event_loop().create_future()
            inbox.send("test.full", {}, failed.set_result)
            inbox.send("test.full", {}, failed.set_result)
            error = await asyncio.wait_for(failed, self.timeout)
            self.assertIsInstance(error, ChannelFull)

        self.run_in_inbox(check)

    def test_an_inbox_is_told_of_a_request_that_expires_unread(self) -> None:
        self.layer = self.make_layer(expiry=self.shortest_expiry, **self.busy)

        async def check(inbox: Inbox) -> None:
            failures: list[Exception] = []
            for number in (1, 2):
                request = {REPLY_CHANNEL: "test.inbox!%d" % number, EVENT_ID: 0}
                inbox.send(HTTP_REQUEST, request, failures.append)
            told = [("test.inbox!%d" % number, lost(0)) for number in (1, 2)]
            self.assertEqual(sorted(await self.read(inbox, 2)), told)
            self.assertEqual(failures, [])
            self.assertNothing(HTTP_REQUEST)

        self.run_in_inbox(check)

    def test_an_inbox_gets_a_group_message_once_for_all_members(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.group_add("test-group", "test.inbox!b")
            self.layer.group_add("test-group", "test.outside")
            self.layer.send_group("test-group", {"hello": "all"})
            self.assertEqual(
                await self.read(inbox, 3),
                [
                    ("test.inbox!a", group_added("test-group")),
                    ("test.inbox!b", group_added("test-group")),
                    ("test.inbox!", group_message("test-group", {"hello": "all"})),
                ],
            )
            self.assertEqual(
                sorted(self.layer.group_channels("test-group")),
                ["test.inbox!a", "test.inbox!b", "test.outside"],
            )
            self.assertEqual(self.receive("test.outside")[1], {"hello": "all"})

        self.run_in_inbox(check)

    def test_an_inbox_is_told_which_member_is_excluded(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            self.layer.group_add("test-group", "test.inbox!a")
            message = excluding({"hello": "others"}, "test.inbox!a")
            self.layer.deliver_group("test-group", message)
            self.assertEqual(
                await self.read(inbox, 2),
                [
                    ("test.inbox!a", group_added("test-group")),
                    ("test.inbox!", group_message("test-group", message)),
                ],
            )

        self.run_in_inbox(check)

    def test_the_notice_of_leaving_a_group_arrives_in_order(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.send_group("test-group", {"number": 1})
            self.layer.group_discard("test-group", "test.inbox!a")
            self.layer.send_group("test-group", {"number": 2})
            self.layer.send("test.inbox!a", {"last": True})
            self.assertEqual(
                await self.read(inbox, 4),
                [
                    ("test.inbox!a", group_added("test-group")),
                    ("test.inbox!", group_message("test-group", {"number": 1})),
                    ("test.inbox!a", group_discarded("test-group")),
                    ("test.inbox!a", {"last": True}),
                ],
            )

        self.run_in_inbox(check)

    def test_an_inbox_removes_its_channels_from_groups(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.group_add("test-group", "test.inbox!b")
            inbox.group_discard("test-group", "test.inbox!a")
            await self.wait_in_loop(
                lambda: self.layer.group_channels("test-group") == ["test.inbox!b"]
            )

        self.run_in_inbox(check)
        self.assertEqual(self.layer.group_channels("test-group"), [])

    async def wait_in_loop(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.timeout
        while not condition():
            self.assertLess(time.monotonic(), deadline, "the condition stayed false")
            await asyncio.sleep(0.005)

    def test_messages_that_were_sent_before_an_inbox_opens_come_first(self) -> None:
        self.need("inbox")
        for number in range(3):
            self.layer.send("test.inbox!%d" % number, {"number": number})

        async def check(inbox: Inbox) -> None:
            self.layer.send("test.inbox!3", {"number": 3})
            expected = [("test.inbox!%d" % number, {"number": number}) for number in range(4)]
            self.assertEqual(await self.read(inbox, 4), expected)

        self.run_in_inbox(check)

    def test_what_a_closed_inbox_did_not_read_is_dropped(self) -> None:
        async def leave(inbox: Inbox) -> None:
            self.layer.send("test.inbox!a", {"old": True})

        async def check(inbox: Inbox) -> None:
            self.layer.send("test.inbox!a", {"new": True})
            self.assertEqual(await self.read(inbox, 1), [("test.inbox!a", {"new": True})])

        self.run_in_inbox(leave)
        self.run_in_inbox(check)

    def test_closing_an_inbox_keeps_memberships_of_others(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            other = self.layer.open_inbox("test.second!")
            self.layer.group_add("test-group", "test.inbox!a")
            self.layer.group_add("test-group", "test.second!a")
            self.layer.group_add("test-group", "test.outside")
            await other.close()
            self.assertEqual(
                sorted(self.layer.group_channels("test-group")), ["test.inbox!a", "test.outside"]
            )

        self.run_in_inbox(check)
        self.assertEqual(self.layer.group_channels("test-group"), ["test.outside"])

    def test_each_inbox_gets_its_own_messages(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            other = self.layer.open_inbox("test.second!")
            try:
                for name in ("test.inbox!a", "test.second!a"):
                    self.layer.group_add("test-group", name)
                    self.layer.send(name, {"to": name})
                self.layer.send_group("test-group", {"list": [1]})
                found = []
                for each, name in ((inbox, "test.inbox!"), (other, "test.second!")):
                    entries = await self.read(each, 3)
                    expected = [(name + "a", group_added("test-group"))]
                    expected += [(name + "a", {"to": name + "a"})]
                    self.assertEqual(entries[:2], expected)
                    found.append(entries[2][1])
                self.assertEqual(found[0], group_message("test-group", {"list": [1]}))
                self.assertEqual(found[0], found[1])
                next(value for value in found[0].values() if isinstance(value, dict))["x"] = 1
                self.assertEqual(found[1], group_message("test-group", {"list": [1]}))
            finally:
                await other.close()

        self.run_in_inbox(check)

    def test_an_inbox_gets_group_messages_in_order_with_other_sends(self) -> None:
        self.need("groups")

        async def check(inbox: Inbox) -> None:
            self.layer.group_add("test-group", "test.inbox!a")
            expected: list[tuple[str, Message]] = [("test.inbox!a", group_added("test-group"))]
            for number in range(5):
                self.layer.send("test.inbox!a", {"number": number})
                self.layer.send_group("test-group", {"number": number})
                expected.append(("test.inbox!a", {"number": number}))
                expected.append(("test.inbox!", group_message("test-group", {"number": number})))
            self.assertEqual(await self.read(inbox, 11), expected)

        self.run_in_inbox(check)

    def test_an_open_inbox_is_told_of_a_flush(self) -> None:
        self.need("flush", "groups")

        async def check(inbox: Inbox) -> None:
            self.layer.group_add("test-group", "test.inbox!a")
            self.assertEqual(len(await self.read(inbox, 1)), 1)
            await asyncio.get_event_loop().run_in_executor(None, self.layer.flush)
            self.assertEqual(await self.read(inbox, 1), [("test.inbox!", reset())])
            self.assertEqual(self.layer.group_channels("test-group"), [])
            self.layer.send("test.inbox!a", {"after": True})
            self.assertEqual(await self.read(inbox, 1), [("test.inbox!a", {"after": True})])

        self.run_in_inbox(check)

    def test_an_inbox_sends_in_order(self) -> None:
        async def check(inbox: Inbox) -> None:
            for number in range(40):
                inbox.send("test.inbox!a", {"number": number}, self.fail)
            found = await self.read(inbox, 40)
            self.assertEqual([each[1]["number"] for each in found], list(range(40)))

        self.run_in_inbox(check)

    def test_an_inbox_drops_what_waits_on_a_channel(self) -> None:
        self.need("statistics")

        def waits_until(channel: str, number: int) -> bool:
            statistics = self.layer.channel_statistics
            return bool(self.until(lambda: statistics(channel)["messages_pending"] == number))

        async def check(inbox: Inbox) -> None:
            loop = asyncio.get_event_loop()
            for _ in range(3):
                for channel in ("test.body?a", "test.body?b"):
                    inbox.send(channel, {"content": b"part"}, self.fail)
            inbox.drop_channel("test.body?a")
            inbox.drop_channel("test.body?none")
            for channel, number in (("test.body?b", 3), ("test.body?a", 0), ("test.body?b", 3)):
                found = await loop.run_in_executor(None, waits_until, channel, number)
                self.assertTrue(found, "%s does not have %d messages" % (channel, number))

        self.run_in_inbox(check)

    def test_take_returns_what_is_there_without_waiting(self) -> None:
        if self.layer.crosses_processes:
            self.skipTest("take is for layers that live in one process")

        async def check(inbox: Inbox) -> None:
            self.assertEqual(inbox.take(), [])
            self.layer.send("test.inbox!a", {"number": 1})
            self.assertEqual(inbox.take(), [("test.inbox!a", {"number": 1})])
            self.assertEqual(inbox.take(), [])

        self.run_in_inbox(check)
