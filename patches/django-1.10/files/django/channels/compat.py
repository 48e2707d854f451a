"""What depends on the version of Python, on optional packages, and on hooks of Django's own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Callable, Iterable

from django.contrib.sessions.backends.base import UpdateError
from django.db import transaction
from django.urls import (
    get_resolver, get_script_prefix, get_urlconf, set_script_prefix,
    set_urlconf,
)
from django.utils.deprecation import CallableBool

__all__ = [
    "CallableBool",
    "async_to_sync",
    "get_resolver",
    "get_script_prefix",
    "get_urlconf",
    "iscoroutinefunction",
    "set_script_prefix",
    "set_urlconf",
    "sync_to_async",
]

#: Whether Django keeps language, time zone and URLs in Locals of asgiref. It keeps them for each thread.
KEPT_BY_ASGIREF = False

#: Whether a functools.partial in a class is called with the instance.
PARTIALS_ARE_METHODS = sys.version_info >= (3, 14)

#: What `save_existing_session` raises.
SessionEnded = UpdateError

#: Whether CSRF_TRUSTED_ORIGINS has hosts without a scheme.
TRUSTED_HOSTS_LACK_SCHEME = True

#: Conversions of the package asgiref, which Django does not need.
async_to_sync = sync_to_async = None


class SynchronousOnlyOperation(Exception):
    """A call that blocks was made where an event loop runs."""


if TYPE_CHECKING or sys.version_info >= (3, 8):
    from typing import TypedDict
else:  # nothing checks the types at run time
    class TypedDict(dict):
        """Stands in for typing.TypedDict where that does not exist."""

        def __init_subclass__(cls, total=True):
            pass


def opening_handlers() -> list[Any]:
    """Return no handlers: Django keeps what it opens for each thread, and in no context."""
    return []


def local_of(handler: Any) -> Any:
    """Return None. It is only called with one of `opening_handlers`."""


def opened_by(handler: Any) -> dict[str, Any]:
    """Return an empty dict. It is only called with one of `opening_handlers`."""
    return {}


def keep_opened(handler: Any, alias: str, opened: Any) -> None:
    """Do nothing. It is only called with one of `opening_handlers`."""


def forget_opened(handler: Any) -> None:
    """Do nothing. It is only called with one of `opening_handlers`."""


def on_commit(func: Callable[[], Any], using: str | None = None) -> None:
    """Call `func()` when the transaction on the database `using` commits."""
    transaction.on_commit(func, using=using)


def set_related(instance: Any, name: str, values: Iterable[Any]) -> None:
    """Replace the members of the many-to-many field `name`."""
    getattr(instance, name).set(values)


def save_existing_session(session: Any) -> None:
    """Save one of Django's sessions. Raises SessionEnded if it was deleted since it was read."""
    session.save()


def relation_of(field: Any) -> Any:
    """Return what a related field knows of its relation."""
    return field.remote_field


def view_class_of(function: Any) -> Any:
    """Return what `as_view()` notes of the class on the function that it returns, or None."""
    return getattr(function, "view_class", None)


def model_of_deferred(sender: Any) -> None:
    """Return None: `only()` and `defer()` make no class."""


def end_with_parent() -> None:
    """
    In the autoreloader's child process: end when the autoreloader ends.

    SIGTERM ends the autoreloader and would leave its server running.
    """
    if not hasattr(os, "getppid"):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="channels-end-with-parent", daemon=True).start()


def before_reloading(func: Callable[[], Any]) -> None:
    """Do nothing: the autoreloader calls nothing before it begins to look for changes."""


def installed_version(package: str) -> str | None:
    """Return the version of an installed package as text, or None."""
    if sys.version_info >= (3, 8):
        from importlib import metadata

        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None
    try:
        return str(getattr(__import__(package), "__version__", "0"))
    except ImportError:
        return None
