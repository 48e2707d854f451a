"""
The processes under test: a Redis server (or none), gateways, workers, each a real process in a group of its
own, started on free ports and ended by its process id.
"""

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))

#: The layer's timing here; its own are 5 s and 15 s. Short, so that the rows are.
HEARTBEAT, LEASE = 1.0, 3.0

#: Seconds that a process gets to start.
START = 60.0


class Failure(Exception):
    """A guarantee did not hold; the text says which."""


def require(condition, text, *values):
    """Raise Failure unless `condition` holds."""
    if not condition:
        raise Failure(text % values if values else text)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(condition, seconds, what):
    """The first true value of `condition()`, and after how many seconds it came. Failure if it does not."""
    begun = time.monotonic()
    while True:
        value = condition()
        if value:
            return value, time.monotonic() - begun
        require(time.monotonic() - begun < seconds, "waited %g s in vain for %s", seconds, what)
        time.sleep(0.02)


class Process:
    """One process; what it writes is in the file `log`."""

    def __init__(self, name, command, cwd, pass_fds=(), preexec_fn=os.setsid, log_folder=None):
        self.name = name
        self.log = os.path.join(log_folder or cwd, "log", "%s-%d.log" % (name, time.monotonic_ns()))
        environment = dict(
            os.environ, PYTHONUNBUFFERED="1", DJANGO_SETTINGS_MODULE="chaossite.settings"
        )
        environment["PYTHONPATH"] = cwd
        # It is run on the files as they are; SIGHUP's new code is written within one second.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=preexec_fn,
                pass_fds=pass_fds,
            )
        self.pid = self.popen.pid

    @property
    def alive(self):
        return self.popen.poll() is None

    @property
    def output(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, seconds):
        """Seconds until it has ended; Failure if it does not."""
        begun = time.monotonic()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure("%s was still there after %g s" % (self.name, seconds)) from None
        return time.monotonic() - begun

    def kill(self):
        """End it and what it started; safe to call again."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()

    def children(self):
        """The process ids of its children."""
        with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as file:
            return [int(pid) for pid in file.read().split()]


def memory(pid, name="VmRSS"):
    """Bytes of memory of a process: "VmRSS", or "VmHWM", the most since `reset_peak`."""
    with open("/proc/%d/status" % pid) as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise Failure("/proc/%d/status has no %s" % (pid, name))


def reset_peak(pid):
    with open("/proc/%d/clear_refs" % pid, "w") as file:
        file.write("5")


class Redis:
    """A Redis server of its own. `stop` keeps its data, `restart_empty` does not."""

    kind = "Redis"

    def __init__(self, folder):
        self.folder = folder
        self.data = os.path.join(folder, "redis")
        os.makedirs(self.data)
        self.port = free_port()
        self.process = None
        if shutil.which("redis-server") is None:
            raise Failure("redis-server is not on PATH: install Redis 6.2 or newer")

    def start(self):
        self.process = Process(
            "redis",
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.data]
            + ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"],
            self.folder,
        )
        wait_for(lambda: b"PONG" in self._ask(b"PING\r\n"), START, "Redis")

    def _ask(self, command):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                sock.sendall(command)
                return sock.recv(1000)
        except OSError:
            return b""

    def stop(self, keep):
        """End it; with `keep`, what it holds is there when it starts again."""
        for path in glob.glob(os.path.join(self.data, "*.rdb")):
            os.remove(path)
        if keep:
            self._ask(b"SHUTDOWN SAVE\r\n")
            self.process.wait(START)
        else:
            self.process.kill()

    def signal(self, number):
        self.process.signal(number)

    def close(self):
        if self.process is not None:
            self.process.kill()

    def layer(self, options):
        url = "redis://127.0.0.1:%d/0" % self.port
        config = dict({"hosts": [url], "heartbeat": HEARTBEAT, "lease": LEASE}, **options)
        return {"layer": {"BACKEND": "asgi_redis.RedisChannelLayer", "CONFIG": config}}

    def prepare(self, stack):
        self.start()


class PostgreSQL:
    """A PostgreSQL server of its own, for the database layer; for root, the user postgres runs it."""

    kind = "PostgreSQL"

    def __init__(self, folder):
        self.cwd = folder
        self.folder = tempfile.mkdtemp(prefix="channels-chaos-postgresql-")
        self.port = free_port()
        self.process = None
        found = shutil.which("postgres") or max(
            glob.glob("/usr/lib/postgresql/*/bin/postgres"), default=None
        )
        if found is None:
            raise Failure("PostgreSQL is not here: install it, or choose another --backend")
        self.binary = os.path.realpath(found)
        self.ids = None
        if os.getuid() == 0:
            entry = pwd.getpwnam("postgres")
            self.ids = (entry.pw_uid, entry.pw_gid)
            os.chown(self.folder, *self.ids)
        self.data = os.path.join(self.folder, "data")

    def _become(self):
        os.setsid()
        if self.ids is not None:
            os.setgroups([])
            os.setgid(self.ids[1])
            os.setuid(self.ids[0])

    def prepare(self, stack):
        initdb = os.path.join(os.path.dirname(self.binary), "initdb")
        subprocess.run(
            [initdb, "--pgdata", self.data, "--username", "postgres", "--auth", "trust"]
            + ["--encoding", "UTF8", "--locale", "C", "--no-sync"],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            preexec_fn=self._become,
        )
        self.start()
        migrate = stack.manage("migrate", "migrate", "--verbosity", "0")
        migrate.wait(START)
        require(migrate.popen.returncode == 0, "migrate failed:\n%s", migrate.output)

    def start(self):
        self.process = Process(
            "postgresql",
            [self.binary, "-D", self.data, "-k", self.folder, "-p", str(self.port)]
            + ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"],
            self.folder,
            preexec_fn=self._become,
            log_folder=self.cwd,
        )
        wait_for(self._answers, START, "PostgreSQL")

    def _answers(self):
        require(self.process.alive, "PostgreSQL did not start:\n%s", self.process.output)
        ready = os.path.join(os.path.dirname(self.binary), "pg_isready")
        return (
            subprocess.run(
                [ready, "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"],
                stdout=subprocess.DEVNULL,
            ).returncode
            == 0
        )

    def stop(self, keep):
        """A fast shutdown; what lies in unlogged tables stays. Its crash would empty those."""
        self.process.signal(signal.SIGINT if keep else signal.SIGQUIT)
        self.process.wait(START)

    def signal(self, number):
        """To the server and to each of its processes."""
        os.kill(self.process.pid, number)
        for pid in self.process.children():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def close(self):
        if self.process is not None and self.process.alive:
            self.process.signal(signal.SIGCONT)
            self.process.signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except Failure:
                pass
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def layer(self, options):
        return {
            "apps": ["channels.layers.database"],
            "databases": {
                "default": {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": "postgres",
                    "USER": "postgres",
                    "HOST": "127.0.0.1",
                    "PORT": str(self.port),
                    "OPTIONS": {"connect_timeout": 2},
                }
            },
            "layer": {
                "BACKEND": "channels.layers.database.DatabaseChannelLayer",
                "CONFIG": dict({"heartbeat": HEARTBEAT, "lease": LEASE}, **options),
            },
        }


class Memory:
    """No server: the layer lives in the gateway, and so do its workers."""

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
    """A copy of the site in a temporary folder, on a layer of its own, and all processes of one row."""

    def __init__(self, backend, **options):
        self.folder = tempfile.mkdtemp(prefix="channels-chaos-")
        self.site = os.path.join(self.folder, "site")
        shutil.copytree(os.path.join(HERE, "site"), self.site)
        for name in ("record", "log"):
            os.mkdir(os.path.join(self.site, name))
        self.processes = []
        self.tails = ""  # what the processes wrote last, once they are gone
        self.keep = False
        self.server = backend(self.site)
        settings = self.server.layer(options)
        with open(os.path.join(self.site, "chaos.json"), "w") as file:
            json.dump(settings, file)
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
        """A `runworker` that works: it has said so, or its children have."""
        process = self.manage(
            "worker", "runworker", "--threads", str(threads), "--grace", str(grace), *args
        )
        self.await_worker(process)
        return process

    def await_worker(self, process):
        def works():
            require(process.alive, "a worker did not start:\n%s", process.output[-2000:])
            return "Quit with" in process.output

        wait_for(works, START, "a worker to start")

    def gateway(self, program="uvicorn", port=None, send_buffer=None, application=None, wait=True):
        """A gateway under uvicorn or Daphne; `send_buffer` bounds what the kernel keeps for a client."""
        port = port or free_port()
        application = application or "chaossite.asgi:application"
        # The bound is to close who does not read, not the server's own keep-alive.
        if program == "daphne":
            command = ["-m", "daphne", "-v", "0", "--ping-timeout", "120", application]
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
        process = self.start(program, *command, pass_fds=descriptors)
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

        wait_for(listens, START, process.name)

    def records(self):
        """What consumers did, in the order of time."""
        found = []
        for path in glob.glob(os.path.join(self.site, "record", "*.jsonl")):
            with open(path) as file:
                found += [json.loads(line) for line in file]
        return sorted(found, key=lambda line: line["at"])

    @property
    def layer(self):
        """The layer, for this process to send on and to look at."""
        if self._layer is None:
            sys.path.insert(0, self.site)
            os.environ["DJANGO_SETTINGS_MODULE"] = "chaossite.settings"
            from channels.asgi import get_channel_layer

            self._layer = get_channel_layer()
        return self._layer

    def require_alive(self, processes):
        for process in processes:
            require(process.alive, "%s ended by itself:\n%s", process.name, process.output[-2000:])
