"""Unit tier: the edge's files as text: the order of its locks, where keys are, and when they change.

Where HAProxy is on PATH it also says whether it would take them (`haproxy -c`, which binds and sends nothing).
It does NOT prove that a lock holds against a request: that is asked of a running HAProxy in the live tier.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from catalog import haproxy
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
    ROUTES,
    TUNNEL,
    EdgeClient,
    EdgeFiles,
    edge_files,
    tls_binds,
)
from settings import SettingsError, parse

DOORS = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
}
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


def position(pattern: str, section: str = "frontend") -> int:
    """Where the one directive that matches stands."""
    (found,) = [n for n, line in enumerate(directives(section)) if re.search(pattern, line)]
    return found


# The three locks


def test_the_locks_stand_in_the_order_address_then_door_then_key() -> None:
    address = position(r"txn.refusal,ifnotexists\) '403 .* unless from_any$", "frontend clients")
    door = position(r"txn.refusal,ifnotexists\) '404 .* unless ", "frontend clients")
    bound = [
        position(rf"txn.refusal,ifnotexists\) '403 .*-m str {name} \}} !client_{name}$") for name in TWO_CLIENTS
    ]
    no_key = position(r"txn.refusal,ifnotexists\) '401 .* unless \{ var\(txn.client\) -m found \}$")
    taken_away = position(r"^http-request del-header authorization$")
    engine_key = position(r"^http-request set-header authorization")
    passed_on = position(r"^use_backend")
    assert address < door < min(bound) <= max(bound) < no_key < taken_away < engine_key < passed_on


def test_a_key_that_no_client_has_is_taken_away_and_replaced_by_nothing() -> None:
    frontend = directives("frontend")
    touching = [line for line in frontend if "header authorization" in line]
    assert touching[0] == "http-request del-header authorization"
    assert len(touching) == 2
    assert touching[1].endswith("if { var(txn.client) -m found }")


def test_a_client_is_known_by_one_bearer_key_alone() -> None:
    (lookup,) = [line for line in directives("frontend") if "set-var(txn.client)" in line]
    conditions = lookup.rpartition(" if ")[2].split()
    acls = {line.split()[1]: line for line in directives("frontend") if line.startswith("acl ")}
    assert any("fhdr_cnt(authorization) eq 1" in acls[name] for name in conditions)
    assert any("^Bearer" in acls[name] for name in conditions)


@pytest.mark.parametrize("name", list(TWO_CLIENTS))
def test_every_client_is_bound_to_all_of_its_own_addresses_and_to_no_other(name: str) -> None:
    (acl,) = [line for line in directives("frontend") if line.startswith(f"acl client_{name} ")]
    assert acl.split()[2:] == ["src", *TWO_CLIENTS[name].cidrs]


def test_nothing_is_passed_on_by_any_other_way_than_the_three_locks() -> None:
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


def test_the_doors_are_the_ones_of_the_design_with_their_methods() -> None:
    assert {(method, path) for path, methods in ROUTES.items() for method in methods} == DOORS


@pytest.mark.parametrize("row", ROUTES_OF_VLLM.splitlines())
def test_no_route_of_vllm_is_a_door_unless_it_is_listed_as_one(row: str) -> None:
    _, method, path = row.split()
    is_door = method in ROUTES.get(path, ())
    assert is_door == ((method, path) in DOORS)


@pytest.mark.parametrize("row", [row for row in ROUTES_OF_VLLM.splitlines() if not row.startswith("401")])
def test_no_route_that_answers_without_a_key_is_named_in_the_configuration(row: str) -> None:
    path = row.split()[2]
    # The edge's own question to the engine is no door for a client.
    named = [line for line in directives() if not line.startswith("option httpchk ")]
    assert not re.search(rf"(?<![\w/]){re.escape(path)}(?![\w/])", "\n".join(named))


def test_each_door_is_compared_letter_for_letter_and_with_its_methods_alone() -> None:
    (door,) = [line for line in directives("frontend") if " '404 " in line and " unless " in line]
    condition = door.rpartition(" unless ")[2]
    alternatives = condition.split(" or ")
    assert sorted(alternatives) == sorted(
        f"{{ path -m str {path} }} {{ method {' '.join(methods)} }}" for path, methods in ROUTES.items()
    )


def test_the_engine_gets_no_claims_of_a_client_about_where_it_comes_from() -> None:
    frontend = directives("frontend")
    assert "http-request del-header forwarded" in frontend
    assert any(re.match(r"http-request del-header x-\S* -m beg", line) for line in frontend)


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


def test_no_log_line_can_hold_a_key() -> None:
    formats = [line for line in directives() if line.startswith(("log-format", "capture", "http-request capture"))]
    assert len(formats) == 1
    for leak in ("hdr", "%hr", "%hs", "%r", "%HU", "%HQ", "query", "capture", "authorization"):
        assert leak not in formats[0]


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH")
def test_a_path_is_logged_as_it_was_asked_for_and_never_as_two_words(tmp_path: Path) -> None:
    (log_format,) = [line for line in directives() if line.startswith("log-format")]
    place = tmp_path / "s"
    configuration = tmp_path / "one.cfg"
    configuration.write_text(
        "global\n log stdout format raw local0\ndefaults\n mode http\n log global\n timeout client 5s\n"
        f"frontend one\n bind unix@{place}\n http-request set-var(txn.path) path\n {log_format}\n"
        " http-request return status 204\n"
    )
    asked = [b"/v1/chat/completions", b'/a"b\\c', b"/\\/x", b"/a\x7fb", b"/a%0Ab"]
    with subprocess.Popen(
        ["haproxy", "-db", "-f", configuration], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        assert running.stdout
        try:
            logged = [_logged(path, place, running.stdout) for path in asked]
        finally:
            running.terminate()
    assert logged == [b"/v1/chat/completions", b'/a"b\\c', b"/\\/x", b"/a?b", b"/a%0Ab"]


def _logged(path: bytes, place: Path, log: IO[bytes]) -> bytes:
    """The path in the line that HAProxy logs of a request for it."""
    deadline = time.monotonic() + 20
    while not place.exists():
        assert time.monotonic() < deadline, "HAProxy does not start"
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 204")
    words = log.readline().split()
    assert words[2] == b"GET"
    assert len(words) == 10, words
    return words[3]


def test_requests_are_logged_with_the_client_they_belong_to() -> None:
    (log_format,) = [line for line in directives() if line.startswith("log-format")]
    assert "txn.client" in log_format


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


# Routes and web pages of single clients

OPENED = {
    "seatable": EdgeClient(["198.51.100.10/32"], ["responses"], ["https://x.example", "http://localhost:3000"]),
    "agents-2": EdgeClient(["198.51.100.0/28"], ["responses", "embeddings"]),
    "third": EdgeClient(["203.0.113.7/32"]),
}


@pytest.mark.parametrize(("path", "names"), [("responses", "seatable agents-2"), ("embeddings", "agents-2")])
def test_a_route_is_a_door_of_the_clients_alone_that_name_it(path: str, names: str) -> None:
    lines = directives("frontend", made(OPENED))
    (door,) = [line for line in lines if " '404 " in line and " unless " in line]
    assert f"{{ path -m str /v1/{path} }} {{ method POST }}" in door
    (bound,) = [line for line in lines if f"if {{ path -m str /v1/{path} }}" in line]
    assert bound.endswith(f"!{{ var(txn.client) -m str {names} }}")


def test_a_route_that_no_client_names_is_nowhere() -> None:
    assert not re.search(r"/v1/(responses|embeddings)", made().files[CONFIGURATION])


def test_a_web_page_is_let_in_from_its_clients_networks_alone_and_never_to_the_listener_without_keys() -> None:
    files = made(OPENED, loopback_port=18080)
    (origin,) = [line for line in directives("frontend clients", files) if "set-var(txn.origin)" in line]
    assert origin.endswith(
        "if client_seatable { req.fhdr(origin) -m str https://x.example http://localhost:3000 }"
    )
    assert not [line for line in directives("frontend loopback", files) if "txn.origin" in line]
    assert "origin" not in "".join(line for line in directives() if "del-header" not in line)


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
    "where it listens": {"bind": "127.0.0.1:8081"},
    "where the engine is": {"engine": "127.0.0.1:18001"},
}


@pytest.mark.parametrize("changed", list(GENERATIONS))
def test_the_generation_changes_with(changed: str) -> None:
    changes = {"client_keys": TWO_KEYS, **GENERATIONS[changed]}
    assert made(**changes).generation != made().generation


def test_no_two_of_these_changes_give_the_same_generation() -> None:
    seen = {made(**{"client_keys": TWO_KEYS, **changes}).generation for changes in GENERATIONS.values()}
    assert len(seen) == len(GENERATIONS)


def test_the_generation_is_told_in_every_answer_and_says_nothing_of_a_key() -> None:
    files = made()
    assert re.fullmatch(r"[0-9a-f]{12}", files.generation)
    (line,) = [line for line in directives("frontend", files) if haproxy.GENERATION_HEADER in line]
    assert line == f"http-after-response set-header {haproxy.GENERATION_HEADER} {files.generation}"


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
    "routes and web pages": OPENED,
    "100 clients": {f"client-{n}": EdgeClient([f"10.0.{n}.0/24"]) for n in range(100)},
}


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH")
@pytest.mark.parametrize("tried", list(TRIED))
def test_haproxy_takes_the_configuration_for(tried: str, tmp_path: Path) -> None:
    for name, content in made(TRIED[tried]).files.items():
        (tmp_path / name).write_text(content)
    checked = subprocess.run(
        ["haproxy", "-c", "-f", str(tmp_path / CONFIGURATION)], capture_output=True, text=True, check=False
    )
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    assert "[WARNING]" not in said
    assert "[ALERT]" not in said


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


def test_the_loopback_listener_has_the_same_doors_and_key_rules_and_is_never_public() -> None:
    files = made(bind=tls_binds(443), loopback_port=18080)
    edge, loopback = directives("frontend clients", files), directives("frontend loopback", files)
    assert [line for line in loopback if line.startswith("bind ")] == ["bind 127.0.0.1:18080"]
    ours = r"acl key_of_ours req.fhdr(authorization) -m reg -i ^Bearer\ [A-Za-z0-9]{64}$"
    keyless = f"http-request set-var(txn.client) str({TUNNEL}) unless key_of_ours"
    assert loopback.count(keyless) == 1
    assert keyless not in edge
    # Before the header is taken away, or everybody would have sent none.
    assert loopback.index(keyless) < loopback.index("http-request del-header authorization")
    assert set(loopback) - set(edge) == {"frontend loopback", "bind 127.0.0.1:18080", ours, keyless}
    assert any("'404 " in line for line in loopback)
    assert any("'401 " in line for line in loopback)


def test_the_names_of_the_programs_own_clients_can_be_no_clients_of_a_stack() -> None:
    for name in (PROBER, TUNNEL):
        with pytest.raises(SettingsError):
            parse({"clients": {name: {"kind": "openai", "cidrs": ["127.0.0.1/32"]}}})


def test_the_gates_own_key_is_bound_to_the_machine_itself() -> None:
    files = made({**TWO_CLIENTS, PROBER: EdgeClient(FROM_THE_MACHINE_ITSELF)})
    assert f"acl client_{PROBER} src 127.0.0.1/32 ::1/128" in directives("frontend", files)
