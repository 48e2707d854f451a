"""The layer's SQLite file under a running site: deleted, replaced, emptied, or damaged in any way."""

import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import tempfile
import threading
import time
import unittest

from django.channels.exceptions import LayerUnavailable, NotSent
from django.channels.layers.database.refusals import TablesMissing
from django.channels.layers.database.sqlite import SCHEMA
from django.channels.layers.database.sqlite_file import LayerFile, problem_of
from django.core.exceptions import ImproperlyConfigured

from .support.servers import open_directory
from .support.waiting import TIMEOUT, wait_until
from .test_database_layer import SQLiteCase

PAGE = 4096

#: How to damage a file that is in use, whose log is empty.
DAMAGE = {
    "cut to half a page": lambda path: os.truncate(path, PAGE // 2),
    "cut to a page": lambda path: os.truncate(path, PAGE),
    "cut to three pages": lambda path: os.truncate(path, 3 * PAGE),
    "cut by a page": lambda path: os.truncate(path, os.path.getsize(path) - PAGE),
    "zeroes": lambda path: overwrite(path, bytes(os.path.getsize(path))),
    "noise": lambda path: overwrite(path, os.urandom(os.path.getsize(path))),
    "a damaged beginning": lambda path: overwrite(path, b"SQLate"),
    "a strange format": lambda path: overwrite(path, b"\x09\x09", 18),
    "text": lambda path: copy(b"no database\n" * 20, path),
    "another database": lambda path: copy(another_database(path + ".other"), path),
    "the log removed": lambda path: os.remove(path + "-wal"),
    "the index removed": lambda path: os.remove(path + "-shm"),
}


def overwrite(path, data, offset=0):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def copy(data, path):
    """Do as `cp`: the file stays the same, with another content."""
    with open(path, "wb") as file:
        file.write(data)


def another_database(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (text)")
    connection.executemany("INSERT INTO other VALUES (?)", [("x" * 1000,)] * 500)
    connection.commit()
    connection.close()
    with open(path, "rb") as file:
        return file.read()


class SQLiteFileTests(SQLiteCase, unittest.TestCase):
    def setUp(self):
        self.layer = self.make_layer(file=os.path.join(self.folder, self.id() + ".sqlite3"))
        self.path = self.layer.store.connections.path()

    @unittest.skipUnless(os.path.isdir("/proc/self/fd"), "only Linux tells which files are open")
    def test_a_closed_layer_leaves_the_file_of_its_lock(self):
        def is_open():
            folder, lock = "/proc/self/fd", os.path.realpath(self.path) + "-lock"
            return lock in [os.path.realpath(os.path.join(folder, fd)) for fd in os.listdir(folder)]

        for _ in range(2):
            self.layer.send("work", {})
            self.assertTrue(is_open())
            self.layer.close()
            self.assertFalse(is_open())

    def test_nobody_else_may_read_the_files(self):
        self.layer.send("work", {})
        for name in os.listdir(self.folder):
            if self.id() in name:
                mode = os.stat(os.path.join(self.folder, name)).st_mode & 0o777
                self.assertEqual(mode, 0o600, name)

    def lose(self, how):
        """Delete the layer's file, put an empty one in its place, or cut it to 0 bytes."""
        if how == "emptied":
            os.truncate(self.path, 0)
            return
        if how == "deleted without its log":
            os.remove(self.path)
            return
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                os.remove(self.path + suffix)
        if how == "replaced":
            with open(self.path, "w"):
                pass

    def test_a_file_that_is_deleted_replaced_or_emptied_is_noticed_and_told(self):
        for how in ("deleted", "deleted without its log", "replaced", "emptied"):
            with self.subTest(how=how):
                self.layer.send("work", {"n": 1})
                with self.assertLogs("django.channels.layers", "ERROR") as logs:
                    self.lose(how)
                    wait_until(
                        lambda: self.layer.receive_many(["work"])[0] is None and logs.output,
                        "the line in the log",
                    )
                self.assertEqual(len(logs.output), 1)
                self.assertIn(self.path, logs.output[0])
                self.layer.send("work", {"n": 2})
                self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 2})

    def test_a_reader_that_waits_finds_what_comes_to_the_new_file(self):
        self.layer.block_for = 0.2
        for how in ("replaced", "emptied"):
            with self.subTest(how=how):
                self.layer.receive_many(["work"], block=True)
                with self.assertLogs("django.channels.layers", "ERROR") as logs:
                    self.lose(how)
                    other = self.make_layer(file=self.path)
                    other.send("work", {"n": 1})
                    wait_until(lambda: self.layer.receive_many(["work"], block=True)[1], "it")
                    wait_until(lambda: logs.output, "the line of the thread that noticed it first")

    def test_two_layers_on_an_emptied_file_go_on_together(self):
        other = self.make_layer(file=self.path)
        for number in range(20):
            self.layer.send("work.%d" % number, {"text": "x" * 3000})
            other.send("work.%d" % number, {"text": "x" * 3000})
        with self.assertLogs("django.channels.layers", "ERROR") as logs:
            self.lose("emptied")
            for layer in (self.layer, other):
                wait_until(lambda layer=layer: layer.receive_many(["work"]) and logs.output, "it")
            wait_until(
                lambda: (
                    (self.layer.receive_many(["work"]), other.receive_many(["work"]))
                    and len(logs.output) == 2
                ),
                "each tells it",
            )
        self.layer.send("work", {"n": 1})
        self.assertEqual(other.receive_many(["work"])[1], {"n": 1})
        other.send("work", {"n": 2})
        self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 2})

    def fill(self):
        """Put some pages into the file, and nothing into its log."""
        for number in range(40):
            self.layer.send("waits.%d" % number, {"text": "x" * 2000})
        connection = sqlite3.connect(self.path, timeout=TIMEOUT)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def test_a_damaged_file_is_put_aside_and_told(self):
        for how, damage in DAMAGE.items():
            with self.subTest(how=how):
                self.fill()
                with self.assertLogs("django.channels.layers", "ERROR") as logs:
                    damage(self.path)
                    wait_until(lambda: self.take_or_fail() and logs.output, "the line in the log")
                self.assertEqual(len(logs.output), 1)
                for word in (self.path + ".damaged", "was damaged", ".recover", "1012"):
                    self.assertIn(word, logs.output[0])
                self.layer.send("work", {"n": 2})
                self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 2})
                self.assertIsNone(self.layer.receive_many(["waits.1"])[0])

    def take_or_fail(self):
        try:
            self.layer.receive_many(["work"])
        except LayerUnavailable:
            pass  # the statement that met the damage
        return True

    def test_damage_in_the_middle_is_dealt_with_by_whoever_reads_it(self):
        self.fill()
        size = os.path.getsize(self.path)
        with self.assertLogs("django.channels.layers", "ERROR") as logs:
            overwrite(self.path, os.urandom(size - PAGE), PAGE)
            other = self.make_layer(file=self.path)
            with self.assertRaises(LayerUnavailable):
                other.receive_many(["waits.1"])
            other.send("work", {"n": 1})
            wait_until(lambda: self.take_or_fail() and len(logs.output) == 2, "both tell it")
        other.send("late", {"n": 2})
        self.assertEqual(self.layer.receive_many(["late"])[1], {"n": 2})

    def test_a_file_that_never_was_the_layers_stays_where_it_is(self):
        copy(b"no database\n" * 20, self.path)
        with self.assertRaisesRegex(LayerUnavailable, "move it away.*or correct FILE"):
            self.layer.send("work", {})
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"no database\n" * 20)
        os.remove(self.path)
        self.layer.send("work", {"n": 1})
        self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 1})

    def test_a_file_with_tables_of_others_is_never_put_aside(self):
        copy(another_database(self.path + ".other"), self.path)
        self.fill()
        backup = self.path + ".backup"
        shutil.copyfile(self.path, backup)
        overwrite(self.path, b"SQLate")
        wait_until(lambda: self.refusal() == "told", "the damage to be told")
        self.assertFalse(os.path.exists(self.path + ".damaged"))
        overwrite(self.path, b"SQLite")
        wait_until(lambda: self.refusal() is None, "the layer, once the file is whole")

    def refusal(self):
        try:
            self.layer.send("work", {})
        except LayerUnavailable as error:
            return "told" if "holds tables of others" in str(error) else "met"

    def set_version(self, version):
        connection = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None)
        connection.execute("PRAGMA user_version = %d" % version)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def test_a_file_with_tables_of_another_version_is_refused_and_stays(self):
        """Processes with other code may use it."""
        for version, word in ((SCHEMA - 1, "older"), (SCHEMA + 1, "newer")):
            with self.subTest(version=version):
                self.layer.send("work", {"n": version})
                self.set_version(version)
                newcomer = self.make_layer(file=self.path)
                for _ in range(2):
                    with self.assertRaisesRegex(
                        ImproperlyConfigured, "%s version.*the same code.*delete the file" % word
                    ):
                        newcomer.send("work", {})
                self.assertTrue(issubclass(TablesMissing, NotSent))  # the gateway answers with 503
                # The one that is there finds that the file has changed.
                self.layer.store.connections._layer_file.look(self.path, at_once=True)
                self.assertEqual(self.layer.receive_many(["work"])[1], {"n": version})
                self.assertFalse(os.path.exists(self.path + ".damaged"))
                self.set_version(SCHEMA)
                newcomer.send("work", {"n": 0})
                self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 0})

    def test_a_file_of_another_version_with_tables_of_others_is_not_to_be_deleted(self):
        self.layer.send("work", {})
        connection = sqlite3.connect(self.path, timeout=TIMEOUT)
        connection.execute("CREATE TABLE site (id integer)")
        connection.commit()
        connection.close()
        self.set_version(SCHEMA + 1)
        with self.assertRaisesRegex(LayerUnavailable, "drop the tables") as raised:
            self.make_layer(file=self.path).send("work", {})
        self.assertNotIn("delete the file", str(raised.exception))

    def test_a_file_that_was_put_aside_leaves_its_permissions_to_the_new_one(self):
        self.fill()
        os.chmod(self.path, 0o660)
        with self.assertLogs("django.channels.layers", "ERROR") as logs:
            os.truncate(self.path, PAGE)
            wait_until(lambda: self.take_or_fail() and logs.output, "the line in the log")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)

    def test_a_file_that_was_compacted_is_whole(self):
        self.fill()
        for number in range(40):
            self.layer.receive_many(["waits.%d" % number])
        self.layer.send("work", {"n": 1})
        size = os.path.getsize(self.path)
        connection = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None)
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        self.assertLess(os.path.getsize(self.path), size)
        file = self.layer.store.connections._layer_file
        file.look(self.path, at_once=True)
        self.assertEqual(self.layer.receive_many(["work"])[1], {"n": 1})

    def test_a_file_that_cannot_be_examined_now_is_not_taken_for_damaged(self):
        """SQLite fails for many reasons: a full disk, or no descriptor that is free."""
        self.fill()
        for suffix in ("-wal", "-shm"):
            with self.subTest(suffix=suffix):
                whole = self.path + suffix + ".copy"
                shutil.copyfile(self.path, whole)
                self.assertIsNone(problem_of(whole, SCHEMA))
                os.mkdir(whole + suffix)
                self.assertIsNone(problem_of(whole, SCHEMA))

    def test_what_is_wrong_with_a_file_is_told_in_one_line(self):
        self.fill()
        damaged = self.path + ".copy"
        shutil.copyfile(self.path, damaged)
        overwrite(damaged, os.urandom(2 * PAGE), PAGE)
        problem = problem_of(damaged, SCHEMA)
        self.assertIsNotNone(problem)
        self.assertNotIn("\n", problem)

    def test_the_log_stays_if_the_file_cannot_be_reached(self):
        """A network file system may fail for a while."""
        os.symlink(self.path, self.path)
        copy(b"messages", self.path + "-wal")
        with self.assertRaises(LayerUnavailable):
            self.layer.send("work", {})
        self.assertTrue(os.path.exists(self.path + "-wal"))

    def test_a_file_that_is_compacted_during_a_look_is_whole(self):
        class Slow(LayerFile):
            """Others compact the file between two steps of a look."""

            def _head(self, path, file):
                head = super()._head(path, file)
                if self.compacts:
                    self.compacts = False
                    connection = sqlite3.connect(path, isolation_level=None)
                    connection.execute("VACUUM")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    connection.close()
                return head

        self.fill()
        for number in range(40):
            self.layer.receive_many(["waits.%d" % number])
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file = Slow(SCHEMA)
        file.compacts = False
        file.meet(self.path)
        size, file.compacts = os.path.getsize(self.path), True
        file.look(self.path, at_once=True)
        self.assertLess(os.path.getsize(self.path), size)
        self.assertIsNone(file.damage(file.known))

    def test_threads_that_look_at_the_same_time_open_each_file_once(self):
        file = LayerFile(SCHEMA)
        failed, ends = [], threading.Event()

        def look():
            while not ends.is_set():
                try:
                    file.look(self.path, at_once=True)
                except OSError as error:
                    failed.append(error)

        threads = [threading.Thread(target=look, daemon=True) for _ in range(4)]
        self.addCleanup(ends.set)
        for each in threads:
            each.start()
        for number in range(300):
            copy(b"%d" % number * 100, self.path + ".new")
            os.replace(self.path + ".new", self.path)
            time.sleep(0.001)  # so that threads look at some of them
        ends.set()
        for each in threads:
            each.join(TIMEOUT)
        self.assertEqual(failed, [])
        self.assertLessEqual(self.descriptors(), 1)

    def descriptors(self):
        """Return how many descriptors of the layer's file this process has, where that can be known."""
        held = []
        for number in range(1000):
            with contextlib.suppress(OSError):  # another thread has just closed it
                held.append(os.readlink("/proc/self/fd/%d" % number))
        return len([each for each in held if self.path in each and "-lock" not in each])

    def test_a_file_that_cannot_be_opened_is_closed_at_once(self):
        copy(b"no database\n" * 20, self.path)
        errors = []
        for _ in range(3):
            with self.assertRaises(LayerUnavailable) as caught:
                self.layer.send("work", {})
            errors.append(caught.exception.__cause__)
        # One is there with which its beginning is read. A thread of the layer may be trying, too.
        wait_until(lambda: self.descriptors() <= 1, "its connections to be closed")


