"""The distribution of the name `channels`, next to a Django that does not include channels."""

import os
import subprocess
import sys
import unittest

from django.test import SimpleTestCase

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = os.path.join(ROOT, "patches", "django-1.10", "alias")

#: A finder that hides django.channels, whichever name it has here.
HIDE = """
import sys
class Finder(object):
    def find_spec(self, name, path=None, target=None):
        if name == "django.channels":
            raise ImportError("hidden")
sys.meta_path.insert(0, Finder())
sys.path.insert(0, %r)
import channels
"""


@unittest.skipUnless(os.path.isdir(PACKAGE), "not in the repository")
class AliasTests(SimpleTestCase):
    def test_the_name_alone_says_what_to_install(self):
        done = subprocess.run(
            [sys.executable, "-c", HIDE % PACKAGE],
            capture_output=True,
            timeout=120,
        )
        last = done.stderr.decode().strip().splitlines()[-1]
        self.assertIn("this Django does not include channels. Install the patched Django", last)
