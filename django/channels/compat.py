"""Every difference between versions of Django and Python, each with the version whose end lets it go."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable

import django
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import autoreload

try:  # the type of `user.is_authenticated` on Django 1.10 and 1.11: until the latter goes
    from django.utils.deprecation import CallableBool
except ImportError:
    CallableBool = bool

try:
    from django.contrib.sessions.backends.base import UpdateError
except ImportError:  # until Django 1.9 goes

    class UpdateError(Exception):  # type: ignore[no-redef]
        """The session was deleted before it was saved."""


try:
    from django.urls import (
        get_resolver,
        get_script_prefix,
        get_urlconf,
        set_script_prefix,
        set_urlconf,
    )
except ImportError:  # until Django 1.9 goes
    from django.core.urlresolvers import (
        get_resolver,
        get_script_prefix,
        get_urlconf,
        set_script_prefix,
        set_urlconf,
    )

try:
    from django.core.exceptions import SynchronousOnlyOperation
except ImportError:  # until Django 2.2 goes

    class SynchronousOnlyOperation(Exception):  # type: ignore[no-redef]
        """A call that blocks was made where an event loop runs."""


try:
    from asgiref.sync import async_to_sync, sync_to_async
except ImportError:  # until Django 2.2 goes
    async_to_sync = sync_to_async = None

try:  # it knows a class-based view that is marked
    from asgiref.sync import iscoroutinefunction
except ImportError:  # until Django 4.1 goes
    from inspect import iscoroutinefunction

__all__ = [  # imported from here
    "CallableBool",
    "SynchronousOnlyOperation",
    "async_to_sync",
    "get_resolver",
    "get_script_prefix",
    "get_urlconf",
    "iscoroutinefunction",
    "set_script_prefix",
    "set_urlconf",
    "sync_to_async",
]

#: Whether Django keeps language, time zone and URLs in Locals of asgiref: until Django 2.2 goes.
KEPT_BY_ASGIREF = django.VERSION >= (3, 0)

#: Whether a functools.partial in a class is called with the instance.
PARTIALS_ARE_METHODS = sys.version_info >= (3, 14)

#: What `save_existing_session` raises.
SessionEnded: type[Exception] = UpdateError


if TYPE_CHECKING or sys.version_info >= (3, 8):
    from typing import TypedDict
else:  # until Python 3.7 goes: nothing checks the types at run time

    class TypedDict(dict):
        """Stands in for typing.TypedDict where that does not exist."""

        def __init_subclass__(cls, total=True):
            pass


def opening_handlers() -> list[Any]:
    """Return the objects of Django that open something once in each context, and keep it there: caches."""
    from django.core.cache import caches  # needs settings, until Django 1.8 goes

    if django.VERSION < (3, 0):  # they are kept in thread-local objects
        return []
    if django.VERSION < (6, 0):
        return [caches]
    from django.tasks import task_backends

    return [caches, task_backends]


def local_of(handler: Any) -> Any:
    """Return the asgiref Local in which one of `opening_handlers` keeps what it has opened."""
    return (
        handler._caches if django.VERSION < (3, 2) else handler._connections
    )  # until Django 3.1 goes


def opened_by(handler: Any) -> dict[str, Any]:
    """Return what one of `opening_handlers` keeps in this context, by alias."""
    if django.VERSION < (3, 2):  # until Django 3.1 goes
        return dict(getattr(handler._caches, "caches", {}))
    # Only Django 4.1 and newer have a public way to ask, and it doesn't tell the aliases.
    try:
        found = [(alias, getattr(local_of(handler), alias, None)) for alias in handler]
    except ImproperlyConfigured:  # whoever uses it is told
        return {}
    return {alias: opened for alias, opened in found if opened is not None}


def keep_opened(handler: Any, alias: str, opened: Any) -> None:
    """Have one of `opening_handlers` return `opened` for `alias` in this context."""
    if django.VERSION < (3, 2):  # until Django 3.1 goes
        handler._caches.caches = dict(opened_by(handler), **{alias: opened})
    else:
        handler[alias] = opened


def forget_opened(handler: Any) -> None:
    """Have one of `opening_handlers` forget in this context what it keeps. Closes nothing."""
    if django.VERSION < (3, 2):  # until Django 3.1 goes
        handler._caches.caches = {}
        return
    for alias in opened_by(handler):
        del handler[alias]


def on_commit(func: Callable[[], Any], using: str | None = None) -> None:
    """Call `func()` when the transaction on the database `using` commits. Outside of one, call it now."""
    if django.VERSION >= (1, 9):
        transaction.on_commit(func, using=using)
    else:  # Django 1.8 lacks this hook
        func()


def set_related(instance: Any, name: str, values: Iterable[Any]) -> None:
    """Replace the members of the many-to-many field `name`."""
    if django.VERSION >= (1, 9):
        getattr(instance, name).set(values)
    else:  # until Django 1.8 goes
        setattr(instance, name, values)


def save_existing_session(session: Any) -> None:
    """Save one of Django's sessions. Raises SessionEnded if it was deleted since it was read."""
    if django.VERSION < (1, 10) and not session.exists(session.session_key):
        # Until Django 1.9 goes: `save` would begin the session again. Signed cookies are in no store.
        if not type(session).__module__.endswith("signed_cookies"):
            raise SessionEnded()
    session.save()


def relation_of(field: Any) -> Any:
    """Return what a related field knows of its relation: `field.remote_field`."""
    if django.VERSION >= (1, 9):
        return field.remote_field
    return field.rel  # until Django 1.8 goes


def view_class_of(function: Any) -> Any:
    """Return what `as_view()` notes of the class on the function that it returns, or None."""
    found = getattr(function, "view_class", None)
    # Until Django 1.8 goes.
    if found is None and function.__globals__.get("__name__") == "django.views.generic.base":
        found = inspect.getclosurevars(function).nonlocals.get("cls")
    return found


def model_of_deferred(sender: Any) -> Any:
    """
    Return the model of the class that `only()` and `defer()` make, or None for any other class.

    Django 1.10 removed these classes.
    """
    return sender._meta.proxy_for_model if getattr(sender, "_deferred", False) else None


def end_with_parent() -> None:
    """
    In the autoreloader's child process: end when the autoreloader ends.

    Django does this since 2.2. Before, SIGTERM ended the autoreloader and left its server running.
    """
    if django.VERSION >= (2, 2) or not hasattr(os, "getppid"):
        return
    parent = os.getppid()

    def watch() -> None:  # until Django 2.1 goes
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="channels-end-with-parent", daemon=True).start()


def before_reloading(func: Callable[[], Any]) -> None:
    """
    In the autoreloader's child process: call `func()` before the autoreloader begins to look for changes.

    The autoreloader lists the loaded modules. If an import in another thread fails at that moment, a module
    vanishes from the list, and the autoreloader ends with a KeyError. Django has this hook since 2.2.
    """
    if django.VERSION >= (2, 2):  # else: until Django 2.1 goes
        autoreload.autoreload_started.connect(lambda sender, **kwargs: func(), weak=False)


#: Whether CSRF_TRUSTED_ORIGINS may have hosts without a scheme: until Django 3.2 goes.
TRUSTED_HOSTS_LACK_SCHEME = django.VERSION < (4, 0)


def installed_version(package: str) -> str | None:
    """Return the version of an installed package as text, or None."""
    if sys.version_info >= (3, 8):
        from importlib import metadata

        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None
    try:  # until Python 3.7 goes
        return str(getattr(__import__(package), "__version__", "0"))
    except ImportError:
        return None
