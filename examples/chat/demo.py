#!/usr/bin/env python
"""Start the chat: make or update its database, find a free port, serve until Ctrl-C.

`make demo` runs this. The environment variable PORT asks for one port; the default is 8000, or any free port
if 8000 is taken. HOST is the address to listen on (default: 127.0.0.1).

With LAYER=database (or CHANNEL_REDIS_URL) the server holds only the sockets, and two worker processes run the
code: if you end one, the other goes on.
"""

import os
import signal
import socket
import subprocess
import sys

#: Worker processes, if the layer crosses processes.
WORKERS = 2


def usable_port(host, wanted):
    """Return the port `wanted` (0: any) if nothing listens there, else None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except OSError:
            return None
        return listener.getsockname()[1]


def choose_port(host, asked):
    """Return the port to serve on; exit with a message if `asked` (text) is not a usable port."""
    if not asked:
        return usable_port(host, 8000) or usable_port(host, 0)
    if not asked.isdecimal() or int(asked) > 65535:
        sys.exit(f"PORT is a number from 1 to 65535, as in PORT=8123, not {asked!r}.")
    port = usable_port(host, int(asked))
    if port is None:
        sys.exit(f"Port {asked} is taken, or you may not use it: choose another, as in PORT=8123.")
    return port


def main():
    host = os.environ.get("HOST") or "127.0.0.1"
    port = choose_port(host, os.environ.get("PORT"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "migrate", "--verbosity", "0"])
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    from channels.asgi import get_channel_layer

    server, workers = ["manage.py", "runserver", "--noreload", address], []
    if get_channel_layer().crosses_processes:
        server.append("--noworker")
        command = [
            sys.executable,
            os.path.join(os.path.dirname(__file__), "manage.py"),
            "runworker",
        ]
        workers = [subprocess.Popen(command + ["--verbosity", "0"]) for _ in range(WORKERS)]
        pids = " and ".join(str(worker.pid) for worker in workers)
        print(f"The code runs in worker processes {pids}", flush=True)
        if os.environ.get("CHANNEL_REDIS_URL"):  # a second server, as behind a load balancer
            second = f"[{host}]:{{}}" if ":" in host else f"{host}:{{}}"
            second = second.format(usable_port(host, 0))
            command = command[:-1] + server[1:-2] + [second, "--noworker", "--verbosity", "0"]
            workers.append(subprocess.Popen(command))
            print(f"The chat is also at http://{second}/", flush=True)
    print(f"The chat is at http://{address}/ (Ctrl-C stops it)", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the workers also end
    try:
        execute_from_command_line(server)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


if __name__ == "__main__":
    main()
