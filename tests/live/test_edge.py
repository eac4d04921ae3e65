"""The edge's manners with a real HAProxy: clients that leave, floods, refusals of large bodies, what it says.

An edge of the test's own, of the deployed stack's image, stands before the deployed engine or a fast upstream.
What this does NOT prove: anything about another version of HAProxy than the image's, networks slower than this
computer's, or a flood that fills the line itself. The flood comes from a network namespace, which needs root.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog.haproxy import DIRECTORY, STRANGER_CONNECTIONS, EdgeClient, edge_files
from scripts.commands.bench_edge import image_of, running_edge, upstream
from tests.live.harness import LOOPBACK, Deployment, exchange, free_ports, wait_until

KEYS = {"seatable": "s" * 64, "agents": "a" * 64}
CLIENTS = {"seatable": EdgeClient([f"{LOOPBACK}/32"]), "agents": EdgeClient(["127.0.0.2/32"])}
STRANGER = "127.0.0.3"
CHAT = "/v1/chat/completions"

MANY_BYTES = 20 * 1024 * 1024
"""More than every buffer between a client and the edge."""


@dataclass(frozen=True)
class OwnEdge:
    """One that listens here. url: without a path."""

    url: str
    port: int


@contextlib.contextmanager
def own_edge(
    deployment: Deployment,
    *,
    engine: int | None = None,
    tls: bool = False,
    address: str = LOOPBACK,
    clients: Mapping[str, EdgeClient] = CLIENTS,
    answer_seconds: int = 600,
) -> Iterator[OwnEdge]:
    """The product's configuration before the deployed engine, or before what listens on this port."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="seatable-vllm-edge-") as folder:
        live = Path(folder) / "live"
        live.mkdir()
        bind = f"{address}:{port}"
        if tls:
            _certificate(live / "edge.pem")
            bind += f" ssl crt {DIRECTORY}/live/edge.pem alpn h2,http/1.1"
        made = edge_files(
            clients=clients,
            client_keys={name: [KEYS[name]] for name in clients},
            engine_key="e" * 64 if engine else deployment.engine_key(),
            bind=[bind],
            engine=f"{LOOPBACK}:{engine or deployment.engine_port}",
            answer_seconds=answer_seconds,
        )
        for name, text in made.files.items():
            (live / name).write_text(text)
        with running_edge(image_of(deployment.edge), folder):
            edge = OwnEdge(f"{'https' if tls else 'http'}://{address}:{port}", port)
            wait_until(lambda: _serves(edge, address), "an answer of the test's own edge")
            yield edge


def _certificate(path: Path) -> None:
    key, certificate = path.with_suffix(".key"), path.with_suffix(".crt")
    form = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    form += ["-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(form, check=True, capture_output=True)
    path.write_text(certificate.read_text() + key.read_text())


def _serves(edge: OwnEdge, address: str) -> bool:
    return curl(edge, "/v1/models", "--interface", address).endswith(" 200")


def curl(edge: OwnEdge, path: str, *options: str, key: str = KEYS["seatable"]) -> str:
    """What curl has received, a space, and the status (000: none)."""
    form = ["curl", "-sk", "-m", "60", "-w", " %{http_code}", "-H", f"authorization: Bearer {key}"]
    form += ["-H", "content-type: application/json", *options, edge.url + path]
    return subprocess.run(form, capture_output=True, text=True, check=False).stdout


# --- clients that leave


def running(deployment: Deployment) -> int:
    """Requests that the engine computes or keeps waiting now."""
    text = deployment.ask("GET", "/metrics", port=deployment.engine_port).text
    return sum(
        int(float(n)) for n in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M)
    )


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_engine_stops_computing_for_a_client_that_has_left(
    deployment: Deployment, tls: bool, protocol: str
) -> None:
    """Chat without streaming, a completion without it, and a stream; each would run for a minute and more."""
    long = {"max_tokens": 3000, "min_tokens": 3000, "ignore_eos": True}
    model = deployment.chat("")["model"]
    bodies = [
        (CHAT, deployment.chat("Tell a story.", **long)),
        ("/v1/completions", {"model": model, "prompt": "Once", **long}),
        (CHAT, deployment.chat("Tell a story.", stream=True, **long)),
    ]
    spoken = protocol if tls or protocol == "--http1.1" else "--http2-prior-knowledge"
    with own_edge(deployment, tls=tls) as edge:
        for path, body in bodies:
            form = ["curl", "-sk", spoken, "-H", f"authorization: Bearer {KEYS['seatable']}", "-H"]
            form += ["content-type: application/json", "-d", json.dumps(body), edge.url + path]
            with subprocess.Popen(form, stdout=subprocess.DEVNULL) as client:
                wait_until(lambda: running(deployment) == 1, "a request at the engine")
                client.kill()
            wait_until(lambda: running(deployment) == 0, f"an idle engine ({path})", seconds=10)


