"""The HttpRequest of an `http.request` message, for the HTTP handler of channels (`asgi.py`)."""

from __future__ import annotations

import codecs
import encodings
import pkgutil
import re
from encodings.aliases import aliases
from io import BytesIO
from typing import Any, Iterable, Mapping, cast

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, QueryDict, parse_cookie
from django.http.request import UnreadablePostError
from django.utils.encoding import repercent_broken_unicode
from django.utils.functional import cached_property

from .asgi_body import BodyStream

try:
    from django.core.exceptions import RequestDataTooBig
except ImportError:  # a Django without this limit
    RequestDataTooBig = SuspiciousOperation

try:
    from django.utils.http import parse_header_parameters
except ImportError:
    from cgi import parse_header as parse_header_parameters

#: How many header names are cached with their META key, and the most bytes in one that is. Clients choose
#: names, so the cache holds at most 256 * 64 bytes of them.
_KNOWN_HEADERS, _KNOWN_HEADER_LENGTH = 256, 64

#: The longest name of a charset that is looked up.
_MAX_CHARSET_LENGTH = 40

#: The most digits of a Content-Length: no body has more bytes.
_LENGTH_DIGITS = 18

#: META keys by header name; None for a name that is dropped.
_meta_keys: dict[bytes, str | None] = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
}


def _meta_key(name: bytes) -> str | None:
    """
    Return the META key of a header name (bytes, any case), or None if the header must be dropped. A name
    with an underscore has the same key as the name with a hyphen, which only a trusted proxy may set. A name
    that isn't ASCII could get the key of another one: "\xdf" in upper case is "SS".
    """
    key: str | None
    if b"_" in name or not name.isascii():
        key = None
    else:
        key = _meta_keys.get(name.lower())
        if key is None:
            key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(name) <= _KNOWN_HEADER_LENGTH and len(_meta_keys) < _KNOWN_HEADERS:
        _meta_keys[name] = key
    return key


#: A character that is escaped in the quoted value of a cookie.
_ESCAPED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)

#: Backslashes that Python may read by itself.
_FEW_ESCAPES = 64


def read_cookies(text: str) -> dict[str, str]:
    """
    Return the cookies of a Cookie header (text), as Django reads them.

    Many releases of Python read the escapes of a quoted value in time that grows with the square of its
    length (CVE-2024-7592): 60 KB of them, as much as a gateway lets through, cost ten seconds.
    """
    if text.count("\\") <= _FEW_ESCAPES:
        return cast("dict[str, str]", parse_cookie(text))
    cookies: dict[str, str] = {}
    for part in text.split(";"):
        name, sign, value = part.partition("=")
        if not sign:
            name, value = "", name
        value = value.strip()
        if value.count("\\") <= _FEW_ESCAPES or not (value[0] == value[-1] == '"'):
            cookies.update(parse_cookie(part))
            continue
        value = _ESCAPED.sub(_unescape, value[1:-1])
        cookies.update(dict.fromkeys(parse_cookie(name + sign + "x"), value))
    return cookies


def _unescape(match: Any) -> str:
    return chr(int(match.group(1), 8)) if match.group(1) else cast(str, match.group(2))


#: Codecs of Python that no client has a use for. The first takes time that grows with the square of the text:
#: 20 seconds for a form of a megabyte.
_NOT_CHARSETS = frozenset(
    ["punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape", "unicode_internal"]
)

#: The names of Python's codecs, in the form that `normalize_encoding` gives.
_charsets = set(aliases).union(each[1] for each in pkgutil.iter_modules(encodings.__path__))


def _known_charset(charset: str) -> str | None:
    """
    Return the name under which Python may look up the `charset` that a client named, or None if it has no
    such codec, or a codec that is not a character set ("zlib"). Python remembers every name that was looked
    up, found or not, for ever.
    """
    if len(charset) > _MAX_CHARSET_LENGTH or not charset.isascii():
        return None
    plain = encodings.normalize_encoding(charset).lower()
    if plain not in _charsets and plain.replace(".", "_") not in _charsets:
        return None
    try:
        codec = codecs.lookup(plain)
        bytes(4).decode(plain, "replace")
    except (LookupError, UnicodeError):  # a module that isn't a codec, or a codec between bytes
        return None
    if codec.name.replace("-", "_") in _NOT_CHARSETS:
        return None
    return charset if charset.lower().replace("-", "_") == plain else codec.name


