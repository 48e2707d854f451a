"""Run the recipes of docs/howto/channels: their files make one project, whose tests pass."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

import django
from django.core.management import load_command_class

from .support import pages
from .support.chromium import start_chromium
from .support.ports import can_connect, free_port
from .support.requirements import find, require
from .support.sites import PACKAGE, Project
from .support.waiting import TIMEOUT, wait_until

FOLDER = "howto/channels"

SETTINGS = """
INSTALLED_APPS += [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.staticfiles", "mysite",
] + %r
MIDDLEWARE = MIDDLEWARE_CLASSES = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
# Threads of a test share a file, and can't share a database in memory.
DATABASES["default"]["TEST"] = {"NAME": os.path.join(BASE_DIR, "test.sqlite3")}
"""

#: More windows of more users at once than a person opens, each in its own thread.
PRESENCE_THREADS = """
import json
import threading

from {channels}.test import TransactionChannelTestCase, WSClient
from django.contrib.auth import get_user_model
from django.db import connection

from . import consumers


class PresenceThreadTests(TransactionChannelTestCase):
    def run_together(self, target, *calls):
        start, errors = threading.Barrier(len(calls)), []

        def run(args):
            start.wait()
            try:
                target(*args)
            except Exception as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=[args]) for args in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])

    def lists(self, client):
        found = {}
        while True:
            content = client.receive()
            if content is None:
                return [found[version] for version in sorted(found)]
            self.assertNotIn(content["version"], found)
            found[content["version"]] = content["online"]

    def test_each_list_differs_from_the_one_before_by_one_user_at_most(self):
        names = ["user %d" % number for number in range(6)]
        users = [get_user_model().objects.create_user(name) for name in names]
        watcher = WSClient()
        watcher.join_group("online")
        windows = [("window!%d-%d" % (user.pk, number), user.pk) for user in users for number in (1, 2)]
        self.run_together(consumers.arrive, *windows)
        came = self.lists(watcher)
        self.assertEqual(len(came), 12)
        for before, after in zip([[]] + came, came):
            self.assertIn(len(set(after) - set(before)), (0, 1))
            self.assertLessEqual(set(before), set(after))
        self.assertEqual(came[-1], names)
        self.run_together(consumers.leave, *[window[:1] for window in windows])
        left = self.lists(watcher)
        self.assertEqual(len(left), 12)
        for before, after in zip([names] + left, left):
            self.assertIn(len(set(before) - set(after)), (0, 1))
            self.assertLessEqual(set(after), set(before))
        self.assertEqual(left[-1], [])
"""


def names():
    """Return the names of the recipes' pages, without the table of contents."""
    folder = os.path.join(pages.DOCS, FOLDER)
    found = [FOLDER + "/" + name for name in sorted(os.listdir(folder)) if name.endswith(".txt")]
    return [name for name in found if not name.endswith("/index.txt")]


def files_of(name):
    """Return the files of a page, by path, with the package's name and for this Django."""
    found = {}
    for _kind, text in pages.blocks(name):
        if pages.path_of(text):
            text = text.replace("django.channels", PACKAGE)
            if django.VERSION < (1, 10):  # as the pages of Channels say
                text = re.sub(r"\bis_authenticated\b", "is_authenticated()", text)
            found[pages.path_of(text)] = text
    return found


def recipe_files():
    """Return the files of all recipes and of the project in the index, by path."""
    files = files_of(FOLDER + "/index.txt")
    for name in names():
        recipe = files_of(name)
        (app,) = {path.split("/")[0] for path in recipe}
        files.update(recipe, **{app + "/__init__.py": ""})
    return files


def recipe_apps(files):
    """Return the names of the recipes' apps that run on this Django."""
    apps = [path.split("/")[0] for path in files if path.endswith("/tests.py")]
    # Django 1.8 doesn't tell when a transaction commits.
    return [app for app in apps if app != "orders" or django.VERSION >= (1, 9)]


class RecipeTests(unittest.TestCase):
    def test_the_tests_of_all_recipes_pass_in_one_project(self):
        require("daphne")
        files = recipe_files()
        apps = recipe_apps(files)
        self.assertEqual(len([path for path in files if path.endswith("/tests.py")]), len(names()))
        files["presence/test_threads.py"] = PRESENCE_THREADS
        with Project(files, SETTINGS % apps) as project:
            process = project.manage("test", "-v", "2", *apps)
            self.addCleanup(process.kill)
            status = process.wait(20 * TIMEOUT)
            self.assertEqual(status, 0, process.output)
            for app in apps:  # a recipe whose tests aren't found would pass, too
                self.assertRegex(process.output, r"\(%s\.tests" % app)

    def test_the_index_names_each_recipe(self):
        index = files_of(FOLDER + "/index.txt")
        settings = "".join(text for _, text in pages.blocks(FOLDER + "/index.txt"))
        for name in names():
            app = list(files_of(name))[0].split("/")[0]
            routing = '"%s.routing.channel_routing"' % app
            self.assertIn(routing, index["mysite/routing.py"], name)
            self.assertIn('r"^%s/page/$"' % app, index["mysite/urls.py"], name)
            self.assertIn('    "%s",\n' % app, settings, name)

    def test_scripts_are_javascript(self):
        require("node")
        for name in names() + ["topics/channels/javascript.txt"]:
            for kind, text in pages.blocks(name):
                if kind == "javascript":
                    with tempfile.NamedTemporaryFile("w", suffix=".js", encoding="utf-8") as script:
                        script.write(text)
                        script.flush()
                        done = subprocess.run(
                            [find("node"), "--check", script.name],
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT,
                        )
                    self.assertEqual(done.returncode, 0, (name, done.stdout.decode()))

    def test_commands_and_their_options_exist(self):
        seen = set()
        for name in names():
            for kind, text in pages.blocks(name):
                for command, _ in pages.commands(text) if kind == "console" else []:
                    words = shlex.split(command)
                    self.assertEqual(words[:2], ["python", "manage.py"], name)
                    command = words[2]
                    parser = load_command_class(PACKAGE, command).create_parser(
                        "manage.py", command
                    )
                    parser.parse_args(words[3:])
                    seen.add(command)
        self.assertEqual(seen, {"runworker", "deadletters"})


