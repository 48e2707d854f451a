"""`manage.py runworker`: a process of worker threads, for layers that processes share; or several
processes under a supervisor (../supervisor.py)."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ...asgi import DEFAULT_LAYER_ALIAS, channel_layers
from ...consume import consumer_name
from ...habits import PAGE
from ...layers.engine.options import MAX_SECONDS, is_number
from ...layers.engine.process import leave_all
from ...log import consumers_logger, process_logger, show_consumers, show_processes, shown
from ...places import ASYNC_CONCURRENCY
from ...worker import WorkerGroup
from ..supervisor import ParentPipe, Supervisor

if TYPE_CHECKING:
    from ...layers.base import BaseChannelLayer
    from ...message import Message

logger = logging.getLogger("django.channels.worker")

PACKAGE = __name__.rpartition(".management.")[0]

#: Seconds that Python may take to exit, in addition to the grace period.
EXIT_TIMEOUT = 2.0


class Command(BaseCommand):
    help = (
        "Runs a worker: threads that run the site's consumers on what comes over a channel layer. "
        "SIGTERM ends it once the consumers that run have ended; SIGHUP, with --processes, starts "
        "new processes on the code as it is now and ends the old ones."
    )

    def add_arguments(self, parser: Any) -> None:
        # In Channels 2 to 4, the names of channels follow the command.
        parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
        parser.add_argument(
            "--layer",
            default=DEFAULT_LAYER_ALIAS,
            help="Alias of the channel layer in CHANNEL_LAYERS (default: %(default)s).",
        )
        parser.add_argument(
            "--threads",
            type=int,
            default=4,
            help="How many messages a process handles at a time (default: %(default)s).",
        )
        add_async_concurrency(parser)
        parser.add_argument(
            "--processes",
            type=int,
            default=None,
            help="Runs so many processes of --threads threads each, starts a new one where one "
            "dies, and takes new code in without a pause at SIGHUP (default: one, not supervised).",
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="How long consumers that run may take to end after SIGTERM (default: %(default)s).",
        )
        parser.add_argument(
            "--only-channels",
            action="append",
            metavar="PATTERN",
            help="Handles only channels that match, such as 'http.*'. May be given several times.",
        )
        parser.add_argument(
            "--exclude-channels",
            action="append",
            metavar="PATTERN",
            help="Leaves channels that match to other workers. May be given several times.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.check_options(options)
        layer = get_layer(options["layer"])
        if not layer.crosses_processes:
            raise CommandError(
                "The channel layer %s lives in one process: what the server's process sends would "
                "never reach this one, and worker threads run in the server's process already. "
                "To run workers apart, give CHANNEL_LAYERS[%r] a BACKEND that processes share."
                % (layer, options["layer"])
            )
        if options["verbosity"] > 0:
            show_processes(settings)
        if settings.DEBUG and apps.is_installed("django.contrib.staticfiles"):
            import_module(PACKAGE + ".staticfiles").serve_static_files(layer)
        parent_pipe = ParentPipe.of_this_process()
        workers = WorkerGroup(
            layer,
            options["threads"],
            async_concurrency=options["async_concurrency"],
            only_channels=options["only_channels"],
            exclude_channels=options["exclude_channels"],
            callback=make_callback(layer, options),
        )
        channels = workers.workers[0].channels
        if not channels:
            raise CommandError(
                "No channel is left to work on: the routing has %s, and --only-channels and "
                "--exclude-channels leave no channel to consume."
                % (", ".join(sorted(layer.router.channels)) or "none")
            )
        if options["verbosity"] > 0 and parent_pipe is None:
            self.announce(layer, channels, options)
        if options["processes"] and parent_pipe is None:
            supervise(options)
        else:
            self.work(workers, parent_pipe, options["grace"])

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise CommandError for a number out of range, and for names of channels without an option."""
        if options["names"]:
            raise CommandError(
                "Name the channels that this worker handles with an option: %s. %s"
                % (" ".join("--only-channels %s" % name for name in options["names"]), PAGE)
            )
        if options["threads"] < 1:
            raise CommandError("--threads is %d; it must be at least 1." % options["threads"])
        check_async_concurrency(options)
        if options["processes"] is not None and options["processes"] < 1:
            raise CommandError("--processes is %d; it must be at least 1." % options["processes"])
        if not is_number(options["grace"]) or not 0 <= options["grace"] <= MAX_SECONDS:
            raise CommandError("--grace is %g; it is a number of seconds." % options["grace"])

    def announce(
        self, layer: BaseChannelLayer, channels: list[str], options: dict[str, Any]
    ) -> None:
        """Print what will run, and on which channels."""
        processes = options["processes"]
        self.stdout.write(
            "%s of %d thread%s%s on the channel layer %s\nChannels: %s\nQuit with CONTROL-C."
            % (
                "%d workers" % processes if processes and processes > 1 else "Worker",
                options["threads"],
                "" if options["threads"] == 1 else "s",
                " each" if processes and processes > 1 else "",
                layer,
                ", ".join(channels),
            )
        )
        self.stdout.flush()

    def work(self, workers: WorkerGroup, parent_pipe: ParentPipe | None, grace: float) -> None:
        """Work until a signal, or until the supervisor has gone. Raises SystemExit after `grace` seconds."""
        # A pipe, because an Event doesn't work here: the thread that the handler interrupts may hold its
        # lock, and the handler may run just before the wait begins.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)

        def stop() -> None:
            os.write(writing, b"1")

        received: list[int] = []

        def on_signal(number: int, frame: Any) -> None:
            received.append(number)

        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        if hasattr(signal, "SIGHUP"):
            # The terminal was closed; under a service manager: end, to be started on the new code.
            signal.signal(signal.SIGHUP, on_signal)
        workers.start()
        process_logger.info(
            "Worker process %d started: %d threads, %d channels, on the channel layer %s.",
            os.getpid(),
            len(workers.workers),
            len(workers.workers[0].channels),
            workers.channel_layer,
        )
        if parent_pipe is not None:
            parent_pipe.ready()
            parent_pipe.on_loss(stop)
        os.read(reading, 1)
        process_logger.info(
            "Worker process %d got %s and ends: %d of %d threads run a consumer, which gets %g s.",
            os.getpid(),
            signal.Signals(received[0]).name if received else "the end of its supervisor",
            sum(each.running is not None for each in workers.workers),
            len(workers.workers),
            grace,
        )
        self.end(workers, grace)

    def end(self, workers: WorkerGroup, grace: float) -> None:
        """Give running consumers `grace` seconds to end. Raises SystemExit if some have not."""
        deadline = time.monotonic() + grace + EXIT_TIMEOUT
        have_ended = workers.stop(grace)
        if getattr(self, "_called_from_command_line", False):  # not in a process that goes on
            threading.Thread(target=exit_at, args=(deadline,), daemon=True).start()
        if not have_ended:
            logger.error(
                "Consumers were still running %g s after this worker was told to end. It ends now, and "
                "their messages count as lost. A longer --grace lets them finish.",
                grace,
            )
            # What runs in a thread cannot be ended; the process can.
            raise SystemExit(1)


