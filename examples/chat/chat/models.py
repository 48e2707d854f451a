"""Rooms, the lines said in them, and the browser windows that are open on them."""

import json
from contextlib import contextmanager

from channels import Group
from django.db import models, transaction
from django.db.models import F


class Room(models.Model):
    """A place to talk, made when somebody first enters it."""

    name = models.CharField(max_length=50, unique=True)
    revision = models.PositiveIntegerField(
        default=0
    )  # of the list of people: the highest is newest

    @property
    def group(self):
        """Every open window of this room."""
        return Group(f"room-{self.pk}")

    def tell(self, **content):
        """Send to every open window, from wherever this is called: a consumer, a view, a shell."""
        self.group.send({"text": json.dumps(content)})

    def people(self):
        """{person: nickname} in order of arrival. A person with several windows open is listed once."""
        present = set(self.group.channels())  # a crash leaves rows behind, but no members
        return {
            window.person: window.nickname
            for window in self.windows.order_by("pk")
            if window.reply_channel in present
        }

    @contextmanager
    def roll_call(self):
        """The block changes who is here; then everybody is told."""
        with transaction.atomic():
            # The update locks the room, so that a higher revision is always a newer list.
            Room.objects.filter(pk=self.pk).update(revision=F("revision") + 1)
            yield
            self.refresh_from_db()
            people = self.people()
        self.tell(people=list(people.items()), revision=self.revision)

    def sweep(self):
        """Forget the windows that went away with a server that crashed."""
        present = set(self.group.channels())
        for window in self.windows.all():
            if window.reply_channel not in present:
                window.delete()


class Line(models.Model):
    """What somebody said."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="lines")
    person = models.CharField(max_length=32)
    nickname = models.CharField(max_length=30)  # as it was at that time
    text = models.CharField(max_length=1000)
    token = models.CharField(max_length=36, unique=True)  # the browser's: sent twice, kept once
    at = models.DateTimeField(auto_now_add=True)

    def as_dict(self):
        """What the browser gets."""
        line = {name: getattr(self, name) for name in ("id", "person", "nickname", "text", "token")}
        return dict(line, at=self.at.timestamp())


class Window(models.Model):
    """A browser window with a socket open on a room, known by its reply channel."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="windows")
    reply_channel = models.CharField(max_length=100, unique=True)
    person = models.CharField(max_length=32, db_index=True)  # a random id, kept in the session
    nickname = models.CharField(max_length=30)
