"""Which consumer hears which path; plain HTTP goes to Django's views by itself."""

from channels import route
from consumers import (
    broadcast,
    echo,
    echo_async,
    echo_later,
    join,
    join_many,
    leave,
    to_own_group,
)

routing = [
    route("websocket.receive", echo, path=r"^/echo/$"),
    route("websocket.receive", echo_async, path=r"^/echo-async/$"),
    route("websocket.receive", echo_later, path=r"^/echo-later/$"),
    route("websocket.connect", join_many, path=r"^/groups/(?P<count>\d+)/$"),
    route("websocket.receive", to_own_group, path=r"^/groups/\d+/$"),
    route("websocket.connect", join, path=r"^/broadcast/$"),
    route("websocket.receive", broadcast, path=r"^/broadcast/$"),
    route("websocket.disconnect", leave, path=r"^/broadcast/$"),
]
