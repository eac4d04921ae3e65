"""TLS for real: certificates from a private CA, given files and an ACME CA, in an edge that many addresses reach.

One test deploys a whole stack with a domain and vLLM. The others run the same certificate program and the same
edge in front of a fast upstream. Clients have addresses of their own, IPv4 and IPv6, in network namespaces.

What this does NOT prove: anything about Let's Encrypt itself or AWS's rights (see `acme_support.py`), and that
systemd runs the timer: there is none on the machines that tests run on, so `renew` is called as it would be.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog.haproxy import (
    CERTIFICATES,
    DIRECTORY,
    FROM_THE_MACHINE_ITSELF,
    PROBER,
    TUNNEL,
    EdgeClient,
    edge_files,
    tls_binds,
)
from catalog.images import HAPROXY, LEGO
from checks import endpoint
from components.certificates import Known, certificate_program
from components.edge import CAPABILITIES, release_program
from components.renewal import aws_credentials
from images.obtain import obtain
from scripts.commands.bench_edge import upstream
from settings import Domain
from tests.live.acme_support import ZONE, Lab, Pebble, acme_lab, pebble
from tests.live.conftest import MakeStack
from tests.live.harness import LOOPBACK, Checkout, docker_client, free_ports, pace, wait_until

HOST = f"llm.{ZONE}"

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


# --- an edge with a certificate, and nothing but a fast upstream behind it


@dataclass
class TlsEdge:
    """What one data directory holds: a certificate by the product's program, and an edge that shows it."""

    data: Path
    port: int
    name: str
    host: str = HOST
    keys: dict[str, str] = field(default_factory=dict)
    loopback_port: int | None = None

    @property
    def live(self) -> Path:
        """The file that the edge reads."""
        return self.data / "certificates" / "live" / "edge.pem"

    def program(self, domain: Domain, known: Known | None = None) -> str:
        """The program that `up` runs on the machine."""
        return certificate_program(
            domain, known or Known(), data_dir=str(self.data), edge=self.name, port=self.port, unit="none"
        )

    def certify(self, domain: Domain, known: Known | None = None) -> subprocess.CompletedProcess[str]:
        """Runs it, as a machine does."""
        return subprocess.run(
            ["bash", "-s"], input=self.program(domain, known), capture_output=True, text=True, check=False
        )

    def facts(self, domain: Domain, known: Known | None = None) -> dict[str, str]:
        """Runs it, and what it says in its last line."""
        done = self.certify(domain, known)
        assert done.returncode == 0, done.stdout + done.stderr
        facts: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return facts

    def renew(self) -> subprocess.CompletedProcess[str]:
        """What the timer runs, with a certificate that is due."""
        return subprocess.run(
            [self.data / "certificates" / "renew", "--force"], capture_output=True, text=True, check=True
        )

    def release(self, clients: dict[str, list[str]], engine: int, image: str) -> None:
        """Lays down the edge's files by the product's program; each client gets a key."""
        self.keys = {name: self.keys.get(name) or secrets.token_hex(32) for name in clients}
        files = edge_files(
            clients={name: EdgeClient(cidrs) for name, cidrs in clients.items()},
            client_keys={name: [key] for name, key in self.keys.items()},
            engine_key=secrets.token_hex(32),
            bind=tls_binds(self.port),
            engine=f"{LOOPBACK}:{engine}",
            loopback_port=self.loopback_port,
        )
        program = release_program(str(self.data / "edge"), files, image, str(self.live.parent))
        done = subprocess.run(["bash", "-s"], input=program, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def running(self, image: str) -> Iterator[None]:
        """Its container, as components/edge.py makes it."""
        container = docker_client().containers.create(
            image,
            ["haproxy", "-W", "-db", "-f", f"{DIRECTORY}/live/haproxy.cfg"],
            name=self.name,
            network_mode="host",
            user="0:0",
            cap_drop=["ALL"],
            cap_add=list(CAPABILITIES),
            read_only=True,
            volumes={
                str(self.data / "edge"): {"bind": DIRECTORY, "mode": "ro"},
                str(self.live.parent): {"bind": CERTIFICATES, "mode": "ro"},
            },
            labels={"seatable-vllm.port": str(self.port), "seatable-vllm.certificates": str(self.live.parent)},
        )
        try:
            container.start()
            wait_until(lambda: _listens(self.port), "the edge")
            yield
        finally:
            container.remove(force=True)

    def target(self, client: str, ca: str) -> endpoint.Target:
        """The endpoint as the gate or a check sees it."""
        url = f"https://{self.host}:{self.port}/v1"
        return endpoint.Target(url, self.keys.get(client, ""), "fast", 8192, tools=False, address=LOOPBACK, ca=ca)

    def log(self) -> str:
        """What the edge wrote."""
        return str(docker_client().containers.get(self.name).logs().decode(errors="replace"))


def shown_certificate(port: int, address: str = LOOPBACK) -> bytes:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, port), timeout=pace.of(10)) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def _listens(port: int) -> bool:
    with socket.socket() as each:
        return each.connect_ex((LOOPBACK, port)) == 0


