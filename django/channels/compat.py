"""Every difference between versions of Django and Python, each with the version that lets it go."""

import django
from django.db import transaction


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
