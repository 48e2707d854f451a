"""The projects in Chromium: two windows, one of which sees what the other one does."""

import unittest

from channels_tests.support.redis_server import RedisServer
from channels_tests.support.requirements import require
from channels_tests.support.waiting import wait_until

from .sites import Site, Window

USERS = """
from django.contrib.auth.models import User
for name in ("ann", "ben"):
    User.objects.create_superuser(name, name + "@example.com", name)
User.objects.create_user("cat", "", "cat")
"""


#: Two browsers, which all classes share.
windows = []


def setUpModule():
    require("daphne", "selenium")
    require("chromium", "chromedriver")
    for _ in range(2):
        windows.append(Window())


def tearDownModule():
    for window in windows:
        window.close()


class BrowserTests:
    """What the tests of a project share: `prepare_site` makes the site that all of them use."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.closing = []
        try:
            cls.prepare_site()
        except BaseException:
            cls.tearDownClass()
            raise
        for window in windows:
            window.enter_site(cls.site)
        cls.windows = windows

    @classmethod
    def keep(cls, what):
        """Return `what`, which is closed at the end."""
        cls.closing.append(what)
        return what

    @classmethod
    def tearDownClass(cls):
        for each in reversed(cls.closing):
            each.close()
        super().tearDownClass()

    @classmethod
    def start_redis(cls):
        """Return the URL of a Redis for this class."""
        server = RedisServer()
        server.close = server.remove
        cls.keep(server)
        return server.start().url


class MultichatTests(BrowserTests, unittest.TestCase):
    @classmethod
    def prepare_site(cls):
        cls.site = cls.keep(Site("multichat", REDIS_URL=cls.start_redis()))
        cls.site.prepare(
            USERS
            + "from chat.models import Room\n"
            + "Room.objects.create(title='Hall')\n"
            + "Room.objects.create(title='Office', staff_only=True)\n"
        )
        cls.site.start("manage.py", "runworker")
        listen = ["-b", "127.0.0.1", "-p", str(cls.site.port)]
        cls.site.serve("-m", "daphne", *listen, "multichat.asgi:channel_layer")

    def enter(self, window, name):
        window.driver.delete_all_cookies()
        window.log_in("/", name, "form button")
        window.wait("#me", name)
        window.wait("#status", "connected")

    def test_people_log_in_join_write_and_leave(self):
        ann, ben = self.windows
        self.enter(ann, "ann")
        self.enter(ben, "ben")
        ann.click(".join[data-room='1']")
        ann.wait(".title", "Hall")
        ben.click(".join[data-room='1']")
        ben.wait(".title", "Hall")
        ann.wait("#room-1 .line", "ben joined")
        ann.enter("#room-1 input", "Hello, Ben")
        ben.wait("#room-1 .line", "ann: Hello, Ben")
        ben.enter("#room-1 input", "Hello, Ann")
        ann.wait("#room-1 .line", "ben joined", "ann: Hello, Ben", "ben: Hello, Ann")
        ben.click("#room-1 .leave")
        ben.wait(".title")
        ann.wait("#room-1 .line", "ben joined", "ann: Hello, Ben", "ben: Hello, Ann", "ben left")
        ben.click(".join[data-room='1']")
        ben.wait(".title", "Hall")
        ben.leave()
        ann.wait("#room-1 .line:nth-child(n+5)", "ben joined", "ben left")

    def test_who_may_not_enter_a_room_is_told(self):
        cat = self.windows[0]
        self.enter(cat, "cat")
        cat.click(".join[data-room='2']")
        cat.wait("#error", "ROOM_ACCESS_DENIED")
        cat.wait(".title")

    def test_a_visitor_is_sent_to_the_login(self):
        visitor = self.windows[0]
        visitor.driver.delete_all_cookies()
        visitor.open("/")
        self.assertIn("/accounts/login/", visitor.driver.current_url)


class LiveblogTests(BrowserTests, unittest.TestCase):
    @classmethod
    def prepare_site(cls):
        cls.site = cls.keep(Site("liveblog", REDIS_URL=cls.start_redis()))
        cls.site.prepare(
            USERS
            + "from posts.models import Liveblog, Post\n"
            + "blog = Liveblog.objects.create(title='News', slug='news')\n"
            + "Post.objects.create(liveblog=blog, body='First')\n"
        )
        cls.site.serve("manage.py", "runserver", "--noreload", "127.0.0.1:%d" % cls.site.port)

    def test_a_reader_sees_posts_as_they_are_written_and_changed(self):
        reader, writer = self.windows
        reader.open("/")
        reader.click("a")
        reader.wait(".post", "First")
        reader.wait("#pings", "3")
        writer.log_in("/admin/login/?next=/admin/posts/post/add/", "ann", "[type=submit]")
        writer.find("[name=liveblog] option[value='1']").click()
        writer.fill("[name=body]", "Second <b>post</b>")
        writer.click("[name=_continue]")
        reader.wait(".post", "Second <b>post</b>", "First")
        writer.fill("[name=body]", "Second, corrected")
        writer.click("[name=_continue]")
        reader.wait(".post", "Second, corrected", "First")
        # A command of another process reaches the reader, too.
        self.site.manage(
            "shell", "-c", "from posts.models import Post; Post.objects.get(body='First').save()"
        )
        reader.wait(".post", "Second, corrected", "First")
        reader.open("/liveblog/news/")
        reader.wait(".post", "Second, corrected", "First")


class DatabindingTests(BrowserTests, unittest.TestCase):
    @classmethod
    def prepare_site(cls):
        cls.site = cls.keep(Site("databinding"))
        cls.site.prepare(
            USERS
            + "from values.models import IntegerValue\n"
            + "IntegerValue.objects.create(name='apples', value=3)\n"
        )
        cls.site.serve("manage.py", "runserver", "--noreload", "127.0.0.1:%d" % cls.site.port)

    def numbers(self, window):
        return window.driver.execute_script(
            "return [...document.querySelectorAll('.number')].map((each) => each.value)"
        )

    def wait_for_numbers(self, window, *expected):
        window.wait("#status", "connected")
        wait_until(lambda: self.numbers(window) == list(expected), "numbers %r" % (expected,))

    def test_one_page_creates_changes_and_deletes_and_the_other_sees_it(self):
        one, other = self.windows
        for window in self.windows:
            window.open("/")
            self.wait_for_numbers(window, "3")
        one.fill("#name", "pears")
        one.click("#create")
        for window in self.windows:
            window.wait("b", "apples", "pears")
            self.wait_for_numbers(window, "3", "1")
        other.enter(".value:nth-child(2) .number", "12")
        for window in self.windows:
            self.wait_for_numbers(window, "3", "12")
        # The admin changes the row as well.
        one.log_in(
            "/admin/login/?next=/admin/values/integervalue/1/change/", "ann", "[type=submit]"
        )
        one.fill("[name=value]", "4")
        one.click("[name=_save]")
        self.wait_for_numbers(other, "4", "12")
        one.open("/")
        other.click(".value:nth-child(1) .delete")
        for window in self.windows:
            window.wait("b", "pears")


if __name__ == "__main__":
    unittest.main()
