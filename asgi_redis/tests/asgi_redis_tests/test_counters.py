"""What processes count is added up in Redis, with their heartbeats."""

from channels_tests.support.waiting import wait_until

from .test_recovery import RecoveryCase


class CounterTests(RecoveryCase):
    def counters(self):
        return self.layer.global_statistics()["counters"]

    def test_those_of_all_processes_are_added_up(self):
        first, second = self.make_layer(), self.make_layer()
        for layer, number in ((first, 2), (second, 3)):
            layer.count("refused", number)
            layer.leases.step()
        self.assertEqual(self.counters(), {"refused": 5})
        first.leases.step()  # nothing new
        first.count("slow_clients")
        first.leases.step()
        self.assertEqual(self.counters(), {"refused": 5, "slow_clients": 1})

    def test_a_call_whose_reply_got_lost_adds_once(self):
        layer = self.make_layer()
        call, lost = layer.store.servers.call, []

        def lose_the_first(command, *args, **kwargs):
            reply = call(command, *args, **kwargs)
            if not lost:
                lost.append(reply)
                raise layer.LayerUnavailable("the reply got lost")
            return reply

        layer.count("refused", 2)
        layer.store.servers.call = lose_the_first
        self.assertRaises(layer.LayerUnavailable, layer.share_counters)
        layer.count("refused", 3)
        layer.share_counters()
        self.assertEqual(self.counters(), {"refused": 5})

    def test_what_became_of_lost_messages(self):
        self.watch()
        self.lose("http.request", reply_channel="gateway.x!1", event_id=1)
        self.lose("websocket.disconnect", path="/a/")
        self.lose("jobs", number=1)
        expected = {"lost_reported": 1, "lost_retried": 1, "lost_dead": 1}
        wait_until(lambda: expected.items() <= self.counters().items(), "the counters")
