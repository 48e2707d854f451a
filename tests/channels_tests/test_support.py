"""The helpers in support/: a missing server, a process and its output, what a run leaves behind."""

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid
from unittest import mock

from django.channels import advice, consume
from django.channels.compat import get_script_prefix, set_script_prefix
from django.test import SimpleTestCase

from .support import found, ports
from .support.leftovers import RUN, kill_marked, marked_processes
from .support.ports import can_connect, free_port
from .support.processes import Process
from .support.requirements import find, require
from .support.waiting import START_TIMEOUT, TIMEOUT, wait_until

MISSING = "no-such-program-anywhere"
SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts")

#: Try two of three mutants at once, with "tests" that start a process and never end.
MUTANTS = """
import os, sys
scripts, folder = sys.argv[1:]
sys.path.insert(0, scripts)
import mutants
group = mutants.Group("endless", ["*"], os.path.join(folder, "endless.py"), [])
mutants.GROUPS[:] = [group]
mutants.check_unchanged = lambda copy, groups: {group: 600}
mutants.Copy.labels = lambda copy, group: []
mutants.work = lambda options: mutants.run(mutants.find_mutants(["log.py"])[:3], 2, folder, False)
sys.argv[1:] = []
mutants.main()
"""
#: Print the labels of all groups' tests.
LABELS = """
import sys
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import mutants
for group in mutants.GROUPS:
    print("\\n".join(mutants.Copy.labels(SimpleNamespace(root=mutants.ROOT), group)))
"""
#: The tests of what is mutated, by the beginnings of their names; and those that take too long for it.
JUDGES = re.compile(r"test_(consume|database|engine|gateway|memory|replies|sessions|worker)(_.*)?$")
SLOW_JUDGES = {
    "test_database_layer_pooler",
    "test_database_layer_site",
    "test_database_silent_site",
}
ENDLESS = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""


class RequireTests(SimpleTestCase):
    def test_path_of_an_installed_package_is_returned(self):
        self.assertTrue(require("django", "unittest").endswith("__init__.py"))
        self.assertIsNone(find(MISSING))

    def test_missing_program_skips_on_a_laptop(self):
        with mock.patch.dict(os.environ, {"CI": ""}):
            with self.assertRaisesMessage(unittest.SkipTest, MISSING):
                require("django", MISSING)

    def test_missing_program_fails_in_ci(self):
        with mock.patch.dict(os.environ, {"CI": "true"}):
            with self.assertRaisesMessage(AssertionError, MISSING):
                require("django", MISSING)


class WaitTests(SimpleTestCase):
    def test_error_names_what_was_waited_for(self):
        with self.assertRaisesMessage(AssertionError, "the impossible"):
            wait_until(lambda: False, "the impossible", timeout=0)

    def test_true_value_is_returned(self):
        self.assertEqual(wait_until(lambda: [1]), [1])


class PortTests(SimpleTestCase):
    def test_nothing_listens_on_a_free_port(self):
        self.assertFalse(can_connect(free_port()))
        self.assertLess(free_port(offset=10000), 2**16 - 10000)

    def test_a_port_that_another_test_process_has_is_not_given(self):
        code = "import ports, time; print(ports.free_port(), flush=True); time.sleep(600)"
        support = os.path.dirname(os.path.abspath(ports.__file__))
        process = Process([sys.executable, "-c", code], cwd=support)
        self.addCleanup(process.kill)
        port = int(process.wait_for_output(r"\d+\n").group())
        others = mock.patch.multiple(ports, FIRST=port - 5, LAST=port, _given=set())
        with others, mock.patch.object(ports, "_is_free", return_value=True):
            self.assertNotIn(port, [ports.free_port() for _ in range(3)])
            process.kill()
            wait_until(lambda: ports.free_port() == port, "the port of the process that ended")


class ProcessTests(SimpleTestCase):
    def start(self, code):
        process = Process([sys.executable, "-c", code])
        self.addCleanup(process.kill)
        return process

    def test_output_is_kept_after_the_end(self):
        process = self.start("import sys; print('out'); print('err', file=sys.stderr)")
        self.assertEqual(process.wait(), 0)
        process.kill()
        self.assertEqual(sorted(process.output.split()), ["err", "out"])

    def test_process_that_ends_without_the_output_is_an_error_with_its_output(self):
        process = self.start("print('something else')")
        with self.assertRaisesMessage(AssertionError, "something else"):
            process.wait_for_output("ready")

    def test_kill_ends_the_children_too(self):
        process = self.start(
            "import subprocess, sys; subprocess.Popen([sys.executable, '-c', %r])" % SLEEP
        )
        process.wait_for_output("ready")
        self.assertEqual(process.wait(), 0)
        self.assertTrue(process.group_is_alive())
        process.kill()
        wait_until(lambda: not process.group_is_alive(), "the child to end")


