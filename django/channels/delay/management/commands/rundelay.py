"""`manage.py rundelay`: the process that takes the messages of `asgi.delay`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import OperationalError, ProgrammingError

from ....asgi import DEFAULT_LAYER_ALIAS, channel_layers
from ....backends import InvalidChannelLayerError
from ....layers.engine.options import MAX_SECONDS, is_number
from ...models import DelayedMessage
from ...worker import Worker


class Command(BaseCommand):
    help = "Takes messages that are sent to asgi.delay, and has them sent when they are due."
    leave_locale_alone = True

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--layer",
            dest="layer",
            default=DEFAULT_LAYER_ALIAS,
            help="Alias of the channel layer to serve (default: %(default)s).",
        )
        parser.add_argument(
            "--sleep",
            dest="sleep",
            type=float,
            default=1,
            help="Seconds between two polls of the database, where messages wait if the layer can't delay "
            "them (default: %(default)s).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            layer = channel_layers[options["layer"]]
        except InvalidChannelLayerError as error:
            raise CommandError(str(error)) from error
        if not is_number(options["sleep"]) or not 0 < options["sleep"] <= MAX_SECONDS:
            raise CommandError("--sleep takes a number of seconds greater than 0.")
        if not layer.crosses_processes:
            raise CommandError(
                "The layer %s is local to one process, so this command would never see a message. "
                "Configure one that crosses processes, such as asgi_redis.RedisChannelLayer."
                % layer
            )
        try:
            DelayedMessage.objects.exists()
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(
                "The table of delayed messages cannot be read (%s). Run manage.py migrate." % error
            ) from error
        if options["verbosity"] >= 1:
            self.stdout.write(
                "Delaying messages of %s on the layer %s; stop with CONTROL-C."
                % ("asgi.delay", layer)
            )
        Worker(layer, database_sleep_duration=options["sleep"]).run()
