"""Sentinel with a failover, Cluster with a slot that moves, TLS with an ACL user: as sites have them."""

import asyncio
import os
import subprocess
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor, wait
from unittest import mock

import redis
from asgi_redis.contract import Outgoing
from django.channels.test.conformance import LayerConformance

from asgi_redis import RedisChannelLayer, cluster
from channels_tests.support.redis_server import (
    RedisServer,
    await_replica,
    await_sentinel,
    form_cluster,
    replica_and_sentinel,
)
from channels_tests.support.requirements import require
from channels_tests.support.waiting import TIMEOUT, wait_until

#: The ACL of the guide, in docs/topics/channels/redis.txt.
ACL = "~{mysite:#* +@read +@write +@blocking +@scripting +@connection -@dangerous +info +time"
#: How often redis-py's client of a cluster sends one command at most.
MOST_TRIES = redis.RedisCluster.RedisClusterRequestTTL

CLUSTER_ACL = ACL + " +cluster|slots +cluster|shards +cluster|nodes +cluster|myid +command"


class Topology:
    """Its servers are started once for the class, by `start_servers`."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.servers = []
        try:
            cls.start_servers()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        for server in cls.servers:
            server.stop()
        super().tearDownClass()

    @classmethod
    def add(cls, server):
        cls.servers.append(server)
        return server.start()

    config = {}
    busy = {"heartbeat": 0.1, "lease": 60}

    def make_layer(self, **config):
        layer = RedisChannelLayer(**dict(self.config, **config))
        self.addCleanup(layer.close)
        return layer


class Flow:
    """Messages that flow from a sender to a claiming worker, while something happens."""

    def __init__(self, sender, worker):
        self.sender, self.worker = sender, worker
        self.sent, self.got, self.refused = [], [], 0
        self.stop, self.all_sent = threading.Event(), threading.Event()
        self.threads = [threading.Thread(target=each) for each in (self._send, self._claim)]

    def _send(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            try:
                self.sender.send("flow.work", {"number": number})
                self.sent.append(number)
            except (self.sender.LayerUnavailable, self.sender.ChannelFull):
                self.refused += 1
                time.sleep(0.02)
            time.sleep(0.002)

    def _claim(self):
        all_sent = False
        while not all_sent or len(self.got) < len(self.sent):
            all_sent = self.all_sent.is_set()  # before the claim, which finds what was sent then
            try:
                message = self.worker.claim("slot", ["flow.work"], block=True)[1]
            except self.worker.LayerUnavailable:
                time.sleep(0.02)
                continue
            if message is not None:
                self.got.append(message["number"])
            elif all_sent:
                return

    def __enter__(self):
        self.worker.block_for = 0.3
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self.stop.set()
        sending, claiming = self.threads
        sending.join(TIMEOUT)
        self.all_sent.set()
        claiming.join(TIMEOUT)

    def flows(self):
        """Wait until messages that are sent from now on come out."""
        begin = len(self.sent)
        wait_until(lambda: len(self.sent) > begin + 10, "sends to succeed", 2 * TIMEOUT)
        number = self.sent[-1]
        wait_until(lambda: self.got and self.got[-1] >= number, "them to come out", 2 * TIMEOUT)


class SentinelTopology(Topology):
    """A primary, its replica, and a Sentinel that promotes the replica after `down_after` ms of silence."""

    down_after = 1000

    @classmethod
    def start_servers(cls):
        cls.primary = cls.add(RedisServer())
        replica, sentinel = replica_and_sentinel(cls.primary, cls.down_after)
        cls.replica = cls.add(replica)
        await_replica(replica.client())
        cls.sentinel = cls.add(sentinel)
        await_sentinel(sentinel)
        cls.config = {
            "sentinels": [("127.0.0.1", cls.sentinel.port)],
            "service": "mymaster",
            "heartbeat": 0.3,
            "lease": 3,
        }


class SentinelTests(SentinelTopology, LayerConformance, unittest.TestCase):
    down_after = int(
        60000 * TIMEOUT
    )  # a primary that a busy machine keeps waiting stays the primary


class FailoverTests(SentinelTopology, unittest.TestCase):
    # It has its own servers: the failover leaves them without the old primary.
    def test_messages_flow_again_after_a_failover(self):
        sender, worker, gateway = (self.make_layer() for _ in range(3))
        batches = []

        async def hold_an_inbox(done):
            inbox = gateway.open_inbox("gateway.a!")
            opened.set()
            while not done.is_set():
                try:
                    batches.extend(await asyncio.wait_for(inbox.receive(), 0.2))
                except asyncio.TimeoutError:
                    pass
                except gateway.LayerUnavailable:
                    await asyncio.sleep(0.05)
            await inbox.close()

        done, opened = threading.Event(), threading.Event()
        holder = threading.Thread(target=lambda: asyncio.run(hold_an_inbox(done)))
        holder.start()
        try:
            with Flow(sender, worker) as flow:
                flow.flows()
                self.assertTrue(opened.wait(TIMEOUT))
                self.primary.kill()
                flow.flows()
                # An event or an answer may have been lost: sockets begin anew.
                wait_until(lambda: ("gateway.a!", {"reset": True}) in batches, "it to be told")
                sender.send("gateway.a!1", {"after": "failover"})
                wait_until(
                    lambda: ("gateway.a!1", {"after": "failover"}) in batches, "the inbox to get it"
                )
        finally:
            done.set()
            holder.join(TIMEOUT)
        self.assertGreater(flow.refused, 0)
        # Nothing twice, nothing out of order; what the replica had not got yet is lost.
        self.assertEqual(flow.got, sorted(set(flow.got)))
        self.assertLess(len(set(flow.sent) - set(flow.got)), 20)


class ClusterTopology(Topology):
    """Three primaries, and `replicas` of the first."""

    replicas = 0

    @classmethod
    def start_servers(cls):
        cls.nodes = [
            cls.add(RedisServer(cluster_enabled="yes", cluster_node_timeout=2000))
            for _ in range(3 + cls.replicas)
        ]
        form_cluster(cls.nodes)
        cls.config = {
            "hosts": [node.url for node in cls.nodes],
            "cluster": True,
            "heartbeat": 0.5,
            "lease": 5,
        }


def call_as_gateway(layer, command):
    """Return the reply to `command` over a new connection of an event loop; an exception for a refusal."""

    async def call():
        link = layer.store.servers.link(blocks=False)
        try:
            return (await link.call([command]))[0]
        finally:
            await link.close()

    return asyncio.run(call())


def gateway_reaches(layer, command):
    try:
        return call_as_gateway(layer, command) == 0
    except layer.LayerUnavailable:
        return False


class ClusterTests(ClusterTopology, LayerConformance, unittest.TestCase):
    def test_partitions_lie_on_all_nodes(self):
        layer = self.make_layer()
        slots = {
            self.nodes[0].client().execute_command("CLUSTER", "KEYSLOT", tag) // 5462
            for tag in layer.store.keys.tags
        }
        self.assertEqual(slots, {0, 1, 2})

    def make_layer_of(self, user, acl):
        """Return a layer that uses the cluster as a new user with this ACL."""
        for node in self.nodes:
            words = ("on", ">secret") + tuple(acl.split())
            node.client().execute_command("ACL", "SETUSER", user, *words)
        urls = [node.url.replace("//", "//%s:secret@" % user) for node in self.nodes]
        return self.make_layer(hosts=urls, prefix="mysite:")

    def test_a_user_who_may_not_ask_for_the_nodes_is_told(self):
        layer = self.make_layer_of("curious", CLUSTER_ACL.replace("+cluster|nodes", ""))
        with self.assertRaisesRegex(layer.LayerUnavailable, "ACL"):
            layer.store.servers.owners(layer.store.keys.tags, set())

    def test_a_user_who_may_do_no_more_than_the_guide_says(self):
        layer = self.make_layer_of("channels", CLUSTER_ACL)
        layer.flush()
        layer.send("test.x", {"a": 1})
        self.assertEqual(layer.claim("slot", ["test.x"]), ("test.x", {"a": 1}))

        async def check():
            inbox = layer.open_inbox("gateway.acl!")
            try:
                layer.group_add("room", "gateway.acl!1")
                layer.send_group("room", {"hello": "all"})
                batch = []
                while len(batch) < 2:
                    batch += await asyncio.wait_for(inbox.receive(), TIMEOUT)
                return batch[1]
            finally:
                await inbox.close()

        received = asyncio.run(check())
        self.assertEqual(received[1], {"group": "room", "message": {"hello": "all"}})

    def test_a_record_that_cannot_be_read_stops_no_gateway(self):
        layer = self.make_layer()

        async def check():
            inbox = layer.open_inbox("gateway.damaged!")
            try:
                stream = layer.store.keys.inbox(inbox.name).stream
                layer.store.servers.call(("XADD", stream, "*", "e", b"\xff\xff"))
                layer.send("gateway.damaged!1", {"good": 1})
                await asyncio.wait_for(inbox.receive(), TIMEOUT)
                inbox.send("test.damaged", {"good": 2}, self.fail)
                while inbox._writing is not None or inbox._work or inbox._extra:
                    await asyncio.sleep(0.01)
            finally:
                await inbox.close()

        asyncio.run(asyncio.wait_for(check(), 2 * TIMEOUT))
        self.assertEqual(layer.receive_many(["test.damaged"])[1], {"good": 2})
        self.assertEqual(layer.store.count_dead_letters(), 1)
        layer.drop_dead_letters()

    def test_a_claim_waits_for_longer_than_socket_timeout(self):
        layer = self.make_layer(socket_timeout=1)
        layer.block_for = 2
        self.assertEqual(layer.claim("slot", ["test.quiet"], block=True), (None, None))

    def test_messages_flow_while_a_slot_moves(self):
        sender, worker = self.make_layer(), self.make_layer()
        with Flow(sender, worker) as flow:
            flow.flows()
            self.move_slot(sender.store.keys.tag)
            flow.flows()
        self.assertEqual(flow.got, flow.sent)

    def test_a_send_waits_until_its_slot_has_moved(self):
        layer, newcomer = self.make_layer(), self.make_layer()
        # A layer that connects meanwhile waits, too.
        self.call_while_the_slot_moves(layer, newcomer.store.servers.call)

    def test_a_gateway_waits_until_its_slot_has_moved(self):
        layer = self.make_layer()
        self.call_while_the_slot_moves(layer, lambda command: call_as_gateway(layer, command))

    def test_a_slot_that_takes_too_long_to_move_is_told(self):
        layer = self.make_layer()
        command = layer.store.send_command(Outgoing("test.moving", b"test.moving\nbody"))
        layer.store.servers.call(command)
        told = []

        def between():
            futures = [
                executor.submit(layer.store.servers.call, command),
                executor.submit(call_as_gateway, layer, command),
            ]
            told.extend(each.exception() for each in wait(futures, TIMEOUT).done)

        with ThreadPoolExecutor(2) as executor, mock.patch.object(cluster, "MOVING", 0.0):
            self.move_slot(layer.store.keys.tag, between)
        self.assertEqual([type(each) for each in told], [layer.LayerUnavailable] * 2)

    def test_what_a_node_refuses_is_told_at_once(self):
        layer = self.make_layer()
        layer.send("test.refused", {})
        command = ("INCR", layer.store.place("test.refused").queue)
        with ThreadPoolExecutor(1) as executor, mock.patch.object(cluster, "MOVING", 2 * TIMEOUT):
            with self.assertRaisesRegex(layer.LayerUnavailable, "WRONGTYPE"):
                executor.submit(layer.store.servers.call, command).result(TIMEOUT)
            reply = executor.submit(call_as_gateway, layer, command).result(TIMEOUT)
        self.assertIn("WRONGTYPE", str(reply))

    def call_while_the_slot_moves(self, layer, call):
        """Send by `call(command)` while the slot is between two nodes, for longer than redis-py tries."""
        layer.flush()
        layer.send("test.moving", {"number": 1})
        body = layer.store.encode("test.moving", {"number": 2})
        command = layer.store.send_command(Outgoing("test.moving", body))
        futures = []

        def between():
            enough = self.count_tries() + MOST_TRIES + 1
            futures.append(executor.submit(call, command))
            wait_until(
                lambda: self.count_tries() > enough or futures[0].done(), "redis-py to give up"
            )

        with ThreadPoolExecutor(1) as executor, mock.patch.object(cluster, "MOVING", 3 * TIMEOUT):
            self.move_slot(layer.store.keys.tag, between)
            self.assertEqual(futures[0].result(TIMEOUT), 0)
        self.assertEqual(layer.receive_many(["test.moving"])[1], {"number": 1})
        self.assertEqual(layer.receive_many(["test.moving"])[1], {"number": 2})

    def count_tries(self):
        """Return how many commands the nodes have answered with TRYAGAIN."""
        found = [node.client().info("errorstats") for node in self.nodes]
        return sum(each.get("errorstat_TRYAGAIN", {"count": 0})["count"] for each in found)

    def move_slot(self, tag, between=lambda: None):
        clients = [node.client() for node in self.nodes]
        slot = clients[0].execute_command("CLUSTER", "KEYSLOT", tag)
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
        source = min(slot // 5462, 2)
        while True:
            try:
                clients[source].execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
                clients[source].exists(tag + "leases")
                break
            except redis.exceptions.ResponseError:
                source = (source + 1) % 3
        target = (source + 1) % 3
        clients[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        clients[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        between()
        while True:
            keys = clients[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            if not keys:
                break
            clients[source].execute_command(
                "MIGRATE", "127.0.0.1", self.nodes[target].port, "", 0, 5000, "KEYS", *keys
            )
        for client in (clients[target], clients[source], clients[3 - source - target]):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])


class ClusterFailoverTests(ClusterTopology, unittest.TestCase):
    # It has its own servers: the failover leaves them without the old primary.
    replicas = 1

    def test_a_failover_resets_the_inboxes_and_no_layer_needs_the_node_of_its_settings(self):
        layer = self.make_layer(partitions=16)
        narrow = self.make_layer(hosts=[self.nodes[0].url])
        narrow.send("test.narrow", {})
        slots = layer.store.servers.client.keyslot
        tags = layer.store.keys.tags
        found = []

        def lies_on_first(name):
            return slots(tags[layer.store.keys.partition(name)]) < 5461

        inboxes = ["gateway.%d!" % number for number in range(100)]
        here = next(name for name in inboxes if lies_on_first(name))
        elsewhere = next(name for name in inboxes if not lies_on_first(name))

        async def hold(done):
            opened = [layer.open_inbox(name) for name in (here, elsewhere)]

            async def read(inbox):
                while not done.is_set():
                    try:
                        found.extend(await asyncio.wait_for(inbox.receive(), 0.2))
                    except asyncio.TimeoutError:
                        pass
                    except layer.LayerUnavailable:
                        await asyncio.sleep(0.05)

            await asyncio.gather(*map(read, opened))
            for inbox in opened:
                await inbox.close()

        def gets_through(name, number):
            try:
                layer.send(name + "a", {"number": number})
            except layer.LayerUnavailable:
                return False
            return True

        done = threading.Event()
        holder = threading.Thread(target=lambda: asyncio.run(hold(done)))
        holder.start()
        try:
            for name in (here, elsewhere):
                wait_until(lambda name=name: gets_through(name, 1), "a first message")
                wait_until(lambda name=name: (name + "a", {"number": 1}) in found, "it to come")
            self.assertNotIn({"reset": True}, [message for _, message in found])
            self.nodes[0].kill()
            for name in (here, elsewhere):
                # Shared channels or groups of either may have lain there.
                wait_until(
                    lambda name=name: (name, {"reset": True}) in found, "a reset", 3 * TIMEOUT
                )
            for name in (here, elsewhere):
                wait_until(lambda name=name: gets_through(name, 2), "a message", TIMEOUT)
                wait_until(lambda name=name: (name + "a", {"number": 2}) in found, "it to come")
        finally:
            done.set()
            holder.join(TIMEOUT)
        # A gateway that connects now only finds nodes that the layer has met.
        queue = narrow.store.keys.queue("test.other").queue
        wait_until(lambda: gateway_reaches(narrow, ("EXISTS", queue)), "a gateway to connect")


def make_certificate(directory):
    """A self-signed certificate for 127.0.0.1; (its path, its key's)."""
    require("openssl")
    certificate, key = (os.path.join(directory, name) for name in ("server.crt", "server.key"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext"]
        + ["subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


class TLSTests(Topology, LayerConformance, unittest.TestCase):
    """TLS alone is spoken, by a user with a password that may touch this prefix and nothing else."""

    @classmethod
    def start_servers(cls):
        server = RedisServer()
        cls.certificate, key = make_certificate(server.directory)
        server.options.update(
            {
                "port": 0,
                "tls-port": server.port,
                "tls-cert-file": cls.certificate,
                "tls-key-file": key,
                "tls-ca-cert-file": cls.certificate,
                "tls-auth-clients": "no",
                "user": ["default off", "channels on >se:cret/1 " + ACL],
            }
        )
        cls.server = cls.add(server)
        cls.config = {
            "hosts": [
                "rediss://channels:se%%3Acret%%2F1@127.0.0.1:%d/0?ssl_ca_certs=%s"
                % (server.port, cls.certificate)
            ],
            "prefix": "mysite:",
        }

    def test_a_wrong_password_is_told(self):
        url = self.config["hosts"][0]
        for wrong in (url.replace("cret", "gret"), url.replace("channels:se%3Acret%2F1@", "")):
            layer = self.make_layer(hosts=[wrong])
            with self.assertRaisesRegex(layer.LayerUnavailable, "password|user") as caught:
                layer.send("test.x", {})
            self.assertNotIn("gret", str(caught.exception))

    def test_a_certificate_that_nobody_knows_is_refused(self):
        layer = self.make_layer(hosts=[self.config["hosts"][0].split("?")[0]])
        with self.assertRaisesRegex(layer.LayerUnavailable, "(?i)certificate"):
            layer.send("test.x", {})

    def test_another_prefix_is_out_of_its_reach(self):
        layer = self.make_layer(prefix="theirs:")
        with self.assertRaisesRegex(layer.LayerUnavailable, "ACL"):
            layer.send("test.x", {})
