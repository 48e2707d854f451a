"""Redis (or Valkey) servers: one process each, alone, as a replica, a Sentinel or a Cluster node."""

import glob
import os
import signal
import socket

from .ports import can_connect
from .requirements import find, missing, require
from .servers import Server
from .waiting import START_TIMEOUT, wait_until


def find_redis():
    """Return the path of the program that REDIS_SERVER names, or of redis-server; skip if missing."""
    wanted = os.environ.get("REDIS_SERVER")
    if not wanted:
        return require("redis-server")
    return find(wanted) or missing("not installed here: " + wanted)


class RedisServer(Server):
    """One Redis process. `options` are the lines of redis.conf: name to value, or to a list of them.

    With `monitor`, the lines that begin with "sentinel", it is a Sentinel.
    """

    name = "redis-server"
    # It keeps no data unless it is told to, so there is nothing to end in order.
    stop_signal = signal.SIGKILL

    def __init__(self, monitor=None, **options):
        self.program = find_redis()
        super().__init__(offset=10000)
        self.is_sentinel = monitor is not None
        self.options = {"port": self.port, "bind": "127.0.0.1", "dir": self.directory}
        if self.is_sentinel:
            self.options["sentinel"] = monitor
        else:
            self.options.update({"save": '""', "appendonly": "no"})
        self.options.update((name.replace("_", "-"), value) for name, value in options.items())

    @property
    def url(self):
        return "redis://127.0.0.1:%d/0" % self.port

    def command(self):
        path = os.path.join(self.directory, "redis.conf")
        # A Sentinel writes into its file what it has learned.
        if not (self.is_sentinel and os.path.exists(path)):
            with open(path, "w") as file:
                for name, value in self.options.items():
                    for each in value if isinstance(value, list) else [value]:
                        file.write("%s %s\n" % (name, each))
        return [self.program, path] + ["--sentinel"] * self.is_sentinel

    def answers(self):
        if self.options.get("tls-port"):
            return can_connect(self.port)
        answer = self.ask("PING")
        return bool(answer) and not answer.startswith(b"-LOADING")

    def ask(self, command):
        """Return the answer to an inline command, as bytes; b"" if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                sock.sendall(command.encode() + b"\r\n")
                return sock.recv(1000)
        except OSError:
            return b""

    @classmethod
    def empty_shared(cls):
        """Delete what earlier tests left on the shared server, if one has been started."""
        if cls.running is not None:
            cls.running.ask("FLUSHALL")  # without an answer, the test that needs the server fails

    def client(self, **kwargs):
        """Return a client of the package redis."""
        import redis

        return redis.Redis(port=self.port, **kwargs)

    def stop_with_data(self):
        """Stop the server in order; what it holds is there when it starts again."""
        self.forget_data()
        self.ask("SHUTDOWN SAVE")
        self.process.wait(START_TIMEOUT)
        self.process.kill()

    def forget_data(self):
        """Delete what was saved, so that the next start finds nothing."""
        for path in glob.glob(os.path.join(self.directory, "*.rdb")):
            os.remove(path)


def form_cluster(nodes):
    """Make a cluster of servers that run: the first three are primaries, others are replicas of the first."""
    clients = [node.client() for node in nodes]
    bounds = [0, 5461, 10922, 16384]
    for index, client in enumerate(clients):
        if index < 3:
            slots = bounds[index], bounds[index + 1] - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        client.execute_command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
    for node in nodes[1:]:
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
    lines = ["state:ok", "known_nodes:%d" % len(nodes), "slots_assigned:16384"]

    def agreed():
        for client in clients:
            info = client.execute_command("CLUSTER", "INFO").decode().split()
            if not all("cluster_" + line in info for line in lines):
                return False
        return True

    wait_until(agreed, "the cluster to form", START_TIMEOUT)
    first = clients[0].execute_command("CLUSTER", "MYID").decode()
    for client in clients[3:]:
        client.execute_command("CLUSTER", "REPLICATE", first)
        await_replica(client)


def await_replica(client):
    """Wait until the replica that `client` leads to follows its primary."""
    wait_until(
        lambda: client.info("replication").get("master_link_status") == "up",
        "the replica to follow",
        START_TIMEOUT,
    )


def cut_replication(primary):
    """
    Have the replicas of `primary` get nothing more. It takes messages from now on that they don't have, and
    refuses new connections without a password.
    """
    client = primary.client()
    client.config_set("requirepass", "for nobody")
    client.execute_command("CLIENT", "KILL", "TYPE", "replica")


def replica_and_sentinel(primary, down_after):
    """Return a replica of `primary`, and a Sentinel that promotes it after so many ms of silence."""
    replica = RedisServer(replicaof="127.0.0.1 %d" % primary.port, repl_diskless_sync_delay=0)
    sentinel = RedisServer(
        monitor=[
            "monitor mymaster 127.0.0.1 %d 1" % primary.port,
            "down-after-milliseconds mymaster %d" % down_after,
            "failover-timeout mymaster 3000",
        ],
    )
    return replica, sentinel


def await_sentinel(sentinel):
    """Wait until a Sentinel knows the replica."""
    client = sentinel.client()
    wait_until(
        lambda: client.sentinel_slaves("mymaster"), "Sentinel to see the replica", START_TIMEOUT
    )
