"""The contract of a layer, from wherever channels is installed: inside Django, or as the add-on."""

try:
    from django.channels import protocol
    from django.channels.exceptions import (
        ChannelFull,
        InvalidMessage,
        LayerUnavailable,
        MessageTooLarge,
    )
    from django.channels.layers.base import BaseChannelLayer, DeadLetter, Inbox
    from django.channels.layers.engine.redelivery import DEAD_LETTER, REPORT, RETRY
    from django.channels.layers.engine.redelivery import RedeliveryPolicy as LostPolicy
    from django.channels.layers.messages import clean
    from django.channels.layers.names import (
        ByName,
        check_channel_name,
        check_group_name,
        inbox_of,
    )
    from django.channels.protocol import EVENT_CHANNELS
except ModuleNotFoundError as _error:
    if not (_error.name or "").startswith("django"):
        raise
    try:
        from channels import protocol
        from channels.exceptions import (
            ChannelFull,
            InvalidMessage,
            LayerUnavailable,
            MessageTooLarge,
        )
        from channels.layers.base import BaseChannelLayer, DeadLetter, Inbox
        from channels.layers.engine.redelivery import DEAD_LETTER, REPORT, RETRY
        from channels.layers.engine.redelivery import RedeliveryPolicy as LostPolicy
        from channels.layers.messages import clean
        from channels.layers.names import ByName, check_channel_name, check_group_name, inbox_of
        from channels.protocol import EVENT_CHANNELS
    except ImportError as error:
        raise ImportError(
            "asgi_redis 2 needs django.channels: a patched Django, or the add-on `channels` of the "
            "same project (Channels 2 to 4 is another one; for it, install channels_redis)."
        ) from error

__all__ = [
    "DEAD_LETTER",
    "EVENT_CHANNELS",
    "REPORT",
    "RETRY",
    "BaseChannelLayer",
    "ByName",
    "ChannelFull",
    "DeadLetter",
    "Inbox",
    "InvalidMessage",
    "LayerUnavailable",
    "LostPolicy",
    "MessageTooLarge",
    "check_channel_name",
    "check_group_name",
    "clean",
    "inbox_of",
    "protocol",
]
