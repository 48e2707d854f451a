"""Models for tests, without migrations: the test runner makes their tables."""

import json
import os
import uuid

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, models


class Tag(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "channels_tests"


class IntegerValue(models.Model):
    name = models.CharField(max_length=100, unique=True)
    value = models.IntegerField(default=0)
    secret = models.CharField(max_length=100, default="", blank=True)
    admin_only = models.BooleanField(default=False)
    changed = models.DateTimeField(null=True, blank=True)
    tags = models.ManyToManyField(Tag, blank=True)

    class Meta:
        app_label = "channels_tests"

    unit = "m"

    @property
    def doubled(self):
        return self.value * 2

    def described(self):
        return "%s=%d" % (self.name, self.value)


class Document(models.Model):
    """A primary key that is text."""

    slug = models.CharField(max_length=100, primary_key=True)
    title = models.CharField(max_length=100)

    class Meta:
        app_label = "channels_tests"


class Place(models.Model):
    """A parent in multi-table inheritance, with a natural key."""

    class Manager(models.Manager):
        def get_by_natural_key(self, name):
            return self.get(name=name)

    name = models.CharField(max_length=100, unique=True)
    rating = models.IntegerField(default=0)
    group = models.CharField(max_length=100, default="places", blank=True)
    tags = models.ManyToManyField(Tag, blank=True, related_name="places")
    objects = Manager()

    class Meta:
        app_label = "channels_tests"

    def natural_key(self):
        return (self.name,)


class Restaurant(Place):
    """A child in multi-table inheritance."""

    meals = models.IntegerField(default=0)
    at = models.DateTimeField(null=True, blank=True)
    neighbour = models.ForeignKey(
        Place, null=True, blank=True, related_name="+", on_delete=models.CASCADE
    )
    objects = Place.Manager()  # Django 1.10 warns if it is inherited

    class Meta:
        app_label = "channels_tests"


class Ticket(models.Model):
    """A primary key that is a UUID."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    title = models.CharField(max_length=10)

    class Meta:
        app_label = "channels_tests"


class OptionsField(models.TextField):
    """Any JSON value. Like Django's own JSONField, its `to_python` leaves the value as it is."""

    def to_python(self, value):
        return value

    def get_prep_value(self, value):
        return json.dumps(value)

    def from_db_value(self, value, *args):
        return json.loads(value)


class RawField(models.Field):
    """A field that passes every value on to the database."""

    def db_type(self, connection):
        return "varchar(100)"


def has_colour(value):
    """A validator that expects an object with this key."""
    value["colour"].strip()


class Attachment(models.Model):
    """Fields whose own cleaning lets values of any type through."""

    title = models.CharField(max_length=10, default="", blank=True)
    file = models.FileField(upload_to="attachments", blank=True)
    path = models.FilePathField(
        path=os.path.dirname(os.path.abspath(__file__)), match=r"\.py$", blank=True
    )
    content = models.BinaryField(default=b"", blank=True)
    options = OptionsField(default=dict, blank=True, validators=[has_colour])
    raw = RawField(default="", blank=True)
    price = models.DecimalField(max_digits=6, decimal_places=2, default=0)

    class Meta:
        app_label = "channels_tests"


class NotACode(Exception):
    """What the field of another package raises."""


class Code:
    """A value that JSON doesn't have."""

    def __init__(self, text):
        if not text.startswith("code-"):
            raise NotACode(text)
        self.text = text

    def __str__(self):
        return self.text

    def __len__(self):
        return len(self.text)

    def __eq__(self, other):
        return isinstance(other, Code) and self.text == other.text

    def __hash__(self):
        return hash(self.text)


class CodeField(models.CharField):
    """A field of another package, with its own values and exceptions."""

    def to_python(self, value):
        return value if value is None or isinstance(value, Code) else Code(value)

    def from_db_value(self, value, *args):
        return self.to_python(value)

    def get_prep_value(self, value):
        return value if value is None else str(value)


def new_code():
    return Code("code-%s" % uuid.uuid4())


class Parcel(models.Model):
    """
    A model with keys of another package, and a `save` that takes no arguments. Some titles make it raise.
    """

    code = CodeField(max_length=50, primary_key=True, default=new_code)
    customs = CodeField(max_length=50, null=True, blank=True)
    title = models.CharField(max_length=100)

    class Meta:
        app_label = "channels_tests"

    def clean(self):
        if self.title == "a clean":
            raise RuntimeError("clean")
        if self.title == "a bad text":
            raise ValidationError("%(missing)s", params={"other": 1})
        if self.title == "a database that refuses in clean":
            raise IntegrityError("clean")

    def save(self):
        if self.title == "a save":
            raise ValueError("save")
        if self.title == "a save that forbids":
            raise PermissionDenied
        if self.title == "a database that refuses in save":
            raise IntegrityError("save")
        if self.title == "a broken save":
            raise RuntimeError("the service can't be reached")
        super().save()
