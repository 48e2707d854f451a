"""The chat of examples/chat without a browser: its processes, its sockets, and what a crash leaves behind."""

import contextlib
import http.cookiejar
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid

from .support.ports import free_port
from .support.processes import Process
from .support.requirements import require
from .support.sites import PACKAGE, SiteServer
from .support.waiting import TIMEOUT, wait_until

CHAT = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "examples", "chat"
)

#: A first start migrates: seconds.
START_TIMEOUT = 3 * TIMEOUT


def require_chat():
    """Skip where the chat is missing: it is written for the add-on and lies next to its tests."""
    if PACKAGE != "channels" or not os.path.exists(os.path.join(CHAT, "demo.py")):
        raise unittest.SkipTest("examples/chat runs on the add-on, in the repository")
    require("daphne")


class ChatSite:
    """The chat as `make demo` starts it, on its own port and database. A context manager."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="chat-")
        self.database = os.path.join(self.directory, "db.sqlite3")
        self.port = free_port()
        self.server = None
        self.windows = []

    def environment(self, **extra):
        env = {
            key: value
            for key, value in os.environ.items()
            if key not in ("HOST", "DEBUG", "CHANNEL_REDIS_URL", "DJANGO_SETTINGS_MODULE")
        }
        env.update(CHAT_DATABASE=self.database, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
        env.update(extra)
        return env

    def start(self):
        command = [sys.executable, "demo.py"]
        self.server = SiteServer(command, CHAT, self.environment(PORT=str(self.port)), self.port)
        self.server.wait_until_listening(START_TIMEOUT)

    def stop(self, signum=signal.SIGTERM):
        self.server.stop(signum)
        self.server.kill()

    def restart(self, signum=signal.SIGTERM):
        self.stop(signum)
        self.start()

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def query(self, sql):
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self):
        for window in self.windows:
            window.close()
        if self.server is not None:
            self.server.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, *exc_info):
        self.close()


class Visitor:
    """A visitor with a session and a nickname. Opens windows on rooms."""

    def __init__(self, site, nickname=None):
        self.site = site
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )
        if nickname:
            self.person = self.rename(nickname)["person"]

    def get(self, path="/"):
        with self.opener.open(self.site.url(path), timeout=TIMEOUT) as response:
            return response.read().decode()

    def rename(self, nickname):
        token = re.search("csrfmiddlewaretoken['\"] value=['\"](\\w+)", self.get()).group(1)
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, "nickname": nickname})
        url = self.site.url("/nickname/")
        with self.opener.open(url, data.encode(), timeout=TIMEOUT) as response:
            return json.loads(response.read().decode())

    def enter(self, room="lobby", after=""):
        window = OpenWindow(self, room, after)
        self.site.windows.append(window)
        return window


class OpenWindow:
    """A socket on a room, which sorts what it gets."""

    def __init__(self, visitor, room, after):
        import websocket

        self.site = visitor.site
        self.lines = []  # texts
        self.people = None  # nicknames
        self.pages = []  # of history: lists of texts
        self.more = None
        self.typing = None
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{visitor.site.port}/chat/{urllib.parse.quote(room)}/{after}",
            cookie="; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies),
            origin=visitor.site.url("").rstrip("/"),
            timeout=TIMEOUT,
            http_no_proxy=["*"],
        )

    def read(self):
        text = self.socket.recv()
        if not text:
            raise AssertionError(
                f"the server closed the socket; its output:\n{self.site.server.output}"
            )
        content = json.loads(text)
        texts = [line["text"] for line in content.get("lines", ())]
        if content.get("history"):
            self.pages.append(texts)
            self.more = content["more"]
        self.lines += texts
        if "people" in content:
            self.people = [nickname for _, nickname in content["people"]]
        self.typing = content.get("typing", self.typing)
        return content

    def read_until(self, condition):
        """Reads until condition(self) is true; a socket that stays silent raises."""
        while not condition(self):
            self.read()
        return self

    def await_people(self, *nicknames):
        return self.read_until(lambda window: window.people == list(nicknames))

    def await_line(self, text):
        return self.read_until(lambda window: text in window.lines)

    def send(self, **content):
        self.socket.send(json.dumps(content))

    def say(self, text, token=None):
        self.send(text=text, token=token or uuid.uuid4().hex)

    def close_code(self):
        """Reads up to the end of the socket; the code that the server closed it with."""
        import websocket

        while True:
            opcode, data = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")

    def close(self):
        self.socket.close()


class ChatTests(unittest.TestCase):
    """One server for all tests; each test has its own room."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        require_chat()
        require("websocket")
        cls.site = ChatSite()
        cls.site.start()

    @classmethod
    def tearDownClass(cls):
        cls.site.close()
        super().tearDownClass()

    def setUp(self):
        self.room = self._testMethodName[5:55].strip("_")

    def enter(self, visitor, after=""):
        window = visitor.enter(self.room, after)
        self.addCleanup(window.close)  # before the next test counts people
        return window

    def visitor(self, nickname=None):
        return Visitor(self.site, nickname)

    def test_a_line_reaches_everybody_and_stays(self):
        ada = self.enter(self.visitor("Ada")).await_people("Ada")
        ben = self.enter(self.visitor("Ben")).await_people("Ada", "Ben")
        ada.say(" Hello, Ben ✓ ")
        ada.await_line("Hello, Ben ✓")
        ben.await_line("Hello, Ben ✓")
        cleo = self.enter(self.visitor("Cleo")).await_people("Ada", "Ben", "Cleo")
        self.assertEqual(cleo.pages, [["Hello, Ben ✓"]])

    def test_rooms_are_apart(self):
        here = self.enter(self.visitor("Ada")).await_people("Ada")
        there = self.visitor("Ben").enter("elsewhere").await_people("Ben")
        there.say("not for you")
        there.await_line("not for you")
        here.say("mine")
        here.await_line("mine")
        self.assertEqual(here.lines, ["mine"])

    def test_several_windows_of_one_person_count_once(self):
        ada, ben = self.visitor("Ada"), self.visitor("Ben")
        watching = self.enter(ben).await_people("Ben")
        first = self.enter(ada)
        watching.await_people("Ben", "Ada")
        second = self.enter(ada).await_people("Ben", "Ada")
        first.close()
        watching.say("one window of Ada's is left")
        second.await_line("one window of Ada's is left").say("so it is")
        watching.await_line("so it is")
        self.assertEqual(watching.people, ["Ben", "Ada"])
        second.close()
        watching.await_people("Ben")

    def test_a_new_nickname_is_seen_in_every_room(self):
        ada = self.visitor("Ada")
        here = self.enter(ada).await_people("Ada")
        there = ada.enter("other-room").await_people("Ada")
        ada.rename("  Countess \t of Lovelace ")
        here.await_people("Countess of Lovelace")
        there.await_people("Countess of Lovelace")
        here.say("me")
        line = here.read_until(lambda window: "me" in window.lines)
        self.assertEqual(line.people, ["Countess of Lovelace"])

    def test_a_line_sent_twice_is_kept_once(self):
        ada = self.enter(self.visitor("Ada"))
        token = uuid.uuid4().hex
        ada.say("once", token)
        ada.say("once", token)
        ada.say("end")
        ada.await_line("end")
        again = self.enter(self.visitor("Ben")).read_until(lambda window: window.pages)
        self.assertEqual(again.pages, [["once", "end"]])

    def test_joining_shows_fifty_lines_and_coming_back_all_that_was_missed(self):
        ada = self.enter(self.visitor("Ada"))
        ada.say("first")
        seen = ada.await_line("first") and self.newest_id()
        for number in range(120):
            ada.say(f"line {number}")
        ada.await_line("line 119")

        fresh = self.enter(self.visitor("Ben")).read_until(lambda window: window.pages)
        self.assertEqual(fresh.pages, [[f"line {number}" for number in range(70, 120)]])
        self.assertFalse(fresh.more)

        back = self.enter(self.visitor("Cleo"), after=seen)
        while back.more is not False:
            content = back.read()
            if content.get("history") and content["more"]:
                back.send(after=content["lines"][-1]["id"])
        self.assertEqual(sum(back.pages, []), [f"line {number}" for number in range(120)])
        self.assertEqual([len(page) for page in back.pages], [50, 50, 20])

    def newest_id(self):
        return self.site.query("SELECT max(id) FROM chat_line")[0][0]

    def test_typing_is_told(self):
        ada, ben = self.visitor("Ada"), self.visitor("Ben")
        watching = self.enter(ben)
        self.enter(ada).await_people("Ben", "Ada").send(typing=True)
        watching.read_until(lambda window: window.typing == ada.person)

    def test_without_a_nickname_the_page_is_told_to_ask_for_one(self):
        self.assertEqual(self.enter(self.visitor()).close_code(), 4401)

    def test_an_empty_nickname_is_refused(self):
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.visitor("   ")
        self.assertEqual(caught.exception.code, 400)
        self.assertIn("at least one letter", caught.exception.read().decode())
        caught.exception.close()

    def test_nonsense_ends_only_the_window_that_sent_it(self):
        ada = self.enter(self.visitor("Ada"))
        for nonsense in (
            "[",
            "[]",
            "7",
            "{}",
            '{"text": 1}',
            '{"after": "x"}',
            '{"text": "no token"}',
        ):
            with self.subTest(nonsense):
                ben = self.enter(self.visitor("Ben"))
                ben.socket.send(nonsense)
                self.assertEqual(ben.close_code(), 1011 + 3000)  # as Daphne lets the gateway say it
        ada.say("still here")
        ada.await_line("still here").await_people("Ada")

    def test_a_room_may_have_any_letters_but_not_any_path(self):
        import websocket

        self.room = "кухня-台所"
        ada = self.enter(self.visitor("Ada"))
        ada.say("здесь")
        ada.await_line("здесь")
        self.assertIn("кухня-台所", self.visitor().get())
        for path in ("a b", "x" * 51, "room/7x"):
            with self.subTest(path), self.assertRaises(websocket.WebSocketBadStatusException):
                self.visitor("Ben").enter(path)

    def test_the_list_of_rooms_counts_people_and_escapes(self):
        ada = self.visitor("<b>Ada</b>")
        self.enter(ada).await_people("<b>Ada</b>").say("<script>alert(1)</script>")
        window = self.enter(ada).await_line("<script>alert(1)</script>")
        page = self.visitor().get()
        self.assertIn("1 here", self.entry(page))
        self.assertIn("&lt;script&gt;alert(1)", page)
        self.assertNotIn("<script>alert", page)
        self.assertIn("<b>&lt;b&gt;Ada&lt;/b&gt;</b>", page)
        window.close()

    def entry(self, page):
        """What the list of rooms says of this test's room, as text."""
        entries = re.findall("<a href=.*?</a>", page, re.DOTALL)
        (entry,) = (entry for entry in entries if f"/chat/{self.room}/" in entry)
        return re.sub("<.*?>", " ", entry)

    def test_a_rooms_name_is_made_fit_for_its_address(self):
        url = self.site.url("/?room=Garden+Party!")
        with self.visitor().opener.open(url, timeout=TIMEOUT) as response:
            self.assertEqual(response.geturl(), self.site.url("/chat/garden-party/"))