@unittest.skipUnless(hasattr(os, "fork"), "another user's process is a fork")
class UnusableFileTests(SQLiteCase, unittest.TestCase):
    """The file, or its folder, can't be used for a while: the error says what to do, and nothing is lost."""

    def setUp(self):
        # Open to all, unlike the folder of the other tests.
        self.place = tempfile.mkdtemp(dir=open_directory())
        self.addCleanup(shutil.rmtree, self.place)
        os.chmod(self.place, 0o777)
        self.path = os.path.join(self.place, "layer.sqlite3")
        # Python's own modules may not be readable for the other user: what the layer imports is imported now.
        self.make_layer(file=os.path.join(self.place, "other.sqlite3")).receive_many(["work"])

    def begin(self, limit=None):
        """
        Start a process that sends a message, as a user without rights. Return `step`: it lets the process try
        to send and to receive, and returns what came of it.
        """
        import resource

        sock, ours = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                layer = self.make_layer(file=self.path)
                while True:
                    number = sock.recv(20)
                    if not number:
                        break
                    if number == b"free":
                        resource.setrlimit(
                            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                        )
                        sock.sendall(b"done")
                        continue
                    sock.sendall(self.outcome(layer, int(number)).encode())
            except BaseException as error:
                sock.sendall(("failed: %r" % error).encode())
            finally:
                os._exit(0)
        sock.close()
        self.addCleanup(os.waitpid, pid, 0)
        self.addCleanup(ours.close)
        ours.settimeout(TIMEOUT)

        def step(what):
            ours.sendall(str(what).encode())
            return ours.recv(10000).decode()

        return step

    def outcome(self, layer, number):
        """Fill a channel with `number` messages, and read what waits. Return what was raised, or "n read"."""
        raised, sent, read = "", 0, 0
        try:
            for _ in range(number):
                layer.send("work", {"text": "x" * 4000})
                sent += 1
        except LayerUnavailable as error:
            raised = "%s: %s" % ("NotSent" if isinstance(error, NotSent) else "maybe", error)
        try:
            while layer.receive_many(["work"])[0] is not None:
                read += 1
        except LayerUnavailable as error:
            raised = raised or "at the reading: %s" % error
        if read < sent:
            return "%d of %d are lost. %s" % (sent - read, sent, raised)
        return raised or "%d read" % read

    def test_a_file_of_another_user_is_refused_with_the_remedy_until_it_may_be_written(self):
        self.make_layer(file=self.path).send("work", {})
        names = [self.path + suffix for suffix in ("", "-lock", "-wal", "-shm")]
        for closed in ("", "-lock"):
            with self.subTest(closed=closed):
                for name in names:
                    os.chmod(name, 0o666)
                os.chmod(self.path + closed, 0o444)
                step = self.begin()
                for _ in range(2):
                    self.assertRegex(
                        step(1), "NotSent: .*ermission denied.*Let the user.*-lock, -wal"
                    )
                os.chmod(self.path + closed, 0o666)
                self.assertRegex(step(1), "[12] read")

    def test_a_folder_that_may_not_be_written_is_refused_with_the_remedy(self):
        os.chmod(self.place, 0o555)
        step = self.begin()
        self.assertRegex(
            step(1), "NotSent: .*Let the user of this process.*folder, or correct FILE"
        )
        os.chmod(self.place, 0o777)
        self.assertEqual(step(1), "1 read")

    def test_a_folder_that_is_missing_is_refused_with_the_remedy(self):
        self.path = os.path.join(self.place, "folder", "layer.sqlite3")
        step = self.begin()
        self.assertRegex(step(1), "NotSent: .*Create its folder, or correct FILE")
        os.mkdir(os.path.dirname(self.path))
        os.chmod(os.path.dirname(self.path), 0o777)
        self.assertEqual(step(1), "1 read")

    def test_a_file_that_may_not_grow_refuses_one_message_and_keeps_the_others(self):
        step = self.begin(limit=200000)
        self.assertEqual(step(3), "3 read")
        refused = step(90)
        self.assertRegex(refused, "NotSent: .*ulimit -f")
        step("free")
        self.assertEqual(step(3), "3 read")