class FoundTests(SimpleTestCase):
    """Each test begins as if none had run before it."""

    def test_what_a_test_leaves_is_named(self):
        before = found.begin()
        self.assertEqual(found.changed(before), "")
        logger = logging.getLogger("channels_tests.found")
        before = found.begin()
        with mock.patch.dict(os.environ, {"CHANNELS_TEST_FOUND": "1"}), self.settings(DEBUG=True):
            logger.setLevel(logging.ERROR)
            left = found.changed(before)
        logger.setLevel(logging.NOTSET)
        for name in ("settings", "environment variables", "logger channels_tests.found"):
            self.assertIn(name, left)
        self.assertNotIn("PATH", left)
        self.assertEqual(found.changed(before), "")

    def test_what_an_earlier_test_logged_suppresses_no_line(self):
        for limit, arguments in ((consume._refused_origins, ()), (advice._late_groups, ("x",))):
            limit.allow(*arguments)
            self.assertIsNone(limit.allow(*arguments))
            found.begin()
            self.assertEqual(limit.allow(*arguments), 0)

    def test_an_earlier_request_leaves_no_script_prefix(self):
        set_script_prefix("/app/")
        found.begin()
        self.assertEqual(get_script_prefix(), "/")


@unittest.skipUnless(os.path.isdir("/proc/self"), "this system has no /proc")
class LeftoverTests(SimpleTestCase):
    def test_process_in_another_session_is_found_and_killed(self):
        mark = uuid.uuid4().hex
        child = subprocess.Popen(
            [sys.executable, "-c", SLEEP],
            env=dict(os.environ, **{RUN: mark}),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline().strip(), b"ready")
        self.assertIn(child.pid, marked_processes(mark))
        self.assertEqual(list(kill_marked(mark)), [child.pid])
        self.assertEqual(child.wait(TIMEOUT), -9)
        self.assertEqual(marked_processes(mark, children=False), {})

    @unittest.skipIf(sys.version_info < (3, 8), "make mutants needs Python 3.8")
    def test_mutants_are_judged_by_every_test_of_their_modules(self):
        if not os.path.exists(os.path.join(SCRIPTS, "mutants.py")):
            self.skipTest("not a checkout")
        command = [sys.executable, "-c", LABELS, SCRIPTS]
        labels = [each.split(".") for each in subprocess.check_output(command).decode().split()]
        folder = os.path.dirname(os.path.abspath(__file__))
        for package, module, *name in labels:
            if name and package == os.path.basename(folder):
                with open(os.path.join(folder, module + ".py")) as file:
                    self.assertRegex(file.read(), r"(?m)^class %s\(" % name[0])
        judges = {each[:-3] for each in os.listdir(folder) if JUDGES.match(each[:-3])}
        self.assertEqual(judges - {each[1] for each in labels}, SLOW_JUDGES)

    @unittest.skipIf(sys.version_info < (3, 8), "make mutants needs Python 3.8")
    def test_mutants_that_are_stopped_leave_no_process(self):
        require("git")
        if not os.path.exists(os.path.join(SCRIPTS, "..", ".git")):
            self.skipTest("not a checkout")
        folder = tempfile.mkdtemp(prefix="channels-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        with open(os.path.join(folder, "endless.py"), "w") as file:
            file.write(ENDLESS)
        mark, variable = uuid.uuid4().hex, "CHANNELS_TEST_STOPPED"
        environ = dict(os.environ, **{variable: mark})
        process = Process([sys.executable, "-c", MUTANTS, SCRIPTS, folder], env=environ)
        self.addCleanup(process.kill)
        self.addCleanup(kill_marked, mark, variable)

        def children():
            return [line for line in marked_processes(mark, variable).values() if "sleep(" in line]

        wait_until(lambda: len(children()) == 2, "two mutants to be tried", timeout=START_TIMEOUT)
        self.assertEqual(process.stop(), 1)
        self.assertEqual(marked_processes(mark, variable, children=False), {})
