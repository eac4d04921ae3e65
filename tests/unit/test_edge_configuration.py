"""Unit tier: the edge's configuration in a running HAProxy: who passes which lock, and what the engine then gets.

Clients are addresses of the loopback network, the engine is a small server. What no request can show here (limits
for strangers, patience, TLS) is read in the text. HAProxy is Debian's; that of the image, addresses of a real
network, streams and reloads are the live tier's. It does NOT prove that a container is given these files.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog.haproxy import (
    CERTIFICATE,
    CERTIFICATES,
    CLIENT_KEYS,
    CONFIGURATION,
    ENGINE_KEY,
    FROM_THE_MACHINE_ITSELF,
    IPV6_ONLY,
    PROBER,
    REFUSAL,
    TUNNEL,
    EdgeClient,
    EdgeFiles,
    edge_files,
    plain_bind,
    tls_binds,
)
from settings import SettingsError, parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

PROJECT = Path(__file__).resolve().parent.parent.parent

DOORS = {"POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"}
"""DESIGN section 6. Whatever else a client kind may need one day has to be added here too, on purpose."""

# Every route of vLLM 0.32.0 and its answer without a key: the rows of vllm-0.32.0-routes-without-key.tsv.
ROUTES_OF_VLLM = """\
400 POST /detokenize
200 HEAD /docs
200 HEAD /docs/oauth2-redirect
400 POST /generative_scoring
200 GET /health
401 POST /inference/v1/abort_requests
401 POST /inference/v1/generate
400 POST /invocations
200 POST /is_scaling_elastic_ep
200 GET /kv_event_sources
200 GET /load
200 GET /metrics
200 HEAD /openapi.json
200 GET /ping
200 POST /ping
200 HEAD /redoc
400 POST /scale_elastic_ep
400 POST /tokenize
401 POST /v1/chat/completions
401 POST /v1/chat/completions/batch
401 POST /v1/chat/completions/derender
401 POST /v1/chat/completions/render
401 POST /v1/completions
401 POST /v1/completions/derender
401 POST /v1/completions/render
401 POST /v1/messages
401 POST /v1/messages/count_tokens
401 POST /v1/messages/render
401 GET /v1/models
401 POST /v1/responses
401 POST /v1/responses/render
401 GET /v1/responses/{response_id}
401 POST /v1/responses/{response_id}/cancel
401 POST /v1/systemone
200 GET /version"""


def key(name: str) -> str:
    """A key of 64 letters and digits."""
    return name.ljust(64, "0")


TWO_CLIENTS = {
    "seatable": EdgeClient(["198.51.100.10/32", "2001:db8::10/128"]),
    "agents-2": EdgeClient(["198.51.100.0/28"]),
}
TWO_KEYS = {"seatable": [key("s1"), key("s2")], "agents-2": [key("a1")]}


def made(
    clients: Mapping[str, EdgeClient] | None = None,
    client_keys: Mapping[str, Sequence[str]] | None = None,
    **changes: Any,
) -> EdgeFiles:
    """The files for two clients, unless told otherwise; every client without keys gets one."""
    clients = TWO_CLIENTS if clients is None else clients
    if client_keys is None:
        client_keys = TWO_KEYS if clients is TWO_CLIENTS else {name: [key(f"of{name}")] for name in clients}
    values: dict[str, Any] = {
        "engine_key": key("engine"),
        "bind": ["127.0.0.1:8080"],
        "engine": "127.0.0.1:18000",
        **changes,
    }
    return edge_files(clients=clients, client_keys=client_keys, **values)


def directives(section: str = "", files: EdgeFiles | None = None) -> list[str]:
    """The lines of the configuration without comments and indentation; those of one section, if it is named."""
    found, inside = [], not section
    for line in (files or made()).files[CONFIGURATION].splitlines():
        if line and not line[0].isspace():
            inside = not section or line.startswith(section)
        words = line.strip()
        if inside and words and not words.startswith("#"):
            found.append(words)
    return found


# A running edge


def haproxy_here() -> str:
    """The path of this computer's HAProxy. Without one nothing here proves anything, which CI has to notice."""
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
    if found is not None:
        return found
    reason = "haproxy is not on this computer: apt-get install haproxy (scripts/test does that for root)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def program() -> str:
    """HAProxy's own program."""
    return haproxy_here()


