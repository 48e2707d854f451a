"""Find the processes that a run started and did not end.

A run puts a mark into its environment. Every program that is started below it inherits the mark, also in a
separate session and after its parent has died. Linux only: elsewhere nothing is ever found.
"""

import os
import signal

#: The environment variable with the mark of one run of the tests.
RUN = "CHANNELS_TEST_RUN"


def _read(pid, name):
    """Return the bytes of a file in /proc; b"" if the process has ended or belongs to another user."""
    try:
        with open("/proc/%d/%s" % (pid, name), "rb") as file:
            return file.read()
    except OSError:
        return b""


def marked_processes(mark, variable=RUN, children=True):
    """Return {process id: command line} of the living programs with `variable` set to `mark`.

    The calling process is left out, and so are processes that have ended and only wait to be reaped. The
    `children` of this process count as well: the environment of a forked child is that of its parent
    start, without the mark.
    """
    wanted = ("%s=%s" % (variable, mark)).encode()
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        pid = int(name) if name.isdigit() else os.getpid()
        if pid == os.getpid():
            continue
        state, parent = (_read(pid, "stat").rpartition(b")")[2].split() + [b"Z", b"0"])[:2]
        forked = children and int(parent) == os.getpid()
        if state != b"Z" and (forked or wanted in _read(pid, "environ").split(b"\0")):
            found[pid] = _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def kill_marked(mark, variable=RUN):
    """Kill the processes that have the mark, and return them as `marked_processes` does."""
    found = marked_processes(mark, variable, children=False)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # it has just ended
    return found
