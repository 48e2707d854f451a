"""Run the page on Channels 4 with a real Channels 4 and Daphne: one server, one process, both packages.

``python scripts/test_channels_4.py TREE`` makes an environment with Channels 4 (kept in .cache/venvs).
TREE is the add-on under its second name: see second_name.py. The site is made of the files of the page.
If the registry can't be reached and the environment isn't there yet, the tests are skipped, or they fail
in CI.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from interpreters import ROOT, CommandFailed, environment, own_version, python_of

sys.path.insert(0, os.path.join(ROOT, "tests", "channels_tests"))

from support import pages  # noqa: E402
from support.ports import can_connect, free_port  # noqa: E402
from support.processes import Process  # noqa: E402
from support.waiting import TIMEOUT, wait_until  # noqa: E402

REQUIREMENTS = ["channels==4.3.1", "daphne==4.2.2", "Django==5.2.8", "websocket-client==1.8.0"]
PAGE = "topics/channels/from-channels-2.txt"

#: Seconds for the installation.
INSTALL_TIMEOUT = 300

#: What the reader has already: a site for Channels 4.
SITE = {
    "mysite/__init__.py": "",
    "mysite/settings.py": """
SECRET_KEY = "only for the tests"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
INSTALLED_APPS = ["daphne", "channels", "django_channels"]
ASGI_APPLICATION = "mysite.asgi.application"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
""",
    "mysite/urls.py": """
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path


class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("chat", self.channel_name)
        await self.accept()

    async def chat_message(self, event):
        await self.send(text_data=event["text"])


def lazily(name):
    def view(request):
        from mysite import views
        return getattr(views, name)(request)
    return view


websocket_urlpatterns = [
    path("ws/chat/", Chat.as_asgi()),
    path("ws/pages/", AllowedHostsOriginValidator(Chat.as_asgi())),
]
urlpatterns = [path("tell/", lazily("tell")), path("resize/", lazily("resize"))]
""",
}

CLIENT = """
import json, sys
from urllib.request import urlopen
from django.conf import settings
settings.configure(SECRET_KEY="only for the tests")
from django.core import signing
import websocket

port, timeout = sys.argv[1], float(sys.argv[2])
found = {}

def opened(path, **options):
    options.setdefault("origin", "http://127.0.0.1:" + port)
    return websocket.create_connection("ws://127.0.0.1:%s%s" % (port, path), timeout=timeout, **options)

def asked(path):
    return urlopen("http://127.0.0.1:%s%s" % (port, path), timeout=timeout).read().decode()

there, here = opened("/ws/chat/"), opened("/ws/room/")
here.send("hello")
found["echo"] = here.recv()
found["view"] = asked("/tell/?text=both")
found["both"] = [there.recv(), here.recv()]
asked("/resize/?name=cat")
found["type"] = here.recv()
token = signing.dumps("ann", salt="sockets")
known = opened("/ws/token/?token=" + token)
known.send("who?")
found["token"] = known.recv()
opcode, data = opened("/ws/token/?token=wrong").recv_data()
found["wrong"] = int.from_bytes(data[:2], "big") if opcode == 8 else opcode
for path in ("/ws/room/", "/ws/pages/"):
    try:
        opened(path, suppress_origin=True)
        found[path] = 101
    except websocket.WebSocketBadStatusException as error:
        found[path] = error.status_code
print(json.dumps(found))
"""


class Channels4Tests(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        try:
            cls.python = python_of(
                environment(
                    "channels-4", own_version(), sys.executable, REQUIREMENTS, INSTALL_TIMEOUT
                )
            )
        except CommandFailed as error:
            if os.environ.get("CI") == "true":
                raise
            raise unittest.SkipTest("Channels 4 cannot be installed here: %s" % error) from None
        super().setUpClass()

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="channels-4-")
        self.addCleanup(shutil.rmtree, self.folder)
        for path, text in SITE.items():
            self.write(path, text)
        for kind, text in pages.blocks(PAGE):
            path = pages.path_of(text) if kind == "python" else None
            if text.startswith("# mysite/settings.py: one of these"):
                # The first is in memory, and needs no worker.
                first = text.split("DJANGO_CHANNEL_LAYERS")[1]
                self.write(
                    "mysite/settings.py",
                    SITE["mysite/settings.py"] + "DJANGO_CHANNEL_LAYERS" + first,
                )
            elif path is not None and path.startswith("mysite/"):
                self.write(path, text)
        self.environ = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join([self.folder, os.path.abspath(TREE)]),
            DJANGO_SETTINGS_MODULE="mysite.settings",
            PYTHONDONTWRITEBYTECODE="1",
        )

    def write(self, path, text):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)

    def run_python(self, *args):
        done = subprocess.run(
            [self.python, *args],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT * 6,
        )
        output = done.stdout.decode()
        self.assertEqual(done.returncode, 0, output)
        return output

    def test_check_finds_nothing_to_say_about_the_two(self):
        self.assertIn("no issues", self.run_python("-m", "django", "check"))

    def test_one_server_runs_both_as_the_page_says(self):
        port = free_port()
        command = [
            self.python,
            "-m",
            "daphne",
            "-b",
            "127.0.0.1",
            "-p",
            str(port),
            "mysite.asgi:application",
        ]
        server = Process(command, self.folder, self.environ)
        self.addCleanup(server.kill)
        wait_until(
            lambda: can_connect(port) or not server.alive, "the server to listen", TIMEOUT * 3
        )
        self.write("client.py", CLIENT)
        try:
            output = self.run_python("client.py", str(port), str(TIMEOUT))
        except AssertionError as error:
            raise AssertionError("%s\n%s" % (error, server.output)) from None
        self.assertEqual(
            json.loads(output.splitlines()[-1]),
            {
                "echo": "hello",
                "view": "sent",
                "both": ["both", "both"],
                "type": "resized cat",
                "token": "ann",
                "wrong": 4401,
                "/ws/room/": 101,
                "/ws/pages/": 403,
            },
        )


if __name__ == "__main__":
    TREE = sys.argv.pop(1)
    unittest.main(verbosity=2)
