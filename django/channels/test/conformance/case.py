"""
What the parts of the conformance suite share: how a layer is made, how tests wait, and how a process dies.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ...exceptions import ChannelFull

if TYPE_CHECKING:
    from unittest import TestCase

    from ...layers.base import BaseChannelLayer, Message
else:
    TestCase = object

Result = TypeVar("Result")

#: Seconds within which what must happen has happened; scaled for slow machines.
TIMEOUT = 10 * float(os.environ.get("CHANNELS_TEST_TIMEOUT_SCALE", 1))

#: Seconds in which what must not happen is given a chance to.
MOMENT = 0.05


class LayerCase(TestCase):
    """The base of each part. `self.layer` is empty before each test."""

    #: The shortest `expiry`, in seconds, that the layer can tell from no expiry.
    shortest_expiry: float = 1

    #: Options with which the layer does soon what it otherwise does with its heartbeat.
    busy: dict[str, Any] = {}

    #: Options with which the lease of a killed process ends soon.
    short_leases: dict[str, Any] = {
        "heartbeat": 0.1,
        "lease": 0.6 * max(1.0, TIMEOUT / 10),
    }

    #: Seconds after which a test fails because something did not happen.
    timeout = TIMEOUT

    layer: BaseChannelLayer

    def make_layer(self, **config: Any) -> BaseChannelLayer:
        """Return a new layer over the same store, with these options besides its own."""
        raise NotImplementedError("Define make_layer(**config) to return a layer.")

    def setUp(self) -> None:
        super().setUp()
        self.layer = self.make_layer()
        if "flush" in self.layer.extensions:
            self.layer.flush()
        if "dead_letters" in self.layer.extensions:
            self.layer.drop_dead_letters()

    def need(self, *extensions: str) -> None:
        """Skip the test unless the layer has these extensions."""
        for extension in extensions:
            if extension not in self.layer.extensions:
                self.skipTest("%s has no %r" % (type(self.layer).__name__, extension))

    def until(self, condition: Callable[[], Result]) -> Result:
        """Return the first true result of `condition()`, or the last one after `timeout` seconds."""
        deadline = time.monotonic() + self.timeout
        while True:
            result = condition()
            if result or time.monotonic() > deadline:
                return result
            time.sleep(0.005)

    def receive(self, *channels: str, layer: BaseChannelLayer | None = None) -> tuple[str, Message]:
        """Return the next message of `channels`. Wait for it, and fail without one."""
        reader = layer or self.layer

        def look() -> tuple[str, Message] | None:
            channel, message = reader.receive_many(channels, block=True)
            return None if channel is None or message is None else (channel, message)

        found = self.until(look)
        if found is None:
            self.fail("nothing came on %s" % ", ".join(channels))
        return found

    def make_patient_layer(self) -> BaseChannelLayer:
        """
        Return a layer that waits longer than a test does, and whose heartbeats come too late to wake a reader
        in time: only a notification does.
        """
        rare = {"heartbeat": 4 * self.timeout, "lease": 16 * self.timeout}
        layer = self.make_layer(**(rare if "leases" in self.layer.extensions else {}))
        layer.block_for = 4 * self.timeout
        return layer

    def start_reader(self, read: Callable[[], object]) -> threading.Thread:
        """Start a thread that calls `read`, and give it a moment, in which the layer should let it wait."""
        begun = threading.Event()

        def run() -> None:
            begun.set()
            read()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        begun.wait(self.timeout)
        thread.join(MOMENT)
        return thread

    def assertNothing(self, *channels: str, layer: BaseChannelLayer | None = None) -> None:
        self.assertEqual((layer or self.layer).receive_many(list(channels)), (None, None))

    def send_when_there_is_room(
        self, layer: BaseChannelLayer, channel: str, message: Message
    ) -> None:
        """Send a message, and wait while its channel is full."""

        def send() -> bool:
            try:
                layer.send(channel, message)
            except ChannelFull:
                return False
            return True

        self.assertTrue(self.until(send), "%s stayed full" % channel)

    # Processes.

    def start_process(self, work: Callable[[BaseChannelLayer], object], **config: Any) -> int:
        """
        Fork a process that does `work(layer)` with its own layer, and then nothing. Return its id when
        the work is done. The process is killed at the end of the test.

        `self.layer` is closed first, which ends its threads: a lock that one of them holds during the fork,
        in a library that is written in C, would stay locked in the child.
        """
        self.layer.close()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                work(self.make_layer(**config))
                os.write(writer, b".")
                signal.pause()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        self.addCleanup(self.kill, child)
        os.close(writer)
        try:
            # Not `select.select`, which refuses a descriptor above 1,023.
            with selectors.DefaultSelector() as selector:
                selector.register(reader, selectors.EVENT_READ)
                done = bool(selector.select(2 * self.timeout)) and os.read(reader, 1) == b"."
        finally:
            os.close(reader)
        self.assertTrue(done, "the process did not do its work")
        return child

    def kill(self, child: int) -> None:
        """Kill a process of `start_process`, unless that was done."""
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
