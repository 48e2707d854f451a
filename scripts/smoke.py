"""One site, made and served the way a reader of the docs would do it, with a given Python.

``run_smoke`` makes a project with ``startproject``, starts ``manage.py runserver`` and Daphne, and
sends each an HTTP request and a WebSocket frame. The environment has Django and channels
installed; this module itself needs only the standard library.
"""

import base64
import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(
    1, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
)
from channels_tests.support.ports import free_port  # noqa: E402
from channels_tests.support.waiting import SCALE, START_TIMEOUT  # noqa: E402

ANSWER_TIMEOUT = 15 * SCALE
STOP_TIMEOUT = 20 * SCALE

VIEWS = """\
from django.http import HttpResponse


def hello(request):
    return HttpResponse("hello from %s" % request.META["REQUEST_METHOD"])
"""

URLS = """

from mysite.views import hello  # noqa: E402

try:
    from django.urls import re_path
except ImportError:  # Django 1.8 to 1.11
    from django.conf.urls import url as re_path

urlpatterns = list(urlpatterns) + [re_path(r"^hello/$", hello)]
"""

ROUTING = """\
from {package}.routing import route


def echo(message):
    message.reply_channel.send({{"text": "echo: " + message["text"]}})


channel_routing = [route("websocket.receive", echo)]
"""

# Django 1.10 and 1.11 take either name.
FORMER_MIDDLEWARE = """
MIDDLEWARE_CLASSES = MIDDLEWARE
del MIDDLEWARE
"""

SETTINGS = """

CHANNEL_LAYERS = {{
    "default": {{
        "BACKEND": "{package}.layers.memory.MemoryChannelLayer",
        "ROUTING": "mysite.routing.channel_routing",
    }},
}}
"""


class SmokeFailed(Exception):
    """A step did not do what it should; the message names it and holds the server's output."""


class Server:
    """A server process of the site, as a context manager: started, answering, stopped by Ctrl-C."""

    def __init__(self, command, folder, log, paths=()):
        self.command, self.folder, self.log, self.paths = command, folder, log, paths

    def __enter__(self):
        environ = dict(os.environ, PYTHONUNBUFFERED="1", DJANGO_SETTINGS_MODULE="mysite.settings")
        environ.pop("PYTHONPATH", None)
        if self.paths:
            environ["PYTHONPATH"] = os.pathsep.join(self.paths)
        self._stream = open(self.log, "wb")
        # A separate session: what Ctrl-C sends goes to the server and its reloader only.
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Ctrl-C is to work though this script may run in the background, where a shell has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return self

    def output(self):
        with open(self.log, "rb") as stream:
            return stream.read().decode("utf-8", "replace")

    def fail(self, what):
        raise SmokeFailed(f"{what}\n$ {' '.join(self.command)}\n{self.output()[-4000:]}")

    def get(self, port, path, expected, deadline):
        """Ask for ``path`` until the server answers; fail unless it is 200 with ``expected``."""
        end = time.monotonic() + deadline
        while True:
            if self.process.poll() is not None:
                self.fail(f"the server ended with status {self.process.returncode}")
            try:
                url = f"http://127.0.0.1:{port}{path}"
                with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT) as answer:
                    body = answer.read().decode("utf-8", "replace")
                    headers = answer.headers
                break
            except urllib.error.HTTPError as error:
                self.fail(f"GET {path} was answered {error.code}")
            except OSError as error:
                if time.monotonic() > end:
                    self.fail(f"GET {path} got no answer in {deadline:.0f} s: {error}")
                time.sleep(0.1)
        if expected not in body:
            self.fail(f"GET {path}: {expected!r} is not in the answer: {body[:500]!r}")
        if "X-Frame-Options" not in headers:
            self.fail(f"GET {path}: the site's middleware has not run")

    def echo(self, port):
        try:
            answer = websocket_round_trip(port, "/echo/", "smoke")
        except (OSError, ValueError) as error:
            self.fail(f"WebSocket: {error!r}")
        if answer != "echo: smoke":
            self.fail(f"WebSocket: the answer is {answer!r}, not 'echo: smoke'")

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _wait(self):
        """Wait for the end. Python 2's server loses a Ctrl-C while it starts a request's thread."""
        try:
            self.process.wait(STOP_TIMEOUT / 2)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGINT)
            self.process.wait(STOP_TIMEOUT / 2)

    def __exit__(self, kind, error, trace):
        try:
            if self.process.poll() is None:
                self._signal(signal.SIGINT)
            try:
                self._wait()
            except subprocess.TimeoutExpired:
                if kind is None:
                    self.fail(f"still running {STOP_TIMEOUT:.0f} s after Ctrl-C")
        finally:
            # Also whatever the reloader may have left behind.
            self._signal(signal.SIGKILL)
            self.process.wait()
            self._stream.close()
        # Ctrl-C may meet the server just when it starts the thread of a request.
        interrupted = (
            r"Exception happened during processing [^\n]*\nTraceback.*?\nKeyboardInterrupt\n"
        )
        output = re.sub(interrupted, "", self.output(), flags=re.DOTALL)
        if kind is None and "Traceback (most recent call last)" in output:
            self.fail("a traceback is in the server's output")


def _read_exactly(stream, size):
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"the connection was closed after {len(data)} of {size} bytes")
    return data


