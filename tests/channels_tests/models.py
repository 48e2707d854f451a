"""Models for tests. There are no migrations: the test runner makes their tables."""

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
