from channels import route

from . import consumers

channel_routing = [
    route("websocket.connect", consumers.enter, path=r"^/room/(?P<room>[a-z]+)$"),
    route("websocket.receive", consumers.speak, path=r"^/room/(?P<room>[a-z]+)$"),
    route("websocket.disconnect", consumers.leave, path=r"^/room/(?P<room>[a-z]+)$"),
    route("websocket.receive", consumers.think, path=r"^/think$"),
    route("waiting-job", consumers.waiting_job),
    route("websocket.connect", consumers.connect),
    route("websocket.receive", consumers.receive),
    route("websocket.disconnect", consumers.disconnect),
    route("job", consumers.job),
]
