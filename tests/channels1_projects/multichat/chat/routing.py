from channels import route

from .consumers import chat_join, chat_leave, chat_send, ws_connect, ws_disconnect, ws_receive

# The sockets: their frames are put on a channel of our own.
websocket_routing = [
    route("websocket.connect", ws_connect),
    route("websocket.receive", ws_receive),
    route("websocket.disconnect", ws_disconnect),
]

# That channel, by command.
custom_routing = [
    route("chat.receive", chat_join, command="^join$"),
    route("chat.receive", chat_leave, command="^leave$"),
    route("chat.receive", chat_send, command="^send$"),
]
