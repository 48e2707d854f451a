"""The add-on under its second import name, in one process with a package that is called `channels`."""

import os
import subprocess
import sys
import tempfile
import unittest

from django import channels

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

SITE = """
import sys
# An editable installation would find the modules of this package below any `channels`.
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in repr(each).lower()]
import channels, django
assert channels.OTHER
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["channels", "django_channels"], DATABASES={}, SECRET_KEY="x",
    MIDDLEWARE_CLASSES=[],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    DJANGO_CHANNEL_LAYERS={
        "default": {"BACKEND": "django_channels.layers.memory.MemoryChannelLayer",
                    "ROUTING": [], "CONFIG": {"capacity": 7}},
    },
)
django.setup()
from django.core.checks import run_checks
print([each.id for each in run_checks()])
from django.apps import apps
print(sorted(apps.app_configs))
from django_channels.asgi import get_channel_layer
print(get_channel_layer().capacity)
from django_channels.handler import ViewConsumer
print(sorted(each for each in __import__("sys").modules if each.startswith("channels")))
try:
    import redis, msgpack
except ImportError:  # the layer is not installed with this Django
    print("django_channels.protocol")
else:
    import asgi_redis.contract
    print(asgi_redis.contract.protocol.__name__)
"""


@unittest.skipUnless(
    channels.__name__ == "channels", "the add-on under its first name builds the second"
)
class SecondNameTests(unittest.TestCase):
    def test_it_runs_beside_another_package_of_the_first_name(self):
        script = os.path.join(ROOT, "scripts", "second_name.py")
        if not os.path.exists(script):
            self.skipTest("no scripts here")
        with tempfile.TemporaryDirectory() as folder:
            tree = os.path.join(folder, "tree")
            subprocess.run([sys.executable, script, tree], check=True)
            os.mkdir(os.path.join(tree, "channels"))
            with open(os.path.join(tree, "channels", "__init__.py"), "w") as stream:
                stream.write("OTHER = True\n")
            environ = dict(
                os.environ, PYTHONPATH=os.pathsep.join([tree, os.path.join(ROOT, "asgi_redis")])
            )
            done = subprocess.run(
                [sys.executable, "-c", SITE],
                env=environ,
                cwd=folder,
                capture_output=True,  # the errors have the lines about a server's process
                text=True,
            )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "[]",
                "['channels', 'django_channels']",
                "7",
                "['channels']",
                "django_channels.protocol",
            ],
        )


class NameTests(unittest.TestCase):
    def test_the_package_has_the_name_that_the_run_asks_for(self):
        wanted = os.environ.get("CHANNELS_TEST_PACKAGE", channels.__name__)
        self.assertEqual(channels.__name__, wanted)
