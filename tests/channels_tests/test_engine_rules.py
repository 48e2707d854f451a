"""The rules of the engine that need no store: options, redelivery, recovery, notices, counters."""

import unittest

from django.channels.layers.engine import recovery
from django.channels.layers.engine.counters import Counters
from django.channels.layers.engine.notices import Notices
from django.channels.layers.engine.options import Options, fold
from django.channels.layers.engine.redelivery import (
    DEAD_LETTER,
    REPORT,
    RETRY,
    RedeliveryPolicy,
)
from django.channels.layers.engine.store import Entry, Outgoing, Recovered
from django.core.exceptions import ImproperlyConfigured

from .fake_store import FakeLayer

NAN, INF = float("nan"), float("inf")

EVENT = '{"event_id": 3, "reply_channel": "gateway.a!1"}'


class OptionTests(unittest.TestCase):
    def refused(self, words, **options):
        with self.assertRaisesRegex(ImproperlyConfigured, words):
            Options(**options).check()

    def test_a_lease_lasts_at_least_three_heartbeats(self):
        Options(heartbeat=5, lease=15).check()
        self.refused("at least 3 heartbeats", heartbeat=5, lease=14.9)

    def test_heartbeat_and_lease_are_positive_numbers(self):
        for value in (0, -1, "5", None, True, NAN, INF, -INF, 1e12, 10**5000):
            self.refused("heartbeat", heartbeat=value)
            self.refused("lease", lease=value)

    def test_dead_letters_may_be_zero_and_not_less(self):
        Options(dead_letters=0).check()
        for value in (-1, 1.5, "10", True):
            self.refused("dead_letters", dead_letters=value)

    def test_inbox_capacity_is_at_least_one(self):
        Options(inbox_capacity=1).check()
        for value in (0, "10", 2.0):
            self.refused("inbox_capacity", inbox_capacity=value)

    def test_an_unknown_policy_is_refused(self):
        self.refused("lost has 'later'", lost={"work": "later"})

    def test_names_are_folded_to_lower_case(self):
        self.assertEqual(
            fold({"LEASE": 3, "prefix": "x"}, ("lease", "prefix")), {"lease": 3, "prefix": "x"}
        )

    def test_an_unknown_name_is_refused_with_the_nearest_one(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "'LAESE'. Did you mean 'lease'"):
            fold({"LAESE": 3}, ("lease", "prefix"))
        with self.assertRaisesRegex(ImproperlyConfigured, "Its options are: lease, prefix"):
            fold({"zzzzz": 3}, ("prefix", "lease"))

    def test_a_name_in_two_spellings_is_refused(self):
        with self.assertRaisesRegex(ImproperlyConfigured, "lease is given twice"):
            fold({"LEASE": 3, "lease": 3}, ("lease",))


class RedeliveryPolicyTests(unittest.TestCase):
    reported = {"event_id": 1, "reply_channel": "gateway.a!1"}

    def decide(self, channel, message=reported, losses=1, **options):
        return RedeliveryPolicy(**options).decide(channel, message, losses)

    def test_requests_and_frames_are_reported(self):
        for channel in ("http.request", "websocket.connect", "websocket.receive"):
            self.assertEqual(self.decide(channel), REPORT, channel)

    def test_an_event_without_a_waiting_gateway_becomes_a_dead_letter(self):
        for key in self.reported:
            message = {key: self.reported[key]}
            self.assertEqual(self.decide("http.request", message), DEAD_LETTER)

    def test_disconnects_are_retried_twice(self):
        for channel in ("http.disconnect", "websocket.disconnect"):
            found = [self.decide(channel, losses=losses) for losses in (1, 2, 3, 4)]
            self.assertEqual(found, [RETRY, RETRY, DEAD_LETTER, DEAD_LETTER], channel)

    def test_a_sites_own_channels_go_to_the_dead_letters(self):
        self.assertEqual(self.decide("thumbnails"), DEAD_LETTER)

    def test_a_sites_patterns_override_the_defaults(self):
        lost = {"websocket.*": "dead-letter", "thumb*": "retry"}
        self.assertEqual(self.decide("websocket.receive", lost=lost), DEAD_LETTER)
        self.assertEqual(self.decide("thumbnails", lost=lost), RETRY)
        self.assertEqual(self.decide("http.request", lost=lost), REPORT)

    def test_a_safe_request_is_retried_once_if_the_site_says_so(self):
        for method in ("GET", "HEAD"):
            message = dict(self.reported, method=method)
            for losses, expected in ((1, RETRY), (2, REPORT)):
                found = self.decide("http.request", message, losses, retry_safe_requests=True)
                self.assertEqual(found, expected, (method, losses))
            self.assertEqual(self.decide("http.request", message), REPORT)

    def test_requests_that_may_have_changed_something_are_never_retried(self):
        for more in ({"method": "POST"}, {"method": "GET", "body_channel": "gateway.a!b"}, {}):
            message = dict(self.reported, **more)
            found = self.decide("http.request", message, retry_safe_requests=True)
            self.assertEqual(found, REPORT, more)
        message = dict(self.reported, method="GET")
        found = self.decide("websocket.receive", message, retry_safe_requests=True)
        self.assertEqual(found, REPORT)


