"""Child processes: started in a separate session, ended by their process id, their output kept."""

import os
import re
import signal
import subprocess
import sys
import tempfile

from .waiting import START_TIMEOUT, wait_until


def python_environment():
    """Return the environment of a process that imports what this process imports."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))


def allow_open_files(number=None):
    """
    Let this process open `number` files, or as many as it may. Return how many it may open now. The limit of
    the system stays.
    """
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = float("inf") if hard == resource.RLIM_INFINITY else hard
    wanted = most if number is None else min(number, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = hard if wanted == float("inf") else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return most if number is None else wanted


class Process:
    """A child process in a separate process group, whose output (both streams) is kept.

    `ids` (user and group) are whose the process becomes, if this one runs as root. `log` is the path of the
    file that gets the output; by default a temporary file without a name. Not thread-safe.
    """

    def __init__(self, command, cwd=None, env=None, ids=None, log=None, pass_fds=()):
        self.command = command

        def prepare():
            # Ctrl-C has to work also if the tests run in the background, where a shell has it ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if ids is not None:
                os.setgroups([])
                os.setgid(ids[1])
                os.setuid(ids[0])

        self._log = open(log, "w+b") if log else tempfile.TemporaryFile()
        self.popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,
            pass_fds=pass_fds,
        )
        self.pid = self.popen.pid

    @property
    def alive(self):
        return self.popen.poll() is None

    @property
    def output(self):
        """What the process has written so far, as text."""
        if self._log.closed:
            return self._kept
        # pread leaves alone the position in the file, which this process shares with the child.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def describe(self, what):
        """Return `what` with the command and the output: the text of an error."""
        command = " ".join(str(part) for part in self.command)
        return "{}: {}\n--- its output ---\n{}".format(command, what, self.output[-8000:])

    def wait_for_output(self, pattern, start=0, timeout=START_TIMEOUT):
        """Wait until the output from `start` on matches the regular expression; return the match."""

        def found():
            # A child may write, also after the process has ended.
            ended = not self.alive and not self.group_is_alive()
            match = re.compile(pattern).search(self.output, start)
            if match is None and ended:
                raise AssertionError(self.describe(f"ended before it wrote {pattern!r}"))
            return match

        try:
            return wait_until(found, pattern, timeout)
        except AssertionError as error:
            if self.alive:
                error = self.describe(str(error))
            raise AssertionError(str(error)) from None

    def wait(self, timeout=START_TIMEOUT):
        """Wait for the end of the process; return its exit status (negative: the signal)."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.describe(f"still running after {timeout:g} s")) from None

    def stop(self, number=signal.SIGTERM, timeout=START_TIMEOUT):
        """Send a signal to the process alone and wait for its end; return its exit status."""
        if self.alive:
            self.popen.send_signal(number)
        return self.wait(timeout)

    def interrupt(self, timeout=START_TIMEOUT):
        """Press Ctrl-C: SIGINT to the process and its children; return the exit status."""
        os.killpg(self.pid, signal.SIGINT)
        return self.wait(timeout)

    def group_is_alive(self):
        """Return whether the process, or a child that it left behind, still lives."""
        self.popen.poll()  # a dead process stays in its group until its parent has asked
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self):
        """Kill the process and what it started; for cleaning up, safe to call again."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        if not self._log.closed:
            self._kept = self.output
            self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        try:
            if self.alive and exc_info[0] is None:
                self.stop()
        finally:
            self.kill()
