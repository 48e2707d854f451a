"""The contract and the engine, from wherever channels is installed: inside Django, or as the add-on."""

# ruff: noqa: F401
# mypy: implicit-reexport

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channels import protocol
    from channels.exceptions import ChannelFull, LayerUnavailable, NotSent
    from channels.layers.base import DeadLetter, Inbox, Message
    from channels.layers.engine.counters import NUMBER_LIFETIME
    from channels.layers.engine.layer import EngineLayer
    from channels.layers.engine.options import Options, is_count, refusal, split
    from channels.layers.engine.pending import (
        UNSENDABLE,
        WILL_REFUSED,
        Batch,
        PendingWork,
        Send,
        encode,
    )
    from channels.layers.engine.recovery import DEAD_LETTER, DROP, REQUEUE, Action
    from channels.layers.engine.store import (
        Due,
        Entry,
        Heartbeat,
        Outgoing,
        Pending,
        Recovered,
        Store,
        Unreadable,
    )
    from channels.layers.engine.threads import start_thread
    from channels.layers.names import check_channel_name, inbox_of, queue_of, shares_queue
    from channels.log import RateLimit
else:
    # The same names, from the package that is there.
    protocol = None
    # The third name is that of the add-on next to Channels 4.
    for _package in ("django.channels", "channels", "django_channels"):
        try:
            protocol = import_module(_package + ".protocol")
            break
        except ModuleNotFoundError as error:
            # Only if it is the package, or the module, that is missing.
            if not (_package + ".protocol").startswith(error.name or "?"):
                raise
    if protocol is None:
        raise ImportError(
            "asgi_redis 2 needs django.channels: a patched Django, or the add-on `channels` or "
            "`django_channels` of the same project (Channels 2 to 4 is another one; for it, install "
            "channels_redis)."
        )
    for _module in (
        "exceptions layers.base layers.names layers.engine.counters layers.engine.layer "
        "layers.engine.options layers.engine.pending layers.engine.recovery layers.engine.store "
        "layers.engine.threads log"
    ).split():
        _names = vars(import_module("%s.%s" % (protocol.__package__, _module)))
        globals().update({name: value for name, value in _names.items() if name[0] != "_"})
