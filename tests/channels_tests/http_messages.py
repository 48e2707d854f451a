"""
Requests for the HTTP tests: one description, as the message and as the WSGI environment that servers make.

The environment comes from the request handler of Django's own WSGI server, so that what the tests hold
against the message can come from another hand.
"""

import http.client
import io
import sys
from urllib.parse import unquote_to_bytes

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import WSGIRequestHandler

CLIENT = ("192.0.2.7", 4242)
SERVER = ("testserver", 80)


class Sent:
    """One HTTP request as a client writes it; `target` is text and percent-encoded."""

    def __init__(
        self, method="GET", target="/", headers=(), body=b"", scheme="http", script_name=""
    ):
        self.method = method
        self.target = target
        self.headers = [("Host", "testserver")] if not _has(headers, "host") else []
        self.headers += list(headers)
        if body and not _has(headers, "content-length"):
            self.headers.append(("Content-Length", str(len(body))))
        self.body = body
        self.scheme = scheme
        self.script_name = script_name

    def message(self, **changes):
        """The `http.request` message, as a gateway sends it."""
        path, _, query = self.target.partition("?")
        message = {
            "reply_channel": "gateway.test!1",
            "http_version": "1.1",
            "method": self.method,
            "scheme": self.scheme,
            "path": self.script_name
            + unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "surrogateescape"),
            "query_string": query.encode("latin-1"),
            "root_path": self.script_name,
            "headers": [
                [name.lower().encode("latin-1"), value.encode("latin-1")]
                for name, value in self.headers
            ],
            "body": self.body,
            "client": list(CLIENT),
            "server": list(SERVER),
        }
        message.update(changes)
        return message

    def environ(self):
        """The environment that Django's WSGI server would make."""
        handler = WSGIRequestHandler.__new__(WSGIRequestHandler)
        lines = ["%s: %s" % header for header in self.headers]
        handler.raw_requestline = ("%s %s HTTP/1.1\r\n" % (self.method, self.target)).encode(
            "latin-1"
        )
        handler.rfile = io.BytesIO("\r\n".join(lines + ["", ""]).encode("latin-1"))
        handler.client_address = CLIENT
        handler.server = _Server()
        if not handler.parse_request():
            raise ValueError("Django's WSGI server refuses this request.")
        if not handler.headers:  # without a target, a request lacks a version, and so headers
            handler.headers = http.client.HTTPMessage()
        environ = handler.get_environ()
        if not _has(self.headers, "content-type"):
            # The standard library makes one up.
            environ.pop("CONTENT_TYPE", None)
        environ.update(
            {
                "SCRIPT_NAME": self.script_name,
                "wsgi.input": io.BytesIO(self.body),
                "wsgi.errors": sys.stderr,
                "wsgi.url_scheme": self.scheme,
                "wsgi.multithread": True,
                "wsgi.multiprocess": True,
                "wsgi.run_once": False,
            }
        )
        return environ


class _Server:
    base_environ = {
        "SERVER_NAME": SERVER[0],
        "SERVER_PORT": str(SERVER[1]),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_HOST": "",
        "CONTENT_LENGTH": "",
        "SCRIPT_NAME": "",
    }


def _has(headers, name):
    return any(each.lower() == name for each, _ in headers)


class Received:
    """A response as a client sees it: `status`, `headers` (sorted list of text pairs), `body`."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = sorted(headers)
        self.body = body

    def header(self, name):
        """The value of a header; None without it, and joined by newlines if there are several."""
        found = [value for each, value in self.headers if each == name]
        return "\n".join(found) if found else None

    @classmethod
    def from_replies(cls, replies):
        """From reply messages; raises ValueError if they are not a complete response."""
        replies = list(replies)
        if [reply["more_content"] for reply in replies] != [True] * (len(replies) - 1) + [False]:
            raise ValueError("The replies do not end where they say: %r" % (replies,))
        if any("status" in reply for reply in replies[1:]):
            raise ValueError("A later reply has a status.")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in replies[0]["headers"]
        ]
        return cls(replies[0]["status"], headers, b"".join(reply["content"] for reply in replies))

    @classmethod
    def from_wsgi(cls, environ):
        """From Django's WSGI handler, by way of a server that does what HTTP asks of one."""
        started = []
        result = WSGIHandler()(environ, lambda status, headers: started.append((status, headers)))
        try:
            body = b"".join(result)
        finally:
            result.close()
        status, headers = started[0]
        status = int(status.split(" ")[0])
        headers = [(name.lower(), value.strip()) for name, value in headers]
        if environ["REQUEST_METHOD"] == "HEAD" or status in (204, 304):
            body = b""
        if status in (204, 304):
            headers = [each for each in headers if each[0] != "content-length"]
        return cls(status, headers, body)
