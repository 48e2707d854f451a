"""The base of the servers that tests start themselves: each with its own directory and its own port."""

import atexit
import os
import pwd
import shutil
import stat
import tempfile

from .ports import can_connect, free_port
from .processes import Process
from .requirements import missing
from .waiting import START_TIMEOUT, wait_until


def open_directory():
    """Return a temporary directory that other users can enter: that of Django's runner is private."""
    directory = tempfile.gettempdir()
    while not os.stat(directory).st_mode & stat.S_IXOTH:
        directory = os.path.dirname(directory)
    return directory


class Server:
    """A server program that listens on a free port of 127.0.0.1.

    A subclass sets `name`, and defines `command`; `user` is who runs a server that refuses to run as
    root. The process and the directory end with this Python process at the latest. Not thread-safe.
    """

    name = "server"
    user = None
    stop_signal = None
    running = None

    def __init__(self, offset=0):
        self.directory = tempfile.mkdtemp(prefix="channels-test-", dir=open_directory())
        self.port = free_port(offset=offset)
        self.process = None
        self.ids = None
        if self.user and os.getuid() == 0:
            try:
                entry = pwd.getpwnam(self.user)
            except KeyError:
                shutil.rmtree(self.directory)
                missing(
                    "root cannot run %s, and the user %r does not exist" % (self.name, self.user)
                )
            self.ids = (entry.pw_uid, entry.pw_gid)
            os.chown(self.directory, *self.ids)
        self._owner = os.getpid()
        atexit.register(self.remove)

    @classmethod
    def shared(cls):
        """Return the server that all tests of this run share; the first call starts it.

        Skips the test, or in CI fails it, if the server is not installed.
        """
        if cls.running is None:
            server = cls()
            server.prepare()
            cls.running = server.start()
        return cls.running

    def prepare(self):
        """Make what the server needs before its first start."""

    def command(self):
        """Return the server's command line, as a list."""
        raise NotImplementedError

    def answers(self):
        """Return whether the server is ready for clients."""
        return can_connect(self.port)

    def environment(self):
        return dict(os.environ, TMPDIR=self.directory)

    def run(self, *command):
        """Run a program as the server's user until it ends; AssertionError if it fails."""
        with Process(command, self.directory, self.environment(), self.ids) as process:
            if process.wait(START_TIMEOUT):
                raise AssertionError(process.describe("failed"))

    def start(self):
        """Start the server, wait until it answers, and return it."""
        self.process = Process(self.command(), self.directory, self.environment(), self.ids)

        def answers():
            if not self.process.alive:
                raise AssertionError(self.process.describe("did not start"))
            return self.answers()

        try:
            wait_until(answers, self.name + " to start", START_TIMEOUT)
        except BaseException:
            self.process.kill()
            raise
        return self

    def stop(self, number=None):
        """Send the server a signal, by default its own for an orderly end, and wait; its data is kept."""
        if self.process is not None:
            self.process.stop(number or self.stop_signal, START_TIMEOUT)
            self.process.kill()

    def kill(self):
        """End the server as a power cut would; its data is kept."""
        if self.process is not None:
            self.process.kill()

    def remove(self):
        """Stop the server and delete its directory. A forked child leaves both to its parent."""
        if os.getpid() == self._owner:
            self.stop()
            shutil.rmtree(self.directory, ignore_errors=True)
            atexit.unregister(self.remove)
