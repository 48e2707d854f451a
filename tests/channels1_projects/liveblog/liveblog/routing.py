from channels import route
from posts.consumers import connect_blog, disconnect_blog, ping_blog

stream = r"^/liveblog/(?P<slug>[^/]+)/stream/$"

channel_routing = [
    route("websocket.connect", connect_blog, path=stream),
    route("websocket.receive", ping_blog, path=stream),
    route("websocket.disconnect", disconnect_blog, path=stream),
]
