"""
In-memory layers that each break one promise, for test_lying_layers. Each name completes "a layer that …".
"""

import asyncio
import time
from collections import deque

from django.channels import protocol
from django.channels.exceptions import ChannelFull
from django.channels.layers.delay import Delay
from django.channels.layers.memory import MemoryChannelLayer
from django.channels.layers.messages import clean
from django.channels.layers.names import ByName, check_channel_name, inbox_of, is_shared

from .support.layers import lie_to

lies = []


def noticed_by(*tests):
    return lie_to(lies, *tests)


# Sending and receiving.


@noticed_by("messages_of_a_channel_come_in_order_and_once")
class DeliversTwice(MemoryChannelLayer):
    def deliver(self, channel, message):
        super().deliver(channel, message)
        super().deliver(channel, clean(message))


@noticed_by("messages_of_a_channel_come_in_order_and_once", "many_senders_lose_nothing")
class GivesTheNewestFirst(MemoryChannelLayer):
    def deliver(self, channel, message):
        super().deliver(channel, message)
        self._queues[channel].rotate(1)


@noticed_by("the_sender_may_change_its_message_afterwards")
class KeepsTheSendersMessage(MemoryChannelLayer):
    def send(self, channel, message):
        clean(message)
        self.deliver(check_channel_name(channel), message)


@noticed_by("an_invalid_message_is_refused_with_the_name_of_its_key")
class ChecksNoMessage(MemoryChannelLayer):
    def send(self, channel, message):
        self.deliver(check_channel_name(channel), message)


@noticed_by("a_message_over_a_megabyte_is_refused")
class TakesMessagesOfAnySize(MemoryChannelLayer):
    def send(self, channel, message):
        self.deliver(check_channel_name(channel), clean(message, 10**9))


@noticed_by("bad_channel_names_are_refused")
class ChecksNoName(MemoryChannelLayer):
    def send(self, channel, message):
        self.deliver(channel or "", clean(message))


@noticed_by("a_tuple_becomes_a_list")
class KeepsTuples(MemoryChannelLayer):
    def send(self, channel, message):
        self.deliver(check_channel_name(channel), dict(message))


@noticed_by("no_channel_starves")
class StarvesChannels(MemoryChannelLayer):
    def _pop(self, channels):
        self._turn = -1
        return super()._pop(channels)


@noticed_by("a_blocking_receive_is_woken")
class WakesNoReader(MemoryChannelLayer):
    def _wake_reader(self, channel, key):
        pass


@noticed_by("a_blocking_receive_waits_and_ends_by_itself")
class NeverWaits(MemoryChannelLayer):
    def receive_many(self, channels, block=False):
        return super().receive_many(channels)


@noticed_by("a_reader_that_gave_up_takes_no_wake_up_of_another")
class WakesReadersThatGaveUp(MemoryChannelLayer):
    def _end_wait(self, reader):
        if reader in self._waking:
            super()._end_wait(reader)


@noticed_by("one_process_local_channel_is_received_by_its_full_name")
class FindsNoFullName(MemoryChannelLayer):
    def _pop_local(self, channel):
        return None


@noticed_by("process_local_channels_are_received_by_their_prefix")
class FindsNoPrefix(MemoryChannelLayer):
    def _pop(self, channels):
        return super()._pop([name for name in channels if name[-1] != "!"] or ["no.such"])


@noticed_by("new_channels_have_new_names")
class RepeatsNewChannels(MemoryChannelLayer):
    def new_channel(self, pattern):
        return super().new_channel(pattern)[: len(pattern)] + "abcdefghijkl"


# Capacity and expiry.


@noticed_by("a_full_channel_refuses_messages", "a_full_channel_is_counted")
class HasNoCapacity(MemoryChannelLayer):
    def __init__(self, **config):
        super().__init__(**config)
        self.capacities = ByName(10**6)


@noticed_by("capacity_goes_by_name_pattern")
class IgnoresPatternsOfCapacity(MemoryChannelLayer):
    def __init__(self, **config):
        super().__init__(**config)
        self.capacities = ByName(self.capacity)


