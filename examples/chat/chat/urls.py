"""The chat's pages; and, while DEBUG is on, its style sheet and scripts under any server."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns

from . import views

try:
    from django.urls import re_path
except ImportError:  # Django 1.11
    from django.conf.urls import url as re_path

urlpatterns = [
    re_path(r"^$", views.index, name="index"),
    re_path(r"^nickname/$", views.nickname, name="nickname"),
    re_path(r"^chat/(?P<name>[\w-]{1,50})/$", views.room, name="room"),
] + staticfiles_urlpatterns()
