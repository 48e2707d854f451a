"""Change the code in small ways, one at a time, and see whether the tests notice: `make mutants`.

    python scripts/mutants.py [--number 100] [--seed 9] [--jobs 2] [--list] [MODULE ...]

A mutant is one small change ("<" to "<=", a call deleted; see mutators.py). For each of a random sample, the
tests of the changed module run until the first failure. A mutant that no test notices has survived: it
is printed, and a test is missing. A file of equivalent mutants, mutants-equivalent.txt, names those that
change nothing that anybody could notice, each with the reason. The exit status is 1 if under 95 % of the
others were killed. Everything happens in copies of the tree; the working tree is never changed.

Why not cosmic-ray or mutmut: both want one test command for one importable package, and here
`django/channels` becomes the package `channels` and then `django.channels`, with two runners. cosmic-ray
changes the files in place, and lacks an operator that deletes a call, an assignment or a `raise`, as most of
the mistakes in this code base would. mutmut copies only what lies in its own layout, and needs pytest.
"""

import argparse
import concurrent.futures
import contextlib
import fnmatch
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter

from interpreters import ROOT
from make_dist import PACKED
from mutators import apply, mutants_of

sys.path.insert(0, os.path.join(ROOT, "tests"))
from channels_tests.support.leftovers import kill_marked  # noqa: E402

EQUIVALENT = os.path.join(ROOT, "scripts", "mutants-equivalent.txt")
LEAST = 0.95  # the share that has to be killed
TIMED_OUT = ", by a time-out"  # a busy machine may cause it, too: then nothing was noticed
TIMEOUT_ERROR = re.compile(r"^(TestHangs|AssertionError: waited [\d.e+]+ s for)", re.MULTILINE)
MARK = "CHANNELS_MUTANT"  # in the environment of a copy's tests: see support/leftovers.py


#: `paths` are what is mutated; `tests` are the modules that are to notice, the quickest first. Both
#: are patterns, in which "*" also matches slashes. After a ":", one class of a module is named. The first
#: group that a path fits is its own.
class Group:
    def __init__(self, name, paths, runner, tests):
        self.name, self.paths, self.runner, self.tests = name, paths, runner, tests


