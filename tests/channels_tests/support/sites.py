"""Real processes for tests: a Django project in a temporary directory, and servers in front of it.

    project = Project({"routing.py": "from {channels} import route\\n..."})
    with serve(project, "daphne") as server:          # or "uvicorn"
        urllib.request.urlopen(server.url("/"))

`{channels}` in a file stands for the package under test: "channels", or "django.channels" in the
patched Django. `serve` returns once the server accepts connections.
"""

import os
import shutil
import sys
import tempfile

import django
import django.channels

from .ports import can_connect, free_port
from .processes import Process
from .requirements import require, require_servers
from .waiting import START_TIMEOUT, wait_until

PACKAGE = django.channels.__name__

FILES = {
    "manage.py": """
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
""",
    # What a `print` writes comes out at once and whole: another thread's line doesn't come in between.
    "mysite/__init__.py": """
import sys

sys.stdout.reconfigure(line_buffering=True, write_through=False)
""",
    "mysite/settings.py": """
import os

BASE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECRET_KEY = "only for the tests"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
USE_TZ = False
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
INSTALLED_APPS = ["{channels}"]
MIDDLEWARE = MIDDLEWARE_CLASSES = ["django.middleware.common.CommonMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(BASE_DIR, "db.sqlite3"),
    }
}
STATIC_URL = "/static/"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "{channels}.layers.memory.MemoryChannelLayer",
        "ROUTING": "mysite.routing.channel_routing",
    }
}
""",
    "mysite/urls.py": """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from mysite import views

urlpatterns = [re_path(r"^$", views.index)]
""",
    "mysite/views.py": """
from django.http import HttpResponse


def index(request):
    return HttpResponse("hello")
""",
    "mysite/routing.py": """
from {channels} import route


def echo(message):
    message.reply_channel.send({"text": "echo: " + message["text"]})


channel_routing = [route("websocket.receive", echo)]
""",
    "mysite/asgi.py": """
import os

from {channels}.asgi import get_channel_layer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

channel_layer = get_channel_layer()
""",
    "mysite/wsgi.py": """
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

application = get_wsgi_application()
""",
}


#: name: (what follows `python -m`, packages that it needs …)
SERVERS = {
    "daphne": ("daphne -b 127.0.0.1 -p {port}", "daphne"),
    "granian": (
        "granian --interface asgi --no-access-log --host 127.0.0.1 --port {port}",
        "granian",
    ),
    "gunicorn": ("gunicorn --bind 127.0.0.1:{port}", "gunicorn"),
    "gunicorn-uvicorn": (
        "gunicorn --worker-class uvicorn_worker.UvicornWorker --bind 127.0.0.1:{port}",
        "gunicorn",
        "uvicorn_worker",
    ),
    "hypercorn": ("hypercorn --bind 127.0.0.1:{port}", "hypercorn"),
    "uvicorn": ("uvicorn --host 127.0.0.1 --port {port}", "uvicorn"),
}

#: Those that old Pythons can't have.
NEW_SERVERS = ("granian", "gunicorn-uvicorn")


class Project:
    """A Django project `mysite` in a temporary directory, which ends with `close()` or the context.

    `files` (relative path: text) are added to, or replace, the defaults in FILES; `settings` is
    appended to mysite/settings.py. A test case usually says `self.addCleanup(project.close)`.
    """

    def __init__(self, files=None, settings=""):
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="channels-test-"))
        for path, text in dict(FILES, **(files or {})).items():
            self.write(path, text)
        if settings:
            self.write("mysite/settings.py", FILES["mysite/settings.py"] + "\n" + settings)

    def write(self, path, text):
        """Write one file, at `path` relative to the project, in one step."""
        path = os.path.join(self.directory, path)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path + ".new", "w", encoding="utf-8") as out:
            out.write(text.replace("{channels}", PACKAGE))
        os.replace(path + ".new", path)

    def environment(self, **extra):
        """Return the environment of the project's processes."""
        env = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
        path = [self.directory]
        django_parent = os.path.dirname(os.path.dirname(os.path.abspath(django.__file__)))
        if os.path.basename(django_parent) not in ("site-packages", "dist-packages"):
            path.append(django_parent)
        # Who runs the tests on a copy of the package has it there.
        path += filter(None, [env.get("PYTHONPATH")])
        env["PYTHONPATH"] = os.pathsep.join(path)
        env["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
        env.update(extra)
        return env

    def python(self, *args, **env):
        """Start `python *args` in the project; return the running Process."""
        return Process([sys.executable] + list(args), self.directory, self.environment(**env))

    def manage(self, *args, **env):
        """Start `manage.py *args`; return the running Process."""
        return self.python("manage.py", *args, **env)

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class SiteServer(Process):
    """A server process that listens on 127.0.0.1:port."""

    def __init__(self, command, cwd, env, port):
        super().__init__(command, cwd, env)
        self.port = port

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def websocket_url(self, path="/"):
        return f"ws://127.0.0.1:{self.port}{path}"

    def wait_until_listening(self, timeout=START_TIMEOUT):
        def listening():
            if not self.alive:
                raise AssertionError(self.describe("ended before it listened"))
            return can_connect(self.port)

        wait_until(listening, "the server to listen", timeout)


def serve(project, program="daphne", application="mysite.asgi:channel_layer", args=(), env=None):
    """Start `program`, a key of SERVERS, in front of the project; return a SiteServer that listens.

    Use it as a context, or call stop() and kill(). Skips (in CI, fails) without the program.
    """
    command, *needed = SERVERS[program]
    require(*needed)
    port = free_port()
    command = (
        [sys.executable, "-m"] + command.format(port=port).split() + list(args) + [application]
    )
    server = SiteServer(command, project.directory, project.environment(**(env or {})), port)
    try:
        server.wait_until_listening()
    except BaseException:
        server.kill()
        raise
    return server


class SiteBehindServer:
    """
    Makes a project for the tests of a class, and starts its server. A subclass that needs packages checks
    them in `setUpClass`, before it calls this one.
    """

    #: The server program, its arguments, and the content of the project: see `serve` and `Project`.
    program, arguments = "daphne", ()
    files, settings = {}, ""

    @classmethod
    def setUpClass(cls):
        if cls.program in NEW_SERVERS:
            require_servers()
        super().setUpClass()
        cls.project = Project(cls.files, settings=cls.settings)
        try:
            cls.server = cls.start_server()
        except BaseException:
            cls.project.close()
            raise

    @classmethod
    def start_server(cls):
        """Return the process of the server."""
        return serve(cls.project, cls.program, args=cls.arguments)

    @classmethod
    def tearDownClass(cls):
        try:
            cls.server.stop()
        finally:
            cls.server.kill()
            cls.project.close()
        super().tearDownClass()
