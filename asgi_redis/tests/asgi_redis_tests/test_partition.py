"""A gateway that is cut off and comes back, and a server that comes back with older data."""

import asyncio
import threading
import unittest

from asgi_redis.contract import protocol
from django.channels.exceptions import InvalidChannelName

from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import TIMEOUT, wait_until

from .test_recovery import start_lease
from .test_standalone import RedisLayerCase


def group_elsewhere(keys, channel):
    """Return a group that lies in another partition than the gateway of `channel`, if there are several."""
    groups = ["room-%d" % number for number in range(99)]
    found = [each for each in groups if keys.group(each).partition != keys.partition(channel)]
    return found[0] if found else groups[0]


class OlderDataTests(RedisLayerCase, unittest.TestCase):
    def test_what_was_there_before_another_run_of_the_server_may_have_been_handled(self):
        server = RedisServer().start()
        self.addCleanup(server.remove)
        layer = self.make_layer(hosts=[server.url], prefix="older:")
        for number in (1, 2):
            layer.send("test.x", {"number": number})
        self.assertEqual(layer.claim("consumer", ["test.x"])[1], {"number": 1})
        server.stop_with_data()
        server.start()

        def claim():
            try:
                return layer.claim("consumer", ["test.x"])[1]
            except layer.LayerUnavailable:
                return None

        self.assertEqual(wait_until(claim), {"number": 2, "redelivered": "maybe"})
        layer.send("test.x", {"number": 3})
        self.assertEqual(layer.claim("consumer", ["test.x"])[1], {"number": 3})


class PartitionTests(RedisLayerCase, unittest.TestCase):
    config = {"prefix": "partition:", "heartbeat": 0.1, "lease": 0.4}

    def check(self, recovers, partitions):
        """
        Cut a gateway off with one socket whose will is stored. If something `recovers`, it sends the will.
        Return the will, and what the gateway is told when it is back.
        """
        found, done = [], threading.Event()
        gateway = self.make_layer(partitions=partitions)
        other = self.make_layer(partitions=partitions)
        other.flush()
        self.addCleanup(other.flush)
        cut_off = threading.Event()

        def cut(call):
            def cut_call(*args):
                if cut_off.is_set():
                    raise gateway.LayerUnavailable("cut off")
                return call(*args)

            return cut_call

        gateway.store.heartbeat = cut(gateway.store.heartbeat)
        gateway.store.extend_leases = cut(gateway.store.extend_leases)

        async def hold():
            inbox = gateway.open_inbox("gateway.a!")
            inbox.set_will("gateway.a!1", ("test.gone", {"code": 1006}))
            while not done.is_set():
                try:
                    found.extend(await asyncio.wait_for(inbox.receive(), 0.1))
                except asyncio.TimeoutError:
                    pass
            inbox.clear_will("gateway.a!1")
            await inbox.close()

        holder = threading.Thread(target=lambda: asyncio.run(hold()))
        holder.start()
        try:
            call, keys = other.store.servers.call, other.store.keys
            wills = b"%sh:*" % keys.tag.encode()
            wait_until(lambda: other.store.servers.scan(wills.decode()), "the will to be stored")
            cut_off.set()
            if recovers:
                start_lease(other)
                message = wait_until(lambda: other.receive_many(["test.gone"])[1], "the will")
            else:
                lease = "g:" + next(iter(gateway.store._inboxes.values())).gateway
                call(("ZREM", keys.leases, lease))  # it ran out, and nothing has noticed it
                message = None
            cut_off.clear()
            wait_until(lambda: found, "the reset")
            message = message or wait_until(lambda: other.receive_many(["test.gone"])[1])
        finally:
            done.set()
            holder.join(TIMEOUT)
        self.assertIsNone(other.receive_many(["test.gone"])[1], "it was sent twice")
        return message, found

    def test_a_gateway_that_comes_back_learns_which_ends_were_told(self):
        reset = [("gateway.a!", {"reset": ["gateway.a!1"]})]
        for partitions in (1, 4):
            for recovers in (True, False):
                with self.subTest(recovers=recovers, partitions=partitions):
                    self.assertEqual(self.check(recovers, partitions), ({"code": 1006}, reset))


class FullInboxTests(RedisLayerCase, unittest.TestCase):
    def check(self, partitions):
        """Send to a group whose two members are behind an inbox for four records."""
        layer = self.make_layer(prefix="full:", partitions=partitions, inbox_capacity=4)
        layer.flush()
        self.addCleanup(layer.flush)
        group = group_elsewhere(layer.store.keys, "gateway.a!")

        def send():
            for number in (1, 2):
                layer.group_add(group, "gateway.a!%d" % number)
            for number in range(4):
                layer.send_group(group, {"number": number})
            with self.assertRaises(layer.ChannelFull):
                layer.send("gateway.a!1", {})

        async def run():
            inbox = layer.open_inbox("gateway.a!")
            try:
                await asyncio.get_event_loop().run_in_executor(None, send)
                return await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()

        found = [message for channel, message in asyncio.run(run()) if channel == "gateway.a!"]
        sent = [protocol.group_message(group, {"number": number}) for number in (0, 1)]
        self.assertEqual(found, sent)
        self.assertEqual(layer.statistics()["group_full"], 4)

    def test_members_behind_a_full_inbox_are_skipped_and_counted(self):
        for partitions in (1, 8):
            with self.subTest(partitions=partitions):
                self.check(partitions)


