"""
Layers over a directory that each break a promise about leases, wills, dead letters or counters, for
test_lying_layers. Each name completes "a layer that …".
"""

from django.channels import protocol
from django.channels.layers.engine import recovery
from django.channels.layers.engine.store import Outgoing, Recovered

from .example_layer import DirectoryChannelLayer, DirectoryStore
from .support.layers import lie_to

lies = []


def noticed_by(*tests):
    """Make a layer of a broken store, with the names of the tests, without "test_", that fail for it."""

    def decorate(store):
        make_store = {"make_store": lambda self: store(self.directory)}
        lie_to(lies, *tests)(type(store.__name__, (DirectoryChannelLayer,), make_store), store)
        return store

    return decorate


# Leases.


@noticed_by(
    "an_event_of_a_killed_worker_is_reported_to_its_gateway_once",
    "the_wills_of_a_killed_gateway_are_sent_once",
)
class ForgetsLeases(DirectoryStore):
    def recover(self, decide):
        return Recovered([], [], 0)


@noticed_by("an_event_of_a_killed_worker_is_reported_to_its_gateway_once")
class ReportsToNobody(DirectoryStore):
    def recover(self, decide):
        return super().recover(lambda entry: recovery.Action(recovery.DROP))


@noticed_by("several_survivors_recover_each_message_once")
class RecoversTwice(DirectoryStore):
    def put_first(self, state, entry):
        super().put_first(state, entry)
        super().put_first(state, entry)


@noticed_by("a_disconnect_of_a_killed_worker_is_redelivered_first_and_marked")
class RedeliversLast(DirectoryStore):
    def put_first(self, state, entry):
        super().put_first(state, entry)
        queue = state["queues"][entry.channel]
        queue.append(queue.pop(0))


@noticed_by(
    "a_disconnect_of_a_killed_worker_is_redelivered_first_and_marked",
    "a_message_that_is_lost_three_times_is_not_redelivered",
)
class CountsNoLosses(DirectoryStore):
    def put_first(self, state, entry):
        super().put_first(state, entry._replace(losses=0))


@noticed_by("a_waiting_reader_gets_what_another_process_sends")
class WakesNoReaderOfAnotherProcess(DirectoryStore):
    def version(self):
        return None


@noticed_by("messages_of_a_living_worker_stay_its_own")
class RenewsNoLease(DirectoryStore):
    def heartbeat(self, names):
        ends = self.look()["leases"]
        beat = super().heartbeat(names)
        self.transaction(lambda state: state["leases"].update(ends))
        return beat


@noticed_by("an_acknowledged_message_is_not_redelivered")
class KeepsAcknowledgedMessages(DirectoryStore):
    def claim(self, consumer, process, channels, block=False):
        def keep(state):
            if consumer in state["claims"]:
                state["claims"][consumer + ".kept"] = state["claims"][consumer]

        self.transaction(keep)
        return super().claim(consumer, process, channels, block)


@noticed_by("the_policy_of_redelivery_goes_by_pattern")
class IgnoresThePolicy(DirectoryStore):
    def bind(self, layer):
        super().bind(layer)
        layer.policy._by_name._patterns = []


# Wills.


@noticed_by(
    "the_wills_of_a_killed_gateway_are_sent_once",
    "an_orderly_close_sends_the_wills_of_open_connections",
)
class LosesWills(DirectoryStore):
    def gateway_batch(self, inbox, wills, cleared, discards, sends):
        return super().gateway_batch(inbox, [], cleared, discards, sends)


@noticed_by("a_will_that_is_cleared_later_is_not_sent")
class SendsClearedWills(DirectoryStore):
    def gateway_batch(self, inbox, wills, cleared, discards, sends):
        return super().gateway_batch(inbox, wills, [], discards, sends)


@noticed_by("the_wills_of_a_killed_gateway_are_sent_once")
class SendsWillsTwice(DirectoryStore):
    def take_wills(self, state, gateway):
        return super().take_wills(state, gateway) * 2


@noticed_by("an_orderly_close_sends_the_wills_of_open_connections")
class DropsWillsInAnOrderlyClose(DirectoryStore):
    def leave(self, name):
        self.transaction(lambda state: state["wills"].clear())
        super().leave(name)


@noticed_by("wills_find_no_channel_full")
class SendsNoWillToAFullChannel(DirectoryStore):
    def put(self, state, items):
        return super().put(state, [item._replace(unlimited=False) for item in items])