class CrashTests(unittest.TestCase):
    """What stays, and what must not, when the server goes away."""

    def setUp(self):
        require_chat()
        require("websocket")
        self.site = ChatSite()
        self.addCleanup(self.site.close)
        self.site.start()

    def test_people_do_not_outlive_the_server_that_crashed(self):
        ada, ben = Visitor(self.site, "Ada"), Visitor(self.site, "Ben")
        first = ada.enter().await_people("Ada")
        second = ben.enter().await_people("Ada", "Ben")
        first.say("before the crash")
        second.await_line("before the crash")
        self.site.restart(signal.SIGKILL)
        self.assertEqual(
            len(self.site.query("SELECT * FROM chat_window")), 2
        )  # the windows left without a close frame
        self.assertIn("nobody here", ada.get())

        back = ben.enter(after=0).await_people("Ben")
        self.assertEqual(back.pages, [["before the crash"]])
        self.assertEqual(len(self.site.query("SELECT * FROM chat_window")), 1)

    def test_a_server_that_ends_in_order_is_left_by_everybody(self):
        window = Visitor(self.site, "Ada").enter().await_people("Ada")
        window.say("good night")
        window.await_line("good night")
        self.site.restart()
        self.assertIn("nobody here", Visitor(self.site).get())
        again = Visitor(self.site, "Ben").enter().await_people("Ben")
        self.assertEqual(again.pages, [["good night"]])