class RecoveryTests(unittest.TestCase):
    def setUp(self):
        self.layer = FakeLayer()
        self.recovery = self.layer.recovery

    def test_a_lost_event_is_reported_whatever_the_capacity_for_an_hour(self):
        action = self.recovery.decide_lost(Entry(1, "websocket.receive", EVENT))
        notice = Outgoing("gateway.a!1", '{"lost": 3}', unlimited=True, expiry=3600)
        self.assertEqual(action, recovery.Action(recovery.NOTIFY, notice))

    def test_a_longer_expiry_of_the_channel_holds_for_the_notice(self):
        layer = FakeLayer(channel_expiry={"gateway.*": 7200})
        action = layer.recovery.decide_expired(Entry(1, "http.request", EVENT))
        self.assertEqual(action.notice.expiry, 7200)

    def test_the_loss_that_is_being_decided_counts(self):
        for losses, kind in (
            (0, recovery.REQUEUE),
            (1, recovery.REQUEUE),
            (2, recovery.DEAD_LETTER),
        ):
            action = self.recovery.decide_lost(Entry(1, "websocket.disconnect", EVENT, losses))
            self.assertEqual(action.kind, kind, losses)

    def test_a_message_without_a_gateway_is_buried_when_lost_and_dropped_when_expired(self):
        entry = Entry(1, "http.request", "{}")
        dead_letter = recovery.Action(recovery.DEAD_LETTER, reason="lost")
        self.assertEqual(self.recovery.decide_lost(entry), dead_letter)
        self.assertEqual(self.recovery.decide_expired(entry), recovery.Action(recovery.DROP))

    def test_an_unreadable_message_is_buried(self):
        entry = Entry(1, "http.request", "{damaged")
        dead_letter = recovery.Action(recovery.DEAD_LETTER, reason="unreadable")
        self.assertEqual(self.recovery.decide_lost(entry), dead_letter)
        self.assertEqual(self.recovery.decide_expired(entry), dead_letter)

    def test_a_reply_channel_that_is_not_a_name_stops_nothing(self):
        for reply_channel in ("5", '"no name"', "null", "[]"):
            body = '{"event_id": 3, "reply_channel": %s}' % reply_channel
            entry = Entry(1, "http.request", body)
            with self.assertLogs("django.channels.layers", "ERROR"):
                self.assertEqual(self.recovery.decide_lost(entry).kind, recovery.DEAD_LETTER)
            with self.assertLogs("django.channels.layers", "ERROR"):
                self.assertEqual(self.recovery.decide_expired(entry).kind, recovery.DROP)

    def test_nothing_is_counted_or_logged_before_the_commit(self):
        for channel in ("http.request", "websocket.disconnect", "thumbnails"):
            self.recovery.decide_lost(Entry(1, channel, EVENT))
            self.recovery.decide_expired(Entry(1, channel, EVENT))
        self.assertEqual(self.layer.statistics(), {})

    def test_each_decision_is_counted_and_logged(self):
        decisions = [
            ("http.request", recovery.NOTIFY),
            ("websocket.disconnect", recovery.REQUEUE),
            ("thumbnails", recovery.DEAD_LETTER),
            ("thumbnails", recovery.DEAD_LETTER),
        ]
        with self.assertLogs("django.channels.layers", "WARNING") as logs:
            self.recovery.lost(Recovered(["abc.7", "gateway.b!"], decisions, 2))
        self.assertEqual(
            self.layer.statistics(),
            {
                "lost": 2,
                "lost_reported": 1,
                "lost_retried": 1,
                "lost_dead": 2,
                "dead_letters_dropped": 2,
            },
        )
        text = "\n".join(logs.output)
        for words in (
            "lease of the worker process abc.7 ran out",
            "lease of the gateway gateway.b! ran out",
            "message of http.request. Its client is told",
            "message of websocket.disconnect. It is requeued",
            "message of thumbnails. It is a dead letter now",
            "2 dead letters were dropped",
        ):
            self.assertIn(words, text)

    def test_expired_events_are_counted_and_logged_by_channel(self):
        decisions = [("http.request", recovery.NOTIFY)] * 2 + [("websocket.receive", recovery.DROP)]
        with self.assertLogs("django.channels.layers", "WARNING") as logs:
            self.recovery.expired(Recovered([], decisions, 0))
        self.assertEqual(self.layer.statistics(), {"expired": 3})
        self.assertIn("Messages on http.request (2), websocket.receive (1) expired", logs.output[0])


