"""Changes of many-to-many fields, from either side, to messages about the rows that have the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator

from django.apps import apps
from django.db import connections
from django.db.models.signals import m2m_changed

from ..compat import relation_of
from .fields import chunks
from .outbound import DELETE, RAW, PendingChange, groups_of, model_of, send_changes, wait_to_write

if TYPE_CHECKING:
    from django.db.models import Model

    from .base import Binding

#: Attribute of an instance inside a change of a many-to-many field.
_RELATION = "_binding_relation"

#: How many of a transaction's commit hooks, from the last, are searched for an earlier message about a row.
_MAX_HOOKS_SEARCHED = 200


def relation_changed(
    bindings: Iterable[type[Binding]],
    sender: Any,
    instance: Any,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    raw: bool = False,
    **kwargs: Any,
) -> None:
    """Receive `m2m_changed` of any relation, for the bindings that send its field."""
    if raw or instance.__dict__.get(RAW):
        return
    for binding, field in _bound_to(bindings, sender):
        remembered = instance.__dict__.setdefault(_RELATION, {})
        if action.startswith("pre_"):
            wait_to_write(field.model, using)
            keys = _changed_keys(field, instance, reverse, pk_set, using)
            before = {row.pk: groups_of(binding, row) for row in _rows(binding, field, keys, using)}
            remembered[binding, field.name] = keys, before
        else:
            keys, before = remembered.pop((binding, field.name), (set(), {}))
            for row in _rows(binding, field, keys, using):
                _send_relation(binding, row, before.get(row.pk, set()), using)


def connect_relations(model: type[Model], receiver: Callable[..., None]) -> None:
    """
    Connect `receiver` to changes of the many-to-many fields of `model`.

    A receiver for all senders would slow down deletion in every model: if `m2m_changed` has a receiver for a
    model, Django fetches the rows that it deletes.
    """
    if not apps.models_ready:  # the table of a relation may not be known yet
        m2m_changed.connect(receiver, dispatch_uid="channels.binding")
        return
    for field in model._meta.many_to_many:
        through = relation_of(field).through
        m2m_changed.connect(receiver, sender=through, dispatch_uid="channels.binding")


def _bound_to(bindings: Iterable[type[Binding]], through: Any) -> Iterator[Any]:
    """Yield each binding, once for each definition, with the field that `through` belongs to."""
    seen = set()
    for binding in [each for each in bindings if each.model_label is not None]:
        for field in binding._model()._meta.many_to_many:
            if (
                relation_of(field).through is not through
                or field.name not in binding.bound_fields()
            ):
                continue
            name = binding.__module__, binding.__qualname__, field.name
            if name not in seen:
                seen.add(name)
                yield binding, field


def _changed_keys(
    field: Any, instance: Any, reverse: bool, pk_set: set[Any] | None, using: str
) -> set[Any]:
    """Return the primary keys of the rows whose sets change: rows of the model that defines the field."""
    owner = field.model
    if pk_set is not None and not pk_set:
        return set()
    members = set(pk_set or ())
    if not reverse:
        own = {getattr(instance, owner._meta.pk.attname)}
        if not relation_of(field).symmetrical:
            return own
        if pk_set is None:
            members = set(getattr(instance, field.name).values_list("pk", flat=True))
        return own | members
    if pk_set is None:
        rows = owner._base_manager.using(using).filter(**{field.name: instance.pk})
        members = set(rows.values_list("pk", flat=True))
    return members


def _rows(binding: type[Binding], field: Any, keys: set[Any], using: str) -> Iterator[Model]:
    """Yield the rows of the binding's model with these primary keys, which are of the field's model."""
    model = binding._model()
    link = None if model is field.model else model._meta.get_ancestor_link(field.model)
    name = "pk" if link is None else link.name
    for some in chunks(keys):
        yield from model._base_manager.using(using).filter(**{name + "__in": some})


def _send_relation(binding: type[Binding], row: Any, before: set[str], using: str) -> None:
    """
    Send the new set of `row` to its groups. If a message about the row already waits for the same commit,
    change that message instead.
    """
    after = groups_of(binding, row)
    told: set[str] = set()
    for pending in _waiting((binding, using, model_of(row), row.pk), using):
        pending.replace(binding.content(row, pending.action))
        told.update(group.name for group in pending.groups)
    send_changes(binding, row, row, before - (told & after), after - told, using)


def _waiting(key: tuple[Any, ...], using: str) -> Iterator[PendingChange]:
    """Yield the commit hooks that tell of the row and would be rolled back with the current change."""
    connection = connections[using]
    savepoints = set(connection.savepoint_ids) - {None}  # None: atomic(savepoint=False)
    hooks = getattr(connection, "run_on_commit", [])
    for hook in reversed(hooks[-_MAX_HOOKS_SEARCHED:]):
        pending = hook[1]
        if not isinstance(pending, PendingChange) or pending.key != key:
            continue
        if pending.action == DELETE or set(hook[0]) - {None} != savepoints:
            return
        yield pending