#: Clicks each time, so that the bucket becomes empty however slow the machine is.
TOO_FAST = """
document.getElementById("say").click();
const text = document.getElementById("lines").textContent;
return text.startsWith("hello".repeat(5)) && text.includes("Not so fast.");
"""
#: Lets the time-out of the page for jobs pass at once.
NO_NEWS = """
const real = window.setTimeout;
window.setTimeout = callback => callback();
expectNews();
window.setTimeout = real;
return [state.textContent, start.textContent, start.disabled];
"""
TEXT = "return document.getElementById('%s').textContent"


class RecipePageTests(unittest.TestCase):
    """The pages of the recipes in a browser, in one site with runserver."""

    def setUp(self):
        require("daphne", "selenium")
        require("chromium", "chromedriver")
        files = recipe_files()
        # The service doesn't exist: the consumer's error shows at once, and no name is looked up.
        files["weather/consumers.py"] = files["weather/consumers.py"].replace(
            "https://weather.example/", "http://127.0.0.1:%d/" % free_port()
        )
        project = Project(files, SETTINGS % recipe_apps(files))
        self.addCleanup(project.close)
        for arguments in (["makemigrations"] + recipe_apps(files), ["migrate"]):
            process = project.manage(*arguments)
            self.addCleanup(process.kill)
            self.assertEqual(process.wait(10 * TIMEOUT), 0, process.output)
        create = (
            "import django; django.setup(); from django.contrib.auth.models import User; "
            "User.objects.create_user('ada', password='a long pass phrase')"
        )
        process = project.python("-c", create)
        self.addCleanup(process.kill)
        self.assertEqual(process.wait(10 * TIMEOUT), 0, process.output)
        port = free_port()
        self.server = project.manage("runserver", "--noreload", str(port))
        self.addCleanup(self.server.kill)
        self.server.wait_for_output("Quit the server", timeout=4 * TIMEOUT)
        wait_until(lambda: can_connect(port), "the server to listen", 4 * TIMEOUT)
        self.url = "http://127.0.0.1:%d" % port
        profile = tempfile.mkdtemp(prefix="chromium-")
        self.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        self.driver = start_chromium(profile)
        self.addCleanup(self.driver.quit)

    def find(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def open(self, app):
        self.driver.get("%s/%s/page/" % (self.url, app))

    def wait(self, script, expected):
        def holds():
            return self.driver.execute_script(script) == expected

        try:
            wait_until(holds, "the page", 2 * TIMEOUT)
        except AssertionError:
            log, has = self.driver.get_log("browser"), self.driver.execute_script(script)
            self.fail("%s\n%r, not %r\n%s\n%s" % (script, has, expected, log, self.server.output))

    def type(self, selector, text):
        from selenium.webdriver.common.keys import Keys

        self.find(selector).send_keys(text + Keys.ENTER)

    def wait_until_open(self):
        """Wait until the page's socket is open, for pages that show nothing before a click."""
        self.wait("return bridge.socket.readyState", 1)

    def test_each_page_does_what_its_recipe_says(self):
        self.open("presence")
        self.wait(TEXT % "state", "Log in to see who is online.")
        self.wait("return bridge.socket.readyState", 3)  # it doesn't connect again
        self.open("gate")
        self.wait("return location.pathname + location.search", "/accounts/login/?next=/gate/page/")
        self.find("[name=username]").send_keys("ada")
        self.type("[name=password]", "a long pass phrase")
        self.wait(
            "const said = document.getElementById('said'); return said && said.textContent",
            "You may not see this page.",
        )
        self.open("presence")
        self.wait(TEXT % "online", "ada")
        self.open("tokens")
        self.wait(TEXT % "said", '{"hello": "ada"}')
        self.open("feed")
        self.type("#text", "first")
        self.wait(TEXT % "feed", "first")
        self.open("feed")
        self.wait(TEXT % "feed", "first")
        self.open("jobs")
        self.find("#start").click()
        self.wait(TEXT % "state", "finished")
        self.wait("return document.getElementById('bar').value", 100)
        said = self.driver.execute_script(NO_NEWS)
        self.assertEqual(
            said, ["No news for 30 seconds: the job may have been lost.", "Start again", False]
        )
        self.find("#start").click()
        self.wait(TEXT % "state", "finished")
        self.open("weather")
        self.type("#place", "Oslo")
        self.wait(TEXT % "answer", "Oslo: unavailable")
        self.open("calm")
        self.wait("return socket.readyState", 1)
        self.wait(TOO_FAST, True)
        self.open("events")
        self.wait("return source.readyState", 1)
        self.find("button").click()
        self.wait(TEXT % "news", "hello")
        self.open("notify")
        self.wait_until_open()
        self.find("button").click()
        self.wait(TEXT % "messages", "hello")
        if django.VERSION >= (1, 9):
            self.open("orders")
            self.wait_until_open()
            self.find("button").click()
            self.wait(TEXT % "orders", "Order 1: 2.50")
