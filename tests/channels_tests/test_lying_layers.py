"""
The conformance suite fails for a layer that breaks a promise: here is a broken layer for each of them.

Each class in lies_memory.py and lies_directory.py is a good layer with one method changed, and names the
tests of the suite that notice it. That the good layers pass is tested in test_memory_layer and
test_directory_layer.
"""

import inspect
import re
import shutil
import tempfile
import unittest

from django.channels.test.conformance import LayerConformance

from . import lies_memory
from .example_layer import DirectoryChannelLayer

if DirectoryChannelLayer is None:
    lies_directory = None
else:
    from . import lies_directory

#: Errors of a lie that is itself broken: they prove nothing.
MISTAKES = ("AttributeError", "NameError", "TypeError", "ImportError", "SyntaxError")

#: How often a test of the suite may pass for a lie by luck.
MOST_TRIES = 5


class LyingCase(LayerConformance):
    """The suite, for the layer class `lie`. It waits for a short time only, because it is to fail."""

    lie = None
    shortest_expiry = 0.1
    timeout = 0.5
    short_leases = {"heartbeat": 0.1, "lease": 0.3}

    def make_layer(self, **config):
        layer = self.lie(**config)
        layer.block_for = 0.05
        self.addCleanup(layer.close)
        return layer


class LyingDirectoryCase(LyingCase):
    timeout = 2.0

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="channels-lie-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        super().setUp()

    def make_layer(self, **config):
        return super().make_layer(directory=self.directory, **config)


class LyingLayerTests(unittest.TestCase):
    def problems(self, test):
        """Run a test of the suite. Return the texts of its failures and errors."""
        result = unittest.TestResult()
        test.run(result)
        return [text for _, text in result.failures + result.errors]

    def check(self, lie, case):
        kind = type(lie.__name__, (case, unittest.TestCase), {"lie": lie})
        for name in lie.noticed_by:
            with self.subTest(test=name):
                # On a slow machine, a thread may be too late to meet the lie, but not each time.
                tries = (self.problems(kind(name)) for _ in range(MOST_TRIES))
                problems = next(filter(None, tries), None)
                self.assertTrue(problems, "%s passes for %s" % (name, lie.__name__))
                last = problems[0].strip().splitlines()[-1]
                self.assertFalse(last.startswith(MISTAKES), problems[0])


def arguments_of(method):
    return list(inspect.signature(method).parameters)


class ArgumentTests(unittest.TestCase):
    """
    A lie that mistakes the arguments of what it overrides does something else than its name says. The suite
    then notices another fault.
    """

    def test_what_a_lie_overrides_takes_the_arguments_of_the_good_layer(self):
        found = 0
        for lie in lies_memory.lies + (lies_directory.lies if lies_directory else []):
            for name, method in vars(lie.changed).items():
                if not inspect.isfunction(method):
                    continue
                good = getattr(super(lie.changed, lie.changed), name, None)
                with self.subTest(lie=lie.__name__, method=name):
                    self.assertIsNotNone(good, "the good layer has no such method")
                    if name != "__init__":
                        self.assertEqual(arguments_of(method), arguments_of(good))
                        found += 1
        self.assertGreater(found, 20)


def _add_test(lie, case):
    words = re.sub(r"(?<!^)([A-Z])", r"_\1", lie.__name__).lower()

    def test(self):
        self.check(lie, case)

    test.__name__ = "test_the_suite_notices_a_layer_that_" + words
    test.__doc__ = None
    setattr(LyingLayerTests, test.__name__, test)


for _lie in lies_memory.lies:
    _add_test(_lie, LyingCase)
for _lie in lies_directory.lies if lies_directory is not None else ():
    _add_test(_lie, LyingDirectoryCase)
