"""
Data binding without a protocol: which groups learn of a change, and which changes a client may make.

A subclass for a model says which groups see an instance (`group_names`) and which users may change it
(`has_permission`). A subclass for a protocol says what messages look like (`serialize`, `deserialize`). The
actions are "create", "update" and "delete", from the point of view of the group that receives the message.
The file is a little over 400 lines because Channels 1.1 has here the class that subclasses override.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Iterable, Iterator, cast

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router, transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.utils.translation import gettext as _

from ..apps import ChannelsConfig
from ..auth import channel_session_user
from ..compat import on_commit
from ..coroutines import answer_of
from ..log import RateLimit, shown
from ..remedies import problem_of_binding, takes_instance
from ..sessions import channel_session
from ..transactions import lost_to_another
from . import outbound
from .fields import clean_pk, find_row, identity, messages_of, no_such_row
from .outbound import CREATE, DELETE, UPDATE, wait_to_write
from .receivers import Receivers
from .relations import connect_relations, relation_changed
from .site_code import refuses_values
from .synchronous import check_synchronous

if django.VERSION < (1, 10):
    from .deferred import connect_deferred

if TYPE_CHECKING:
    from ..message import Message
    from ..types import Consumer

__all__ = ["CREATE", "DELETE", "UPDATE", "Binding", "BindingMetaclass"]

logger = logging.getLogger("django.channels.binding")

#: What a client may ask for, unless a binding defines further actions.
ACTIONS = (CREATE, UPDATE, DELETE)


class BindingMetaclass(type):
    """Connects each binding that has a model to the signals of the model, when the class is made."""

    #: All bindings that are connected, in the order of definition.
    binding_classes: list[type[Binding]] = []

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> BindingMetaclass:
        binding = cast("type[Binding]", super().__new__(cls, name, bases, body))
        check_synchronous(binding)
        if binding.model is not None:
            if is_ready():
                binding.register()
            cls.binding_classes.append(binding)
        return binding

    @classmethod
    def register_all(cls) -> None:
        """Connect the bindings that were defined before the app of channels was ready, as in Channels 1.1."""
        for binding in cls.binding_classes:
            if binding.model_label is None:
                binding.register()

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:
            raise AttributeError(problem_of_binding(cls, name))

    @property
    def consumer(cls) -> Consumer:
        """The consumer of inbound changes, for a demultiplexer's `consumers` or a route."""
        binding = cast("type[Binding]", cls)

        def consumer(message: Message, **kwargs: Any) -> None:
            binding.get_handler()(message, **kwargs)

        consumer.binding = binding  # type: ignore[attr-defined]  # for `check`
        consumer.__name__ = "%s.consumer" % cls.__name__
        consumer.__module__ = cls.__module__
        return consumer


