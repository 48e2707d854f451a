"""`manage.py startasgi`: the file it writes works, and it replaces nothing unasked."""

import os

from django.test import SimpleTestCase

from .support.sites import PACKAGE, Project

# Without the variable of the test's environment, so that the file itself has to set it.
TRY_IT = """
import os
del os.environ["DJANGO_SETTINGS_MODULE"]
from mysite import asgi
print(asgi.application is asgi.channel_layer, asgi.channel_layer)
"""


class StartasgiTests(SimpleTestCase):
    def setUp(self):
        self.project = Project()
        self.addCleanup(self.project.close)
        self.path = os.path.join(self.project.directory, "mysite", "asgi.py")

    def run_to_end(self, process):
        self.addCleanup(process.kill)
        return process.wait(), process.output

    def read(self):
        with open(self.path, encoding="utf-8") as written:
            return written.read()

    def test_writes_a_file_that_works(self):
        os.remove(self.path)
        status, output = self.run_to_end(self.project.manage("startasgi"))
        self.assertEqual(status, 0, output)
        self.assertIn(self.path, output)
        self.assertNotIn("{{", self.read())
        self.assertIn(f"from {PACKAGE}.asgi import get_channel_layer", self.read())
        status, output = self.run_to_end(self.project.python("-c", TRY_IT))
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"(?m)^True default \(.*MemoryChannelLayer\)")

    def test_refuses_to_overwrite(self):
        self.project.write("mysite/asgi.py", "application = None\n")
        status, output = self.run_to_end(self.project.manage("startasgi"))
        self.assertEqual(status, 1, output)
        self.assertIn("exists already", output)
        self.assertIn("--force", output)
        self.assertIn(f"from {PACKAGE}.asgi import get_channel_layer", output)
        self.assertEqual(self.read(), "application = None\n")

    def test_force(self):
        self.project.write("mysite/asgi.py", "application = None\n")
        status, output = self.run_to_end(self.project.manage("startasgi", "--force"))
        self.assertEqual(status, 0, output)
        self.assertIn("channel_layer = get_channel_layer()", self.read())

    def test_settings_in_a_package(self):
        os.remove(self.path)
        self.project.write("mysite/deploy/__init__.py", "")
        self.project.write("mysite/deploy/live.py", "from mysite.settings import *")
        status, output = self.run_to_end(
            self.project.manage("startasgi", DJANGO_SETTINGS_MODULE="mysite.deploy.live")
        )
        self.assertEqual(status, 0, output)
        self.assertIn('"mysite.deploy.live"', self.read())
