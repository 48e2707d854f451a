"""Who is measured by ``suite.py``: environments, and the processes of each contender.

A contender is an entry of CONTENDERS: its title, its environment, the commands of its processes, and what
they need. The first command listens on {port}. In a command and in `env`, these stand for what they name:
{other_port} (the port of a second gateway, which must be the last command), {python} (of the environment),
{bin} (its folder of programs), {port}, {redis} (the URL of a Redis server that the suite starts), {database}
(an entry of DATABASES, as JSON).
"""

import os
import shutil

import redis_layer
import run
from run import BenchmarkError, call, say

PEERS, OURS, FORMER, NODE = "suite-peers", "suite-ours", redis_layer.FORMER, "node"

run.REQUIREMENTS[PEERS] = [
    "channels[daphne]>=4.3,<4.4",
    "channels_redis>=4.3,<4.4",
    "hiredis",
    "gunicorn",
    "python-socketio",
]
run.REQUIREMENTS[OURS] = [
    "--editable",
    run.ROOT,
    "--editable",
    os.path.join(run.ROOT, "asgi_redis") + "[fast]",
    "daphne",
    "psycopg[binary]",
]


def uvicorn(site, application):
    """A command of uvicorn with the options that all contenders get; {options} are those."""
    return ["{python}", "-m", "uvicorn", application, "--app-dir", site, "--host", "127.0.0.1"] + [
        "--port",
        "{port}",
        "{options}",
    ]


def at_other_port(command):
    """Return a command with {other_port} in the place of {port}."""
    return ["{other_port}" if part == "{port}" else part for part in command]


def daphne(application):
    return ["{bin}/daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", application]


def gunicorn(*options):
    return ["{bin}/gunicorn", "-b", "127.0.0.1:{port}", "--log-level", "warning"] + list(options)


WORKER = ["{python}", "{common}/manage.py", "runworker", "--threads", "4"]
REDIS_SITE = {"DJANGO_SETTINGS_MODULE": "redis_settings", "BENCH_REDIS": "{redis}"}
DATABASE_SITE = {"DJANGO_SETTINGS_MODULE": "database_settings", "BENCH_DATABASE": "{database}"}


def _with_groups(title, count, redis=False):
    """Return this project as a contender, for 100 sockets, each alone in `count` groups."""
    contender = {
        "title": title,
        "environment": OURS,
        "site": "ours",
        "commands": [uvicorn(".", "asgi:channel_layer")],
        "load": ["--socket-path", "/groups/%d/" % count],
    }
    if redis:
        contender["env"], contender["needs"] = REDIS_SITE, "redis"
        contender["commands"].append(WORKER)
    return contender


