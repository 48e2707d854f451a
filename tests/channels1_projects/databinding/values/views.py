from django.shortcuts import render

from .models import IntegerValue


def index(request):
    return render(request, "index.html", {"values": IntegerValue.objects.order_by("id")})
