"""The chat as people see it: Chromium windows on a real server, which is stopped and started again."""

import shutil
import signal
import socket
import tempfile
import unittest

from .support.chromium import start_chromium
from .support.requirements import require
from .support.waiting import SCALE, TIMEOUT, wait_until
from .test_chat import ChatSite, require_chat

#: Everything has to come back by itself after a restart: seconds, more than the page's longest wait.
RECONNECT_TIMEOUT = 3 * TIMEOUT

LINES = "return [...document.querySelectorAll('.line .words')].map((line) => line.textContent)"
WAITING = "return document.querySelectorAll('.line.waiting').length"
NOTICES = "return [...document.querySelectorAll('.notice')].map((notice) => notice.textContent)"
PEOPLE = (
    "return [...document.querySelectorAll('#people li > span:last-of-type')]"
    ".map((person) => person.textContent)"
)
STATUS = "return document.getElementById('status').dataset.state"
REQUESTS = "return performance.getEntriesByType('resource').map((entry) => entry.name)"

# Counts what the page's sockets send, from before the page's own script on. On a busy machine, a person who
# reloads a page gets more time before the others are told that she left.
BEFORE_ALL = """
const later = window.setTimeout;
window.setTimeout = (callback, ms, ...rest) => later(callback, ms === 2500 ? 2 * SCALE * ms : ms, ...rest);
window.sent = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  window.sent.push(JSON.parse(data));
  return send.call(this, data);
};
""".replace("SCALE", "%g" % SCALE)


