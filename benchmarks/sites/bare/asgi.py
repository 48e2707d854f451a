"""The limit: an ASGI 3 application with nothing in it. What the server alone can do on this machine."""

BODY = b"Hello, world!"
HEADERS = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(BODY))]

listeners = set()  # the `send` of every socket at /broadcast/


async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/echo/":
            await echo(receive, send)
        else:
            await broadcast(receive, send)
    elif scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return


async def echo(receive, send):
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": event["text"]})


async def broadcast(receive, send):
    listeners.add(send)
    try:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            message = {"type": "websocket.send", "text": event["text"]}
            for listener in list(listeners):
                await listener(message)
    finally:
        listeners.discard(send)
