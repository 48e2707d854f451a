"""The text in which stores keep messages."""

import json
import unittest

from django.channels.layers.engine import codec


class CodecTests(unittest.TestCase):
    def test_every_kind_of_value_comes_back(self):
        message = {
            "none": None,
            "true": True,
            "number": -1,
            "float": 1.5,
            "text": "caf\xe9 \u20ac \U0001f600",
            "bytes": b"\x00\xff",
            "list": [b"", ["\0", {}], {"a": [b"\x00"]}],
            "": {"nested": {"deep": b"x"}},
        }
        self.assertEqual(codec.decode(codec.encode(message)), message)

    def test_keys_that_begin_with_nul_come_back_everywhere(self):
        for value in (
            1,
            b"bytes",
            "\0",
            [b"\x00", {"\0": "text", "\0\0": b""}],
            {"\0": {"\0": []}},
        ):
            for key in ("\0", "\0\0", "\0key"):
                message = {key: value, "list": [1, {key: value}], "dict": {key: {key: value}}}
                with self.subTest(key=key, value=value):
                    self.assertEqual(codec.decode(codec.encode(message)), message)

    def test_a_message_of_one_such_key_is_not_taken_for_bytes(self):
        message = {"\0": "aGVsbG8="}
        self.assertEqual(codec.decode(codec.encode(message)), message)

    def test_the_text_is_short_ascii_json(self):
        text = codec.encode({"text": "\xe9", "list": [1, b"x"]})
        self.assertEqual(text, text.encode("ascii").decode("ascii"))
        self.assertNotIn(" ", text)
        self.assertEqual(json.loads(text)["list"], [1, {"\0": "eA=="}])