@noticed_by("a_full_channel_takes_acknowledgements_and_notices_of_loss")
class RefusesAcknowledgementsWhenFull(MemoryChannelLayer):
    def deliver(self, channel, message):
        if len(self._queues.get(inbox_of(channel) or channel, ())) >= self.capacities[channel]:
            raise ChannelFull(channel)
        super().deliver(channel, message)


@noticed_by("messages_expire", "an_inbox_is_told_of_a_request_that_expires_unread")
class ExpiresNothing(MemoryChannelLayer):
    def _drop_expired(self, key, queue, now):
        pass


@noticed_by("messages_expire")
class LosesWhatIsSentWhenAFullChannelHasExpired(MemoryChannelLayer):
    def deliver(self, channel, message):
        was_full = len(self._queues.get(channel, ())) >= self.capacities[channel]
        super().deliver(channel, message)
        if was_full:
            del self._queues[channel]


@noticed_by("messages_of_a_single_reader_expire")
class GivesExpiredMessagesByTheirFullName(MemoryChannelLayer):
    def _pop_local(self, channel):
        found = [each for each in self._queues.get(inbox_of(channel), ()) if each[1] == channel]
        return found[0][1:] if found else None


@noticed_by("events_of_open_connections_outlast_other_messages")
class ExpiresEventsOfSockets(MemoryChannelLayer):
    def __init__(self, **config):
        super().__init__(**config)
        self.expiries = ByName(self.expiry)


@noticed_by("an_inbox_is_told_of_a_request_that_expires_unread")
class TellsNobodyOfExpiredRequests(MemoryChannelLayer):
    def _drop_expired(self, key, queue, now):
        while queue and queue[0][0] <= now:
            queue.popleft()
            self.count("expired")
        if not queue:
            self._queues.pop(key, None)


@noticed_by("expired_messages_are_counted")
class CountsNoExpiredMessages(MemoryChannelLayer):
    def count(self, name, number=1):
        if name != "expired":
            super().count(name, number)


@noticed_by("only_messages_that_a_worker_takes_are_counted_as_expired")
class CountsWhatNoWorkerTakes(MemoryChannelLayer):
    def _drop_expired(self, key, queue, now):
        number = sum(each[0] <= now and not is_shared(each[1]) for each in queue)
        super()._drop_expired(key, queue, now)
        if number:
            self.count("expired", number)


# Acknowledgement.


@noticed_by(
    "the_last_reply_leaves_with_the_acknowledgement", "the_last_reply_leaves_with_the_next_claim"
)
class DropsEveryLastReply(MemoryChannelLayer):
    def finish(self, consumer, channel, message, soon=False):
        pass


@noticed_by("a_last_reply_that_must_leave_soon_waits_for_no_claim")
class KeepsEveryLastReplyUntilTheNextClaim(MemoryChannelLayer):
    kept = ()

    def finish(self, consumer, channel, message, soon=False):
        self.kept = [*self.kept, (channel, message)]

    def claim(self, consumer, channels, block=False):
        self.acknowledge(consumer)
        return super().claim(consumer, channels, block)

    def acknowledge(self, consumer):
        kept, self.kept = self.kept, ()
        for channel, message in kept:
            self.deliver(channel, message)
        super().acknowledge(consumer)


@noticed_by("a_requeued_message_is_the_next", "unacknowledged_messages_are_counted")
class ForgetsClaimedMessages(MemoryChannelLayer):
    def claim(self, consumer, channels, block=False):
        return self.receive_many(channels, block)


@noticed_by("a_claimed_message_goes_to_no_other_consumer", "a_claim_finds_a_message_once")
class GivesClaimedMessagesToOthers(MemoryChannelLayer):
    def claim(self, consumer, channels, block=False):
        found = super().claim(consumer, channels, block)
        if found[0] is not None:
            self._queues.setdefault(found[0], deque()).appendleft((time.monotonic() + 60, *found))
        return found


@noticed_by("a_requeued_message_is_the_next")
class RequeuesAtTheTail(MemoryChannelLayer):
    def requeue(self, consumer):
        held = self._unacknowledged.pop(consumer, None)
        if held is not None:
            self.deliver(*held)


@noticed_by("a_requeued_message_is_the_next")
class DropsRequeuedMessages(MemoryChannelLayer):
    def requeue(self, consumer):
        self.acknowledge(consumer)