def exit_at(deadline: float) -> None:
    """
    End this process at `deadline` (monotonic). Until then it may exit by itself, for which Python waits for
    the threads of executors: those of sync_to_async and asyncio.to_thread run on after a cancelled consumer.
    """
    time.sleep(max(0.0, deadline - time.monotonic()))
    try:
        logger.error(
            "Threads that consumers have started still run. The process ends without them."
        )
        leave_all()
        logging.shutdown()
    finally:
        os._exit(1)


def add_async_concurrency(parser: Any) -> None:
    """Add the option --async-concurrency."""
    parser.add_argument(
        "--async-concurrency",
        type=int,
        default=ASYNC_CONCURRENCY,
        metavar="NUMBER",
        help="How many asynchronous consumers a process runs at a time, besides those of its threads "
        "(default: %(default)s).",
    )


def check_async_concurrency(options: dict[str, Any]) -> None:
    """Raise CommandError for a number that is out of range."""
    number = options["async_concurrency"]
    if number < 1:
        raise CommandError("--async-concurrency is %d; it must be at least 1." % number)


def supervise(options: dict[str, Any]) -> None:
    """Run the supervisor until it is told to end."""
    if not hasattr(signal, "SIGHUP"):
        raise CommandError("--processes needs signals that this system does not have.")
    supervisor = Supervisor(options["processes"], options["grace"])
    if not supervisor.run():
        raise SystemExit(1)


def make_callback(layer: BaseChannelLayer, options: dict[str, Any]) -> Any:
    """Return what a worker calls with each message: with -v 2, a function that logs it. Otherwise None."""
    if options["verbosity"] < 2:
        return None
    show_consumers()

    def log_consumer(channel: str, message: Message) -> None:
        match = layer.router.match(message)
        consumers_logger.info(
            "%s%s: %s",
            channel,
            " " + shown(message["path"]) if "path" in message else "",
            "no consumer" if match is None else consumer_name(match[0]),
        )

    return log_consumer


def get_layer(alias: str) -> BaseChannelLayer:
    """Return the channel layer `alias`. Raises CommandError if the settings name none, or a wrong one."""
    try:
        return channel_layers[alias]
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error
