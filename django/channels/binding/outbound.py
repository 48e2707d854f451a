"""
From the signals of a bound model to messages: which groups saw a row before a change, and which after it.

Django sends the signals in many orders. A receiver may save the instance again inside `post_save`, delete it,
or save another instance of the same row. So each thread keeps a list of the saves that have begun and not
ended. A change inside another one starts from what the groups have been told, and tells the outer change
what they know now.

What is sent is what the database holds: if the instance may differ from its row, the row is read again.
Messages leave when the transaction commits. Names and sizes are checked before, so that nothing raises after
the commit.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Iterable, Iterator

from django.core.signals import request_finished
from django.db import connections

from ..channel import Group, report_failed_send
from ..compat import on_commit, relation_of
from ..exceptions import InvalidChannelName, InvalidMessage, LayerUnavailable, MessageTooLarge
from ..signals import consumer_finished
from .fields import chunks

if TYPE_CHECKING:
    from django.db.models import Model

    from .base import Binding

CREATE = "create"
UPDATE = "update"
DELETE = "delete"

#: Attributes of an instance: inside a deletion, inside a change of a many-to-many field, and from a fixture.
_DELETION, _RELATION, _RAW = "_binding_deletion", "_binding_relation", "_binding_raw"

#: A transaction with more hooks than these sends another message instead of looking for an earlier one.
_MAX_HOOKS_SEARCHED = 200


#: Characters in an instance above which its message may be too large.
_LARGE = 100000


class PendingChange:
    """A message for some groups that waits for the commit. Belongs to the thread of the transaction."""

    def __init__(
        self, key: tuple[Any, ...], action: str, names: Iterable[str], content: dict[str, Any]
    ) -> None:
        """`key` names the binding and the row. Raises for a bad name, and for content that is too large."""
        self.key = key
        self.action = action
        self.groups = [Group(name) for name in sorted(names)]
        self.replace(content)

    def replace(self, content: dict[str, Any]) -> None:
        """Send `content` instead."""
        for group in self.groups[:1]:
            group.channel_layer.check_message(content)
        self.content = content

    def __call__(self) -> None:
        """
        Send it. Raise nothing, because the change is already committed: log and count what is lost.
        """
        for number, group in enumerate(self.groups):
            try:
                group.send(self.content, on_commit=False)
            except LayerUnavailable as error:
                report_failed_send(group, error, len(self.groups) - number)
                return
            except Exception as error:
                report_failed_send(group, error)


class _Save:
    """A save that has begun: `before` is what the groups know of the row."""

    def __init__(self, binding: type[Binding], instance: Any, using: str) -> None:
        self.binding, self.using = binding, using
        self.instance = weakref.ref(instance)
        self.before: set[str] = set()
        self.former: Any = None
        self.deleted = False

    def is_of(self, binding: type[Binding], instance: Any, using: str) -> bool:
        """Return whether it saves the row of `instance`."""
        if self.binding is not binding or self.using != using:
            return False
        own = self.instance()
        return own is instance or (own is not None and _has_key(own) and own.pk == instance.pk)


class _Saves(threading.local):
    """The saves of this thread that have begun. One that failed stays until its instance is gone."""

    def __init__(self) -> None:
        self.begun: list[_Save] = []

    def around(self, binding: type[Binding], instance: Any, using: str) -> list[_Save]:
        self.begun[:] = [save for save in self.begun if save.instance() is not None]
        return [save for save in self.begun if save.is_of(binding, instance, using)]

    def end(self, binding: type[Binding], instance: Any, using: str) -> _Save | None:
        for position in reversed(range(len(self.begun))):
            save = self.begun[position]
            if save.binding is binding and save.using == using and save.instance() is instance:
                return self.begun.pop(position)
        return None


_saves = _Saves()


def _forget_failed_saves(**kwargs: Any) -> None:
    """Between two requests or consumers of a thread, every save that has begun has failed."""
    _saves.begun.clear()


request_finished.connect(_forget_failed_saves, dispatch_uid="channels.binding")
consumer_finished.connect(_forget_failed_saves, dispatch_uid="channels.binding")


# Saving.


def before_save(binding: type[Binding], instance: Any, using: str, raw: bool) -> None:
    """Remember which groups see the row of `instance` before it is saved."""
    if raw:  # of a fixture: the database may not be queried before all of it is loaded
        instance.__dict__[_RAW] = True
        return
    instance.__dict__.pop(_RAW, None)
    save = _Save(binding, instance, using)
    outer = _saves.around(binding, instance, using)
    save.former = _row(binding, instance.pk, using) if _has_key(instance) else None
    if outer:
        save.before = outer[-1].before
    elif save.former is not None:
        save.before = set(binding.group_names(save.former))
    if not connections[using].in_atomic_block:
        _check_in_advance(binding, instance)
    _saves.begun.append(save)


def _check_in_advance(binding: type[Binding], instance: Any) -> None:
    """
    Raise for a name of a group that isn't allowed, and for an instance that makes too large a message.

    Outside of a transaction, a save is committed before `post_save`. What cannot be known before, because it
    depends on the primary key, is logged then.
    """
    try:
        names = list(binding.group_names(instance))
        texts = [value for value in instance.__dict__.values() if isinstance(value, (str, bytes))]
        large = sum(map(len, texts)) > _LARGE
        content = binding.content(instance, UPDATE) if large else None
    except Exception:  # the instance isn't complete before it is saved
        return
    for name in names:
        group = Group(name)
        if content is not None:
            group.channel_layer.check_message(content)
            content = None


def after_save(
    binding: type[Binding], instance: Any, using: str, raw: bool, update_fields: Any
) -> None:
    """Send what a save has changed. Raises for a bad name or size, if the transaction can be rolled back."""
    if raw:
        return
    save = _saves.end(binding, instance, using) or _Save(binding, instance, using)
    current: Any = instance
    if save.deleted or update_fields is not None or _may_differ(instance):
        current = _row(binding, instance.pk, using) if _has_key(instance) else None
        if current is None:
            if save.deleted:
                return
            current = instance
        else:
            _keep_other_attributes(instance, current)
    after = set(binding.group_names(current))
    for outer in _saves.around(binding, instance, using):
        outer.before, outer.deleted = after, False
    try:
        send_changes(binding, save.former or current, current, save.before, after, using)
    except (InvalidChannelName, InvalidMessage, MessageTooLarge) as error:
        if connections[using].in_atomic_block:
            raise
        report_failed_send(Group("binding"), error)


def send_changes(
    binding: type[Binding], former: Any, current: Any, before: set[str], after: set[str], using: str
) -> None:
    """
    Send to the groups that saw a row before a change, or see it after it. A group that no longer sees it
    gets the row as it was.
    """
    binding.send_messages(current, after - before, CREATE, using=using)
    binding.send_messages(current, before & after, UPDATE, using=using)
    binding.send_messages(former, before - after, DELETE, using=using)


def _has_key(instance: Any) -> bool:
    return instance.pk is not None and not hasattr(instance.pk, "resolve_expression")


def _row(binding: type[Binding], pk: Any, using: str) -> Any:
    return binding._model()._base_manager.using(using).filter(pk=pk).first()


def _may_differ(instance: Any) -> bool:
    """Return whether a column is deferred, or holds something else than what would be read from the row."""
    for field in instance._meta.concrete_fields:
        if field.attname not in instance.__dict__:
            return True
        value = instance.__dict__[field.attname]
        if value is None:
            continue
        try:
            read = field.to_python(value)
        except Exception:  # an expression, for example F("value") + 1
            return True
        if type(read) is not type(value):
            return True
    return False


def _keep_other_attributes(instance: Any, row: Any) -> None:
    """Give `row` what the site has set on the instance besides its fields."""
    fields = {field.attname for field in instance._meta.concrete_fields}
    for name, value in instance.__dict__.items():
        if name not in fields and not name.startswith("_"):
            row.__dict__.setdefault(name, value)


# Deleting.


def before_delete(binding: type[Binding], instance: Any, using: str) -> None:
    """Prepare the message that tells who sees the row that it is deleted."""
    former = _row(binding, instance.pk, using) if _has_key(instance) else None
    outer = _saves.around(binding, instance, using)
    if outer:
        before = outer[-1].before
    else:
        before = set() if former is None else set(binding.group_names(former))
    pending = None
    if before:
        # Now, because afterwards its relations are gone.
        subject = instance if former is None else former
        pending = binding.prepare(subject, before, DELETE, using)
    instance.__dict__.setdefault(_DELETION, {})[binding] = pending


def after_delete(binding: type[Binding], instance: Any, using: str) -> None:
    """Send what `before_delete` prepared, when the transaction commits."""
    pending = instance.__dict__.get(_DELETION, {}).pop(binding, None)
    if not instance.__dict__.get(_DELETION, True):
        del instance.__dict__[_DELETION]
    for outer in _saves.around(binding, instance, using):
        outer.before, outer.deleted = set(), True
    if pending is not None:
        on_commit(pending, using)


# Many-to-many fields.


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
    if raw or instance.__dict__.get(_RAW):
        return
    for binding, field in _bound_to(bindings, sender):
        remembered = instance.__dict__.setdefault(_RELATION, {})
        if action.startswith("pre_"):
            keys = _changed_keys(field, instance, reverse, pk_set, using)
            before = {
                row.pk: set(binding.group_names(row)) for row in _rows(binding, field, keys, using)
            }
            remembered[binding, field.name] = keys, before
        else:
            keys, before = remembered.pop((binding, field.name), (set(), {}))
            for row in _rows(binding, field, keys, using):
                _send_relation(binding, row, before.get(row.pk, set()), using)


def _bound_to(bindings: Iterable[type[Binding]], through: Any) -> Iterator[Any]:
    """Yield each binding, once for each definition, with the field that `through` belongs to."""
    seen = set()
    for binding in list(bindings):
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
    """Return the primary keys of the rows, of the model that has the field, whose sets change."""
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
    Tell the groups of `row` its new set. A message about the row that waits for the same commit takes it up.
    """
    after = set(binding.group_names(row))
    told: set[str] = set()
    for pending in _waiting((binding, using, row.pk), using):
        pending.replace(binding.content(row, pending.action))
        told.update(group.name for group in pending.groups)
    send_changes(binding, row, row, before - (told & after), after - told, using)


def _waiting(key: tuple[Any, ...], using: str) -> Iterator[PendingChange]:
    """Yield the commit hooks that tell of the row and would be rolled back with the current change."""
    connection = connections[using]
    savepoints = set(connection.savepoint_ids) - {None}  # None: atomic(savepoint=False)
    hooks = getattr(connection, "run_on_commit", [])  # Django 1.8 lacks these hooks
    for hook in reversed(hooks[-_MAX_HOOKS_SEARCHED:]):
        pending = hook[1]
        if not isinstance(pending, PendingChange) or pending.key != key:
            continue
        if pending.action == DELETE or set(hook[0]) - {None} != savepoints:
            return
        yield pending
