"""
Django's HTTP handler for channels: an `http.request` message in, reply messages out.

The messages are those of the ASGI 1.0 HTTP specification. What lives here knows Django alone: no
channel layer, no socket, no thread, and nothing of channels is imported. A body that does not fit
in its message comes as an iterable of bytes; the response goes out as a generator of replies, which
the caller sends.
"""

import asyncio
import codecs
import logging
import sys
from io import BufferedIOBase, BytesIO

import django
from django.conf import settings
from django.core import signals
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.handlers.base import BaseHandler
from django.http import (
    Http404,
    HttpRequest,
    HttpResponseBadRequest,
    HttpResponseServerError,
    QueryDict,
    parse_cookie,
)
from django.http.request import UnreadablePostError
from django.utils.encoding import repercent_broken_unicode
from django.utils.functional import cached_property

try:
    from django.urls import get_resolver, set_script_prefix
except ImportError:  # Django 1.8 and 1.9
    from django.core.urlresolvers import get_resolver, set_script_prefix

try:
    from django.core.exceptions import RequestDataTooBig
except ImportError:  # Django 1.8 and 1.9, which know no such limit unless a site sets one itself
    RequestDataTooBig = SuspiciousOperation

try:
    from django.utils.http import parse_header_parameters
except ImportError:  # Django before 4.2
    from cgi import parse_header as parse_header_parameters

try:
    from django.core.handlers.exception import convert_exception_to_response
except ImportError:  # Django 1.8 and 1.9
    _ERROR_STATUSES = ((Http404, 404), (PermissionDenied, 403), (SuspiciousOperation, 400))

    def convert_exception_to_response(get_response):
        """Wrap `get_response(request)`: what it raises becomes the site's response to that."""

        def inner(request):
            try:
                return get_response(request)
            except Exception as error:
                handler, resolver = BaseHandler(), get_resolver(None)
                if isinstance(error, Http404) and settings.DEBUG:
                    from django.views.debug import technical_404_response

                    return technical_404_response(request, error)
                for kind, status in _ERROR_STATUSES:
                    if isinstance(error, kind):
                        known = () if django.VERSION < (1, 9) else (error,)
                        return handler.get_exception_response(request, resolver, status, *known)
                return handler.handle_uncaught_exception(request, resolver, sys.exc_info())

        return inner


logger = logging.getLogger("django.request")

#: The most content that one reply carries, in bytes.
CHUNK_SIZE = 256 * 1024

#: Seconds that tasks beside an asynchronous stream get at its end before they are cancelled.
STRAYS_GRACE = 0.1

#: How many header names are remembered with their META key; clients make up what lies beyond.
_KNOWN_HEADERS = 1024

#: META keys by header name; None for a name that is dropped.
_meta_keys = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}


def _meta_key(name):
    """
    The META key of a header name (bytes, any case), or None for one to drop: one with an underscore
    would be taken for the same name with a hyphen, which a proxy in front may vouch for.
    """
    if b"_" in name:
        key = None
    else:
        key = _meta_keys.get(name.lower())
        if key is None:
            key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_meta_keys) < _KNOWN_HEADERS:
        _meta_keys[name] = key
    return key


