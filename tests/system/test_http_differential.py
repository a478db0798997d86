"""The gateway's request parser beside h11: what ours takes, h11 must read as the very same request.

Requests are the rows of tests/data/http/requests.txt and random mutations of them, fixed by a seed. Ours may refuse
more than h11 does (that is its purpose); it must never take what h11 refuses, nor see another method, target,
header, body or end of the request: two parsers that disagree are what request smuggling lives on.
"""

import ctypes
import pathlib
import random
import re
import subprocess

import h11
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = ROOT / "tests/data/http/requests.txt"
MORE, DONE, REFUSED = 0, 1, 2
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"QUERY"]


class Span(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    def bytes(self):
        return ctypes.string_at(self.data, self.size) if self.size else b""


class Limits(ctypes.Structure):
    _fields_ = [
        ("request_line_bytes", ctypes.c_uint32),
        ("headers_bytes", ctypes.c_uint32),
        ("n_headers", ctypes.c_uint32),
        ("trailers_bytes", ctypes.c_uint32),
        ("body_bytes", ctypes.c_uint64),
    ]


class Parser(ctypes.Structure):
    """The public head of http_parser and room for the rest."""

    _fields_ = [
        ("refusal", ctypes.c_int),
        ("method", ctypes.c_int),
        ("minor", ctypes.c_uint8),
        ("close", ctypes.c_bool),
        ("expects_continue", ctypes.c_bool),
        ("chunked", ctypes.c_bool),
        ("body_bytes", ctypes.c_uint64),
        ("head_bytes", ctypes.c_uint32),
        ("n_headers", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 4096),
    ]


@pytest.fixture(scope="module")
def parser_library(tmp_path_factory):
    out = tmp_path_factory.mktemp("parser") / "parser.so"
    source = ROOT / "services/gateway/http_parser.c"
    includes = ["-I", str(ROOT), "-I", str(ROOT / "libllm")]
    flags = ["-shared", "-fPIC", "-O1", "-D_GNU_SOURCE"]
    subprocess.run(["cc", *flags, *includes, str(source), "-o", str(out)], check=True)
    library = ctypes.CDLL(str(out))
    library.http_limits_default.restype = Limits
    library.http_parser_path.restype = Span
    library.http_parser_query.restype = Span
    return library


def ours(library, data):
    """What our parser makes of `data`: ("ok", request), ("more", None) or ("refused", None)."""
    parser, limits = Parser(), library.http_limits_default()
    buffer = ctypes.create_string_buffer(data, len(data))
    library.http_parser_init(ctypes.byref(parser), ctypes.byref(limits))
    got = library.http_parser_head(ctypes.byref(parser), buffer, ctypes.c_size_t(len(data)))
    if got != DONE:
        return ("more" if got == MORE else "refused"), None
    at, body = parser.head_bytes, b""
    while True:
        n_used, piece = ctypes.c_size_t(), Span()
        rest = ctypes.c_void_p(ctypes.addressof(buffer) + at)
        size = ctypes.c_size_t(len(data) - at)
        got = library.http_parser_body(ctypes.byref(parser), rest, size, ctypes.byref(n_used), ctypes.byref(piece))
        body += piece.bytes()
        at += n_used.value
        if got != MORE or at == len(data):
            break
    if got != DONE:
        return ("more" if got == MORE else "refused"), None
    path = library.http_parser_path(ctypes.byref(parser), buffer).bytes()
    query = library.http_parser_query(ctypes.byref(parser), buffer).bytes()
    headers = []
    for i in range(parser.n_headers):
        name, value = Span(), Span()
        library.http_parser_header_at(ctypes.byref(parser), buffer, i, ctypes.byref(name), ctypes.byref(value))
        headers.append((name.bytes().lower(), value.bytes()))
    return "ok", (METHODS[parser.method], path, query, b"1.%d" % parser.minor, headers, body, data[at:])


def theirs(data):
    """The same of h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    request, body = None, b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return "more", None  # h11 takes no bytes at all for a closed connection
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
    except h11.RemoteProtocolError:
        return "refused", None
    headers = [(bytes(name), bytes(value)) for name, value in request.headers]
    rest = connection.trailing_data[0]
    path, _, query = request.target.partition(b"?")
    return "ok", (request.method, path, query, request.http_version, headers, body, rest)


def unescape(text):
    named = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
    return b"".join(
        bytes([int(hexa, 16)]) if hexa else named[name] if name else plain.encode()
        for hexa, name, plain in re.findall(r"\\x(..)|\\(.)|([^\\]+)", text)
    )


def rows():
    for line in ROWS.read_text().splitlines():
        if line and not line.startswith("#"):
            verdict, text = line.split(" ", 1)
            yield verdict, unescape(text)


def check(library, data):
    mine, request = ours(library, data)
    other, expected = theirs(data)
    if mine == "ok":
        assert other == "ok", f"ours takes what h11 calls {other}: {data!r}"
        assert request == expected, f"two readings of {data!r}"
    elif mine == "more":
        assert other != "ok", f"h11 sees the end of a request where ours waits: {data!r}"
    return mine, other


def test_every_row_is_read_as_h11_reads_it_or_refused(parser_library):
    for _, data in rows():
        check(parser_library, data)


def test_mutated_requests_are_read_as_h11_reads_them_or_refused(parser_library):
    chance = random.Random(20261123)
    seeds = [data for _, data in rows()]
    good = [data for verdict, data in rows() if verdict == "ok"]
    pieces = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b",", b"0", b"1", b"+", b"0x", b"\xff", b"chunked"]
    pieces += [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"]
    pieces += [b"Host: b\r\n", b"X: y\r\n z\r\n", b"0\r\n\r\n"]
    outcomes = {}
    for _ in range(4000):
        data = bytearray(chance.choice(good if chance.random() < 0.8 else seeds))
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            at = chance.randrange(len(data) + 1)
            act = chance.randrange(4)
            if act == 0:
                data[at:at] = chance.choice(pieces)
            elif act == 1:
                del data[at : at + chance.choice([1, 1, 2, 5])]
            elif act == 2 and at < len(data):
                data[at] = chance.randrange(256)
            else:
                data += chance.choice(seeds)
        outcome = check(parser_library, bytes(data))
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes[("ok", "ok")] > 400  # the comparison compared something
    assert outcomes[("refused", "ok")] > 20  # and ours is the stricter one
