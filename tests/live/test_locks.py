"""The three locks of a running edge: where from, which door, which key. Raw sockets where a client would tidy up.

What they do NOT prove: anything about TLS, IPv6 or addresses beyond the loopback (a `local` stack has none of
them), or that HAProxy has no fault that nobody has found yet. A trick counts as refused when vLLM's own log does
not show it and nothing of vLLM's came back; three routes (/health, /metrics, /ping) vLLM does not write down, so
for those it is the answer alone.
"""

from __future__ import annotations

import base64
import csv
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.haproxy import ROUTES
from tests.live import tricks
from tests.live.faults_support import serves
from tests.live.harness import LOOPBACK, Answer, Deployment, EngineRequest

ROWS = [
    (row["method"], row["route"].replace("{response_id}", "resp_1"), int(row["status_without_key"]))
    for row in csv.DictReader(
        (Path(__file__).parent / "data" / "routes_without_key.tsv").read_text().splitlines(), delimiter="\t"
    )
]

DOORS = [(method, path) for path, methods in ROUTES.items() for method in methods]

SWITCHED_OFF = ("/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc")
"""Routes of the table that the engine's own options take away."""

STRANGER = "127.0.0.3"
"""An address of no client."""
AGENTS = "127.0.0.2"
"""The address of the client `agents`."""


def is_door(request: EngineRequest) -> bool:
    """Whether this request may reach the engine."""
    path = request.path.partition("?")[0]
    return request.method in ROUTES.get(path, ())


def came_from_the_engine(answer: Answer) -> bool:
    """Whether vLLM has made this answer, and not the edge."""
    return "uvicorn" in answer.headers.get("server", "")


# --- which door


@pytest.mark.parametrize(("method", "path", "status"), ROWS)
def test_the_engine_itself_answers_each_row_of_the_table_as_it_says(
    deployment: Deployment, method: str, path: str, status: int
) -> None:
    """The table is about this engine: without this, the next test could pass on routes that nobody has."""
    answer = deployment.ask(method, path, body={} if method == "POST" else None, port=deployment.engine_port)
    assert answer.status == (404 if path in SWITCHED_OFF else status), answer.text


@pytest.mark.parametrize(("method", "path"), [row[:2] for row in ROWS])
def test_no_row_of_the_table_answers_through_the_edge_without_a_key(
    deployment: Deployment, method: str, path: str
) -> None:
    """Doors ask for the key, and the rest does not exist; the edge says both itself."""
    answer = deployment.ask(method, path, body={} if method == "POST" else None)
    assert answer.status == (401 if (method, path) in DOORS else 404), answer.text
    assert not came_from_the_engine(answer)


def test_the_rows_asked_through_the_edge_reach_only_the_doors_of_the_engine(deployment: Deployment) -> None:
    """The engine's own log says what arrived, whatever the answers looked like; also with a good key."""
    before = len(deployment.engine_requests())
    for key in (None, deployment.key()):
        for method, path, _ in ROWS:
            answer = deployment.ask(method, path, key=key, body={} if method == "POST" else None)
            assert (method, path) in DOORS or not came_from_the_engine(answer), (method, path)
    arrived = deployment.engine_requests()[before:]
    assert arrived, "nothing arrived at all: the log is not read rightly"
    assert not [request for request in arrived if not is_door(request)]
    assert serves(deployment, deployment.key()), "what was sent has put it out of order"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "QUERY", "get"]
)
def test_a_door_opens_for_its_own_method_alone(deployment: Deployment, method: str, path: str) -> None:
    """vLLM answers OPTIONS without asking for a key, for one."""
    for key in (None, deployment.key()):
        answer = deployment.ask(method, path, key=key)
        assert answer.status == 404, answer.text
        assert not came_from_the_engine(answer)


# --- which key


CLOSED = {
    "no header": "",
    "a key of nobody": "Authorization: Bearer {reversed}\r\n",
    "an empty header": "Authorization:\r\n",
    "the scheme alone": "Authorization: Bearer\r\n",
    "the scheme and a space": "Authorization: Bearer \r\n",
    "no scheme": "Authorization: {key}\r\n",
    "another scheme": "Authorization: Token {key}\r\n",
    "basic": "Authorization: Basic {basic}\r\n",
    "two spaces": "Authorization: Bearer  {key}\r\n",
    "a tab": "Authorization: Bearer\t{key}\r\n",
    "no space": "Authorization: Bearer{key}\r\n",
    "a word behind it": "Authorization: Bearer {key} x\r\n",
    "a comma behind it": "Authorization: Bearer {key},\r\n",
    "the key twice in one header": "Authorization: Bearer {key}, Bearer {key}\r\n",
    "a parameter": "Authorization: Bearer token={key}\r\n",
    "quotes": 'Authorization: Bearer "{key}"\r\n',
    "one letter less": "Authorization: Bearer {shorter}\r\n",
    "one letter more": "Authorization: Bearer {key}A\r\n",
    "the first letter alone": "Authorization: Bearer {first}\r\n",
    "other case": "Authorization: Bearer {swapped}\r\n",
    "a percent-encoded letter": "Authorization: Bearer {encoded}\r\n",
    "a client's name": "Authorization: Bearer seatable\r\n",
    "the name of the engine's entry": "Authorization: Bearer engine\r\n",
    "two headers, right one first": "Authorization: Bearer {key}\r\nAuthorization: Bearer x\r\n",
    "two headers, right one last": "Authorization: Bearer x\r\nAuthorization: Bearer {key}\r\n",
    "two headers, both right": "Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n",
    "an empty header and the right one": "Authorization:\r\nAuthorization: Bearer {key}\r\n",
    "x-api-key": "X-Api-Key: {key}\r\n",
    "api-key": "Api-Key: {key}\r\n",
    "a proxy's header": "Proxy-Authorization: Bearer {key}\r\n",
    "another header's name": "X-Authorization: Bearer {key}\r\n",
    "an underscore in the name": "Authorization_: Bearer {key}\r\n",
    "a cookie": "Cookie: authorization=Bearer {key}\r\n",
}
"""Headers that hold a right key in a wrong way, or none."""

