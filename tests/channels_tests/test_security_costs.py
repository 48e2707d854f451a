"""What a client sends for little, and what would cost this site much: it is refused, or read at once."""

import io
import json
import logging
import time
from decimal import Decimal
from unittest import mock

from django.channels import hints
from django.channels.binding import fields
from django.channels.exceptions import InvalidMessage
from django.channels.generic import json_text
from django.channels.layers.messages import clean
from django.channels.log import MAX_TRACEBACK
from django.channels.security.origins import ASGIRequest
from django.channels.sessions import http_session_key
from django.core.exceptions import ValidationError
from django.db import models
from django.test import SimpleTestCase
from django.test.utils import override_settings

from .support.waiting import TIMEOUT

#: Seconds of processor time. Each input here takes a small part of it, and took several times as long before.
BOUND = TIMEOUT / 4

#: As much as a gateway lets through of headers.
HEADER = 60 * 1024


class CostCase(SimpleTestCase):
    def assertCheap(self, call, *args):
        """Return the result of a call that needs little processor time."""
        began = time.thread_time()
        result = call(*args)
        self.assertLess(time.thread_time() - began, BOUND)
        return result


class MessageTests(CostCase):
    def test_a_long_key_above_many_values_is_copied_once(self):
        message = {"k" * 500000: [0] * 150000}
        self.assertEqual(self.assertCheap(clean, message), message)
        message = {"k" * 500000: [[0] * 1000] * 150}
        self.assertEqual(self.assertCheap(clean, message), message)

    def test_the_place_of_a_bad_value_is_named(self):
        for message, place in (
            ({"a": {"b": [0, {"c": object()}]}}, "'a.b[1].c'"),
            ({"a": ((object(),),)}, "'a[0][0]'"),
            ({"a": {"b": {5: 1}}}, "'a.b'"),
            ({"a": object()}, "'a'"),
        ):
            with self.subTest(place=place), self.assertRaises(InvalidMessage) as caught:
                clean(message)
            self.assertIn(place, str(caught.exception))

    def test_the_place_of_a_bad_value_is_shown_in_part(self):
        with self.assertRaises(InvalidMessage) as caught:
            self.assertCheap(clean, {"k" * 500000: [0] * 1000 + [object()]})
        self.assertLess(len(str(caught.exception)), 500)

    def test_numbers_and_strings_of_a_megabyte_are_read_or_refused_at_once(self):
        for text in (
            "9" * 1000000,
            "-" + "9" * 1000000,
            "[%s]" % ",".join(["9" * 4300] * 230),
            "0." + "0" * 1000000 + "1",
            "1e" + "9" * 1000000,
            '"' + "\\u0041" * 160000 + '"',
            '"' + "\\ud800" * 160000 + '"',
            '"' + "\\\\" * 500000,
            '["\\""' * 170000,
            " " * 1000000,
        ):
            with self.subTest(text=text[:10]):
                self.assertCheap(self.decode, text)

    def decode(self, text):
        try:
            json_text.decode_json(text)
        except ValueError:
            pass


