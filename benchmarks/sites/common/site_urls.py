"""The HTTP part of both Django sites: one synchronous view, and the same as a coroutine."""

from django.http import HttpResponse
from django.urls import path


def hello(request):
    return HttpResponse("Hello, world!")


async def hello_async(request):
    return HttpResponse("Hello, world!")


urlpatterns = [path("hello/", hello), path("hello-async/", hello_async)]
