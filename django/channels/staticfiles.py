"""
Static files in development: `runserver` and `runworker` use StaticFilesConsumer in place of ViewConsumer.

It serves what is under STATIC_URL through django.contrib.staticfiles, and passes every other request on
to the views. In production, let a web server or a CDN serve static files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlparse
from urllib.request import url2pathname

from django.conf import settings
from django.contrib.staticfiles import utils
from django.contrib.staticfiles.views import serve
from django.http import Http404, HttpRequest, HttpResponse

from .handler import AsgiHandler, ViewConsumer
from .routing import Router

if __package__ == "django.channels":
    from django.core.handlers.asgi import convert_exception_to_response
else:
    from channels.handlers.asgi import convert_exception_to_response


if TYPE_CHECKING:
    from .layers.base import BaseChannelLayer


class StaticFilesHandler(AsgiHandler):
    """
    An AsgiHandler that serves STATIC_URL, whatever DEBUG is, without the site's middleware.

    It serves a STATIC_URL that is a path. A full URL names another server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._serve = convert_exception_to_response(self.serve)

    def get_base_url(self) -> str:
        """Return STATIC_URL. Raises ImproperlyConfigured if the setting is missing or wrong."""
        utils.check_settings()
        return cast(str, settings.STATIC_URL)

    def _static_path(self, request: HttpRequest) -> str | None:
        """Return the path below STATIC_URL (percent-decoded), or None for any other request."""
        base = urlparse(self.get_base_url())
        if base.netloc:
            return None
        # The script prefix may stand in front of STATIC_URL.
        paths: tuple[str, str] = (request.path, request.path_info)
        for path in paths:
            if path.startswith(base.path):
                return path[len(base.path) :]
        return None

    def file_path(self, url: str) -> str:
        """Return the relative file path for a URL path below STATIC_URL. Raises Http404 if there is none."""
        try:
            return url2pathname(url)
        except OSError:  # from Python 3.14 on, "//name/path" is a file on another machine
            raise Http404("%r is not the path of a file." % url[:200]) from None

    def serve(self, request: HttpRequest) -> HttpResponse:
        """Return the response for a file. Raises Http404 if no finder has it."""
        return serve(request, self.file_path(self._static_path(request) or ""), insecure=True)

    def get_response(self, request: HttpRequest) -> HttpResponse:
        if self._static_path(request) is not None:
            return self._serve(request)
        return super().get_response(request)


class StaticFilesConsumer(ViewConsumer):
    """The consumer of `http.request` in development: static files first, then the views."""

    handler_class = StaticFilesHandler
    serves_static = True


def serve_static_files(layer: BaseChannelLayer) -> None:
    """Route the requests of `layer` that no route takes to StaticFilesConsumer."""
    layer.router = Router(layer.routing or [])
    layer.router.check_default(http_consumer=StaticFilesConsumer())


if not TYPE_CHECKING:
    from .habits import former_names

    __getattr__ = former_names(__name__)