def _well_formed(path: str) -> str:
    """
    Return a path (text) as Django's WSGI handler has it: bytes that aren't UTF-8, which a server may have
    kept as surrogates, stay percent-encoded. Raises UnicodeError for text that cannot stand for bytes.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        path = repercent_broken_unicode(path.encode("utf-8", "surrogateescape")).decode("utf-8")
    return path


class ASGIRequest(HttpRequest):
    """
    The HttpRequest of an `http.request` message.

    `message` is a mapping with the specification's keys; all but `path` may be missing. `body` is an
    iterable of the bytes that follow the message's own `body`, or None. It is read only as the view
    reads. Raises UnicodeError for a path that isn't text.
    """

    def __init__(self, message: Mapping[str, Any], body: Iterable[bytes] | None = None) -> None:
        # HttpRequest.__init__ isn't called, because it would build empty GET, POST, COOKIES and FILES.
        self.META: dict[str, Any] = self._make_meta(message)
        self.environ = meta = self.META
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
        self.content_type: str = ""
        self.content_params: dict[str, str] = {}
        if "CONTENT_TYPE" in meta:
            self._read_content_type(meta["CONTENT_TYPE"])
        length = None
        if "CONTENT_LENGTH" in meta:
            # As under WSGI, a value that isn't a number means 0. Servers refuse such a request anyway.
            text = meta["CONTENT_LENGTH"]
            length = int(text) if text.isdecimal() and len(text) <= _LENGTH_DIGITS else 0
        self._query_string = message.get("query_string") or b""
        # Django replaces `_stream` by another one after it has read it.
        self._stream = self._incoming = BodyStream(message.get("body") or b"", body, length)
        self._read_started = False
        self._post_parse_error = False

    @staticmethod
    def _make_meta(message: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a WSGI server would put in the environment, without the path."""
        get = message.get
        host, port = get("server") or ("unknown", 0)
        client, client_port = get("client") or ("", None)
        meta = {
            "REQUEST_METHOD": (get("method") or "GET").upper(),
            "QUERY_STRING": (get("query_string") or b"").decode("latin-1"),
            # A Unix socket has a name, but not a port.
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

    def _read_content_type(self, value: str) -> None:
        self.content_type, self.content_params = parse_header_parameters(value)
        charset = self.content_params.get("charset")
        if charset:
            charset = _known_charset(charset)
            if charset is not None:
                self.encoding = charset

    def _get_scheme(self) -> str:
        return cast(str, self.META["wsgi.url_scheme"])

    @property
    def encoding(self) -> Any:
        return self._encoding

    @encoding.setter
    def encoding(self, encoding: str | None) -> None:
        HttpRequest.encoding.fset(self, encoding)
        # HttpRequest keeps what it has parsed.
        self.__dict__.pop("GET", None)

    @cached_property
    def GET(self) -> QueryDict:
        return QueryDict(self._query_string, encoding=self._encoding)

    @cached_property
    def COOKIES(self) -> dict[str, str]:
        raw = self.META.get("HTTP_COOKIE")
        # Headers are decoded as Latin-1, cookies are written as UTF-8.
        return read_cookies(raw.encode("latin-1").decode("utf-8", "replace")) if raw else {}

    def _get_post(self) -> QueryDict:
        if not hasattr(self, "_post"):
            self._load_post_and_files()
        return self._post

    def _set_post(self, post: QueryDict) -> None:
        self._post = post

    POST = property(_get_post, _set_post)

    @property
    def FILES(self) -> Any:
        if not hasattr(self, "_files"):
            self._load_post_and_files()
        return self._files

    @property
    def body(self) -> bytes:
        # Django compares the Content-Length with the limit. A chunked body comes without a length.
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
        return cast(bytes, super().body)

    def parse_file_upload(self, META: Mapping[str, Any], post_data: Any) -> Any:
        # Without a Content-Length, as a chunked form is, the parser would treat the form as empty.
        if self._incoming.length is None:
            size = (
                post_data.getbuffer().nbytes
                if isinstance(post_data, BytesIO)
                else self._incoming.size
            )
            META = dict(META, CONTENT_LENGTH=str(size))
        return super().parse_file_upload(META, post_data)
