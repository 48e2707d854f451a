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

        self.wsgi = os.path.join(self.project.directory, "mysite", "wsgi.py")

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

    def write_settings(self):
        self.project.write("mysite/deploy/__init__.py", "")
        self.project.write("mysite/deploy/live.py", "from mysite.settings import *")

    def started(self, *options, **environment):
        """Run `startasgi --force`; return what it printed."""
        status, output = self.run_to_end(
            self.project.manage("startasgi", "--force", *options, **environment)
        )
        self.assertEqual(status, 0, output)
        return output

    def test_settings_in_a_package(self):
        self.write_settings()
        output = self.started("--settings", "mysite.deploy.live")
        self.assertIn('"mysite.deploy.live"', self.read())
        self.assertIn("uses the settings mysite.deploy.live (from --settings)", output)

    def test_the_settings_of_a_terminal_do_not_become_those_of_every_server(self):
        self.write_settings()
        output = self.started(DJANGO_SETTINGS_MODULE="mysite.deploy.live")
        self.assertIn('"mysite.settings"', self.read())
        self.assertIn("uses the settings mysite.settings (from wsgi.py)", output)
        os.remove(self.wsgi)
        output = self.started(DJANGO_SETTINGS_MODULE="mysite.deploy.live")
        self.assertIn('"mysite.settings"', self.read())
        self.assertIn("uses the settings mysite.settings (from manage.py)", output)

    def test_the_settings_are_those_of_wsgi_where_manage_has_others(self):
        self.write_settings()
        self.project.write(
            "mysite/wsgi.py",
            "import os\n"
            "# os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.old')\n"
            "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.deploy.live')\n",
        )
        output = self.started()
        self.assertIn('"mysite.deploy.live"', self.read())
        self.assertIn("uses the settings mysite.deploy.live (from wsgi.py)", output)

    def test_the_settings_of_the_command_if_no_script_names_any(self):
        self.write_settings()
        os.remove(self.wsgi)
        self.project.write(
            "manage.py",
            "import sys\nfrom django.core.management import execute_from_command_line\n"
            "execute_from_command_line(sys.argv)\n",
        )
        output = self.started(DJANGO_SETTINGS_MODULE="mysite.deploy.live")
        self.assertIn('"mysite.deploy.live"', self.read())
        self.assertIn("(from the settings of this command)", output)
