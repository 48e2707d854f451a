"""Which consumer hears which path."""

from channels import route
from consumers import accept, echo

routing = [
    route("websocket.connect", accept, path=r"^/echo/$"),
    route("websocket.receive", echo, path=r"^/echo/$"),
]
