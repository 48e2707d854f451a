"""
The processes under test: a server of the layer (or none), gateways and workers. Each is a real process in its
own process group, is started on a free port, and is ended by its process id.
"""

import glob
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(os.path.dirname(HERE), "tests"))

from channels_tests.support import databases, processes, redis_server  # noqa: E402
from channels_tests.support.ports import can_connect, free_port  # noqa: E402
from channels_tests.support.proxy import Proxy  # noqa: E402
from channels_tests.support.waiting import START_TIMEOUT, wait_until  # noqa: E402

#: The layer's timing here, in seconds; the layers' own defaults are 5 and 15. Short leases, short rows.
HEARTBEAT, LEASE = 1.0, 3.0


class Failure(AssertionError):
    """A guarantee did not hold; the text says which."""


def require(condition, text, *values):
    """Raise Failure unless `condition` holds."""
    if not condition:
        raise Failure(text % values if values else text)


class Process(processes.Process):
    """One process of the site; `name` is printed, and part of the name of its log file."""

    def __init__(self, name, command, cwd, pass_fds=(), settings="chaos.json"):
        self.name = name
        environment = dict(
            os.environ,
            PYTHONUNBUFFERED="1",
            # The row `reload` writes new code within one second, which a .pyc file would hide.
            PYTHONDONTWRITEBYTECODE="1",
            DJANGO_SETTINGS_MODULE="chaossite.settings",
            CHAOS_SETTINGS=settings,
            PYTHONPATH=cwd,
        )
        log = os.path.join(cwd, "log", "%s-%d.log" % (name, time.monotonic_ns()))
        super().__init__(command, cwd, environment, log=log, pass_fds=pass_fds)

    def signal(self, number):
        self.popen.send_signal(number)

    def seconds_until_end(self, limit):
        """Wait for the end of the process; return how many seconds it took. Fails after `limit`."""
        begun = time.monotonic()
        self.wait(limit)
        return time.monotonic() - begun

    def children(self):
        """Return the process ids of its children."""
        with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as file:
            return [int(pid) for pid in file.read().split()]


def memory(pid, name="VmRSS"):
    """Return the bytes of memory of a process: "VmRSS", or "VmHWM", the peak after `reset_peak`."""
    with open("/proc/%d/status" % pid) as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise Failure("/proc/%d/status has no %s" % (pid, name))


def reset_peak(pid):
    """Start measuring "VmHWM" of a process anew."""
    with open("/proc/%d/clear_refs" % pid, "w") as file:
        file.write("5")


class Redis:
    """A Redis server of the row's own."""

    kind = "Redis"

    def __init__(self, folder):
        self.server = redis_server.RedisServer(maxmemory_policy="noeviction")
        self.proxy = None
        self.others = []

    def prepare(self, stack):
        self.server.start()
        for server in self.others:
            server.start()
        if self.sentinel:
            redis_server.await_replica(self.others[0].client())
            redis_server.await_sentinel(self.sentinel)
        elif self.others:
            redis_server.form_cluster([self.server] + self.others)

    def start(self):
        self.server.start()

    def stop(self, keep):
        """Stop it; with `keep`, what it holds is there when it starts again."""
        if keep:
            self.server.stop_with_data()
        else:
            self.server.forget_data()
            self.server.kill()

    def cut_replication(self):
        """Have the replicas get nothing from now on."""
        redis_server.cut_replication(self.server)

    def signal(self, number):
        self.server.process.popen.send_signal(number)

    def close(self):
        if self.proxy is not None:
            self.proxy.close()
        for server in [self.server] + self.others:
            server.remove()

    def layer(self, options):
        """
        Read `topology`: "alone", "proxied" (connections go through `proxy`), "partitioned" (those of gateways
        do), "sentinel", "cluster".
        """
        options = dict(options)
        topology = options.pop("topology", "alone")
        config = {"hosts": [self.server.url], "heartbeat": HEARTBEAT, "lease": LEASE}
        self.sentinel = None
        if topology == "proxied":
            self.proxy = self.proxy or Proxy(self.server.port)
            config["hosts"] = ["redis://127.0.0.1:%d/0" % self.proxy.port]
        elif topology == "sentinel":
            self.others = list(redis_server.replica_and_sentinel(self.server, 2000))
            self.sentinel = self.others[1]
            del config["hosts"]
            config.update(sentinels=[("127.0.0.1", self.sentinel.port)], service="mymaster")
        elif topology == "cluster":
            one = {"cluster_enabled": "yes", "cluster_node_timeout": 2000}
            self.server.options.update((name.replace("_", "-"), one[name]) for name in one)
            self.others = [redis_server.RedisServer(**one) for _ in range(3)]
            urls = [server.url for server in [self.server] + self.others]
            config.update(hosts=urls, cluster=True)
        return {
            "layer": {"BACKEND": "asgi_redis.RedisChannelLayer", "CONFIG": dict(config, **options)}
        }


