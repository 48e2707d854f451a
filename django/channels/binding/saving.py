"""How a binding saves the row that a client changes."""

from __future__ import annotations

import inspect
from typing import Any

from django.db.models import Model

from .fields import identity
from .site_code import UNWANTED, by_model


def insert(instance: Any) -> None:
    """Save a new row, and never over another one."""
    _save(instance, force_insert=True)


def update(instance: Any) -> None:
    """Save a row, and never insert it again if it was deleted meanwhile."""
    model = type(instance)
    if not any(model._meta.parents.values()):
        _save(instance, force_update=True)
        return
    # With force_update, Django would insert the row of the parent, and then that of the child.
    keys = identity(model)
    _save(instance, update_fields=[f.name for f in _columns(model) if f.name not in keys])


def _save(instance: Any, **options: Any) -> None:
    """Save with the options, unless the model has a `save` that takes none: Channels 1.x saved that, too."""
    try:
        inspect.signature(instance.save).bind(**options)
    except (TypeError, ValueError):
        options = {}
    by_model(instance, instance.save, refusing=UNWANTED, **options)


def _columns(model: type[Model]) -> list[Any]:
    """Return the columns that a row's owner may write: without those that the database computes."""
    return [f for f in model._meta.concrete_fields if not getattr(f, "generated", False)]