class CrossingChangesTests(RedisLayerCase, unittest.TestCase):
    """A change of a membership is two commands if group and gateway lie in different partitions."""

    config = {"prefix": "crossing:", "partitions": 8}

    def hold(self, method, *args):
        """Call a method of a layer, whose second command waits. Return what lets it go."""
        layer, commands = self.make_layer(), []
        waits, released = threading.Event(), threading.Event()
        call = layer.store.servers.call

        def held_call(command):
            commands.append(command)
            if len(commands) == 2:
                waits.set()
                released.wait(TIMEOUT)
            return call(command)

        layer.store.servers.call = held_call
        thread = threading.Thread(target=getattr(layer, method), args=args)

        def release():
            released.set()
            thread.join(TIMEOUT)

        thread.start()
        self.addCleanup(release)
        self.assertTrue(waits.wait(TIMEOUT))
        return release

    def test_the_last_change_of_a_membership_stands_whatever_command_arrives_last(self):
        layer = self.make_layer()
        layer.flush()
        self.addCleanup(layer.flush)
        keys, member = layer.store.keys, "gateway.a!1"
        group = group_elsewhere(keys, member)

        def change():
            late_add = self.hold("group_add", group, member)
            late_discard = self.hold("group_discard", group, member)
            layer.group_add(group, member)
            late_add()
            late_discard()
            layer.send_group(group, {"number": 1})
            layer.send(member, {"number": 2})

        async def run():
            inbox, found = layer.open_inbox("gateway.a!"), []
            try:
                await asyncio.get_event_loop().run_in_executor(None, change)
                while (member, {"number": 2}) not in found:
                    found += await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()
            return found

        sent = protocol.group_message(group, {"number": 1})
        self.assertIn(("gateway.a!", sent), asyncio.run(run()))


class NameTests(RedisLayerCase, unittest.TestCase):
    """Names that clients choose, such as those of rooms, on a layer with many partitions."""

    config = {"prefix": "names:", "partitions": 8}

    #: Names with a meaning for Redis Cluster, for the keys of the layer, or for Redis.
    BAD = [
        "#",
        "{",
        "}",
        "{a}",
        "x{y}z",
        "{names:#0}",
        "{names:#0}q:test.canary",
        "q:test.canary",
        "a:b",
        "a|b",
    ]
    BAD += [
        "test.canary\n",
        "test.canary\0",
        " test.canary",
        "*",
        "[a]",
        "\r\nFLUSHALL\r\n",
        "$1",
        "",
        "x" * 100,
    ]
    BAD += [
        "\xe9",
        "\ud800",
        "\uff41",
        "a!b!c",
        "a!b?c",
        None,
        1,
        b"test.canary",
        ["test.canary"],
        {"a": 1},
    ]
    ODD = [
        "leases",
        "dead",
        "delay",
        "epoch",
        "..",
        "-",
        "x" * 99,
        "test.canary.",
        "canary-",
        "counters",
    ]

    def test_no_name_reaches_what_has_another_name(self):
        layer = self.make_layer()
        layer.flush()
        self.addCleanup(layer.flush)
        layer.send("test.canary", {"own": 1})
        layer.group_add("canary", "test.member")
        for name in self.BAD + self.ODD:
            is_bad = name not in self.ODD
            for call in (
                lambda name: layer.send(name, {"evil": 1}),
                lambda name: layer.send_group(name, {"evil": 1}),
                lambda name: layer.group_add(name, "test.evil"),
                lambda name: layer.group_add("evil", name),
                lambda name: layer.group_discard(name, "test.member"),
                lambda name: layer.group_discard("evil", name),
                lambda name: layer.receive_many([name]),
            ):
                with self.subTest(name):
                    if is_bad:
                        self.assertRaises(InvalidChannelName, call, name)
                    else:
                        call(name)
        self.assertEqual(layer.receive_many(["test.canary"]), ("test.canary", {"own": 1}))
        self.assertEqual(layer.receive_many(["test.canary"]), (None, None))
        self.assertEqual(layer.group_channels("canary"), ["test.member"])
        tags = {tag.encode() for tag in layer.store.keys.tags}
        for key in RedisServer.shared().client().keys("*names:*"):
            self.assertIn(key.partition(b"}")[0] + b"}", tags)
            self.assertEqual(key.count(b"{"), 1, key)


class RepliesTests(RedisLayerCase, unittest.TestCase):
    def test_the_last_replies_of_several_consumers_reach_their_gateway(self):
        # A heartbeat would bring what has not come by itself.
        layer = self.make_layer(prefix="replies:", heartbeat=4 * TIMEOUT, lease=16 * TIMEOUT)
        layer.flush()
        self.addCleanup(layer.flush)
        replies = [("gateway.a!%d" % number, {"number": number}) for number in range(3)]

        def reply():
            for consumer, (_, message) in zip("abc", replies):
                layer.send("test.work", message)
                self.assertEqual(layer.claim(consumer, ["test.work"])[1], message)
            for consumer, answer in zip("abc", replies):
                layer.finish(consumer, *answer)
            layer.acknowledge_all("abc")

        async def run():
            inbox, found = layer.open_inbox("gateway.a!"), []
            call = asyncio.get_event_loop().run_in_executor
            try:
                await call(None, layer.send, "gateway.a!9", {})
                self.assertEqual(await inbox.receive(), [("gateway.a!9", {})])
                await call(None, reply)
                while len(found) < len(replies):
                    found += await asyncio.wait_for(inbox.receive(), TIMEOUT)
            finally:
                await inbox.close()
            return found

        self.assertEqual(asyncio.run(run()), replies)
