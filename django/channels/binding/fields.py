"""
The fields of a bound model: which ones a binding sends and writes, and how the values of clients are cleaned.

Everything here raises ValidationError for a value that a client must not or cannot set. No function
writes to the database.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from typing import Any, Iterable, Iterator

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import connections, router
from django.db.models import BinaryField, CharField, FileField, FilePathField, Model, TextField
from django.utils import timezone
from django.utils.encoding import is_protected_type
from django.utils.translation import gettext as _

from ..compat import relation_of
from ..generic.json_text import json_value
from .site_code import FieldFailed, by_field, by_model, log_failure
from .texts import check_length, check_text, invalid

#: Databases keep integers of 64 bits.
_INTEGERS = range(-(2**63), 2**63)

#: The values of a BinaryField.
_BYTES = (bytes, bytearray, memoryview)

#: A longer text can't be the primary key of a row. Reading it as a number would also be slow.
_MAX_KEY_LENGTH = 1000

#: Keys that one query looks up. SQLite takes 999 parameters.
_CHUNK = 500

#: Primary keys in a many-to-many field that a client sends.
MAX_KEYS = 10000


def identity(model: type[Model]) -> frozenset[str]:
    """
    Return every name under which data could say which row it is: "pk", the primary keys of the model and its
    parents, links to parents, and what these links refer to. A client never writes any of them.
    """
    meta = model._meta
    links = [link for link in meta.parents.values() if link is not None]
    fields = [field for field in meta.concrete_fields if field.primary_key] + links
    fields += [target for link in links for target in link.foreign_related_fields]
    # add-on: begin
    fields += getattr(meta, "pk_fields", [])  # of a composite key: since Django 5.2
    # add-on: end
    return frozenset(["pk"]).union(*[(field.name, field.attname) for field in fields])


def plain_fields(model: type[Model], names: Iterable[str]) -> list[Any]:
    """Return the fields among `names` that are columns, without those of `identity`."""
    wanted = set(names) - identity(model)
    return [f for f in model._meta.concrete_fields if f.name in wanted and f.serialize]


def related_fields(model: type[Model], names: Iterable[str]) -> list[Any]:
    """Return the many-to-many fields among `names`, without those whose table is a model of the site."""
    wanted = set(names)
    return [
        field
        for field in model._meta.many_to_many
        if field.name in wanted and field.serialize and is_plain_relation(field)
    ]


def is_plain_relation(field: Any) -> bool:
    """Return whether the table between the two models of a many-to-many field is Django's own."""
    return bool(relation_of(field).through._meta.auto_created)


def value_to_send(field: Any, instance: Any) -> Any:
    """Return what Django's serializers give for a column: a plain value, or text."""
    value = field.value_from_object(instance)
    if hasattr(field, "foreign_related_fields"):
        return key_to_send(value)
    return value if is_protected_type(value) else field.value_to_string(instance)


def key_to_send(key: Any) -> Any:
    """
    Return a primary key as JSON. What JSON doesn't have is text: bytes by base64, as a BinaryField reads
    them. A composite key is a list.
    """
    if isinstance(key, tuple):
        return [key_to_send(each) for each in key]
    if isinstance(key, _BYTES):
        return base64.b64encode(bytes(key)).decode("ascii")
    try:
        return json_value(key)
    except TypeError:
        return str(key)


def related_keys(field: Any, instance: Any) -> list[Any]:
    """Return the primary keys in a many-to-many field of `instance`, read from the database."""
    return [key_to_send(key) for key in getattr(instance, field.name).values_list("pk", flat=True)]


# Cleaning.


def clean_pk(model: type[Model], value: Any) -> Any:
    """Return `value` converted by the model's primary key. For a composite key, `value` is a list."""
    fields = getattr(model._meta, "pk_fields", None) or [model._meta.pk]
    if len(fields) == 1:
        return clean_key(fields[0], value)
    if not isinstance(value, (list, tuple)) or len(value) != len(fields):
        raise ValidationError(_("This is not a primary key."), code="invalid")
    return tuple(clean_key(field, each) for field, each in zip(fields, value))


