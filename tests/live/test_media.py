"""A real vLLM whose model reads pictures fetches from the hosts of `model.media_domains` alone, and has limits.

An engine with random weights runs in a container with the rights of the product's, with the product's own
configuration and environment and one such host. The server that counts connections is this process. What this does
not prove: a stack without such hosts (its list has one name that cannot exist, which the unit tests hold; vLLM
treats it as any other list), models that read sound or films (this one refuses both), a container for GPUs, whose
root is writable, the edge in front, and that a model understands a picture.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from catalog import vllm
from catalog.images import VLLM_CPU
from components import confined
from images.obtain import obtain
from tests.live.conftest import Shared
from tests.live.harness import (
    LOOPBACK,
    REQUEST_SECONDS,
    Answer,
    address_from_containers,
    docker_client,
    free_ports,
    pace,
    send,
    wait_until,
)
from tests.live.picture_model import png, write_model

pytestmark = pytest.mark.beside

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
"""Open for clients that have it in `routes`."""

MODEL = "tests/pictures"
KEY = "the-engine-is-asked-directly"

ALLOWED = "pictures.example"
"""The host in the settings."""
ELSEWHERE = "elsewhere.example"
"""Another name of the same server."""

EXPLAINED: Mapping[str, str] = {
    "Cannot load local files": "500: vLLM raises a RuntimeError, which its server takes for a fault of its own",
    "could be decompression bomb": "500: an error of Pillow's beyond 179 million pixels, not translated",
    "Only base64 data URLs": "501: vLLM calls what it does not read in `data:` not implemented",
}
"""Refusals that are no 4xx, by a part of their text: why. Nothing is read or unpacked before them."""

START_SECONDS = 300
"""Until the engine answers; its container gives way to others."""


class Listener(ThreadingHTTPServer):
    """Counts the connections that it accepts. It has a picture, and `/away`, which redirects to ELSEWHERE."""

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Pictures)
        self.address = address
        self.accepted = 0
        self.asked: list[str] = []
        """Host and path of each request."""

    def verify_request(self, request: object, client_address: object) -> bool:
        """Called for every connection, before anything is read of it."""
        self.accepted += 1
        return True

    def connections(self) -> int:
        """How many were accepted from others so far: they are taken in order, and this asks as the last."""
        with urlopen(f"http://{self.address}:{self.server_port}/", timeout=pace.of(20)):
            self.accepted -= 1
            self.asked.pop()
            return self.accepted


class _Pictures(BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        host = self.headers.get("host", "").partition(":")[0]
        self.server.asked.append(f"{host}{self.path}")
        if self.path == "/away":
            self.send_response(http.client.FOUND)
            self.send_header("location", f"http://{ELSEWHERE}:{self.server.server_port}/picture")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        picture = png(40, 30)
        self.send_response(http.client.OK)
        self.send_header("content-length", str(len(picture)))
        self.end_headers()
        self.wfile.write(picture)

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what failed."""


@dataclass(frozen=True)
class Engine:
    """port: on the loopback address. listener: what it may be asked to connect to."""

    container: str
    port: int
    listener: Listener

    def ask(self, body: Mapping[str, Any], path: str = CHAT) -> Answer:
        """One request, without the edge."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=pace.of(REQUEST_SECONDS))
        with contextlib.closing(connection):
            return send(connection, "POST", path, key=KEY, body=body)

    def look_at(self, *parts: Mapping[str, Any]) -> Answer:
        """A chat with these parts in its one message."""
        return self.ask(chat(*parts))

    def lives(self) -> bool:
        """Whether it answers a request with a picture."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.look_at(picture(data_url(png(40, 30)))).status == http.client.OK
        return False

    def url(self, path: str = "/picture", host: str = ALLOWED, scheme: str = "http") -> str:
        """An address of the listener."""
        return f"{scheme}://{host}:{self.listener.server_port}{path}"


