"""The three ways between WSGI and ASGI behind real servers: gunicorn and nginx, uWSGI, mod_wsgi, uvicorn.

The bodies have 3 MB. With CHANNELS_TEST_BIG_BODIES=1024 they have 1,024 MB (`make test-big`), which takes
minutes. The bound of the memory is the same.
"""

import glob
import grp
import http.client
import os
import pwd
import sys
import unittest

from .support.ports import can_connect_to, free_port
from .support.requirements import find_program, missing, require
from .support.sites import Project, SiteServer, serve
from .support.waiting import START_TIMEOUT, TIMEOUT, wait_until
from .test_security_proxies import Nginx, nginx_blocks

BIG = int(os.environ.get("CHANNELS_TEST_BIG_BODIES") or 0)

#: Bytes of a body, and bytes that a process may have grown after it.
SIZE = (BIG or 3) * 2**20
MAX_GROWTH = 100 * 2**20

PART = 64 * 1024
BODY_TIMEOUT = 60 * TIMEOUT if BIG else TIMEOUT

SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["*"]
MIDDLEWARE = MIDDLEWARE_CLASSES = []
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "{channels}.layers.database.DatabaseChannelLayer",
        "ROUTING": "mysite.routing.channel_routing",
    }
}
INSTALLED_APPS += ["{channels}.layers.database"]
"""

FILES = {
    "mysite/wsgi.py": """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

from {channels}.wsgi import get_wsgi_application

application = get_wsgi_application()
""",
    "mysite/http.py": """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

from django.core.wsgi import get_wsgi_application

from {channels}.asgi import get_channel_layer

channel_layer = get_channel_layer(http=get_wsgi_application())
""",
    "mysite/views.py": """
import os

from django.http import HttpResponse, StreamingHttpResponse


def index(request):
    size = sum(len(each) for each in iter(lambda: request.read(65536), b""))
    return HttpResponse("%s %s" % (size, os.getpid()))


