"""`manage.py runserver`: Daphne in front of the channel layer, worker threads, static files.

`--noasgi` leaves all of it to Django's WSGI server. apps.py makes this command the one that Django
takes, wherever the app stands in INSTALLED_APPS.
"""

from __future__ import annotations

import argparse
import atexit
import datetime
import errno
import os
import sys
import threading
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError, SystemCheckError
from django.utils import autoreload

from ...asgi import DEFAULT_LAYER_ALIAS
from ...checks import file_of_failed_routing
from ...compat import before_reloading, end_with_parent
from ...log import ActionLog, configure
from ...places import ASYNC_CONCURRENCY
from ...serving import log_start
from ...worker import WorkerGroup
from .runworker import (
    add_async_concurrency,
    check_async_concurrency,
    get_layer,
    make_callback,
)

if TYPE_CHECKING:
    from ...layers.base import BaseChannelLayer

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as WSGICommand
else:
    from django.core.management.commands.runserver import Command as WSGICommand

#: Seconds that consumers have to end before the autoreloader's new process starts.
RELOAD_GRACE = 5

#: Seconds that the autoreloader waits for the system checks before it looks for changes.
CHECKS_TIMEOUT = 30

PACKAGE = __name__.rpartition(".management.")[0]

#: Options of Channels 1.x, for Daphne 1, as its pages and its command wrote them.
TIMEOUTS = {
    "old_http_timeout": ["--http_timeout", "--http-timeout"],
    "old_handshake_timeout": ["--websocket_handshake_timeout", "--websocket-handshake-timeout"],
}

#: What Django's own runserver says of an address that it cannot have.
LISTEN_ERRORS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}


