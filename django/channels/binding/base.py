"""
Data binding without a protocol: which groups learn of a change, and which changes a client may make.

A subclass for a model says which groups see an instance (`group_names`) and which users may change it
(`has_permission`). A subclass for a protocol says what messages look like (`serialize`, `deserialize`). The
actions are "create", "update" and "delete", from the point of view of the group that receives the message.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Iterable, cast

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from ..auth import channel_session_user
from ..channel import Group
from ..compat import on_commit

if TYPE_CHECKING:
    from ..message import Message
    from ..types import Consumer

CREATE = "create"
UPDATE = "update"
DELETE = "delete"

logger = logging.getLogger("django.channels.binding")


class BindingMetaclass(type):
    """Connects each binding that has a model to the signals of the model, when the class is made."""

    #: All bindings that are connected, in the order of definition.
    binding_classes: list[type[Binding]] = []

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> BindingMetaclass:
        binding = cast("type[Binding]", super().__new__(cls, name, bases, body))
        if binding.model is not None:
            binding.register()
            cls.binding_classes.append(binding)
        return binding

    @property
    def consumer(cls) -> Consumer:
        """The consumer of inbound changes, for a demultiplexer's `consumers` or a route."""
        binding = cast("type[Binding]", cls)

        def consumer(message: Message, **kwargs: Any) -> None:
            binding.trigger_inbound(message, **kwargs)

        consumer.__name__ = "%s.consumer" % cls.__name__
        consumer.__module__ = cls.__module__
        if binding.channel_session_user:
            return channel_session_user(consumer)
        return consumer