def down(request, size):
    return StreamingHttpResponse(b"x" * 65536 for _ in range(int(size) // 65536))
""",
    "mysite/urls.py": """
try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from . import views

urlpatterns = [re_path("^down/([0-9]+)/$", views.down), re_path("", views.index)]
""",
    "mysite/routing.py": """
import os

from {channels} import route
from {channels}.wsgi import WSGIConsumer


def old_site(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"].split("/")
    if path[1] == "down":
        return (b"x" * 65536 for _ in range(int(path[2]) // 65536))
    read = environ["wsgi.input"].read
    size = sum(len(each) for each in iter(lambda: read(65536), b""))
    return [("%s %s" % (size, os.getpid())).encode()]


channel_routing = [route("http.request", WSGIConsumer(old_site, "/old"), path="^/old/")]
""",
}


def family(pid):
    """Return the process ids of a process and its descendants."""
    found = [pid]
    for each in found:
        try:
            with open("/proc/%d/task/%d/children" % (each, each)) as stream:
                found += [int(child) for child in stream.read().split()]
        except OSError:  # it has ended
            pass
    return found


def peaks(*pids):
    """Return the most bytes of memory that each process, or its descendant, has had, by process id."""
    found = {}
    for pid in (each for root in pids for each in family(root)):
        with open("/proc/%d/status" % pid) as stream:
            lines = dict(line.split(":", 1) for line in stream)
        found[pid] = int(lines["VmHWM"].split()[0]) * 1024
    return found


class BodyCase(unittest.TestCase):
    """Bodies pass through a server up and down, and no process keeps them in memory."""

    def project(self):
        project = Project(FILES, SETTINGS)
        self.addCleanup(project.close)
        with project.manage("migrate", "-v0") as migrating:
            self.assertEqual(migrating.wait(START_TIMEOUT), 0, migrating.output)
        return project

    def start_worker(self, project):
        worker = project.manage("runworker")
        self.addCleanup(worker.kill)
        worker.wait_for_output("Quit with", timeout=START_TIMEOUT)
        return worker

    def ask(self, path, data=None):
        """Return the size of the response, and its beginning. `data` is an iterable of bytes."""
        connection = self.connect()
        headers = {"Host": "example.com"}
        if data is not None:
            headers["Content-Length"] = str(SIZE)
        try:
            connection.request("GET" if data is None else "POST", path, data, headers)
            response = connection.getresponse()
            self.assertEqual(
                response.status, 200, response.read(2000) if response.status != 200 else ""
            )
            beginning = part = response.read(PART)
            size = 0
            while part:
                size += len(part)
                part = response.read(PART)
            return size, beginning
        finally:
            connection.close()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=BODY_TIMEOUT)

    def check(self, answering, prefix="", running=()):
        """Send bodies through self.server; `answering` is the process that answers."""
        processes = [answering.pid, self.server.pid, *(each.pid for each in running)]
        self.assertEqual(self.ask(prefix + "/")[1].split()[0], b"0")
        before = peaks(*processes)
        _, said = self.ask(prefix + "/", (b"y" * PART for _ in range(SIZE // PART)))
        size, pid = said.split()
        self.assertEqual(int(size), SIZE)
        self.assertIn(int(pid), family(answering.pid))
        self.assertEqual(self.ask("%s/down/%d/" % (prefix, SIZE))[0], SIZE)
        grown = {pid: peak - before.get(pid, 0) for pid, peak in peaks(*processes).items()}
        if BIG:
            megabytes = {pid: "+%.0f MB" % (each / 2**20) for pid, each in grown.items()}
            names = {self.server.pid: "server", answering.pid: "answers"}
            print("\n%s %s: %s %s" % (self.id(), prefix, megabytes, names), file=sys.stderr)
        self.assertLess(max(grown.values()), MAX_GROWTH, grown)


class SiteNginx(Nginx):
    """nginx with the configuration of the page about WSGI: `/` goes to wsgi.sock."""

    def locations(self, site):
        start = site.index("    location / {")
        limit = site.index("client_max_body_size 20m;")
        site = site[:limit] + "client_max_body_size 1g;" + site[limit + 25 : start]
        return site + nginx_blocks("howto/deployment/asgi/wsgi.txt")[0] + "}\n"


class GunicornTests(BodyCase):
    """gunicorn behind the documented nginx, with a worker."""

    def setUp(self):
        require("gunicorn", "openssl")
        if find_program("nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx") is None:
            missing("not installed here: nginx")

    def connect(self):
        connection = http.client.HTTPConnection("example.com", self.nginx.port)
        connection.sock = self.nginx.connect()
        connection.sock.settimeout(BODY_TIMEOUT)
        return connection

    def start(self):
        """Return a worker behind gunicorn and nginx."""
        project = self.project()
        worker = self.start_worker(project)
        path = os.path.join(project.directory, "wsgi.sock")
        options = ["--bind", "unix:" + path, "--threads", "4", "--timeout", str(int(BODY_TIMEOUT))]
        self.server = project.python("-m", "gunicorn", *options, "mysite.wsgi:application")
        self.addCleanup(self.server.kill)
        wait_until(lambda: can_connect_to(path), "gunicorn", START_TIMEOUT)
        self.nginx = SiteNginx(project.directory)
        self.addCleanup(self.nginx.close)
        return worker

    def test_bodies_reach_a_view(self):
        self.check(self.start(), running=[self.nginx.process])

    def test_bodies_reach_a_wsgi_application_in_a_worker(self):
        self.check(self.start(), "/old", running=[self.nginx.process])


class UvicornTests(BodyCase):
    """The site's own WSGI application in the process of an ASGI server."""

    def test_bodies_pass_through_uvicorn_without_a_layer(self):
        self.server = serve(self.project(), "uvicorn", "mysite.http:channel_layer")
        self.addCleanup(self.server.kill)
        self.check(self.server)


class UWSGITests(BodyCase):
    """uWSGI with two forked processes, and a worker. Only where uWSGI is installed."""

    def test_bodies_pass_through_uwsgi_and_a_worker(self):
        program = find_program("uwsgi", os.path.join(sys.prefix, "bin", "uwsgi"))
        if program is None:
            raise unittest.SkipTest("not installed here: uwsgi (pip install uwsgi)")
        project = self.project()
        worker = self.start_worker(project)
        port = free_port()
        command = [program, "--http-socket", "127.0.0.1:%d" % port, "--virtualenv", sys.prefix]
        command += [
            "--master",
            "--need-app",
            "--die-on-term",
            "--module",
            "mysite.wsgi:application",
        ]
        command += [
            "--processes",
            "2",
            "--threads",
            "4",
            "--socket-timeout",
            str(int(BODY_TIMEOUT)),
        ]
        self.server = SiteServer(command, project.directory, project.environment(), port)
        self.addCleanup(self.server.kill)
        self.server.wait_until_listening(START_TIMEOUT)
        self.check(worker)
        self.check(worker, "/old")


APACHE = """
ServerRoot {directory}
ServerName 127.0.0.1
PidFile apache.pid
ErrorLog error.log
Listen 127.0.0.1:{port}
User {user}
Group {group}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
TimeOut {timeout}
WSGIDaemonProcess mysite processes=2 threads=4 socket-timeout={timeout} python-path={path}
WSGIProcessGroup mysite
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias / {directory}/mysite/wsgi.py
"""


class ModWSGITests(BodyCase):
    """Apache with mod_wsgi in two daemon processes, and a worker. Only where both are installed."""

    def apache(self, project):
        """Start Apache; its daemon processes run as a user that may write into the project."""
        program = find_program("apache2", "/usr/sbin/apache2")
        modules = "/usr/lib/apache2/modules"
        version = "%d.%d" % sys.version_info[:2]
        if program is None or not glob.glob("%s/mod_wsgi.so-%s" % (modules, version)):
            raise unittest.SkipTest(
                "not installed here: Apache with mod_wsgi for Python " + version
            )
        user = "www-data" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(project.directory, entry.pw_uid, entry.pw_gid)
            for folder, folders, names in os.walk(project.directory):
                for name in folders + names:
                    os.chown(os.path.join(folder, name), entry.pw_uid, entry.pw_gid)
        paths = [project.directory, *(each for each in sys.path if each)]
        port = free_port()
        project.write(
            "apache.conf",
            APACHE.format(
                directory=project.directory,
                port=port,
                user=user,
                group=grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name,
                modules=modules,
                timeout=int(BODY_TIMEOUT),
                path=":".join(
                    each for each in paths if "lib/python" not in each or "site-" in each
                ),
            ),
        )
        command = [program, "-f", os.path.join(project.directory, "apache.conf"), "-DFOREGROUND"]
        server = SiteServer(command, project.directory, project.environment(), port)
        self.addCleanup(server.kill)
        server.wait_until_listening(START_TIMEOUT)
        return server

    def test_bodies_pass_through_mod_wsgi_and_a_worker(self):
        project = self.project()
        self.server = self.apache(project)
        # Apache's user may not open files of the layer that the worker, perhaps as root, has made.
        connection = self.connect()
        self.addCleanup(connection.close)
        connection.request("GET", "/")
        lock = os.path.join(project.directory, "db-channels.sqlite3-lock")
        wait_until(lambda: os.path.exists(lock), "the files of the layer", START_TIMEOUT)
        worker = self.start_worker(project)
        try:
            self.check(worker)
            self.check(worker, "/old")
        except (AssertionError, OSError) as error:
            with open(os.path.join(project.directory, "error.log")) as stream:
                raise AssertionError("%s\n%s" % (error, stream.read()[-3000:])) from None