def _well_formed(path):
    """
    A path (text) as Django's WSGI handler has it: bytes that are not UTF-8, which a server may have
    kept as surrogates, stay percent-encoded. Raises UnicodeError for text that stands for no bytes
    at all.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        path = repercent_broken_unicode(path.encode("utf-8", "surrogateescape")).decode("utf-8")
    return path


class BodyStream(BufferedIOBase):
    """
    A request's body as a file to read from: the first chunk, then what the iterable of chunks
    gives.

    Any exception of the iterable comes out as an OSError, now and on every later read, since that
    is what Django expects of a broken connection; `failure` keeps the exception itself.
    """

    __slots__ = ("_at", "_buffer", "_chunks", "_left", "failure", "length", "size")

    def __init__(self, first, chunks=None, length=None):
        self._buffer = first
        self._at = 0  # what lies before it in the buffer was read: cutting it off each time is slow
        self._chunks = chunks if chunks is None else iter(chunks)
        self._left = length
        self.failure = None
        #: The Content-Length in bytes, or None if the client sent none.
        self.length = length
        #: How long the body is at most, in bytes: exact, unless there are chunks to come.
        self.size = (
            length if length is not None else sys.maxsize if chunks is not None else len(first)
        )

    def readable(self):
        return True

    def read(self, size=None):
        """`size` bytes, or all that is left without a size; fewer only at the end of the body."""
        if size is None or size < 0:
            size = sys.maxsize
        self._fill(size)
        return self._take(size)

    def readline(self, size=None):
        """One line with its newline, or `size` bytes of it; `b""` at the end of the body."""
        limit = sys.maxsize if size is None or size < 0 else size
        searched = 0
        while True:
            end = self._buffer.find(b"\n", self._at + searched) + 1
            searched = len(self._buffer) - self._at
            if end or searched >= limit or not self._fill(searched + 1):
                return self._take(min(end - self._at if end else searched, limit))

    def close(self):
        """Nothing more will be read: drop what is held."""
        self._chunks, self._buffer, self._at = None, b"", 0
        super().close()

    def exceeds(self, limit):
        """
        Whether more than `limit` bytes are still to be read; holds them in memory up to that point.
        """
        self._fill(limit + 1)
        held = len(self._buffer) - self._at
        return (held if self._left is None else min(held, self._left)) > limit

    def _fill(self, size):
        """Read chunks until the buffer holds `size` bytes; returns whether it does."""
        held = len(self._buffer) - self._at
        if held < size and self._chunks is not None and (self._left is None or held < self._left):
            parts = [self._buffer[self._at :]]
            try:
                while held < size and (self._left is None or held < self._left):
                    chunk = self._next_chunk()
                    if chunk is None:
                        break
                    parts.append(chunk)
                    held += len(chunk)
            finally:
                self._buffer, self._at = b"".join(parts), 0
        return held >= size

    def _next_chunk(self):
        if self.failure is None:
            try:
                return next(self._chunks, None)
            except Exception as error:
                self.failure = error
        # A body that broke off must never pass for a complete one, however often it is read.
        raise OSError(f"The request's body could not be read: {self.failure!r}") from self.failure

    def _take(self, size):
        if self._left is not None:
            size = min(size, self._left)
        taken = self._buffer[self._at : self._at + size]
        self._at += len(taken)
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
        if self._left is not None:
            self._left -= len(taken)
        return taken


class ASGIRequest(HttpRequest):
    """
    The HttpRequest of an `http.request` message.

    `message` is a mapping with the specification's keys (all but `path` may be missing); `body`,
    where given, an iterable of what follows the message's own `body`, bytes, read only as the view
    reads. Raises UnicodeError for a path that is no text.
    """

    def __init__(self, message, body=None):
        # HttpRequest.__init__ would build empty GET, POST, COOKIES and FILES for the properties
        # below.
        self.META = self.environ = meta = self._make_meta(message)
        path_info = _well_formed(message.get("path") or "/")
        script_name = settings.FORCE_SCRIPT_NAME
        if script_name is None:
            script_name = message.get("root_path") or ""
            script_name.encode("utf-8")
        script_name = script_name.rstrip("/")
        # ASGI's path includes the prefix, unless a proxy in front has taken it off.
        if script_name and (path_info + "/").startswith(script_name + "/"):
            path_info = path_info[len(script_name) :] or "/"
        self.path = script_name + "/" + path_info.replace("/", "", 1)
        self.path_info = meta["PATH_INFO"] = path_info
        self.script_name = meta["SCRIPT_NAME"] = script_name
        self.method = meta["REQUEST_METHOD"]
        self.resolver_match = None
        self.content_type, self.content_params = "", {}
        if "CONTENT_TYPE" in meta:
            self._read_content_type(meta["CONTENT_TYPE"])
        length = None
        if "CONTENT_LENGTH" in meta:
            # As under WSGI, what is no length is none; servers refuse such a request anyway.
            length = int(meta["CONTENT_LENGTH"]) if meta["CONTENT_LENGTH"].isdecimal() else 0
        self._query_string = message.get("query_string") or b""
        # Django puts another stream in the place of one that it has read.
        self._stream = self._incoming = BodyStream(message.get("body") or b"", body, length)
        self._read_started = False
        self._post_parse_error = False

    @staticmethod
    def _make_meta(message):
        """What a WSGI server would put in the environment, but for the path."""
        get = message.get
        host, port = get("server") or ("unknown", 0)
        client, client_port = get("client") or ("", None)
        meta = {
            "REQUEST_METHOD": (get("method") or "GET").upper(),
            "QUERY_STRING": (get("query_string") or b"").decode("latin-1"),
            # A socket without an address, as a Unix socket is, has a name but no port.
            "SERVER_NAME": host if port is not None else "unknown",
            "SERVER_PORT": str(port or 0),
            "SERVER_PROTOCOL": "HTTP/" + (get("http_version") or "1.1"),
            "REMOTE_ADDR": client or "",
            "REMOTE_HOST": client or "",
            "wsgi.url_scheme": "https" if get("scheme") in ("https", "wss") else "http",
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
        }
        if client_port is not None:
            meta["REMOTE_PORT"] = str(client_port)
        for name, value in get("headers") or ():
            try:
                key = _meta_keys[name]
            except KeyError:
                key = _meta_key(name)
            if key is None:
                continue
            value = value.decode("latin-1")
            if key in meta:
                separator = "; " if key == "HTTP_COOKIE" else ","
                value = f"{meta[key]}{separator}{value}"
            meta[key] = value
        return meta

    def _read_content_type(self, value):
        self.content_type, self.content_params = parse_header_parameters(value)
        charset = self.content_params.get("charset")
        if charset:
            try:
                codecs.lookup(charset)
            except LookupError:
                return
            self.encoding = charset

    def _get_scheme(self):
        return self.META["wsgi.url_scheme"]

    @property
    def encoding(self):
        return self._encoding

    @encoding.setter
    def encoding(self, encoding):
        HttpRequest.encoding.fset(self, encoding)
        # Django before 1.11 keeps what it has parsed.
        self.__dict__.pop("GET", None)

    @cached_property
    def GET(self):
        return QueryDict(self._query_string, encoding=self._encoding)

    @cached_property
    def COOKIES(self):
        raw = self.META.get("HTTP_COOKIE")
        # Headers are decoded as Latin-1, cookies are written as UTF-8.
        return parse_cookie(raw.encode("latin-1").decode("utf-8", "replace")) if raw else {}

    def _get_post(self):
        if not hasattr(self, "_post"):
            self._load_post_and_files()
        return self._post

    def _set_post(self, post):
        self._post = post

    POST = property(_get_post, _set_post)

    @property
    def FILES(self):
        if not hasattr(self, "_files"):
            self._load_post_and_files()
        return self._files

    @property
    def body(self):
        # Django compares the Content-Length with the limit; a chunked body has none to compare.
        unread = not self._read_started and not hasattr(self, "_body")
        if unread and self._incoming.length is None:
            limit = getattr(settings, "DATA_UPLOAD_MAX_MEMORY_SIZE", None)
            if limit is not None:
                try:
                    too_big = self._incoming.exceeds(limit)
                except OSError as error:
                    raise UnreadablePostError(*error.args) from error
                if too_big:
                    raise RequestDataTooBig(
                        "Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE."
                    )
        return super().body

    def parse_file_upload(self, META, post_data):
        # The parser takes a form without a Content-Length for an empty one; a chunked form has
        # none.
        if self._incoming.length is None:
            size = (
                post_data.getbuffer().nbytes
                if isinstance(post_data, BytesIO)
                else self._incoming.size
            )
            META = dict(META, CONTENT_LENGTH=str(size))
        return super().parse_file_upload(META, post_data)


class ASGIHandler(BaseHandler):
    """
    The site as a function of a message: `handler(message, body)` gives a generator of replies.

    The generator runs the request through the site's middleware and view as it is first advanced,
    and follows a streaming response lazily. The response is closed as the generator ends or is
    closed, which sends `request_finished`. What the body's iterable raised is raised again if the
    site made an error of it: the caller knows best what to answer.
    """

    request_class = ASGIRequest

    #: Exceptions by which a view says that someone else answers the request.
    answered_later = ()

    def __init__(self):
        super().__init__()
        self.load_middleware()

    def __call__(self, message, body=None):
        try:
            request = self.request_class(message, body)
        except UnicodeError as error:
            # As under WSGI, what came in is not text: nothing of the site can be asked.
            logger.warning(
                "Bad Request (%s)",
                error.__class__.__name__,
                exc_info=True,
                extra={"status_code": 400},
            )
            request, head = None, False
            self._start("", {})
            response = HttpResponseBadRequest()
        else:
            head = request.method == "HEAD"
            self._start(request.script_name, request.META)
            try:
                response = self.get_response(request)
            except BaseException:
                # Only with DEBUG_PROPAGATE_EXCEPTIONS, or on the way out of the process.
                signals.request_finished.send(sender=self.__class__)
                raise
        response._handler_class = self.__class__
        if request is not None:
            failure = request._incoming.failure
            if failure is not None and response.status_code >= 400:
                self._close(response)
                raise failure
            if getattr(request, "_answered_later", False):
                self._close(response)
                return
        yield from self.encode_response(response, head)

    @classmethod
    def _start(cls, script_name, environ):
        set_script_prefix(script_name or "/")
        signals.request_started.send(sender=cls, environ=environ)

    def process_exception_by_middleware(self, exception, request):
        if isinstance(exception, self.answered_later):
            return self._answer_later(request)
        return super().process_exception_by_middleware(exception, request)

    def handle_uncaught_exception(self, request, resolver, exc_info):
        """
        Called by Django before 2.0 only; 1.8 and 1.9 have no other place to hold an exception back.
        """
        if self.answered_later and issubclass(exc_info[0], self.answered_later):
            return self._answer_later(request)
        return super().handle_uncaught_exception(request, resolver, exc_info)

    @staticmethod
    def _answer_later(request):
        request._answered_later = True
        # Django wants a response to pass through the middleware; this one is never sent.
        return HttpResponseServerError()

    @classmethod
    def handle_uncaught(cls, message, error):
        """
        Replies (a generator) to `message` with the page that the site has for the exception
        `error`, raised by something other than a view; logged and signalled as Django does.
        """

        def fail(request):
            raise error

        try:
            # What there is of the body, the one that failed has read: waiting for more would be in vain.
            request = cls.request_class(message, ())
            cls._start(request.script_name, request.META)
            head = request.method == "HEAD"
            response = convert_exception_to_response(fail)(request)
        except Exception:
            # The site's own error page failed, or it wants exceptions propagated.
            head = message.get("method") == "HEAD"
            response = HttpResponseServerError("<h1>Server Error (500)</h1>")
        response._handler_class = cls
        return cls.encode_response(response, head)

    @classmethod
    def encode_response(cls, response, head=False):
        """
        The replies (a generator) that carry `response`, which is closed at their end: the first one
        with `status` and `headers`, all with at most CHUNK_SIZE bytes of `content`, and
        `more_content`.

        With `head`, and where the status allows no body, there is no content. Raises what the
        iterator of a streaming response raises.
        """
        try:
            status = response.status_code
            bodiless = status in (204, 304) or 100 <= status < 200
            headers = []
            for name, value in response.items():
                name = name.encode("ascii").lower()
                # A length that no body follows makes some servers wait for it, or raise.
                if bodiless and name == b"content-length":
                    continue
                headers.append([name, value.encode("latin-1")])
            for cookie in response.cookies.values():
                headers.append([b"set-cookie", cookie.OutputString().encode("utf-8")])
            reply = {"status": status, "headers": headers}
            if bodiless or head:
                reply["content"] = b""
                reply["more_content"] = False
                yield reply
                return
            contents = _parts(response) if response.streaming else _split(response.content)
            try:
                for content, last in contents:
                    reply["content"] = content
                    reply["more_content"] = not last
                    yield reply
                    reply = {}
            finally:
                # Whoever leaves the loop has not closed what it went over; until Python 3.10 that
                # waited for the garbage collector.
                if response.streaming:
                    cls._close(contents)
        finally:
            cls._close(response)

    @staticmethod
    def _close(response):
        try:
            response.close()
        except Exception:
            # The client has its response already: an error page would come too late.
            logger.exception("Closing the response failed.")


def _split(content):
    """`(part, last)` pairs (bytes, bool) of at most CHUNK_SIZE bytes of a whole content."""
    end = len(content)
    if end <= CHUNK_SIZE:
        return ((content, True),)
    return (
        (content[start : start + CHUNK_SIZE], start + CHUNK_SIZE >= end)
        for start in range(0, end, CHUNK_SIZE)
    )


def _parts(response):
    """
    `(part, last)` pairs (bytes, bool) of at most CHUNK_SIZE bytes of a streaming response, each as
    soon as it is there; only the last one may be empty.
    """
    left = None
    file = getattr(response, "file_to_stream", None)
    if file is not None:
        chunks = _file_chunks(response, file)
        # A file's end is known beforehand, which saves a small one its second message.
        length = response.get("Content-Length", "")
        left = int(length) if length.isdecimal() else None
    elif getattr(response, "is_async", False):
        chunks = _run_async_iterator(response.streaming_content)
    else:
        chunks = iter(response)
    try:
        for chunk in chunks:
            for part, _ in _split(chunk) if chunk else ():
                if left is not None:
                    left -= len(part)
                    if left <= 0:
                        yield part, True
                        return
                yield part, False
        yield b"", True
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _file_chunks(response, file):
    """The file of a FileResponse in larger blocks than the response itself would read."""
    while True:
        chunk = file.read(CHUNK_SIZE)
        if not chunk:
            return
        yield response.make_bytes(chunk)


def _run_async_iterator(iterator):
    """
    The chunks of an asynchronous iterator, each as soon as it is there: it runs in an event loop of
    this thread's own, in one task throughout, while a chunk is waited for. Django's own way without
    an event loop would collect all of them first, and never come to the end of an endless stream.
    """
    from asgiref.sync import ThreadSensitiveContext, sync_to_async
    from django.db import connections

    loop = asyncio.new_event_loop()
    end = object()
    ready = resume = loop.create_future()

    async def produce():
        nonlocal resume
        # What it hands to sync_to_async runs in a thread of its own, with its own database
        # connections.
        async with ThreadSensitiveContext():
            try:
                async for chunk in iterator:
                    resume = loop.create_future()
                    ready.set_result(chunk)
                    await resume
                ready.set_result(end)
            except Exception as error:
                ready.set_exception(error)
            finally:
                close = getattr(iterator, "aclose", None)
                if close is not None:
                    await close()
                await loop.shutdown_asyncgens()
                await sync_to_async(connections.close_all)()

    task = loop.create_task(produce())
    try:
        while True:
            chunk = loop.run_until_complete(ready)
            if chunk is end:
                return
            ready = loop.create_future()
            yield chunk
            resume.set_result(None)
    finally:
        try:
            if not ready.done():
                task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
            if not task.cancelled() and task.exception() is not None:
                logger.error("Closing a streaming response failed.", exc_info=task.exception())
            # Generators that were let go are being closed by tasks of their own, which get a moment;
            # what else the view started beside its stream ends with it.
            loop.run_until_complete(asyncio.sleep(0))
            strays = asyncio.all_tasks(loop)
            if strays:
                wait = asyncio.wait(strays, timeout=STRAYS_GRACE)
                _, strays = loop.run_until_complete(wait)
            for stray in strays:
                stray.cancel()
            if strays:
                loop.run_until_complete(asyncio.wait(strays))
        finally:
            loop.close()
