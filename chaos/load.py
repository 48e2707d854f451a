"""
The load: WebSocket clients and HTTP requests of one event loop. They are written from RFC 6455 and RFC 9112,
so that a client can stop reading, and so that no code of the servers checks itself.

`Traffic` numbers all that it sends; `audit` compares that with what the site recorded.
"""

import asyncio
import base64
import json
import os
import random
import socket
import struct
import time

#: Frames of one socket that may be unanswered.
WINDOW = 4


class Refused(Exception):
    """A handshake was not answered with 101; `status` is what came (0: nothing)."""

    def __init__(self, status):
        super().__init__("status %d" % status)
        self.status = status


def client_frame(payload, opcode=0x1):
    """A masked frame of less than 64 KiB (RFC 6455, section 5.2)."""
    mask = os.urandom(4)
    length = len(payload)
    head = (
        struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        if length < 126
        else struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    )
    pattern = (mask * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(
        length, "big"
    )
    return head + mask + masked


class Socket(asyncio.Protocol):
    """One WebSocket. `on_text(bytes)` is called with each message; `code` is set once it is closed."""

    def __init__(self, port, path, on_text=None):
        self.port, self.path, self.on_text = port, path, on_text
        self.code = None
        self.closed = asyncio.get_event_loop().create_future()
        self.ours = False  # whether this side closed it
        self.received = 0
        self.last = 0.0  # when the last message came
        self._opened = asyncio.get_event_loop().create_future()
        self._buffer = b""

    async def open(self, timeout=15.0, receive_buffer=None, address=None):
        """
        Shake hands, from `address` if it isn't None; raises Refused, OSError or asyncio.TimeoutError.
        """
        loop = asyncio.get_event_loop()
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if address:
            sock.bind((address, 0))
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport, _ = await loop.create_connection(lambda: self, sock=sock)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            (
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            .format(path=self.path, port=self.port, key=key)
            .encode()
        )
        try:
            await asyncio.wait_for(asyncio.shield(self._opened), timeout)
        except BaseException:
            self.transport.abort()
            self._opened.cancel()
            raise
        return self

    def data_received(self, data):
        self._buffer += data
        if not self._opened.done():
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            status = int(head.split(b" ", 2)[1])
            if status != 101:
                self._opened.set_exception(Refused(status))
                self.transport.abort()
                return
            self._buffer = rest
            self._opened.set_result(None)
        while self._take_frame():
            pass

    def _take_frame(self):
        data = self._buffer
        if len(data) < 2:
            return False
        length, start = data[1] & 0x7F, 2
        if length == 126 and len(data) >= 4:
            length, start = struct.unpack_from("!H", data, 2)[0], 4
        elif length == 127 and len(data) >= 10:
            length, start = struct.unpack_from("!Q", data, 2)[0], 10
        elif length > 125:
            return False
        if len(data) < start + length:
            return False
        payload, self._buffer = data[start : start + length], data[start + length :]
        opcode = data[0] & 0x0F
        if opcode in (0x1, 0x2):
            self.received += 1
            self.last = time.monotonic()
            if self.on_text:
                self.on_text(payload)
        elif opcode == 0x9:
            self.transport.write(client_frame(payload, 0xA))
        elif opcode == 0x8:
            self._end(struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005)
            self.transport.write(client_frame(payload[:2], 0x8))
            self.transport.close()
        return True

    def send(self, payload):
        if self.code is None:
            self.transport.write(client_frame(payload))

    def close(self):
        """Close the socket with the code 1000."""
        if self.code is None:
            self.ours = True
            self.transport.write(client_frame(struct.pack("!H", 1000), 0x8))

    def connection_lost(self, error):
        if not self._opened.done():
            self._opened.set_exception(Refused(0))
        self._end(1006)

    def _end(self, code):
        if self.code is None:
            # Daphne (autobahn) puts the protocol's own codes 3000 higher.
            self.code = code - 3000 if 4000 < code < 4100 else code
            if not self.closed.done():
                self.closed.set_result(self.code)


async def fetch(port, path, method="GET", timeout=30.0, address=None):
    """
    Return (status, headers as a dict, body) of a request on a new connection; status 0: cut off. The
    request comes from `address`, if that isn't None.
    """
    local = (address, 0) if address else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
    try:
        request = "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % (method, path)
        writer.write(request.encode())
        try:
            answer = await asyncio.wait_for(reader.read(-1), timeout)
        except OSError:
            answer = b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return 0, {}, b""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return int(first.split(" ")[1]), headers, body


class Lag:
    """
    Measure how late the event loop of this process is, 50 times a second, in seconds. Each time that the load
    measures includes that. A context manager.
    """

    EVERY = 0.02

    def __init__(self):
        self.samples = []

    async def _tick(self):
        while True:
            due = time.monotonic() + self.EVERY
            await asyncio.sleep(self.EVERY)
            self.samples.append(time.monotonic() - due)

    def __enter__(self):
        self._task = asyncio.ensure_future(self._tick())
        return self

    def __exit__(self, *exc_info):
        self._task.cancel()


class Flow:
    """One socket of Traffic, which sends numbered frames; `sent` and `echoed` count them."""

    def __init__(self, traffic, number, port):
        self.traffic, self.port = traffic, port
        self.id = "%d-%d" % (number, random.getrandbits(40))
        self.sent = self.echoed = 0
        self.echoed_at = 0.0  # when the last echo came
        self.disorder = []
        self.open_at = self.closed_at = None
        self.socket = None
        self._sent_at = {}

    def on_text(self, payload):
        answer = json.loads(payload)
        if answer["n"] != self.echoed + 1:
            self.disorder.append((self.echoed, answer["n"]))
        self.echoed = answer["n"]
        now = self.echoed_at = time.monotonic()
        began = self._sent_at.pop(answer["n"], None)
        if began is not None:
            self.traffic.latencies.append(now - began)
        self.traffic.echoes += 1
        self.traffic.last_echo = now
        self.traffic.versions[answer["v"]] = now

    async def run(self):
        traffic = self.traffic
        while traffic.sending and self.socket.code is None:
            if self.sent - self.echoed < WINDOW:
                self.sent += 1
                self._sent_at[self.sent] = time.monotonic()
                self.socket.send(json.dumps({"n": self.sent, "ms": traffic.frame_ms}).encode())
            await asyncio.wait(
                {self.socket.closed}, timeout=traffic.interval * random.uniform(0.5, 1.5)
            )
        self.closed_at = time.monotonic() if self.socket.code is not None else None


class Traffic:
    """
    `sockets` flows, a frame each `interval` seconds on each, and `requests` HTTP clients with one request in
    flight; spread over the gateways at `ports`. A socket that is closed comes back with a new identity.
    """

    def __init__(self, ports, sockets=60, requests=6, interval=0.1, frame_ms=2, request_ms=20):
        self.ports, self.sockets, self.requests = ports, sockets, requests
        self.interval, self.frame_ms, self.request_ms = interval, frame_ms, request_ms
        self.flows = []
        self.answers = []  # (begun, seconds, status, whether the body was right)
        self.versions = {}  # of the site's code, to when it last answered
        self.latencies = []
        self.refused = []  # of handshakes: the status, or the name of what was raised
        self.echoes, self.last_echo = 0, 0.0
        self.sending = True
        self.request_timeout = 60.0
        self._number = 0
        self._tasks = []

    async def start(self):
        """Open all sockets, and start sending."""
        for number in range(self.sockets):
            self._tasks.append(asyncio.ensure_future(self._socket(number)))
        for number in range(self.requests):
            self._tasks.append(asyncio.ensure_future(self._client(number)))
        deadline = time.monotonic() + 30
        while len([flow for flow in self.flows if flow.echoed]) < self.sockets:
            if time.monotonic() > deadline:
                raise AssertionError("the load did not start: refused %s" % self.refused[:5])
            await asyncio.sleep(0.05)

    async def _socket(self, number):
        port = self.ports[number % len(self.ports)]
        while self.sending:
            flow = Flow(self, number, port)
            flow.socket = Socket(port, "/echo?id=" + flow.id, flow.on_text)
            try:
                await flow.socket.open(30.0)
            except (Refused, OSError, asyncio.TimeoutError) as error:
                self.refused.append(getattr(error, "status", type(error).__name__))
                await asyncio.sleep(0.2)
                continue
            flow.open_at = time.monotonic()
            self.flows.append(flow)
            await flow.run()
            if flow.socket.code is not None:
                await asyncio.sleep(0.1)

    async def _client(self, number):
        port = self.ports[number % len(self.ports)]
        while self.sending:
            self._number += 1
            n, begun = self._number, time.monotonic()
            try:
                status, _, body = await fetch(
                    port,
                    "/work?n=%d&ms=%d" % (n, self.request_ms),
                    timeout=self.request_timeout,
                )
            except asyncio.TimeoutError:
                status, body = -1, b""
            except OSError:
                await asyncio.sleep(0.1)  # no process listens: the gateway is down
                status, body = -2, b""
            right = status == 200 and body.endswith(b"%d" % n)
            self.answers.append((begun, time.monotonic() - begun, status, right))
            await asyncio.sleep(self.interval)

    async def stop(self, drain=15.0):
        """Send no more, wait `drain` seconds at most for the answers, and close the sockets."""
        self.sending = False
        for task in self._tasks:
            await task
        deadline = time.monotonic() + drain
        while time.monotonic() < deadline:
            if all(flow.echoed >= flow.sent for flow in self.open_flows()):
                break
            await asyncio.sleep(0.05)
        self.left_open = self.open_flows()
        for flow in self.left_open:
            flow.socket.close()
        if self.left_open:
            await asyncio.wait({flow.socket.closed for flow in self.left_open}, timeout=10)

    def open_flows(self):
        return [flow for flow in self.flows if flow.socket.code is None]

    def codes(self):
        """Return {close code: number} of the sockets that this side did not close."""
        found = {}
        for flow in self.flows:
            if flow.socket.code is not None and not flow.socket.ours:
                found[flow.socket.code] = found.get(flow.socket.code, 0) + 1
        return found

    def statuses(self):
        """Return {status: number} of the requests (-200: a wrong body; -1: no answer; -2: no server)."""
        found = {}
        for _, _, status, right in self.answers:
            status = status if status != 200 or right else -200
            found[status] = found.get(status, 0) + 1
        return found


def audit(traffic, records):
    """
    Compare what the site did with the frames with what was sent; return a dict of counts.

    `lost`: sent on a socket that stayed open, and never handled. `unanswered`: handled there, and not
    answered. `twice`: handled twice without the mark "redelivered". `marked`: handled twice with it.
    `disorder`: handled or answered out of order, and `gaps`: (what happened, socket, frame before, frame,
    close code) of each.
    """
    handled, connects, disconnects = {}, {}, {}
    for line in records:
        if line["kind"] == "frame":
            handled.setdefault(line["id"], []).append((line["n"], line["redelivered"]))
        elif line["kind"] == "connect":
            connects[line["id"]] = connects.get(line["id"], 0) + 1
        elif line["kind"] == "disconnect":
            disconnects.setdefault(line["id"], []).append(line["code"])
    found = {
        "frames": 0, "lost": 0, "unanswered": 0, "twice": 0, "marked": 0, "disorder": 0,
        "no_disconnect": 0, "two_disconnects": 0, "gaps": [],
    }  # fmt: skip
    for flow in traffic.flows:
        seen, reached = set(), 0
        found["frames"] += flow.sent
        for n, redelivered in handled.get(flow.id, ()):
            if n in seen:
                found["marked" if redelivered else "twice"] += 1
                continue
            if n != reached + 1:
                found["disorder"] += 1
                found["gaps"].append(("handled", flow.id, reached, n, flow.socket.code))
            seen.add(n)
            reached = max(n, reached)
        found["disorder"] += len(flow.disorder)
        found["gaps"] += [("answered", flow.id, *gap, flow.socket.code) for gap in flow.disorder]
        if flow.socket.ours:
            found["lost"] += flow.sent - len(seen)
            found["unanswered"] += len(seen) - flow.echoed
        ends = disconnects.get(flow.id, ())
        found["no_disconnect"] += not ends
        found["two_disconnects"] += len(ends) > 1
    return found


def percentile(values, share):
    """Return the percentile in milliseconds of `values` in seconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
