"""`manage.py deadletters`: list, show, requeue or drop the messages that a layer gave up."""

from __future__ import annotations

import fnmatch
import pprint
import time
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from ...asgi import DEFAULT_LAYER_ALIAS
from ...exceptions import LayerUnavailable
from ...generic.json_text import dump_json
from ...log import visible
from .runworker import get_layer

if TYPE_CHECKING:
    from ...layers.base import BaseChannelLayer, DeadLetter

ACTIONS = ("list", "show", "requeue", "drop")


class Command(BaseCommand):
    help = (
        "Lists the messages that a channel layer gave up because their worker died or they could not "
        "be read; shows them, puts them back on their channels, or drops them."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("action", nargs="?", choices=ACTIONS, default="list")
        parser.add_argument("ids", nargs="*", metavar="ID", help="Ids of dead letters, as listed.")
        parser.add_argument(
            "--layer",
            default=DEFAULT_LAYER_ALIAS,
            help="Alias of the channel layer in CHANNEL_LAYERS (default: %(default)s).",
        )
        parser.add_argument(
            "--channel",
            metavar="PATTERN",
            help="Only those of channels that match, such as 'mail.*'.",
        )
        parser.add_argument(
            "--all", action="store_true", dest="every", help="Requeues or drops without naming ids."
        )
        parser.add_argument("--json", action="store_true", help="Writes a line of JSON for each.")

    def handle(self, *args: Any, **options: Any) -> None:
        layer = get_layer(options["layer"])
        if "dead_letters" not in layer.extensions:
            raise CommandError("The channel layer %s keeps no dead letters." % layer)
        action, changes = options["action"], options["action"] in ("requeue", "drop")
        if changes and not (options["ids"] or options["every"] or options["channel"]):
            raise CommandError(
                "Name the ids to %s (see: manage.py deadletters list), or give --channel or --all."
                % action
            )
        try:
            letters = self.choose(layer.dead_letters(), options)
            if changes:
                self.change(layer, action, letters)
            else:
                self.tell(action, letters, options["json"])
        except LayerUnavailable as error:
            raise CommandError(visible(error)) from error

    def choose(self, letters: list[DeadLetter], options: dict[str, Any]) -> list[DeadLetter]:
        """Return the letters that the options name. Raises CommandError for an unknown id."""
        if options["ids"]:
            known = {str(letter.id): letter for letter in letters}
            missing = [each for each in options["ids"] if each not in known]
            if missing:
                raise CommandError("No dead letter has the id %s." % ", ".join(missing))
            letters = [known[each] for each in options["ids"]]
        if options["channel"]:
            letters = [
                each for each in letters if fnmatch.fnmatchcase(each.channel, options["channel"])
            ]
        return letters

    def change(self, layer: BaseChannelLayer, action: str, letters: list[DeadLetter]) -> None:
        ids = [letter.id for letter in letters]
        if action == "requeue":
            count = layer.requeue_dead_letters(ids) if ids else 0
            self.stdout.write("Put back on their channels: %d" % count)
        else:
            count = layer.drop_dead_letters(ids) if ids else 0
            self.stdout.write("Dropped: %d" % count)

    def tell(self, action: str, letters: list[DeadLetter], as_json: bool) -> None:
        for letter in letters:
            if as_json:
                self.stdout.write(dump_json(letter._asdict(), default=repr, sort_keys=True))
                continue
            self.stdout.write(
                visible(
                    "%-18s  %s  %-10s  %s"
                    % (
                        letter.id,
                        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.time)),
                        letter.reason,
                        letter.channel,
                    )
                )
            )
            if action == "show":
                text = "(cannot be read)"
                if letter.message is not None:
                    text = pprint.pformat(letter.message, width=96)
                self.stdout.write("".join("    %s\n" % visible(line) for line in text.splitlines()))
        if not as_json:
            self.stdout.write("%d dead letter%s" % (len(letters), "" if len(letters) == 1 else "s"))
