"""The signals around a request, for the HTTP handler of channels (`asgi.py`)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from django.db import connections


def _keep_open() -> None:
    """Stand in for a connection's `close_if_unusable_or_obsolete`."""


@contextmanager
def open_transactions_kept() -> Iterator[None]:
    """
    While this runs, Django's receivers of `request_started` and `request_finished` close no connection of
    this thread that is inside `transaction.atomic()`.

    Under WSGI, no transaction can be open when these signals are sent. A consumer can call a view, or encode
    a response, inside a transaction. To close its connection would drop what it has saved.
    """
    kept = [each for each in connections.all() if each.in_atomic_block]
    # A guard inside another one leaves the removal to the outer one.
    kept = [each for each in kept if "close_if_unusable_or_obsolete" not in vars(each)]
    for connection in kept:
        connection.close_if_unusable_or_obsolete = _keep_open
    try:
        yield
    finally:
        for connection in kept:
            del connection.close_if_unusable_or_obsolete
