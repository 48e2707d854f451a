"""`manage.py runworker`: a process of worker threads, for layers that processes share."""

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ...asgi import DEFAULT_LAYER_ALIAS, channel_layers
from ...worker import WorkerGroup


class Command(BaseCommand):
    help = (
        "Runs a worker: threads that run the site's consumers on what comes over a channel layer."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--layer",
            default=DEFAULT_LAYER_ALIAS,
            help="Alias of the channel layer in CHANNEL_LAYERS (default: %(default)s).",
        )
        parser.add_argument(
            "--threads",
            type=int,
            default=4,
            help="How many messages it handles at a time (default: %(default)s).",
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

    def handle(self, *args, **options):
        if options["threads"] < 1:
            raise CommandError("--threads is %d; it must be at least 1." % options["threads"])
        layer = get_layer(options["layer"])
        if not layer.crosses_processes:
            raise CommandError(
                "The channel layer %s lives in one process: what the server's process sends would "
                "never reach this one, and worker threads run in the server's process already. "
                "To run workers apart, give CHANNEL_LAYERS[%r] a BACKEND that processes share."
                % (layer, options["layer"])
            )
        workers = WorkerGroup(
            layer,
            options["threads"],
            signal_handlers=True,
            only_channels=options["only_channels"],
            exclude_channels=options["exclude_channels"],
        )
        channels = workers.workers[0].channels
        if not channels:
            raise CommandError(
                "No channel is left to work on: the routing has %s, and --only-channels and "
                "--exclude-channels let none of them through."
                % (", ".join(sorted(layer.router.channels)) or "none")
            )
        if options["verbosity"] > 0:
            self.stdout.write(
                "Worker of %d thread%s on the channel layer %s\nChannels: %s\n"
                "Quit with CONTROL-C."
                % (
                    options["threads"],
                    "" if options["threads"] == 1 else "s",
                    layer,
                    ", ".join(channels),
                )
            )
            self.stdout.flush()
        workers.run()


def get_layer(alias):
    """The channel layer `alias`. Raises CommandError if the settings name none, or a wrong one."""
    try:
        return channel_layers[alias]
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error
