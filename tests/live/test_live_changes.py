"""Keys, addresses and clients change under a running edge: nothing restarts, nothing that runs is disturbed.

What this does NOT prove: that a change goes unnoticed under any load (200 requests and one stream run through each
of them here; `scripts/bench` sends more), or anything about changes that do make a new engine, such as another
model.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from catalog.haproxy import GENERATION_HEADER
from tests.live.harness import CLIENTS, LOOPBACK, Answer, Deployment, Stream, pace, send, wait_until

AGENTS = "127.0.0.2"
"""The address of the client `agents`."""
ANOTHER = "127.0.0.4"
"""An address of no client, until a test gives it to one."""

REQUESTS = 200
"""Sent from the beginning of a change on, at the least."""
STREAM_TOKENS = 40
"""Of each stream; two run at any time, so a short one spans the moment of a change as well."""
PAUSE_SECONDS = 0.05
"""Between two requests of a thread: without it, the load takes the cores that the change and the streams need."""


# A thread of the load that ends early must not pass for one that has seen nothing wrong.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@dataclass(frozen=True)
class Sent:
    """One request of the load: how it was sent, and its status, or the error in its place."""

    how: str
    outcome: str
    generation: str
    ended_at: float


class Load:
    """Requests all the time: over fresh connections, over kept ones (httpx, as `openai` does), completions."""

    def __init__(self, deployment: Deployment, client: str, source: str) -> None:
        self._deployment, self._key, self._source = deployment, deployment.key(client), source
        self._stop = threading.Event()
        self._sent: list[Sent] = []
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._fresh, self._kept, self._kept, self._completions)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        try:
            wait_until(lambda: len({sent.how for sent in self.sent}) == 3, "an answer to each kind of request")
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> list[Sent]:
        """Everything that has had its outcome so far."""
        return list(self._sent)

    def _note(self, how: str, ask: Callable[[], tuple[int, str]]) -> None:
        try:
            status, generation = ask()
            outcome = str(status)
        except (OSError, http.client.HTTPException, httpx.HTTPError) as error:
            outcome, generation = repr(error), ""
        self._sent.append(Sent(how, outcome, generation, time.monotonic()))
        self._stop.wait(PAUSE_SECONDS)

    def _fresh(self) -> None:
        def ask() -> tuple[int, str]:
            return _told(self._deployment.ask("GET", "/v1/models", key=self._key, source=self._source))

        while not self._stop.is_set():
            self._note("fresh connection", ask)

    def _kept(self) -> None:
        transport = httpx.HTTPTransport(local_address=self._source)
        headers = {"authorization": f"Bearer {self._key}"}
        with httpx.Client(transport=transport, headers=headers, timeout=pace.of(60)) as client:

            def ask() -> tuple[int, str]:
                answer = client.get(f"{self._deployment.base_url}/models")
                return answer.status_code, answer.headers.get(GENERATION_HEADER, "")

            while not self._stop.is_set():
                self._note("kept connection", ask)

    def _completions(self) -> None:
        body = self._deployment.chat("Say OK.", max_tokens=2)

        def ask() -> tuple[int, str]:
            path = "/v1/chat/completions"
            return _told(self._deployment.ask("POST", path, key=self._key, source=self._source, body=body))

        while not self._stop.is_set():
            self._note("completion", ask)


def _told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers.get(GENERATION_HEADER, "")


class Streams:
    """Streams of one client, two at any time, until they are no longer let in or no longer wanted."""

    def __init__(self, deployment: Deployment, key: str, source: str) -> None:
        self._deployment, self._key, self._source = deployment, key, source
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(2)]
        self.all: list[Stream] = []

    def begin(self) -> Streams:
        """Returns when one of them runs."""
        for thread in self._threads:
            thread.start()
        wait_until(lambda: any(stream.events for stream in self.all), "the begin of a stream")
        return self

    def end(self) -> None:
        """Begins no more, and waits for those that run."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            stream = Stream(self._deployment, self._key, STREAM_TOKENS, self._source)
            self.all.append(stream)
            stream.begin()
            wait_until(lambda stream=stream: stream.ended, "the end of a stream", seconds=600)  # type: ignore[misc]
            if stream.status != http.client.OK:
                return


@contextlib.contextmanager
def nothing_is_disturbed(
    deployment: Deployment,
    *,
    client: str = "seatable",
    source: str = LOOPBACK,
    leaving: tuple[str, str, int] | None = None,
) -> Iterator[None]:
    """Runs a change under load and beside streams; AssertionError if one of them is hurt, or a container restarts.

    client, source: who sends the load and the streams; it must be welcome before and after. leaving: key and
    address of one that is not after the change, and the status it gets then; the streams are its own.
    """
    containers = deployment.containers()
    key, address, refused = leaving or (deployment.key(client), source, None)
    streams = Streams(deployment, key, address)
    with Load(deployment, client, source) as load:
        try:
            streams.begin()
            before = len(load.sent)
            yield
            wait_until(lambda: len(load.sent) - before >= REQUESTS, f"{REQUESTS} requests")
        finally:
            streams.end()
    old = load.sent[0].generation
    failed = Counter((sent.how, sent.outcome) for sent in load.sent if sent.outcome != "200")
    assert not failed, f"of {len(load.sent)} requests: {failed}"
    changed = [sent.ended_at for sent in load.sent if sent.generation != old]
    assert changed, "no answer came from a new configuration: nothing has changed"
    through = 0
    for stream in streams.all:
        if refused and stream.status == refused:
            continue
        stream.whole()
        through += stream.headers[GENERATION_HEADER] == old and stream.ended_at > min(changed)
    assert through, "no stream began before the change and ended after it"
    assert deployment.containers() == containers