def clean_key(field: Any, value: Any) -> Any:
    """Return `value` converted by `field`, or by the column that a foreign key finally refers to."""
    while hasattr(field, "foreign_related_fields"):
        field = field.foreign_related_fields[0]
    error = ValidationError(_("This is not a primary key."), code="invalid")
    if value is None or isinstance(value, (bool, list, dict, tuple, set)):
        raise error
    if isinstance(value, (str, bytes)) and len(value) > max(field.max_length or 0, _MAX_KEY_LENGTH):
        raise error
    key = _convert(field, value)
    if key is None or key == "":
        raise error
    numbers = (int, float, decimal.Decimal)
    if isinstance(value, numbers) and isinstance(key, numbers) and key != value:
        raise error  # 1.7 is not 1
    return key


def find_row(model: type[Model], pk: Any) -> Any:
    """
    Return the row `pk` (clean). Raises ValidationError if there is none.

    A database may compare text without regard to case: the row must have exactly this key.
    """
    row = model._default_manager.filter(pk=pk).first()
    if row is None or row.pk != pk:
        raise no_such_row()
    return row


def no_such_row() -> ValidationError:
    return ValidationError({"pk": [_("This row does not exist.")]})


def assign(
    instance: Any, names: Iterable[str], data: dict[str, Any], creating: bool
) -> dict[str, list[Any]]:
    """
    Set the columns of `instance` that `data` and `names` both name, and clean it. Return the primary keys for
    its many-to-many fields, by name.

    With `creating`, the fields in `names` without a default are cleaned too, as in a form.
    """
    errors: dict[str, list[str]] = {}
    relations: dict[str, list[Any]] = {}
    cleaned = set()
    for field in plain_fields(type(instance), names):
        # add-on: begin
        if getattr(field, "generated", False):  # since Django 5.0
            continue
        # add-on: end
        if field.name in data:
            cleaned.add(field.name)
            try:
                value = _clean_column(field, data[field.name], instance)
                by_field(field, setattr, instance, field.attname, value)
            except ValidationError as error:
                errors[field.name] = error.messages
        elif creating and not field.has_default() and not _has_database_default(field):
            cleaned.add(field.name)
    for field in related_fields(type(instance), names):
        if field.name in data:
            try:
                relations[field.name] = _clean_relation(field, data[field.name])
            except ValidationError as error:
                errors[field.name] = error.messages
    others = [f.name for f in instance._meta.fields if f.name not in cleaned or f.name in errors]
    try:
        by_model(instance, instance.full_clean, exclude=others)
    except ValidationError as error:
        for name, messages in messages_of(error).items():
            errors.setdefault(name, []).extend(messages)
    if not errors:
        errors = _unfit_columns(instance, names, data)
    if errors:
        raise ValidationError(errors)
    return relations


def messages_of(error: ValidationError) -> dict[str, list[str]]:
    """
    Return the texts of `error` by field. What belongs to no field is under "__all__". Each text has at most
    200 characters, because Django's texts may repeat the value.
    """
    try:
        texts = (
            error.message_dict
            if hasattr(error, "error_dict")
            else {NON_FIELD_ERRORS: error.messages}
        )
    except Exception as failure:  # the text and its `params` do not match
        log_failure("A ValidationError lacks a text: %s", repr(failure))
        texts = {NON_FIELD_ERRORS: invalid().messages}
    return {str(name)[:200]: [str(each)[:200] for each in some] for name, some in texts.items()}


def _has_database_default(field: Any) -> bool:
    """Return whether the database gives a new row's value: `db_default`, where Django has it."""
    return bool(getattr(field, "has_db_default", lambda: False)())


def _clean_column(field: Any, value: Any, instance: Any) -> Any:
    if value is None:
        if field.null:
            return None
        raise ValidationError(field.error_messages["null"], code="null")
    if isinstance(field, FileField):
        return _clean_file(field, value, instance)
    if hasattr(field, "foreign_related_fields"):
        return None if value == "" and field.null else clean_key(field, value)
    if type(field).to_python in (CharField.to_python, TextField.to_python) and isinstance(
        value, (list, dict)
    ):
        raise invalid()  # `to_python` would accept it, by str()
    if isinstance(field, FilePathField):
        return _clean_path(field, value)
    converted = _convert(field, value)
    if isinstance(field, BinaryField) and not isinstance(converted, _BYTES):
        raise invalid()  # psycopg would raise a TypeError when the row is saved
    _try_validators(field, converted, instance)
    return converted


