"""Which tests run where: those that don't depend on Django's version need not run on each of them."""

import ast
import os

from interpreters import ROOT

TESTS = os.path.join(ROOT, "tests", "channels_tests")

# Modules, or classes, whose tests don't depend on Django's version: the engine's rules, layers that are no
# databases, worker processes and their supervisor, servers other than Daphne, browsers, and this
# repository's own files. Of the databases, SQLite remains. `make test` runs everything, and the first and the
# last row of the matrix all but ONCE. The rows between and the patched Django leave these out.
LEFT_OUT = (
    "test_async_killed",
    "test_async_layers",
    "test_async_streams",
    "test_chat",
    "test_chat_browser",
    "test_database_damage",
    "test_database_deadlines",
    "test_database_isolation",
    "test_database_layer.MariaDBConformanceTests",
    "test_database_layer.PostgreSQLConformanceTests",
    "test_database_layer_leases",
    "test_database_layer_load",
    "test_database_layer_pooler",
    "test_database_layer_site.ChatTests",
    "test_database_layer_site.MariaDBSiteTests",
    "test_database_layer_site.PostgreSQLSiteTests",
    "test_database_lost_replies",
    "test_database_refusals",
    "test_database_silent_site",
    "test_directory_layer",
    "test_docs",
    "test_docs_howto",
    "test_docs_site",
    "test_docs_tutorial",
    "test_engine_inbox",
    "test_engine_layer",
    "test_engine_leases",
    "test_engine_lost_replies",
    "test_engine_rules",
    "test_engine_waiting",
    "test_event_model",
    "test_fuzz",
    "test_gateway_http2",
    "test_gateway_servers.GranianTests",
    "test_gateway_servers.HypercornTests",
    "test_gateway_servers.UvicornTests",
    "test_gateway_servers.UvicornUnderGunicornTests",
    "test_gateway_uploads",
    "test_lying_layers",
    "test_memory_layer",
    "test_odd_errors",
    "test_open_transactions.MariaDBTests",
    "test_open_transactions.PostgreSQLTests",
    "test_runworker.GraceTests",
    "test_runworker.SupervisorTests",
    "test_security_compression",
    "test_security_servers",
    "test_send_order",
    "test_servers",
    "test_servers_head",
    "test_servers_processes",
    "test_support",
    "test_supported_versions",
    "test_types",
    "test_undecided",
    "test_undecided_ends",
    "test_websocketbridge",
    "test_worker_streams",
    "test_wsgi_servers",
)

# Those that read only the built documentation, or what a browser does with the chat's page: the same for each
# row of the matrix.
ONCE = ("test_chat_browser", "test_docs_site")

# Those whose tests start processes. They depend on Django's version in what changes seldom: the commands, the
# autoreloader, static files. Both ends, the patched Django, and the rows of matrix.WITH_PROCESSES run them.
# In the other rows, the site that each row makes and serves is what starts processes.
PROCESSES = (
    "test_database_layer",
    "test_database_layer_site",
    "test_gateway_fragments",
    "test_gateway_prepared",
    "test_gateway_servers",
    "test_growth",
    "test_paths",
    "test_process_lines",
    "test_runserver",
    "test_runworker",
    "test_security_proxies",
    "test_wsgi.GunicornTests",
    "test_wsgi.OwnApplicationTests",
)


def labels():
    """Return the labels of all tests but LEFT_OUT, for a runner that can't leave tests out."""
    found = []
    for name in sorted(os.listdir(TESTS)):
        module = name[:-3]
        if not (name.startswith("test_") and name.endswith(".py")) or module in LEFT_OUT:
            continue
        if any(each.startswith(module + ".") for each in LEFT_OUT):
            found += [f"channels_tests.{module}.{each}" for each in _remaining_classes(module)]
        else:
            found.append(f"channels_tests.{module}")
    return found


def _remaining_classes(module):
    """Return the names of the classes of `module` that are test cases and not among LEFT_OUT."""
    with open(os.path.join(TESTS, module + ".py"), encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and f"{module}.{node.name}" not in LEFT_OUT
        and any(ast.dump(base).count("TestCase'") for base in node.bases)
    ]
