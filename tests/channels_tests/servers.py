"""Real processes for tests: a Django project in a temporary directory, and servers in front of it.

    project = Project({"routing.py": "from {channels} import route\\n..."})
    with serve(project, "daphne") as server:          # or "uvicorn"
        urllib.request.urlopen(server.url("/"))

`{channels}` in a file stands for the package under test: "channels", or "django.channels" in the
patched Django. A server is waited for until it accepts connections, is stopped by its pid, and what
it wrote is kept.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import django
import django.channels

from .requirements import require
from .timing import TIMEOUT, wait_until

PACKAGE = django.channels.__name__

FILES = {
    "manage.py": """
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
""",
    "mysite/__init__.py": "",
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
        """Writes one file, under the name `path` relative to the project, in one step."""
        path = os.path.join(self.directory, path)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path + ".new", "w", encoding="utf-8") as out:
            out.write(text.replace("{channels}", PACKAGE))
        os.replace(path + ".new", path)

    def environment(self, **extra):
        """The environment of the project's processes."""
        env = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
        path = [self.directory]
        django_parent = os.path.dirname(os.path.dirname(os.path.abspath(django.__file__)))
        if os.path.basename(django_parent) not in ("site-packages", "dist-packages"):
            path.append(django_parent)
        env["PYTHONPATH"] = os.pathsep.join(path)
        env["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
        env.update(extra)
        return env

    def python(self, *args, **env):
        """Starts `python *args` in the project; returns a running Process."""
        return Process([sys.executable] + list(args), self.directory, self.environment(**env))

    def manage(self, *args, **env):
        """Starts `manage.py *args`; returns a running Process."""
        return self.python("manage.py", *args, **env)

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class Process:
    """A child process in a process group of its own, whose output (both streams) is kept."""

    def __init__(self, command, cwd, env):
        self.command = command
        self.lines = []
        self.popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Ctrl-C is to work though the tests may run in the background, where a shell has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line.decode("utf-8", "replace"))

    @property
    def output(self):
        """What the process has written so far, as text."""
        return "".join(self.lines)

    def wait_for_output(self, pattern, start=0, timeout=TIMEOUT):
        """Waits until the output from `start` on matches the regular expression; the match."""

        def found():
            match = re.compile(pattern).search(self.output, start)
            if match is None and self.popen.poll() is not None:
                self._reader.join(TIMEOUT)
                match = re.compile(pattern).search(self.output, start)
                if match is None:
                    raise AssertionError(self._told(f"ended before it wrote {pattern!r}"))
            return match

        try:
            return wait_until(found, pattern, timeout)
        except AssertionError as error:
            raise AssertionError(self._told(str(error))) from None

    def _told(self, what):
        return "{}: {}\n--- its output ---\n{}".format(" ".join(self.command), what, self.output)

    def wait(self, timeout=TIMEOUT):
        """Waits for the end of the process; its exit status (negative: the signal)."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._told(f"still running after {timeout:g} s")) from None
        self._reader.join(TIMEOUT)
        return status

    def stop(self, signum=signal.SIGTERM, timeout=TIMEOUT):
        """Sends a signal to the process alone and waits for its end; its exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(signum)
        return self.wait(timeout)

    def interrupt(self, timeout=TIMEOUT):
        """Ctrl-C: SIGINT to the process and its children, as from a terminal; its exit status."""
        os.killpg(self.popen.pid, signal.SIGINT)
        return self.wait(timeout)

    def group_is_alive(self):
        """Whether the process, or any child that it left behind, still lives."""
        try:
            os.killpg(self.popen.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self):
        """Ends the process and whatever it started; for cleaning up, safe to call again."""
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        self._reader.join(TIMEOUT)
        self.popen.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        try:
            if self.popen.poll() is None and exc_info[0] is None:
                self.stop()
        finally:
            self.kill()


class Server(Process):
    """A server process that listens on 127.0.0.1:port."""

    def __init__(self, command, cwd, env, port):
        super().__init__(command, cwd, env)
        self.port = port

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def websocket_url(self, path="/"):
        return f"ws://127.0.0.1:{self.port}{path}"

    def wait_until_listening(self, timeout=TIMEOUT):
        def listening():
            if self.popen.poll() is not None:
                self._reader.join(TIMEOUT)
                raise AssertionError(self._told("ended before it listened"))
            return can_connect(self.port)

        wait_until(listening, "the server to listen", timeout)


def can_connect(port, host="127.0.0.1"):
    """Whether somebody listens on that TCP port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port(host="127.0.0.1"):
    """A TCP port on which nobody listens at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


def serve(project, program="daphne", application="mysite.asgi:channel_layer", args=(), env=None):
    """Starts `program` ("daphne", "hypercorn" or "uvicorn") in front of the project; a Server that listens.

    Use it as a context, or call stop() and kill(). Skips (in CI, fails) without the program.
    """
    require(program)
    port = free_port()
    command = {
        "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port)],
        "hypercorn": ["-m", "hypercorn", "--bind", "127.0.0.1:%d" % port],
        "uvicorn": ["-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port)],
    }[program]
    command = [sys.executable] + command + list(args) + [application]
    server = Server(command, project.directory, project.environment(**(env or {})), port)
    try:
        server.wait_until_listening()
    except BaseException:
        server.kill()
        raise
    return server
