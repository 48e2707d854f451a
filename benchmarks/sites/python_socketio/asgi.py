"""python-socketio as an ASGI application: the event "m" is echoed, "b" is sent to everybody."""

import socketio

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
application = socketio.ASGIApp(server)


@server.event
async def connect(sid, environ):
    await server.enter_room(sid, "everybody")


@server.on("m")
async def echo(sid, text):
    await server.emit("m", text, to=sid)


@server.on("b")
async def broadcast(sid, text):
    await server.emit("b", text, room="everybody")