ADDON, REDIS = "tests/runtests_addon.py", "asgi_redis/tests/run.py"
FOLDERS = {ADDON: "tests/channels_tests", REDIS: "asgi_redis/tests/asgi_redis_tests"}
SERVERS = ["cluster", "former", "layer", "project", "servers"]
GATEWAY_TESTS = ["test_gateway_application", "test_gateway_faults", "test_view_consumer"]
GROUPS = [
    Group(
        "gateway states",
        ["django/channels/gateway/websocket.py", "django/channels/gateway/state.py"],
        ADDON,
        ["test_gateway_websocket*", "test_gateway_frames", "test_gateway_turns", "test_event_model"]
        + GATEWAY_TESTS,
    ),
    Group(
        "gateway http",
        ["django/channels/gateway/http.py"],
        ADDON,
        ["test_gateway_http*"] + GATEWAY_TESTS,
    ),
    Group(
        "gateway",
        ["django/channels/gateway/*.py"],
        ADDON,
        [
            "test_gateway_sender",
            "test_gateway_turns",
            "test_gateway_frames",
            "test_gateway_application",
            "test_page_needs",
            "test_log",
            "test_gateway_[lrw]*",
            "test_gateway_[!su]*",
            "test_paths",
            "test_gateway_uploads",
            "test_security_head",
            "test_security_compression",
            "test_gateway_servers",
        ],
    ),
    Group(
        "sessions",
        ["django/channels/sessions.py"],
        ADDON,
        ["test_sessions*", "test_auth", "test_generic", "test_async_generic", "test_view_consumer"]
        + ["test_security"],
    ),
    Group(
        "worker",
        ["django/channels/%s.py" % name for name in ("worker", "consume", "replies", "outbox")],
        ADDON,
        ["test_worker*", "test_consume*", "test_replies*", "test_on_commit", "test_sessions"]
        + ["test_view_consumer", "test_generic", "test_gateway_faults", "test_security"]
        + ["test_async_consumers", "test_async_layers"],
    ),
    Group(
        "event loop",
        ["django/channels/%s.py" % name for name in ("coroutines", "acknowledging", "continued")]
        + ["django/channels/%s.py" % name for name in ("awaited", "eventloop", "places")],
        ADDON,
        ["test_async_consumers", "test_async_generic", "test_own_context", "test_site_threads"]
        + ["test_async_[!ks]*", "test_worker*", "test_odd_errors", "test_callables"]
        + ["test_test_client", "test_generic", "test_security"],
    ),
    Group(
        "sqlite",
        ["django/channels/layers/database/sqlite*.py"],
        ADDON,
        ["test_database_file", "test_database_damage:SQLiteDamageTests"]
        + ["test_database_layer:SQLiteConformanceTests", "test_database_isolation"]
        + [
            "test_database_layer_leases:SQLiteLeaseTests",
            "test_database_layer_load:SQLiteLoadTests",
        ],
    ),
    Group(
        "database",
        ["django/channels/layers/database/*.py"],
        ADDON,
        ["test_database_connections", "test_database_refusals"]
        + ["test_database_layer:SQLiteConformanceTests", "test_database_layer:UnreadableBodyTests"]
        + ["test_database_layer_leases:SQLiteLeaseTests", "test_database_layer_leases:PolicyTests"]
        + ["test_database_lost_replies:SQLiteLostReplyTests", "test_database_isolation"]
        + [
            "test_database_layer:PostgreSQL%s" % each
            for each in ("NotificationTests", "InboxTests")
        ]
        + ["test_database_deadlines", "test_database_layer:PostgreSQLConformanceTests"]
        + ["test_database_layer_leases:PostgreSQLLeaseTests"]
        + ["test_database_layer:MariaDBConformanceTests"]
        + ["test_database_layer_leases:MariaDBLeaseTests", "test_database_damage"],
    ),
    Group(
        "memory",
        ["django/channels/layers/memory*.py", "django/channels/layers/delay.py"],
        ADDON,
        ["test_memory*", "test_engine_threads"],
    ),
    Group(
        "engine",
        ["django/channels/layers/engine/*.py", "django/channels/layers/*.py"],
        ADDON,
        ["test_engine*", "test_security_messages", "test_json_values", "test_memory_layer"]
        + ["test_directory_layer"],
    ),
    Group(
        "redis servers",
        [
            "asgi_redis/asgi_redis/%s.py" % each
            for each in ("cluster", "former", "layer", "servers")
        ],
        REDIS,
        ["test_settings", "test_former", "test_standalone", "test_topologies", "test_failures"],
    ),
    Group(
        "redis messages",
        ["asgi_redis/asgi_redis/%s.py" % each for each in ("codec", "direct", "wire")],
        REDIS,
        ["test_wire", "test_encryption", "test_standalone:EncryptionTests", "test_lost_replies"]
        + ["test_failures"],
    ),
    Group(
        "redis",
        ["asgi_redis/asgi_redis/*.py"],
        REDIS,
        ["test_standalone:StandaloneTests", "test_prefetch", "test_counters", "test_lost_replies"]
        + ["test_recovery", "test_expiry", "test_partition", "test_failures", "test_unwritable"]
        + ["test_damage", "test_standalone:PartitionsTests"],
    ),
]
#: Contracts and declarations: nothing in them runs, or all of it is trivial.
LEFT_OUT = ["*/__init__.py", "*/layers/base.py", "*/apps.py", "*/migrations/*"]


class CannotRun(Exception):
    """The tests cannot judge: the message says why."""


def group_of(path):
    return next((g for g in GROUPS if any(fnmatch.fnmatch(path, each) for each in g.paths)), None)


