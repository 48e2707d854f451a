"""A type checker accepts a site that uses channels well, and reports each mistake on its line."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from django.channels import installation
from django.test import SimpleTestCase

from .support.requirements import require

SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "typed_site")

CONFIG = """\
[mypy]
strict = True
# `make lint` checks the package itself.
follow_imports = silent
disable_error_code = import-untyped
"""

#: The line of a mistake in mistakes.py, and the error code that mypy has for it.
_EXPECTED = re.compile(r"  # error: ([a-z-]+)$")

#: A line of mypy's output.
_REPORTED = re.compile(r"^.*?(\w+\.py):(\d+): error: .*\[([a-z-]+)\]$")


def expected():
    """Return the set of (file, line, code) that `mistakes.py` announces."""
    with open(os.path.join(SITE, "mistakes.py"), encoding="utf-8") as stream:
        lines = enumerate(stream.read().splitlines(), 1)
    found = ((number, _EXPECTED.search(line)) for number, line in lines)
    return {("mistakes.py", number, match.group(1)) for number, match in found if match}


def reported(package):
    """Run mypy on the site and the package in the folder `package`. Return a set of (file, line, code)."""
    with tempfile.TemporaryDirectory() as folder:
        # As it is installed: the checker finds py.typed and the modules by their names.
        library = os.path.join(folder, "library")
        shutil.copytree(package, os.path.join(library, "channels"))
        shutil.copytree(SITE, os.path.join(folder, "typed_site"))
        with open(os.path.join(folder, "mypy.ini"), "w") as stream:
            stream.write(CONFIG)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--no-error-summary", "typed_site"],
            cwd=folder,
            env=dict(os.environ, MYPYPATH=library),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    found, other = set(), []
    for line in done.stdout.splitlines():
        match = _REPORTED.match(line)
        if match:
            found.add((match.group(1), int(match.group(2)), match.group(3)))
        elif ": note: " not in line:
            other.append(line)
    if other or done.returncode not in (0, 1):
        raise AssertionError("mypy failed:\n" + done.stdout)
    return found


class TypeTests(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        # Skipped before Django's own setUpClass, whose tearDownClass would not run: its ban on database
        # queries would stay for the tests of other classes.
        if not installation.__name__.startswith("channels."):
            raise unittest.SkipTest("the sample site is written for the add-on")
        if sys.version_info < (3, 10):
            raise unittest.SkipTest("the type checker needs Python 3.10 or newer")
        require("mypy")
        super().setUpClass()
        cls.reported = reported(package_folder())

    def test_good_code_has_no_errors(self):
        good = {each for each in self.reported if each[0] != "mistakes.py"}
        self.assertEqual(good, set())

    def test_each_mistake_is_reported_on_its_line(self):
        wrong = {each for each in self.reported if each[0] == "mistakes.py"}
        self.assertGreater(len(expected()), 25)
        self.assertEqual(expected() - wrong, set(), "not reported")
        self.assertEqual(wrong - expected(), set(), "reported, but not announced")

    def test_the_marker_of_typed_packages_is_installed(self):
        self.assertTrue(os.path.exists(os.path.join(package_folder(), "py.typed")))


def package_folder():
    """Return the folder of the package under test."""
    return os.path.dirname(os.path.abspath(installation.__file__))
