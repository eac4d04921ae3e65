"""Requests that try to get past the edge's list of doors, as bytes: what an HTTP client would never send as it is.

Each family of tricks has at least one control, the same form aimed rightly: see `controls`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tests.live.harness import LOOPBACK, REQUEST_SECONDS, exchange, pace

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

PATIENCE_SECONDS = 10
"""For the edge's answer to a request that it may take for unfinished."""

DOOR = "/v1/models"
POST_DOOR = "/v1/chat/completions"

TARGETS = ("/invocations", "/tokenize", "/metrics", "/version", "/v1/responses")
"""Routes of the engine that are no doors; all but the last it serves without a key."""

INNER = "/invocations?smuggled"
"""The path of a request that is hidden in another one."""


@dataclass(frozen=True)
class Trick:
    """Bytes for one connection. at_a_door: whether the engine may see one of the doors asked for in them.

    seconds: patience with the edge's silence; half of them for one that has to be answered.
    """

    name: str
    data: bytes
    at_a_door: bool = False
    http2: bool = False
    seconds: float = PATIENCE_SECONDS

    def play(self, port: int) -> bytes:
        """Sends them to the edge; what came back."""
        return _http2_exchange(port, self.data) if self.http2 else exchange(port, self.data, seconds=self.seconds)


def statuses(answer: bytes) -> list[int]:
    """The status of every answer in these bytes."""
    if answer[3:4] == SETTINGS_TYPE:  # the first frame of an HTTP/2 server
        return [_status(payload) for kind, _, _, payload in _frames(answer) if kind == HEADERS_TYPE and payload]
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answer, re.MULTILINE)]


def from_engine(answer: bytes) -> bool:
    """Whether vLLM has made one of these answers: the edge passes its `server` header on."""
    return b"uvicorn" in answer