class NoticeTests(unittest.TestCase):
    def setUp(self):
        self.now = 100.0
        self.notices = Notices(50, clock=lambda: self.now)

    def lines(self, call, *args):
        logger = "django.channels.layers"
        with self.assertLogs(logger) as logs:
            call(*args)
            recovery.logger.info("end")
        return [record.getMessage() for record in logs.records[:-1]]

    def test_one_line_a_second_with_what_was_held_back(self):
        self.assertEqual(len(self.lines(self.notices.expired, {"a": 1})), 1)
        self.now += 0.9
        self.assertEqual(self.lines(self.notices.expired, {"a": 2}), [])
        self.assertEqual(self.lines(self.notices.expired, {"b": 3, "a": 1}), [])
        self.now += 0.1
        (line,) = self.lines(self.notices.flush)
        self.assertIn("a (3), b (3)", line)
        self.now += 5
        self.assertEqual(self.lines(self.notices.flush), [])

    def test_a_line_names_few_channels_whatever_clients_name(self):
        many = {"http.request.body?%012d" % n: 1 for n in range(1000)}
        (line,) = self.lines(self.notices.expired, many)
        self.assertIn("http.request.body?… (1000)", line)
        self.now += 5
        (line,) = self.lines(self.notices.expired, {"room-%d" % n: 1 for n in range(1000)})
        self.assertIn("other channels (980)", line)
        self.assertLess(len(line), 1000)

    def test_the_kinds_do_not_hold_each_other_back(self):
        self.assertEqual(len(self.lines(self.notices.expired, {"a": 1})), 1)
        (line,) = self.lines(self.notices.dropped, 3)
        self.assertIn("3 dead letters were dropped: no more than 50 are kept", line)
        self.assertEqual(self.lines(self.notices.dropped, 3), [])


class CounterTests(unittest.TestCase):
    def test_each_increment_is_shared_once(self):
        counters, shared = Counters(), []
        counters.add("sent", 2)
        counters.share(lambda *call: shared.append(call[0]))
        counters.share(lambda *call: shared.append(call[0]))
        counters.add("sent")
        counters.add("full")
        counters.share(lambda *call: shared.append(call[0]))
        self.assertEqual(shared, [{"sent": 2}, {"sent": 1, "full": 1}])
        self.assertEqual(counters.values(), {"sent": 3, "full": 1})

    def test_increments_of_a_failed_call_are_repeated_under_their_number(self):
        counters, calls = Counters(), []

        def add(*call):
            calls.append(call)
            if len(calls) < 3:
                raise OSError("the reply got lost")

        counters.add("sent", 2)
        for _ in range(2):
            self.assertRaises(OSError, counters.share, add)
            counters.add("sent", 1)
        counters.share(add)
        process = calls[0][1]
        repeated = ({"sent": 2}, process, 1)
        self.assertEqual(calls, [repeated] * 3 + [({"sent": 2}, process, 2)])

    def test_processes_add_under_different_names(self):
        names = []
        for _ in range(2):
            counters = Counters()
            counters.add("sent")
            counters.share(lambda *call: names.append(call[1]))
        counters.after_fork()
        counters.add("sent")
        counters.share(lambda *call: names.append(call[1]))
        self.assertEqual(len(set(names)), 3)

    def test_the_total_has_what_is_not_shared_yet(self):
        counters = Counters()
        counters.add("sent", 2)
        counters.share(lambda *call: None)
        counters.add("sent", 1)
        counters.add("full", 1)
        self.assertEqual(counters.total(lambda: {"sent": 10}), {"sent": 11, "full": 1})

    def test_after_a_reset_only_new_increments_are_shared(self):
        counters, shared = Counters(), []
        counters.add("sent", 2)
        counters.reset_shared()
        counters.add("sent", 1)
        counters.share(lambda *call: shared.append(call[0]))
        self.assertEqual(shared, [{"sent": 1}])

    def test_a_child_process_begins_at_zero(self):
        counters = Counters()
        counters.add("sent", 2)
        counters.after_fork()
        self.assertEqual(counters.values(), {})