def test_a_client_that_closes_its_sending_side_is_told_why_it_gets_no_answer(deployment: Deployment) -> None:
    """It counts as one that has left: through a tunnel the two look the same. Refusals still reach it."""
    with own_edge(deployment) as edge:
        for path, status, text in ((CHAT, b"400", b"closed its side"), ("/metrics", b"404", b"not found")):
            body = json.dumps(deployment.chat("Tell a story.", max_tokens=2000, ignore_eos=True))
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEYS['seatable']}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection((LOOPBACK, edge.port), timeout=60) as connection:
                connection.sendall((head + body).encode())
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 " + status), answer
            assert text in answer


# --- what it says


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_refusal_reaches_a_client_that_sends_a_large_body(
    deployment: Deployment, tmp_path: Path, tls: bool
) -> None:
    """Python, curl with three ways to send, and Node's fetch where it is installed; path, key and address."""
    file = tmp_path / "body"
    file.write_bytes(b"{" + b" " * MANY_BYTES + b"}")
    sending = ["-H", "Expect:", "--data-binary", f"@{file}"]
    ways = {
        "a length": ["--http1.1", *sending],
        "chunks": ["--http1.1", "-H", "transfer-encoding: chunked", *sending],
        "an expectation": ["--http1.1", "--data-binary", f"@{file}"],
        "HTTP/2": ["--http2" if tls else "--http2-prior-knowledge", *sending],
    }
    with upstream() as engine, own_edge(deployment, engine=engine, tls=tls) as edge:
        for what, path, key, source, status in (
            ("path", "/v1/messages", KEYS["seatable"], LOOPBACK, 404),
            ("key", CHAT, "x" * 64, LOOPBACK, 401),
            ("another's key", CHAT, KEYS["agents"], LOOPBACK, 403),
            ("address", CHAT, KEYS["seatable"], STRANGER, 403),
        ):
            for name, way in ways.items():
                told = curl(edge, path, "--interface", source, *way, key=key)
                assert told.endswith(f" {status}"), (what, name, told)
            assert _python_status(edge, path, key, source, file) == status, what
            if source == LOOPBACK and shutil.which("node"):
                assert _node_status(edge, path, key, file) == str(status), what


def _python_status(edge: OwnEdge, path: str, key: str, source: str, file: Path) -> int:
    where: dict[str, Any] = {"timeout": 60, "source_address": (source, 0)}
    anyone = ssl._create_unverified_context()  # noqa: S323 - the certificate is the test's own, of this minute
    connection = (
        http.client.HTTPSConnection(LOOPBACK, edge.port, context=anyone, **where)
        if edge.url.startswith("https")
        else http.client.HTTPConnection(LOOPBACK, edge.port, **where)
    )
    with contextlib.closing(connection):
        connection.request("POST", path, file.read_bytes(), {"authorization": f"Bearer {key}"})
        return connection.getresponse().status


def _node_status(edge: OwnEdge, path: str, key: str, file: Path) -> str:
    program = """const [url, key, file] = process.argv.slice(1)
fetch(url, {method: 'POST', body: require('fs').readFileSync(file), headers: {authorization: 'Bearer ' + key}})
  .then(a => console.log(a.status)).catch(e => console.log(e.cause))"""
    environment = {**os.environ, "NODE_TLS_REJECT_UNAUTHORIZED": "0", "NODE_NO_WARNINGS": "1"}
    form = ["node", "-e", program, edge.url + path, key, str(file)]
    return subprocess.run(form, capture_output=True, text=True, check=False, env=environment).stdout.strip()


def test_a_body_that_does_not_come_holds_no_refused_connection(deployment: Deployment) -> None:
    """Neither one that stalls nor one that trickles: the edge hangs up after five seconds."""
    with upstream() as engine, own_edge(deployment, engine=engine) as edge:
        head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nabc"
        answer = exchange(edge.port, head, seconds=40)
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 408


def test_an_engine_that_is_silent_for_too_long_or_away_is_told_in_openais_form(deployment: Deployment) -> None:
    """504 names the setting; 503 says when to come back."""
    body = json.dumps(deployment.chat("Tell a story.", max_tokens=3000, min_tokens=3000, ignore_eos=True))
    with own_edge(deployment, answer_seconds=1) as edge:
        told, _, status = curl(edge, CHAT, "-d", body).rpartition(" ")
        assert (status, json.loads(told)["error"]["code"]) == ("504", 504)
        assert "edge.answer_seconds" in told
    with contextlib.ExitStack() as engine:
        port = engine.enter_context(upstream())
        with own_edge(deployment, engine=port) as edge:
            engine.close()
            wait_until(lambda: curl(edge, "/v1/models").endswith(" 503"), "a 503")
            assert json.loads(curl(edge, "/v1/models").removesuffix(" 503"))["error"]["code"] == 503


