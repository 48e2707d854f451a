"""Starts and stops the Redis servers of the tests: on free ports, each in a directory of its own."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

import redis

#: Seconds that a server gets to start; scaled as the time-outs of the other tests.
TIMEOUT = 10 * float(os.environ.get("CHANNELS_TEST_TIMEOUT_SCALE", 1))

PROGRAMS = ("redis-server", "valkey-server")


def find_server():
    """The path of redis-server, or of what REDIS_SERVER names; without one it skips, or in CI fails."""
    wanted = os.environ.get("REDIS_SERVER")
    for name in (wanted,) if wanted else PROGRAMS:
        path = shutil.which(name)
        if path:
            return path
    reason = "not installed here: " + (wanted or " or ".join(PROGRAMS))
    if os.environ.get("CI") == "true":
        raise AssertionError(reason + " (a test whose server is missing fails in CI)")
    raise unittest.SkipTest(reason)


def free_port():
    """A port on which nothing listens, nor on the cluster bus's beside it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port > 50000:
                continue
            try:
                second.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


class RedisServer:
    """One process. `options` are lines of redis.conf: name to value, or to a list of them.

    With `monitor`, its lines that begin with "sentinel", it is a Sentinel.
    """

    def __init__(self, monitor=None, **options):
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="asgi-redis-test-")
        self.is_sentinel = monitor is not None
        self.options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.directory,
            "save": '""',
            "appendonly": "no",
        }
        if self.is_sentinel:
            del self.options["save"], self.options["appendonly"]
        self.options.update((name.replace("_", "-"), value) for name, value in options.items())
        if self.is_sentinel:
            self.options["sentinel"] = monitor
        self.process = None

    @property
    def url(self):
        return "redis://127.0.0.1:%d/0" % self.port

    def start(self):
        program = find_server()
        path = os.path.join(self.directory, "redis.conf")
        if not (self.is_sentinel and os.path.exists(path)):
            with open(path, "w") as file:
                for name, value in self.options.items():
                    for each in value if isinstance(value, list) else [value]:
                        file.write("%s %s\n" % (name, each))
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [program, path] + ["--sentinel"] * self.is_sentinel, stdout=log, stderr=log
            )
        atexit.register(self.kill)
        self.wait_until_it_listens()
        return self

    def wait_until_it_listens(self):
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("redis-server does not start:\n" + self.log()) from None
            time.sleep(0.01)

    def log(self):
        with open(os.path.join(self.directory, "log"), errors="replace") as file:
            return file.read()[-4000:]

    def client(self, **kwargs):
        return redis.Redis(port=self.port, **kwargs)

    def kill(self):
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            atexit.unregister(self.kill)

    def stop(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


_shared = None


def shared_server():
    """The standalone server that all tests which do not harm it share."""
    global _shared
    if _shared is None:
        _shared = RedisServer().start()
        atexit.register(shutil.rmtree, _shared.directory, True)
    return _shared
