"""Look at every page of the site that `make docs` has built: each fits into its window, and rows are rows."""

import os
import re
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


#: A line of "=" for each column, with two columns or more.
_RULE = re.compile(r" *=+(?: +=+)+ *$")


def continued_cells(text):
    """Yield each first cell of a simple table that looks like the rest of the cell above it.

    In such a table, text in the first column begins a row, so a cell can't go on there. A cell looks like
    the rest if the one above ends with a comma, or if it didn't fit there and doesn't begin as the one
    above does, with a capital or a number.
    """
    lines, number = text.split("\n"), 0
    while number < len(lines):
        rule = lines[number]
        number += 1
        if not _RULE.match(rule):
            continue
        indent, width, above = len(rule) - len(rule.lstrip()), len(rule.split()[0]), ""
        while number < len(lines) and lines[number].strip():
            line = lines[number]
            number += 1
            cell = line[indent : indent + width].strip()
            if _RULE.match(line):
                above = ""
            elif cell:
                fits = len(above) + 1 + len(cell.split()[0]) <= width
                sentence = above[:1].isupper() or above[:1].isdigit()
                goes_on = sentence and not fits and (cell[0].islower() or cell[0] == "(")
                if above.endswith(",") or goes_on:
                    yield "%s / %s" % (above, cell)
                above = cell


class TableTests(unittest.TestCase):
    def test_the_measure_finds_what_is_continued(self):
        table = "=======  ===\nRow      Has\n=======  ===\n%s\n=======  ===\n"
        for first, second in (("A row of", "words"), ("No row", "(3 s)"), ("one,", "two")):
            text = table % "\n".join([first[:7].ljust(9) + "1", second.ljust(9) + "2"])
            self.assertEqual(list(continued_cells(text)), ["%s / %s" % (first[:7].strip(), second)])
        self.assertEqual(list(continued_cells(table % "Redis    1\nA        2\nb        3")), [])

    def test_no_row_of_a_table_is_the_rest_of_the_row_above(self):
        found = {}
        for folder, _, names in os.walk(DOCS):
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(".txt"):
                    with open(path, encoding="utf-8") as page:
                        cells = list(continued_cells(page.read()))
                    if cells:
                        found[os.path.relpath(path, DOCS)] = cells
        self.assertEqual(found, {}, "use a grid table, or a shorter text")


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

    def test_each_drawing_leads_to_its_file(self):
        seen = 0
        for path in site_pages():
            with open(path, encoding="utf-8") as page:
                text = page.read()
            for link, image in re.findall(r'(<a [^>]*>)?<img [^>]*src="([^"]*\.svg)"', text):
                seen += 1
                self.assertIn('href="%s"' % image, link, path)
                self.assertTrue(os.path.exists(os.path.join(os.path.dirname(path), image)), path)
        self.assertGreater(seen, 0)

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
