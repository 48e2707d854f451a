"""The load generator: one process, one thread, raw sockets, hand-made frames, the standard library.

It knows HTTP/1.1 and WebSocket (RFC 6455) just as far as a load needs, and nothing of the servers it
loads: every contender gets the very same bytes. What is started, in which order and how the figures
are compared is ``run.py``'s business. Prints one JSON object on standard output::

    python load.py echo --port 8000 --sockets 100 --warmup 0.5 --duration 2

``rate`` is messages, deliveries or requests a second; times are milliseconds; ``generator_cpu`` is the
share of one core this process used while it measured: near 1.0, the generator was the limit and the
figure says nothing about the server. With ``--server-pid``, ``server_us`` is the processor time
(microseconds) that this process spent for each of them, which a busy machine disturbs least.
"""

import argparse
import base64
import json
import os
import selectors
import socket
import struct
import sys
import time

STALL_SECONDS = 20.0  # nothing at all came back for so long: the run has failed
CONNECT_BATCH = 50  # handshakes under way at a time
READ_SIZE = 65536


class LoadError(Exception):
    """The server did not do what the load asks for; the message says what came instead."""


# --- Frames -------------------------------------------------------------------------------------


def client_frame(payload, opcode=0x1):
    """A masked, unfragmented frame (RFC 6455, section 5.2) of at most 65,535 bytes."""
    mask = os.urandom(4)
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    else:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def server_frame(payload, opcode=0x1):
    """The same message as a server sends it: not masked."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, length) + payload
    return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload


def split_frame(data):
    """The first frame in ``data`` as ``(opcode, payload, bytes used)``, or None while it is partial."""
    if len(data) < 2:
        return None
    length, start = data[1] & 0x7F, 2
    if length == 126:
        if len(data) < 4:
            return None
        length, start = struct.unpack_from("!H", data, 2)[0], 4
    elif length == 127:
        if len(data) < 10:
            return None
        length, start = struct.unpack_from("!Q", data, 2)[0], 10
    if len(data) < start + length:
        return None
    return data[0] & 0x0F, data[start : start + length], start + length


# --- Connections --------------------------------------------------------------------------------


class Connection:
    """A socket after its handshake, with at most one answer outstanding."""

    __slots__ = ("expected", "frame", "pending", "recv", "send", "sent_at", "sock")

    def __init__(self, sock):
        self.sock = sock
        self.recv = sock.recv
        self.send = sock.send
        self.frame = self.pending = b""
        self.expected = None
        self.sent_at = 0.0

    def gather(self, data):
        """The slow path of a WebSocket read: True once exactly the expected frame is there."""
        data = self.pending + data
        while True:
            if data == self.expected:
                self.pending = b""
                return True
            frame = split_frame(data)
            if frame is None:
                if not data and self.pending == b"":
                    raise LoadError("the server dropped a connection without a close frame")
                self.pending = data
                return False
            opcode, payload, used = frame
            if opcode == 0x8:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else "none"
                raise LoadError(
                    "the server closed a socket (code %s %r)" % (code, bytes(payload[2:]))
                )
            if opcode != 0x9:
                raise LoadError(
                    "a socket got %r where %r was due" % (bytes(data[:80]), self.expected[:80])
                )
            self.send(client_frame(payload, opcode=0xA))
            data = data[used:]
            self.pending = b""
            if not data:
                return False


def open_tcp(port):
    sock = socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def open_websockets(port, path, count):
    """``count`` accepted WebSocket connections, opened a batch at a time."""
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).format(path=path, port=port, key=key)
    connections = []
    while len(connections) < count:
        batch = []
        for _ in range(min(CONNECT_BATCH, count - len(connections))):
            sock = open_tcp(port)
            sock.sendall(request.encode())
            batch.append(sock)
        for sock in batch:
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = sock.recv(READ_SIZE)
                if not data:
                    raise LoadError("the handshake was cut off after %r" % answer)
                answer += data
            status, rest = answer.split(b"\r\n", 1)[0], answer.split(b"\r\n\r\n", 1)[1]
            if b" 101" not in status:
                raise LoadError("the handshake was refused: %r" % status)
            if rest:
                raise LoadError("an unexpected frame came first: %r" % rest)
            sock.setblocking(False)
            connections.append(Connection(sock))
    return connections


def watch(connections):
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.sock, selectors.EVENT_READ, connection)
    return selector


def close(connections, websocket):
    """Leave politely, so that the server's ends have gone before the next run begins."""
    goodbye = client_frame(struct.pack("!H", 1000), opcode=0x8)
    for connection in connections:
        connection.sock.setblocking(True)
        connection.sock.settimeout(STALL_SECONDS)
        if websocket:
            connection.sock.sendall(goodbye)
    for connection in connections:
        if websocket:
            while connection.sock.recv(READ_SIZE):
                pass
        connection.sock.close()


# --- Processor time -----------------------------------------------------------------------------


class Meter:
    """Processor time of this process and of the server's, over the seconds that count."""

    def __init__(self, server_pid):
        self._path = "/proc/%d/stat" % server_pid if server_pid else None
        self._begun = None
        self._spent = None

    def begin(self):
        self._begun = self._read()

    def end(self):
        self._spent = [
            None if now is None or then is None else now - then
            for now, then in zip(self._read(), self._begun)
        ]

    def report(self, count, seconds):
        own, server = self._spent or (None, None)
        return {
            "generator_cpu": None if own is None else own / seconds,
            "server_us": None if server is None or not count else 1e6 * server / count,
        }

    def _read(self):
        try:
            with open(self._path) as file:
                # After the name, which may hold anything, in brackets: proc(5), fields 14 and 15.
                fields = file.read().rsplit(")", 1)[1].split()
            server = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, TypeError):
            server = None
        return time.process_time(), server


