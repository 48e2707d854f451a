"""Which consumer gets which event: what urls.py is to views.py.

The named groups of the pattern are the consumers' keyword arguments, as with URLs.
"""

from channels import route

from . import consumers

SOCKET = r"^/chat/(?P<name>[\w-]{1,50})/(?P<after>\d{0,18})$"

channel_routing = [
    route("websocket.connect", consumers.arrive, path=SOCKET),
    route("websocket.receive", consumers.hear, path=SOCKET),
    route("websocket.disconnect", consumers.depart, path=SOCKET),
]