OPEN = {
    "as documented": "Authorization: Bearer {key}\r\n",
    "scheme in small letters": "Authorization: bearer {key}\r\n",
    "scheme in capitals": "Authorization: BEARER {key}\r\n",
    "name in capitals": "AUTHORIZATION: Bearer {key}\r\n",
    "name in small letters": "authorization: Bearer {key}\r\n",
    "no space after the colon": "Authorization:Bearer {key}\r\n",
    "spaces before and behind": "Authorization:   Bearer {key}   \r\n",
    "tabs before and behind": "Authorization:\tBearer {key}\t\r\n",
}
"""Forms that HTTP says are the same (RFC 9110: names and schemes in any case, white space around a value)."""


def spelled(form: str, key: str) -> str:
    """A form with this key in it."""
    return form.format(
        key=key,
        reversed=key[::-1],
        basic=base64.b64encode(f"bearer:{key}".encode()).decode(),
        shorter=key[:-1],
        first=key[0],
        swapped=key.swapcase(),
        encoded=f"%{ord(key[0]):02x}{key[1:]}",
    )


def door_request(method: str, path: str, headers: str) -> bytes:
    """A whole request to a door with these header lines. Its body is one that the engine refuses with 400."""
    body = "{}" if method == "POST" else ""
    content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{content}{headers}\r\n{body}".encode()


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("form", CLOSED)
def test_a_door_stays_shut_without_one_whole_key_in_the_right_header(
    deployment: Deployment, form: str, method: str, path: str
) -> None:
    """The edge says 401 by itself, in OpenAI's form."""
    answer = deployment.exchange(door_request(method, path, spelled(CLOSED[form], deployment.key())))
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    assert b"no valid key" in answer


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("form", OPEN)
def test_a_door_opens_for_the_key_in_every_form_that_means_the_same(
    deployment: Deployment, form: str, method: str, path: str
) -> None:
    """Without this, the test above could pass because nothing ever gets through."""
    answer = deployment.exchange(door_request(method, path, spelled(OPEN[form], deployment.key())))
    assert answer.startswith(b"HTTP/1.1 200 " if method == "GET" else b"HTTP/1.1 400 "), answer


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_the_engines_own_key_is_worth_nothing_outside(deployment: Deployment, method: str, path: str) -> None:
    """It is the key that opens everything on the loopback port, so the edge must not pass it on."""
    key = deployment.engine_key()
    inside = deployment.ask(
        method, path, key=key, body={} if method == "POST" else None, port=deployment.engine_port
    )
    assert inside.status in (200, 400), "this is not the engine's key"
    for source, status in ((LOOPBACK, 401), (AGENTS, 401), (STRANGER, 403)):
        answer = deployment.ask(method, path, key=key, source=source, body={} if method == "POST" else None)
        assert answer.status == status, (source, answer.text)


# --- where from

