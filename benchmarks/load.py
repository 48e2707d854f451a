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


def open_sockets(options, path, count):
    """Do as ``open_websockets``, as the command line says."""
    return open_websockets(options.port, path, count, options.socketio, options.other_ports)


def open_websockets(port, path, count, socketio=False, other_ports=()):
    """``count`` accepted WebSocket connections, opened a batch at a time, to each of the ports in turn."""
    ports = [port, *other_ports]
    if socketio:
        path = "/socket.io/?EIO=4&transport=websocket"
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    connections = []
    while len(connections) < count:
        batch = []
        for index in range(min(CONNECT_BATCH, count - len(connections))):
            port = ports[index % len(ports)]
            sock = open_tcp(port)
            sock.sendall(request.format(path=path, port=port, key=key).encode())
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
            if socketio:
                join_socketio(sock, rest)
            elif rest:
                raise LoadError("an unexpected frame came first: %r" % rest)
            sock.setblocking(False)
            connections.append(Connection(sock))
    return connections


def join_socketio(sock, data):
    """The handshake of Engine.IO and Socket.IO over a WebSocket that is open."""
    for begins in (b"0{", b"40"):
        frame = split_frame(data)
        while frame is None:
            more = sock.recv(READ_SIZE)
            if not more:
                raise LoadError("the server dropped a connection in the handshake of Socket.IO")
            data += more
            frame = split_frame(data)
        if not frame[1].startswith(begins):
            raise LoadError("%r came where %r... was due" % (frame[1][:80], begins))
        data = data[frame[2] :]
        if begins == b"0{":
            sock.sendall(client_frame(b"40"))


def wrap(payload, event, options):
    """A payload as the server expects it: for Socket.IO, in an event."""
    if not options.socketio:
        return payload
    return b"42" + json.dumps([event, payload.decode()], separators=(",", ":")).encode()


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


def with_children(pids):
    """These processes, and what they have started."""
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for thread in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/children" % (pid, thread)) as file:
                    waiting += map(int, file.read().split())
        except OSError:
            pass
    return found


def memory_of(pids):
    """The resident memory of processes, in kB."""
    total = 0
    for pid in with_children(pids):
        with open("/proc/%d/status" % pid) as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    return total


class Meter:
    """Processor time of this process and of the server's processes, over the seconds that count."""

    def __init__(self, server_pids):
        self._pids = with_children(server_pids or ())
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
            server = sum(map(self._seconds, self._pids)) if self._pids else None
        except OSError:
            server = None
        return time.process_time(), server

    @staticmethod
    def _seconds(pid):
        with open("/proc/%d/stat" % pid) as file:
            # After the name, which may hold anything, in brackets: proc(5), fields 14 and 15.
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    meter, begun, ended = Meter(options.server_pids), False, False
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
    connections = open_sockets(options, options.socket_path, options.sockets)
    for number, connection in enumerate(connections):
        payload = (
            '{"type": "chat", "room": 7, "from": %5d, "text": "how are you?"}' % number
        ).encode()
        payload = wrap(payload, "m", options)
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
    connections = open_sockets(options, "/broadcast/", options.sockets)
    selector = watch(connections)
    select = selector.select
    speaker = connections[0]
    number = 0

    def one():
        nonlocal number
        number += 1
        payload = ('{"type": "chat", "room": 7, "number": %7d, "text": "hello"}' % number).encode()
        payload = wrap(payload, "b", options)
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
    meter = Meter(options.server_pids)
    meter.begin()
    start = clock()
    while clock() - start < options.duration or not times:
        times.append(one())
    elapsed = clock() - start
    meter.end()
    selector.close()
    close(connections, websocket=True)
    count = len(times) * len(connections)
    return result_of(meter, count, elapsed, times)


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
        b"\r\n\r\n%X\r\n%s\r\n0\r\n\r\n" % (len(body), body),
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


def connect(options):
    """Connect, and leave: fifty handshakes at a time. The rate is of whole cycles."""
    clock, times = time.perf_counter, []
    warm = clock() + options.warmup
    while clock() < warm:
        close(open_sockets(options, "/echo/", options.sockets), websocket=True)
    meter, start = Meter(options.server_pids), clock()
    meter.begin()
    while clock() - start < options.duration or not times:
        begun = clock()
        close(open_sockets(options, "/echo/", options.sockets), websocket=True)
        times.append(clock() - begun)
    elapsed, count = clock() - start, len(times) * options.sockets
    meter.end()
    return result_of(meter, count, elapsed, times)


def idle(options):
    """
    Quiet sockets: ``kb`` is the memory of one, ``rate`` how many of them one second of processor time would
    serve for a second.
    """
    connections = open_sockets(options, "/echo/", 200)
    time.sleep(options.warmup)
    before = memory_of(options.server_pids)
    connections += open_sockets(options, "/echo/", options.sockets)
    time.sleep(options.warmup)
    memory = (memory_of(options.server_pids) - before) / options.sockets
    meter = Meter(options.server_pids)
    meter.begin()
    time.sleep(options.duration)
    meter.end()
    count = len(connections) * options.duration  # socket-seconds
    report = meter.report(count, options.duration)
    # A server's time that is below one tick of the kernel's clock counts as one tick.
    used = max(report["server_us"] * count / 1e6, 1 / os.sysconf("SC_CLK_TCK"))
    for each in connections:
        each.sock.close()
    return dict(
        report, rate=count / used, kb=memory, p50_ms=None, p99_ms=None, count=len(connections)
    )