class Binding(Receivers, metaclass=BindingMetaclass):
    """
    The binding of one model, in both directions.

    An instance handles one change. A subclass without a `model` is a base class for others.
    """

    #: The model class, or its name ("app.Model"). A subclass of the model is another model, and needs another
    #: binding.
    model: type[Model] | str | None = None

    #: The name of the model, in lower case ("app.model"), as messages have it. Set when it is connected.
    model_label: str | None = None

    #: Names of the fields that are sent and accepted: a list, or ["__all__"]. Required, unless
    #: `exclude` is given.
    fields: list[str] | None = None

    #: Names of the fields that are not sent and not accepted: a list.
    exclude: list[str] | None = None

    #: Whether the user of inbound messages comes from the channel session (`self.user`).
    channel_session_user: bool = True

    #: Whether inbound messages must belong to a connection, which has a channel session.
    channel_session: bool = False

    # Set for an outbound change. `signal_kwargs` is what the signal's receiver was called with.
    instance: Model
    signal_kwargs: dict[str, Any] | None = None

    # Set for an inbound change.
    message: Message
    kwargs: dict[str, Any]
    user: Any
    action: str
    pk: Any
    data: dict[str, Any]

    @classmethod
    def register(cls) -> None:
        """Connect to the signals of `get_registered_models`. Raises ImproperlyConfigured without `fields`."""
        if isinstance(cls.model, str):
            try:
                cls.model = apps.get_model(cls.model)
            except (LookupError, ValueError) as error:
                raise ImproperlyConfigured(
                    "%s.model must be a model class, or its name such as 'app.Model', not %r: %s"
                    % (cls.__name__, cls.model, error)
                ) from error
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
        if not takes_instance(inspect.getattr_static(cls, "group_names")):
            raise ImproperlyConfigured(
                "%s.group_names is called on the class: write @classmethod above it, and "
                "group_names(cls, instance)." % cls.__name__
            )
        meta = cls.model._meta
        cls.model_label = "%s.%s" % (meta.app_label.lower(), meta.model_name)
        # An id for the class, so that a class that is defined again (a reload) doesn't send everything twice.
        name = "%s.%s" % (cls.__module__, cls.__qualname__)
        for model in cls.get_registered_models():
            for signal, receiver in (
                (pre_save, cls.pre_save_receiver),
                (post_save, cls.post_save_receiver),
                (pre_delete, cls.pre_delete_receiver),
                (post_delete, cls.post_delete_receiver),
            ):
                signal.connect(receiver, sender=model, weak=False, dispatch_uid=name)
            if django.VERSION < (1, 10):
                connect_deferred(BindingMetaclass.binding_classes, model)
        connect_relations(cls._model(), _relation_changed)

    @classmethod
    def unknown_names(cls) -> Iterator[tuple[str, str]]:
        """Yield each name in `fields` or `exclude` that isn't a field, after the attribute's name."""
        known: set[str] = {"__all__", "pk"}
        for model in cls.get_registered_models() if cls.model is not None else ():
            known.update(field.name for field in model._meta.get_fields())
        for attribute in ("fields", "exclude"):
            names = cls.__dict__.get(
                attribute
            )  # what it inherits may be meant for other models too
            for name in names if isinstance(names, (list, tuple, set, frozenset)) else ():
                if name not in known:
                    yield attribute, name

    @classmethod
    def get_registered_models(cls) -> list[type[Model]]:
        """Return the models whose changes are sent. Override it to send those of other models too."""
        return [cls._model()]

    @classmethod
    def _is_registered_for(cls, model: Any) -> bool:
        return cls.model_label is not None and model in cls.get_registered_models()

    @classmethod
    def bound_fields(cls, model: type[Model] | None = None) -> list[str]:
        """Return the names of the fields of the model, or of another one, that are sent and accepted."""
        excluded = set(cls.exclude or ())
        wanted = None if cls.fields is None or "__all__" in cls.fields else set(cls.fields)
        meta = (model or cls._model())._meta
        return [
            field.name
            for field in list(meta.concrete_fields) + list(meta.many_to_many)
            if field.name not in excluded and (wanted is None or field.name in wanted)
        ]

    @classmethod
    def _model(cls) -> type[Model]:
        if cls.model is None or isinstance(cls.model, str):
            raise ImproperlyConfigured("%s must set model, the model class." % cls.__name__)
        return cls.model

    # Outbound: signals to groups. See outbound.py.

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

        Raises now for a name of a group that isn't allowed, or for a message that is too large. Later nothing
        is raised: a message that cannot be sent is logged, and counted as "sends_dropped".
        """
        if group_names:
            using = using or DEFAULT_DB_ALIAS
            on_commit(cls.prepare(instance, group_names, action, using), using)

    @classmethod
    def overrides_send_messages(cls) -> bool:
        """Return whether the class has its own `send_messages`."""
        own, inherited = cls.send_messages, Binding.send_messages
        return getattr(own, "__func__", None) is not getattr(inherited, "__func__", None)

    @classmethod
    def prepare(
        cls, instance: Any, group_names: Iterable[str], action: str, using: str
    ) -> outbound.PendingChange:
        """Return what tells the groups that `action` happened to `instance`. Call it to send."""
        key = (cls, using, outbound.model_of(instance), instance.pk)
        return outbound.PendingChange(key, action, group_names, cls.content(instance, action))

    @classmethod
    def content(cls, instance: Any, action: str) -> dict[str, Any]:
        """Return the message that `serialize` makes."""
        return cls.of(instance).serialize(instance, action)

    @classmethod
    def of(cls, instance: Any) -> Binding:
        """Return a binding for an outbound change of `instance`."""
        binding = cls()
        binding.instance = instance
        binding.signal_kwargs = outbound.signal_kwargs()
        return binding

    @classmethod
    def group_names(cls, instance: Any) -> Iterable[str]:
        """Return the names of the groups that may see `instance` as it is now. Override it."""
        raise NotImplementedError("%s must define group_names(instance)." % cls.__name__)

    def serialize(self, instance: Any, action: str) -> dict[str, Any]:
        """Return the message (dict) that tells a group that `action` happened to `instance`."""
        raise NotImplementedError("%s must define serialize()." % type(self).__name__)

    # Inbound: a message to the model.

    @classmethod
    def get_handler(cls) -> Consumer:
        """Return what handles an inbound message: `trigger_inbound`, decorated as the class asks."""
        if cls.channel_session_user:
            return channel_session_user(cls.trigger_inbound)
        if cls.channel_session:
            return channel_session(cls.trigger_inbound)
        return cls.trigger_inbound

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> Binding | None:
        """
        Make the change that the message asks for, if its user may. Return the binding that did.

        `has_permission` gets the primary key converted by the model's field. Errors that the client can
        correct go to `refuse`.
        """
        binding = cls()
        binding.message = message
        binding.kwargs = kwargs
        binding.user = getattr(message, "user", None) or anonymous_user()
        binding.action, binding.pk, binding.data = "", None, {}
        try:
            binding._change(*binding.deserialize(message))
        except ValidationError as error:
            binding.refuse(messages_of(error))
        return binding

    def _change(self, action: Any, pk: Any, data: dict[str, Any]) -> None:
        model = self._model()
        if not isinstance(action, str):
            raise no_such_action()
        is_custom = action not in ACTIONS
        if is_custom and type(self).run_action is Binding.run_action:
            raise no_such_action()
        self.action = action
        if action == CREATE:
            pk = None
        else:
            try:
                pk = clean_pk(model, pk)
            except ValidationError as error:
                if not is_custom:
                    raise ValidationError({"pk": error.messages}) from None
        self.pk = pk
        self.data = data
        if not is_custom:
            forbidden = identity(model)
            self.data = {key: each for key, each in (data or {}).items() if key not in forbidden}
        using = router.db_for_write(model)
        try:
            with transaction.atomic(using=using):
                wait_to_write(model, using)  # before has_permission, which may read
                self.run_action(action, pk, self.data)
        except model.DoesNotExist:
            raise no_such_row() from None
        except (DatabaseError, OverflowError, UnicodeEncodeError) as error:
            # A transaction around this one is lost, too, and must not go on.
            if lost_to_another(error) and not connections[using].in_atomic_block:
                log_refusal("A change by %s lost against another: %s", type(self).__name__, error)
                raise ValidationError(_("Another change came first. Try again.")) from None
            if not refuses_values(error):
                raise
            log_refusal("The database refused a change by %s: %s", type(self).__name__, error)
            raise ValidationError(_("The database does not accept this change.")) from None

    def refuse(self, errors: dict[str, list[str]]) -> None:
        """
        Handle a change that was not made because of `errors`: texts by name of a field, "pk", "action" or
        "__all__". Here it is only logged.
        """
        log_refusal("%s refused a message: %s", type(self).__name__, errors)

    def deserialize(self, message: Message) -> tuple[str, Any, dict[str, Any]]:
        """Return `(action, pk, data)` of an inbound message; `data` maps field names to values."""
        raise NotImplementedError("%s must define deserialize()." % type(self).__name__)

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        """Return whether `user` may make this change (`pk` is None for "create"). Override it."""
        raise NotImplementedError(
            "%s must define has_permission(user, action, pk)." % type(self).__name__
        )

    def run_action(self, action: str, pk: Any, data: dict[str, Any]) -> None:
        """
        Make the change by `create(data)`, `update(pk, data)` or `delete(pk)`, if `has_permission` allows it.

        An override may handle further actions, for which it asks `has_permission` itself. It gets their
        data as the client sent it, and also a key that cannot be one of the model. Runs in a transaction, and
        may raise ValidationError.
        """
        if action not in ACTIONS:
            raise no_such_action()
        if not answer_of(self.has_permission(self.user, action, pk), "has_permission"):
            log_refusal(
                "%s refused %s of %s %s to user %s.",
                type(self).__name__,
                action,
                self._model().__name__,
                pk,
                getattr(self.user, "pk", None),
            )
            return
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
        find_row(self._model(), pk).delete()


def is_ready() -> bool:
    """Return whether a new binding is connected at once: not before the app of channels is ready."""
    return ChannelsConfig.is_ready or (
        apps.apps_ready and not apps.is_installed(ChannelsConfig.name)
    )


def anonymous_user() -> Any:
    """Return an AnonymousUser, or None in a site without users."""
    if not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


def no_such_action() -> ValidationError:
    """Return the exception for an action that the binding doesn't have."""
    return ValidationError({"action": [_("Use create, update or delete.")]})


def log_refusal(line: str, *values: Any) -> None:
    """Log what a client may not do: at most one line a second, with values of at most 200 characters."""
    _refusals.log(logger.warning, line, *map(shown, values))


_refusals = RateLimit()


def _relation_changed(sender: Any, **kwargs: Any) -> None:
    relation_changed(BindingMetaclass.binding_classes, sender, **kwargs)
