"""
From the signals of a bound model to messages: which groups saw a row before a change, and which after it.

Django sends the signals in many orders. A receiver may save the instance again inside `post_save`, delete it,
or save another instance of the same row. So each thread keeps a list of the saves and deletions that have
begun and not ended. A change inside another one starts from what the groups have been told, and tells the
outer change what they know now.

What is sent is what the database holds: if the instance may differ from its row, the row is read again.
Messages leave when the transaction commits. Names and sizes are checked before, so that nothing raises after
the commit.
"""

from __future__ import annotations

import logging
import threading
import weakref
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Iterable, Iterator, cast

from django.core.signals import request_finished
from django.db import OperationalError, connections

from ..channel import Group, group_names_of, report_failed_send
from ..compat import on_commit
from ..exceptions import InvalidChannelName, InvalidMessage, LayerUnavailable, MessageTooLarge
from ..log import RateLimit
from ..signals import consumer_finished

if TYPE_CHECKING:
    from .base import Binding

logger = logging.getLogger("django.channels.binding")
_failures = RateLimit()

CREATE = "create"
UPDATE = "update"
DELETE = "delete"

#: Attribute of an instance from a fixture.
RAW = "_binding_raw"

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
        self.groups: list[Group] = [Group(name) for name in sorted(names)]
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


class _Change:
    """A change of a row that has begun: `before` is the names of the groups that have seen the row."""

    def __init__(self, binding: type[Binding], instance: Any, using: str) -> None:
        self.binding, self.using = binding, using
        self.instance = weakref.ref(instance)
        self.before: set[str] = set()
        self.former: Any = None
        #: Whether another change of the row has ended meanwhile, and whether that was its deletion.
        self.overtaken = self.deleted = False

    def concerns(self, binding: type[Binding], instance: Any, using: str) -> bool:
        """Return whether this change is one of the row of `instance`."""
        if self.binding is not binding or self.using != using:
            return False
        own = self.instance()
        if own is None or own is instance:
            return own is instance
        return model_of(own) is model_of(instance) and _has_key(own) and own.pk == instance.pk

    def inner_change_ended(self, groups: set[str], row: Any) -> None:
        """Note what a change inside this one has sent: now `groups` see `row`. None: it was deleted."""
        self.before, self.overtaken, self.deleted = groups, True, row is None


class _Save(_Change):
    """A save that has begun."""


class _Deletion(_Change):
    """A deletion that has begun: `pending` is the message to the groups of the row, or None."""

    pending: PendingChange | None = None

    def prepare(self, instance: Any) -> None:
        """Make the message now, because afterwards the relations of the row are gone."""
        self.pending = None
        if self.before and not self.binding.overrides_send_messages():
            subject = instance if self.former is None else self.former
            self.pending = self.binding.prepare(subject, self.before, DELETE, self.using)

    def inner_change_ended(self, groups: set[str], row: Any) -> None:
        super().inner_change_ended(groups, row)
        self.former = row
        self.prepare(row)


class _Changes(threading.local):
    """The changes of this thread that have begun. One that failed stays until its instance is gone."""

    def __init__(self) -> None:
        self.begun: list[_Change] = []

    def around(self, binding: type[Binding], instance: Any, using: str) -> list[_Change]:
        self.begun[:] = [change for change in self.begun if change.instance() is not None]
        return [change for change in self.begun if change.concerns(binding, instance, using)]

    def end(self, kind: type[Any], binding: type[Binding], instance: Any, using: str) -> Any:
        """Return the last change of this kind that has begun with `instance`, and has ended now."""
        for position in reversed(range(len(self.begun))):
            change = self.begun[position]
            if type(change) is kind and change.binding is binding and change.using == using:
                if change.instance() is instance:
                    return self.begun.pop(position)
        return kind(binding, instance, using)


_changes = _Changes()


def _forget_failed_changes(**kwargs: Any) -> None:
    """Forget all changes: between two requests or consumers of a thread, each that has begun has failed."""
    _changes.begun.clear()


request_finished.connect(_forget_failed_changes, dispatch_uid="channels.binding")
consumer_finished.connect(_forget_failed_changes, dispatch_uid="channels.binding")


# The receivers of the signals. Their arguments are kept here, because an override in a binding may call
# `super()` without them.