def returning(options):
    """All clients come at the same moment, as after a restart. ``p99_ms`` is when all are back."""
    clock = time.perf_counter
    request = (
        "GET /echo/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).format(port=options.port)
    selector, times, refused = selectors.DefaultSelector(), [], 0
    meter, begun = Meter(options.server_pids), clock()
    meter.begin()
    for _ in range(options.sockets):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", options.port))
        selector.register(sock, selectors.EVENT_WRITE, request.encode())
    connected = []
    while len(selector.get_map()):
        events = selector.select(STALL_SECONDS)
        if not events:
            raise LoadError("%d clients got no answer" % len(selector.get_map()))
        for key, _ in events:
            try:
                if key.data is not None:
                    key.fileobj.sendall(key.data)
                    selector.modify(key.fileobj, selectors.EVENT_READ, None)
                    continue
                answer = key.fileobj.recv(READ_SIZE)
            except OSError:
                answer = b""
            selector.unregister(key.fileobj)
            if b" 101" in answer[:20]:
                times.append(clock() - begun)
                connected.append(key.fileobj)
            else:
                refused += 1
    elapsed = clock() - begun
    meter.end()
    for sock in connected:
        sock.close()
    if refused:
        raise LoadError("%d of %d clients were refused" % (refused, options.sockets))
    return dict(
        meter.report(len(times), elapsed),
        rate=len(times) / elapsed,
        p50_ms=percentile(times, 0.50),
        p99_ms=1000 * elapsed,
        count=len(times),
        seconds=elapsed,
    )


def paced(options):
    """
    Round trips of users who are not in a hurry: each sends a message a second. This is the scenario that
    Solid Cable publishes, with 250 users.
    """
    clock = time.perf_counter
    connections = open_sockets(options, "/echo/", options.sockets)
    start = clock()
    for number, connection in enumerate(connections):
        payload = wrap(b'{"user": %5d, "text": "how are you?"}' % number, "m", options)
        connection.frame, connection.expected = client_frame(payload), server_frame(payload)
        connection.sent_at = 0.0
    selector, latencies, due, sent = watch(connections), [], [], 0
    due = [(start + number / len(connections), each) for number, each in enumerate(connections)]
    meter, waiting, counted_from = Meter(options.server_pids), 0, start + options.warmup
    meter.begin()
    end = counted_from + options.duration
    while due or waiting:
        now = clock()
        while due and due[0][0] <= now:
            at, connection = due.pop(0)
            connection.sent_at = now
            connection.send(connection.frame)
            waiting, sent = waiting + 1, sent + 1
            if at + 1 < end:
                due.append((at + 1, connection))
        events = selector.select(max(0.0, due[0][0] - clock()) if due else STALL_SECONDS)
        if not events and not due:
            raise LoadError("%d answers never came" % waiting)
        for key, _ in events:
            data = key.data.recv(READ_SIZE)
            if data == key.data.expected or key.data.gather(data):
                waiting -= 1
                if key.data.sent_at >= counted_from:
                    latencies.append(clock() - key.data.sent_at)
    elapsed = clock() - start
    meter.end()
    selector.close()
    close(connections, websocket=True)
    return dict(result_of(meter, sent, elapsed, latencies), count=len(latencies))


def http_new(options):
    """Requests over a new connection each, for a server that keeps none."""
    clock, times, count = time.perf_counter, [], 0
    request = "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % (
        options.path,
        options.port,
    )
    ending = options.body.encode()

    def batch():
        begun, answers = clock(), []
        socks = [open_tcp(options.port) for _ in range(options.sockets)]
        for sock in socks:
            sock.sendall(request.encode())
        for sock in socks:
            answer = b""
            while True:
                data = sock.recv(READ_SIZE)
                if not data:
                    break
                answer += data
            sock.close()
            if b" 200 " not in answer[:20] or ending not in answer:
                raise LoadError("a request was answered with %r" % answer[:80])
            answers.append(clock() - begun)
        return answers

    warm = clock() + options.warmup
    while clock() < warm:
        batch()
    meter, start = Meter(options.server_pids), clock()
    meter.begin()
    while clock() - start < options.duration or not times:
        times += batch()
    elapsed, count = clock() - start, len(times)
    meter.end()
    return result_of(meter, count, elapsed, times)


LOADS = {
    each.__name__: each
    for each in (echo, broadcast, http, http_new, connect, idle, returning, paced)
}


def percentile(values, share):
    """Return a percentile in milliseconds of values in seconds, or None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def result_of(meter, count, elapsed, times):
    """Return the result of a workload: `count` things in `elapsed` seconds, and the seconds of each."""
    return dict(
        meter.report(count, elapsed),
        rate=count / elapsed,
        p50_ms=percentile(times, 0.50),
        p99_ms=percentile(times, 0.99),
        count=count,
        seconds=elapsed,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("load", choices=sorted(LOADS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--other-port",
        dest="other_ports",
        type=int,
        action="append",
        default=[],
        help="of another gateway of the same site: sockets are opened at each in turn",
    )
    parser.add_argument("--sockets", type=int, default=100, help="connections (default: 100)")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds that are not counted")
    parser.add_argument("--duration", type=float, default=2.0, help="seconds that are")
    parser.add_argument("--body", default="Hello, world!", help="what the view answers (http)")
    parser.add_argument("--path", default="/hello/", help="of the view (http; default: /hello/)")
    parser.add_argument("--socket-path", default="/echo/", help="of the sockets (echo)")
    parser.add_argument(
        "--server-pid",
        dest="server_pids",
        type=lambda text: [int(pid) for pid in text.split(",")],
        help="whose processor time to look at: process ids, with commas; their children count, too",
    )
    parser.add_argument(
        "--socketio", action="store_true", help="the server speaks Socket.IO over WebSocket"
    )
    options = parser.parse_args()
    try:
        result = LOADS[options.load](options)
    except (LoadError, OSError) as error:
        sys.exit("load.py %s: %s" % (options.load, error))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
