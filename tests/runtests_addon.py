#!/usr/bin/env python
"""Runs tests/channels_tests against the installed add-on, the package `channels`.

    python tests/runtests_addon.py [-v 2] [--failfast] [--shuffle [SEED]] [channels_tests.test_routing ...]

The tests import `django.channels`, as in the patched Django, where Django's own runtests.py runs
them. Here, and nowhere else, that name is an alias: the same module objects under a second name.
The last line is `N passed, N failed, N skipped`. The exit status is 1 if a test failed, if none ran, or if
the run left a process behind.
"""

import argparse
import atexit
import faulthandler
import hashlib
import importlib
import importlib.abc
import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
import uuid
import warnings

TESTS_DIR = os.path.dirname(os.path.abspath(__file__))
# The second name is that of `make test-names`.
ALIAS, REAL = "django.channels", os.environ.get("CHANNELS_TEST_PACKAGE", "channels")

#: Seconds that one test, or the set-up of one class, may take.
TEST_TIMEOUT = 120 * float(os.environ.get("CHANNELS_TEST_TIMEOUT_SCALE", 1))

#: Tests, and modules, that the end of a run names with their seconds.
SLOWEST = 12

#: With --retry, more failures than these are not taken for flaky tests.
MOST_RETRIED = 5

#: Seconds that a process which a test has ended gets to disappear.
LEFTOVERS_TIMEOUT = 5


class AliasFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports `django.channels` and all below it as `channels`: one set of module objects."""

    def __init__(self):
        self.specs = {}

    def find_spec(self, fullname, path=None, target=None):
        if fullname != ALIAS and not fullname.startswith(ALIAS + "."):
            return None
        real = REAL + fullname[len(ALIAS) :]
        try:
            found = importlib.util.find_spec(real)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return importlib.util.spec_from_loader(fullname, self, is_package=is_package)

    def create_module(self, spec):
        module = importlib.import_module(REAL + spec.name[len(ALIAS) :])
        # The import system is about to put the alias' spec there; exec_module puts this back.
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module):
        alias = ALIAS + module.__name__[len(REAL) :]
        module.__spec__ = self.specs.pop(alias)


class TestHangs(BaseException):
    """A test took longer than TEST_TIMEOUT. Code under test that catches Exception does not catch this."""


class CountingResult(unittest.TextTestResult):
    """Counts tests, not reports: a test with three failing subtests failed once.

    A test that hangs fails by its name, and the run goes on. So does the set-up of a class.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {"passed": set(), "failed": set(), "skipped": set()}
        self.in_test = False
        self.began = time.monotonic()
        self.seconds = []  # (seconds, name); the set-up of a class counts for its first test

    def _fail_what_hangs(self, signum, frame):
        """Show where every thread is, and raise in the main thread."""
        sys.stdout.flush()
        # faulthandler shows a hundred threads at most, and the main thread last.
        traceback.print_stack(frame)
        faulthandler.dump_traceback(all_threads=True)
        signal.setitimer(signal.ITIMER_REAL, TEST_TIMEOUT)  # tidying up may hang too
        # unittest reports any exception of a test, but of a class' set-up only an Exception.
        error = TestHangs if self.in_test else AssertionError
        raise error("not finished in %g s; the stacks of all threads are above" % TEST_TIMEOUT)

    def startTestRun(self):
        super().startTestRun()
        self.began = time.monotonic()
        signal.signal(signal.SIGALRM, self._fail_what_hangs)

    def startTest(self, test):
        from channels_tests.support.found import begin
        from channels_tests.support.redis_server import RedisServer

        super().startTest(test)
        RedisServer.empty_shared()
        self.found = begin()
        self.in_test = True
        signal.setitimer(signal.ITIMER_REAL, TEST_TIMEOUT)

    def stopTest(self, test):
        from channels_tests.support.found import changed

        self.in_test = False
        left = changed(self.found)
        if left:
            try:
                raise AssertionError("It leaves this for the tests after it: " + left)
            except AssertionError:
                self.addFailure(test, sys.exc_info())
        now = time.monotonic()
        self.seconds.append((now - self.began, test.id()))
        self.began = now
        signal.setitimer(signal.ITIMER_REAL, TEST_TIMEOUT)  # for the set-up of the next class
        super().stopTest(test)

    def stopTestRun(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().stopTestRun()

    def _count(self, outcome, test):
        if outcome == "failed":
            # At once, because a run that is cut short shows no errors.
            self.stream.writeln("\nfailed: %s" % test.id())
        self.outcomes[outcome].add(test.id())

    def addSuccess(self, test):
        super().addSuccess(test)
        self._count("passed", test)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._count("passed", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._count("skipped", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._count("failed", test)

    def addError(self, test, err):
        super().addError(test, err)
        self._count("failed", test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._count("failed", test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._count("failed", test)

    def counts(self):
        """(passed, failed, skipped): a test is counted once, under the worst that it reported."""
        failed = self.outcomes["failed"]
        passed = self.outcomes["passed"] - failed
        skipped = self.outcomes["skipped"] - failed - passed
        return len(passed), len(failed), len(skipped)


def flat(tests):
    """Yield each test of a suite and of the suites in it."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def shuffled(suite, seed):
    """Return a suite of the same tests in the order that `seed` gives, the same on every Python.

    The tests of one class stay together, because they share its setUpClass. Tests that Django runs in
    transactions stay before those that empty the tables, as Django's runner orders them.
    """
    from django.test import SimpleTestCase, TestCase

    def digest(text):
        return hashlib.sha256(("%s %s" % (seed, text)).encode()).hexdigest()

    def position(test):
        name = type(test).__module__ + "." + type(test).__qualname__
        kind = 0 if isinstance(test, TestCase) else 1 if isinstance(test, SimpleTestCase) else 2
        return kind, digest(name), digest(test.id())

    return type(suite)(sorted(flat(suite), key=position))


def without(suite, names):
    """Return a suite of the tests of `suite` whose module or class is not among `names`.

    A name comes without its package: "test_replies", or "test_database_layer.MariaDBConformanceTests".
    """
    kept = []
    for test in flat(suite):
        module = type(test).__module__.rsplit(".", 1)[-1]
        if module not in names and module + "." + type(test).__name__ not in names:
            kept.append(test)
    return type(suite)(kept)


def part_of(suite, part):
    """Return a suite of the tests of every n-th module, from the i-th on: `part` is "i/n", i from 1."""
    number, parts = map(int, part.split("/"))
    modules = sorted({type(test).__module__ for test in flat(suite)})[number - 1 :: parts]
    return type(suite)(test for test in flat(suite) if type(test).__module__ in modules)


def run_in_parts(number):
    """Run `number` parts at the same time, each in a separate process, and exit with the sum.

    The output of the first part is seen as it comes, that of the others after it.
    """
    signal.signal(signal.SIGTERM, lambda *args: sys.exit(1))
    outputs = [tempfile.TemporaryFile() for _ in range(number)]
    processes = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--part", "%d/%d" % (index, number)],
            stdout=output if index > 1 else subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index, output in enumerate(outputs, 1)
    ]
    try:
        for chunk in iter(lambda: processes[0].stdout.read1(4096), b""):
            outputs[0].write(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
        statuses = [process.wait() for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    sums = [0, 0, 0]
    for output in outputs:
        output.seek(0)
        content = output.read()
        if output is not outputs[0]:
            sys.stdout.buffer.write(content)
        counts = re.findall(rb"^(\d+) passed, (\d+) failed, (\d+) skipped$", content, re.M)[-1:]
        sums = [old + int(new) for old, new in zip(sums, *counts)] if counts else sums
    print("\nAll %d parts:" % number)
    print("{} passed, {} failed, {} skipped".format(*sums))
    sys.stdout.flush()
    sys.exit(1 if any(statuses) else 0)


def print_slowest(timed):
    """Print the slowest tests of `timed`, pairs of seconds and a test's name, and the slowest modules."""
    modules = {}
    for seconds, name in timed:
        module = ".".join(name.split(".")[:2])
        modules[module] = modules.get(module, 0) + seconds
    for each in timed, [(seconds, module) for module, seconds in modules.items()]:
        for seconds, name in sorted(each, reverse=True)[:SLOWEST]:
            print("{:6.1f} s  {}".format(seconds, name))


def retry(names):
    """Run each of the tests `names` again, in its own process. Return how many passed."""
    recovered = 0
    for name in names:
        # "setUpClass (package.module.Class)" stands for the class; a subtest's id for its test.
        label = re.sub(r"^\w+ \((.*)\)$", r"\1", name)
        command = [sys.executable, sys.argv[0], "--timeout", "300", label]
        status = subprocess.call(command, env=dict(os.environ, CHANNELS_TEST_RETRY="0"))
        print("FLAKY: %s %s at the second try" % (name, "failed" if status else "passed"))
        recovered += not status
    return recovered


def fail_for_leftovers(find, mark):
    """Exit with status 1 if a process of this run is still there, after everything else has ended."""
    deadline = time.monotonic() + LEFTOVERS_TIMEOUT
    while find(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = find(mark)
    if left:
        print("The run left processes behind; end them in the test that started them:")
        for pid, command in sorted(left.items()):
            print("  %d  %s" % (pid, command))
        sys.stdout.flush()
        os._exit(1)


def check_addon():
    """Exits with the remedy if the package `channels` is missing or is somebody else's."""
    remedy = "Run `make test`, or `pip install -e '.[test]'` in the repository, then this again."
    try:
        ours = importlib.util.find_spec(REAL + ".asgi")
    except ModuleNotFoundError:
        sys.exit("The package `channels` is not installed. " + remedy)
    if ours is None:
        sys.exit("The installed package `channels` is another one (Channels 2 to 4). " + remedy)


def parsed_options():
    """Return the options of the command line; a random order has got its seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("labels", nargs="*", default=["channels_tests"], help="tests to run; all")
    parser.add_argument(
        "--leave-out",
        default="",
        metavar="NAMES",
        help="comma-separated modules or classes to leave out: test_replies,test_chat.ChatTests",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="run the modules in N parts at the same time, each in a separate process",
    )
    parser.add_argument("--part", metavar="I/N", help="run the I-th of N such parts alone")
    parser.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], default=1)
    parser.add_argument("--failfast", action="store_true", help="stop at the first failure")
    parser.add_argument(
        "--timeout",
        type=int,
        default=1500,
        metavar="SECONDS",
        help="a run that takes longer shows where every thread is, and exits (default: 1500)",
    )
    parser.add_argument(
        "--shuffle",
        nargs="?",
        const="",
        metavar="SEED",
        help="run the tests in another order, the same for the same seed (default: a random one)",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        default=os.environ.get("CHANNELS_TEST_RETRY") == "1",
        help="run what failed once more, by itself, and name the tests that passed then: they are flaky, "
        "which is a defect, but one run of CI should not depend on it (also: CHANNELS_TEST_RETRY=1)",
    )
    options = parser.parse_args()
    if options.shuffle == "":
        options.shuffle = str(random.SystemRandom().randrange(10**6))
    return options


def main():
    options = parsed_options()
    if options.processes > 1 and not options.part:
        run_in_parts(options.processes)
    faulthandler.enable()
    faulthandler.dump_traceback_later(options.timeout, exit=True)
    warnings.simplefilter("default", ResourceWarning)
    check_addon()
    sys.path.insert(0, TESTS_DIR)
    sys.meta_path.insert(0, AliasFinder())
    os.environ["DJANGO_SETTINGS_MODULE"] = "addon_settings"

    from channels_tests.support.leftovers import RUN, marked_processes

    # The first that is registered runs last: after what stops the servers that tests share.
    mark = os.environ[RUN] = uuid.uuid4().hex
    atexit.register(fail_for_leftovers, marked_processes, mark)

    import django

    django.setup()
    addon = importlib.import_module(ALIAS)
    print(
        "Python {}, Django {}, channels {} from {}".format(
            sys.version.split()[0],
            django.get_version(),
            addon.__version__,
            os.path.dirname(os.path.abspath(addon.__file__)),
        )
    )
    sys.stdout.flush()

    from django.test.runner import DiscoverRunner

    results = []

    class Runner(DiscoverRunner):
        def get_resultclass(self):
            return CountingResult

        def build_suite(self, *args, **kwargs):
            suite = super().build_suite(*args, **kwargs)
            if options.leave_out:
                suite = without(suite, options.leave_out.split(","))
            if options.part:
                suite = part_of(suite, options.part)
            return shuffled(suite, options.shuffle) if options.shuffle else suite

        def suite_result(self, suite, result, **kwargs):
            results.append(result)
            return super().suite_result(suite, result, **kwargs)

    started = time.monotonic()
    runner = Runner(verbosity=options.verbosity, interactive=False, failfast=options.failfast)
    runner.run_tests(options.labels)
    faulthandler.cancel_dump_traceback_later()

    passed, failed, skipped = results[0].counts() if results else (0, 0, 0)
    sys.stderr.flush()
    print("\n{:.0f} seconds".format(time.monotonic() - started))
    print_slowest(results[0].seconds if results else [])
    if not passed and not failed:
        print("no test ran")
    if 0 < failed <= MOST_RETRIED and options.retry:
        recovered = retry(sorted(results[0].outcomes["failed"]))
        passed, failed = passed + recovered, failed - recovered
    if options.shuffle:
        part = " --part " + options.part if options.part else ""
        print("shuffled: --shuffle %s%s gives the same order" % (options.shuffle, part))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.stdout.flush()
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
