"""A container registry that keeps what is pushed in memory, for tests of what is pulled.

Interface: `Registry` (a server that ends with its block; `name` of an image in it; `move`, as a rebuild does).
Docker speaks plain HTTP to a registry on the loopback address without being told so.
"""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit


class Registry:
    """The server. answers: whether it gives anything."""

    answers = True

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        """By repository and tag or digest: media type and text."""
        registry = self

        class Handler(_Handler):
            def registry(self) -> Registry:
                return registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def name(self, repository: str, tag: str) -> str:
        """The reference of an image here."""
        return f"127.0.0.1:{self._server.server_address[1]}/{repository}:{tag}"

    def digest(self, tag: str) -> str:
        """The digest of the image that has this tag now, in whichever repository."""
        (text,) = [text for (_, each), (_, text) in self.manifests.items() if each == tag]
        return _digest(text)

    def move(self, repository: str, tag: str, other: str) -> None:
        """Gives the tag the image of another tag."""
        self.manifests[repository, tag] = self.manifests[repository, other]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def registry(self) -> Registry:
        raise NotImplementedError

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self.registry().answers:
            self._say(503)
        elif path == "/v2/":
            self._say(200)
        elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            media, text = self.registry().manifests.get((found[1], found[2]), ("", b""))
            headers = {"Content-Type": media, "Docker-Content-Digest": _digest(text)}
            self._say(200 if text else 404, text, headers if text else {})
        elif (found := re.fullmatch(r"/v2/.+/blobs/(sha256:\w+)", path)) and found[1] in self.registry().blobs:
            self._say(200, self.registry().blobs[found[1]], {"Docker-Content-Digest": found[1]})
        else:
            self._say(404)

    do_HEAD = do_GET  # noqa: N815 - the name that the server asks for

    def do_POST(self) -> None:
        self._received()
        name = f"{len(self.registry().uploads)}"
        self.registry().uploads[name] = b""
        path = urlsplit(self.path).path.rstrip("/")
        self._say(202, headers={"Location": f"{path}/{name}", "Docker-Upload-UUID": name, "Range": "0-0"})

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        name = path.rpartition("/")[2]
        self.registry().uploads[name] += self._received()
        end = len(self.registry().uploads[name]) - 1
        self._say(202, headers={"Location": path, "Docker-Upload-UUID": name, "Range": f"0-{end}"})

    def do_PUT(self) -> None:
        asked, body = urlsplit(self.path), self._received()
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", asked.path):
            for each in (found[2], _digest(body)):
                self.registry().manifests[found[1], each] = (self.headers["content-type"], body)
            self._say(201, headers={"Docker-Content-Digest": _digest(body)})
            return
        (digest,) = parse_qs(asked.query)["digest"]
        self.registry().blobs[digest] = self.registry().uploads[asked.path.rpartition("/")[2]] + body
        self._say(201, headers={"Location": f"/v2/x/blobs/{digest}", "Docker-Content-Digest": digest})

    def _received(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            whole = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _say(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
