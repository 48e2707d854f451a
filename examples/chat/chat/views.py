"""The pages: the list of rooms, a room, the choice of a nickname. The rest is in consumers.py."""

import uuid

import django
from django.db.models import Max
from django.http import JsonResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_GET, require_POST

from .models import Room

# Django 1.8 makes slugs of ASCII only.
ANY_SCRIPT = {"allow_unicode": True} if django.VERSION >= (1, 9) else {}


@require_GET
def index(request):
    """The rooms, those where somebody spoke last first; or, ?room=Some name, off to that one."""
    name = slugify(request.GET.get("room", ""), **ANY_SCRIPT)[:50]
    if name:
        return redirect("room", name)
    rooms = Room.objects.annotate(last=Max("lines")).order_by("-last")[:30]
    return render(request, "chat/index.html", {"rooms": rooms})


@require_GET
def room(request, name):
    """The page of a room, which may be new. Its script opens the socket."""
    return render(request, "chat/room.html", {"name": name})


@require_POST
def nickname(request):
    """Choose a nickname, or another one: in every window that this person has open."""
    name = " ".join(request.POST.get("nickname", "").split())[:30]
    if not name:
        return JsonResponse({"error": "A nickname has at least one letter."}, status=400)
    person = request.session.setdefault("person", uuid.uuid4().hex)
    request.session["nickname"] = name
    for room in Room.objects.filter(windows__person=person).distinct():
        with room.roll_call():
            room.windows.filter(person=person).update(nickname=name)
    return JsonResponse({"person": person, "nickname": name})