class Binding(metaclass=BindingMetaclass):
    """
    The binding of one model, in both directions.

    An instance handles one change. A subclass without a `model` is a base class for others.
    """

    #: The model class. A subclass of the model is another model, and needs another binding.
    model: type[Model] | None = None

    #: Names of the fields that are sent and accepted: a list, or ["__all__"]. Required, unless
    #: `exclude` is given.
    fields: list[str] | None = None

    #: Names of the fields that are not sent and not accepted: a list.
    exclude: list[str] | None = None

    #: Whether the user of inbound messages comes from the channel session (`self.user`).
    channel_session_user: bool = True

    # Set for an outbound change.
    instance: Model

    # Set for an inbound change.
    message: Message
    kwargs: dict[str, Any]
    user: Any
    action: str
    pk: Any
    data: dict[str, Any]

    @classmethod
    def register(cls) -> None:
        """Connect to the signals of the model. Raises ImproperlyConfigured without `fields`."""
        if not (isinstance(cls.model, type) and issubclass(cls.model, Model)):
            raise ImproperlyConfigured(
                "%s.model must be a model class, not %r." % (cls.__name__, cls.model)
            )
        if cls.fields is None and cls.exclude is None:
            raise ImproperlyConfigured(
                "%s must say which fields to send: set fields to a list of names, or to "
                '["__all__"], or set exclude.' % cls.__name__
            )
        for names in (cls.fields, cls.exclude):
            if isinstance(names, str):
                raise ImproperlyConfigured(
                    "%s: fields and exclude are lists, not text: write [%r]."
                    % (cls.__name__, names)
                )
        # An id for the class, so that a class that is defined again (a reload) doesn't send everything twice.
        name = "%s.%s" % (cls.__module__, cls.__qualname__)
        for signal, receiver in (
            (pre_save, cls._before_save),
            (post_save, cls._after_save),
            (pre_delete, cls._before_delete),
            (post_delete, cls._after_delete),
        ):
            signal.connect(receiver, sender=cls.model, weak=False, dispatch_uid=name)

    @classmethod
    def bound_fields(cls) -> list[str]:
        """Return the names of the model's fields that this binding sends and accepts."""
        excluded = set(cls.exclude or ())
        wanted = None if cls.fields is None or "__all__" in cls.fields else set(cls.fields)
        meta = cls._model()._meta
        return [
            field.name
            for field in list(meta.concrete_fields) + list(meta.many_to_many)
            if field.name not in excluded and (wanted is None or field.name in wanted)
        ]

    @classmethod
    def _model(cls) -> type[Model]:
        if cls.model is None:
            raise ImproperlyConfigured("%s must set model, the model class." % cls.__name__)
        return cls.model

    # Outbound: signals to groups.

    @classmethod
    def _before_save(cls, sender: type[Model], instance: Model, using: str, **kwargs: Any) -> None:
        # Clients know what the database holds. The instance may have changed since it was loaded, or may have
        # been made with the primary key of a row that exists.
        former = None
        if instance.pk is not None:
            former = sender._base_manager.using(using).filter(pk=instance.pk).first()
        _remember(instance, cls, set() if former is None else set(cls.group_names(former)))

    @classmethod
    def _after_save(cls, sender: type[Model], instance: Model, using: str, **kwargs: Any) -> None:
        cls._send_changes(instance, _recall(instance, cls), set(cls.group_names(instance)), using)

    @classmethod
    def _before_delete(
        cls, sender: type[Model], instance: Model, using: str, **kwargs: Any
    ) -> None:
        _remember(instance, cls, set(cls.group_names(instance)))

    @classmethod
    def _after_delete(cls, sender: type[Model], instance: Model, using: str, **kwargs: Any) -> None:
        cls._send_changes(instance, _recall(instance, cls), set(), using)

    @classmethod
    def _send_changes(cls, instance: Model, before: set[str], after: set[str], using: str) -> None:
        """Send a message to the groups that saw the instance before a change, or that see it after it."""
        for action, groups in (
            (CREATE, after - before),
            (UPDATE, before & after),
            (DELETE, before - after),
        ):
            cls.send_messages(instance, groups, action, using=using)

    @classmethod
    def send_messages(
        cls,
        instance: Model,
        group_names: Iterable[str],
        action: str,
        using: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Send the instance, as it is now, to the groups when the transaction on the database `using` commits.
        If it rolls back, send nothing.
        """
        if not group_names:
            return
        binding = cls()
        binding.instance = instance
        content = binding.serialize(instance, action)
        names = sorted(group_names)

        def send() -> None:
            for name in names:
                Group(name).send(content)

        on_commit(send, using)

    @classmethod
    def group_names(cls, instance: Any) -> Iterable[str]:
        """Return the names of the groups that may see `instance` as it is now. Override it."""
        raise NotImplementedError("%s must define group_names(instance)." % cls.__name__)

    def serialize(self, instance: Any, action: str) -> dict[str, Any]:
        """Return the message (dict) that tells a group that `action` happened to `instance`."""
        raise NotImplementedError("%s must define serialize()." % type(self).__name__)

    # Inbound: a message to the model.

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> Binding | None:
        """Make the change that the message asks for, if its user may. Return the binding that did."""
        binding = cls()
        binding.message = message
        binding.kwargs = kwargs
        binding.user = getattr(message, "user", None)
        action, pk, data = binding.deserialize(message)
        if action not in (CREATE, UPDATE, DELETE):
            raise ValueError("There is no action %r: use create, update or delete." % (action,))
        binding.action, binding.pk, binding.data = action, pk, data
        if binding.has_permission(binding.user, action, pk):
            binding.run_action(action, pk, data)
        else:
            logger.warning(
                "%s refused %s of %s %r to user %r.",
                cls.__name__,
                action,
                cls._model().__name__,
                pk,
                getattr(binding.user, "pk", None),
            )
        return binding

    def deserialize(self, message: Message) -> tuple[str, Any, dict[str, Any]]:
        """Return `(action, pk, data)` of an inbound message; `data` maps field names to values."""
        raise NotImplementedError("%s must define deserialize()." % type(self).__name__)

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        """Return whether `user` may make this change (`pk` is None for "create"). Override it."""
        raise NotImplementedError(
            "%s must define has_permission(user, action, pk)." % type(self).__name__
        )

    def run_action(self, action: str, pk: Any, data: dict[str, Any]) -> None:
        """Make a permitted change: `create(data)`, `update(pk, data)` or `delete(pk)`."""
        if action == CREATE:
            self.create(data)
        elif action == UPDATE:
            self.update(pk, data)
        else:
            self.delete(pk)

    def create(self, data: dict[str, Any]) -> None:
        """Make an instance from `data`."""
        raise NotImplementedError("%s must define create(data)." % type(self).__name__)

    def update(self, pk: Any, data: dict[str, Any]) -> None:
        """Change the instance `pk`. Raises the model's DoesNotExist."""
        raise NotImplementedError("%s must define update(pk, data)." % type(self).__name__)

    def delete(self, pk: Any) -> None:
        """Delete the instance `pk`. Raises the model's DoesNotExist."""
        self._model()._default_manager.get(pk=pk).delete()


# Between the signals before and after a change, the instance has the groups that saw it, by binding.

_BEFORE = "_binding_groups_before"


def _remember(instance: Any, binding: type[Binding], groups: set[str]) -> None:
    instance.__dict__.setdefault(_BEFORE, {})[binding] = groups


def _recall(instance: Any, binding: type[Binding]) -> set[str]:
    groups: dict[type[Binding], set[str]] = instance.__dict__.get(_BEFORE, {})
    before = groups.pop(binding, set())
    if not groups:
        instance.__dict__.pop(_BEFORE, None)
    return before
