"""One of the projects, copied and served for a test, and a browser's window on it."""

import os
import shutil
import sys
import tempfile

import django

from channels_tests.support.chromium import start_chromium
from channels_tests.support.ports import can_connect, free_port
from channels_tests.support.processes import Process, python_environment
from channels_tests.support.waiting import START_TIMEOUT, wait_until

from .versions import copy_project

HERE = os.path.dirname(os.path.abspath(__file__))


class Site:
    """A copy of a project, with its own database and `environ`; `close()` ends what it has started."""

    def __init__(self, name, **environ):
        self.folder = os.path.join(os.path.realpath(tempfile.mkdtemp(prefix="channels1-")), name)
        copy_project(os.path.join(HERE, name), self.folder, django.VERSION[:2])
        self.environ = dict(python_environment(), PYTHONDONTWRITEBYTECODE="1", **environ)
        self.environ.pop("DJANGO_SETTINGS_MODULE", None)
        self.port = free_port()
        self.processes = []

    def manage(self, *arguments):
        """Run a command of manage.py to its end, and return its output; AssertionError if it fails."""
        command = [sys.executable, "manage.py", *arguments]
        with Process(command, self.folder, self.environ) as process:
            if process.wait(START_TIMEOUT):
                raise AssertionError(process.describe("failed"))
            return process.output

    def prepare(self, code):
        """Make the tables, then run `code` in the project."""
        migrate = (
            "from django.core.management import call_command; call_command('migrate', verbosity=0)"
        )
        self.manage("shell", "-c", migrate + "\n" + code)

    def start(self, *command):
        """Start `python` with these arguments, in the project."""
        command = [sys.executable, "-u", *command]
        self.processes.append(Process(command, self.folder, self.environ))

    def serve(self, *command):
        """Start a server, and wait until it listens on the port of the site."""
        self.start(*command)
        process = self.processes[-1]

        def listens():
            if not process.alive:
                raise AssertionError(process.describe("ended"))
            return can_connect(self.port)

        wait_until(listens, "the server", START_TIMEOUT)

    def output(self):
        return "\n".join(process.describe("output") for process in self.processes)

    def close(self):
        for process in self.processes:
            process.kill()
        shutil.rmtree(os.path.dirname(self.folder), ignore_errors=True)


class Window:
    """A Chromium with a new profile, on one site after the other."""

    def __init__(self):
        self.site = None
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.driver = start_chromium(self.profile)

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def enter_site(self, site):
        self.leave()
        self.driver.delete_all_cookies()
        self.site = site

    def leave(self):
        """Close the page, and with it its socket: the browser may keep a page that one only left."""
        page = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        new = self.driver.current_window_handle
        self.driver.switch_to.window(page)
        self.driver.close()
        self.driver.switch_to.window(new)

    def open(self, path):
        self.driver.get("http://127.0.0.1:%d%s" % (self.site.port, path))

    def log_in(self, path, username, button):
        """Log in with the form at `path`; the password is the username."""
        self.open(path)
        for name in ("username", "password"):
            self.fill("[name=%s]" % name, username)
        self.click(button)

    def find(self, selector):
        """Return the first element that matches, when there is one: a page may still load."""
        from selenium.webdriver.common.by import By

        return wait_until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), selector)[0]

    def fill(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector):
        self.find(selector).click()

    def enter(self, selector, text):
        """Write into a field, and press Enter."""
        self.fill(selector, text + "\n")

    def texts(self, selector):
        """Return the texts of what matches now."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)",
            selector,
        )

    def wait(self, selector, *expected):
        """Wait until the texts of what matches are these; the error says which they are, and why."""
        try:
            wait_until(lambda: self.texts(selector) == list(expected), selector)
        except AssertionError:
            raise AssertionError(
                "%s: expected %r, and the page has %r\n%s\n%s"
                % (
                    selector,
                    list(expected),
                    self.texts(selector),
                    self.driver.get_log("browser"),
                    self.site.output(),
                )
            ) from None
