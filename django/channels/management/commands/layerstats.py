"""`manage.py layerstats`: what waits on a channel layer, and what was refused, dropped or lost."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Iterator

from django.core.management.base import BaseCommand, CommandError

from ...asgi import DEFAULT_LAYER_ALIAS
from ...exceptions import LayerUnavailable
from ...layers.engine.options import MAX_SECONDS, is_number
from ...log import visible
from .runworker import get_layer

if TYPE_CHECKING:
    from ...layers.base import BaseChannelLayer

#: What the numbers of `global_statistics` mean, in the order in which they are shown.
TITLES = (
    ("messages_count", "Messages sent"),
    ("messages_pending", "Messages waiting"),
    ("messages_max_age", "The oldest waits, seconds"),
    ("messages_held", "Messages with workers"),
    ("channel_full_count", "Refused: channel full"),
    ("messages_expired", "Dropped: expired"),
    ("dead_letters", "Dead letters"),
)

#: Clears a terminal, and goes to its top left corner (ECMA-48).
CLEAR = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = (
        "Shows what waits on a channel layer, and what was refused, dropped, redelivered or lost."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "channels",
            nargs="*",
            metavar="CHANNEL",
            help="Channels to look at (default: those of the routing).",
        )
        parser.add_argument(
            "--layer",
            default=DEFAULT_LAYER_ALIAS,
            help="Alias of the channel layer in CHANNEL_LAYERS (default: %(default)s).",
        )
        parser.add_argument("--json", action="store_true", help="Writes one line of JSON instead.")
        parser.add_argument(
            "--watch",
            type=float,
            nargs="?",
            const=2.0,
            metavar="SECONDS",
            help="Shows it again every so many seconds (default: 2), until Ctrl-C.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        layer = get_layer(options["layer"])
        if not layer.crosses_processes:
            raise CommandError(
                "The channel layer %s lives in the server's process; this one cannot see it. There, "
                "layer.statistics() and layer.global_statistics() tell." % layer
            )
        if "statistics" not in layer.extensions:
            raise CommandError("The channel layer %s keeps no statistics." % layer)
        watch = options["watch"]
        if watch is not None and (not is_number(watch) or not 0 < watch <= MAX_SECONDS):
            raise CommandError("--watch is %g; it is a number of seconds." % options["watch"])
        last = None
        try:
            while True:
                try:
                    now = self.collect(layer, options["channels"])
                    self.show(layer, now, last, options)
                    last = now
                except LayerUnavailable as error:
                    if options["watch"] is None:
                        raise CommandError(visible(error)) from error
                    self.stderr.write("The channel layer cannot be reached: %s" % visible(error))
                if options["watch"] is None:
                    return
                time.sleep(options["watch"])
        except KeyboardInterrupt:
            pass

    def collect(self, layer: BaseChannelLayer, channels: list[str]) -> dict[str, Any]:
        """Return the figures of one moment: what --json writes."""
        statistics = layer.global_statistics()
        return {
            "time": time.time(),
            "layer": {
                name: value for name, value in statistics.items() if not isinstance(value, dict)
            },
            "counters": statistics.get("counters", {}),
            "channels": {
                name: layer.channel_statistics(name)
                for name in channels or sorted(layer.router.channels)
            },
        }

    def show(
        self,
        layer: BaseChannelLayer,
        now: dict[str, Any],
        last: dict[str, Any] | None,
        options: dict[str, Any],
    ) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(now, sort_keys=True))
        else:
            if options["watch"] is not None and getattr(self.stdout, "isatty", bool)():
                self.stdout.write(CLEAR, ending="")
            for line in table(str(layer), now, last):
                self.stdout.write(visible(line))
        sys.stdout.flush()


def table(title: str, now: dict[str, Any], last: dict[str, Any] | None = None) -> Iterator[str]:
    """Yield the lines of a table of what `collect` gave, with the rates between it and `last`."""
    seconds = now["time"] - last["time"] if last else 0
    yield "Channel layer %s, %s" % (title, time.strftime("%H:%M:%S", time.localtime(now["time"])))
    yield ""
    known = [name for name, _ in TITLES]
    titles = dict(TITLES)
    figures = now["layer"]
    for name in [each for each in known if each in figures] + sorted(set(figures) - set(known)):
        text = number(figures[name])
        if last and name.endswith("_count") and seconds > 0:
            text += "  (%s/s)" % number((figures[name] - last["layer"].get(name, 0)) / seconds)
        yield "  %-28s %s" % (titles.get(name, name), text)
    if now["counters"]:
        yield ""
        yield "  Counted by gateways and workers, all together"
        for name, value in sorted(now["counters"].items()):
            yield "  %-28s %s" % (name.replace("_", " "), number(value))
    yield ""
    width = max([len(name) for name in now["channels"]] + [7])
    yield "  %-*s  %8s  %10s" % (width, "Channel", "waiting", "oldest, s")
    for name, each in now["channels"].items():
        yield "  %-*s  %8s  %10s" % (
            width,
            name,
            number(each.get("messages_pending", 0)),
            number(each.get("messages_max_age", 0.0)),
        )


def number(value: float) -> str:
    """Return a number with separators: 1,234 or 0.5."""
    return "{:,.1f}".format(value) if isinstance(value, float) else "{:,}".format(value)
