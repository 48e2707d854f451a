try:
    from django.urls import re_path
except ImportError:
    from django.conf.urls import url as re_path

from . import views

urlpatterns = [
    re_path(r"^work$", views.work),
    re_path(r"^poll$", views.poll),
    re_path(r"^page$", views.page),
    re_path(r"^events$", views.events),
    re_path(r"^stream$", views.stream),
    re_path(r"^upload$", views.upload),
    re_path(r"^hold$", views.hold),
    re_path(r"^flood$", views.flood),
]