def migrate(stack):
    process = stack.manage("migrate", "migrate", "--verbosity", "0")
    require(process.wait(START_TIMEOUT) == 0, "migrate failed:\n%s", process.output)


class Database:
    """A server of the row's own, for the database layer."""

    proxy = None

    def prepare(self, stack):
        self.server.prepare()
        self.server.start()
        migrate(stack)

    def start(self):
        self.server.start()

    def signal(self, number):
        """Send a signal to the server and to each of its processes, which have their own groups."""
        pid = self.server.process.pid
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            children = [int(child) for child in file.read().split()]
        for each in [pid] + children:
            try:
                os.kill(each, number)
            except ProcessLookupError:
                pass

    def close(self):
        if self.proxy is not None:
            self.proxy.close()
        if self.server.process is not None and self.server.process.alive:
            self.signal(signal.SIGCONT)
            self.server.stop(self.last_signal)
        self.server.remove()

    def layer(self, options):
        """Read `topology`: "alone", "proxied" or "partitioned", as for Redis."""
        options = dict(options)
        port = self.server.port
        if options.pop("topology", "alone") == "proxied":
            self.proxy = self.proxy or Proxy(port)
            port = self.proxy.port
        settings = self.server.settings(OPTIONS={"connect_timeout": 2}, PORT=str(port))
        return {
            "apps": ["channels.layers.database"],
            "databases": {"default": settings},
            "layer": {
                "BACKEND": "channels.layers.database.DatabaseChannelLayer",
                "CONFIG": dict({"heartbeat": HEARTBEAT, "lease": LEASE}, **options),
            },
        }


class PostgreSQL(Database):
    kind = "PostgreSQL"
    last_signal = signal.SIGQUIT

    def __init__(self, folder):
        self.server = databases.PostgreSQL(fsync="on", full_page_writes="on")

    def stop(self, keep):
        """Stop it; without `keep` it crashes, which empties the layer's tables: they are not logged."""
        self.server.stop(signal.SIGINT if keep else signal.SIGQUIT)


class MariaDB(Database):
    kind = "MariaDB"
    last_signal = signal.SIGTERM

    def __init__(self, folder):
        self.server = databases.MariaDB()

    def stop(self, keep):
        """Stop it; without `keep` it crashes, and has its rows when it starts again."""
        self.server.stop(signal.SIGTERM if keep else signal.SIGKILL)

    def kill_connections(self):
        """KILL all connections but this one's own."""
        connection = self.server.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE id <> connection_id()"
            )
            for (number,) in cursor.fetchall():
                try:
                    cursor.execute("KILL %d" % number)
                except Exception:  # noqa: S110  (it has ended by itself)
                    pass
        finally:
            connection.close()


class SQLite:
    """No server: the layer's file is in the row's folder, next to that of the site."""

    kind = "SQLite"

    def __init__(self, folder):
        self.path = os.path.join(folder, "db.sqlite3")

    def layer(self, options):
        return {
            "apps": ["channels.layers.database"],
            "databases": {
                "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": self.path},
            },
            "layer": {
                "BACKEND": "channels.layers.database.DatabaseChannelLayer",
                "CONFIG": dict({"heartbeat": HEARTBEAT, "lease": LEASE}, **options),
            },
        }

    def prepare(self, stack):
        migrate(stack)

    def close(self):
        pass


class Memory:
    """No server: the layer and its workers live in the gateway."""

    kind = "in memory"

    def __init__(self, folder):
        pass

    def layer(self, options):
        options = {key: options[key] for key in options if key not in ("heartbeat", "lease")}
        return {
            "layer": {"BACKEND": "channels.layers.memory.MemoryChannelLayer", "CONFIG": options}
        }

    def prepare(self, stack):
        pass

    def close(self):
        pass