class Command(WSGICommand):
    help = "Starts Daphne and worker threads for development; with --noasgi, the WSGI server."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--asgi",
            action="store_true",
            dest="asgi",
            default=None,
            help="Ends with an error if Daphne is missing, instead of running Django's WSGI server.",
        )
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="asgi",
            help="Runs Django's WSGI server instead: no WebSockets, no channels.",
        )
        parser.add_argument(
            "--noworker",
            action="store_false",
            dest="run_worker",
            default=True,
            help="Runs no worker threads: consumers run in `manage.py runworker`.",
        )
        add_async_concurrency(parser)
        parser.add_argument(
            "--layer",
            default=DEFAULT_LAYER_ALIAS,
            help="Alias of the channel layer in CHANNEL_LAYERS (default: %(default)s).",
        )
        for name, spellings in TIMEOUTS.items():
            parser.add_argument(*spellings, dest=name, type=float, help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> Any:
        self.warn_of_timeouts(options)
        if options["asgi"] is None:
            options["asgi"] = self.has_daphne()
        if options["asgi"]:
            # Before the autoreloader starts: what is wrong is said once, and the command ends.
            import_daphne()
            layer = get_layer(options["layer"])
            check_async_concurrency(options)
            if not options["run_worker"] and not layer.crosses_processes:
                raise CommandError(
                    "--noworker: no other process can work on the channel layer %s, which lives in "
                    "this one. Leave --noworker out, or choose a layer that crosses processes in "
                    "CHANNEL_LAYERS." % layer
                )
            self.checked = threading.Event()
            before_reloading(lambda: self.checked.wait(CHECKS_TIMEOUT))
        return super().handle(*args, **options)

    def warn_of_timeouts(self, options: dict[str, Any]) -> None:
        """Say once that the time-outs of Channels 1.x do nothing."""
        for name, spellings in TIMEOUTS.items():
            if options.get(name) is not None and os.environ.get("RUN_MAIN") != "true":
                self.stderr.write(
                    "%s has no effect: the gateway has its own limits. Remove the option, and see "
                    'the page "Limits" of the documentation.' % spellings[0]
                )

    def has_daphne(self) -> bool:
        """Return whether Daphne can be imported. If not, say once how to get it."""
        try:
            import_daphne()
        except CommandError as error:
            if os.environ.get("RUN_MAIN") != "true":  # the autoreloader's child would repeat it
                self.stderr.write("%s\nUntil then, this is Django's WSGI server." % error)
            return False
        return True

    def inner_run(self, *args: Any, **options: Any) -> Any:
        if not options["asgi"]:
            return super().inner_run(*args, **options)
        if options["use_reloader"]:
            end_with_parent()
        try:
            # An error that stopped the start: the autoreloader shows it, and waits for the mend.
            autoreload.raise_last_exception()
            self.check_project(options)
        finally:
            self.checked.set()
        configure()
        layer = get_layer(options["layer"])
        layer.is_served = True
        self.serve_static(layer, options)
        workers = self.make_workers(layer, options)
        if workers is None:
            self.serve(layer, options)
            return
        # The autoreloader ends the process by leaving its main thread, which is another one than this.
        atexit.register(workers.stop, RELOAD_GRACE)
        workers.start()
        try:
            self.serve(layer, options)
        finally:
            workers.stop()

    def make_workers(self, layer: BaseChannelLayer, options: dict[str, Any]) -> WorkerGroup | None:
        """Return the worker threads that runserver runs itself, or None."""
        if not layer.crosses_processes:
            # The gateway has the threads of such a layer, and starts them with the first connection.
            if not options["use_threading"]:
                layer.threads = 1
            if options["async_concurrency"] != ASYNC_CONCURRENCY:
                layer.async_concurrency = options["async_concurrency"]
            return None
        if not options["run_worker"]:
            return None
        return WorkerGroup(
            layer,
            4 if options["use_threading"] else 1,
            async_concurrency=options["async_concurrency"],
            callback=make_callback(layer, options),
        )

    def check_project(self, options: dict[str, Any]) -> None:
        """Run the system checks, and warn of unapplied migrations, as in Django's own server."""
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        self.check_migrations()

    def check(self, *args: Any, **kwargs: Any) -> Any:
        """Run the system checks. If a routing failed, name its file, for the autoreloader to watch."""
        try:
            return super().check(*args, **kwargs)
        except SystemCheckError as error:
            # The autoreloader watches modules that were imported, and the file that an error names.
            error.filename = file_of_failed_routing()
            raise

    def serve_static(self, layer: BaseChannelLayer, options: dict[str, Any]) -> None:
        """Put the static files in front of the views, where Django's own server would do so."""
        if not options.get("use_static_handler") or not (
            settings.DEBUG or options.get("insecure_serving")
        ):
            return
        import_module(PACKAGE + ".staticfiles").serve_static_files(layer)

    def serve(self, layer: BaseChannelLayer, options: dict[str, Any]) -> None:
        """Run Daphne until Ctrl-C or SIGTERM."""
        daphne_server: Any = import_daphne().Server
        endpoints = import_module("daphne.endpoints").build_endpoint_description_strings(
            host=self.addr, port=int(self.port)
        )
        command, showwarning = self, warnings.showwarning

        class Server(daphne_server):
            def listen_success(self, port: Any) -> None:
                # Daphne has Twisted take Python's warnings, and throws them away.
                warnings.showwarning = showwarning
                command.announce(layer, port.getHost().port, options)
                log_start(layer)

            def listen_error(self, failure: Any) -> None:
                command.cannot_listen(failure.value)

        Server(
            application=layer,
            endpoints=endpoints,
            # In the autoreloader this is not the main thread, and signals are the reloader's.
            signal_handlers=not options["use_reloader"],
            action_logger=ActionLog(),
            verbosity=0,
        ).run()
        if options.get("shutdown_message"):
            self.stdout.write(options["shutdown_message"])

    def announce(self, layer: BaseChannelLayer, port: int, options: dict[str, Any]) -> None:
        """Write the lines that Django's own server writes, once the socket is open."""
        quit_key = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
        address = "[%s]" % self.addr if self._raw_ipv6 else self.addr
        workers = "" if options["run_worker"] else ", and no worker"
        self.stdout.write(
            "%s\n"
            "Django version %s, using settings %r\n"
            "Starting Daphne development server at http://%s:%s/\n"
            "Channel layer %s%s\n"
            "Quit the server with %s.\n"
            % (
                datetime.datetime.now().strftime("%B %d, %Y - %X"),
                django.get_version(),
                settings.SETTINGS_MODULE,
                address,
                port,
                layer,
                workers,
                quit_key,
            )
        )
        self.stdout.flush()

    def cannot_listen(self, error: Any) -> None:
        """Say why, and end the process: in a thread of the autoreloader, SystemExit would not."""
        cause = getattr(error, "socketError", error)
        text = LISTEN_ERRORS.get(getattr(cause, "errno", -1), str(cause))
        self.stderr.write("Error: %s" % text)
        self.stdout.flush()
        self.stderr.flush()
        os._exit(1)


def import_daphne() -> Any:
    """Return the module daphne.server. Raises CommandError, with the remedy, without Daphne."""
    try:
        return import_module("daphne.server")
    except ImportError as error:
        raise CommandError(
            "To serve WebSockets, runserver needs Daphne, which cannot be imported (%s). Install it with: "
            "pip install 'daphne>=4.0'" % error
        ) from error