@noticed_by("a_requeued_message_wakes_a_claim_that_waits")
class WakesNobodyForARequeuedMessage(MemoryChannelLayer):
    def requeue(self, consumer):
        with self._lock:
            readers, self._readers = self._readers, []
        super().requeue(consumer)
        with self._lock:
            self._readers = readers


@noticed_by("a_requeued_message_has_its_whole_time_again")
class KeepsTheExpiryOfARequeuedMessage(MemoryChannelLayer):
    def claim(self, consumer, channels, block=False):
        self._ends = {name: queue[0][0] for name, queue in self._queues.items()}
        return super().claim(consumer, channels, block)

    def requeue(self, consumer):
        name, message = self._unacknowledged[consumer]
        super().requeue(consumer)
        self._queues[name][0] = (self._ends[name], name, message)


@noticed_by("a_claimed_message_goes_to_no_other_consumer", "unacknowledged_messages_are_counted")
class AcknowledgesNothing(MemoryChannelLayer):
    def acknowledge(self, consumer):
        pass


@noticed_by("the_next_claim_acknowledges_the_last")
class KeepsAClaimWithoutAnother(MemoryChannelLayer):
    def claim(self, consumer, channels, block=False):
        held = self._unacknowledged.get(consumer)
        found = super().claim(consumer, channels, block)
        if found[0] is None and held is not None:
            self._unacknowledged[consumer] = held
        return found


@noticed_by("a_waiting_claim_is_woken_by_each_of_its_channels")
class WakesClaimsForTheirFirstChannelOnly(MemoryChannelLayer):
    def _wake_reader(self, channel, key):
        if any(key == channels[0] for channels, _, _ in self._readers):
            super()._wake_reader(channel, key)


@noticed_by("a_waiting_claim_can_be_woken")
class WakesNoClaim(MemoryChannelLayer):
    def wake(self, consumer):
        pass


# Delay.


@noticed_by("a_message_that_is_due_for_a_full_channel_is_dropped_and_counted")
class DelaysWithoutCapacity(MemoryChannelLayer):
    def _deliver_delayed(self, item):
        entry = (time.monotonic() + 60, *item)
        self._queues.setdefault(item[0], deque()).append(entry)


@noticed_by("a_delayed_message_is_checked_and_copied")
class DelaysWithoutChecks(MemoryChannelLayer):
    def send_later(self, channel, message, delay):
        self._delay.add(delay, (channel, message))


@noticed_by("a_message_can_be_sent_later")
class DelaysNothing(MemoryChannelLayer):
    def send_later(self, channel, message, delay):
        self.send(channel, message)


@noticed_by("a_message_can_be_sent_later")
class ForgetsDelayedMessages(MemoryChannelLayer):
    def send_later(self, channel, message, delay):
        clean(message)


@noticed_by("a_delay_that_is_no_number_of_seconds_is_refused")
class AcceptsAnyDelay(MemoryChannelLayer):
    def send_later(self, channel, message, delay):
        try:
            super().send_later(channel, message, delay)
        except ValueError:
            super().send_later(channel, message, 0.0)


@noticed_by("a_full_channel_does_not_refuse_what_is_not_due_yet")
class ChecksCapacityBeforeTheDelay(MemoryChannelLayer):
    def send_later(self, channel, message, delay):
        if len(self._queues.get(channel, ())) >= self.capacities[channel]:
            self.count("delayed_full")
        else:
            super().send_later(channel, message, delay)


# Groups.


@noticed_by("a_group_has_many_members")
class ListsThreeMembersOnly(MemoryChannelLayer):
    def group_channels(self, group):
        return super().group_channels(group)[:3]


@noticed_by("a_group_reaches_its_members")
class SendsToAGroupTwice(MemoryChannelLayer):
    def deliver_group(self, group, message):
        super().deliver_group(group, message)
        super().deliver_group(group, message)


@noticed_by("a_channel_that_left_a_group_gets_nothing")
class DiscardsNoMember(MemoryChannelLayer):
    def group_discard(self, group, channel):
        pass


@noticed_by("members_of_a_group_share_no_message")
class SharesOneDictAmongMembers(MemoryChannelLayer):
    def _send_to_each(self, message, channels):
        for channel in channels:
            self._put(channel, message)