FORGED = (
    "X-Forwarded-For", "X-Real-IP", "X-Client-IP", "Client-IP", "True-Client-IP", "CF-Connecting-IP",
    "X-Cluster-Client-IP", "X-Originating-IP", "X-Remote-Addr", "Via",
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("whose", ["seatable", "agents", "x" * 64, None], ids=["seatable", "agents", "x", "none"])
def test_an_address_of_no_client_is_refused_whatever_key_it_has(
    deployment: Deployment, whose: str | None, method: str, path: str
) -> None:
    """The address lock comes first, and says nothing about the key."""
    key = deployment.key(whose) if whose in ("seatable", "agents") else whose
    answer = deployment.ask(method, path, key=key, source=STRANGER, body={})
    assert (answer.status, came_from_the_engine(answer)) == (403, False)
    assert "this address is not allowed" in answer.text


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize(("whose", "source"), [("seatable", AGENTS), ("agents", LOOPBACK)])
def test_a_key_is_refused_from_the_address_of_another_client(
    deployment: Deployment, whose: str, source: str, method: str, path: str
) -> None:
    """Each key is bound to its client's networks, not to those of all clients together."""
    answer = deployment.ask(method, path, key=deployment.key(whose), source=source, body={})
    assert (answer.status, came_from_the_engine(answer)) == (403, False)
    assert "this key is not allowed from this address" in answer.text


@pytest.mark.parametrize(("whose", "source"), [("seatable", LOOPBACK), ("agents", AGENTS)])
def test_a_key_opens_from_its_own_clients_address(deployment: Deployment, whose: str, source: str) -> None:
    """The other half of the tests above."""
    assert deployment.ask("GET", "/v1/models", key=deployment.key(whose), source=source).status == 200


@pytest.mark.parametrize("header", FORGED)
def test_a_forged_header_does_not_change_the_address_a_request_comes_from(
    deployment: Deployment, header: str
) -> None:
    """Neither lets it a stranger in, nor does it lock a client out."""
    key = deployment.key()
    stranger = deployment.ask("GET", "/v1/models", key=key, source=STRANGER, headers={header: LOOPBACK})
    assert stranger.status == 403
    forwarded = {"Forwarded": f"for={LOOPBACK};host=x;proto=https"}
    assert deployment.ask("GET", "/v1/models", key=key, source=STRANGER, headers=forwarded).status == 403
    assert deployment.ask("GET", "/v1/models", key=key, headers={header: STRANGER}).status == 200


def test_a_proxy_line_before_the_request_does_not_change_its_address(deployment: Deployment) -> None:
    """The PROXY protocol names an address too; the edge does not speak it."""
    request = door_request("GET", "/v1/models", f"Authorization: Bearer {deployment.key()}\r\n")
    version_1 = f"PROXY TCP4 {LOOPBACK} {LOOPBACK} 1000 {deployment.edge_port}\r\n".encode()
    version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([127, 0, 0, 1, 127, 0, 0, 1, 3, 232, 31, 144])
    for line in (version_1, version_2):
        answer = deployment.exchange(line + request, source=STRANGER)
        assert not tricks.statuses(answer) or min(tricks.statuses(answer)) >= 400, answer


def test_both_ports_listen_on_the_loopback_address_alone(deployment: Deployment) -> None:
    """Whoever is on the same network must find nothing, not even a lock."""
    listening = "0A"  # TCP_LISTEN, in /proc/net/tcp
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == listening and int(port, 16) in (deployment.edge_port, deployment.engine_port):
                found.append((int(port, 16), address))
    loopback = "0100007F"  # as the kernel writes 127.0.0.1
    assert sorted(found) == sorted([(deployment.edge_port, loopback), (deployment.engine_port, loopback)])


# --- tricks


def play(deployment: Deployment, played: Sequence[tricks.Trick]) -> tuple[dict[str, bytes], list[EngineRequest]]:
    """Sends all of them; what came back by name, and what has arrived at the engine meanwhile."""
    before, containers = len(deployment.engine_requests()), deployment.containers()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda trick: trick.play(deployment.edge_port), played))
    arrived = deployment.engine_requests()[before:]
    assert deployment.containers() == containers, "a trick has ended one of them"
    assert serves(deployment, deployment.key()), "a trick has put it out of order"
    engine_key = deployment.engine_key().encode()
    assert not [trick.name for trick, answer in zip(played, answers, strict=True) if engine_key in answer]
    return {trick.name: answer for trick, answer in zip(played, answers, strict=True)}, arrived


def test_there_are_at_least_two_hundred_different_tricks() -> None:
    """A list that shrinks unnoticed proves nothing; two of the same count once."""
    names = Counter(trick.name for trick in tricks.tricks(None))
    assert [name for name, count in names.items() if count > 1] == []
    assert len({trick.data for trick in tricks.tricks(None)}) >= 200


@pytest.mark.parametrize("with_key", [False, True], ids=["without a key", "with a good key"])
def test_no_trick_with_path_method_or_framing_reaches_anything_but_a_door(
    deployment: Deployment, with_key: bool
) -> None:
    """Without a key no answer is a success; with one, nothing of the engine's but the doors answers."""
    played = tricks.tricks(deployment.key() if with_key else None)
    answers, arrived = play(deployment, played)
    assert not [request for request in arrived if not is_door(request)]
    assert bool(arrived) == with_key, (
        "without a key nothing may arrive; with one, else the log is not read rightly"
    )
    wrong = {}
    for trick in played:
        statuses, engine = tricks.statuses(answers[trick.name]), tricks.from_engine(answers[trick.name])
        if (not with_key and any(200 <= status < 300 for status in statuses)) or (engine and not trick.at_a_door):
            wrong[trick.name] = answers[trick.name][:300]
    assert not wrong


def test_the_tricks_are_sent_in_a_form_that_the_edge_understands(deployment: Deployment) -> None:
    """The same requests, aimed rightly: were the forms themselves broken, their refusal would prove nothing."""
    controls = list(tricks.controls(deployment.key()))
    answers, _ = play(deployment, controls)
    shut = {name: answer[:300] for name, answer in answers.items() if 200 not in tricks.statuses(answer)}
    assert not shut
