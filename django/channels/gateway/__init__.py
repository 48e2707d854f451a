"""
The gateway: an ASGI 3 application in front of a channel layer.

`websocket.py` and `http.py` hold the states of a connection, pure functions of events; `application.py`
holds all the I/O. Nothing here knows Django's views.
"""

from .application import Gateway

__all__ = ["Gateway"]
