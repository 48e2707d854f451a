"""
Code of the site's models and fields that fails for a client's value: the change is refused, and the socket
stays open. What may be a bug of the site is in the log.
"""

from __future__ import annotations

import logging
import traceback
from functools import partial
from typing import Any, Callable

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db import DataError, IntegrityError, OperationalError
from django.db import Error as DatabaseFailed
from django.utils.translation import gettext as _

from ..log import RateLimit, shown

logger = logging.getLogger("django.channels.binding")

#: What code often raises, besides ValidationError, for a value of an unexpected type.
CONVERSION_ERRORS = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)

#: Errors of MariaDB and MySQL about values that their drivers or Django may take for failures of the
#: server: NULL, truncated, incorrect or out of range, also in JSON and in a function; CHECK constraints; and
#: text that the character set of a column lacks, in a comparison (1267, 1270, 1271, 3988).
_MYSQL_VALUES = frozenset(
    (1048, 1264, 1265, 1267, 1270, 1271, 1292, 1366, 1367, 1406, 1411, 1426, 1441, 1690)
    + (3140, 3141, 3819, 3988, 4025)
)

_failed_fields, _failed_models = RateLimit(), RateLimit()


class FieldFailed(ValidationError):  # type: ignore[misc]
    """The code of a field raised another exception for a client's value than ValidationError."""


def by_field(
    field: Any, method: Callable[..., Any], *args: Any, expected: Any = CONVERSION_ERRORS
) -> Any:
    """
    Return what `method`, code of a field, makes of a client's value. Whatever exception it raises, the value
    is not valid: fields of other packages have their own exceptions. Those of the database pass. What isn't
    `expected` is logged.
    """
    try:
        return method(*args)
    except (ValidationError, DatabaseFailed):
        raise
    except Exception as error:
        if not isinstance(error, expected):
            line = "The field %s failed for a value of a client: %s"
            log_failure(line, str(field), repr(error))
        raise FieldFailed(_("This value is not valid."), code="invalid") from None


def log_failure(line: str, *values: str) -> None:
    """Log what code of the site raised for a client's value, at a limited rate."""
    _failed_fields.log(logger.warning, line, *map(shown, values))


def by_model(
    instance: Any, method: Callable[..., Any], *args: Any, refusing: Any = Exception, **options: Any
) -> Any:
    """
    Return what `method`, code of a model, returns for an instance with a client's values. If it raises one of
    `refusing`, the change is refused, and the traceback logged. Errors of the database pass.
    """
    try:
        return method(*args, **options)
    except (ValidationError, DatabaseFailed):
        raise
    except refusing:
        _failed_models.log(
            partial(logger.warning, exc_info=True),
            "%s.%s failed for values of a client, which was refused:",
            type(instance).__name__,
            getattr(method, "__name__", "method"),
        )
        raise ValidationError(_("This change cannot be made with these values.")) from None


#: What a model's `save`, or a receiver of its signals, raises if it does not want these values. Anything else
#: is a failure of the site.
UNWANTED = (*CONVERSION_ERRORS, ObjectDoesNotExist, PermissionDenied)


def refuses_values(error: Exception) -> bool:
    """Return whether the database, or its driver, says by `error` that it does not take these values."""
    if isinstance(error, OperationalError):
        return bool(error.args) and error.args[0] in _MYSQL_VALUES
    if isinstance(error, UnicodeEncodeError):
        # The character set of the connection lacks a letter. The site's own code may raise it, too.
        return any(
            frame.f_globals.get("__name__", "").startswith("django.db.backends")
            for frame, _line in traceback.walk_tb(error.__traceback__)
        )
    return isinstance(error, (IntegrityError, DataError, OverflowError))
