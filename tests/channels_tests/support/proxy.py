"""A TCP proxy in front of a server, which cuts its connections, or stalls them without closing."""

import asyncio
import threading

from .waiting import TIMEOUT


class Proxy:
    """
    Passes 127.0.0.1:`port` on to 127.0.0.1:`target`, in its own thread.

    `stall` and `resume` act on all connections, also those to come. Any thread may call the methods.
    """

    def __init__(self, target):
        self.target = target
        self._writers, self._tasks = set(), set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._call(self._start())

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    async def _start(self):
        # One gate for each direction: while it is closed, nothing passes.
        self._requests, self._replies = asyncio.Event(), asyncio.Event()
        await self._open()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def _accept(self, reader, writer):
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(to_writer)
        try:
            await asyncio.gather(
                self._pump(reader, to_writer, self._requests),
                self._pump(to_reader, writer, self._replies),
            )
        finally:
            self._writers -= {writer, to_writer}

    async def _pump(self, reader, writer, gate):
        try:
            while True:
                data = await reader.read(65536)
                await gate.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except (OSError, RuntimeError):
            pass
        finally:
            writer.close()

    async def _cut(self):
        for writer in list(self._writers):
            writer.transport.abort()

    async def _close_gates(self, requests, replies):
        if requests:
            self._requests.clear()
        if replies:
            self._replies.clear()

    async def _open(self):
        self._requests.set()
        self._replies.set()

    async def _end(self):
        self._server.close()
        await self._open()
        await self._cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self):
        """Reset all connections. New ones are possible at once."""
        self._call(self._cut())

    def stall(self, requests=True, replies=True):
        """Let nothing pass, in these directions, and close nothing."""
        self._call(self._close_gates(requests, replies))

    def resume(self):
        """Let pass what was stalled, and what comes."""
        self._call(self._open())

    def close(self):
        if not self._loop.is_closed():
            self._call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT)
            self._loop.close()