def status(deployment: Deployment, key: str, source: str = LOOPBACK) -> int:
    """What a door says to this key from this address."""
    return deployment.ask("GET", "/v1/models", key=key, source=source).status


@pytest.fixture
def changing(deployment: Deployment) -> Iterator[Deployment]:
    """The shared deployment, with the clients it had before put back at the end."""
    yield deployment
    if deployment.settings["clients"] != CLIENTS:
        generations = {
            client: numbers
            for client, numbers in deployment.settings.get("key_generations", {}).items()
            if client in CLIENTS
        }
        deployment.configure(clients=dict(CLIENTS), key_generations=generations or None)
        deployment.up()


@pytest.fixture
def rotated(changing: Deployment) -> tuple[Deployment, str]:
    """The deployment with a second key of `seatable`, and the first one."""
    old = changing.key("seatable")
    changing.rotate_key("seatable")
    return changing, old


def test_a_clients_next_key_is_valid_beside_the_old_one_and_nothing_restarts(changing: Deployment) -> None:
    """The first half of a rotation; the client itself is busy meanwhile."""
    old = changing.key("seatable")
    with nothing_is_disturbed(changing):
        changing.rotate_key("seatable")
    new = changing.key("seatable")
    assert new != old
    assert [status(changing, key) for key in (old, new)] == [200, 200]
    changing.rotate_key("seatable", "--finish")


def test_a_finished_rotation_ends_the_old_key_but_no_stream_that_runs_under_it(
    rotated: tuple[Deployment, str],
) -> None:
    """The second half; the load has the new key, the stream began with the old one."""
    deployment, old = rotated
    with nothing_is_disturbed(deployment, leaving=(old, LOOPBACK, 401)):
        deployment.rotate_key("seatable", "--finish")
    assert [status(deployment, key) for key in (old, deployment.key("seatable"))] == [401, 200]


def test_an_address_that_is_added_is_let_in_and_nothing_restarts(changing: Deployment) -> None:
    """The client itself is busy meanwhile, from its old address."""
    assert status(changing, changing.key("agents"), ANOTHER) == 403
    with nothing_is_disturbed(changing, client="agents", source=AGENTS):
        agents = {"kind": "openai", "cidrs": [f"{AGENTS}/32", f"{ANOTHER}/32"]}
        changing.configure(clients={**CLIENTS, "agents": agents})
        changing.up()
    assert [status(changing, changing.key("agents"), source) for source in (AGENTS, ANOTHER)] == [200, 200]


def test_an_address_that_is_taken_away_is_shut_out_but_no_stream_to_it_is_cut(changing: Deployment) -> None:
    """The stream goes to the address that loses its right."""
    key = changing.key("agents")
    with nothing_is_disturbed(changing, leaving=(key, AGENTS, 403)):
        changing.configure(clients={**CLIENTS, "agents": {"kind": "openai", "cidrs": [f"{ANOTHER}/32"]}})
        changing.up()
    assert changing.key("agents") == key, "another address is no reason for another key"
    assert [status(changing, key, source) for source in (AGENTS, ANOTHER)] == [403, 200]


def test_a_client_that_is_added_gets_a_key_and_nothing_restarts(changing: Deployment) -> None:
    """The others keep their keys."""
    before = {client: changing.key(client) for client in CLIENTS}
    with nothing_is_disturbed(changing):
        changing.configure(clients={**CLIENTS, "another": {"kind": "openai", "cidrs": [f"{ANOTHER}/32"]}})
        changing.up()
    assert status(changing, changing.key("another"), ANOTHER) == 200
    assert {client: changing.key(client) for client in CLIENTS} == before


def test_a_client_that_is_removed_is_shut_out_but_no_stream_of_it_is_cut(changing: Deployment) -> None:
    """Its key is worth nothing from any address; the others keep theirs."""
    changing.configure(clients={**CLIENTS, "another": {"kind": "openai", "cidrs": [f"{ANOTHER}/32"]}})
    changing.up()
    gone = changing.key("another")
    before = {client: changing.key(client) for client in CLIENTS}
    with nothing_is_disturbed(changing, leaving=(gone, ANOTHER, 403)):
        changing.configure(clients=dict(CLIENTS))
        changing.up()
    assert [status(changing, gone, source) for source in (ANOTHER, AGENTS, LOOPBACK)] == [403, 401, 401]
    assert "another" not in changing.outputs()["clients"]
    assert {client: changing.key(client) for client in CLIENTS} == before


def test_a_kept_connection_is_not_hung_up_on_by_a_change(changing: Deployment) -> None:
    """Whoever sends in the moment of the hanging up gets no answer, and HTTP clients do not all ask again."""
    key = changing.key("seatable")
    connection = http.client.HTTPConnection(LOOPBACK, changing.edge_port, timeout=pace.of(60))
    with contextlib.closing(connection):
        assert send(connection, "GET", "/v1/models", key=key).status == 200
        kept = connection.sock
        changing.rotate_key("agents")
        changing.rotate_key("agents", "--finish")
        assert send(connection, "GET", "/v1/models", key=key).status == 200
        assert kept is not None