# --- clients with addresses of their own


@dataclass(frozen=True)
class Place:
    """A network namespace: a computer with one IPv4 and one IPv6 address, and a way to this one."""

    name: str
    number: int

    @property
    def addresses(self) -> tuple[str, str]:
        """Its own."""
        return f"10.213.{self.number}.2", f"fd5e:a7ab:1e:{self.number}::2"

    @property
    def networks(self) -> list[str]:
        """The same, as a client's networks."""
        return [f"{self.addresses[0]}/32", f"{self.addresses[1]}/128"]

    def ask(self, edge: TlsEdge, ca: Path, key: str, family: int, *more: str) -> tuple[int, str]:
        """Status and body of GET /v1/models from there."""
        gateway = (f"10.213.{self.number}.1", f"[fd5e:a7ab:1e:{self.number}::1]")[family]
        form = ["curl", "-sS", "-m", "20", "-K", "-", "--cacert", str(ca), "-w", "\n%{http_code}"]
        url = f"https://{edge.host}:{edge.port}/v1/models"
        resolve = ["--resolve", f"{edge.host}:{edge.port}:{gateway}"]
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *form, *resolve, *more, url],
            input=f'header = "Authorization: Bearer {key}"',
            capture_output=True,
            text=True,
            check=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def places() -> Iterator[list[Place]]:
    """Three computers: two clients, and somebody else."""
    made = [Place(f"sv-{os.getpid()}-{number}", number) for number in range(1, 4)]
    with contextlib.ExitStack() as stack:
        for place in made:
            host, inside = f"sv{os.getpid()}-{place.number}", f"svi{os.getpid()}-{place.number}"
            _ip("netns", "add", place.name)
            stack.callback(_ip, "netns", "del", place.name)
            _ip("link", "add", host, "type", "veth", "peer", "name", inside, "netns", place.name)
            for family, (ours, theirs) in enumerate(
                ((f"10.213.{place.number}.1/24", f"10.213.{place.number}.2/24"),
                 (f"fd5e:a7ab:1e:{place.number}::1/64", f"fd5e:a7ab:1e:{place.number}::2/64"))
            ):  # fmt: skip
                nodad = ["nodad"] * family
                _ip("addr", "add", ours, "dev", host, *nodad)
                _ip("-n", place.name, "addr", "add", theirs, "dev", inside, *nodad)
            _ip("link", "set", host, "up")
            _ip("-n", place.name, "link", "set", inside, "up")
        yield made


@pytest.fixture(scope="module")
def haproxy_image() -> str:
    """The edge's image."""
    return obtain(HAPROXY, print)


@pytest.fixture(scope="module")
def fast_upstream() -> Iterator[int]:
    """The port of something that answers at once."""
    with upstream() as port:
        yield port


