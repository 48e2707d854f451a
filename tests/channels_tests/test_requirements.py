"""A missing server skips a test on a laptop and fails it in CI."""

import os
import unittest
from unittest import mock

from django.test import SimpleTestCase

from .support.requirements import find, require

MISSING = "no-such-program-anywhere"


class RequireTests(SimpleTestCase):
    def test_what_is_here(self):
        self.assertTrue(require("django", "unittest").endswith("__init__.py"))
        self.assertIsNone(find(MISSING))

    def test_skips_on_a_laptop(self):
        with mock.patch.dict(os.environ, {"CI": ""}):
            with self.assertRaisesMessage(unittest.SkipTest, MISSING):
                require("django", MISSING)

    def test_fails_in_ci(self):
        with mock.patch.dict(os.environ, {"CI": "true"}):
            with self.assertRaisesMessage(AssertionError, MISSING):
                require("django", MISSING)