# --- Loads --------------------------------------------------------------------------------------


def closed_loop(connections, options, complete):
    """Every connection sends, waits for its whole answer, sends again. ``complete(connection, data)``
    decides about an answer that is not exactly ``connection.expected``."""
    clock = time.perf_counter
    selector = watch(connections)
    select = selector.select
    latencies = []
    record = latencies.append
    start = clock() + options.warmup
    end = start + options.duration
    meter, begun, ended = Meter(options.server_pid), False, False
    for connection in connections:
        connection.sent_at = clock()
        connection.send(connection.frame)
    outstanding = len(connections)
    while outstanding:
        events = select(STALL_SECONDS)
        if not events:
            raise LoadError("%d answers never came" % outstanding)
        for key, _ in events:
            connection = key.data
            data = connection.recv(READ_SIZE)
            if data != connection.expected and not complete(connection, data):
                continue
            now = clock()
            if now < end:
                if now >= start:
                    record(now - connection.sent_at)
                connection.sent_at = now
                if connection.send(connection.frame) != len(connection.frame):
                    raise LoadError("the server does not read what it is sent")
            else:
                outstanding -= 1
        now = clock()
        if not begun and now >= start:
            begun = True
            meter.begin()
        if begun and not ended and now >= end:
            ended = True
            meter.end()
    selector.close()
    return dict(
        meter.report(len(latencies), options.duration),
        rate=len(latencies) / options.duration,
        p50_ms=percentile(latencies, 0.50),
        p99_ms=percentile(latencies, 0.99),
        count=len(latencies),
        seconds=options.duration,
    )


def echo(options):
    """Each socket has one message in flight; every answer is compared with what its own socket sent."""
    connections = open_websockets(options.port, options.socket_path, options.sockets)
    for number, connection in enumerate(connections):
        payload = (
            '{"type": "chat", "room": 7, "from": %5d, "text": "how are you?"}' % number
        ).encode()
        connection.frame = client_frame(payload)
        connection.expected = server_frame(payload)
    result = closed_loop(
        connections,
        options,
        lambda connection, data: connection.gather(data),
    )
    close(connections, websocket=True)
    return result


def broadcast(options):
    """One socket speaks, all hear it; the next message goes out when the last socket has the previous
    one. ``p50_ms`` and ``p99_ms`` are of the time from the send to the last socket's delivery."""
    clock = time.perf_counter
    connections = open_websockets(options.port, "/broadcast/", options.sockets)
    selector = watch(connections)
    select = selector.select
    speaker = connections[0]
    number = 0

    def one():
        nonlocal number
        number += 1
        payload = ('{"type": "chat", "room": 7, "number": %7d, "text": "hello"}' % number).encode()
        expected = server_frame(payload)
        for connection in connections:
            connection.expected = expected
        outstanding = len(connections)
        begun = clock()
        speaker.send(client_frame(payload))
        while outstanding:
            events = select(STALL_SECONDS)
            if not events:
                raise LoadError("%d of %d deliveries never came" % (outstanding, len(connections)))
            for key, _ in events:
                data = key.data.recv(READ_SIZE)
                if data == expected or key.data.gather(data):
                    outstanding -= 1
        return clock() - begun

    warm = clock() + options.warmup
    one()
    while clock() < warm:
        one()
    times = []
    meter = Meter(options.server_pid)
    meter.begin()
    start = clock()
    while clock() - start < options.duration or not times:
        times.append(one())
    elapsed = clock() - start
    meter.end()
    selector.close()
    close(connections, websocket=True)
    count = len(times) * len(connections)
    return dict(
        meter.report(count, elapsed),
        rate=count / elapsed,
        p50_ms=percentile(times, 0.50),
        p99_ms=percentile(times, 0.99),
        count=count,
        seconds=elapsed,
    )


def http(options):
    """Keep-alive requests, one in flight a connection; every answer must be 200 with the right body."""
    request = "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (options.path, options.port)
    body = options.body.encode()
    connections = []
    for _ in range(options.sockets):
        sock = open_tcp(options.port)
        sock.setblocking(False)
        connection = Connection(sock)
        connection.frame = request.encode()
        connection.expected = None  # the Date header changes: every answer is looked at
        connections.append(connection)

    endings = (  # of an answer with a Content-Length, and of a chunked one
        b"\r\n\r\n" + body,
        b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
    )

    def complete(connection, data):
        if not data:
            raise LoadError("the server closed a keep-alive connection")
        data = connection.pending + data
        if not data.startswith(b"HTTP/1.1 200"[: len(data)]):
            raise LoadError("a request was answered with %r" % data[:80])
        if data.endswith(endings):
            connection.pending = b""
            return True
        connection.pending = data
        return False

    result = closed_loop(connections, options, complete)
    close(connections, websocket=False)
    return result


def percentile(values, share):
    """Return a percentile in milliseconds of values in seconds, or None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("load", choices=["echo", "broadcast", "http"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sockets", type=int, default=100, help="connections (default: 100)")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds that are not counted")
    parser.add_argument("--duration", type=float, default=2.0, help="seconds that are")
    parser.add_argument("--body", default="Hello, world!", help="what the view answers (http)")
    parser.add_argument("--path", default="/hello/", help="of the view (http; default: /hello/)")
    parser.add_argument("--socket-path", default="/echo/", help="of the sockets (echo)")
    parser.add_argument("--server-pid", type=int, help="whose processor time to look at")
    options = parser.parse_args()
    try:
        result = {"echo": echo, "broadcast": broadcast, "http": http}[options.load](options)
    except (LoadError, OSError) as error:
        sys.exit("load.py %s: %s" % (options.load, error))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
