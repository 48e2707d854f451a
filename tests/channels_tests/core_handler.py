"""The core HTTP handler, by whichever name it has: inside the patched Django, or in the add-on."""

from importlib import import_module

from django.channels import handler

#: `django.core.handlers.asgi` or `channels.handlers.asgi`.
asgi = import_module(handler.ASGIHandler.__module__)

#: The module of its requests.
asgi_request = import_module(asgi.ASGIRequest.__module__)
