"""
The supervisor of `runworker --processes`: keeps so many children alive, and renews them on SIGHUP.

A child is the same command in a new interpreter, so that new code is what it runs. A pair of sockets
ties it to the supervisor: the child says on it that it works, and takes its end for a request to leave.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any, Callable, Iterable

from ..log import process_logger

logger = logging.getLogger("django.channels.worker")

#: The environment variable that tells a child of the socket: "PID OF THE SUPERVISOR:DESCRIPTOR".
VARIABLE = "DJANGO_CHANNELS_SUPERVISOR"

#: Seconds that a new child may take until it works, before SIGHUP gives up on the new code.
START_TIMEOUT = 60.0

#: Seconds before a child that died early is started again: doubled with each early death, up to the last.
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

#: A child that lived so many seconds did not die early.
EARLY = 10.0

#: Seconds beyond the grace until a child that does not leave is killed.
LATE = 5.0


class ParentPipe:
    """A child's end of the pair of sockets."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    @classmethod
    def of_this_process(cls) -> ParentPipe | None:
        """Return the pipe to the supervisor that started this process; None if no supervisor did."""
        parent, _, descriptor = os.environ.pop(VARIABLE, "").partition(":")
        # A process that inherited the environment from a child is not a child of the supervisor.
        if not parent or int(parent) != os.getppid():
            return None
        return cls(int(descriptor))

    def ready(self) -> None:
        """Say that this process works."""
        try:
            self._socket.send(b"1")
        except OSError:
            pass  # the supervisor has gone: `on_loss` sees it

    def on_loss(self, function: Callable[[], object]) -> None:
        """Call `function()`, in a thread, when the supervisor has gone."""

        def watch() -> None:
            try:
                self._socket.recv(1)
            except OSError:
                pass
            function()

        threading.Thread(target=watch, name="channels-supervisor", daemon=True).start()