class Stack:
    """A copy of the site in a temporary folder, on its own layer, and all processes of one row."""

    def __init__(self, backend, **options):
        self.folder = tempfile.mkdtemp(prefix="channels-chaos-")
        self.site = os.path.join(self.folder, "site")
        shutil.copytree(os.path.join(HERE, "site"), self.site)
        for name in ("record", "log"):
            os.mkdir(os.path.join(self.site, name))
        self.processes = []
        self.tails = ""  # the end of what the processes wrote, once they have ended
        self.keep = False
        self.server = backend(self.site)
        self._write_settings("chaos.json", options)
        self.gateway_settings = "chaos.json"
        if options.get("topology") == "partitioned":
            self.gateway_settings = "gateway.json"
            self._write_settings("gateway.json", dict(options, topology="proxied"))
        self._layer = None

    def __enter__(self):
        try:
            self.server.prepare(self)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        self.tails = self._tails()
        if self._layer is not None and hasattr(self._layer, "close"):
            self._layer.close()
        for process in self.processes:
            process.kill()
        self.server.close()
        if self.keep:
            print("  (kept: %s)" % self.folder, flush=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write_settings(self, name, options):
        with open(os.path.join(self.site, name), "w") as file:
            json.dump(self.server.layer(options), file)

    def _tails(self):
        found = ""
        for process in self.processes:
            tail = process.output[-1500:].strip()
            if tail:
                found += "\n--- %s %d ---\n%s" % (process.name, process.pid, tail)
        return found

    def start(self, name, *command, **options):
        process = Process(name, [sys.executable] + list(command), self.site, **options)
        self.processes.append(process)
        return process

    def manage(self, name, *args):
        return self.start(name, "manage.py", *args)

    def worker(self, *args, threads=4, grace=10):
        """Start `runworker`, wait until it or its children say that they work, and return it."""
        process = self.manage(
            "worker", "runworker", "--threads", str(threads), "--grace", str(grace), *args
        )
        number = int(args[args.index("--processes") + 1]) if "--processes" in args else 1
        self.await_worker(process, number)
        return process

    def await_worker(self, process, number=1):
        def works():
            require(process.alive, "a worker did not start:\n%s", process.output[-2000:])
            if number == 1:
                return "Quit with" in process.output
            # The supervisor says so before its processes work.
            return len(re.findall(r"Worker process \d+ started", process.output)) >= number

        wait_until(works, "a worker to start", START_TIMEOUT)

    def gateway(
        self,
        program="uvicorn",
        port=None,
        send_buffer=None,
        application=None,
        wait=True,
        handshake_timeout=5,
    ):
        """Start a gateway under uvicorn or Daphne, and return it.

        `send_buffer` (bytes) bounds what the kernel keeps for a client that does not read. Daphne ends a
        handshake that has no answer after `handshake_timeout` seconds.
        """
        port = port or free_port()
        application = application or "chaossite.asgi:application"
        # The gateway's bound has to close a client that does not read, not the server's keep-alive.
        if program == "daphne":
            command = ["-m", "daphne", "-v", "0", "--ping-timeout", "120"]
            command += ["--websocket_connect_timeout", str(handshake_timeout), application]
            address = ["-b", "127.0.0.1", "-p", str(port)]
        else:
            command = ["-m", "uvicorn", "--log-level", "warning", "--backlog", "4096", application]
            command += ["--ws-ping-timeout", "120"]
            address = ["--host", "127.0.0.1", "--port", str(port)]
        descriptors = ()
        if send_buffer:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            sock.bind(("127.0.0.1", port))
            sock.listen(1024)
            descriptors = (sock.fileno(),)
            address = ["--fd", str(sock.fileno())]
        command += address
        process = self.start(
            program, *command, pass_fds=descriptors, settings=self.gateway_settings
        )
        if descriptors:
            sock.close()
        process.port = port
        if wait:
            self.await_gateway(process)
        return process

    def await_gateway(self, process):
        def listens():
            require(process.alive, "%s did not start:\n%s", process.name, process.output[-2000:])
            return can_connect(process.port)

        wait_until(listens, process.name + " to listen", START_TIMEOUT)

    def records(self):
        """Return what consumers did, as dicts in the order of time."""
        found = []
        for path in glob.glob(os.path.join(self.site, "record", "*.jsonl")):
            with open(path) as file:
                found += [json.loads(line) for line in file]
        return sorted(found, key=lambda line: line["at"])

    @property
    def layer(self):
        """The layer, from which this process sends and reads."""
        if self._layer is None:
            sys.path.insert(0, self.site)
            os.environ["DJANGO_SETTINGS_MODULE"] = "chaossite.settings"
            from channels.asgi import get_channel_layer

            self._layer = get_channel_layer()
        return self._layer

    def require_alive(self, processes):
        for process in processes:
            require(process.alive, "%s ended by itself:\n%s", process.name, process.output[-2000:])
