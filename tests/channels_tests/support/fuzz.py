"""Random input, by hypothesis: bounded and the same each time in `make test`, other input in `make fuzz`."""

import os
import time

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError:
    hypothesis = None

from django.channels import protocol

from .requirements import require

#: Examples of each test in `make test`.
EXAMPLES = 40

#: Seconds for each test in `make fuzz`; 0 means `make test`.
SECONDS = float(os.environ.get("CHANNELS_FUZZ_SECONDS", "0"))


class FuzzMixin:
    """For a test case. Skips (in CI, fails) without hypothesis."""

    @classmethod
    def setUpClass(cls):
        require("hypothesis.strategies")
        super().setUpClass()

    def fuzz(self, function, *strategies, examples=EXAMPLES):
        """Call `function` with examples of the strategies. What it raises fails the test."""

        def once(number, derandomize):
            settings = hypothesis.settings(
                max_examples=number,
                derandomize=derandomize,
                database=None,
                deadline=None,
                print_blob=False,
                report_multiple_bugs=False,
                # The examples are short. To shrink one takes minutes.
                phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )

            def run(arguments):
                if time.monotonic() < deadline:
                    function(*arguments)

            settings(hypothesis.given(st.tuples(*strategies))(run))()

        deadline = time.monotonic() + SECONDS if SECONDS else float("inf")
        if not SECONDS:
            return once(examples, True)
        # Few at a time: making examples may take longer than trying them, and cannot be broken off.
        while time.monotonic() < deadline:
            once(examples, False)


#: Names that code looks for.
KEYS = [
    "text", "bytes", "accept", "close", "subprotocol", "status", "headers", "content", "more_content",
    "path", "query_string", "root_path", "method", "body", "scheme", "client", "server", "order", "code",
    "stream", "payload", "action", "pk", "data", "http_version", "subprotocols", "set", "removed",
]  # fmt: skip
KEYS += [
    getattr(protocol, name)
    for name in dir(protocol)
    if name.isupper() and isinstance(getattr(protocol, name), str) and not name.startswith("_")
]

#: Values that are nearly right, or that code converts.
NEARLY = [
    0,
    1,
    -1,
    200,
    1000,
    1011,
    4000,
    2**31,
    2**63,
    -(2**63),
    True,
    False,
    None,
    "",
    b"",
    "null",
]
NEARLY += [
    "example.com",
    b"example.com",
    "\0",
    "\ud800",
    "\r\n",
    b"\r\n",
    "/",
    "//",
    [],
    {},
    (),
    set(),
]
NEARLY += [
    float("nan"),
    float("inf"),
    -0.0,
    1e308,
    object(),
    [[b"a", b"b"]],
    [["a", "b"]],
    [[b"a"]],
    1j,
]


if hypothesis is not None:
    #: Any text, lone surrogates included.
    text = st.text(st.characters(), max_size=40)
    names = st.one_of(st.sampled_from(KEYS), text)
    clean_scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(max_size=40),
        st.binary(max_size=40),
    )
    #: What a layer carries.
    clean_values = st.recursive(
        clean_scalars,
        lambda each: st.one_of(
            st.lists(each, max_size=4),
            st.dictionaries(
                st.one_of(st.sampled_from(KEYS), st.text(max_size=10)), each, max_size=4
            ),
        ),
        max_leaves=6,
    )
    clean_messages = st.dictionaries(
        st.one_of(st.sampled_from(KEYS), st.text(max_size=10)), clean_values, max_size=6
    )
    #: Anything that Python code may pass.
    values = st.recursive(
        st.one_of(clean_scalars, st.integers(), text, st.sampled_from(NEARLY)),
        lambda each: st.one_of(
            st.lists(each, max_size=4),
            st.dictionaries(
                st.one_of(names, st.integers(), st.binary(max_size=4)), each, max_size=4
            ),
            st.tuples(each, each),
        ),
        max_leaves=6,
    )
    messages = st.dictionaries(names, values, max_size=6)
    #: What a JSON parser gives.
    json_values = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
        lambda each: st.one_of(
            st.lists(each, max_size=4), st.dictionaries(names, each, max_size=4)
        ),
        max_leaves=6,
    )
    #: Names of headers that code reads.
    header_names = st.one_of(
        st.sampled_from(
            [
                b"host", b"origin", b"cookie", b"content-type", b"content-length", b"Content-Length",
                b"transfer-encoding", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
                b"sec-websocket-protocol", b"expect", b"authorization", b"referer", b"range",
            ]
        ),
        st.binary(max_size=12),
    )  # fmt: skip
    header_values = st.one_of(
        st.sampled_from(
            [
                b"example.com", b"example.com:8000", b"[::1]", b"[::1", b"https://example.com", b"null",
                b"multipart/form-data; boundary=x", b"multipart/form-data; boundary=" + b"x" * 300,
                b"multipart/form-data", b"application/x-www-form-urlencoded; charset=utf-16", b"1" * 5000,
                b"text/html; charset=\xff", b"sessionid=a; b=\xff; =; ;;", b"bytes=0-", b"-1", b"chunked",
            ]
        ),
        st.binary(max_size=30),
        st.integers().map(lambda number: str(number).encode()),
    )  # fmt: skip
    headers = st.lists(st.tuples(header_names, header_values).map(list), max_size=6)
    #: ASGI scopes as a server that checks nothing would give them.
    scopes = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["http", "websocket"]),
            "path": st.one_of(st.sampled_from(["/", "", "/a/b", "//x", "/%2e%2e/"]), text),
            "method": st.one_of(st.sampled_from(["GET", "POST", "HEAD", "put"]), text),
            "headers": headers,
            "query_string": st.binary(max_size=30),
            "root_path": st.one_of(st.just(""), st.just("/shop"), text),
            "raw_path": st.one_of(st.none(), st.binary(max_size=20)),
            "scheme": st.sampled_from(["http", "https", "ws", "wss"]),
            "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
            "client": st.one_of(
                st.none(), st.tuples(text, st.one_of(st.none(), st.integers(0, 65535)))
            ),
            "server": st.one_of(
                st.none(), st.tuples(text, st.one_of(st.none(), st.integers(0, 65535)))
            ),
            "subprotocols": st.lists(text, max_size=3),
        }
    )
