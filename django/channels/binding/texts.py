"""Which text of a client a field of a bound model may read, and a database may keep."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db.models import CharField, Field, TextField
from django.utils.translation import gettext as _

from ..layers.messages import check_nesting
from .site_code import by_field

#: The `to_python` of fields that don't read text. Those of others, such as lists, may read it as JSON.
_KEEP_TEXT = (Field.to_python, CharField.to_python, TextField.to_python)


def invalid() -> ValidationError:
    """Return the exception for a value that a field can't have."""
    return ValidationError(_("This value is not valid."), code="invalid")


def check_text(field: Any, value: str) -> None:
    """
    Raise ValidationError for text that a database refuses, with NUL or with half a surrogate pair, and for
    text that could end Python 3.7 and 3.8 if `field` reads it as JSON.
    """
    if "\x00" in value:
        raise invalid()
    try:
        value.encode("utf-8")
        if type(field).to_python not in _KEEP_TEXT:
            check_nesting(value)
    except ValueError:
        raise invalid() from None


def check_length(field: Any, value: str) -> None:
    """
    Raise ValidationError for text that is longer than `field` allows. The other validators don't see it: old
    versions of Django take minutes for a URL or an e-mail address of a megabyte.
    """
    for validator in field.validators:
        if isinstance(validator, MaxLengthValidator):
            by_field(field, validator, value)
