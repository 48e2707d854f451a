"""
The class methods of a binding that receive the signals of its models.

Subclasses may override each of them, as in Channels 1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from . import outbound
from .outbound import CREATE, DELETE, UPDATE

if TYPE_CHECKING:
    from .base import Binding


class Receivers:
    """The part of a Binding that receives signals. What they mean is in outbound.py."""

    @classmethod
    def pre_save_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receive `pre_save`: call `pre_change_receiver`."""
        with outbound.signal(kwargs):
            cls.pre_change_receiver(instance, CREATE if instance._state.adding else UPDATE)

    @classmethod
    def post_save_receiver(cls, instance: Any, created: bool, **kwargs: Any) -> None:
        """Receive `post_save`: call `post_change_receiver`."""
        with outbound.signal(
            kwargs, outbound.end_save(cast("type[Binding]", cls), instance, kwargs["using"])
        ):
            cls.post_change_receiver(instance, CREATE if created else UPDATE, **kwargs)

    @classmethod
    def pre_delete_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receive `pre_delete`: call `pre_change_receiver`."""
        with outbound.signal(kwargs):
            cls.pre_change_receiver(instance, DELETE)

    @classmethod
    def post_delete_receiver(cls, instance: Any, **kwargs: Any) -> None:
        """Receive `post_delete`: call `post_change_receiver`."""
        with outbound.signal(
            kwargs, outbound.end_deletion(cast("type[Binding]", cls), instance, kwargs["using"])
        ):
            cls.post_change_receiver(instance, DELETE, **kwargs)

    @classmethod
    def pre_change_receiver(cls, instance: Any, action: str) -> None:
        """
        Remember which groups see `instance` before the change. An override calls `super()`, unless nothing
        must be sent. With CREATE, no group has seen it.
        """
        outbound.before_change(cast("type[Binding]", cls), instance, action)

    @classmethod
    def post_change_receiver(cls, instance: Any, action: str, **kwargs: Any) -> None:
        """
        Send what the change means for the groups that saw `instance` before it, or see it now. An override
        that doesn't call `super()` sends nothing. With DELETE, no group sees it any more.
        """
        outbound.after_change(cast("type[Binding]", cls), instance, action)