def tracked_files():
    """Return the paths of the working tree's files, those not yet committed included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode()
    return [path for path in listed.splitlines() if os.path.isfile(os.path.join(ROOT, path))]


def find_mutants(modules):
    """Return all mutants of the files that `modules` (paths or patterns; none: all) name."""
    found = []
    for path in sorted(tracked_files()):
        wanted = not modules or any(
            fnmatch.fnmatch(path, "*" + each) or each.strip("/") + "/" in path for each in modules
        )
        if not wanted or group_of(path) is None:
            continue
        if any(fnmatch.fnmatch(path, each) for each in LEFT_OUT):
            continue
        with open(os.path.join(ROOT, path), "rb") as file:
            found += mutants_of(path, file.read())
    return found


def read_equivalent(path=EQUIVALENT):
    """Return {(path, function, old, new): reason} of the file of equivalent mutants.

    An entry is four lines, "path: function", "- old", "+ new" and "reason: …"; entries are divided by an
    empty line, and lines that begin with "#" are comments.
    """
    with open(path, encoding="utf-8") as file:
        text = "".join(line for line in file if not line.startswith("#"))
    entries = {}
    for block in text.strip().split("\n\n") if text.strip() else ():
        match = re.match(r"(\S+): (\S+)\n- (.+)\n\+ (.+)\nreason: (\S[^\n]+)$", block.strip())
        if match is None:
            raise CannotRun("%s: not an entry with a reason:\n%s" % (path, block))
        entries[match.groups()[:4]] = match.group(5)
    return entries


def key(mutant):
    return (mutant.path, mutant.function, mutant.old, mutant.new)


def choose(mutants, number, seed):
    """Return a sample of `number` mutants, one a line at most, in the order of the files."""
    ordered = sorted(mutants)
    random.Random(seed).shuffle(ordered)
    chosen = {}
    for mutant in ordered:
        if len(chosen) < number:
            chosen.setdefault((mutant.path, mutant.line), mutant)
    return sorted(chosen.values())


class Copy:
    """A copy of the tree in which one mutant at a time is tried. One thread uses it."""

    def __init__(self, folder, files):
        self.root, self.mark = folder, uuid.uuid4().hex
        for path in files:
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(os.path.join(ROOT, path), target)
        # The package `channels`, as pyproject.toml maps it, before the installed one.
        library = os.path.join(folder, "library")
        os.mkdir(library)
        for source, package in sorted(PACKED.items(), key=lambda pair: pair[1]):
            os.symlink(os.path.join(folder, source), os.path.join(library, package))
        self.library = library

    def labels(self, group):
        """Return the labels of the group's test modules, the quickest first."""
        names = []
        for folder in FOLDERS.values():
            package = os.path.basename(folder)
            modules = sorted(os.listdir(os.path.join(self.root, folder)))
            names += ["%s.%s" % (package, name[:-3]) for name in modules if name.endswith(".py")]
        found = []
        for test in group.tests:
            pattern, _, only = test.partition(":")
            if "." not in pattern:
                pattern = "%s.%s" % (os.path.basename(FOLDERS[group.runner]), pattern)
            fitting = fnmatch.filter(names, pattern)
            if not fitting:
                raise CannotRun("No test module fits %s of the group %r" % (test, group.name))
            if only:
                fitting = ["%s.%s" % (name, only) for name in fitting]
            found += [each for each in fitting if each not in found]
        return found

    def run_tests(self, group, timeout):
        """Run the group's tests until the first failure; return (passed, seconds, output)."""
        environ = dict(os.environ, PYTHONPATH=self.library, PYTHONDONTWRITEBYTECODE="1")
        environ[MARK] = self.mark
        environ.pop("DJANGO_SETTINGS_MODULE", None)
        command = [sys.executable, os.path.join(self.root, group.runner), "--failfast"]
        command += ["--timeout", str(int(timeout) + 60)] + self.labels(group)
        started = time.monotonic()
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
                process.kill()
                process.wait()
            finally:
                self.kill_tests()
            log.seek(0)
            output = log.read().decode("utf-8", "replace")
        return status == 0, time.monotonic() - started, output

    def kill_tests(self):
        """Kill the tests that run, and every process that they started. Any thread may call it."""
        kill_marked(self.mark, MARK)

    def try_mutant(self, mutant, timeout):
        """Return what noticed (the failing test, or the exit), or "" if nothing did; and the seconds."""
        path = os.path.join(self.root, mutant.path)
        with open(path, "rb") as file:
            source = file.read()
        try:
            with open(path, "wb") as file:
                file.write(apply(mutant, source))
            passed, seconds, output = self.run_tests(group_of(mutant.path), timeout)
        finally:
            with open(path, "wb") as file:
                file.write(source)
        if passed:
            return "", seconds
        found = re.search(r"^(?:FAIL|ERROR): (.+)$", output, re.MULTILINE)
        if found:
            return found.group(1) + (TIMED_OUT if TIMEOUT_ERROR.search(output) else ""), seconds
        # The module cannot be imported, or the tests hang.
        if seconds < timeout and "Traceback" not in output:
            raise CannotRun("A run ended without a result:\n" + output[-2000:])
        return "no result" + (TIMED_OUT if seconds >= timeout else ""), seconds


def check_unchanged(copy, groups):
    """Run each group's tests on the unchanged copy; return {group: time limit of a mutant}.

    A group whose tests fail cannot judge, and is left out.
    """
    limits = {}
    for group in groups:
        passed, seconds, output = copy.run_tests(group, 900)
        if not passed:
            print("Without any change the tests of %r fail:\n%s" % (group.name, output[-3000:]))
            continue
        if group.runner == ADDON and copy.root not in output:
            raise CannotRun("The tests do not run on the copy:\n" + output[:1000])
        limits[group] = 30 + 3 * seconds
        print("%-15s %3.0f s unchanged" % (group.name, seconds), flush=True)
    return limits


def show(mutant):
    return "%s:%d  %s\n    - %s\n    + %s" % (
        mutant.path, mutant.line, mutant.function, mutant.old, mutant.new,
    )  # fmt: skip