CLIENTS = {
    "seatable": EdgeClient(
        ["127.0.0.10/32", "127.0.4.0/24"], ["responses"], ["https://x.example", "http://localhost:3000"]
    ),
    "agents-2": EdgeClient(["127.0.0.20/32"], ["responses", "embeddings"]),
    "third": EdgeClient(["127.0.0.30/32"]),
    "many": EdgeClient([f"127.0.1.{host}/32" for host in range(1, 101)]),
}
KEYS = {"seatable": [key("s1"), key("s2")], "agents-2": [key("a1")], "third": [key("t1")], "many": [key("m1")]}
STRANGER = "127.0.9.9"

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Received:
    """A request as the engine has it. headers: names in small letters."""

    line: str
    headers: Mapping[str, list[str]]
    body: str


@dataclass(frozen=True)
class Answer:
    """What a client gets, and what the engine got for it."""

    status: int
    headers: Mapping[str, str]
    text: str
    received: Sequence[Received]

    @property
    def message(self) -> str:
        """The text of an error in OpenAI's form."""
        return str(json.loads(self.text)["error"]["message"])


@dataclass
class RunningEdge:
    """HAProxy with the files for CLIENTS. requests: how many it had, of which each is a line in its log."""

    port: int
    keyless_port: int
    files: EdgeFiles
    log: Path
    received: list[Received] = field(default_factory=list)
    requests: int = 0

    def logged(self) -> list[str]:
        """The lines of the log about requests, once every request so far has one."""
        deadline = time.monotonic() + 20
        while True:
            lines = [line for line in self.log.read_text().splitlines() if " client=" in line]
            if len(lines) >= self.requests:
                return lines
            assert time.monotonic() < deadline, lines
            time.sleep(0.02)

    def ask(
        self,
        route: str = "GET /v1/models",
        key: str | None = None,
        source: str = "127.0.0.10",
        headers: Headers = (),
        *,
        body: str | None = None,
        keyless: bool = False,
    ) -> Answer:
        """One request from one address. keyless: to the listener that asks for no key."""
        method, path = route.split(" ", 1)
        self.received.clear()
        self.requests += 1
        port = self.keyless_port if keyless else self.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(source, 0))
        connection.putrequest(method, path)
        for name, value in [*headers, *([("Authorization", f"Bearer {key}")] if key else [])]:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body.encode() if body is not None else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, text, tuple(self.received))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def edge(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """HAProxy with both listeners, in front of an engine that answers 200 to everything."""
    folder = tmp_path_factory.mktemp("edge")
    received: list[Received] = []

    class Engine(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            if self.path != "/health":  # the edge's own question, once a second
                names = {name.lower(): self.headers.get_all(name) or [] for name in self.headers}
                received.append(Received(f"{self.command} {self.path}", names, body))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Nothing: HAProxy leaves its health checks half way."""

    engine = Server(("127.0.0.1", 0), Engine)
    threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    port, keyless_port = free_port(), free_port()
    files = made(
        CLIENTS,
        KEYS,
        bind=plain_bind("127.0.0.1", port),
        engine=f"127.0.0.1:{engine.server_port}",
        loopback_port=keyless_port,
    )
    for name, content in files.files.items():
        # Only root may become another user.
        text = content if os.geteuid() == 0 else re.sub(r"(?m)^    (user|group) .*\n", "", content)
        (folder / name).write_text(text)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([program, "-db", "-f", folder / CONFIGURATION], stdout=log, stderr=log)
    try:
        _wait_for(port, running, folder / "log")
        yield RunningEdge(port, keyless_port, files, folder / "log", received)
    finally:
        running.terminate()
        running.wait()
        engine.shutdown()
        engine.server_close()


def _wait_for(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert running.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"HAProxy does not listen: {log.read_text()}")


# The three locks


@pytest.mark.parametrize(
    ("name", "source", "secret"),
    [
        ("seatable", "127.0.0.10", "s1"),
        ("seatable", "127.0.4.255", "s2"),
        ("agents-2", "127.0.0.20", "a1"),
        ("third", "127.0.0.30", "t1"),
    ],
)
def test_a_client_passes_each_door_with_its_key_from_its_address_and_the_engine_gets_its_own_key(
    name: str, source: str, secret: str, edge: RunningEdge
) -> None:
    for door in sorted(DOORS):
        answer = edge.ask(door, key(secret), source, body="{}" if door.startswith("POST") else None)
        assert answer.status == 200, (name, door, answer.text)
        (received,) = answer.received
        assert (received.line, received.headers["authorization"]) == (door, [f"Bearer {key('engine')}"])


REFUSED: dict[str, tuple[str, str, str | None, int, str]] = {
    "a stranger with a valid key": ("GET /v1/models", STRANGER, "s1", 403, "this address is not allowed"),
    "a stranger at a wrong door": ("GET /health", STRANGER, "s1", 403, "this address is not allowed"),
    "a neighbour of a client": ("GET /v1/models", "127.0.0.11", "s1", 403, "this address is not allowed"),
    "no key at a wrong door": ("GET /health", "127.0.0.10", None, 404, "not found: this endpoint has"),
    "a valid key at a wrong door": ("GET /health", "127.0.0.10", "s1", 404, "not found: this endpoint has"),
    "the protocol of others": ("POST /v1/messages", "127.0.0.10", "s1", 404, "not found: /v1/messages is of"),
    "no key": ("GET /v1/models", "127.0.0.10", None, 401, "no valid key"),
    "nobody's key": ("GET /v1/models", "127.0.0.10", "x1", 401, "no valid key"),
    "the engine's own key": ("GET /v1/models", "127.0.0.10", "engine", 401, "no valid key"),
    "another client's key": (
        "GET /v1/models",
        "127.0.0.20",
        "s1",
        403,
        "this key is not allowed from this address",
    ),
    "another's key, the other way": ("GET /v1/models", "127.0.0.10", "a1", 403, "this key is not allowed"),
    "a route of another client": ("POST /v1/embeddings", "127.0.0.10", "s1", 404, "not open to this client"),
    "a route of all others": ("POST /v1/responses", "127.0.0.30", "t1", 404, "not open to this client"),
    "a route without a key": ("POST /v1/responses", "127.0.0.10", None, 401, "no valid key"),
    "a route by another method": ("GET /v1/responses", "127.0.0.10", "s1", 404, "not found: this endpoint has"),
}


@pytest.mark.parametrize("who", list(REFUSED))
def test_what_lacks_one_of_the_three_is_refused_by_the_first_that_it_lacks_and_nothing_reaches_the_engine(
    who: str, edge: RunningEdge
) -> None:
    route, source, secret, status, words = REFUSED[who]
    answer = edge.ask(route, key(secret) if secret else None, source, body="{}" if "POST" in route else None)
    assert answer.status == status
    assert words in answer.message
    assert answer.received == ()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert answer.headers["x-edge-generation"] == edge.files.generation


@pytest.mark.parametrize(("path", "clients"), [("responses", {"s1": 10, "a1": 20}), ("embeddings", {"a1": 20})])
def test_a_route_is_a_door_of_the_clients_that_name_it(
    path: str, clients: Mapping[str, int], edge: RunningEdge
) -> None:
    for secret, host in clients.items():
        answer = edge.ask(f"POST /v1/{path}", key(secret), f"127.0.0.{host}", body="{}")
        assert [received.line for received in answer.received] == [f"POST /v1/{path}"]


def test_no_other_route_of_vllm_is_a_door_for_anybody(edge: RunningEdge) -> None:
    routes = {row.split(" ", 1)[1] for row in ROUTES_OF_VLLM.splitlines()} - DOORS - {"POST /v1/responses"}
    passed = {
        route: answer.status for route in sorted(routes) if (answer := edge.ask(route, key("s1"))).status != 404
    }
    assert len(routes) == 31
    assert passed == {}


@pytest.mark.parametrize(
    "route",
    [
        "POST /v1/models",
        "HEAD /v1/models",
        "PUT /v1/models",
        "GET /v1/chat/completions",
        "GET /v1/completions",
        "OPTIONS /v1/chat/completions",
        "GET /v1/models/",
        "GET //v1/models",
        "GET /v1//models",
        "GET /V1/models",
        "GET /v1/Models",
        "GET /v1/%6dodels",
        "GET /v1/models;x",
        "GET /v1/models/x",
        "GET /v1/./models",
        "GET /x/../v1/models",
        "GET /models",
        "GET /v1",
    ],
)
def test_a_door_is_compared_letter_for_letter_and_with_its_own_methods_alone(
    route: str, edge: RunningEdge
) -> None:
    answer = edge.ask(route, key("s1"))
    assert (answer.status, answer.received) == (404, ())


KEY_HEADERS: dict[str, tuple[Headers, int]] = {
    "as OpenAI's clients send it": ([("Authorization", f"Bearer {key('s1')}")], 200),
    "in small letters": ([("authorization", f"bearer {key('s1')}")], 200),
    "with something after it": ([("Authorization", f"Bearer {key('s1')} x")], 401),
    "with a comma after it": ([("Authorization", f"Bearer {key('s1')},x")], 401),
    "with something before it": ([("Authorization", f"xBearer {key('s1')}")], 401),
    "with two blanks": ([("Authorization", f"Bearer  {key('s1')}")], 401),
    "of another kind": ([("Authorization", f"Basic {key('s1')}")], 401),
    "alone": ([("Authorization", key("s1"))], 401),
    "but for its end": ([("Authorization", f"Bearer {key('s1')[:-1]}")], 401),
    "twice": ([("Authorization", f"Bearer {key('s1')}"), ("Authorization", f"Bearer {key('s1')}")], 401),
    "beside another": ([("Authorization", f"Bearer {key('s1')}"), ("Authorization", "Bearer x")], 401),
    "as a name of an owner": ([("Authorization", "Bearer seatable")], 401),
    "in another header": ([("X-Api-Key", key("s1"))], 401),
}


@pytest.mark.parametrize("sent", list(KEY_HEADERS))
def test_a_key_counts_as_one_whole_bearer_header(sent: str, edge: RunningEdge) -> None:
    headers, status = KEY_HEADERS[sent]
    assert edge.ask(headers=headers).status == status


def test_a_client_of_a_hundred_networks_comes_from_each_of_them(edge: RunningEdge) -> None:
    hosts = range(102)
    statuses = {host: edge.ask(key=key("m1"), source=f"127.0.1.{host}").status for host in hosts}
    assert {host for host, status in statuses.items() if status == 200} == set(range(1, 101))
    assert (statuses[0], statuses[101]) == (403, 403)


def test_the_engine_gets_the_plain_path_and_no_claims_of_a_client(edge: RunningEdge) -> None:
    claims = [("X-Forwarded-For", "192.0.2.1"), ("X-Request-Id", "1"), ("x-anything", "1"), ("Forwarded", "for=1"),
              ("Origin", "https://x.example"), ("Upgrade", "h2c"), ("Connection", "upgrade"),
              ("Content-Type", "application/json")]  # fmt: skip
    body = json.dumps({"prompt": "long " * 50_000})
    answer = edge.ask(f"POST /v1/completions?api_key={key('s1')}&x=1", key("s1"), headers=claims, body=body)
    (received,) = answer.received
    assert (received.line, received.body) == ("POST /v1/completions", body)
    kept = {"host", "content-type", "content-length", "accept-encoding", "authorization"}
    assert set(received.headers) - {"connection"} == kept
    # Of a request with a body HAProxy takes the upgrade away by itself.
    (received,) = edge.ask(f"GET /v1/models?api_key={key('s1')}", key("s1"), headers=claims).received
    assert received.line == "GET /v1/models"
    assert set(received.headers) - {"connection"} == kept - {"content-length"}


def test_a_web_page_may_be_used_from_its_clients_networks_and_still_needs_a_key(edge: RunningEdge) -> None:
    page: Headers = [("Origin", "https://x.example")]
    first: Headers = [("Access-Control-Request-Method", "POST")]
    chat = "OPTIONS /v1/chat/completions"
    asked = edge.ask(chat, headers=[*page, *first])
    assert (asked.status, asked.received) == (204, ())
    assert {name: value for name, value in asked.headers.items() if name.startswith(("access-", "vary"))} == {
        "access-control-allow-origin": "https://x.example",
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "authorization, *",
        "access-control-max-age": "600",
        "vary": "origin",
    }
    assert edge.ask(headers=page).status == 401
    used = edge.ask(key=key("s1"), headers=[("Origin", "http://localhost:3000")])
    assert (used.status, used.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    refused = {
        "another page": edge.ask(chat, headers=[("Origin", "https://y.example"), *first]),
        "a part of its name": edge.ask(chat, headers=[("Origin", "https://x.example.org"), *first]),
        "another client's network": edge.ask(chat, source="127.0.0.20", headers=[*page, *first]),
        "a stranger": edge.ask(chat, source=STRANGER, headers=[*page, *first]),
        "a wrong door": edge.ask("OPTIONS /health", headers=[*page, *first]),
        "no question": edge.ask(chat, headers=page),
        "the listener without keys": edge.ask(chat, headers=[*page, *first], keyless=True),
    }
    assert {who: answer.status for who, answer in refused.items() if answer.status not in (403, 404)} == {}
    for who in ("another page", "a part of its name", "another client's network", "a stranger",
                "the listener without keys"):  # fmt: skip
        assert "access-control-allow-origin" not in refused[who].headers, who


KEYLESS: dict[str, tuple[str, str, Headers, int]] = {
    "no key": ("GET /v1/models", "127.0.0.1", [], 200),
    "a word in its place": ("GET /v1/models", "127.0.0.1", [("Authorization", "Bearer not-needed")], 200),
    "a valid key from its address": (
        "GET /v1/models", "127.0.0.10", [("Authorization", f"Bearer {key('s1')}")], 200,
    ),
    "a valid key from another address": (
        "GET /v1/models", "127.0.0.1", [("Authorization", f"Bearer {key('s1')}")], 403,
    ),
    "a key that is not valid any more": (
        "GET /v1/models", "127.0.0.1", [("Authorization", f"Bearer {key('s0')}")], 401,
    ),
    "the same in small letters": ("GET /v1/models", "127.0.0.1", [("authorization", f"bearer {key('s0')}")], 401),
    "a wrong door": ("GET /health", "127.0.0.1", [], 404),
    "a wrong method": ("GET /v1/completions", "127.0.0.1", [], 404),
    "a route of some clients": ("POST /v1/responses", "127.0.0.1", [], 404),
}  # fmt: skip


@pytest.mark.parametrize("sent", list(KEYLESS))
def test_the_listener_without_keys_has_the_same_doors_and_refuses_keys_that_are_wrong(
    sent: str, edge: RunningEdge
) -> None:
    route, source, headers, status = KEYLESS[sent]
    answer = edge.ask(route, source=source, headers=headers, keyless=True)
    assert answer.status == status
    engine_keys = [received.headers["authorization"] for received in answer.received]
    assert engine_keys == ([[f"Bearer {key('engine')}"]] if status == 200 else [])


def test_a_request_is_logged_with_its_client_and_its_path_in_one_word_and_never_with_a_key(
    edge: RunningEdge,
) -> None:
    before = len(edge.logged())
    asked = {
        b"GET /v1/models?key=" + key("s1").encode(): "127.0.0.1 client=- GET /v1/models 403",
        b'GET /a"b\\c': r'127.0.0.1 client=- GET /a"b\c 403',
        b"GET /a\x7fb": "127.0.0.1 client=- GET /a?b 403",
        b"GET /a%0Ab": "127.0.0.1 client=- GET /a%0Ab 403",
    }
    for line in asked:
        edge.requests += 1
        with socket.create_connection(("127.0.0.1", edge.port)) as client:
            client.sendall(line + b" HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\nconnection: close\r\n\r\n")
            while client.recv(4096):
                pass
    edge.ask(key=key("s1"), source="127.0.4.7")
    edge.ask(key=key("s1"), source="127.0.0.20")
    edge.ask(key=key("s1"), source=STRANGER)
    edge.ask(keyless=True, source="127.0.0.1")
    expected = [
        *asked.values(),
        "127.0.4.7 client=seatable GET /v1/models 200",
        "127.0.0.20 client=seatable GET /v1/models 403",
        f"{STRANGER} client=- GET /v1/models 403",
        f"127.0.0.1 client={TUNNEL} GET /v1/models 200",
    ]
    # Two requests may be logged the other way round: HAProxy has several threads.
    logged = edge.logged()[before:]
    assert sorted(" ".join(line.split()[:5]) for line in logged) == sorted(expected)
    assert {len(line.split()) for line in logged} == {10}
    assert not any(secret in edge.log.read_text() for secret in [key("engine"), *KEYS["seatable"]])


def test_nothing_is_passed_on_by_any_other_way_than_the_three_locks() -> None:
    # Each of the two conditions would do alone: this is the second lock behind the third.
    lines = directives()
    assert [line for line in lines if line.startswith(("default_backend", "use_backend", "use-server"))] == [
        "use_backend engine if { var(txn.client) -m found } !{ var(txn.refusal) -m found }",
        "default_backend refused",
    ]
    assert [line for line in lines if line.startswith("bind ")] == ["bind 127.0.0.1:8080"]
    assert [line for line in lines if line.startswith(("frontend", "listen", "backend"))] == [
        "frontend clients",
        "backend refused",
        "backend engine",
    ]
    assert not [line for line in lines if line.startswith(("http-request allow", "stats ", "monitor-uri"))]


# Keys


def test_no_key_is_in_the_configuration() -> None:
    configuration = made().files[CONFIGURATION]
    for secret in (key("engine"), *TWO_KEYS["seatable"], *TWO_KEYS["agents-2"]):
        assert secret not in configuration


def test_the_two_maps_hold_every_key_with_its_owner_and_the_other_files_none() -> None:
    files = made().files
    assert set(files) == {CONFIGURATION, CLIENT_KEYS, ENGINE_KEY, REFUSAL}
    assert key("engine") not in files[REFUSAL]
    owners = [line.split() for line in files[CLIENT_KEYS].splitlines()]
    assert owners == [[secret, name] for name in TWO_CLIENTS for secret in TWO_KEYS[name]]
    assert [line.split() for line in files[ENGINE_KEY].splitlines()] == [["engine", key("engine")]]


def test_the_engines_key_is_no_clients_key() -> None:
    assert key("engine") not in made().files[CLIENT_KEYS]


def test_every_file_that_the_configuration_names_lies_beside_it() -> None:
    configuration = made().files[CONFIGURATION]
    assert set(re.findall(r"map(?:_\w+)?\(([^)]+)\)", configuration)) == {CLIENT_KEYS, ENGINE_KEY}
    assert "default-path config" in directives("global")


def test_no_answer_of_the_edge_shows_a_key_or_the_engine() -> None:
    for line in directives():
        if "return" in line or line.startswith("http-error"):
            assert "map_str" not in line
            assert "18000" not in line


# Long prompts, streams, a restarting engine


def seconds(name: str) -> int:
    (line,) = [line for line in directives("defaults") if line.startswith(f"timeout {name} ")]
    return int(line.split()[-1].removesuffix("s"))


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_answer_may_take_as_long_as_seatable_waits(side: str) -> None:
    assert seconds(side) >= 180


def test_a_removed_key_ends_an_hour_later_at_the_latest() -> None:
    assert "hard-stop-after 1h" in directives("global")


def test_nothing_buffers_a_stream_or_bounds_a_picture() -> None:
    for line in directives():
        assert "http-buffer-request" not in line
        assert not line.startswith(("compression", "filter", "tune.bufsize"))
        assert "req.body_size" not in line


@pytest.mark.parametrize("status", [502, 503])
def test_while_the_engine_is_away_the_edge_says_when_to_come_back(status: int) -> None:
    (line,) = [line for line in directives("defaults") if line.startswith(f"http-error status {status} ")]
    assert re.search(r"hdr retry-after \d+$", line)


def answers() -> list[str]:
    """Every rule of a stack with all kinds of refusals that makes an answer with a text."""
    clients = {**TWO_CLIENTS, "seatable": EdgeClient(["198.51.100.10/32"], ["responses"], ["https://x.example"])}
    return [line for line in directives(files=made(clients, TWO_KEYS)) if '"error"' in line]


HAPROXYS_OWN = {400, 405, 408, 413, 422, 429, 500, 501, 502, 503, 504}


def test_every_answer_is_a_short_error_in_openais_form() -> None:
    # Some clients show 256 bytes of an error (consumers.md P33); the longest address has 39.
    for line in answers():
        (status, body) = re.findall(r"(?:status | ')(\d{3}).*?(\{.*\})'", line)[0]
        assert len(body.replace("%[src]", "f" * 39)) <= 256, body
        error: dict[str, Any] = json.loads(body)["error"]
        assert len(error["message"]) > 20
        assert error["type"] == "edge"
        assert error["code"] == int(status)


def test_whatever_haproxy_answers_by_itself_has_a_text() -> None:
    told = {int(line.split()[2]) for line in answers() if line.startswith("http-error ")}
    assert told == HAPROXYS_OWN
    assert all(" content-type application/json " in line for line in answers() if line.startswith("http-error "))


def test_what_a_client_has_left_is_ended_at_the_engine_too() -> None:
    assert "option abortonclose" in directives("defaults")  # in a backend it does nothing
    assert "no option abortonclose" in directives("backend refused")


def test_the_answer_seconds_bound_the_silence_of_both_sides() -> None:
    lines = directives("defaults", made(answer_seconds=900))
    assert "timeout client 900s" in lines
    assert "timeout server 900s" in lines


# Who may connect


def test_strangers_are_limited_before_tls_and_the_machine_itself_is_not() -> None:
    rules = [
        line.removeprefix("tcp-request connection ") for line in directives() if line.startswith("tcp-request ")
    ]
    assert rules == [
        "accept if from_here",
        "reject if many_open",
        "reject if !from_any crowded",
        "reject if !from_any some_open",
        "reject if !from_any some_lately",
        "track-sc0 src,ipmask(32,64)",
    ]


# When the configuration in use counts as another one


def test_the_same_inputs_give_the_same_files_and_generation() -> None:
    assert made() == made()


GENERATIONS: dict[str, dict[str, Any]] = {
    "a key": {"client_keys": {**TWO_KEYS, "seatable": [key("s1"), key("s3")]}},
    "one key less": {"client_keys": {**TWO_KEYS, "seatable": [key("s2")]}},
    "a key that moved to the other client": {"client_keys": {"seatable": [key("s1")], "agents-2": [key("s2")]}},
    "the engine's key": {"engine_key": key("engine2")},
    "an address": {"clients": {**TWO_CLIENTS, "seatable": EdgeClient(["198.51.100.11/32"])}},
    "one address less": {"clients": {**TWO_CLIENTS, "seatable": EdgeClient(["198.51.100.10/32"])}},
    "a client": {
        "clients": {**TWO_CLIENTS, "third": EdgeClient(["203.0.113.7/32"])},
        "client_keys": {**TWO_KEYS, "third": [key("t1")]},
    },
    "where it listens": {"bind": ["127.0.0.1:8081"]},
    "where the engine is": {"engine": "127.0.0.1:18001"},
}


@pytest.mark.parametrize("changed", list(GENERATIONS))
def test_the_generation_changes_with(changed: str) -> None:
    changes = {"client_keys": TWO_KEYS, **GENERATIONS[changed]}
    assert made(**changes).generation != made().generation


def test_no_two_of_these_changes_give_the_same_generation() -> None:
    seen = {made(**{"client_keys": TWO_KEYS, **changes}).generation for changes in GENERATIONS.values()}
    assert len(seen) == len(GENERATIONS)


def test_no_placeholder_is_left_in_the_configuration() -> None:
    assert "@" not in made().files[CONFIGURATION]


# What HAProxy itself says


def many_networks(count: int) -> list[str]:
    return [f"10.{n // 256}.{n % 256}.0/24" for n in range(count)]


TRIED: dict[str, dict[str, EdgeClient]] = {
    "one client": {"seatable": EdgeClient(["127.0.0.1/32"])},
    "two clients, IPv4 and IPv6": TWO_CLIENTS,
    "a client called engine": {"engine": EdgeClient(["127.0.0.1/32"])},
    "a client called found": {"found": EdgeClient(["127.0.0.1/32"])},
    "the longest name": {"a" * 31: EdgeClient(["127.0.0.1/32"])},
    "a name that ends in a dash": {"a-": EdgeClient(["127.0.0.1/32"])},
    "a client with 60 networks": {"seatable": EdgeClient(many_networks(60))},
    "a client with 500 networks": {"seatable": EdgeClient(many_networks(500))},
    "10 clients": {f"client-{n}": EdgeClient([f"10.0.{n}.0/24"]) for n in range(10)},
    "routes and web pages": CLIENTS,
    "100 clients": {f"client-{n}": EdgeClient([f"10.0.{n}.0/24"]) for n in range(100)},
}


@pytest.mark.parametrize("tried", list(TRIED))
def test_haproxy_takes_the_configuration_for(tried: str, program: str, tmp_path: Path) -> None:
    assert accepted(made(TRIED[tried]).files, program, tmp_path)


def test_haproxy_takes_the_configuration_with_tls_and_the_listener_without_keys(
    program: str, tmp_path: Path
) -> None:
    files = dict(made(CLIENTS, bind=tls_binds(443), loopback_port=18080).files)
    files[CONFIGURATION] = files[CONFIGURATION].replace(CERTIFICATES, str(tmp_path))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout",
         tmp_path / "key", "-out", tmp_path / "chain"],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / CERTIFICATE).write_text((tmp_path / "chain").read_text() + (tmp_path / "key").read_text())
    assert accepted(files, program, tmp_path)


def test_haproxy_refuses_what_it_does_not_understand(program: str, tmp_path: Path) -> None:
    files = dict(made().files)
    files[CONFIGURATION] += "    no-such-word\n"
    assert not accepted(files, program, tmp_path)


def accepted(files: Mapping[str, str], program: str, folder: Path) -> bool:
    """Whether HAProxy takes the files without a word of complaint."""
    for name, content in files.items():
        (folder / name).write_text(content)
    words = [program, "-c", "-f", str(folder / CONFIGURATION)]
    checked = subprocess.run(words, capture_output=True, text=True, check=False)
    printed = checked.stdout + checked.stderr
    return checked.returncode == 0 and not {"[WARNING]", "[ALERT]"} & set(printed.split())


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_haproxy_a_developer_reads_a_reason_and_ci_fails(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(outcome, match="apt-get install haproxy"):
        haproxy_here()


@pytest.mark.parametrize(
    ("tiers", "user", "here", "installed"),
    [
        ([], 0, False, True),
        (["unit"], 0, False, True),
        (["lint", "unit"], 0, False, True),
        (["lint"], 0, False, False),
        (["unit"], 1000, False, False),
        (["unit"], 0, True, False),
    ],
)
def test_scripts_test_installs_haproxy_for_root_and_no_service_of_it(
    tiers: list[str], user: int, here: bool, installed: bool, *, tmp_path: Path, fake_command: FakeCommand
) -> None:
    (tmp_path / "scripts").mkdir()
    text = (PROJECT / "scripts" / "_run").read_text()
    for place in ("/usr/sbin/haproxy", "/run/systemd/system"):
        text = text.replace(place, f"{tmp_path}{place}")
    (tmp_path / "scripts" / "_run").write_text(text)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    for name, printed in {"apt-get": "", "systemctl": "", "python": "", "id": user}.items():
        fake_command.add(name, f"echo {printed}" if printed != "" else "")
    programs = fake_command.folder / "bin"
    for name in ("bash", "sha256sum", "cmp", "dirname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    if here:
        fake_command.add("haproxy")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "test.txt").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(programs / "python")
    with (tmp_path / ".venv" / ".requirements").open("wb") as file:
        subprocess.run(["sha256sum", "requirements/test.txt"], cwd=tmp_path, stdout=file, check=True)
    run = ["bash", str(tmp_path / "scripts" / "_run"), "test", *tiers]
    done = subprocess.run(run, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    changes = [call for call in fake_command.calls if call[0] in ("apt-get", "systemctl")]
    masked, got = (
        ["systemctl", "mask", "--quiet", "haproxy.service"],
        ["apt-get", "install", "-y", "-qq", "haproxy"],
    )
    assert changes == ([masked, got] if installed else [])
    assert fake_command.calls[-1][0] == "python"
    assert fake_command.calls[-1][1:] == ["-m", "scripts.commands", "test", *tiers]


# TLS and the loopback listener


def test_with_tls_every_line_it_listens_on_has_a_certificate_and_no_other_is_there() -> None:
    binds = [line for line in directives("frontend", made(bind=tls_binds(443))) if line.startswith("bind ")]
    assert [line.split()[1] for line in binds] == ["0.0.0.0:443", "[::]:443"]
    for line in binds:
        assert f"ssl crt {CERTIFICATES}/{CERTIFICATE} alpn h2,http/1.1" in line
    assert IPV6_ONLY in binds[1].split()  # or both families would want the port twice
    assert IPV6_ONLY not in binds[0].split()


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    assert "ssl-default-bind-options ssl-min-ver TLSv1.2" in directives("global")


def test_without_a_loopback_port_there_is_one_frontend() -> None:
    assert [line for line in directives() if line.startswith("frontend ")] == ["frontend clients"]


def test_the_listener_without_keys_is_on_the_loopback_address_whatever_the_edge_listens_on() -> None:
    loopback = directives("frontend loopback", made(bind=tls_binds(443), loopback_port=18080))
    assert [line for line in loopback if line.startswith("bind ")] == ["bind 127.0.0.1:18080"]


def test_the_names_of_the_programs_own_clients_can_be_no_clients_of_a_stack() -> None:
    for name in (PROBER, TUNNEL):
        with pytest.raises(SettingsError):
            parse({"clients": {name: {"kind": "openai", "cidrs": ["127.0.0.1/32"]}}})


def test_the_gates_own_key_is_bound_to_the_machine_itself() -> None:
    files = made({**TWO_CLIENTS, PROBER: EdgeClient(FROM_THE_MACHINE_ITSELF)})
    assert f"acl client_{PROBER} src 127.0.0.1/32 ::1/128" in directives("frontend", files)
