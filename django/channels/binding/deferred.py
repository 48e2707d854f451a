"""
The signals of instances from `only()` and `defer()`, for Django before 1.10.

There, such an instance has its own class, made when the query runs, and signals have that class as their
sender. Later versions send them for the model itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable

from django.apps import apps
from django.db.models.signals import class_prepared, post_delete, post_save, pre_delete, pre_save

from ..compat import model_of_deferred

if TYPE_CHECKING:
    from django.db.models import Model

    from .base import Binding


def connect_deferred(bindings: Iterable[type[Binding]], model: type[Model]) -> None:
    """
    Connect `bindings` to the classes of deferred instances of `model`: those that exist, and later ones.

    Receivers for all senders would slow down deletion in every model: Django would fetch the rows that it
    deletes, in order to send the signals.
    """
    _connect_later_ones(bindings)
    for each in apps.get_models(include_auto_created=True, include_deferred=True):
        if model_of_deferred(each) is model:
            _connect(bindings, each)


def _connect_later_ones(bindings: Iterable[type[Binding]]) -> None:
    def prepared(sender: Any, **kwargs: Any) -> None:
        model = model_of_deferred(sender)
        if model is not None and any(binding._is_registered_for(model) for binding in bindings):
            _connect(bindings, sender)

    class_prepared.connect(prepared, weak=False, dispatch_uid="channels.deferred")


def _connect(bindings: Iterable[type[Binding]], deferred: type[Model]) -> None:
    for signal, name in (
        (pre_save, "pre_save_receiver"),
        (post_save, "post_save_receiver"),
        (pre_delete, "pre_delete_receiver"),
        (post_delete, "post_delete_receiver"),
    ):
        signal.connect(
            _receiver(bindings, name),
            sender=deferred,
            weak=False,
            dispatch_uid="channels.deferred",
        )


def _receiver(bindings: Iterable[type[Binding]], name: str) -> Any:
    def receive(sender: Any, **kwargs: Any) -> None:
        model = model_of_deferred(sender)
        for binding in list(bindings):
            if binding._is_registered_for(model):
                getattr(binding, name)(sender=model, **kwargs)

    return receive