def tricks(key: str | None) -> list[Trick]:
    """All of them, with this key in the right place or with none."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    found = [
        *_paths(authorization),
        *_request_lines(authorization),
        *_headers(authorization),
        *_framing(authorization),
        *_long_ones(authorization),
        *_http2(key),
    ]
    return list(found)


def controls(key: str) -> Iterator[Trick]:
    """One request per form in use that the edge must let through with status 200."""
    authorization = f"Authorization: Bearer {key}\r\n"
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Say OK."}], "max_tokens": 1})
    post = f"POST {POST_DOOR} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\n"
    last = f"{post}Connection: close\r\n"
    slow = 2.0 * REQUEST_SECONDS  # the engine computes these
    yield Trick("a plain path", _get(DOOR, authorization))
    yield Trick("a query", _get(f"{DOOR}?x=/../../invocations", authorization))
    yield Trick("absolute form", _get(f"http://x{DOOR}", authorization))
    yield Trick("HTTP/1.0", f"GET {DOOR} HTTP/1.0\r\n{authorization}\r\n".encode())
    length, chunk = f"Content-Length: {len(body)}\r\n\r\n{body}", f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
    yield Trick("a length", f"{last}{length}".encode(), seconds=slow)
    yield Trick("chunks", f"{last}Transfer-Encoding: chunked\r\n\r\n{chunk}".encode(), seconds=slow)
    yield Trick("expectation", f"{last}Expect: 100-continue\r\n{length}".encode(), seconds=slow)
    yield Trick("two in a row", f"{post}{length}".encode() + _get(DOOR, authorization), seconds=slow)
    yield Trick("override header", _get(DOOR, authorization + "X-HTTP-Method-Override: GET\r\n"))
    yield Trick("HTTP/2", http2_request({":path": DOOR}, key), http2=True)
    data = http2_request({":method": "POST", ":path": POST_DOOR, "content-type": "application/json"}, key, body)
    yield Trick("HTTP/2 with a body", data, http2=True)


# --- paths


def _get(path: str, headers: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode("latin-1")


def _encoded(text: str, letters: slice = slice(None)) -> str:
    """The path with these of its characters percent-encoded."""
    part = "".join(f"%{ord(letter):02x}" for letter in text[letters])
    start, stop, _ = letters.indices(len(text))
    return text[:start] + part + text[stop:]


def path_tricks(target: str) -> dict[str, str]:
    """Other spellings of a path, by what is done to it."""
    name = target[1:]
    return {
        "plain": target,
        "double slash": f"/{target}",
        "triple slash": f"//{target}",
        "slash behind": f"{target}/",
        "dot behind": f"{target}.",
        "semicolon behind": f"{target};",
        "parameter behind": f"{target};a={DOOR}",
        "encoded space behind": f"{target}%20",
        "encoded NUL behind": f"{target}%00",
        "encoded NUL and a door": f"{target}%00{DOOR}",
        "encoded line end behind": f"{target}%0d%0a",
        "encoded line and header": f"{DOOR}%20HTTP/1.1%0d%0aX:%20y%0d%0a%0d%0aGET%20{target}",
        "query of a door": f"{target}?{DOOR}",
        "encoded query": f"{target}%3f{DOOR}",
        "fragment": f"{target}#{DOOR}",
        "encoded fragment": f"{target}%23{DOOR}",
        "dot segment": f"/.{target}",
        "encoded dot segment": f"/%2e{target}",
        "up from nowhere": f"/..{target}",
        "up from a prefix": f"/v1/..{target}",
        "up from a door": f"{DOOR}/../..{target}",
        "up from the other door": f"{POST_DOOR}/../../..{target}",
        "up, slashes encoded": f"{DOOR}%2f..%2f..%2f{name}",
        "up, slashes encoded in capitals": f"{DOOR}/..%2F..%2F{name}",
        "up, dots encoded": f"{DOOR}/%2e%2e/%2e%2e{target}",
        "up, dots encoded twice": f"{DOOR}/%252e%252e/%252e%252e{target}",
        "up, one dot encoded": f"{DOOR}/.%2e/%2E.{target}",
        "up with parameters": f"{DOOR}/..;/..;{target}",
        "up behind a semicolon": f"{DOOR};/../..{target}",
        "up behind a NUL": f"{DOOR}%00/../..{target}",
        "up with double slashes": f"{DOOR}//..//..//{name}",
        "up, overlong dots": f"{DOOR}/%c0%ae%c0%ae/%c0%ae%c0%ae{target}",
        "up, overlong slashes": f"{DOOR}/..%c0%af..%c0%af{name}",
        "up, backslashes": f"{DOOR}\\..\\..\\{name}",
        "up, encoded backslashes": f"{DOOR}/..%5c..%5c{name}",
        "backslash": f"\\{name}",
        "first letter encoded": f"/{_encoded(name, slice(0, 1))}",
        "last letter encoded": f"/{_encoded(name, slice(len(name) - 1, len(name)))}",
        "all letters encoded": f"/{_encoded(name)}",
        "all letters encoded twice": f"/{_encoded(name).replace('%', '%25')}",
        "letters as %u": f"/%u00{ord(name[0]):02x}{name[1:]}",
        "slash encoded": f"/%2f{name}",
        "slash encoded twice": f"/%252f{name}",
        "broken encoding": f"{target}%",
        "capitals": target.upper(),
        "one capital": f"/{name.capitalize()}",
        "wide letter": f"/{chr(0xEF)}{chr(0xBD)}{chr(0x89)}{name[1:]}",
        "door in front": f"{DOOR}{target}",
        "door behind": f"{target}{DOOR}",
    }


def _paths(authorization: str) -> Iterator[Trick]:
    for target in TARGETS:
        for what, path in path_tricks(target).items():
            # "/.." above a door is not resolved by the edge, so none of these is a door.
            yield Trick(f"path {target}: {what}", _get(path, authorization, "GET"))
    for what, path in path_tricks("/invocations").items():
        yield Trick(f"path with POST: {what}", _get(path, authorization + "Content-Length: 0\r\n", "POST"))
    for what, path in path_tricks(DOOR).items():
        yield Trick(f"door: {what}", _get(path, authorization), at_a_door=what in AT_A_DOOR)


AT_A_DOOR = ("plain", "query of a door", "fragment")
"""Spellings that leave a door a door; a fragment is refused or cut off, as the edge likes."""


# --- request lines


def _request_lines(authorization: str) -> Iterator[Trick]:
    rest = f"Host: x\r\nConnection: close\r\n{authorization}\r\n"
    for what, line, at_a_door in (
        ("absolute form", "GET http://x/invocations HTTP/1.1", False),
        ("absolute form to the engine", "GET http://127.0.0.1:8000/invocations HTTP/1.1", False),
        ("absolute form, https", "GET https://x/invocations HTTP/1.1", False),
        ("absolute form, capitals", "GET HTTP://X/INVOCATIONS HTTP/1.1", False),
        ("absolute form with a user", f"GET http://x{DOOR}@y/invocations HTTP/1.1", False),
        ("absolute form, a door as user", f"GET http://{DOOR}@x/invocations HTTP/1.1", False),
        ("absolute form without a path", "GET http://x HTTP/1.1", False),
        ("absolute form with a query alone", f"GET http://x?{DOOR} HTTP/1.1", False),
        ("absolute form in the path", "GET /http://x/invocations HTTP/1.1", False),
        ("another scheme", "GET file:///invocations HTTP/1.1", False),
        ("no slash", "GET invocations HTTP/1.1", False),
        ("no slash, door", "GET v1/models HTTP/1.1", False),
        ("scheme without slashes", "GET http:/invocations HTTP/1.1", False),
        ("no host", "GET http:///invocations HTTP/1.1", False),
        ("network path", "GET //x/invocations HTTP/1.1", False),
        ("absolute form of a door", f"GET http://x{DOOR} HTTP/1.1", True),
        ("asterisk", "GET * HTTP/1.1", False),
        ("OPTIONS *", "OPTIONS * HTTP/1.1", False),
        ("OPTIONS of a door", f"OPTIONS {DOOR} HTTP/1.1", False),
        ("CONNECT to the engine", "CONNECT 127.0.0.1:8000 HTTP/1.1", False),
        ("CONNECT to a name", "CONNECT x:443 HTTP/1.1", False),
        ("CONNECT to a path", "CONNECT /invocations HTTP/1.1", False),
        ("TRACE", "TRACE /invocations HTTP/1.1", False),
        ("HEAD of a hidden page", "HEAD /docs HTTP/1.1", False),
        ("HEAD of a door", f"HEAD {DOOR} HTTP/1.1", False),
        ("an unknown method", "BREW /invocations HTTP/1.1", False),
        ("a method in small letters", f"get {DOOR} HTTP/1.1", False),
        ("a method with a door's method behind", f"GETPOST {DOOR} HTTP/1.1", False),
        ("a long method", f"{'A' * 4000} {DOOR} HTTP/1.1", False),
        ("no method", f" {DOOR} HTTP/1.1", False),
        ("no version", "GET /invocations", False),
        ("HTTP/0.9 at a door", f"GET {DOOR}", False),
        ("HTTP/1.0", "GET /invocations HTTP/1.0", False),
        ("HTTP/1.2", "GET /invocations HTTP/1.2", False),
        ("HTTP/2.0", "GET /invocations HTTP/2.0", False),
        ("HTTP/9.9", "GET /invocations HTTP/9.9", False),
        ("a version in small letters", "GET /invocations http/1.1", False),
        ("another protocol", "GET /invocations ICAP/1.0", False),
        ("two paths", f"GET {DOOR} /invocations HTTP/1.1", False),
        ("two versions", f"GET {DOOR} HTTP/1.1 /invocations HTTP/1.1", False),
        ("tabs", "GET\t/invocations\tHTTP/1.1", False),
        ("tabs at a door", f"GET\t{DOOR}\tHTTP/1.1", True),
        ("two spaces", "GET  /invocations  HTTP/1.1", False),
        ("a space behind", "GET /invocations HTTP/1.1 ", False),
        ("NUL in the path", f"GET {DOOR}\0/invocations HTTP/1.1", False),
        ("NUL behind a door", f"GET {DOOR}\0 HTTP/1.1", False),
        ("a bare CR in the path", f"GET {DOOR}\r/invocations HTTP/1.1", False),
        ("a bare LF in the path", f"GET {DOOR}\n/invocations HTTP/1.1", False),
        ("DEL in the path", "GET /invocations\x7f HTTP/1.1", False),
        ("a form feed", f"GET\x0c{DOOR}\x0cHTTP/1.1", False),
        ("line ends before", "\r\n\r\nGET /invocations HTTP/1.1", False),
        ("a space before", " GET /invocations HTTP/1.1", False),
        ("a byte order mark", "\xef\xbb\xbfGET /invocations HTTP/1.1", False),
    ):
        yield Trick(f"line: {what}", f"{line}\r\n{rest}".encode("latin-1"), at_a_door)
    yield Trick("line: bare LFs", f"GET /invocations HTTP/1.1\nHost: x\n{authorization.strip()}\n\n".encode())
    yield Trick("line: bare CRs", f"GET /invocations HTTP/1.1\rHost: x\r{authorization.strip()}\r\r".encode())
    yield Trick("line: TLS", bytes.fromhex("16030100050100000100") + _get("/invocations", authorization))
    yield Trick("line: SSH", b"SSH-2.0-x\r\n" + _get("/invocations", authorization))


# --- headers

TELLING = (
    "X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-Path", "X-Forwarded-Prefix",
    "X-Forwarded-Uri", "X-Script-Name", "X-Accel-Redirect", "X-Sendfile", "X-Envoy-Original-Path",
    "X-Override-URL", "Referer", "Destination", "Content-Location", "Location",
)  # fmt: skip
"""Headers that some server takes for the path that is really meant."""

OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-Method", "_method")


def _headers(authorization: str) -> Iterator[Trick]:
    for name in TELLING:
        yield Trick(f"header: {name} at a door", _get(DOOR, f"{authorization}{name}: /invocations\r\n"), True)
        yield Trick(f"header: {name} names a door", _get("/invocations", f"{authorization}{name}: {DOOR}\r\n"))
    for name in OVERRIDES:
        headers = f"{authorization}{name}: POST\r\nContent-Length: 0\r\n"
        yield Trick(f"header: {name} at a door", _get(DOOR, headers), True)
        yield Trick(f"header: {name} at the other door", _get(POST_DOOR, headers))
        yield Trick(f"header: {name} elsewhere", _get("/invocations", headers))
    web_socket = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    settings = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    for what, path, headers, at_a_door in (
        ("websocket", "/invocations", f"Upgrade: websocket\r\nConnection: Upgrade\r\n{web_socket}", False),
        ("websocket at a door", DOOR, f"Upgrade: websocket\r\nConnection: Upgrade\r\n{web_socket}", True),
        (
            "websocket to realtime",
            "/v1/realtime",
            f"Upgrade: websocket\r\nConnection: Upgrade\r\n{web_socket}",
            False,
        ),
        ("h2c", "/invocations", f"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n{settings}", False),
        ("h2c at a door", DOOR, f"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n{settings}", True),
        ("h2c without Connection", DOOR, f"Upgrade: h2c\r\n{settings}", True),
        ("TLS upgrade at a door", DOOR, "Upgrade: TLS/1.2\r\nConnection: Upgrade\r\n", True),
        ("hop-by-hop authorization", DOOR, "Connection: close, Authorization\r\n", True),
        ("hop-by-hop host", DOOR, "Connection: close, Host\r\n", True),
        ("two hosts", DOOR, "Host: y\r\n", True),
        ("a host with a path", "/invocations", "Host: x/v1/models\r\n", False),
        ("a folded header", DOOR, "X-A: b\r\n /invocations\r\n", True),
        ("a header without colon", DOOR, "GET /invocations HTTP/1.1\r\n", True),
        ("a header without name", DOOR, ": /invocations\r\n", True),
        ("a space before the colon", DOOR, "Authorization : Bearer x\r\n", True),
        ("a NUL in a header", DOOR, "X-A: b\0c\r\n", True),
        ("a bare CR in a header", DOOR, f"X-A: b\r\rGET {INNER} HTTP/1.1\r\rHost: x\r\n", True),
        ("max-forwards", "/invocations", "Max-Forwards: 0\r\n", False),
        ("range", "/metrics", "Range: bytes=0-\r\n", False),
        ("CORS preflight", "/invocations", "Origin: http://x\r\nAccess-Control-Request-Method: POST\r\n", False),
    ):
        rest = f"Host: x\r\n{authorization}{headers}\r\n"
        yield Trick(f"header: {what}", f"GET {path} HTTP/1.1\r\n{rest}".encode("latin-1"), at_a_door)


# --- framing: a request that is hidden in another one


def _framing(authorization: str) -> Iterator[Trick]:
    inner = f"POST {INNER} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{authorization}\r\n{{}}"
    chunked = f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n"
    both = "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n"
    trailers = f"{authorization}Content-Length: 9\r\n"
    bodies = {
        "length and chunks, ending early": (both.format(5), f"0\r\n\r\n{inner}"),
        "length and chunks, length of all": (both.format(len(inner) + 5), f"0\r\n\r\n{inner}"),
        "chunks and a short length": (both.format(4), chunked),
        "length before chunks": ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{inner}"),
        "length 0 and a body": ("Content-Length: 0\r\n", inner),
        "no length and a body": ("", inner),
        "two lengths": (f"Content-Length: 0\r\nContent-Length: {len(inner)}\r\n", inner),
        "two lengths, other way": (f"Content-Length: {len(inner)}\r\nContent-Length: 0\r\n", inner),
        "a list of lengths": (f"Content-Length: 0, {len(inner)}\r\n", inner),
        "a negative length": ("Content-Length: -1\r\n", inner),
        "a length with a plus": ("Content-Length: +0\r\n", inner),
        "a length in hex": ("Content-Length: 0x0\r\n", inner),
        "a length with a space": ("Content-Length: 0 0\r\n", inner),
        "a length beyond 64 bits": ("Content-Length: 18446744073709551616\r\n", inner),
        "a length with a bare LF": (f"X: y\nContent-Length: {len(inner)}\r\nContent-Length: 0\r\n", inner),
        "a space before the colon": ("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "a tab before chunked": ("Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "a vertical tab": ("Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "xchunked": ("Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "chunked in quotes": ('Transfer-Encoding: "chunked"\r\nContent-Length: 5\r\n', f"0\r\n\r\n{inner}"),
        "chunked in capitals": ("Transfer-Encoding: CHUNKED\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "chunked twice": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{inner}"),
        "chunked and identity": ("Transfer-Encoding: chunked, identity\r\n", f"0\r\n\r\n{inner}"),
        "identity and chunked": ("Transfer-Encoding: identity, chunked\r\n", f"0\r\n\r\n{inner}"),
        "two encodings": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", f"0\r\n\r\n{inner}"),
        "gzip": ("Transfer-Encoding: gzip\r\n", inner),
        "a folded encoding": ("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "an encoding with a NUL": ("Transfer-Encoding: chunked\0\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "an underscore": ("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{inner}"),
        "a chunk extension": ("Transfer-Encoding: chunked\r\n", f"0;x=\n\r\n\r\n{inner}"),
        "a chunk extension with a quote": ("Transfer-Encoding: chunked\r\n", f'0;x="\r\n\r\n{inner}'),
        "chunk size 0x0": ("Transfer-Encoding: chunked\r\n", f"0x0\r\n\r\n{inner}"),
        "chunk size +0": ("Transfer-Encoding: chunked\r\n", f"+0\r\n\r\n{inner}"),
        "chunk size -1": ("Transfer-Encoding: chunked\r\n", f"-1\r\n\r\n{inner}"),
        "chunk size with a space": ("Transfer-Encoding: chunked\r\n", f" 0\r\n\r\n{inner}"),
        "chunk size beyond 64 bits": ("Transfer-Encoding: chunked\r\n", f"10000000000000000\r\n{inner}"),
        "chunks with bare LFs": ("Transfer-Encoding: chunked\r\n", f"0\n\n{inner}"),
        "no line end behind a chunk": ("Transfer-Encoding: chunked\r\n", f"2\r\n{{}}0\r\n\r\n{inner}"),
        "a trailer": ("Transfer-Encoding: chunked\r\n", f"2\r\n{{}}\r\n0\r\n{trailers}\r\n{inner}"),
        "an unfinished body": ("Content-Length: 1000\r\n", inner),
        "an expectation": (f"Expect: 100-continue\r\nContent-Length: {len(inner)}\r\n", inner),
        "an expectation without a body": ("Expect: 100-continue\r\nContent-Length: 0\r\n", inner),
        "an unknown expectation": (f"Expect: x\r\nContent-Length: {len(inner)}\r\n", inner),
    }  # fmt: skip
    for what, (headers, body) in bodies.items():
        for method, path in (("POST", POST_DOOR), ("GET", DOOR), ("POST", "/invocations")):
            text = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}{headers}\r\n{body}"
            name = f"framing: {what}, {method} {path}"
            yield Trick(name, text.encode("latin-1"), at_a_door=path != "/invocations")
    text = f"POST {POST_DOOR} HTTP/1.0\r\n{authorization}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
    yield Trick("framing: chunks in HTTP/1.0", text.encode(), at_a_door=True)
    text = (
        f"POST {POST_DOOR} HTTP/1.0\r\nConnection: keep-alive\r\n{authorization}Content-Length: 0\r\n\r\n{inner}"
    )
    yield Trick("framing: two in a row in HTTP/1.0", text.encode(), at_a_door=True)
    refused = f"GET /metrics HTTP/1.1\r\nHost: x\r\n{authorization}\r\n"
    yield Trick("framing: behind a refused one", (refused + inner).encode())
    yield Trick("framing: a hundred in a row", (inner * 100).encode())
    yield Trick("framing: doors and others in turn", (_get(DOOR, authorization).decode().replace(
        "Connection: close\r\n", "") + inner).encode() * 5, at_a_door=True)  # fmt: skip


# --- long ones


def _long_ones(authorization: str) -> Iterator[Trick]:
    for kib in (4, 16, 64, 1024):
        text = "a" * kib * 1024
        yield Trick(f"long: path, {kib} KiB", _get(f"/invocations/{text}", authorization))
        yield Trick(f"long: path up to a target, {kib} KiB", _get(f"/{text}/../invocations", authorization))
        yield Trick(f"long: query of a door, {kib} KiB", _get(f"{DOOR}?{text}", authorization), at_a_door=True)
        yield Trick(f"long: header, {kib} KiB", _get("/invocations", f"{authorization}X-A: {text}\r\n"))
        yield Trick(f"long: header at a door, {kib} KiB", _get(DOOR, f"{authorization}X-A: {text}\r\n"), True)
        yield Trick(f"long: header name, {kib} KiB", _get("/invocations", f"{authorization}X{text}: b\r\n"))
        yield Trick(f"long: key, {kib} KiB", _get(DOOR, f"Authorization: Bearer {text}\r\n"), True)
    for count in (90, 200, 2000):
        many = "".join(f"X-{number}: a\r\n" for number in range(count))
        yield Trick(f"long: {count} headers", _get("/invocations", authorization + many))
        yield Trick(f"long: {count} headers at a door", _get(DOOR, authorization + many), at_a_door=True)
    yield Trick("long: slashes", _get("/" * 8000 + "invocations", authorization))
    yield Trick("long: dot segments", _get("/x/.." * 2000 + "/invocations", authorization))


# --- HTTP/2 without TLS and without being asked: the edge's listener recognises its first bytes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA_TYPE, HEADERS_TYPE, RESET_TYPE, SETTINGS_FRAME, GOAWAY_TYPE = 0, 1, 3, 4, 7
SETTINGS_TYPE = bytes([SETTINGS_FRAME])
END_STREAM, END_HEADERS = 1, 4
FRAME_HEADER = 9
STATIC_STATUS = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
"""HPACK's table: a status in one byte."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _hpack_text(text: str) -> bytes:
    raw = text.encode("latin-1")
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    length, rest = bytearray([127]), len(raw) - 127
    while rest > 127:
        length.append(128 | rest & 127)
        rest >>= 7
    return bytes(length) + bytes([rest]) + raw