def test_routes_and_web_pages_are_open_to_their_client_alone(deployment: Deployment) -> None:
    """/v1/responses is answered by the engine; a preflight by the edge, for the named page and network alone."""
    page = "https://app.example.com"
    clients = {**CLIENTS, "seatable": EdgeClient([f"{LOOPBACK}/32"], ["responses"], [page])}
    ask = json.dumps({"model": deployment.chat("")["model"], "input": "Say OK.", "max_output_tokens": 16})
    with own_edge(deployment, clients=clients) as edge:
        assert curl(edge, "/v1/responses", "-d", ask).endswith(" 200")
        agents = curl(edge, "/v1/responses", "-d", ask, "--interface", "127.0.0.2", key=KEYS["agents"])
        assert agents.endswith(" 404")
        assert "clients.NAME.routes" in agents
        assert curl(edge, "/v1/embeddings", "-d", ask).endswith(" 404")
        for origin, source, status in (
            (page, LOOPBACK, 204),
            (page, "127.0.0.2", 404),
            ("https://other.example.com", LOOPBACK, 404),
        ):
            first = ["-X", "OPTIONS", "-H", f"origin: {origin}", "-H", "access-control-request-method: POST"]
            told = curl(edge, CHAT, "-i", "--interface", source, *first)
            assert told.endswith(f" {status}"), told
            assert (f"access-control-allow-origin: {origin}" in told) == (status == 204)
        told = curl(edge, "/v1/models", "-i", "-H", f"origin: {page}")
        assert told.lower().count("access-control-allow-origin") == 1


# --- floods

FLOOD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
port, addresses, begun, end = int(sys.argv[1]), int(sys.argv[2]), [], sys.stdin
for number in range(5000):
    each = socket.socket()
    each.setblocking(False)
    each.bind((f"10.213.77.{3 + number % addresses}", 0))
    each.connect_ex(("10.213.77.1", port))
    begun.append(each)
print("begun", flush=True)
end.read()
"""


@pytest.fixture
def outside() -> Iterator[list[str]]:
    """A network namespace with 100 addresses; what begins a command in it. The edge's side is 10.213.77.1."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace needs root and iproute2")
    name = f"sv{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("addr", "add", "10.213.77.1/24", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        for number in range(2, 103):
            ip("-n", name, "addr", "add", f"10.213.77.{number}/24", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "del", name)


@pytest.mark.parametrize("addresses", [1, 100])
def test_five_thousand_connections_from_outside_keep_no_client_out(
    deployment: Deployment, outside: list[str], addresses: int
) -> None:
    """They stay open as far as they are let in. The client comes from outside too, with an address of its own."""
    clients = {"seatable": EdgeClient(["10.213.77.1/32", "10.213.77.2/32"])}
    with upstream() as engine, own_edge(deployment, engine=engine, address="10.213.77.1", clients=clients) as edge:
        url = f"{edge.url}/v1/models"
        ask = [*outside, "curl", "-s", "-m", "10", "-o", os.devnull, "-w", "%{http_code}"]
        client = [*ask, "--interface", "10.213.77.2", "-H", f"authorization: Bearer {KEYS['seatable']}", url]
        program = [*outside, sys.executable, "-c", FLOOD, str(edge.port), str(addresses)]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flood:
            assert flood.stdout is not None
            assert flood.stdout.readline() == "begun\n"
            told = [subprocess.run(client, capture_output=True, text=True, check=False).stdout for _ in range(20)]
            flood.communicate()
        assert told == ["200"] * 20


def test_a_stranger_reads_why_it_is_refused_a_few_times_and_is_then_hung_up_on(
    deployment: Deployment, outside: list[str]
) -> None:
    """Each in a connection of its own."""
    clients = {"seatable": EdgeClient(["10.213.77.1/32"])}
    with upstream() as engine, own_edge(deployment, engine=engine, address="10.213.77.1", clients=clients) as edge:
        ask = [*outside, "curl", "-s", "-m", "10", "-o", os.devnull, "-w", "%{http_code}", f"{edge.url}/v1/models"]
        told = [subprocess.run(ask, capture_output=True, text=True, check=False).stdout for _ in range(15)]
    assert told == ["403"] * STRANGER_CONNECTIONS + ["000"] * (15 - STRANGER_CONNECTIONS)
