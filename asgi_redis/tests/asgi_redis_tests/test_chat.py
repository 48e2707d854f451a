"""The chat on Redis, as `CHANNEL_REDIS_URL=… make demo` starts it: two servers, two workers."""

import os
import re
import signal
import unittest

from asgi_redis import RedisChannelLayer
from channels_tests.support.redis_server import RedisServer
from channels_tests.support.requirements import require
from channels_tests.support.waiting import wait_until
from channels_tests.test_chat import START_TIMEOUT, ChatSite, Visitor, require_chat


class RedisChatSite(ChatSite):
    def __init__(self, redis):
        super().__init__()
        self.redis = redis

    def environment(self, **extra):
        return super().environment(CHANNEL_REDIS_URL=self.redis.url, **extra)


class SecondServer:
    """The same site at its other address."""

    def __init__(self, site, port):
        self.server, self.windows, self.port = site.server, site.windows, port

    def url(self, path="/"):
        return "http://127.0.0.1:%d%s" % (self.port, path)


class ChatTests(unittest.TestCase):
    def test_people_on_two_servers_talk_and_a_killed_worker_disturbs_nobody(self):
        require_chat()
        require("websocket")
        redis = RedisServer().start()
        self.addCleanup(redis.stop)
        with RedisChatSite(redis) as site:
            found = site.server.wait_for_output(r"also at \S+:(\d+)/", timeout=START_TIMEOUT)
            second = SecondServer(site, int(found.group(1)))
            pids = [
                int(pid)
                for pid in re.search(r"processes (\d+) and (\d+)", site.server.output).groups()
            ]

            def listens():
                try:
                    Visitor(second).get()
                except OSError:
                    return False
                return True

            wait_until(listens, "the second server", START_TIMEOUT)
            ada = Visitor(site, "Ada").enter().await_people("Ada")
            ben = Visitor(second, "Ben").enter().await_people("Ada", "Ben")
            ada.say("hello over there")
            ben.await_line("hello over there")
            # A socket whose event the killed worker held would be closed, as it should: the line is out
            # before the worker has said that it is done.
            layer = RedisChannelLayer(hosts=[redis.url])
            self.addCleanup(layer.close)
            wait_until(lambda: not layer.global_statistics()["messages_held"], "them to be done")
            os.kill(pids[0], signal.SIGKILL)
            for number in range(5):
                ben.say("line %d" % number)
                ada.await_line("line %d" % number)
            ben.close()
            ada.await_people("Ada")
            self.assertNotIn("Traceback", site.server.output)
