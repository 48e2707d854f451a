"""
Data binding without a protocol: which change goes to which groups, and which may come in.

A subclass per model says who may see an instance (`group_names`) and who may change it
(`has_permission`); a subclass per protocol says what messages look like (`serialize`,
`deserialize`). The actions are "create", "update" and "delete", always from the point of view of who is told.
"""

import logging

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from ..auth import channel_session_user
from ..channel import Group
from ..compat import on_commit

CREATE = "create"
UPDATE = "update"
DELETE = "delete"

logger = logging.getLogger("django.channels.binding")


class BindingMetaclass(type):
    """Connects every binding that has a model to that model's signals, when its class is made."""

    #: Every binding that is connected, in the order of definition.
    binding_classes = []

    def __new__(cls, name, bases, body):
        binding = super().__new__(cls, name, bases, body)
        if binding.model is not None:
            binding.register()
            cls.binding_classes.append(binding)
        return binding

    @property
    def consumer(cls):
        """The consumer of inbound changes, for a demultiplexer's `consumers` or a route."""

        def consumer(message, **kwargs):
            cls.trigger_inbound(message, **kwargs)

        consumer.__name__ = "%s.consumer" % cls.__name__
        consumer.__module__ = cls.__module__
        if cls.channel_session_user:
            return channel_session_user(consumer)
        return consumer


class Binding(metaclass=BindingMetaclass):
    """
    One model's binding, in both directions.

    An instance handles one change. A subclass without a `model` is a base for others.
    """

    #: The model class. Its subclasses are other models, with bindings of their own.
    model = None

    #: Names of the fields that go out and may come in: a list, or ["__all__"]. Required, unless
    #: `exclude` is given.
    fields = None

    #: Names of the fields that stay out: a list.
    exclude = None

    #: Whether inbound messages carry their user in the channel session (`self.user`).
    channel_session_user = True

    @classmethod
    def register(cls):
        """Connect to the signals of the model. Raises ImproperlyConfigured without `fields`."""
        if not (isinstance(cls.model, type) and issubclass(cls.model, models.Model)):
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
        # By class, so that defining a class again (a reload) does not send everything twice.
        name = "%s.%s" % (cls.__module__, cls.__qualname__)
        for signal, receiver in (
            (pre_save, cls._before_save),
            (post_save, cls._after_save),
            (pre_delete, cls._before_delete),
            (post_delete, cls._after_delete),
        ):
            signal.connect(receiver, sender=cls.model, weak=False, dispatch_uid=name)

    @classmethod
    def bound_fields(cls):
        """The names of the model's fields that this binding sends and accepts (a list)."""
        excluded = set(cls.exclude or ())
        wanted = None if cls.fields is None or "__all__" in cls.fields else set(cls.fields)
        meta = cls.model._meta
        return [
            field.name
            for field in list(meta.concrete_fields) + list(meta.many_to_many)
            if field.name not in excluded and (wanted is None or field.name in wanted)
        ]

    # Outbound: signals to groups.

    @classmethod
    def _before_save(cls, sender, instance, using, **kwargs):
        # What the database holds is what clients were told, whatever became of the instance since
        # it was loaded; it may even have been made by hand around the primary key.
        former = None
        if instance.pk is not None:
            former = sender._base_manager.using(using).filter(pk=instance.pk).first()
        _remember(instance, cls, set() if former is None else set(cls.group_names(former)))

    @classmethod
    def _after_save(cls, sender, instance, using, **kwargs):
        cls._tell(instance, _recall(instance, cls), set(cls.group_names(instance)), using)

    @classmethod
    def _before_delete(cls, sender, instance, using, **kwargs):
        _remember(instance, cls, set(cls.group_names(instance)))

    @classmethod
    def _after_delete(cls, sender, instance, using, **kwargs):
        cls._tell(instance, _recall(instance, cls), set(), using)

    @classmethod
    def _tell(cls, instance, before, after, using):
        """To whom it appeared, for whom it changed, and from whom it went."""
        for action, groups in (
            (CREATE, after - before),
            (UPDATE, before & after),
            (DELETE, before - after),
        ):
            cls.send_messages(instance, groups, action, using=using)

    @classmethod
    def send_messages(cls, instance, group_names, action, using=None, **kwargs):
        """
        Tell the groups, once the transaction on the database `using` commits; never if it rolls
        back. What is sent is the instance as it is now.
        """
        if not group_names:
            return
        binding = cls()
        binding.instance = instance
        content = binding.serialize(instance, action)
        names = sorted(group_names)

        def send():
            for name in names:
                Group(name).send(content)

        on_commit(send, using)

    @classmethod
    def group_names(cls, instance):
        """The groups that may see `instance` as it stands (a list of names). Override it."""
        raise NotImplementedError("%s must define group_names(instance)." % cls.__name__)

    def serialize(self, instance, action):
        """The message (dict) that tells a group of `action` on `instance`."""
        raise NotImplementedError("%s must define serialize()." % type(self).__name__)

    # Inbound: a message to the model.

    @classmethod
    def trigger_inbound(cls, message, **kwargs):
        """Carry out what the message asks, if its user may. Returns the binding that did."""
        binding = cls()
        binding.message = message
        binding.kwargs = kwargs
        binding.user = getattr(message, "user", None)
        action, pk, data = binding.deserialize(message)
        if action not in (CREATE, UPDATE, DELETE):
            raise ValueError("There is no action %r; it is create, update or delete." % (action,))
        binding.action, binding.pk, binding.data = action, pk, data
        if binding.has_permission(binding.user, action, pk):
            binding.run_action(action, pk, data)
        else:
            logger.warning(
                "%s refused %s of %s %r to user %r.",
                cls.__name__,
                action,
                cls.model.__name__,
                pk,
                getattr(binding.user, "pk", None),
            )
        return binding

    def deserialize(self, message):
        """`(action, pk, data)` of an inbound message; `data` a dict of field names to values."""
        raise NotImplementedError("%s must define deserialize()." % type(self).__name__)

    def has_permission(self, user, action, pk):
        """Whether `user` may do that (`pk` is None for "create"). Must be overridden."""
        raise NotImplementedError(
            "%s must define has_permission(user, action, pk)." % type(self).__name__
        )

    def run_action(self, action, pk, data):
        """Do what was asked and permitted: `create(data)`, `update(pk, data)` or `delete(pk)`."""
        if action == CREATE:
            self.create(data)
        elif action == UPDATE:
            self.update(pk, data)
        else:
            self.delete(pk)

    def create(self, data):
        """Make an instance from `data`."""
        raise NotImplementedError("%s must define create(data)." % type(self).__name__)

    def update(self, pk, data):
        """Change the instance `pk`. Raises the model's DoesNotExist."""
        raise NotImplementedError("%s must define update(pk, data)." % type(self).__name__)

    def delete(self, pk):
        """Delete the instance `pk`. Raises the model's DoesNotExist."""
        self.model._default_manager.get(pk=pk).delete()


# Between the signals before and after a change, the instance carries the groups that saw it.

_BEFORE = "_binding_groups_before"


def _remember(instance, binding, groups):
    instance.__dict__.setdefault(_BEFORE, {})[binding] = groups


def _recall(instance, binding):
    groups = instance.__dict__.get(_BEFORE, {})
    before = groups.pop(binding, set())
    if not groups:
        instance.__dict__.pop(_BEFORE, None)
    return before
