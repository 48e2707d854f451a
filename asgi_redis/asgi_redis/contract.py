"""The contract and the engine, from wherever channels is installed: inside Django, or as the add-on."""

# ruff: noqa: F401
# mypy: implicit-reexport

try:
    from django.channels import protocol
    from django.channels.exceptions import ChannelFull, LayerUnavailable
    from django.channels.layers.base import DeadLetter, Inbox, Message
    from django.channels.layers.engine.inbox import Batch, PendingWork, Send
    from django.channels.layers.engine.layer import EngineLayer
    from django.channels.layers.engine.options import Options, refusal
    from django.channels.layers.engine.recovery import BURY, DROP, REQUEUE, WILL_EXPIRY, Action
    from django.channels.layers.engine.store import (
        Due,
        Entry,
        Heartbeat,
        Outgoing,
        Pending,
        Recovered,
        Store,
        Unreadable,
    )
    from django.channels.layers.names import check_channel_name, inbox_of
except ModuleNotFoundError as _error:
    if not (_error.name or "").startswith("django"):
        raise
    try:
        from channels import protocol
        from channels.exceptions import ChannelFull, LayerUnavailable
        from channels.layers.base import DeadLetter, Inbox, Message
        from channels.layers.engine.inbox import Batch, PendingWork, Send
        from channels.layers.engine.layer import EngineLayer
        from channels.layers.engine.options import Options, refusal
        from channels.layers.engine.recovery import BURY, DROP, REQUEUE, WILL_EXPIRY, Action
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
        from channels.layers.names import check_channel_name, inbox_of
    except ImportError as error:
        raise ImportError(
            "asgi_redis 2 needs django.channels: a patched Django, or the add-on `channels` of the "
            "same project (Channels 2 to 4 is another one; for it, install channels_redis)."
        ) from error
