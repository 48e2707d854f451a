"""
Static files in development: StaticFilesConsumer stands in for ViewConsumer under `runserver`.

It serves what is under STATIC_URL through django.contrib.staticfiles, and hands every other request
to the views. For production, have a web server or a CDN serve them.
"""

from urllib.parse import urlparse
from urllib.request import url2pathname

from django.conf import settings
from django.contrib.staticfiles import utils
from django.contrib.staticfiles.views import serve

from .handler import AsgiHandler, ViewConsumer

if __package__ == "django.channels":
    from django.core.handlers.asgi import convert_exception_to_response
else:
    from channels.handlers.asgi import convert_exception_to_response


class StaticFilesHandler(AsgiHandler):
    """
    An AsgiHandler that serves STATIC_URL itself, whatever DEBUG says, without the site's
    middleware.

    Only a STATIC_URL of this host is served; a full URL names another server.
    """

    def __init__(self):
        super().__init__()
        self._serve = convert_exception_to_response(self.serve)

    def get_base_url(self):
        """STATIC_URL; raises ImproperlyConfigured where the settings have none, or a wrong one."""
        utils.check_settings()
        return settings.STATIC_URL

    def _static_path(self, request):
        """
        The path (text, percent-encoding undone) below STATIC_URL, or None for any other request.
        """
        base = urlparse(self.get_base_url())
        if base.netloc:
            return None
        # Django 3.1 and later put the script prefix in front of a relative STATIC_URL, earlier ones
        # do not.
        for path in (request.path, request.path_info):
            if path.startswith(base.path):
                return path[len(base.path) :]
        return None

    def file_path(self, url):
        """The relative file path for a URL path below STATIC_URL."""
        return url2pathname(url)

    def serve(self, request):
        """The response for a file; raises Http404 if no finder has it."""
        return serve(request, self.file_path(self._static_path(request)), insecure=True)

    def get_response(self, request):
        if self._static_path(request) is not None:
            return self._serve(request)
        return super().get_response(request)


class StaticFilesConsumer(ViewConsumer):
    """The consumer of `http.request` in development: static files first, then the views."""

    handler_class = StaticFilesHandler
