"""
The gateway: an ASGI 3 application in front of a channel layer.

* `application.py`: the application, and the life of a gateway and its connections
* `scopes.py`: from an ASGI 3 scope to the keys of `websocket.connect` and `http.request`
* `websocket.py`, `http.py`, `state.py`: the states of a connection, pure functions of events
* `connection.py`: carries out what a state asks for, and writes to the server
* `sender.py`: sends events to the workers, and tries again those that the layer refuses
* `frames.py`: the frames that wait for workers, of one socket and of all
* `idle.py`, `advice.py`: silent sockets, and options of the server
* `turns.py`: whose event is sent next, while workers are behind
* `reader.py`: takes what comes out of the inbox to its connection; groups
* `limits.py`, `refusal.py`: what a client may send and cost, and how it is refused
* `heads.py`, `pipelines.py`, `fragments.py`, `buffers.py`, `sansio.py`: what a server does not bound
  or end by itself
* `backlog.py`, `response.py`: what waits for clients that read slowly
* `upload.py`, `spool.py`, `blocks.py`: bodies, and the temporary files
* `daphne.py`, `transport.py`: flow control for Daphne, which has none

Nothing here knows Django's views.
"""

from .application import Gateway

__all__ = ["Gateway"]
