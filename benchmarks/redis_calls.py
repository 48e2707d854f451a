"""Calls of one Redis layer from synchronous code, timed: ``redis_layer.py`` runs it for each contender.

Prints one JSON object: calls a second, or milliseconds a call for groups.
"""

import argparse
import json
import time

FRAME = {
    "reply_channel": "gateway.AbCdEfGhIjKl!17",
    "path": "/chat/",
    "text": "x" * 66,
    "order": 7,
    "event_id": 7,
}

#: About 1.2 kB: what a browser sends.
REQUEST = {
    "reply_channel": "gateway.AbCdEfGhIjKl!17",
    "event_id": 0,
    "http_version": "1.1",
    "method": "GET",
    "path": "/articles/2016/channels/",
    "query_string": b"page=2&sort=date",
    "scheme": "https",
    "root_path": "",
    "client": ["203.0.113.7", 51234],
    "server": ["192.0.2.1", 443],
    "body": b"",
    "headers": [
        [b"host", b"www.example.com"],
        [b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"],
        [b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
        [b"accept-language", b"en-GB,en;q=0.7,de;q=0.3"],
        [b"accept-encoding", b"gzip, deflate, br, zstd"],
        [b"referer", b"https://www.example.com/articles/2016/"],
        [b"cookie", b"csrftoken=" + b"c" * 64 + b"; sessionid=" + b"s" * 32 + b"; p=" + b"p" * 420],
        [b"upgrade-insecure-requests", b"1"],
        [b"sec-fetch-dest", b"document"],
        [b"sec-fetch-mode", b"navigate"],
        [b"sec-fetch-site", b"same-origin"],
    ],
}


class Ours:
    def __init__(self, url):
        from django.conf import settings

        # The layer tells projects on one server apart by their secret key.
        settings.configure(SECRET_KEY="only for benchmarks on the loopback interface")
        from asgi_redis import RedisChannelLayer

        self.layer = RedisChannelLayer(hosts=[url], prefix="bench:")
        self.layer.flush()

    def send_and_receive(self, message):
        self.layer.send("bench.calls", message)
        self.layer.receive_many(["bench.calls"])

    def claim_cycle(self, message):
        self.layer.send("bench.calls", message)
        self.layer.claim("bench", ["bench.calls"])

    def group(self, members):
        """Make a group with so many members of one gateway; return what sends to it, and what reads it."""
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)

        async def opened():
            return self.layer.open_inbox("gateway.bench%d!" % members)

        inbox = loop.run_until_complete(opened())
        name, last = "bench%d" % members, inbox.name + "last"
        for number in range(members):
            self.layer.group_add(name, "%s%d" % (inbox.name, number))

        def send(message):
            self.layer.send_group(name, message)

        async def read_all():
            self.layer.send(last, {})
            while last not in [channel for channel, _ in await inbox.receive()]:
                pass

        # No process reads during the measurement: the inbox is emptied between rounds.
        return send, lambda: loop.run_until_complete(read_all())

    def close(self):
        self.layer.close()


class ChannelsRedis:
    def __init__(self, url):
        from asgiref.sync import async_to_sync
        from channels_redis.core import RedisChannelLayer

        self.layer = RedisChannelLayer(hosts=[url], prefix="peer", capacity=100000)
        self.sync = async_to_sync

    def send_and_receive(self, message):
        self.sync(self.layer.send)("bench.calls", message)
        self.sync(self.layer.receive)("bench.calls")

    def group(self, members):
        name = "bench%d" % members

        async def join():
            prefix = await self.layer.new_channel()
            for number in range(members):
                await self.layer.group_add(name, "%s%d" % (prefix, number))
            await self.layer.close_pools()

        self.sync(join)()
        send = self.sync(self.layer.group_send)

        return (lambda message: send(name, message)), lambda: None

    def close(self):
        pass


def rate(call, seconds):
    """Return the calls a second, over as many as fit into `seconds`."""
    for _ in range(20):
        call()
    count, begin = 0, time.perf_counter()
    while True:
        for _ in range(10):
            call()
        count += 10
        elapsed = time.perf_counter() - begin
        if elapsed > seconds:
            return count / elapsed


def group_ms(layer, members, seconds):
    send, empty = layer.group(members)
    times, deadline = [], time.perf_counter() + seconds
    empty()
    while time.perf_counter() < deadline or len(times) < 30:
        begin = time.perf_counter()
        send({"type": "chat.message", "text": "x" * 66})
        times.append(time.perf_counter() - begin)
        if len(times) % 500 == 0:
            empty()
    return 1000 * sorted(times)[len(times) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layer", choices=["ours", "channels_redis"], required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    layer = (Ours if options.layer == "ours" else ChannelsRedis)(options.url)
    result = {
        "frame": rate(lambda: layer.send_and_receive(FRAME), options.seconds),
        "request": rate(lambda: layer.send_and_receive(REQUEST), options.seconds),
        "group": {
            str(members): group_ms(layer, members, options.seconds) for members in (10, 1000, 10000)
        },
    }
    if options.layer == "ours":
        result["claim"] = rate(lambda: layer.claim_cycle(FRAME), options.seconds)
    layer.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