def run(chosen, jobs, scratch, verbose):
    """Try the mutants `chosen`; return the survivors, and how many were tried in each file."""
    files = tracked_files()
    copies = queue.Queue()
    for number in range(jobs):
        copies.put(Copy(os.path.join(scratch, "copy-%d" % number), files))
    every = list(copies.queue)
    limits = check_unchanged(every[0], list(dict.fromkeys(group_of(m.path) for m in chosen)))
    chosen = [mutant for mutant in chosen if group_of(mutant.path) in limits]
    survivors, tried, begun = [], Counter(), time.monotonic()
    timed_out = 0

    def judge(mutant):
        copy = copies.get()
        try:
            return copy.try_mutant(mutant, limits[group_of(mutant.path)])
        finally:
            copies.put(copy)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool, contextlib.ExitStack() as stack:
        running = {pool.submit(judge, mutant): mutant for mutant in chosen}
        stack.enter_context(ending(running, every))
        for job in concurrent.futures.as_completed(running):
            mutant, (killer, seconds) = running[job], job.result()
            tried[mutant.path] += 1
            timed_out += killer.endswith(TIMED_OUT)
            if killer and verbose:
                print("killed by %s (%.0f s)  %s" % (killer, seconds, show(mutant)), flush=True)
            if not killer:
                survivors.append(mutant)
                print("SURVIVED (%.0f s)  %s" % (seconds, show(mutant)), flush=True)
            done = sum(tried.values())
            if done % 10 == 0:
                print(
                    "%d of %d, %.0f s" % (done, len(chosen), time.monotonic() - begun), flush=True
                )
    if timed_out:
        print("%d were killed by a time-out, which a busy machine may cause, too" % timed_out)
    return sorted(survivors), tried


@contextlib.contextmanager
def ending(jobs, copies):
    """If the block ends before the `jobs` have, end them and the processes of their `copies`."""
    try:
        yield
    finally:
        for job in jobs:
            job.cancel()
        while concurrent.futures.wait(jobs, timeout=0.1).not_done:
            for copy in copies:
                copy.kill_tests()


def stop(number, frame):
    """End the run for a signal. Its children run in the background, and would go on."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit("mutants: stopped by signal %d" % number)


def main():
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help="only these files or folders (patterns)"
    )
    parser.add_argument("--number", type=int, default=100, help="how many mutants (default: 100)")
    parser.add_argument("--seed", type=int, default=9, help="which of them (default: 9)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--verbose", action="store_true", help="print what killed each mutant, too")
    parser.add_argument("--list", action="store_true", help="print the sample, and run nothing")
    options = parser.parse_args()
    if sys.version_info < (3, 8):
        sys.exit("mutants: Python 3.8 or newer is needed: make mutants PYTHON=python3.11")
    try:
        sys.exit(0 if work(options) else 1)
    except CannotRun as error:
        sys.exit("mutants: %s" % error)


def work(options):
    """Choose, try and report; return whether enough mutants were killed."""
    every = find_mutants(options.modules)
    equivalent = read_equivalent()
    considered = {mutant.path for mutant in every}
    stale = set(equivalent) - {key(mutant) for mutant in every}
    stale = [each for each in sorted(stale) if each[0] in considered or not options.modules]
    candidates = [mutant for mutant in every if key(mutant) not in equivalent]
    chosen = choose(candidates, options.number, options.seed)
    print(
        "%d mutants in %d files, %d judged equivalent; %d tried, seed %d"
        % (len(every), len(considered), len(equivalent), len(chosen), options.seed)
    )
    if options.list:
        print("\n".join(show(mutant) for mutant in chosen))
        return True
    if not chosen:
        raise CannotRun("No mutant was found: is a module's path right?")
    scratch = tempfile.mkdtemp(prefix="channels-mutants-")
    os.chmod(scratch, 0o755)
    try:
        survivors, tried = run(chosen, options.jobs, scratch, options.verbose)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    lost = Counter(mutant.path for mutant in survivors)
    print()
    for path in sorted(tried):
        print("%3d of %3d killed  %s" % (tried[path] - lost[path], tried[path], path))
    for mutant in survivors:
        print(show(mutant))
    for each in stale:
        print("No such mutant any more; remove it from mutants-equivalent.txt:\n    " + str(each))
    number = sum(tried.values())
    if number < len(chosen):
        print(
            "%d mutants could not be judged: their tests fail without them" % (len(chosen) - number)
        )
    if not number:
        return False
    share = 1 - len(survivors) / number
    print("%.1f %% of %d killed, %.0f %% are needed" % (100 * share, number, 100 * LEAST))
    return share >= LEAST and number == len(chosen) and not stale


if __name__ == "__main__":
    main()
