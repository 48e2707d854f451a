"""Every difference between versions of Django and Python, each with the version that lets it go."""

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import django
from django.db import transaction
from django.utils import autoreload

try:  # what `user.is_authenticated` is on Django 1.10 and 1.11: until the latter goes
    from django.utils.deprecation import CallableBool
except ImportError:
    CallableBool = bool

if TYPE_CHECKING or sys.version_info >= (3, 8):
    from typing import TypedDict
else:  # until Python 3.7 goes: nothing checks the types at run time

    class TypedDict(dict):
        """Stands in for typing.TypedDict where that does not exist."""

        def __init_subclass__(cls, total=True):
            pass


def on_commit(func, using=None):
    """Call `func()` once the transaction on the database `using` commits; outside of one, now."""
    if django.VERSION >= (1, 9):
        transaction.on_commit(func, using=using)
    else:  # until Django 1.8 goes: it has no such hook
        func()


def set_related(instance, name, values):
    """Replace the members of the many-to-many field `name`."""
    if django.VERSION >= (1, 9):
        getattr(instance, name).set(values)
    else:  # until Django 1.8 goes
        setattr(instance, name, values)


def end_with_parent():
    """
    In the autoreloader's child: end when the autoreloader does.

    Django does so itself since 2.2; before, one that SIGTERM ended left its server running.
    """
    if django.VERSION >= (2, 2) or not hasattr(os, "getppid"):
        return
    parent = os.getppid()

    def watch():  # until Django 2.1 goes
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="channels-end-with-parent", daemon=True).start()


def before_reloading(func):
    """
    In the autoreloader's child: call `func()` in its thread before it begins to look for changes.

    While it lists the modules that are loaded, an import that fails in another thread takes one away,
    and it ends with a KeyError. Before Django 2.2 it has no such hook.
    """
    if django.VERSION >= (2, 2):  # else: until Django 2.1 goes
        autoreload.autoreload_started.connect(lambda sender, **kwargs: func(), weak=False)