@noticed_by("members_of_a_group_share_no_message")
class KeepsTheSendersGroupMessage(MemoryChannelLayer):
    def send_group(self, group, message):
        with self._lock:
            for channel in self._groups[group][None]:
                self._put(channel, message)


@noticed_by("each_inbox_gets_its_own_messages")
class SharesOneDictAmongInboxes(MemoryChannelLayer):
    def deliver_group(self, group, message):
        with self._lock:
            for name in self._groups[group]:
                self._inboxes[name].put(name, protocol.group_message(group, message))


@noticed_by("a_group_message_keeps_its_place_among_other_sends")
class LetsGroupMessagesOvertake(MemoryChannelLayer):
    def _send_to_each(self, message, channels):
        for channel in channels:
            self._put(channel, clean(message))
            self._queues[channel].rotate(1)


@noticed_by("an_inbox_gets_group_messages_in_order_with_other_sends")
class LetsGroupMessagesOvertakeInInboxes(MemoryChannelLayer):
    def deliver_group(self, group, message):
        super().deliver_group(group, message)
        for inbox in self._inboxes.values():
            inbox._messages.insert(0, inbox._messages.pop())


@noticed_by("a_full_member_is_skipped_and_counted")
class StopsAtAFullMember(MemoryChannelLayer):
    def _send_to_each(self, message, channels):
        for channel in channels:
            self._put(channel, clean(message))


@noticed_by("each_full_member_is_counted")
class CountsOneFullMember(MemoryChannelLayer):
    def _send_to_each(self, message, channels):
        full = False
        for channel in channels:
            try:
                self._put(channel, clean(message))
            except ChannelFull:
                full = True
        self.count("group_full", int(full))


# Flush and statistics.


@noticed_by("flush_removes_delayed_messages")
class KeepsDelayedMessagesInAFlush(MemoryChannelLayer):
    def flush(self):
        kept, self._delay = self._delay, Delay(self._deliver_delayed)
        super().flush()
        self._delay = kept


@noticed_by("flush_empties_the_layer", "flush_removes_messages_of_all_kinds")
class KeepsMessagesInAFlush(MemoryChannelLayer):
    def flush(self):
        kept = self._queues
        super().flush()
        self._queues = kept


@noticed_by("flush_removes_messages_of_all_kinds")
class KeepsLocalMessagesInAFlush(MemoryChannelLayer):
    def flush(self):
        kept = {name: queue for name, queue in self._queues.items() if "!" in name}
        super().flush()
        self._queues = kept


@noticed_by("flush_empties_the_layer")
class KeepsGroupsInAFlush(MemoryChannelLayer):
    def flush(self):
        kept = self._groups
        super().flush()
        self._groups = kept


@noticed_by("an_open_inbox_is_told_of_a_flush")
class SendsNoReset(MemoryChannelLayer):
    def flush(self):
        with self._lock:
            self._clear()
            self._delay.clear()
            for inbox in self._inboxes.values():
                inbox.clear()


@noticed_by("the_age_of_the_oldest_message_grows")
class KnowsNoAge(MemoryChannelLayer):
    def _describe(self, queues, inboxes):
        return dict(super()._describe(queues, inboxes), messages_max_age=0.0)


@noticed_by("statistics_count_pending_messages")
class CountsNoPendingMessages(MemoryChannelLayer):
    def _describe(self, queues, inboxes):
        return dict(super()._describe(queues, inboxes), messages_pending=0)


@noticed_by("statistics_have_every_key")
class LeavesOutAStatistic(MemoryChannelLayer):
    def global_statistics(self):
        statistics = super().global_statistics()
        del statistics["messages_held"]
        return statistics


@noticed_by("statistics_have_every_key")
class LeavesOutAStatisticOfChannels(MemoryChannelLayer):
    def channel_statistics(self, channel):
        statistics = super().channel_statistics(channel)
        del statistics["messages_max_age"]
        return statistics


@noticed_by("a_full_channel_is_counted", "each_full_member_is_counted")
class CountsNothing(MemoryChannelLayer):
    def count(self, name, number=1):
        pass


@noticed_by("sent_and_refused_messages_are_counted")
class CountsNoSentMessages(MemoryChannelLayer):
    def global_statistics(self):
        return dict(super().global_statistics(), messages_count=0)