@pytest.fixture(scope="module")
def edge(
    tmp_path_factory: pytest.TempPathFactory, places: list[Place], haproxy_image: str, fast_upstream: int
) -> Iterator[TlsEdge]:
    """An edge with a private CA; its clients are two of the places, the gate's own, and this computer."""
    port, loopback = free_ports(2)
    made = TlsEdge(
        tmp_path_factory.mktemp("tls"), port, f"seatable-vllm-tls-{os.getpid()}", loopback_port=loopback
    )
    made.facts(PRIVATE)
    clients = {
        "seatable": places[0].networks,
        "agents": places[1].networks,
        "here": ["127.0.0.2/32"],
        PROBER: list(FROM_THE_MACHINE_ITSELF),
    }
    made.release(clients, fast_upstream, haproxy_image)
    with made.running(haproxy_image):
        yield made


PRIVATE = Domain(host=HOST, tls="private-ca")


@pytest.fixture
def ca(edge: TlsEdge) -> Path:
    """What its clients trust."""
    return edge.data / "certificates" / "ca.pem"


# --- where from


@pytest.mark.beside
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_each_client_is_let_in_from_its_own_address_alone_whatever_it_claims(
    edge: TlsEdge, ca: Path, places: list[Place], family: int
) -> None:
    seatable, agents, stranger = places
    assert seatable.ask(edge, ca, edge.keys["seatable"], family)[0] == 200
    assert agents.ask(edge, ca, edge.keys["agents"], family)[0] == 200
    status, body = agents.ask(edge, ca, edge.keys["seatable"], family)
    assert (status, "this key is not allowed from this address" in body) == (403, True)
    for claim in ([], ["-H", f"X-Forwarded-For: {seatable.addresses[family]}"],
                  ["-H", f"Forwarded: for={seatable.addresses[0]}"]):  # fmt: skip
        status, body = stranger.ask(edge, ca, edge.keys["seatable"], family, *claim)
        assert (status, "this address is not allowed" in body) == (403, True)
    # Each was seen with its own address, not with that of a gateway.
    wait_until(lambda: f"{stranger.addresses[family]} client=-" in edge.log(), "the stranger in the log")
    assert f"\n{seatable.addresses[family]} client=seatable" in edge.log()


@pytest.mark.beside
def test_the_gates_own_key_works_on_the_machine_and_nowhere_else(
    edge: TlsEdge, ca: Path, places: list[Place]
) -> None:
    target = edge.target(PROBER, ca.read_text())
    assert "clients need its CA" in endpoint.certificate_is_valid(target)
    assert endpoint.ask(target, "GET", "/v1/models", key=target.key).status == 200
    for place in places:
        for family in (0, 1):
            assert place.ask(edge, ca, target.key, family)[0] == 403


@pytest.mark.beside
def test_without_the_ca_or_under_another_name_the_certificate_is_refused(edge: TlsEdge, ca: Path) -> None:
    with pytest.raises(endpoint.Untrusted, match="refused"):
        endpoint.certificate_is_valid(edge.target(PROBER, ""))
    other = endpoint.Target(
        f"https://other.{ZONE}:{edge.port}/v1", "", "fast", 1, tools=False, address=LOOPBACK, ca=ca.read_text()
    )
    with pytest.raises(endpoint.Untrusted, match=r"(?i)hostname"):
        endpoint.ask(other, "GET", "/v1/models", key=None)


