"""Look at every page of the site that `make docs` has built: each fits into its window."""

import os
import shutil
import tempfile
import unittest

from .support.chromium import start_chromium
from .support.pages import DOCS
from .support.requirements import require

SITE = os.path.join(os.path.dirname(DOCS), "build", "docs")

#: Pixels: a window on a desk, and a telephone.
WIDTHS = (1300, 420)

#: Returns by how many pixels the page is too wide, and what of it stands out to the right. What lies in a
#: box that scrolls doesn't count.
MEASURE = """
const scrolls = e => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
const inBox = e => e.tagName !== "BODY" && (scrolls(e) || inBox(e.parentElement));
const outside = [...document.querySelectorAll("article *")].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 && !inBox(e.parentElement));
return [Math.max(0, document.documentElement.scrollWidth - innerWidth),
        outside.slice(0, 3).map(e => e.tagName + ": " + e.textContent.slice(0, 60))];
"""

#: Returns the longest line of each code box and table that scrolls.
SCROLLING = """
return [...document.querySelectorAll("article pre, article .table-wrapper")].filter(
  e => e.scrollWidth > e.clientWidth + 1).map(
  e => e.textContent.split("\\n").reduce((one, other) => other.length > one.length ? other : one));
"""


def site_pages():
    """Return the paths of the site's pages."""
    found = []
    for folder, _, names in os.walk(SITE):
        found += [os.path.join(folder, name) for name in names if name.endswith(".html")]
    return sorted(found)


class WidthTests(unittest.TestCase):
    def setUp(self):
        if not os.path.exists(os.path.join(SITE, "index.html")):
            raise unittest.SkipTest("build the site first: make docs")
        require("selenium")
        require("chromium", "chromedriver")
        profile = tempfile.mkdtemp(prefix="chromium-")
        self.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        self.driver = start_chromium(profile)
        self.addCleanup(self.driver.quit)

    def measure(self, width):
        size = {"width": width, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        return self.driver.execute_script(MEASURE)

    def test_the_measure_finds_what_is_too_wide(self):
        self.driver.get("data:text/html,<article><p style='width:2000px'>wide</p></article>")
        self.assertEqual(self.measure(420)[1], ["P: wide"])
        self.driver.get(
            "data:text/html,<article style='overflow-x:auto'><p style='width:2000px'>wide</p></article>"
        )
        self.assertEqual(self.measure(420), [0, []])

    def test_no_page_is_wider_than_its_window(self):
        wide = {}
        for path in site_pages():
            self.driver.get("file://" + path)
            for width in WIDTHS:
                found = self.measure(width)
                if found != [0, []]:
                    wide[os.path.relpath(path, SITE), width] = found
        self.assertEqual(wide, {})

    def test_no_line_of_code_is_longer_than_its_box_on_a_desk(self):
        self.driver.get("data:text/html,<article><pre style='overflow:auto'>%s</pre>" % ("x" * 400))
        self.measure(WIDTHS[0])
        self.assertEqual(self.driver.execute_script(SCROLLING), ["x" * 400])
        found = {}
        for page in site_pages():
            self.driver.get("file://" + page)
            lines = self.driver.execute_script(SCROLLING)
            if lines:
                found[os.path.relpath(page, SITE)] = lines
        self.assertEqual(found, {})
