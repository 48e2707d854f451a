"""What the README, pyproject.toml, the code and the patch say is supported, against what is tested.

Reads the repository; inside the patched Django there is none, and nothing to check.
"""

import ast
import importlib
import os
import re
import sys
import unittest

import django
from django.channels import alias, installation
from django.channels.installation import require_versions
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPTS = os.path.join(ROOT, "scripts")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as stream:
        return stream.read()


@unittest.skipUnless(os.path.exists(os.path.join(SCRIPTS, "matrix.py")), "not in the repository")
class SupportedVersionsTests(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.path.insert(0, SCRIPTS)
        try:
            cls.matrix = importlib.import_module("matrix")
        finally:
            sys.path.remove(SCRIPTS)

    def test_the_patch_has_each_name_of_compat(self):
        """The patched Django has another compat.py, and the same other modules, which import from it."""
        named = set()
        for name in os.listdir(os.path.join(ROOT, "django", "channels")):
            if name.endswith(".py"):
                for node in ast.walk(ast.parse(read("django", "channels", name))):
                    if isinstance(node, ast.ImportFrom) and node.module == "compat":
                        named.update(each.name for each in node.names)
        self.assertIn("on_commit", named)
        tree = ast.parse(read("patches", "django-1.10", "files", "django", "channels", "compat.py"))
        has = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                has.add(node.name)
            elif isinstance(node, ast.ImportFrom):
                has.update(each.name for each in node.names)
            elif isinstance(node, ast.Name):
                has.add(node.id)
        self.assertEqual(named - has, set())

    def versions(self, column):
        return sorted(
            {tuple(int(part) for part in row[column].split(".")) for row in self.matrix.ROWS}
        )

    def test_the_readme_has_the_matrix(self):
        """`python scripts/matrix.py --table` prints what belongs there."""
        self.assertIn(self.matrix.readme_table(), read("README.md"))

    def test_the_code_refuses_what_is_not_tested(self):
        self.assertEqual(self.versions(0)[0], installation.DJANGO_FLOOR)
        self.assertEqual(self.versions(0)[-1], installation.DJANGO_CEILING)
        self.assertEqual(self.versions(1)[0], installation.PYTHON_FLOOR)

    def test_pip_refuses_what_is_too_old_and_nothing_newer(self):
        text = read("pyproject.toml")
        floor = "{}.{}".format(*installation.DJANGO_FLOOR)
        self.assertIn(f'dependencies = ["Django>={floor}"]', text)
        self.assertIn('requires-python = ">={}.{}"'.format(*installation.PYTHON_FLOOR), text)

    def test_every_page_names_the_supported_range(self):
        expected = "{}.{} to {}.{}".format(*installation.DJANGO_FLOOR + installation.DJANGO_CEILING)
        for path in (
            "Makefile",
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "docs/topics/channels.txt",
            "scripts/patch_django.py",
        ):
            with self.subTest(path):
                found = re.findall(r"\b1\.\d+ to [56]\.\d", read(path))
                self.assertEqual(set(found), {expected})

    def test_tests_that_some_rows_leave_out_exist(self):
        selection = importlib.import_module("selection")
        for name in selection.LEFT_OUT + selection.ONCE + selection.PROCESSES:
            with self.subTest(name):
                module, _, test_case = name.partition(".")
                text = read("tests", "channels_tests", module + ".py")
                self.assertIn("class %s" % test_case, text)
        self.assertLess(set(self.matrix.WITH_PROCESSES), set(self.matrix.ROWS))
        labels = selection.labels()
        self.assertIn("channels_tests.test_routing", labels)
        self.assertIn("channels_tests.test_database_layer.SQLiteConformanceTests", labels)
        self.assertNotIn("channels_tests.test_database_layer.MariaDBConformanceTests", labels)
        self.assertNotIn("channels_tests.test_memory_layer", labels)

    def test_the_patch_brings_the_same_test_requirements(self):
        added = read("patches", "django-1.10", "tests.diff")
        there = {name.lower() for name in re.findall(r"^\+([\w.-]+) [<>=]", added, re.MULTILINE)}
        make_dist = self.matrix.make_dist
        # Django 1.10 runs on no Python that these are for.
        extra = [each for each in make_dist.extra("test") if ">= '3.10'" not in each]
        needed = {re.match(r"[\w.-]+", each).group().lower() for each in extra}
        self.assertGreater(len(needed), 3)
        # Django names Selenium itself, and knows psycopg2 alone. Python 3.7 gets no newer h11 or Twisted than
        # come with uvicorn and Daphne.
        self.assertEqual(needed - there, {"h11", "psycopg", "selenium", "twisted"})

    def test_the_patch_installs_the_same_applications_for_tests(self):
        ours = re.findall(
            r'^ +"(django\.channels[\w.]*)",', read("tests", "addon_settings.py"), re.M
        )
        added = read("patches", "django-1.10", "tests.diff")
        self.assertEqual(re.findall(r"^\+ +'(django\.channels[\w.]*)',", added, re.M), ours)

    def test_the_patch_lists_every_setting_in_the_index_of_settings(self):
        added = read("patches", "django-1.10", "docs.diff")
        listed = re.findall(r"^\+\* :setting:`(CHANNEL\w+)`$", added, re.M)
        page = read("docs", "ref", "channels", "settings.txt")
        self.assertEqual(sorted(listed), sorted(re.findall(r"^\.\. setting:: (\w+)", page, re.M)))

    def test_the_patch_adds_lines_and_changes_none(self):
        folder = os.path.join("patches", "django-1.10")
        names = [name for name in os.listdir(os.path.join(ROOT, folder)) if name.endswith(".diff")]
        self.assertTrue(names)
        for name in names:
            for line in read(folder, name).splitlines():
                with self.subTest(diff=name, line=line):
                    self.assertRegex(line, r"^(\+|--- a/|@@ -\d+,0 \+)")


class VersionsTests(SimpleTestCase):
    def test_what_runs_here_is_supported(self):
        require_versions(sys.version_info, django.VERSION)

    def test_an_old_django(self):
        with self.assertRaisesMessage(ImproperlyConfigured, "this is Django 1.7"):
            require_versions((3, 7, 16), (1, 7, 11, "final", 0))

    def test_an_old_python(self):
        with self.assertRaisesMessage(ImproperlyConfigured, "Python 3.7 or newer"):
            require_versions((3, 6, 15), (1, 10, 8, "final", 0))

    def test_a_django_of_the_future(self):
        newest = installation.DJANGO_CEILING
        for version in ((newest[0], newest[1] + 1), (newest[0] + 1, 0)):
            with self.assertWarnsRegex(RuntimeWarning, r"this is Django %d\.%d" % version):
                require_versions((3, 13, 0), version + (0, "final", 0))

    def test_the_addon_knows_its_names_in_django(self):
        for name, theirs in (
            ("channels", "django.channels"),
            ("channels.generic.websockets", "django.channels.generic.websockets"),
            ("channels.handlers.asgi", "django.core.handlers.asgi"),
            ("channels_redis", None),
            ("django.channels", None),
        ):
            self.assertEqual(alias.name_in_django(name), theirs)
