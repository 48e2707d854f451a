import json

from channels import Group
from django.core.urlresolvers import reverse
from django.db import models
from django.utils.encoding import python_2_unicode_compatible


@python_2_unicode_compatible
class Liveblog(models.Model):
    title = models.CharField(max_length=255)
    slug = models.SlugField()

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("liveblog", kwargs={"slug": self.slug})

    @property
    def group_name(self):
        return "liveblog-%s" % self.id


@python_2_unicode_compatible
class Post(models.Model):
    liveblog = models.ForeignKey(Liveblog, related_name="posts")
    body = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self):
        return "#%i: %s" % (self.id, self.body[:40])

    def notify(self):
        content = {"id": self.id, "body": self.body, "created": self.created.isoformat()}
        Group(self.liveblog.group_name).send({"text": json.dumps(content)})

    def save(self, *args, **kwargs):
        result = super(Post, self).save(*args, **kwargs)
        self.notify()
        return result
