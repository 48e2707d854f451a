from __future__ import annotations

from channels import include, route, route_class

from .consumers import Echo, Rooms, Streams, answer, ws_connect, ws_disconnect, ws_receive

rooms = [
    route("websocket.connect", ws_connect, path=r"^(?P<room>\w+)/$"),
    route("websocket.receive", ws_receive),
    route(["websocket.disconnect"], ws_disconnect),
]

channel_routing = [
    include(rooms, path=r"^/rooms/"),
    route_class(Rooms, path=r"^/json/"),
    Echo.as_route(path=r"^/echo/"),
    route("websocket.receive", answer, path=r"^/answers/"),
    route_class(Streams, path=r"^/streams/"),
    route("log", "typed_site.consumers.log"),
]