def http2_raw(headers: list[tuple[str, str]], body: str | None = None) -> bytes:
    """A connection with one stream, the headers as they are, in this order."""
    block = b"".join(b"\0" + _hpack_text(name) + _hpack_text(value) for name, value in headers)
    flags = END_HEADERS | (END_STREAM if body is None else 0)
    data = b"" if body is None else _frame(DATA_TYPE, END_STREAM, 1, body.encode())
    return PREFACE + _frame(SETTINGS_FRAME, 0, 0, b"") + _frame(HEADERS_TYPE, flags, 1, block) + data


def http2_request(headers: dict[str, str], key: str | None, body: str | None = None) -> bytes:
    """The same with a plain request's headers where none are given."""
    pseudo = {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "x"}
    merged = pseudo | headers | ({"authorization": f"Bearer {key}"} if key else {})
    return http2_raw(list(merged.items()), body)


def _http2(key: str | None) -> Iterator[Trick]:
    for what, path in path_tricks("/invocations").items():
        yield Trick(f"HTTP/2 path: {what}", http2_request({":path": path}, key), http2=True)
    inner = f"POST {INNER} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
    injected = f"x\r\n\r\n{inner}"
    for what, headers, body in (
        ("absolute path", {":path": "http://x/invocations"}, None),
        ("empty path", {":path": ""}, None),
        ("asterisk", {":path": "*", ":method": "OPTIONS"}, None),
        ("path with a request in it", {":path": f"{DOOR} HTTP/1.1\r\nHost: {injected}"}, None),
        ("path with a space", {":path": f"{DOOR} /invocations"}, None),
        ("method with a request in it", {":method": f"GET {DOOR} HTTP/1.1\r\nHost: {injected}"}, None),
        ("method with a space", {":method": "GET /invocations HTTP/1.1"}, None),
        ("authority with a request in it", {":path": DOOR, ":authority": injected}, None),
        ("authority with a path", {":path": DOOR, ":authority": "x/invocations?"}, None),
        ("scheme with a path", {":path": DOOR, ":scheme": "http://x/invocations?"}, None),
        ("header with a request in it", {":path": DOOR, "x-a": injected}, None),
        ("header name with a request in it", {":path": DOOR, f"x-a: {injected}": "b"}, None),
        ("header name with a colon", {":path": DOOR, "authorization: bearer x": "b"}, None),
        ("header name in capitals", {":path": DOOR, "X-A": "b"}, None),
        ("connection header", {":path": DOOR, "connection": "upgrade", "upgrade": "websocket"}, None),
        ("another host", {":path": DOOR, "host": "y/invocations"}, None),
        ("length 0 and a body", {":method": "POST", ":path": POST_DOOR, "content-length": "0"}, inner),
        ("a short length", {":method": "POST", ":path": POST_DOOR, "content-length": "2"}, inner),
        ("a long length", {":method": "POST", ":path": POST_DOOR, "content-length": "9999"}, inner),
        ("chunks", {":method": "POST", ":path": POST_DOOR, "transfer-encoding": "chunked"}, f"0\r\n\r\n{inner}"),
        ("CONNECT", {":method": "CONNECT", ":authority": "127.0.0.1:8000"}, None),
        ("CONNECT with a body", {":method": "CONNECT", ":authority": "127.0.0.1:8000"}, inner),
        ("extended CONNECT", {":method": "CONNECT", ":protocol": "websocket", ":path": DOOR}, None),
        ("extended CONNECT elsewhere", {":method": "CONNECT", ":protocol": "x", ":path": "/invocations"}, None),
        ("TRACE", {":method": "TRACE", ":path": DOOR}, None),
        ("override header", {":path": "/invocations", "x-original-url": DOOR}, None),
    ):  # fmt: skip
        yield Trick(f"HTTP/2: {what}", http2_request(headers, key, body), at_a_door=True, http2=True)
    plain = [(":method", "GET"), (":scheme", "http"), (":path", DOOR), (":authority", "x")]
    plain += [("authorization", f"Bearer {key}")] if key else []
    for what, order in (
        ("two paths", [*plain[:3], (":path", "/invocations"), *plain[3:]]),
        ("two paths, other way", [(":path", "/invocations"), *plain]),
        ("two methods", [(":method", "POST"), *plain]),
        ("a pseudo header behind a header", [*plain, ("x-a", "b"), (":path", "/invocations")]),
        ("no path", [*plain[:2], *plain[3:]]),
        ("no method", plain[1:]),
        ("an unknown pseudo header", [*plain, (":status", "200")]),
    ):
        yield Trick(f"HTTP/2: {what}", http2_raw(order), at_a_door=True, http2=True)
    yield Trick("HTTP/2: the preface alone", PREFACE, http2=True)
    yield Trick("HTTP/2: the preface and HTTP/1", PREFACE + inner.encode(), http2=True)
    yield Trick("HTTP/2: half a preface and HTTP/1", PREFACE[:18] + _get("/invocations"))


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The whole frames in these bytes: type, flags, stream, payload."""
    while len(data) >= FRAME_HEADER:
        length = int.from_bytes(data[:3])
        if len(data) < FRAME_HEADER + length:
            return
        yield data[3], data[4], int.from_bytes(data[5:9]), data[FRAME_HEADER : FRAME_HEADER + length]
        data = data[FRAME_HEADER + length :]


def _status(block: bytes) -> int:
    """The status at the begin of a header block, as HAProxy writes it."""
    if block[0] in STATIC_STATUS:
        return STATIC_STATUS[block[0]]
    assert (block[0], block[1]) in ((0x08, 3), (0x48, 3)), f"a status that cannot be read: {block[:8]!r}"
    return int(block[2:5])


def _http2_exchange(port: int, data: bytes) -> bytes:
    """Sends bytes and reads until the stream has ended, the connection too, or patience."""
    received = bytearray()
    with (
        contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError),
        socket.create_connection((LOOPBACK, port), timeout=pace.of(PATIENCE_SECONDS)) as connection,
    ):
        connection.sendall(data)
        while piece := connection.recv(65536):
            received += piece
            if any(_is_end(kind, flags) for kind, flags, _, _ in _frames(bytes(received))):
                break
    return bytes(received)


def _is_end(kind: int, flags: int) -> bool:
    return kind in (RESET_TYPE, GOAWAY_TYPE) or (kind in (DATA_TYPE, HEADERS_TYPE) and bool(flags & END_STREAM))