@noticed_by("memberships_of_a_killed_gateway_end")
class KeepsMembershipsOfADeadGateway(DirectoryStore):
    def end_lease(self, state, name):
        groups, state["groups"] = state["groups"], {}
        super().end_lease(state, name)
        state["groups"] = groups


# Dead letters.


@noticed_by("a_message_of_a_killed_worker_becomes_a_dead_letter")
class DropsDeadLetters(DirectoryStore):
    def add_dead(self, state, entry, reason):
        return 0


@noticed_by("the_newest_dead_letters_are_kept_and_the_rest_is_counted")
class KeepsAllDeadLetters(DirectoryStore):
    def add_dead(self, state, entry, reason):
        kept = list(state["dead"])
        super().add_dead(state, entry, reason)
        state["dead"] = kept + state["dead"][-1:]
        return 0


@noticed_by("the_newest_dead_letters_are_kept_and_the_rest_is_counted")
class KeepsTheOldestDeadLetters(DirectoryStore):
    def add_dead(self, state, entry, reason):
        kept = list(state["dead"])
        dropped = super().add_dead(state, entry, reason)
        if dropped:
            state["dead"] = kept
        return dropped


@noticed_by("the_newest_dead_letters_are_kept_and_the_rest_is_counted")
class ListsTheNewestDeadLetterFirst(DirectoryStore):
    def dead_letters(self):
        return super().dead_letters()[::-1]


@noticed_by("a_message_of_a_killed_worker_becomes_a_dead_letter")
class GivesAnotherReason(DirectoryStore):
    def dead_letters(self):
        return [(*each[:3], "unknown", each[4]) for each in super().dead_letters()]


@noticed_by("dead_letters_are_sent_again_or_deleted_by_id")
class KeepsADeadLetterThatIsSentAgain(DirectoryStore):
    def requeue_dead_letter(self, id):
        kept = self.look()["dead"]
        found = super().requeue_dead_letter(id)
        self.transaction(lambda state: state.update(dead=kept))
        return found


@noticed_by("dead_letters_are_sent_again_to_the_end_whatever_the_capacity")
class SendsNoDeadLetterToAFullChannel(DirectoryStore):
    def requeue_dead_letter(self, id):
        def work(state):
            return not self.put(state, [self.take_dead(state, id)])

        return self.transaction(work)


@noticed_by("dead_letters_are_sent_again_or_deleted_by_id", "all_dead_letters_are_deleted_at_once")
class DeletesNoDeadLetter(DirectoryStore):
    def drop_dead_letters(self, ids):
        return 0


@noticed_by("dead_letters_are_sent_again_or_deleted_by_id")
class DeletesAllDeadLetters(DirectoryStore):
    def drop_dead_letters(self, ids):
        return super().drop_dead_letters([each[0] for each in self.dead_letters()])


@noticed_by("a_message_of_a_killed_worker_becomes_a_dead_letter")
class CountsNoDeadLetters(DirectoryStore):
    def count_dead_letters(self):
        return 0


# Several processes.


@noticed_by("statistics_add_up_what_all_processes_counted")
class SharesNoCounters(DirectoryStore):
    def add_counters(self, increments, process, number):
        pass


@noticed_by("a_forked_process_sends")
class SeesItsOwnProcessOnly(DirectoryStore):
    def after_fork(self):
        super().after_fork()
        self.path += ".child"


@noticed_by("an_inbox_is_told_of_a_request_that_expires_unread")
class ReportsNoExpiredRequest(DirectoryStore):
    def expire(self, decide):
        return super().expire(lambda entry: recovery.Action(recovery.DROP))


@noticed_by("an_inbox_gives_what_was_sent_in_order")
class ReadsAnInboxTwice(DirectoryStore):
    def receive_inbox(self, name, acked, limit):
        return [each for each in super().receive_inbox(name, acked, limit) for _ in range(2)]


@noticed_by("a_full_channel_takes_acknowledgements_and_notices_of_loss")
class BoundsAcknowledgements(DirectoryStore):
    def send(self, items):
        return super().send([Outgoing(item.channel, item.body) for item in items])


@noticed_by("an_open_inbox_is_told_of_a_flush")
class TellsNoInboxOfAFlush(DirectoryStore):
    def _send_notice(self, tx, channel, notice, expiry=None):
        if protocol.RESET not in notice:
            super()._send_notice(tx, channel, notice, expiry)
