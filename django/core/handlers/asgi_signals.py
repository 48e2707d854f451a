"""The signals around a request, for the HTTP handler of channels (`asgi.py`)."""

from __future__ import annotations

from typing import Any

import django
from django.db import connections

#: Where Django can, list only the connections that this thread has used, instead of making all.
_all_options: dict[str, Any] = {}
if django.VERSION >= (4, 1):
    _all_options = {"initialized_only": True}


def _keep_open() -> None:
    """Stand in for a connection's `close_if_unusable_or_obsolete`."""


class open_transactions_kept:
    """
    A context manager: while it runs, Django's receivers of `request_started` and `request_finished` close no
    connection of this thread that is inside `transaction.atomic()`.

    Under WSGI, no transaction can be open when these signals are sent. A consumer can call a view, or encode
    a response, inside a transaction. To close its connection would drop what it has saved.
    """

    __slots__ = ("_kept",)

    def __enter__(self) -> None:
        # A guard inside another one leaves the removal to the outer one.
        self._kept: list[Any] = [
            each
            for each in connections.all(**_all_options)
            if each.in_atomic_block and "close_if_unusable_or_obsolete" not in vars(each)
        ]
        for connection in self._kept:
            connection.close_if_unusable_or_obsolete = _keep_open

    def __exit__(self, *exc_info: Any) -> None:
        for connection in self._kept:
            del connection.close_if_unusable_or_obsolete
