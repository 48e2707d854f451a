"""Django's own tests and ours in one run, in a shuffled order: no module leaves anything behind.

One run has Daphne. One does not: there our modules that need it skip themselves, and a class that
skips itself after Django prepared it would keep Django's hooks in place for all tests after it.
"""

import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor

import patch_django
from django_suite import run_suite
from interpreters import BUILD, python_of, run

#: Django's tests of what the patch adds to or could disturb: hooks, databases, signals, logging, serving.
DJANGO_LABELS = [
    "apps",
    "check_framework",
    "contenttypes_tests",
    "csrf_tests",
    "delete",
    "delete_regress",
    "dispatch",
    "file_uploads",
    "handlers",
    "httpwrappers",
    "logging_tests",
    "m2m_signals",
    "middleware_exceptions",
    "multiple_database",
    "requests",
    "serializers",
    "servers",
    "sessions_tests",
    "settings_tests",
    "signals",
    "staticfiles_tests",
    "test_client",
    "test_client_regress",
    "test_runner",
    "test_utils",
    "transaction_hooks",
    "transactions",
    "urlpatterns_reverse",
    "user_commands",
    "wsgi",
]

#: Quick ones of ours, which touch what those do.
OUR_LABELS = [
    "test_auth",
    "test_binding",
    "test_binding_hooks",
    "test_binding_rows",
    "test_channels1_project",
    "test_checks",
    "test_database_connections",
    "test_delay",
    "test_delay_upgrade",
    "test_generic",
    "test_habits",
    "test_log",
    "test_mistakes",
    "test_old_names",
    "test_on_commit",
    "test_routing",
    "test_security_checks",
    "test_sessions",
    "test_staticfiles",
    "test_test_client",
    "test_view_consumer",
    "test_worker_http",
]

#: Ours that start Daphne.
WITH_DAPHNE = ["test_gateway_daphne", "test_live_server"]

#: Ours that need Daphne, or more servers than are here, and skip themselves.
WITHOUT_DAPHNE = [
    "test_chat",
    "test_chat_browser",
    "test_database_layer_site",
    "test_gateway_daphne",
    "test_gateway_prepared",
    "test_gateway_servers.DaphneTests",
    "test_live_server",
    "test_security_proxies",
    "test_security_servers",
    "test_servers",
    "test_servers_processes",
    "test_websocketbridge",
]


class LeftBehind(Exception):
    """Tests fail in a mixed run; the message names them and the seed."""


def shuffled(extra, seed):
    """Return the labels of one run in the order of `seed` (a number)."""
    ours = [f"channels_tests.{name}" for name in OUR_LABELS + extra]
    labels = DJANGO_LABELS + ours
    random.Random(seed).shuffle(labels)
    return labels


def without(python, package, folder):
    """Return Python in a new environment in `folder`: that of `python`, where `package` isn't installed."""
    # Links instead of copies: an installation would take a minute.
    run([python, "-m", "venv", "--without-pip", folder])
    new = python_of(folder)
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    source, target = (run([each, "-c", code]).strip() for each in (python, new))
    for name in os.listdir(source):
        if not name.lower().startswith((package, "twisted_" + package)):
            os.symlink(os.path.join(source, name), os.path.join(target, name))
    return new


def check(python, seed, fails_before, logs, tell):
    """
    Run both, at the same time. Raises `LeftBehind` if a test fails that doesn't fail on the pristine tree:
    `fails_before(names)` returns the set of those that do. `tell(name, result)` is called for each run.
    """

    def one(name, interpreter, extra):
        # In CI, what is missing fails.
        environ = None if name == "daphne" else {"CI": ""}
        log = os.path.join(logs, f"mixed-{name.replace(' ', '-')}.log")
        labels = shuffled(extra, seed)
        return run_suite(interpreter, patch_django.PATCHED_TREE, labels, log=log, environ=environ)

    with tempfile.TemporaryDirectory(prefix="without-daphne-", dir=BUILD) as folder:
        runs = [("daphne", python, WITH_DAPHNE)]
        runs.append(("no daphne", without(python, "daphne", folder), WITHOUT_DAPHNE))
        with ThreadPoolExecutor(len(runs)) as pool:
            results = list(pool.map(lambda run: one(*run), runs))
    failing = {}
    for (name, _, _), result in zip(runs, results):
        tell(name, result)
        for each in result["failing"]:
            failing.setdefault(each, []).append(name)
    before = fails_before(sorted(failing))
    new = [f"{', '.join(where)}: {each}" for each, where in failing.items() if each not in before]
    if new:
        raise LeftBehind(
            f"Django's tests and ours in one run, seed {seed} (logs in {logs}):\n  "
            + "\n  ".join(new)
        )
