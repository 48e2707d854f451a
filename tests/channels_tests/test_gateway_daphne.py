"""Flow control behind Daphne, without Daphne: when a producer is registered, waited for and forgotten."""

import asyncio
import functools
import unittest

from django.channels.gateway.daphne import with_flow_control


class Server:
    """What Daphne's looks like to the gateway: `send` is a partial of its method."""

    __module__ = "daphne.server"

    def __init__(self):
        self.events = []

    async def handle_reply(self, protocol, event):
        self.events.append(event)


class Request:
    """A producer's consumer that refuses a second one, as Twisted's does, and can lose its connection."""

    producer = None
    lost = False
    channel = None

    def registerProducer(self, producer, streaming):
        if self.producer is not None:
            raise ValueError("registering a producer before the previous one was unregistered")
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def loseConnection(self):
        self.lost = True


class Stream:
    """That of a request over HTTP/2."""

    aborted = False

    def abortConnection(self):
        self.aborted = True


def body(content, more=True):
    return {"type": "http.response.body", "body": content, "more_body": more}


class FlowControlTests(unittest.TestCase):
    def setUp(self):
        self.server, self.request = Server(), Request()

    def run_with_send(self, function):
        async def run():
            await function(
                with_flow_control(functools.partial(self.server.handle_reply, self.request))
            )

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(run())

    def test_another_servers_send_is_left_alone(self):
        async def send(event):
            pass

        self.assertIs(with_flow_control(send), send)

    def test_a_part_waits_for_the_client(self):
        async def go(send):
            await send(body(b"1"))
            self.request.producer.pauseProducing()
            second = asyncio.ensure_future(send(body(b"2")))
            for _ in range(10):
                await asyncio.sleep(0)
            self.assertFalse(second.done())
            self.request.producer.resumeProducing()
            await second
            await send(body(b"", more=False))
            self.assertIsNone(self.request.producer)

        self.run_with_send(go)
        self.assertEqual([event["body"] for event in self.server.events], [b"1", b"2", b""])

    def test_what_is_written_after_the_client_has_gone_registers_nothing(self):
        async def go(send):
            await send(body(b"1"))
            self.request.producer.stopProducing()
            await send(body(b"2"))
            await send(body(b"", more=False))

        self.run_with_send(go)
        self.assertEqual(len(self.server.events), 3)

    def test_a_cut_loses_the_connection_and_over_http_2_the_stream(self):
        async def go(send):
            await send(body(b"1"))
            send.cut()

        self.run_with_send(go)
        self.assertTrue(self.request.lost)
        self.request = Request()
        self.request.channel = Stream()
        self.run_with_send(go)
        self.assertTrue(self.request.channel.aborted)
        self.assertFalse(self.request.lost)
