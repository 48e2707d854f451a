"""
WSGI, in each direction.

* `get_wsgi_application()` for a wsgi.py: a WSGI server takes the requests, and workers answer them.
* `WSGIConsumer(application)` for a routing: workers run any WSGI application.
* `get_channel_layer(http=application)` for an asgi.py (`in_gateway.py`): the server's process runs a WSGI
  or ASGI application for HTTP, and only WebSockets use the layer.
"""

from .consumer import WSGIConsumer
from .over_layer import LayerApplication, get_wsgi_application

__all__ = ["LayerApplication", "WSGIConsumer", "get_wsgi_application"]