class _Child:
    """One process, the supervisor's view of it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        environment = dict(os.environ)
        environment[VARIABLE] = "%d:%d" % (os.getpid(), theirs.fileno())
        try:
            self.process = subprocess.Popen(
                command_line(), env=environment, pass_fds=[theirs.fileno()]
            )
        finally:
            theirs.close()
        self.begun = time.monotonic()
        self.ready = False
        self.leaving: float | None = None  # the time at which it is killed

    def ask_to_leave(self, grace: float) -> None:
        if self.leaving is None:
            self.leaving = time.monotonic() + grace + LATE
            self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


class Supervisor:
    """
    `processes` children. SIGTERM and SIGINT end them, each within `grace` seconds; SIGHUP replaces them one
    by one, as far as the new ones come to work.
    """

    def __init__(self, processes: int, grace: float) -> None:
        self.processes = processes
        self.grace = grace
        self._children: list[_Child] = []
        self._ending = False
        self._renewals: list[_Child] = []  # children to be replaced
        self._replacement: _Child | None = None  # is to replace the first of `_renewals`
        self._early_deaths = 0
        self._next_start = 0.0
        self._clean = True
        self._signals: list[int] = []

    def run(self) -> bool:
        """Supervise until told to end; return whether all children ended by themselves."""
        reading, writing = os.pipe()
        for descriptor in (reading, writing):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        self._say("%d keeps %d worker processes", os.getpid(), self.processes)
        while True:
            self.step()
            if self._ending and not self._children:
                return self._clean
            waiting = {child.socket: child for child in self._children if not child.ready}
            watched: list[Any] = [reading, *waiting]
            for each in select.select(watched, [], [], self._pause())[0]:
                if each == reading:
                    os.read(reading, 4096)
                else:
                    self._hear(waiting[each])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _pause(self) -> float:
        """Return the seconds until something is due by itself."""
        now = time.monotonic()
        due = [child.leaving for child in self._children if child.leaving is not None]
        if self._replacement is not None:
            due.append(self._replacement.begun + START_TIMEOUT)
        if not self._ending and len(self._wanted()) < self.processes:
            due.append(self._next_start)
        return max(0.01, min(due) - now) if due else 60.0

    def _wanted(self) -> list[_Child]:
        return [
            child
            for child in self._children
            if child.leaving is None and child is not self._replacement
        ]

    def step(self) -> None:
        """Do what signals, deaths and the clock ask for."""
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT) and not self._ending:
                self._ending = True
                self._renewals = []
                name = signal.Signals(number).name
                self._say(
                    "%d got %s and ends its %d processes", os.getpid(), name, len(self._children)
                )
            elif number == signal.SIGHUP and not self._ending:
                self._say(
                    "%d got SIGHUP and renews its %d processes", os.getpid(), len(self._wanted())
                )
                self._give_up_replacement()
                self._renewals = self._wanted()
        for child in list(self._children):
            if child.process.poll() is not None:
                self._note_end(child)
        now = time.monotonic()
        for child in self._children:
            if self._ending:
                child.ask_to_leave(self.grace)
            if child.leaving is not None and now > child.leaving:
                self._clean = False
                self._say("kills %d, which does not leave", child.process.pid, level=logging.ERROR)
                child.signal(signal.SIGKILL)
                child.leaving = now + LATE
        if not self._ending:
            self._start_missing(now)
            self._renew(now)

    def _start_missing(self, now: float) -> None:
        while len(self._wanted()) < self.processes and now >= self._next_start:
            self._children.append(_Child())
            if self._early_deaths:
                return

    def _renew(self, now: float) -> None:
        replacement = self._replacement
        if replacement is not None:
            if replacement.ready:
                self._replacement = None
                if self._renewals:
                    self._renewals.pop(0).ask_to_leave(self.grace)
            elif now > replacement.begun + START_TIMEOUT:
                self._say(
                    "got no new process to work in %g s: the old ones stay",
                    START_TIMEOUT,
                    level=logging.ERROR,
                )
                self._give_up_replacement()
        if self._renewals and self._replacement is None:
            self._replacement = _Child()
            self._children.append(self._replacement)

    def _give_up_replacement(self) -> None:
        replacement, self._replacement = self._replacement, None
        self._renewals = []
        if replacement is not None:
            replacement.ask_to_leave(self.grace)

    def _hear(self, child: _Child) -> None:
        try:
            child.ready = child.socket.recv(1) == b"1" or child.process.wait(1) is None
        except (OSError, subprocess.TimeoutExpired):
            pass

    def _note_end(self, child: _Child) -> None:
        self._children.remove(child)
        child.socket.close()
        status = child.process.returncode
        if child in self._renewals:
            self._renewals.remove(child)  # it died by itself: the next one runs the new code anyway
        if child.leaving is not None:
            # By the signal itself: while it started, or, at Ctrl-C, after it had ended all but itself.
            self._clean = self._clean and status in (0, -signal.SIGTERM)
            return
        how = "by signal %d" % -status if status < 0 else "with status %d" % status
        if child is self._replacement:
            self._replacement, self._renewals = None, []
            self._say(
                "saw the first process on the new code end %s: the old ones stay",
                how,
                level=logging.ERROR,
            )
            return
        now = time.monotonic()
        if now - child.begun < EARLY and not child.ready:
            self._early_deaths += 1
        else:
            self._early_deaths = 0
        pause = PAUSES[min(self._early_deaths, len(PAUSES) - 1)]
        self._next_start = now + pause
        self._say(
            "saw process %d end %s: another starts%s",
            child.process.pid,
            how,
            " in %g s" % pause if pause else "",
            level=logging.ERROR,
        )

    def _say(self, text: str, *values: object, level: int = logging.INFO) -> None:
        (process_logger if level < logging.WARNING else logger).log(
            level, "The supervisor " + text + ".", *values
        )


def command_line() -> list[str]:
    """Return what started this process, for another one like it."""
    command = [sys.executable] + ["-W" + option for option in sys.warnoptions]
    command += [
        "-X%s=%s" % pair if pair[1] is not True else "-X" + pair[0] for pair in _x_options()
    ]
    if sys.dont_write_bytecode:
        command.append("-B")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        name = spec.name[: -len(".__main__")] if spec.name.endswith(".__main__") else spec.name
        return command + ["-m", name] + sys.argv[1:]
    return command + sys.argv


def _x_options() -> Iterable[tuple[str, Any]]:
    return getattr(sys, "_xoptions", {}).items()