def listen(port):
    """A socket that listens on 127.0.0.1, for a `with`."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


class DemoTests(unittest.TestCase):
    """The script that `make demo` runs."""

    def setUp(self):
        require_chat()
        self.site = ChatSite()
        self.addCleanup(self.site.close)

    def demo(self, **env):
        process = Process([sys.executable, "demo.py"], CHAT, self.site.environment(**env))
        self.addCleanup(process.kill)
        return process

    def test_it_prints_an_address_that_answers_and_ends_clean_with_control_c(self):
        demo = self.demo(PORT=str(self.site.port))
        address = demo.wait_for_output(r"The chat is at (\S+) ", timeout=START_TIMEOUT).group(1)
        self.assertEqual(address, self.site.url())
        demo.wait_for_output("Quit the server", timeout=START_TIMEOUT)
        self.assertIn("<h1>Chat</h1>", Visitor(self.site).get())
        self.assertEqual(demo.interrupt(), 0)
        self.assertNotIn("Traceback", demo.output)
        self.assertFalse(demo.group_is_alive())

    def test_a_port_that_was_asked_for_and_is_taken_is_an_error(self):
        with listen(0) as taken:
            port = taken.getsockname()[1]
            demo = self.demo(PORT=str(port))
            self.assertEqual(demo.wait(START_TIMEOUT), 1)
        self.assertIn(f"Port {port} is taken", demo.output)

    def test_a_port_that_is_no_port_is_an_error(self):
        for port in ("eighty", "65536", "-1"):
            demo = self.demo(PORT=port)
            self.assertEqual(demo.wait(START_TIMEOUT), 1)
            self.assertIn("PORT is a number", demo.output)

    def test_where_8000_is_taken_it_finds_another_port(self):
        try:
            taken = listen(8000)
        except OSError:
            taken = contextlib.nullcontext()  # somebody else has it: as good
        with taken:
            demo = self.demo(PORT="")
            address = demo.wait_for_output(r"The chat is at (\S+) ", timeout=START_TIMEOUT).group(1)
        port = urllib.parse.urlsplit(address).port
        self.assertNotEqual(port, 8000)
        self.site.port = port
        wait_until(lambda: "Quit the server" in demo.output, "the server", START_TIMEOUT)
        self.assertIn("<h1>Chat</h1>", Visitor(self.site).get())

    def test_any_asgi_server_serves_it(self):
        require("uvicorn")
        require("websocket")
        self.site.start()  # migrates
        self.site.stop()
        self.site.server = SiteServer(
            [sys.executable, "-m", "uvicorn", "--port", str(self.site.port)]
            + ["mysite.asgi:channel_layer"],
            CHAT,
            self.site.environment(),
            self.site.port,
        )
        self.site.server.wait_until_listening(START_TIMEOUT)
        ada = Visitor(self.site, "Ada")
        for asset in re.findall('(?:src|href)="(/static/.+?)"', ada.get("/chat/lobby/")):
            self.assertTrue(ada.get(asset))
        window = ada.enter().await_people("Ada")
        window.say("hello")
        window.await_line("hello")

    def test_its_migrations_are_complete(self):
        # Not by --check, which Django 1.8 and 1.9 do not have.
        self.assertIn("No changes detected", self.manage("makemigrations", "--dry-run"))

    def test_its_own_tests_pass(self):
        output = self.manage("test")
        self.assertRegex(output, r"Ran [1-9]\d* tests")
        self.assertIn("OK", output)

    def manage(self, *arguments):
        """The output of manage.py, which has to succeed."""
        command = [sys.executable, "manage.py"] + list(arguments)
        process = Process(command, CHAT, self.site.environment())
        self.addCleanup(process.kill)
        self.assertEqual(process.wait(START_TIMEOUT), 0, process.output)
        return process.output

    def test_the_environment_chooses_redis(self):
        script = "from mysite.settings import CHANNEL_LAYERS; print(CHANNEL_LAYERS['default'])"
        layer = subprocess.run(
            [sys.executable, "-c", script],
            cwd=CHAT,
            env=self.site.environment(CHANNEL_REDIS_URL="redis://example.invalid:6379/0"),
            check=True,
            stdout=subprocess.PIPE,
            timeout=START_TIMEOUT,
        ).stdout.decode()
        self.assertIn("asgi_redis.RedisChannelLayer", layer)
        self.assertIn("redis://example.invalid:6379/0", layer)
