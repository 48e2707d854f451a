"""
Refuse asynchronous methods of bindings. They are called and not awaited: the coroutine of `has_permission`
would count as true, and that of `create` would never run.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from ..coroutines import is_async

#: The methods that a binding may override.
METHODS = (
    "create",
    "delete",
    "deserialize",
    "get_handler",
    "get_registered_models",
    "group_names",
    "has_permission",
    "post_change_receiver",
    "pre_change_receiver",
    "refuse",
    "run_action",
    "send_messages",
    "serialize",
    "serialize_data",
    "trigger_inbound",
    "update",
)


def check_synchronous(binding: type) -> None:
    """Raise ImproperlyConfigured if a method of the class `binding` is asynchronous."""
    for name in METHODS:
        if is_async(getattr(binding, name, None)):
            raise ImproperlyConfigured(
                "%s.%s must not be asynchronous: write def, not async def."
                % (binding.__name__, name)
            )
