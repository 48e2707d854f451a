"""Follow the tutorial: write its files, run its commands, and look at the chat in two browsers.

The files and services of a server are those of the page, with three differences: absolute paths lie below a
temporary folder, nginx listens on free ports, and its certificate is self-signed. The browsers take
`chat.example.com` for this machine. Those that the page's own test starts have the flags of the tests.
Passwords are hashed quickly. What `systemctl` is told is done with the command lines of the units.
"""

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

import django

from .support import pages
from .support.chromium import FLAGS, start_chromium
from .support.ports import can_connect, can_connect_to, free_port
from .support.processes import Process, python_environment
from .support.requirements import find_program, require
from .support.waiting import TIMEOUT, wait_until

PAGES = ["addon/tutorial/%s.txt" % name for name in ("1-site", "2-chat", "3-tests", "4-deploy")]
HOST = "chat.example.com"
PASSWORD = "a long pass phrase"
LINES = "return [...document.querySelectorAll('#lines li')].map(line => line.textContent)"
STATUS = "const status = document.getElementById('status'); return status && status.textContent"
COUNT_LOSSES = "window.losses = 0; bridge.socket.addEventListener('close', () => losses++)"

#: Commands that change the machine itself, or install what the tests' environment has.
LEFT_OUT = re.compile(
    r"mkdir chatsite$|cd chatsite$|(sudo )?python3 -m venv |\. venv/bin/activate$"
    r"|(sudo \S+/)?python -m pip install |sudo apt install |sudo useradd "
    r"|sudo chown |sudo systemctl daemon-reload$"
)

NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    types {{ text/html html; text/javascript js; }}
    include {root}/etc/nginx/sites-enabled/*;
}}
"""


#: For each Python of the site: a password is hashed in a moment instead of a second.
QUICK_PASSWORDS = """
from django.contrib.auth.hashers import PBKDF2PasswordHasher

PBKDF2PasswordHasher.iterations = 1000
"""


class Machine:
    """What the reader has: a folder for the site, and a server, whose files lie below `root`."""

    def __init__(self):
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="tut-"))
        self.root = os.path.join(self.folder, "root")
        self.home = self.cwd = os.path.join(self.folder, "chatsite")
        os.makedirs(self.home)
        self.start_up = os.path.join(self.folder, "start-up")
        os.makedirs(self.start_up)
        with open(os.path.join(self.start_up, "sitecustomize.py"), "w") as out:
            out.write(QUICK_PASSWORDS)
        self.ports = {"80": free_port(), "443": free_port(), "8000": free_port()}
        self.services = {}
        self.run_by = {
            r"python manage\.py runserver$": self.runserver,
            r"rsync ": self.rsync,
            r"cd (/\S+)$": self.change_folder,
            r"sudo install .* (/\S+)$": self.make_folder,
            r"sudo certbot ": self.make_certificate,
            r"sudo nginx -t$": self.test_nginx,
            r"sudo systemctl (enable --now|reload|restart) (.*)$": self.systemctl,
        }

    def environment(self):
        env = python_environment()
        env.pop("DJANGO_SETTINGS_MODULE", None)
        path = [path for path in env["PYTHONPATH"].split(os.pathsep) if path != self.home]
        env["PYTHONPATH"] = os.pathsep.join([self.start_up] + path)
        env["SE_CHROMEDRIVER"] = require("chromedriver")
        return dict(env, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")

    def on_server(self, text):
        """Return the text with the server's absolute paths and ports as they are here."""
        python = shlex.quote(sys.executable)
        text = text.replace("/srv/chatsite/venv/bin/python", python)
        text = re.sub(r"(?<![\w.])/(srv|run|etc)/", lambda found: self.root + found.group(), text)
        return re.sub(r"listen (80|443)\b", self._listen, text)

    def _listen(self, found):
        return "listen 127.0.0.1:%d" % self.ports[found.group(1)]

    def write(self, path, text):
        """Write a file of the page: a relative path is the site's, on the reader's computer."""
        flags = "options.binary_location = %r\n" % require("chromium")
        flags += "".join("options.add_argument(%r)\n" % flag for flag in FLAGS)
        text = re.sub(
            r"^( *)options\.add_argument\(.*\n",
            lambda found: textwrap.indent(flags, found.group(1)),
            text,
            flags=re.M,
        )
        target = self.root + path if path.startswith("/") else os.path.join(self.home, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        runserver = self.services.get("runserver")
        watched = runserver and target.endswith(".py") and os.path.exists(target)
        start = len(runserver.output) if watched else 0
        with open(target + ".new", "w", encoding="utf-8") as out:
            out.write(self.on_server(text) if path.startswith("/") else text)
        os.replace(target + ".new", target)
        if watched:  # Django doesn't notice what changes while it starts again
            runserver.wait_for_output("Quit the server", start, timeout=4 * TIMEOUT)

    def run(self, command):
        """Do what a command of the page does. Return what it prints; raise AssertionError if it fails."""
        if LEFT_OUT.match(command):
            return None
        for pattern, method in self.run_by.items():
            found = re.match(pattern, command)
            if found:
                return method(*found.groups())
        command = re.sub(r"^sudo (-u chat )?", "", self.on_server(command))
        command = re.sub(r"^(venv/bin/)?python ", shlex.quote(sys.executable) + " ", command)
        command = re.sub(r"^django-admin ", shlex.quote(sys.executable) + " -m django ", command)
        return self.finish(["sh", "-c", command])

    def finish(self, command):
        done = subprocess.run(
            command,
            cwd=self.cwd,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20 * TIMEOUT,
        )
        printed = done.stdout.decode("utf-8", "replace")
        if done.returncode:
            raise AssertionError("%s\nended with %d:\n%s" % (command, done.returncode, printed))
        return printed

    def start(self, name, command):
        self.services[name] = Process(command, self.cwd, self.environment())

    # Commands that are done in another way than by running them.

    def runserver(self):
        port = self.ports["8000"]
        self.start("runserver", [sys.executable, "manage.py", "runserver", str(port)])
        self.wait_for_port("runserver", port)

    def stop(self, name, number=signal.SIGTERM):
        service = self.services.pop(name)
        service.stop(number, timeout=4 * TIMEOUT)
        service.kill()  # which closes its log

    def wait_for_port(self, name, port):
        service = self.services[name]

        def listening():
            if not service.alive:
                raise AssertionError(service.describe("ended before it listened"))
            return can_connect(port)

        wait_until(listening, "%s to listen" % name, 4 * TIMEOUT)

    def rsync(self):
        """Copy the site, as both forms of the page's command do it; channels is installed here."""
        ignore = shutil.ignore_patterns("venv", "*.sqlite3*")
        target = self.root + "/srv/chatsite"
        shutil.copytree(self.home, target, ignore=ignore, dirs_exist_ok=True)

    def change_folder(self, path):
        self.cwd = self.root + path

    def make_folder(self, path):
        os.makedirs(self.root + path)

    def make_certificate(self):
        folder = self.root + "/etc/letsencrypt/live/" + HOST
        os.makedirs(folder)
        self.finish(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]
            + ["/CN=" + HOST, "-addext", "subjectAltName=DNS:" + HOST]
            + ["-keyout", folder + "/privkey.pem", "-out", folder + "/fullchain.pem"]
        )

    def nginx(self):
        path = os.path.join(self.folder, "nginx.conf")
        with open(path, "w", encoding="utf-8") as out:
            # Root's nginx would run its workers as another user, which can't open a test's folder.
            user = "user root;" if os.getuid() == 0 else ""
            out.write(NGINX.format(folder=self.folder, root=self.root, user=user))
        return [find_program("nginx", "/usr/sbin/nginx"), "-p", self.folder, "-c", path]

    def test_nginx(self):
        printed = self.finish(self.nginx() + ["-t"])
        return printed.replace(os.path.join(self.folder, "nginx.conf"), "/etc/nginx/nginx.conf")

    def unit(self, name):
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str
        with open(self.root + "/etc/systemd/system/%s.service" % name) as unit:
            parser.read_string(unit.read().replace("\\\n", " "))
        return parser["Service"]

    def systemctl(self, verb, names):
        for name in names.split():
            if name == "nginx":  # the machine's own runs already, this one doesn't
                self.start(name, self.nginx())
                for port in ("80", "443"):  # it listens to one before the other
                    self.wait_for_port(name, self.ports[port])
            elif verb == "reload":
                pid = self.services[name].pid
                self.finish(
                    ["sh", "-c", self.unit(name)["ExecReload"].replace("$MAINPID", str(pid))]
                )
            else:
                if verb == "restart":
                    self.stop(name)
                if "RuntimeDirectory" in self.unit(name):
                    folder = self.root + "/run/" + self.unit(name)["RuntimeDirectory"]
                    os.makedirs(folder, exist_ok=True)
                self.start(name, shlex.split(self.unit(name)["ExecStart"]))

    def tell(self):
        """Print what the services said. The test runner shows it if the test fails."""
        for name, service in sorted(self.services.items()):
            print("--- %s ---\n%s" % (name, service.output))

    def close(self):
        for service in self.services.values():
            service.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Person:
    """Somebody with a browser, which knows the machine by its domain."""

    def __init__(self, test, name, machine):
        self.name = name
        profile = tempfile.mkdtemp(prefix="chromium-")
        test.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        rules = "MAP %s:443 127.0.0.1:%d, MAP %s:80 127.0.0.1:%d" % (
            HOST,
            machine.ports["443"],
            HOST,
            machine.ports["80"],
        )
        flags = ["--host-resolver-rules=" + rules, "--ignore-certificate-errors"]
        self.driver = start_chromium(profile, *flags)
        test.addCleanup(self.driver.quit)

    def find(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def ask(self, script):
        return self.driver.execute_script(script)

    def wait(self, script, expected):
        try:
            wait_until(lambda: self.ask(script) == expected, "the page", 4 * TIMEOUT)
        except AssertionError:
            raise AssertionError(
                "%s's page: %s\nexpected %r, has %r\n%s\n%s"
                % (
                    self.name,
                    script,
                    expected,
                    self.ask(script),
                    self.ask("return document.body.textContent"),
                    self.driver.get_log("browser"),
                )
            ) from None

    def fill_in(self, **fields):
        from selenium.webdriver.common.keys import Keys

        for name, value in fields.items():
            field = self.find("[name=%s]" % name)
            field.send_keys(value)
        field.send_keys(Keys.ENTER)

    def sign_up(self, url):
        self.driver.get(url)
        self.wait("return location.pathname", "/login/")
        self.find("a").click()
        self.wait("return location.pathname", "/signup/")
        self.fill_in(username=self.name, password1=PASSWORD, password2=PASSWORD)
        self.wait("return location.pathname", "/")
        self.wait("return document.querySelector('h1').textContent", "Hello, " + self.name)

    def log_in(self):
        self.fill_in(username=self.name, password=PASSWORD)

    def say(self, text):
        from selenium.webdriver.common.keys import Keys

        self.find("#text").send_keys(text + Keys.ENTER)


class TutorialTests(unittest.TestCase):
    def setUp(self):
        if not pages.page_exists(PAGES[0]):
            raise unittest.SkipTest("the tutorial is the add-on's")
        if django.VERSION < (5, 2):
            raise unittest.SkipTest("the tutorial is for Django 5.2 and later")
        require("selenium", "uvicorn", "websockets", "daphne", "openssl", "chromedriver")
        require("chromium")
        if find_program("nginx", "/usr/sbin/nginx") is None:
            require("nginx")
        self.machine = Machine()
        self.addCleanup(self.machine.close)
        self.addCleanup(self.machine.tell)

    def test_the_tutorial_from_the_first_command_to_the_last(self):
        checks = []
        for page in PAGES:
            for kind, text in pages.blocks(page):
                if kind == "check":
                    checks.append(text)
                    getattr(self, "check_" + text.replace(" ", "_"))()
                elif kind == "console":
                    self.follow(page, text)
                elif pages.path_of(text):
                    self.machine.write(pages.path_of(text), text)
        self.assertEqual(len(checks), 6)

    def follow(self, page, text):
        for command, told in pages.commands(text):
            printed = self.machine.run(command)
            if told and not pages.printed_as_told(told, printed or ""):
                self.fail("%s: $ %s\nsays:\n%s\nprinted:\n%s" % (page, command, told, printed))

    def both(self, script, expected):
        for person in (self.ada, self.ben):
            person.wait(script, expected)

    def check_the_site_with_users(self):
        self.ada = Person(self, "ada", self.machine)
        self.url = "http://127.0.0.1:%d/" % self.machine.ports["8000"]
        self.ada.sign_up(self.url)
        self.ada.find("header button").click()
        self.ada.wait("return location.pathname", "/login/")

    def check_two_people_chat(self):
        self.ada.driver.get(self.url)
        self.ada.log_in()
        self.ada.wait(STATUS, "connected")
        self.ben = Person(self, "ben", self.machine)
        self.ben.sign_up(self.url)
        self.both(STATUS, "connected")
        self.chat()
        self.machine.stop("runserver", signal.SIGINT)

    def chat(self):
        self.ada.say("Hello, Ben")
        self.both(LINES, ["ada: Hello, Ben"])
        self.ben.say("<b>Hello</b>")
        self.both(LINES, ["ada: Hello, Ben", "ben: <b>Hello</b>"])

    def check_the_server_and_the_workers_run(self):
        path = self.machine.root + "/run/chatsite/asgi.sock"
        wait_until(lambda: can_connect_to(path), "the server's socket", 4 * TIMEOUT)
        for service in self.machine.services.values():
            self.assertTrue(service.alive, service.describe("should run"))

    def check_people_chat_over_TLS(self):
        for person in (self.ada, self.ben):
            person.sign_up("http://%s/" % HOST)
            self.assertEqual(person.driver.current_url, "https://%s/" % HOST)
        self.both(STATUS, "connected")
        self.chat()

    def check_a_new_version_closes_no_socket(self):
        self.both(COUNT_LOSSES, None)
        said = ["ada: Hello, Ben", "ben: <b>Hello</b>"]

        def is_new():
            self.ada.say(":)")
            said.append(None)
            self.ada.wait(LINES + ".length", len(said))
            return self.ada.ask(LINES)[-1] == "ada: 🙂"

        wait_until(is_new, "the new code", 4 * TIMEOUT)
        self.ben.wait(LINES, self.ada.ask(LINES))
        self.both("return losses", 0)

    def check_a_restarted_server_is_found_again(self):
        self.both("return losses > 0", True)
        self.both(STATUS, "connected")
        before = self.ada.ask(LINES)
        self.ben.say("back")
        self.both(LINES, before + ["ben: back"])