class _Signals(threading.local):
    """The signals of models that are being received in this thread, the innermost last."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, Any], Any]] = []


_signals = _Signals()


@contextmanager
def signal(kwargs: dict[str, Any], begun: Any = None) -> Iterator[None]:
    """Receive a signal with these arguments. `begun` is the save or the deletion that it ends."""
    _signals.received.append((kwargs, begun))
    try:
        yield
    finally:
        _signals.received.pop()


def signal_kwargs() -> dict[str, Any] | None:
    """Return the arguments of the signal that is being received, or None outside of one."""
    return _signals.received[-1][0] if _signals.received else None


def before_change(binding: type[Binding], instance: Any, action: str) -> None:
    """Remember which groups see the row, in the receiver of a signal that comes before a change."""
    kwargs = _signals.received[-1][0]
    if action == DELETE:
        before_delete(binding, instance, kwargs["using"])
    else:
        is_new = action == CREATE and not instance._state.adding
        before_save(binding, instance, kwargs["using"], kwargs.get("raw", False), is_new)


def after_change(binding: type[Binding], instance: Any, action: str) -> None:
    """Tell the groups, in the receiver of a signal that comes after a change."""
    kwargs, begun = _signals.received[-1]
    if isinstance(begun, _Deletion):
        after_delete(binding, instance, begun, kwargs["using"])
    else:
        after_save(binding, instance, begun, action, kwargs)


def model_of(instance: Any) -> Any:
    """Return the model of `instance`, also of a deferred one or of a proxy."""
    return instance._meta.concrete_model


# Saving.


def before_save(
    binding: type[Binding], instance: Any, using: str, raw: bool, is_new: bool = False
) -> None:
    """Remember which groups see the row of `instance` before it is saved."""
    if raw:  # of a fixture: the database may not be queried before all of it is loaded
        instance.__dict__[RAW] = True
        return
    instance.__dict__.pop(RAW, None)
    wait_to_write(model_of(instance), using)
    save = _Save(binding, instance, using)
    outer = _changes.around(binding, instance, using)
    save.former = _row(binding, instance, using) if _has_key(instance) and not is_new else None
    if is_new:
        save.before = set()
    elif outer:
        save.before = outer[-1].before
    elif save.former is not None:
        save.before = groups_of(binding, save.former)
    if not connections[using].in_atomic_block:
        _check_in_advance(binding, instance)
    _changes.begun.append(save)


def _check_in_advance(binding: type[Binding], instance: Any) -> None:
    """
    Raise for a name of a group that isn't allowed, and for an instance that makes too large a message.

    Outside of a transaction, a save is committed before `post_save`. What cannot be known before, because it
    depends on the primary key, is logged then.
    """
    try:
        names: Any = binding.group_names(instance)
        names = names if isinstance(names, (str, bytes)) else list(names)
        texts = [value for value in instance.__dict__.values() if isinstance(value, (str, bytes))]
        large = sum(map(len, texts)) > _LARGE
        content = binding.content(instance, UPDATE) if large else None
    except Exception:  # the instance isn't complete before it is saved
        return
    for name in group_names_of(names, binding.__name__ + ".group_names()"):
        group = Group(name)
        if content is not None:
            group.channel_layer.check_message(content)
            content = None


def end_save(binding: type[Binding], instance: Any, using: str) -> _Save:
    """Return the save of `instance` that has ended in the database."""
    return cast("_Save", _changes.end(_Save, binding, instance, using))


def after_save(
    binding: type[Binding], instance: Any, save: _Save, action: str, kwargs: dict[str, Any]
) -> None:
    """
    Send what a save has changed. Raises what the binding raises, such as for a bad name or size, if the
    transaction can be rolled back. Otherwise the save is committed already: log and count it.
    """
    if kwargs.get("raw"):
        return
    try:
        _send_saved(binding, instance, save, action, kwargs)
    except Exception as error:
        if connections[kwargs["using"]].in_atomic_block:
            raise
        report_failed_send(Group("binding"), error)
        if not isinstance(error, (InvalidChannelName, InvalidMessage, MessageTooLarge)):
            _failures.log(logger.exception, "%s told no group of a saved row:", binding.__name__)


def _send_saved(
    binding: type[Binding], instance: Any, save: _Save, action: str, kwargs: dict[str, Any]
) -> None:
    using = kwargs["using"]
    current: Any = instance
    if save.overtaken or kwargs.get("update_fields") is not None or _may_differ(instance):
        current = _row(binding, instance, using) if _has_key(instance) else None
        if current is None:
            if save.deleted:
                return
            current = instance
        else:
            _keep_other_attributes(instance, current)
    after = set() if action == DELETE else groups_of(binding, current)
    for outer in _changes.around(binding, instance, using):
        outer.inner_change_ended(after, current)
    send_changes(binding, save.former or current, current, save.before, after, using)


def groups_of(binding: type[Binding], row: Any) -> set[str]:
    """Return the names of the groups that see `row`. Raises TypeError if the binding returns text."""
    return set(group_names_of(binding.group_names(row), binding.__name__ + ".group_names()"))


def send_changes(
    binding: type[Binding], former: Any, current: Any, before: set[str], after: set[str], using: str
) -> None:
    """
    Send to the groups that saw a row before a change, or see it after it. A group that no longer sees it
    gets the row as it was. It comes first, so that a client in several groups ends with the row.
    """
    kwargs = dict(signal_kwargs() or {}, using=using)
    binding.of(former).send_messages(former, before - after, DELETE, **kwargs)
    binding.of(current).send_messages(current, before & after, UPDATE, **kwargs)
    binding.of(current).send_messages(current, after - before, CREATE, **kwargs)


def _has_key(instance: Any) -> bool:
    return instance.pk is not None and not hasattr(instance.pk, "resolve_expression")


def wait_to_write(model: Any, using: str) -> None:
    """
    Wait for other writers before a binding of `model` reads in a transaction. Raises OperationalError after
    SQLite's timeout.

    In SQLite, the first write of a transaction waits for other writers. After a read, it may not: SQLite
    raises "database is locked" at once.
    """
    connection = connections[using]
    if connection.vendor != "sqlite" or not connection.in_atomic_block:
        return
    table = connection.ops.quote_name(model._meta.db_table)
    try:
        with connection.wrap_database_errors:
            # Not through Django, whose log and tests count the queries. It changes nothing.
            connection.connection.execute("DELETE FROM %s WHERE 0" % table)
    except OperationalError as error:
        if "locked" in str(error):
            raise  # otherwise it isn't a table, but a view


def _row(binding: type[Binding], instance: Any, using: str) -> Any:
    model = binding._model()
    if not isinstance(instance, model):
        model = model_of(instance)  # another one of get_registered_models
    return model._base_manager.using(using).filter(pk=instance.pk).first()


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
        if isinstance(value, Decimal) and value.as_tuple().exponent != -field.decimal_places:
            return True  # the database rounds it
    return False


def _keep_other_attributes(instance: Any, row: Any) -> None:
    """Give `row` what the site has set on the instance besides its fields."""
    fields = {field.attname for field in instance._meta.concrete_fields}
    for name, value in instance.__dict__.items():
        if name not in fields and not name.startswith("_"):
            row.__dict__.setdefault(name, value)


# Deleting.


def before_delete(binding: type[Binding], instance: Any, using: str) -> None:
    """Prepare the message about the deletion, for the groups that see the row."""
    _changes.end(_Deletion, binding, instance, using)  # one that has failed
    wait_to_write(model_of(instance), using)
    deletion = _Deletion(binding, instance, using)
    deletion.former = _row(binding, instance, using) if _has_key(instance) else None
    outer = _changes.around(binding, instance, using)
    if outer:
        deletion.before = outer[-1].before
    elif deletion.former is not None:
        deletion.before = groups_of(binding, deletion.former)
    deletion.prepare(instance)
    _changes.begun.append(deletion)


def end_deletion(binding: type[Binding], instance: Any, using: str) -> _Deletion:
    """Return the deletion of `instance` that has ended in the database."""
    return cast("_Deletion", _changes.end(_Deletion, binding, instance, using))


def after_delete(binding: type[Binding], instance: Any, deletion: _Deletion, using: str) -> None:
    """Send what `before_delete` prepared, when the transaction commits."""
    for outer in _changes.around(binding, instance, using):
        outer.inner_change_ended(set(), None)
    if deletion.pending is not None:
        on_commit(deletion.pending, using)
    elif deletion.before:
        kwargs = dict(signal_kwargs() or {}, using=using)
        subject = instance if deletion.former is None else deletion.former
        binding.of(subject).send_messages(subject, deletion.before, DELETE, **kwargs)
