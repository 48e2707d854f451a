from django.contrib import admin

from .models import Liveblog, Post

admin.site.register(Liveblog)
admin.site.register(Post)
