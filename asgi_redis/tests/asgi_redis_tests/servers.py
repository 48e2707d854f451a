"""The former place of support/redis_server.py and ports.py."""

from channels_tests.support.ports import free_port  # noqa: F401
from channels_tests.support.redis_server import RedisServer

shared_server = RedisServer.shared
