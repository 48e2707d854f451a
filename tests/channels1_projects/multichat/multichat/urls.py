from chat.views import index
from django.conf.urls import url
from django.contrib import admin
from django.contrib.auth.views import login

urlpatterns = [
    url(r"^$", index),
    url(r"^accounts/login/$", login),
    url(r"^admin/", admin.site.urls),
]
