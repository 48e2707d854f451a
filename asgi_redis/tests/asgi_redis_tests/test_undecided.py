"""While a handshake is undecided: the cases of channels_tests.test_undecided and its other ends, on Redis."""

import os
import re
import signal
import threading
import unittest

from django.channels import Channel, Group

from asgi_redis import RedisChannelLayer
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.waiting import TIMEOUT, wait_until
from channels_tests.test_undecided import Accepts, CrossingLayer
from channels_tests.test_undecided_ends import Ends

from .test_processes import ProcessesCase


class RedisLayer(CrossingLayer):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.redis = RedisServer().start()

    @classmethod
    def tearDownClass(cls):
        cls.redis.stop()
        super().tearDownClass()

    def make_layer(self):
        layer = RedisChannelLayer(hosts=[self.redis.url], prefix=self.id())
        self.addCleanup(layer.close)
        return layer


class AcceptsTests(RedisLayer, Accepts, unittest.TestCase):
    pass


class EndsTests(RedisLayer, Ends, unittest.TestCase):
    pass


ROUTING = """
import os
import time

from {channels} import Group, route


def connect(message):
    Group("room").add(message.reply_channel)
    print("begun: %s" % message.reply_channel.name, flush=True)
    while not os.path.exists(os.environ["DECIDES"]):
        time.sleep(0.01)
    message.reply_channel.send({"accept": True})
    if message["path"] == "/closes/":
        Group("others").send({"text": "in between"})
        message.reply_channel.send({"close": 4403})
    if message["path"] == "/raises/":
        Group("others").send({"text": "in between"})
        raise ValueError("refused")


def disconnect(message):
    print("gone: %s %s" % (message["path"], message["code"]), flush=True)


channel_routing = [route("websocket.connect", connect), route("websocket.disconnect", disconnect)]
"""


class SeveralProcessesCase(ProcessesCase):
    """The gateway, each worker and the other code that sends run in separate processes."""

    config = ', "prefix": "undecided:"'
    routing = ROUTING

    def worker(self, decides):
        path = os.path.join(self.project.directory, decides)
        worker = self.project.manage("runworker", "--threads", "2", DECIDES=path)
        self.addCleanup(worker.kill)
        worker.wait_for_output("Quit with")
        return worker

    def decide(self, name):
        self.project.write(name, "")

    def connect(self, gateway, path):
        """Begin a handshake. Return a list that gets its status, and later what comes, and its thread."""
        seen = []

        def run():
            import websocket

            url, timeout = gateway.websocket_url(path), TIMEOUT
            try:
                socket = websocket.create_connection(url, timeout=timeout)
            except websocket.WebSocketBadStatusException as error:
                seen.append(error.status_code)
                return
            seen.append("open")
            while seen[-1].__class__ is str and seen[-1] != "the last":
                opcode, data = socket.recv_data(control_frame=True)
                is_close = opcode == 8
                seen.append(int.from_bytes(data[:2], "big") if is_close else data.decode())
            socket.close()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, TIMEOUT)
        return seen, thread

    def others_send(self, client):
        layer = RedisChannelLayer(hosts=[self.redis.url], prefix="undecided:")
        self.addCleanup(layer.close)
        Channel(client, channel_layer=layer).send({"accept": True, "subprotocol": "other"})
        Channel(client, channel_layer=layer).send({"text": "other"})
        Group("room", channel_layer=layer).send({"text": "the room's"})
        Channel(client, channel_layer=layer).send({"text": "the last"})

    def begun(self, worker):
        return worker.wait_for_output(r"begun: (\S+)").group(1)


class SeveralProcessesTests(SeveralProcessesCase):
    def test_refused_clients_get_nothing_of_others(self):
        gateway, worker = self.gateway(), self.worker("now")
        seen = {path: self.connect(gateway, path) for path in ("/closes/", "/raises/", "/accepts/")}
        wait_until(lambda: worker.output.count("begun: ") == 2, "two threads to be busy")
        for client in re.findall(r"begun: (\S+)", worker.output):
            self.others_send(client)
        self.decide("now")
        wait_until(lambda: worker.output.count("begun: ") == 3, "the third to begin")
        self.others_send(re.findall(r"begun: (\S+)", worker.output)[2])
        for _, thread in seen.values():
            thread.join(TIMEOUT)
        self.assertEqual(seen["/closes/"][0], ["open", 4403])
        self.assertEqual(seen["/raises/"][0], ["open", 1011])
        self.assertEqual([seen["/accepts/"][0][0], seen["/accepts/"][0][-1]], ["open", "the last"])


class LossTests(SeveralProcessesCase):
    def check_lost(self, lose):
        gateway, worker = self.gateway(), self.worker("now")
        seen, thread = self.connect(gateway, "/accepts/")
        self.others_send(self.begun(worker))
        lose(worker)
        other = self.worker("now")
        thread.join(TIMEOUT)
        self.assertEqual(seen, [403])
        other.wait_for_output("gone: /accepts/ 1011")
        return worker, other

    def test_a_killed_worker_s_client_is_refused(self):
        self.check_lost(lambda worker: worker.kill())

    def test_a_worker_that_comes_back_after_its_lease_opens_nothing(self):
        worker, other = self.check_lost(lambda worker: os.kill(worker.popen.pid, signal.SIGSTOP))
        self.decide("now")
        os.kill(worker.popen.pid, signal.SIGCONT)
        self.assertEqual(worker.stop(signal.SIGTERM), 0)
        self.assertEqual((worker.output + other.output).count("gone: "), 1)


class RedeliveredTests(SeveralProcessesCase):
    config = SeveralProcessesCase.config + ', "lost": {"websocket.connect": "retry"}'

    def check_redelivered(self, path, lose):
        gateway, worker = self.gateway(), self.worker("never")
        seen, thread = self.connect(gateway, path)
        self.others_send(self.begun(worker))
        lose(worker)
        other = self.worker("now")
        self.others_send(self.begun(other))
        self.assertEqual(seen, [])
        self.decide("now")
        thread.join(TIMEOUT)
        return worker, seen

    def test_what_others_send_waits_for_the_worker_that_begins_again(self):
        _, seen = self.check_redelivered("/accepts/", lambda worker: worker.kill())
        self.assertEqual(seen, ["open", "other", "the room's", "the last"])

    def test_a_worker_that_comes_back_changes_nothing(self):
        worker, seen = self.check_redelivered(
            "/closes/", lambda worker: os.kill(worker.popen.pid, signal.SIGSTOP)
        )
        self.decide("never")
        os.kill(worker.popen.pid, signal.SIGCONT)
        self.assertEqual(worker.stop(signal.SIGTERM), 0)
        self.assertEqual(seen, ["open", 4403])
