"""Run the recipes of docs/howto/channels: their files make one project, whose tests pass."""

import os
import re
import shlex
import subprocess
import tempfile
import unittest

import django
from django.core.management import load_command_class

from .support import pages
from .support.requirements import find, require
from .support.sites import PACKAGE, Project
from .support.waiting import TIMEOUT

FOLDER = "howto/channels"

SETTINGS = """
INSTALLED_APPS += [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.staticfiles",
] + %r
MIDDLEWARE = MIDDLEWARE_CLASSES = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES["default"]["TEST"] = {"NAME": os.path.join(BASE_DIR, "test.sqlite3")}
"""


def names():
    """Return the names of the recipes' pages, without the table of contents."""
    folder = os.path.join(pages.DOCS, FOLDER)
    found = [FOLDER + "/" + name for name in sorted(os.listdir(folder)) if name.endswith(".txt")]
    return [name for name in found if not name.endswith("/index.txt")]


def files_of(name):
    """Return the files of a page, by path, with the package's name and for this Django."""
    found = {}
    for kind, text in pages.blocks(name):
        if kind == "python" and pages.path_of(text):
            text = text.replace("django.channels", PACKAGE)
            if django.VERSION < (1, 10):  # as the pages of Channels say
                text = re.sub(r"\bis_authenticated\b", "is_authenticated()", text)
            found[pages.path_of(text)] = text
    return found


class RecipeTests(unittest.TestCase):
    def test_the_tests_of_all_recipes_pass_in_one_project(self):
        require("daphne")
        apps, files = [], files_of(FOLDER + "/index.txt")
        for name in names():
            recipe = files_of(name)
            (app,) = {path.split("/")[0] for path in recipe}
            self.assertIn(app + "/tests.py", recipe, name)
            files.update(recipe, **{app + "/__init__.py": ""})
            # Django 1.8 doesn't tell when a transaction commits.
            if app != "orders" or django.VERSION >= (1, 9):
                apps.append(app)
        with Project(files, SETTINGS % apps) as project:
            process = project.manage("test", "-v", "2", *apps)
            self.addCleanup(process.kill)
            status = process.wait(20 * TIMEOUT)
            self.assertEqual(status, 0, process.output)
            for app in apps:  # a recipe whose tests aren't found would pass, too
                self.assertRegex(process.output, r"\(%s\.tests" % app)

    def test_the_index_includes_each_recipe(self):
        (text,) = files_of(FOLDER + "/index.txt").values()
        for name in names():
            for path in files_of(name):
                self.assertIn('"%s.routing.channel_routing"' % path.split("/")[0], text, name)

    def test_scripts_are_javascript(self):
        require("node")
        for name in names() + ["topics/channels/javascript.txt"]:
            for kind, text in pages.blocks(name):
                if kind == "javascript":
                    with tempfile.NamedTemporaryFile("w", suffix=".js", encoding="utf-8") as script:
                        script.write(text)
                        script.flush()
                        done = subprocess.run(
                            [find("node"), "--check", script.name],
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT,
                        )
                    self.assertEqual(done.returncode, 0, (name, done.stdout.decode()))

    def test_commands_and_their_options_exist(self):
        parser = load_command_class(PACKAGE, "runworker").create_parser("manage.py", "runworker")
        seen = 0
        for name in names():
            for kind, text in pages.blocks(name):
                for command, _ in pages.commands(text) if kind == "console" else []:
                    words = shlex.split(command)
                    self.assertEqual(words[:3], ["python", "manage.py", "runworker"], name)
                    parser.parse_args(words[3:])
                    seen += 1
        self.assertGreater(seen, 0)