CONTENDERS = {
    "bare": {
        "title": "bare ASGI application, uvicorn",
        "environment": PEERS,
        "site": "bare",
        "commands": [uvicorn(".", "asgi:application")],
    },
    "ours": {
        "title": "this project, uvicorn",
        "environment": OURS,
        "site": "ours",
        "commands": [uvicorn(".", "asgi:channel_layer")],
    },
    "ours-plain": {
        "title": "this project, each frame through ASGI",
        "environment": OURS,
        "site": "ours",
        "env": {"BENCH_PLAIN": "1"},
        "commands": [uvicorn(".", "asgi:channel_layer")],
    },
    "ours-daphne": {
        "title": "this project, Daphne",
        "environment": OURS,
        "site": "ours",
        "commands": [daphne("asgi:channel_layer")],
    },
    "channels4": {
        "title": "Channels 4, uvicorn",
        "environment": PEERS,
        "site": "channels4",
        "commands": [uvicorn(".", "asgi:application")],
    },
    "channels4-daphne": {
        "title": "Channels 4, Daphne",
        "environment": PEERS,
        "site": "channels4",
        "commands": [daphne("asgi:application")],
    },
    "django": {
        "title": "Django's ASGI handler, uvicorn",
        "environment": PEERS,
        "site": "channels4",
        "commands": [uvicorn(".", "asgi:django_application")],
    },
    "gunicorn": {
        "title": "Django, gunicorn, one sync worker",
        "environment": PEERS,
        "site": "channels4",
        "commands": [gunicorn("wsgi:application")],
        # It keeps no connection.
        "loads": {"http": "http_new"},
    },
    "gunicorn-threads": {
        "title": "Django, gunicorn, one gthread worker of 4",
        "environment": PEERS,
        "site": "channels4",
        "commands": [gunicorn("-k", "gthread", "--threads", "4", "wsgi:application")],
    },
    "ws": {
        "title": "ws 8, Node",
        "environment": NODE,
        "site": "node",
        "commands": [["node", "ws_server.js"]],
    },
    "socketio": {
        "title": "Socket.IO 4, Node",
        "environment": NODE,
        "site": "node",
        "commands": [["node", "socketio_server.js"]],
        "load": ["--socketio"],
    },
    "python-socketio": {
        "title": "python-socketio, uvicorn",
        "environment": PEERS,
        "site": "python_socketio",
        "commands": [uvicorn(".", "asgi:application")],
        "load": ["--socketio"],
    },
    "ours-redis": {
        "title": "this project, Redis: gateway and worker",
        "environment": OURS,
        "site": "ours",
        "env": REDIS_SITE,
        "commands": [uvicorn(".", "asgi:channel_layer"), WORKER],
        "needs": "redis",
    },
    "ours-redis-2-workers": {
        "title": "the same with two workers",
        "environment": OURS,
        "site": "ours",
        "env": REDIS_SITE,
        "commands": [uvicorn(".", "asgi:channel_layer"), WORKER, WORKER],
        "needs": "redis",
    },
    "ours-redis-2-gateways": {
        "title": "the same with two gateways",
        "environment": OURS,
        "site": "ours",
        "env": REDIS_SITE,
        "commands": [
            uvicorn(".", "asgi:channel_layer"),
            WORKER,
            at_other_port(uvicorn(".", "asgi:channel_layer")),
        ],
        "needs": "redis",
    },
    "ours-100-groups": _with_groups("this project, 100 groups", 1),
    "ours-10000-groups": _with_groups("this project, 10,000 groups", 100),
    "ours-redis-100-groups": _with_groups("this project, Redis, 100 groups", 1, redis=True),
    "ours-redis-10000-groups": _with_groups("this project, Redis, 10,000 groups", 100, redis=True),
    "channels4-redis": {
        "title": "Channels 4, channels_redis, uvicorn",
        "environment": PEERS,
        "site": "channels4",
        "env": REDIS_SITE,
        "commands": [uvicorn(".", "asgi:application")],
        "needs": "redis",
    },
    "channels1": {
        "title": "Channels 1.1, daphne 1.4, asgi_redis 1.4, a worker",
        "environment": FORMER,
        "site": "channels1",
        "env": {"BENCH_REDIS": "{redis}"},
        "commands": [daphne("asgi:channel_layer"), WORKER],
        "needs": "redis",
    },
    "socketio-redis": {
        "title": "Socket.IO 4 with its Redis adapter, Node",
        "environment": NODE,
        "site": "node",
        "env": {"BENCH_REDIS": "{redis}"},
        "commands": [["node", "socketio_server.js"]],
        "load": ["--socketio"],
        "needs": "redis",
    },
    "ours-sqlite": {
        "title": "this project, SQLite: gateway and worker",
        "environment": OURS,
        "site": "ours",
        "env": DATABASE_SITE,
        "commands": [uvicorn(".", "asgi:channel_layer"), WORKER],
        "needs": "sqlite",
    },
    "ours-postgresql": {
        "title": "this project, PostgreSQL: gateway and worker",
        "environment": OURS,
        "site": "ours",
        "env": DATABASE_SITE,
        "commands": [uvicorn(".", "asgi:channel_layer"), WORKER],
        "needs": "postgresql",
    },
}


def make(environment):
    """Make an environment, unless it is there. Return why it can't be made, or None."""
    try:
        if environment == FORMER:
            return redis_layer.make_former_environment()
        if environment == NODE:
            return _make_node()
        if environment == PEERS:
            run.make_environment(PEERS, [])
        else:
            peers = run.versions_in(PEERS)
            names = [name for name in run.SHARED if name.lower() in peers]
            run.make_environment(OURS, ["%s==%s" % (name, peers[name.lower()]) for name in names])
    except BenchmarkError as error:
        return str(error).strip().splitlines()[-1]
    return None


def _make_node():
    """Install the npm packages of ``sites/node``."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "Node.js and npm are not installed"
    folder = os.path.join(run.ENVIRONMENTS, NODE)
    source = os.path.join(run.HERE, "sites", "node", "package.json")
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, "package.json")
    with open(source) as file:
        wanted = file.read()
    if os.path.exists(target) and os.path.isdir(os.path.join(folder, "node_modules")):
        with open(target) as file:
            if file.read() == wanted:
                return None
    say("making .bench/%s ..." % NODE)
    shutil.copy(source, target)
    call(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder)
    return None
