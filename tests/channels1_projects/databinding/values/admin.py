from django.contrib import admin

from .models import IntegerValue

admin.site.register(IntegerValue)