#: Values of a cookie that Python reads slowly in many releases.
COOKIES = (
    '"' + "\\" * HEADER + '"',
    '"' + '\\"' * (HEADER // 2) + '"',
    '"%s"' % ("\\0" * (HEADER // 2)),
)


class CookieTests(CostCase):
    def cookies(self, text):
        headers = [[b"cookie", text.encode("latin-1")]]
        return ASGIRequest({"path": "/", "headers": headers}).COOKIES

    def test_escapes_in_a_cookie_are_read_at_once(self):
        for value in COOKIES:
            for text in ("a=" + value, value, "a=1; b=%s; c=2" % value):
                with self.subTest(text=text[:10]):
                    self.assertCheap(self.cookies, text)

    def test_escapes_in_the_cookie_of_a_handshake_are_read_at_once(self):
        for value in COOKIES:
            header = ("a=%s; sessionid=abc" % value).encode("latin-1")
            with self.subTest(value=value[:10]):
                found = self.assertCheap(http_session_key, {"headers": [[b"cookie", header]]})
                self.assertEqual(found, "abc")

    def test_many_escapes_mean_what_few_mean(self):
        for value in ('a \\"b\\" \\054 \\\\ \\073 \\101', "\\054", '\\"', "\\\\"):
            (few,) = self.cookies('a="%s"' % value).values()
            many = self.cookies('before=1; a="%s"; after=2' % (value * 100))
            self.assertEqual(many, {"before": "1", "a": few * 100, "after": "2"})

    def test_a_value_that_is_not_quoted_keeps_its_backslashes(self):
        self.assertEqual(self.cookies("a=" + "\\054" * 100), {"a": "\\054" * 100})


class CharsetTests(CostCase):
    def request(self, content_type, body=b"", query=b""):
        headers = [[b"content-type", content_type], [b"content-length", b"%d" % len(body)]]
        message = {"method": "POST", "path": "/", "headers": headers, "body": body}
        return ASGIRequest(dict(message, query_string=query))

    def form(self, charset):
        content_type = b"multipart/form-data; boundary=x; charset=" + charset
        head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
        body = head + b"-" + b"a" * 900000 + b"\r\n--x--\r\n"
        return self.request(content_type, body).POST

    def query(self, charset, query):
        return self.request(b"text/plain; charset=" + charset, query=query).GET

    def test_a_form_is_read_at_once_whatever_its_charset_is(self):
        for charset in (
            b"punycode",
            b"idna",
            b"utf-7",
            b"utf-16",
            b"unicode_escape",
            b"hz",
            b"zlib",
        ):
            with self.subTest(charset=charset):
                self.assertEqual(len(self.assertCheap(self.form, charset)), 1)

    def test_a_codec_that_is_not_a_charset_is_ignored(self):
        names = b"zlib bz2 hex base64 rot13 uu undefined punycode idna unicode_escape raw-unicode-escape"
        for charset in names.split():
            with self.subTest(charset=charset):
                self.assertEqual(self.query(charset, b"a=%C3%A4")["a"], "\u00e4")

    def test_a_charset_is_used(self):
        for charset, query, text in (
            (b"latin-1", b"a=%E4", "\u00e4"),
            (b"UTF-8", b"a=%C3%A4", "\u00e4"),
            (b"koi8-r", b"a=%C1", "\u0430"),
        ):
            with self.subTest(charset=charset):
                self.assertEqual(self.query(charset, query)["a"], text)


class ErrorTests(CostCase):
    """Exceptions of the site's code whose text holds what a client sent."""

    def test_the_hint_for_an_error_is_found_at_once(self):
        for text in (
            "Model() got unexpected keyword arguments: '%s'" % ("k" * 100000),
            "missing 1 required positional argument: " * 3000,
            "connect() missing 1 required positional argument: " * 3000,
            "f() got an unexpected keyword argument '" * 3000,
            "a(" * 50000,
        ):
            error = TypeError(text)
            for find in (hints.hint_for, hints.hint_for_route, hints._hint_for_send):
                with self.subTest(text=text[:20], find=find.__name__):
                    self.assertCheap(find, error)

    def test_a_traceback_is_logged_in_part_if_it_is_very_long(self):
        for text in ("x" * 900000, "\x01" * 900000, "\n" * 900000, "\x1b[31m" * 200000):
            with self.subTest(text=text[:5]):
                stream = io.StringIO()
                handler = logging.StreamHandler(stream)
                logger = logging.getLogger("django.channels.consume")
                logger.addHandler(handler)
                self.addCleanup(logger.removeHandler, handler)
                with mock.patch.object(logger, "propagate", False):
                    self.assertCheap(self.log_error, logger, text)
                logger.removeHandler(handler)
                self.assertLess(len(stream.getvalue()), 8 * MAX_TRACEBACK)
                self.assertIn("Traceback", stream.getvalue())
                self.assertIn("characters are left out", stream.getvalue())
                self.assertIn("the end", stream.getvalue())

    def log_error(self, logger, text):
        try:
            raise ValueError(text + "the end")
        except ValueError:
            logger.exception("A consumer failed:")


class Rows:
    """In place of the rows of a model whose primary keys are decimal numbers, of which some exist."""

    def __init__(self, *keys):
        self.keys, self.queries = set(keys), []

    def complex_filter(self, limit):
        return self

    def filter(self, pk__in):
        self.queries.append(len(pk__in))
        return mock.Mock(values_list=lambda *args, **kwargs: self.keys.intersection(pk__in))


class BindingTests(CostCase):
    def clean(self, rows, values):
        model = mock.Mock(_default_manager=rows)
        model._meta = mock.Mock(
            pk=models.DecimalField(max_digits=30, decimal_places=2), pk_fields=None
        )
        field = mock.Mock(related_model=model)
        return fields._clean_relation(field, values)

    def test_keys_with_one_hash_are_refused_at_once(self):
        rows, values = Rows(), [str(number * (2**61 - 1)) for number in range(fields.MAX_KEYS)]
        self.assertEqual({hash(Decimal(each)) for each in values}, {0})
        with self.assertRaisesMessage(ValidationError, "does not exist"):
            self.assertCheap(self.clean, rows, values)
        self.assertEqual(len(rows.queries), 1)

    def test_more_keys_than_the_limit_are_refused_without_a_query(self):
        rows = Rows(Decimal(1))
        with self.assertRaisesMessage(ValidationError, "fewer primary keys"):
            self.clean(rows, [1] * (fields.MAX_KEYS + 1))
        self.assertEqual(rows.queries, [])
        self.assertEqual(self.clean(rows, [1] * fields.MAX_KEYS), [Decimal(1)])

    def test_text_that_a_field_reads_as_json_is_not_nested_deeply(self):
        read = []

        class ListField(models.Field):
            def to_python(self, value):
                read.append(value)
                return json.loads(value) if isinstance(value, str) else value

        for text in ("[" * 100000, '{"a":' * 100000):
            with self.assertRaises(ValidationError):
                fields._convert(ListField(), text)
        self.assertEqual(read, [])
        self.assertEqual(fields._convert(ListField(), "[[1], [2]]"), [[1], [2]])
        for field in (models.CharField(max_length=9000), models.TextField(), models.Field()):
            self.assertEqual(fields._convert(field, "[" * 1000), "[" * 1000)

    @override_settings(USE_TZ=True)
    def test_huge_numbers_and_texts_are_refused_at_once(self):
        for field in (
            models.IntegerField(),
            models.FloatField(),
            models.DecimalField(max_digits=9, decimal_places=2),
            models.DateTimeField(),
            models.DurationField(),
            models.UUIDField(),
            models.BooleanField(),
        ):
            for value in (
                "9" * 900000,
                "1e999999999",
                "-" * 900000,
                "0." + "0" * 900000,
                "NaN",
                "sNaN",
            ):
                with self.subTest(field=type(field).__name__, value=value[:10]):
                    self.assertCheap(self.convert, field, value)

    def test_a_text_that_is_too_long_is_refused_before_it_is_examined(self):
        for field in (models.URLField(), models.EmailField(), models.SlugField()):
            for value in ("http://" + "a." * 400000, "a@" + "a-" * 400000, "a-" * 400000 + "!"):
                with self.subTest(field=type(field).__name__, value=value[:10]):
                    with self.assertRaisesMessage(ValidationError, "at most"):
                        self.assertCheap(fields._clean_column, field, value, None)
        self.assertEqual(fields._clean_column(models.TextField(), "a" * 9000, None), "a" * 9000)

    def convert(self, field, value):
        try:
            fields._convert(field, value)
        except ValidationError:
            pass
