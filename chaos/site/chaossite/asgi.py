import json
import os

from channels.asgi import get_channel_layer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chaossite.settings")

channel_layer = get_channel_layer()


async def application(scope, receive, send):
    """The layer; and at /statistics what it counts, and what waits on it, in this very process."""
    if scope["type"] != "http" or scope["path"] != "/statistics":
        return await channel_layer(scope, receive, send)
    found = channel_layer.statistics()
    if not channel_layer.crosses_processes:
        found = dict(channel_layer.global_statistics(), **found)
    body = json.dumps(found).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
