"""The projects' own tests, which they wrote with ChannelTestCase and WSClient, by `manage.py test`."""

import unittest

from .sites import Site
from .versions import REMOVED


class UnitTests(unittest.TestCase):
    def run_tests(self, name, number):
        site = Site(name)
        self.addCleanup(site.close)
        self.assertIn("Ran %d tests" % number, site.manage("test"))

    def test_multichat(self):
        self.run_tests("multichat", 5)

    def test_liveblog(self):
        self.run_tests("liveblog", 3)

    def test_databinding(self):
        self.run_tests("databinding", 6)


class VersionsTests(unittest.TestCase):
    def test_only_django_is_a_reason_to_change_a_project(self):
        for _, _, pattern, new in REMOVED:
            self.assertNotIn("channels", pattern + new)
