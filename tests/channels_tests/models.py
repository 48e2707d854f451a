"""Models for tests, without migrations: the test runner makes their tables."""

import uuid

from django.db import models


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