@noticed_by("an_extension_that_is_not_declared_is_refused_by_name")
class AcceptsWhatItDoesNotSupport(MemoryChannelLayer):
    def dead_letters(self):
        return []


# Inboxes.


class WithInbox(MemoryChannelLayer):
    """`change(inbox)` is called with each new inbox."""

    def open_inbox(self, name):
        inbox = super().open_inbox(name)
        self.change(inbox)
        return inbox

    def change(self, inbox):
        raise NotImplementedError


@noticed_by("what_a_closed_inbox_did_not_read_is_dropped")
class GivesAClosedInboxToTheNext(WithInbox):
    last = None

    def change(self, inbox):
        if self.last is not None:
            inbox._messages[:0] = self.last._messages
        self.last = inbox


@noticed_by("messages_that_were_sent_before_an_inbox_opens_come_first")
class DropsWhatCameBeforeTheInbox(MemoryChannelLayer):
    def open_inbox(self, name):
        self._queues.pop(name, None)
        return super().open_inbox(name)


@noticed_by("an_inbox_gives_what_was_sent_in_order")
class SwapsMessagesOfAnInbox(WithInbox):
    def change(self, inbox):
        receive = inbox.receive

        async def swapped():
            return (await receive())[::-1]

        inbox.receive = swapped


@noticed_by("a_cancelled_read_of_an_inbox_loses_nothing")
class LosesWhatACancelledReadHad(WithInbox):
    def change(self, inbox):
        receive = inbox.receive

        async def slow():
            entries = await receive()
            await asyncio.sleep(0.01)
            return entries

        inbox.receive = slow


@noticed_by("an_inbox_is_woken_from_another_thread")
class WakesNoInbox(WithInbox):
    def change(self, inbox):
        inbox.put = lambda channel, message, control=False: inbox._messages.append(
            (channel, message)
        )


@noticed_by("an_inbox_is_told_of_a_full_channel")
class TellsNoInboxOfFailures(WithInbox):
    def change(self, inbox):
        send = inbox.send
        inbox.send = lambda channel, message, failed: send(channel, message, lambda error: None)


@noticed_by("an_inbox_sends", "an_inbox_sends_in_order")
class DropsWhatAnInboxSends(WithInbox):
    def change(self, inbox):
        inbox.send = lambda channel, message, failed: None


@noticed_by("an_inbox_removes_its_channels_from_groups")
class IgnoresDiscardsOfAnInbox(WithInbox):
    def change(self, inbox):
        inbox.group_discard = lambda group, channel: None


@noticed_by("an_inbox_drops_what_waits_on_a_channel")
class DropsNoChannel(WithInbox):
    def change(self, inbox):
        inbox.drop_channel = lambda channel: None


@noticed_by("an_inbox_drops_what_waits_on_a_channel")
class DropsEveryChannel(WithInbox):
    def change(self, inbox):
        inbox.drop_channel = lambda channel: self._queues.clear()


@noticed_by("take_returns_what_is_there_without_waiting")
class TakesNothing(WithInbox):
    def change(self, inbox):
        inbox.take = lambda: []


@noticed_by("an_inbox_removes_its_channels_from_groups")
class KeepsMembershipsOfAClosedInbox(WithInbox):
    def change(self, inbox):
        async def close():
            inbox._timer.cancel()
            del self._inboxes[inbox.name]

        inbox.close = close


@noticed_by("closing_an_inbox_keeps_memberships_of_others")
class RemovesGroupsOfOthersWithAnInbox(WithInbox):
    def change(self, inbox):
        close = inbox.close

        async def close_all():
            await close()
            self._groups.clear()

        inbox.close = close_all


@noticed_by("the_notice_of_leaving_a_group_arrives_in_order")
class GivesNoNoticeOfMemberships(MemoryChannelLayer):
    def group_discard(self, group, channel):
        with self._lock:
            self._discard(group, inbox_of(channel), channel)


@noticed_by("an_inbox_gets_a_group_message_once_for_all_members")
class SendsAGroupMessageToEachChannelOfAnInbox(MemoryChannelLayer):
    def deliver_group(self, group, message):
        for name, members in self._groups[group].items():
            for channel in members:
                if name is None:
                    self.deliver(channel, clean(message))
                else:
                    self._inboxes[name].put(name, protocol.group_message(group, message))