def chat(*parts: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A chat that is answered with one token."""
    content = [{"type": "text", "text": "What is this?"}, *parts]
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 1, **more}


def picture(url: str) -> dict[str, Any]:
    """The part of a message that holds a picture."""
    return {"type": "image_url", "image_url": {"url": url}}


def refused(answer: Answer) -> bool:
    """Whether it is an error of the client's, or one that is explained."""
    return 400 <= answer.status < 500 or any(text in answer.text for text in EXPLAINED)


def data_url(content: bytes) -> str:
    """A picture in the request itself."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def configuration() -> str:
    """What the product would write for this model."""
    return vllm.configuration(
        name=MODEL,
        context_tokens=1024,
        tool_parser=None,
        # vLLM's own code for this model imports torchvision.
        extra_args={"load-format": "dummy", "model-impl": "transformers", "kv-cache-memory-bytes": 1 << 26},
        engine_key=KEY,
        device="cpu",
        media_domains=[ALLOWED],
    )


@pytest.fixture(scope="module")
def listener(_shared: Shared) -> Iterator[Listener]:
    """The server that engines must not connect to unasked."""
    _shared.release()
    with Listener(address_from_containers(obtain(VLLM_CPU, print))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def started(listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Once it answers."""
    folder = tmp_path_factory.mktemp("pictures")
    write_model(folder / "models" / MODEL)
    (folder / "cache").mkdir()
    (folder / "vllm").mkdir()
    file = folder / "vllm" / "config.yaml"
    file.write_text(configuration())
    file.chmod(0o600)
    (port,) = free_ports(1)
    engine = Engine(f"seatable-vllm-pictures-{port}", port, listener)
    try:
        subprocess.run(_run(engine, folder), capture_output=True, check=True)
        wait_until(lambda: _answers(engine), "the engine answers", START_SECONDS)
        yield engine
    finally:
        subprocess.run(["docker", "rm", "-f", engine.container], capture_output=True, check=False)


@pytest.fixture
def engine(started: Engine) -> Engine:
    """One that answers: where a test has ended it, it is started again."""
    if not started.lives():
        docker_client().containers.get(started.container).restart(timeout=1)
        wait_until(lambda: _answers(started), "the engine answers again", START_SECONDS)
    return started


def _run(engine: Engine, folder: Path) -> list[str]:
    """The command that starts the container, with what components/inference.py gives the product's."""
    folders = vllm.memory_folders("cpu") or {}
    return [
        "docker", "run", "--detach", "--name", engine.container, "--init", "--read-only",
        *(word for at, how in folders.items() for word in ("--tmpfs", f"{at}:{how}")),
        *confined.RUN_OPTIONS.split(), "--shm-size", f"{vllm.SHM_MIB}m", "--cpu-shares", "64",
        *(word for setting in vllm.environment("cpu") for word in ("--env", setting)),
        *(word for host in (ALLOWED, ELSEWHERE) for word in ("--add-host", f"{host}:{engine.listener.address}")),
        "-p", f"{LOOPBACK}:{engine.port}:{vllm.PORT}",
        "-v", f"{folder}/models:{vllm.MODELS_DIR}:ro", "-v", f"{folder}/cache:{vllm.CACHE_DIR}",
        "-v", f"{folder}/vllm:{vllm.CONFIG_DIR}:ro",
        "--entrypoint", "vllm", obtain(VLLM_CPU, print), "serve", "--config", vllm.CONFIG_FILE,
    ]  # fmt: skip


def _answers(engine: Engine) -> bool:
    """Whether it is up; AssertionError with its log when it has ended."""
    container = docker_client().containers.get(engine.container)
    assert container.status == "running", container.logs(tail=40).decode(errors="replace")
    connection = http.client.HTTPConnection(LOOPBACK, engine.port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        return send(connection, "GET", "/health").status == http.client.OK
    return False


Address = Callable[[Engine], str]

FETCHED: Mapping[str, Address] = {
    "plain": lambda engine: engine.url(host=ELSEWHERE),
    "encrypted": lambda engine: engine.url(host=ELSEWHERE, scheme="https"),
    "in capitals": lambda engine: engine.url(scheme="HTTP", host=ELSEWHERE.upper()),
    "a number": lambda engine: engine.url(host=engine.listener.address),
    "below the host": lambda engine: engine.url(host=f"{ALLOWED}.{ELSEWHERE}"),
    "with a user that looks like the host": lambda engine: engine.url(host=f"{ALLOWED}@{ELSEWHERE}"),
    "with a fragment that looks like it": lambda engine: engine.url(f"#@{ALLOWED}/", host=ELSEWHERE),
    "with a backslash": lambda engine: engine.url(f"\\@{ALLOWED}/", host=ELSEWHERE),
    "one that redirects": lambda engine: engine.url("/away", host=ELSEWHERE),
}
"""Addresses of the web, as somebody would write them who looks for a way around the list."""

OTHERS: Mapping[str, Address] = {
    "of no scheme": lambda engine: engine.url().removeprefix("http:"),
    "of ftp": lambda engine: engine.url(scheme="ftp"),
    "of a file": lambda _: f"file://{vllm.MODELS_DIR}/{MODEL}/config.json",
    "of another machine's file": lambda engine: engine.url(scheme="file"),
}


def problems(engine: Engine, kind: str, addresses: Mapping[str, Address], helps: str = "") -> list[str]:
    """What is wrong with the answers to these addresses in parts of a message of this kind; none is wanted.

    helps: what the text of each answer has to contain.
    """
    found = []
    for name, address in addresses.items():
        url = address(engine)
        before = engine.listener.connections()
        answer = engine.look_at({"type": kind, kind: {"url": url} if kind.endswith("_url") else url})
        if not refused(answer) or helps not in answer.text:
            found.append(f"{name}, {url}: {answer.status} {answer.text}")
        if count := engine.listener.connections() - before:
            found.append(f"{name}, {url}: {count} connections")
    return found


def test_no_address_of_a_picture_is_connected_to_whose_host_is_not_in_the_settings(engine: Engine) -> None:
    assert not problems(engine, "image_url", FETCHED, helps=ALLOWED)


@pytest.mark.parametrize("kind", ["input_image", "video_url", "audio_url"])
def test_no_address_in_another_kind_of_part_is_connected_to(engine: Engine, kind: str) -> None:
    assert not problems(engine, kind, {**FETCHED, **OTHERS})


def test_no_address_that_is_not_of_the_web_is_read(engine: Engine) -> None:
    assert not problems(engine, "image_url", OTHERS)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("options", [
    {"mm_processor_kwargs": {"images": ["URL"]}},
    {"mm_processor_kwargs": {"images_kwargs": {"images": ["URL"]}, "videos": ["URL"], "audio": ["URL"]}},
    {"media_io_kwargs": {"image": {"url": "URL"}}},
])  # fmt: skip
def test_options_of_a_request_that_libraries_would_fetch_from_are_refused(
    engine: Engine, path: str, options: dict[str, Any]
) -> None:
    before = engine.listener.connections()
    body = {"model": MODEL, "input": "Hi", "max_output_tokens": 16} if path == RESPONSES else chat()
    answer = engine.ask({**body, **_with_url(options, engine.url())}, path)
    assert answer.status == http.client.BAD_REQUEST, answer.text
    assert "disabled" in answer.text
    assert engine.listener.connections() == before


def _with_url(value: Any, url: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_url(each, url) for key, each in value.items()}
    return [_with_url(each, url) for each in value] if isinstance(value, list) else url


def test_a_picture_of_the_other_route_is_not_fetched_either(engine: Engine) -> None:
    before = engine.listener.connections()
    part = {"type": "input_image", "image_url": engine.url(host=ELSEWHERE), "detail": "auto"}
    body = {"model": MODEL, "input": [{"role": "user", "content": [part]}], "max_output_tokens": 16}
    answer = engine.ask(body, RESPONSES)
    assert answer.status == http.client.BAD_REQUEST, answer.text
    assert ALLOWED in answer.text
    assert engine.listener.connections() == before


def test_a_host_in_the_settings_is_fetched_from_and_no_other_name_of_it_is(engine: Engine) -> None:
    before = engine.listener.connections()
    assert engine.look_at(picture(engine.url())).status == http.client.OK
    assert engine.listener.connections() == before + 1
    answer = engine.look_at(picture(engine.url(host=ELSEWHERE)))
    assert answer.status == http.client.BAD_REQUEST, answer.text
    assert ALLOWED in answer.text
    assert engine.listener.connections() == before + 1


def test_a_host_in_the_settings_cannot_send_the_engine_elsewhere(engine: Engine) -> None:
    engine.listener.asked.clear()
    answer = engine.look_at(picture(engine.url("/away")))
    assert refused(answer), answer.text
    engine.listener.connections()
    assert engine.listener.asked == [f"{ALLOWED}/away"]


def test_pictures_in_the_request_itself_are_read_up_to_the_limits(engine: Engine) -> None:
    small, largest = data_url(png(40, 30)), data_url(png(10_000, vllm.MAX_PICTURE_PIXELS // 10_000))
    for pictures in ([small], [small] * vllm.MAX_PICTURES, [largest]):
        answer = engine.look_at(*map(picture, pictures))
        assert answer.status == http.client.OK, answer.text
        # Four for each, and those of the text.
        assert answer.json()["usage"]["prompt_tokens"] >= 4 * len(pictures) + 1


TOO_MUCH: Mapping[str, tuple[Callable[[], list[str]], str]] = {
    "one picture more": (
        lambda: [data_url(png(1, 1))] * (vllm.MAX_PICTURES + 1),
        f"At most {vllm.MAX_PICTURES} image",
    ),
    "64 million pixels": (lambda: [data_url(png(8_000, 8_000))], "pixels"),
    "400 million pixels": (lambda: [data_url(png(20_000, 20_000))], "pixels"),
    "no picture": (lambda: [data_url(b"no picture")], "image"),
    "half a picture": (lambda: [data_url(png(4_000, 4_000)[:200])], "image"),
    "not base64": (lambda: ["data:image/png,%89PNG"], "base64"),
}
"""Pictures, and a word of the refusal."""


@pytest.mark.parametrize("name", TOO_MUCH)
def test_more_than_the_limits_and_what_is_no_picture_is_refused_and_the_engine_lives(
    engine: Engine, name: str
) -> None:
    urls, word = TOO_MUCH[name]
    answer = engine.look_at(*map(picture, urls()))
    assert refused(answer), answer.text
    assert word in answer.text
    assert engine.lives()