@pytest.mark.beside
def test_the_loopback_listener_asks_for_no_key_and_is_nobody_elses(edge: TlsEdge, places: list[Place]) -> None:
    def ask(method: str, path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection(LOOPBACK, edge.loopback_port, timeout=pace.of(20))
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            return connection.getresponse().status

    assert ask("GET", "/v1/models") == 200
    assert ask("GET", "/metrics") == 404
    assert ask("GET", "/v1/models", authorization=f"Bearer {edge.keys['seatable']}") == 403
    wait_until(lambda: f"client={TUNNEL} " in edge.log(), "the loopback client in the log")
    outside = f"http://10.213.{places[0].number}.1:{edge.loopback_port}/v1/models"
    form = ["ip", "netns", "exec", places[0].name, "curl", "-sS", "-m", "5", outside]
    done = subprocess.run(form, capture_output=True, text=True, check=False)
    assert "onnect" in done.stderr
    assert done.returncode == 7, done.stderr  # refused


# --- TLS itself


@pytest.mark.beside
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_of_tls_are_refused_by_the_edge(edge: TlsEdge, version: ssl.TLSVersion) -> None:
    with pytest.warns(DeprecationWarning, match="TLS"), pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        _handshake(edge.port, version)


@pytest.mark.beside
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_present_versions_of_tls_are_spoken_with_http_2_and_1(edge: TlsEdge, version: ssl.TLSVersion) -> None:
    assert _handshake(edge.port, version) == "h2"
    assert _handshake(edge.port, version, "http/1.1") == "http/1.1"


def _handshake(port: int, version: ssl.TLSVersion, *protocols: str) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would not even offer the old ones
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(list(protocols) or ["h2", "http/1.1"])
    with (
        socket.create_connection((LOOPBACK, port), timeout=pace.of(10)) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.selected_alpn_protocol()


@pytest.mark.beside
def test_plain_http_is_never_served_at_the_port_of_tls(edge: TlsEdge) -> None:
    key = edge.keys[PROBER]
    request = f"GET /v1/models HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {key}\r\n\r\n"
    with socket.create_connection((LOOPBACK, edge.port), timeout=pace.of(10)) as plain:
        plain.sendall(request.encode())
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := plain.recv(65536):
                received += piece
    assert b"HTTP" not in received
    assert b"fast" not in received


@pytest.mark.beside
def test_doors_keys_and_streams_hold_over_http_2(edge: TlsEdge, ca: Path) -> None:
    with _client(edge, ca, http2=True) as client:
        for method, path, status in (("GET", "/v1/models?x=1", 200), ("GET", "/metrics", 404),
                                     ("GET", "//v1/models", 404), ("DELETE", "/v1/models", 404)):  # fmt: skip
            answer = client.request(method, path)
            assert (answer.http_version, answer.status_code) == ("HTTP/2", status), path
        other = {"authorization": f"Bearer {edge.keys['seatable']}"}
        assert client.get("/v1/models", headers=other).status_code == 403
        body = {"model": "fast", "max_tokens": 50, "stream": True}
        events = [line for line in client.post("/v1/chat/completions", json=body).text.splitlines() if line]
    assert len(events) == 51
    assert events[-1] == "data: [DONE]"


def test_a_refusal_reaches_curl_over_http_2_each_time_though_it_overtakes_the_question(
    edge: TlsEdge, ca: Path
) -> None:
    """Of fifty, several came as a cancelled stream without the wait. A body over 16 KB is not waited for."""
    where = [f"{HOST}:{edge.port}:{LOOPBACK}", "--interface", "127.0.0.2", "--cacert", str(ca), "--http2"]
    form = ["curl", "-sS", "-K", "-", "--resolve", *where, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
    wrong_place = f'header = "Authorization: Bearer {edge.keys["seatable"]}"\ndata = "{"a" * 300}"\n'
    for path, status in (("/metrics", 404), ("/v1/chat/completions", 403)):
        for _ in range(25):
            command = [*form, f"https://{HOST}:{edge.port}{path}"]
            done = subprocess.run(command, input=wrong_place, capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr) == (f"2 {status}", "")


def _client(edge: TlsEdge, ca: Path, *, http2: bool) -> httpx.Client:
    """From 127.0.0.2, the address of the client `here`."""
    transport = httpx.HTTPTransport(
        verify=ssl.create_default_context(cafile=str(ca)), http2=http2, local_address="127.0.0.2"
    )
    return httpx.Client(
        transport=_Named(transport, edge.port),
        base_url=f"https://{edge.host}:{edge.port}",
        headers={"authorization": f"Bearer {edge.keys['here']}"},
        timeout=pace.of(60),
    )


class _Named(httpx.BaseTransport):
    """Sends what is for a name to 127.0.0.1, and asks for the name's certificate there."""

    def __init__(self, inner: httpx.HTTPTransport, port: int) -> None:
        self._inner, self._port = inner, port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = request.url.host
        request.url = request.url.copy_with(host=LOOPBACK)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


# --- renewal


@pytest.mark.beside
def test_a_renewal_fails_no_request_and_cuts_no_stream_and_new_connections_see_it(edge: TlsEdge, ca: Path) -> None:
    before, container = shown_certificate(edge.port), docker_client().containers.get(edge.name)
    outcomes: list[str] = []
    stop = threading.Event()

    def load(how: str) -> None:
        with _client(edge, ca, http2=False) as kept:
            while not stop.is_set():
                if how == "fresh":
                    with _client(edge, ca, http2=False) as fresh:
                        outcomes.append(_outcome(fresh))
                elif how == "kept":
                    outcomes.append(_outcome(kept))
                else:
                    asked = _curl(edge, ca, "/v1/models", "-o", "/dev/null", "-w", "%{http_code} %{http_version}")
                    outcomes.append(asked.communicate()[0] or "no answer")

    # httpx takes the polite GOAWAY of a reload for an error; curl, like Go, lets its stream run on.
    # Twenty seconds, so that a busy computer too is through with the renewal before the end.
    body = json.dumps({"model": "fast", "max_tokens": 400, "gap_ms": 50, "stream": True})
    over_http_2 = _curl(edge, ca, "/v1/chat/completions", "-N", "-d", body, "-w", "%{http_version}")
    events: list[str] = []

    def stream() -> None:
        with (
            _client(edge, ca, http2=False) as client,
            client.stream("POST", "/v1/chat/completions", content=body) as answer,
        ):
            events.extend(line for line in answer.iter_lines() if line)

    threads = [threading.Thread(target=stream)]
    threads += [threading.Thread(target=load, args=[how]) for how in ("fresh", "kept", "HTTP/2")]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: {"200", "200 2"} <= set(outcomes) and events, "load and a stream")
        done = edge.renew()
        sent_by_then = len(outcomes)
        assert events[-1] != "data: [DONE]", "the stream was over too soon"
        assert over_http_2.poll() is None, "the stream over HTTP/2 was over too soon"
        wait_until(lambda: len(outcomes) > sent_by_then + 50, "requests after the renewal")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "the edge shows this certificate" in done.stdout
    assert set(outcomes) == {"200", "200 2"}
    assert (len(events), events[-1]) == (401, "data: [DONE]")
    *lines, version = [line for line in over_http_2.communicate()[0].splitlines() if line]
    assert (len(lines), lines[-1], version) == (401, "data: [DONE]", "2")
    assert shown_certificate(edge.port) != before
    assert endpoint.certificate_is_valid(edge.target(PROBER, ca.read_text()))
    container.reload()
    assert container.attrs["RestartCount"] == 0
    assert container.status == "running"


def _curl(edge: TlsEdge, ca: Path, path: str, *more: str) -> subprocess.Popen[str]:
    """A request over HTTP/2 from 127.0.0.2, in the background."""
    form = ["curl", "-sS", "--http2", "-K", "-", "--cacert", str(ca), "--interface", "127.0.0.2", *more]
    resolve = ["--resolve", f"{edge.host}:{edge.port}:{LOOPBACK}"]
    process = subprocess.Popen(
        [*form, *resolve, f"https://{edge.host}:{edge.port}{path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(f'header = "Authorization: Bearer {edge.keys["here"]}"')
    process.stdin.close()
    process.stdin = None  # or communicate() would close it again
    return process


def _outcome(client: httpx.Client) -> str:
    try:
        return str(client.get("/v1/models").status_code)
    except httpx.HTTPError as error:
        return repr(error)


@pytest.mark.beside
def test_a_certificate_that_is_not_due_is_left_as_it_is(edge: TlsEdge) -> None:
    before = edge.live.read_bytes()
    assert edge.facts(PRIVATE)["ca"].startswith("-----BEGIN CERTIFICATE-----")
    assert edge.live.read_bytes() == before
    assert edge.live.stat().st_mode & 0o777 == 0o600


# --- given files


def _self_signed(folder: Path, name: str, host: str, *dates: str) -> tuple[str, str]:
    """Certificate and key in PEM for this host. dates: begin and end as openssl's `ca` reads them, or none."""
    key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    run: list[str | Path] = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
           "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout", key]  # fmt: skip
    if not dates:
        subprocess.run([*run, "-x509", "-days", "90", "-out", certificate], check=True, capture_output=True)
        return certificate.read_text(), key.read_text()
    subprocess.run([*run, "-out", request], check=True, capture_output=True)
    (folder / "index.txt").write_text("")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index.txt\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n"
        f"new_certs_dir={folder}\ncopy_extensions=copy\n[p]\ncommonName=supplied\n"
    )
    subprocess.run(
        ["openssl", "ca", "-batch", "-selfsign", "-config", folder / "ca.cnf", "-keyfile", key, "-in", request,
         "-out", certificate, "-notext", "-startdate", dates[0], "-enddate", dates[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate.read_text(), key.read_text()


FILES = Domain(host=HOST, tls="files", certificate="c.pem", key="k.pem")


@pytest.mark.beside
def test_wrong_files_are_refused_in_words_that_name_the_setting_and_change_nothing(tmp_path: Path) -> None:
    good = _self_signed(tmp_path, "good", HOST)
    other = _self_signed(tmp_path, "other", "www.example.org")
    old = _self_signed(tmp_path, "old", HOST, "20200101000000Z", "20210101000000Z")
    young = _self_signed(tmp_path, "young", HOST, "20990101000000Z", "20991231000000Z")
    made = TlsEdge(tmp_path / "data", 1, "none")
    facts = made.facts(FILES, Known(certificate=good[0], key=good[1]))
    assert facts["ca"].strip() == good[0].strip()
    before = made.live.read_bytes()
    for pair, words in (
        (other, ("seatable-vllm:domain.certificate is not for", "www.example.org", "seatable-vllm:domain.host")),
        (old, ("seatable-vllm:domain.certificate has ended on", "2021")),
        (young, ("seatable-vllm:domain.certificate is not valid before", "2099")),
        ((good[0], other[1]), ("seatable-vllm:domain.key is not the key of seatable-vllm:domain.certificate",)),
        (("-----BEGIN nothing", good[1]), ("seatable-vllm:domain.certificate holds no certificate",)),
        ((good[0], "-----BEGIN nothing"), ("seatable-vllm:domain.key holds no private key",)),
    ):
        done = made.certify(FILES, Known(certificate=pair[0], key=pair[1]))
        assert done.returncode != 0, words
        assert "phase: certificate\ncause: " in done.stderr
        for word in words:
            assert word in done.stderr
        assert good[1].splitlines()[1] not in done.stdout + done.stderr
        assert made.live.read_bytes() == before


# --- ACME


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Route 53, DNS, and lego that knows them."""
    with acme_lab(obtain(LEGO, print), tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture
def acme_edge(tmp_path: Path) -> TlsEdge:
    """A data directory without anything yet."""
    return TlsEdge(tmp_path / "data", free_ports(1)[0], f"seatable-vllm-acme-{os.getpid()}")


def acme_domain(ca: Pebble, tls: Any = "acme-dns", **more: Any) -> Domain:
    # No other resolver has this zone, as behind a split DNS.
    zone = {"zone": ZONE, "resolvers": [f"{LOOPBACK}:{ca.dns}"]} if tls == "acme-dns" else {}
    return Domain(
        host=HOST,
        tls=tls,
        acme_email="ops@example.org",
        acme_server=ca.directory,
        acme_ca="roots.pem",
        **{**zone, **more},
    )


@dataclass
class Watch:
    """Everything that can be seen of processes and containers while something runs."""

    texts: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.texts.append(process.read_text(errors="replace"))
            for container in docker_client().containers.list(
                filters={"name": "seatable-vllm-acme"}, ignore_removed=True
            ):
                self.texts.append(json.dumps(container.attrs))


@pytest.mark.beside
def test_a_certificate_comes_by_dns_is_kept_and_renewed_and_the_aws_secret_is_never_seen(
    acme_edge: TlsEdge, lab: Lab, tmp_path: Path, haproxy_image: str, fast_upstream: int
) -> None:
    secret = secrets.token_hex(20)
    with pebble(tmp_path / "pebble", lab.dns) as ca:
        known = Known(image=lab.image, roots=ca.roots, credentials=aws_credentials("AKIAEXAMPLE", secret))
        domain = acme_domain(ca, zone_id=lab.zone_id)
        begin = time.monotonic()
        with Watch() as watch:
            first = acme_edge.certify(domain, known)
        assert first.returncode == 0, first.stdout + first.stderr
        print(f"certificate after {time.monotonic() - begin:.1f} s")
        seen = "\n".join(watch.texts)
        assert f"{acme_edge.name}-lego" in seen, "the watch did not see lego"
        assert secret not in seen + first.stdout + first.stderr
        assert not [path for path in acme_edge.data.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        before = acme_edge.live.read_bytes()

        acme_edge.release({PROBER: list(FROM_THE_MACHINE_ITSELF)}, fast_upstream, haproxy_image)
        for _ in range(2):  # the second one in another container
            with acme_edge.running(haproxy_image):
                endpoint.ask(acme_edge.target(PROBER, ca.roots), "GET", "/v1/models", key=acme_edge.keys[PROBER])
                assert acme_edge.facts(domain, known)["ca"] == ca.roots
                assert acme_edge.live.read_bytes() == before
        assert (tmp_path / "pebble" / "pebble.log").read_text().count("Issued certificate") == 1

        with acme_edge.running(haproxy_image):
            assert "the edge shows this certificate" in acme_edge.renew().stdout
            assert endpoint.certificate_is_valid(acme_edge.target(PROBER, ca.roots))
        assert acme_edge.live.read_bytes() != before


@pytest.mark.beside
def test_without_the_zones_id_the_zone_is_found_by_its_name(acme_edge: TlsEdge, lab: Lab, tmp_path: Path) -> None:
    with pebble(tmp_path / "pebble", lab.dns) as ca:
        known = Known(image=lab.image, roots=ca.roots, credentials=aws_credentials("AKIAEXAMPLE", "x" * 40))
        assert acme_edge.facts(acme_domain(ca), known)["host"] == HOST


@pytest.mark.beside
def test_a_certificate_comes_by_port_80(acme_edge: TlsEdge, lab: Lab, tmp_path: Path) -> None:
    with socket.socket() as wanted:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            wanted.bind(("", 80))  # as lego does: somebody on any one address is in its way
        except OSError:
            pytest.skip("port 80 of this computer is taken")
    with pebble(tmp_path / "pebble", lab.dns, http_port=80) as ca:
        facts = acme_edge.facts(acme_domain(ca, "acme-http"), Known(image=lab.image, roots=ca.roots))
    assert facts["host"] == HOST


@pytest.mark.beside
def test_a_refusal_of_the_ca_is_explained_with_its_cause(acme_edge: TlsEdge, lab: Lab, tmp_path: Path) -> None:
    # Its DNS server is one that does not have the proof: nobody answers there.
    with pebble(tmp_path / "pebble", free_ports(1)[0]) as ca:
        secret = secrets.token_hex(20)
        known = Known(image=lab.image, roots=ca.roots, credentials=aws_credentials("AKIAEXAMPLE", secret))
        domain = acme_domain(ca, zone_id=lab.zone_id, resolvers=[f"{LOOPBACK}:{lab.dns}"])
        done = acme_edge.certify(domain, known)
        assert done.returncode != 0
        told = done.stderr.splitlines()
        assert told[-4:-2] == [
            "phase: certificate",
            "cause: the CA asked for the proof under this name and did not find it",
        ], done.stderr
        assert told[-2].startswith("change: ")
        assert told[-1].startswith("seen: ")
        assert "urn:ietf:params:acme:error" in told[-1]
        assert secret not in done.stdout + done.stderr
        assert not acme_edge.live.exists()
    unreached = acme_edge.certify(domain, known)
    assert "cause: the ACME server or Route 53 cannot be reached from the machine" in unreached.stderr


# --- the whole stack


def test_a_stack_with_a_domain_is_proved_over_https_and_keeps_its_certificate(
    make_stack: MakeStack, checkout: Checkout, tmp_path: Path
) -> None:
    clients = {
        "seatable": {"kind": "seatable", "cidrs": ["198.51.100.10/32", "2001:db8::10/128"]},
        "agents": {"kind": "openai", "cidrs": ["127.0.0.1/32", "::1/128"]},
    }
    stack = make_stack("tls", {"domain": {"host": "localhost", "tls": "private-ca"}, "clients": clients})
    up = stack.up()
    assert "certificate is valid: not publicly trusted" in up.stdout + up.stderr
    assert wait_until(lambda: f"client={PROBER} " in stack.log(stack.edge), "the gate in the log")
    outputs = stack.outputs()
    assert outputs["endpoint"] == f"https://localhost:{stack.edge_port}/v1"
    assert outputs["certificate"].keys() == {"host", "issuer", "not_after"}
    before = shown_certificate(stack.edge_port)

    # What a user is told to do: keep the CA, run the line.
    (tmp_path / "seatable-vllm-ca.pem").write_text(stack.output("ca_certificate"))
    line = outputs["clients"]["agents"]["curl"]
    asked = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout)["choices"][0]["message"]["content"]
    # SeaTable AI calls it so, with the variable that its text names.
    program = (
        "import litellm, sys; base, key, model = sys.stdin.read().split(); print(litellm.completion("
        "model=f'hosted_vllm/{model}', api_base=base, api_key=key, max_tokens=4,"
        " messages=[{'role': 'user', 'content': 'hi'}]).usage.completion_tokens)"
    )
    for ca, works in (("seatable-vllm-ca.pem", True), ("/etc/ssl/certs/ca-certificates.crt", False)):
        called = subprocess.run(
            [sys.executable, "-c", program],
            input=f"{outputs['endpoint']} {outputs['clients']['agents']['key']} {outputs['model']}",
            env={**os.environ, "SSL_CERT_FILE": ca, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (called.returncode == 0 and called.stdout.split()[-1] == "4") == works, (
            called.stdout + called.stderr
        )
        assert works or "CERTIFICATE_VERIFY_FAILED" in called.stderr
    checked = checkout.run("check", stack.stack, "--client", "agents")
    assert checked.returncode == 0, checked.stdout + checked.stderr

    again = stack.up()
    assert "nothing changed" in again.stdout + again.stderr
    docker_client().containers.get(stack.edge).remove(force=True)
    stack.up()
    assert shown_certificate(stack.edge_port) == before

    certificates = stack.data_dir / "certificates"
    ca_key = next((certificates / "ca").glob("*.key")).read_text().splitlines()[1]
    edge_key = (certificates / "live" / "edge.pem").read_text().partition("PRIVATE KEY-----\n")[2].splitlines()[0]
    state = json.loads((stack.state_dir / "rehearsal.json").read_text())
    prober = next(made["outputs"]["result"] for made in state["made"] if made["name"] == "keys-prober")
    inspected = json.dumps([docker_client().containers.get(each).attrs for each in (stack.edge, stack.engine)])
    public = inspected + up.stdout + up.stderr + stack.log(stack.edge) + stack.log(stack.engine)
    for hidden in (ca_key, edge_key, prober):
        assert hidden not in public + json.dumps(outputs)