def websocket_round_trip(port, path, text):
    """Open a WebSocket (RFC 6455), send ``text``, and return the text that comes back."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT)) as sock:
        sock.settimeout(ANSWER_TIMEOUT)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            (
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Origin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        with sock.makefile("rb") as stream:
            status = stream.readline()
            if b" 101 " not in status:
                raise ValueError(f"the handshake was answered {status!r}")
            while stream.readline().strip():
                pass
            payload, mask = text.encode(), os.urandom(4)
            masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            sock.sendall(struct.pack("!BB", 0x81, 0x80 | len(payload)) + mask + masked)
            while True:
                opcode, length = struct.unpack("!BB", _read_exactly(stream, 2))
                if length == 126:
                    (length,) = struct.unpack("!H", _read_exactly(stream, 2))
                answer = _read_exactly(stream, length)
                if opcode & 0x0F == 0x08:
                    raise ValueError(f"closed instead of answered: {answer!r}")
                if opcode & 0x0F == 0x01:
                    sock.sendall(struct.pack("!BB", 0x88, 0x80) + os.urandom(4))
                    return answer.decode()


def _command(command, folder, status=0):
    environ = dict(os.environ, DJANGO_SETTINGS_MODULE="mysite.settings")
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=START_TIMEOUT * 2,
    )
    output = done.stdout.decode("utf-8", "replace")
    if (done.returncode == 0) != (status == 0):
        raise SmokeFailed(f"status {done.returncode}\n$ {' '.join(command)}\n{output[-4000:]}")
    return output


def _append(path, text):
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(text)


def _read(path):
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def make_project(python, folder, package):
    """``startproject mysite`` in ``folder``; with the add-on, what its docs say to add to it."""
    binaries = os.path.dirname(python)
    environ = dict(os.environ)
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    environ.pop("PYTHONPATH", None)
    subprocess.run(
        [os.path.join(binaries, "django-admin"), "startproject", "mysite"],
        cwd=folder,
        env=environ,
        check=True,
        timeout=START_TIMEOUT,
    )
    project = os.path.join(folder, "mysite")
    settings = os.path.join(project, "mysite", "settings.py")
    text = _read(settings)
    if package == "channels":
        text = text.replace("    'django.channels',\n", "")
        text, count = re.subn(r"(INSTALLED_APPS = [\[(]\n)", r"\1    'channels',\n", text)
        if count != 1:
            raise SmokeFailed("INSTALLED_APPS was not found in the settings of a new project")
        with open(settings, "w", encoding="utf-8") as stream:
            stream.write(text)
    else:
        if "'django.channels'," not in text:
            raise SmokeFailed("the settings of a new project do not have 'django.channels'")
    return project


def run_smoke(python, folder, package, report=lambda step: None):
    """Make a project in the empty ``folder`` and serve it; raise `SmokeFailed` at the first fault.

    ``python`` is the environment's interpreter, ``package`` is ``channels`` for the add-on and
    ``django.channels`` for the patched Django. ``report`` is called with the name of each step.
    """
    project = make_project(python, folder, package)
    report("startproject")
    inner = os.path.join(project, "mysite")
    if package == "channels":
        _command([python, "manage.py", "startasgi", "--force"], project)
        report("startasgi")
    if "channel_layer" not in _read(os.path.join(inner, "asgi.py")):
        raise SmokeFailed("mysite/asgi.py lacks a channel_layer")
    _command([python, "manage.py", "check"], project)
    report("check")

    # Nothing configured: Django's own welcome page.
    port = free_port()
    with Server(
        [python, "manage.py", "runserver", f"127.0.0.1:{port}"],
        project,
        os.path.join(folder, "runserver-bare.log"),
    ) as server:
        server.get(port, "/", "", START_TIMEOUT)
    report("runserver, nothing configured")

    with open(os.path.join(inner, "views.py"), "w", encoding="utf-8") as stream:
        stream.write(VIEWS)
    with open(os.path.join(inner, "routing.py"), "w", encoding="utf-8") as stream:
        stream.write(ROUTING.format(package=package))
    _append(os.path.join(inner, "urls.py"), URLS)
    _append(os.path.join(inner, "settings.py"), SETTINGS.format(package=package))

    django = _command([python, "-c", "import django; print('%d.%d' % django.VERSION[:2])"], project)
    django = django.strip()
    daphne = os.path.join(os.path.dirname(python), "daphne")
    for name, command in (
        ("runserver", [python, "manage.py", "runserver", "127.0.0.1:{port}"]),
        ("daphne", [daphne, "-b", "127.0.0.1", "-p", "{port}", "mysite.asgi:channel_layer"]),
    ):
        port = free_port()
        command = [part.format(port=port) for part in command]
        with Server(command, project, os.path.join(folder, name + ".log")) as server:
            server.get(port, "/hello/", "hello from GET", START_TIMEOUT)
            server.echo(port)
        report(name + ": HTTP and WebSocket")
        if name == "runserver" and django in ("1.10", "1.11"):
            _append(os.path.join(inner, "settings.py"), FORMER_MIDDLEWARE)
            report("MIDDLEWARE_CLASSES")

    # A worker in another process can take nothing from a layer in memory, and says so.
    output = _command([python, "manage.py", "runworker"], project, status=1)
    if "Traceback" in output or "memory" not in output.lower():
        raise SmokeFailed(f"runworker does not say why it cannot run:\n{output}")
    report("runworker")
