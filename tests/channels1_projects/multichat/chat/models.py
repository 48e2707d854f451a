import json

from channels import Group
from django.db import models
from django.utils.encoding import python_2_unicode_compatible


@python_2_unicode_compatible
class Room(models.Model):
    title = models.CharField(max_length=255)
    staff_only = models.BooleanField(default=False)

    def __str__(self):
        return self.title

    @property
    def group(self):
        return Group("room-%s" % self.id)

    def send(self, username, **content):
        content.update(room=self.id, username=username)
        self.group.send({"text": json.dumps(content)})