def _clean_file(field: Any, value: Any, instance: Any) -> Any:
    """
    Return `value` if it is the name that the row has, or "" to clear the field. A client must not choose
    another name: it would get the file of another row, or one that the site keeps for itself.
    """
    if isinstance(value, str) and value in ("", getattr(instance, field.attname).name):
        return value
    raise ValidationError(_("A file cannot be set here."), code="invalid")


def _clean_path(field: Any, value: Any) -> Any:
    """Return `value` if it names a file in the directory of the field, as the field's form asks for."""
    try:
        if isinstance(value, str):
            return field.formfield().clean(value)
    except OSError:  # the directory does not exist
        pass
    raise invalid()


def _try_validators(field: Any, value: Any, instance: Any) -> None:
    """
    Raise ValidationError if a validator of the field fails with another exception, because the value has an
    unexpected type. What a validator refuses is left to `full_clean`.
    """
    if field.blank and value in list(field.empty_values):
        return
    try:
        by_field(field, field.clean, value, instance, expected=())
    except FieldFailed:
        raise
    except ValidationError:
        pass


def _unfit_columns(
    instance: Any, names: Iterable[str], data: dict[str, Any]
) -> dict[str, list[str]]:
    """Return errors for values that no validator refuses, but that the database can't take, by field."""
    errors = {}
    connection = connections[router.db_for_write(type(instance), instance=instance)]
    for field in plain_fields(type(instance), names):
        if field.name not in data or getattr(field, "generated", False):
            continue
        value = getattr(instance, field.attname)
        try:
            prepared = by_field(field, field.get_db_prep_save, value, connection)
            # The field has passed on what the client sent: it expects something else.
            unfit = prepared is data[field.name] and isinstance(prepared, (list, dict))
        except ValidationError:
            unfit = True
        if unfit:
            errors[field.name] = invalid().messages
    return errors


def _convert(field: Any, value: Any) -> Any:
    """Return `value` by the field's own `to_python`, if a database can keep the result."""
    if isinstance(value, str):
        check_text(field, value)
    converted = by_field(field, field.to_python, value)
    if isinstance(converted, str):
        check_text(field, converted)
        check_length(field, converted)
    elif isinstance(converted, int) and converted not in _INTEGERS:
        raise invalid()
    elif isinstance(converted, float) and not math.isfinite(converted):
        raise invalid()
    elif isinstance(converted, decimal.Decimal) and not converted.is_finite():
        raise invalid()
    elif isinstance(converted, datetime.datetime):
        return _in_time_zone(converted)
    return converted


def _in_time_zone(value: datetime.datetime) -> Any:
    """Return `value` with a time zone if the site uses them, and without one if it doesn't."""
    try:
        if settings.USE_TZ:
            if timezone.is_naive(value):
                value = timezone.make_aware(value, timezone.get_current_timezone())
            # Rows are read in UTC: PostgreSQL would keep a value that Python can't read any more.
            value.astimezone(datetime.timezone.utc)
        elif timezone.is_aware(value):
            return timezone.make_naive(value, timezone.get_default_timezone())
    except Exception:
        # The year 1 or 9999; or a time that does not exist, for which pytz has its own errors.
        raise invalid() from None
    return value


def _clean_relation(field: Any, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise ValidationError(_("Send a list of primary keys."), code="list")
    if not values and not field.blank:
        raise ValidationError(field.error_messages["blank"], code="blank")
    if len(values) > MAX_KEYS:
        raise ValidationError(_("Send fewer primary keys."), code="max_length")
    target = field.related_model
    rows = target._default_manager.complex_filter(field.get_limit_choices_to())
    found: set[Any] = set()
    for some in chunks(values):
        # No set has more keys than these before they are known to exist: clients can choose numbers that all
        # have the same hash, and each takes longer to add than the one before.
        keys = {clean_pk(target, value) for value in some}
        if keys != set(rows.filter(pk__in=list(keys)).values_list("pk", flat=True)):
            raise ValidationError(_("This row does not exist."), code="invalid_choice")
        found |= keys
    return list(found)


def chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the keys in lists that fit into one query."""
    keys = list(keys)
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]