class Browser:
    """One person's Chromium, with a separate profile; `window` is a tab's handle."""

    def __init__(self, test, site, nickname=None):
        self.site = site
        profile = tempfile.mkdtemp(prefix="chromium-")
        test.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        self.driver = start_chromium(profile)
        test.addCleanup(self.driver.quit)
        self.driver.set_page_load_timeout(RECONNECT_TIMEOUT)
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": BEFORE_ALL})
        self.nickname = nickname
        if nickname:
            self.open()
            self.choose(nickname)

    def open(self, path="/chat/lobby/"):
        self.driver.get(self.site.url(path))
        return self

    def element(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def choose(self, nickname):
        from selenium.webdriver.common.keys import Keys

        wait_until(self.element("#nickname-field").is_displayed, "the dialog for a nickname")
        field = self.element("#nickname-field")
        field.clear()
        field.send_keys(nickname + Keys.ENTER)
        wait_until(lambda: not field.is_displayed(), "the dialog to close")
        self.await_status("connected")

    def say(self, text):
        from selenium.webdriver.common.keys import Keys

        self.element("#text").send_keys(text + Keys.ENTER)

    def ask(self, script):
        return self.driver.execute_script(script)

    def wait(self, script, expected, timeout=TIMEOUT):
        """Waits until the script returns what is expected; the error shows what it returned instead."""
        try:
            wait_until(lambda: self.ask(script) == expected, "the page", timeout)
        except AssertionError:
            raise AssertionError(
                f"{self.nickname}'s page: {script}\nexpected {expected!r}, has {self.ask(script)!r}"
                f"\n--- the server's output ---\n{self.site.server.output}"
            ) from None

    def await_lines(self, *texts, timeout=TIMEOUT):
        self.wait(LINES, list(texts), timeout)

    def await_people(self, *nicknames, timeout=TIMEOUT):
        self.wait(PEOPLE, list(nicknames), timeout)

    def await_status(self, state, timeout=TIMEOUT):
        self.wait(STATUS, state, timeout)

    def errors(self):
        """What the page complained of, but for the server's being away."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and "ERR_CONNECTION_" not in entry["message"]
        ]


class ChatBrowserTests(unittest.TestCase):
    def setUp(self):
        require_chat()
        require("selenium")
        require("chromium", "chromedriver")
        self.site = ChatSite()
        self.addCleanup(self.site.close)
        self.site.start()

    def browser(self, nickname=None):
        return Browser(self, self.site, nickname)

    def test_two_windows_chat_and_one_closes(self):
        ada, ben = self.browser("Ada"), self.browser("Ben")
        for browser in (ada, ben):
            browser.await_people("Ada", "Ben")
        ada.say("Hello, Ben")
        ben.await_lines("Hello, Ben")
        ben.say("<img src=x onerror=alert(1)> & <b>hello</b>")
        for browser in (ada, ben):
            browser.await_lines("Hello, Ben", "<img src=x onerror=alert(1)> & <b>hello</b>")
        self.assertEqual(
            ada.ask("return document.querySelectorAll('#lines img, #lines .words b').length"), 0
        )

        ben.element("#text").send_keys("I am thin")
        ada.wait("return document.getElementById('typing').textContent", "Ben is typing")
        ben.driver.quit()
        ada.await_people("Ada")
        ada.wait(NOTICES, ["Ben joined", "Ben left"])
        self.assertEqual(ada.errors(), [])

        hosts = {url.split("/")[2] for url in ada.ask(REQUESTS)}
        self.assertEqual(hosts, {f"127.0.0.1:{self.site.port}"})

    def test_a_person_with_two_windows_is_here_until_the_last_one_closes(self):
        ada, ben = self.browser("Ada"), self.browser("Ben")
        first = ada.driver.current_window_handle
        ada.driver.switch_to.new_window("window")
        ada.open().await_status("connected")  # and does not ask for the nickname again
        ada.say("from my second window")
        ada.await_lines("from my second window")
        ben.await_people("Ada", "Ben")

        ada.driver.close()
        ada.driver.switch_to.window(first)
        ada.await_lines("from my second window")
        ada.say("and from my first")
        ben.await_lines("from my second window", "and from my first")
        ben.await_people("Ada", "Ben")
        self.assertEqual(ben.ask(NOTICES), [])

        ada.driver.get("about:blank")
        ben.await_people("Ben")
        ada.open("/")  # the server counts when it makes the page, so only now
        self.assertIn("1 here", ada.element(".rooms").text)

    def test_a_person_who_waits_for_another_page_is_gone_when_it_comes(self):
        ada, ben = self.browser("Ada"), self.browser("Ben")
        ben.await_people("Ada", "Ben")

        def opened():
            return ada.site.server.output.count("WebSocket OPEN")

        before = opened()
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            url = "http://127.0.0.1:%d/" % server.getsockname()[1]
            ada.ask(
                f"setTimeout(() => location = '{url}', 200)"
            )  # the driver would wait for the page
            page, _ = server.accept()
        with page:
            # The other page may never come, so hers connects again.
            wait_until(lambda: opened() > before, "her page to connect again")
            page.recv(65536)
            page.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nhi"
            )
        ben.await_people("Ben")

    def test_a_new_nickname_is_seen_by_others_and_kept(self):
        ada, ben = self.browser("Ada"), self.browser("Ben")
        ada.element("header .me").click()
        ada.choose("Countess")
        for browser in (ada, ben):
            browser.await_people("Countess", "Ben")
        ben.wait(NOTICES, ["Ada is now Countess"])
        ada.open()
        for browser in (ada, ben):
            browser.await_people("Ben", "Countess")
        ben.wait(NOTICES, ["Ada is now Countess"])  # a reload does not count as leaving

    def test_history_after_a_reload(self):
        ada = self.browser("Ada")
        texts = [f"line {number}" for number in range(3)]
        for number, text in enumerate(texts, 1):
            ada.say(text)
            ada.await_lines(*texts[:number])
        ada.open()
        ada.await_lines(*texts)
        ada.await_people("Ada")
        self.assertEqual(ada.errors(), [])

    def test_it_survives_a_restart(self):
        ada, ben = self.browser("Ada"), self.browser("Ben")
        ada.say("before")
        ben.await_lines("before")
        ada.say("before, too")
        ben.await_lines("before", "before, too")

        self.site.stop()
        for browser in (ada, ben):
            wait_until(lambda browser=browser: browser.ask(STATUS) != "connected", "the loss")
        ada.say("said while the server was down")
        self.assertEqual(ada.ask(WAITING), 1)
        self.site.start()

        everything = ["before", "before, too", "said while the server was down"]
        for browser in (ada, ben):
            browser.await_status("connected", RECONNECT_TIMEOUT)
            browser.await_lines(*everything, timeout=RECONNECT_TIMEOUT)
            browser.wait(
                "return document.getElementById('count').textContent", "2", RECONNECT_TIMEOUT
            )
        ada.wait(WAITING, 0, RECONNECT_TIMEOUT)
        ben.say("after")
        for browser in (ada, ben):
            browser.await_lines(*everything + ["after"])
            self.assertEqual(browser.errors(), [])
        sent = [frame["text"] for frame in ada.ask("return window.sent") if "text" in frame]
        self.assertEqual(sent, everything)  # each once
        self.assertEqual(self.site.query("SELECT count(*) FROM chat_line"), [(4,)])

    def test_it_survives_a_crash_and_fetches_what_was_missed(self):
        ada, ben = self.browser("Ada"), self.browser("Ben")
        ada.say("before")
        ben.await_lines("before")
        # Ben's network is down while the server crashes, comes back, and Ada goes on.
        ben.driver.set_network_conditions(offline=True, latency=0, throughput=0)
        self.site.restart(signal.SIGKILL)
        wait_until(lambda: ben.ask(STATUS) != "connected", "the loss")
        ada.await_status("connected", RECONNECT_TIMEOUT)
        ada.await_people("Ada", timeout=RECONNECT_TIMEOUT)
        missed = [f"missed {number}" for number in range(60)]
        for text in missed:
            ada.say(text)
        ada.await_lines("before", *missed)
        self.assertEqual(ben.ask(LINES), ["before"])
        ben.driver.delete_network_conditions()
        ben.await_lines("before", *missed, timeout=RECONNECT_TIMEOUT)
        pages = [frame for frame in ben.ask("return window.sent") if "after" in frame]
        self.assertEqual(len(pages), 1)  # the second page, asked for at once
        ada.await_people("Ada", "Ben")
        ada.wait(WAITING, 0, RECONNECT_TIMEOUT)

    def test_the_front_page_leads_to_a_new_room(self):
        from selenium.webdriver.common.keys import Keys

        ada = self.browser()
        ada.open("/")
        ada.element("#room").send_keys("Garden Party" + Keys.ENTER)
        wait_until(lambda: ada.driver.current_url.endswith("/chat/garden-party/"), "the room")
        ada.choose("Ada")
        ada.await_people("Ada")
        self.assertEqual(ada.ask("return document.title"), "garden-party · Chat")
