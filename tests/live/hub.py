"""A Hugging Face hub with one small model, in the words that its client speaks: for tests of what fetches weights.

Interface: `Hub` (a server that ends with its block; what it holds, what it was asked).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

MODEL = "seatable-vllm-tests/small-model"
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "model.safetensors": bytes(range(256)) * 8192,
    "pytorch_model.bin": b"the same in another format",
    "tokenizer.json": b"{}",
}
COMMIT = "0123456789abcdef" * 2 + "01234567"


class Hub:
    """The server. gated: whether the model is refused. lacks: a file that it lists and does not give."""

    gated = False
    lacks: str | None = None

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Method and path of every request."""
        self.tokens: set[str | None] = set()
        hub = self

        class Handler(_Handler):
            def handle_one(self) -> None:
                hub.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                hub.tokens.add(self.headers["authorization"])
                self.answer(*hub.answer(self.path.partition("?")[0]))

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104 - containers come from outside
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a path."""
        if self.gated:
            return 403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}
        if re.fullmatch(rf"/api/models/{MODEL}(/revision/[^/]+)?", path):
            names = [{"rfilename": name} for name in FILES]
            about = {"_id": "0", "id": MODEL, "sha": COMMIT, "private": False, "tags": [], "siblings": names}
            return 200, json.dumps(about).encode(), {}
        if re.fullmatch(rf"/api/models/{MODEL}/tree/[^/]+", path):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
                for name, content in FILES.items()
            ]
            return 200, json.dumps(tree).encode(), {}
        file = re.fullmatch(rf"/{MODEL}/resolve/[^/]+/(.+)", path)
        if file and file[1] in FILES and file[1] != self.lacks:
            content = FILES[file[1]]
            return 200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(content)}"'}
        return 404, b"{}", {"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.handle_one()

    do_HEAD = do_GET  # noqa: N815 - likewise

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
