"""The peer: sockets by synchronous and by asynchronous consumers, and Django's own ASGI handler."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django_application = get_asgi_application()  # the HTTP peer; nothing of Channels around it

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from consumers import AsyncBroadcast, AsyncEcho, Broadcast, Echo  # noqa: E402
from django.urls import path  # noqa: E402

application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [path("echo/", Echo.as_asgi()), path("broadcast/", Broadcast.as_asgi())]
        )
    }
)

async_application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [path("echo/", AsyncEcho.as_asgi()), path("broadcast/", AsyncBroadcast.as_asgi())]
        )
    }
)
