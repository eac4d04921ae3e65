"""What the live tests stand on: a copy of this checkout, stacks in it, and requests to what they deploy.

A test never touches the checkout it is run from: its stacks live in a copy of the working tree, under names and
ports of their own, and leave nothing behind. What this does NOT stand for: the Pulumi CLI. Everything here goes
through `scripts/up STACK --rehearse`; `tests/engine` has the same stacks under the real one.

Interface: `Checkout` (run a script), `Deployment` (one stack: up, down, edit, ask, look at its containers),
`exchange` (bytes over a socket, as they are), `Stream` (a completion being streamed in the background),
`wait_until` (in place of every sleep), `pace` (how much longer than it says a wait may be).
The fixtures are in `conftest.py`.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import docker
import yaml

from components.machine.local_docker import local_docker_host

PROJECT = Path(__file__).resolve().parent.parent.parent

NAMESPACE = "seatable-vllm"
STACK_LABEL = "seatable-vllm.stack"

UP_SECONDS = 1500
"""Patience for an `up`: on a machine that has nothing yet, the images are made first. See `Pace`."""

REQUEST_SECONDS = 180

OWN_PORTS = range(20000, 30000)
"""Below those that Linux picks for itself (net.ipv4.ip_local_port_range)."""

LOOPBACK = "127.0.0.1"

CLIENTS: Mapping[str, Any] = {
    "seatable": {"kind": "seatable", "cidrs": ["127.0.0.1/32"]},
    "agents": {"kind": "openai", "cidrs": ["127.0.0.2/32"]},
}
"""The clients of a stack unless a test says otherwise. A socket bound to 127.0.0.2 is seen with that address.

In the file they stand by name, as the Pulumi CLI hands maps over: `agents` is the first."""

Seen = TypeVar("Seen")

_LOG_MARK = "written-down"

_LOGGED_REQUEST = re.compile(r'INFO: +([0-9.]+):\d+ - "(\S+) (.*) HTTP/[0-9.]+" (\d{3})')


_DEFAULT_ROUTE = """
import socket
routes = [line.split() for line in open("/proc/net/route")]
(gateway,) = (bytes.fromhex(route[2])[::-1] for route in routes if route[1] == "00000000")
print(socket.inet_ntoa(gateway))
"""


ENGINE_START_SECONDS = 25
"""From the start of the engine's container to its first answer, on two cores that do nothing else."""

UNIT_SECONDS = 0.6
"""What `Pace.measure` runs, on the same."""

SLOWEST_PACE = 10


class Pace:
    """How many times as long as two idle cores this computer needs; every wait of live tests is as much longer.

    Observed where an engine starts, which is what most waits are for, and measured where a wait has run out: the
    computer may be busier than it was, and some sessions start no engine. The slowest of a session counts.
    """

    factor = 1.0

    def of(self, seconds: float) -> float:
        """What is `seconds` on two idle cores."""
        return seconds * self.factor

    def ran_out(self, begin: float, seconds: float) -> bool:
        """Whether a wait that began at this `time.monotonic` has taken longer than it may."""
        if time.monotonic() - begin < self.of(seconds):
            return False
        self.measure()
        return time.monotonic() - begin > self.of(seconds)

    def engine_started(self, seconds: float) -> None:
        """Notes how long an engine needed from its container's start to its first answer."""
        self._observed(seconds / ENGINE_START_SECONDS)

    def measure(self) -> None:
        """Notes how long a Python needs to start and to import what the program stands on."""
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", "import docker, httpx, pydantic, yaml"], check=True)
        self._observed((time.monotonic() - begin) / UNIT_SECONDS)

    def _observed(self, factor: float) -> None:
        self.factor = max(self.factor, min(factor, SLOWEST_PACE))


pace = Pace()


def wait_until(condition: Callable[[], Seen], what: str, seconds: float = 120) -> Seen:
    """Asks until the answer is true, and returns it; AssertionError naming `what` when time runs out.

    seconds: on two idle cores, see `Pace`.
    """
    begin = time.monotonic()
    while not (seen := condition()):
        assert not pace.ran_out(begin, seconds), f"not within {pace.of(seconds):.0f} s: {what}"
        time.sleep(0.1)
    return seen


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on now, and that the kernel gives to nobody's outgoing connection."""
    found: set[int] = set()
    while len(found) < count:
        port = random.choice(OWN_PORTS)  # noqa: S311 - so that two sessions do not take the same
        with socket.socket() as each, contextlib.suppress(OSError):
            each.bind(("", port))
            found.add(port)
    return list(found)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names in small letters."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Container:
    """A container as `docker inspect` reports it. Two that are equal are the same run of the same container."""

    id: str
    started_at: str
    restarts: int
    status: str


@dataclass(frozen=True)
class EngineRequest:
    """A request that arrived at vLLM from outside its container, as it wrote it down."""

    method: str
    path: str
    status: int


class Checkout:
    """A copy of the working tree as `git clone` makes one: readable by everyone, without ignored files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        form = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(form, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            source, target = PROJECT / name, path / name
            if source.is_file():  # one that git knows may have been deleted here
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        (path / ".venv").symlink_to(PROJECT / ".venv")

    def run(
        self,
        script: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        umask: int = -1,
        seconds: float = UP_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Runs `scripts/SCRIPT ARGUMENTS` to its end.

        environment: added to this process's own. umask: in place of this process's own, unless it is -1.
        """
        return subprocess.run(
            [f"scripts/{script}", *arguments],
            cwd=self.path,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=pace.of(seconds),
            umask=umask,
            check=False,
        )

    @contextlib.contextmanager
    def start(self, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The same in the background, in a process group of its own.

        The block ends or awaits it. Where the block fails, it is killed with all that it has started: its lock
        and its containers would be in the next test's way.
        """
        with subprocess.Popen(
            # Whoever runs the tests in the background has Ctrl-C ignored, and all that is started inherits that.
            ["env", "--default-signal=INT", f"scripts/{script}", *arguments],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise


class Deployment:
    """One stack of a checkout, deployed by rehearsal.

    `settings` is what its file says, without the namespace; set keys in it with `configure`, or edit `stack_file`
    itself.
    """

    how: tuple[str, ...] = ("--rehearse",)
    """What `scripts/up` and its relatives are told besides the stack."""

    _numbers = itertools.count(1)

    def __init__(self, checkout: Checkout, suffix: str, settings: Mapping[str, Any] | None = None) -> None:
        self.checkout = checkout
        self.stack = f"t{os.getpid()}-{next(self._numbers)}-{suffix}"
        edge, engine = free_ports(2)
        self.stack_file = checkout.path / f"Pulumi.{self.stack}.yaml"
        ports = {"edge": edge, "engine": engine}
        self.write({"ports": ports, "clients": dict(CLIENTS), **(settings or {})})
        self._outputs: dict[str, Any] | None = None

    # --- its file and its commands

    @property
    def settings(self) -> dict[str, Any]:
        """What the stack's file says now."""
        config = yaml.safe_load(self.stack_file.read_text())["config"]
        return {key.partition(":")[2]: value for key, value in config.items()}

    def write(self, settings: Mapping[str, Any]) -> None:
        """Makes the stack's file say exactly this; by rename, as others may be reading it."""
        part = self.stack_file.with_suffix(".part")
        part.write_text(
            yaml.safe_dump({"config": {f"{NAMESPACE}:{key}": value for key, value in settings.items()}})
        )
        part.replace(self.stack_file)

    def configure(self, **settings: Any) -> None:
        """Sets keys of the stack's file, or removes those given as None; `up` brings them into force."""
        self.write({key: value for key, value in (self.settings | settings).items() if value is not None})

    def up(self, *, passes: bool | None = True) -> subprocess.CompletedProcess[str]:
        """`scripts/up STACK`, see `how`. passes: whether it must end with status 0; None: either."""
        self._outputs = None
        begin = datetime.now(UTC)
        done = self.checkout.run("up", self.stack, *self.how)
        if passes is not None:
            assert (done.returncode == 0) == passes, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        if done.returncode == 0:
            self.observe_start(since=begin)
        return done

    def observe_start(self, since: datetime) -> None:
        """Tells `pace` how long the engine needed, if an `up` that began then, and is over now, has started it."""
        started = datetime.fromisoformat(self.container(self.engine).started_at)
        if started > since:
            pace.engine_started((datetime.now(UTC) - started).total_seconds())

    def rotate_key(self, client: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`scripts/rotate-key CLIENT --stack STACK ARGUMENTS`, see `how`. It must end with status 0."""
        self._outputs = None
        done = self.checkout.run("rotate-key", client, "--stack", self.stack, *self.how, *arguments)
        assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def output(self, *arguments: str) -> str:
        """What `scripts/output STACK ARGUMENTS` prints."""
        done = self.checkout.run("output", self.stack, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def forget_outputs(self) -> None:
        """For a test that has changed the stack by a script of its own."""
        self._outputs = None

    def outputs(self) -> dict[str, Any]:
        """Every output of the stack by name, secrets opened, as of the last `up` or `rotate_key`."""
        if self._outputs is None:
            self._outputs = json.loads(self.output("--json", "--show-secrets"))
        return dict(self._outputs or {})

    def purge(self) -> None:
        """`scripts/down STACK --purge`, then the stack's file. Whatever `down` leaves is removed, and an error."""
        done = self.checkout.run("down", self.stack, "--purge")
        left = self._remove_leftovers()
        self.stack_file.unlink(missing_ok=True)
        assert done.returncode == 0, f"scripts/down ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not left, f"scripts/down left {left}"

    def _remove_leftovers(self) -> list[str]:
        label = {"label": f"{STACK_LABEL}={self.stack}"}
        client = docker_client()
        containers = client.containers.list(all=True, filters=label, ignore_removed=True)
        networks = client.networks.list(filters=label)
        for container in containers:
            container.remove(force=True)
        for network in networks:
            network.remove()
        return [str(item.name) for item in (*containers, *networks)]

    # --- its endpoint

    @property
    def edge_port(self) -> int:
        """Where clients connect, on 127.0.0.1."""
        return int(self.settings["ports"]["edge"])

    @property
    def engine_port(self) -> int:
        """Where vLLM answers the edge, on 127.0.0.1."""
        return int(self.settings["ports"]["engine"])

    @property
    def base_url(self) -> str:
        """What clients are told."""
        return f"http://{LOOPBACK}:{self.edge_port}/v1"

    def key(self, client: str = "seatable") -> str:
        """The client's newest key."""
        return str(self.outputs()["clients"][client]["key"])

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        source: str = LOOPBACK,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> Answer:
        """One request over a connection of its own, to the edge unless a port is given. path: from the root."""
        connection = http.client.HTTPConnection(
            LOOPBACK, port or self.edge_port, timeout=pace.of(REQUEST_SECONDS), source_address=(source, 0)
        )
        with contextlib.closing(connection):
            return send(connection, method, path, key=key, body=body, headers=headers)

    def exchange(self, data: bytes, *, source: str = LOOPBACK, seconds: float = 20) -> bytes:
        """Sends these bytes to the edge as they are; everything that came back. See the function `exchange`."""
        return exchange(self.edge_port, data, source=source, seconds=seconds)

    def chat(self, content: str, **options: Any) -> dict[str, Any]:
        """The body of a chat completion for the stack's model."""
        model = self.settings.get("model", {}).get("name", "HuggingFaceTB/SmolLM2-135M-Instruct")
        return {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, **options}

    # --- what it is made of

    @property
    def engine(self) -> str:
        """Name of vLLM's container."""
        return f"seatable-vllm-{self.stack}-engine"

    @property
    def edge(self) -> str:
        """Name of HAProxy's container."""
        return f"seatable-vllm-{self.stack}-edge"

    @property
    def network(self) -> str:
        """Name of the engine's network."""
        return f"seatable-vllm-{self.stack}"

    @property
    def state_dir(self) -> Path:
        """Where the rehearsal keeps its state and, below `data`, the stack its files."""
        return self.checkout.path / ".state" / self.stack

    @property
    def data_dir(self) -> Path:
        """Weights, caches and configuration, as the containers see them."""
        return Path(self.settings.get("machine", {}).get("data_dir") or self.state_dir / "data")

    def engine_key(self) -> str:
        """The key that vLLM itself asks for; nobody outside may ever use it."""
        return str(yaml.safe_load((self.data_dir / "vllm" / "config.yaml").read_text())["api-key"][0])

    def container(self, name: str) -> Container:
        """The state of one of its containers now."""
        attributes = docker_client().containers.get(name).attrs
        state = attributes["State"]
        return Container(attributes["Id"], state["StartedAt"], attributes["RestartCount"], state["Status"])

    def containers(self) -> dict[str, Container]:
        """The state of both; equal to an earlier one when neither was restarted or made again in between."""
        return {name: self.container(name) for name in (self.engine, self.edge)}

    def log(self, name: str) -> str:
        """Everything that the container has written so far."""
        return str(docker_client().containers.get(name).logs().decode(errors="replace"))

    def engine_requests(self) -> list[EngineRequest]:
        """Every request that has reached vLLM from outside its container so far, oldest first.

        The health check's come from inside, and vLLM is told not to write down /health, /metrics and /ping:
        for those three use `engine_counter`. The engine must be serving: it is asked something itself, since
        what is answered before that has then been written down too.
        """
        mark = f"{_LOG_MARK}={next(self._numbers)}"
        self.ask("GET", f"/v1/models?{mark}", port=self.engine_port)
        log = wait_until(lambda: text if f"{mark} " in (text := self.log(self.engine)) else "", "a line in a log")
        found = _LOGGED_REQUEST.findall(log)
        return [
            EngineRequest(method, path, int(status))
            for address, method, path, status in found
            if address != LOOPBACK and _LOG_MARK not in path
        ]

    def engine_counter(self, *handlers: str) -> float:
        """How many requests vLLM says it has answered on these routes; it does not count refused keys."""
        text = self.ask("GET", "/metrics", port=self.engine_port).text
        lines = re.findall(r'^http_requests_total\{handler="([^"]*)".*\} (\S+)$', text, re.MULTILINE)
        return sum(float(count) for handler, count in lines if handler in handlers)


def docker_client() -> Any:
    """A client for this computer's Docker, found as the program finds it."""
    return docker.DockerClient(base_url=local_docker_host(), timeout=round(pace.of(120)))


def send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    *,
    key: str | None = None,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over this connection, which stays open."""
    sent = {"content-type": "application/json", **(headers or {})}
    if key is not None:
        sent["authorization"] = f"Bearer {key}"
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


def exchange(port: int, data: bytes, *, source: str = LOOPBACK, seconds: float = 20) -> bytes:
    """Sends bytes over one connection and returns what came back until the end.

    The end is the other side's hanging up, so give it `Connection: close` where the request can carry it. To one
    that is silent for half of `seconds` it is said that no more will come: earlier the edge would take that for
    leaving, and end a request that it is about to answer.
    """
    received = bytearray()
    with socket.create_connection(
        (LOOPBACK, port), timeout=pace.of(seconds), source_address=(source, 0)
    ) as connection:
        # A side that has seen enough may hang up before it has read everything.
        with contextlib.suppress(OSError):
            connection.sendall(data)
        connection.settimeout(seconds / 2)
        for ends in (True, False):
            with contextlib.suppress(OSError):
                while piece := connection.recv(65536):
                    received += piece
                break
            if ends:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
    return bytes(received)


def address_from_containers(image: str) -> str:
    """This computer's address as a container in Docker's default network reaches it. image: one with python3.

    A container is asked: `docker network inspect` lists no gateway as long as the daemon that made the network has
    not been started again, and other networks may have another address than the first of their subnet.
    """
    ask = ["docker", "run", "--rm", "--entrypoint", "python3", image, "-c", _DEFAULT_ROUTE]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def garbage_waits() -> Iterator[None]:
    """Collects no garbage before the end of the block, and then all of it.

    LiteLLM may drop a stream before its end. Python finds it at some later moment, and closing it takes a lock of
    httpcore that the same thread may hold just then: it would wait for itself for ever (encode/httpcore#990).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


@dataclass
class Stream:
    """A chat completion of exactly `tokens` tokens, streamed over a thread of its own.

    Wait for `begun` before the event it is to live through, and call `whole` after it.
    """

    deployment: Deployment
    key: str
    tokens: int
    source: str = LOOPBACK
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    error: str = ""
    ended_at: float = 0
    """When it was over, by the clock of `time.monotonic`; 0 before."""
    _thread: threading.Thread | None = None

    def begin(self) -> Stream:
        """Sends the request and waits until the first events have come."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: len(self.events) > 2 or self.ended, "the first events of a stream")
        return self

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self._thread is not None and not self._thread.is_alive()

    def whole(self, seconds: float = 600) -> None:
        """Waits for its end; AssertionError unless every event came and the last one was [DONE]."""
        wait_until(lambda: self.ended, "the end of a stream", seconds)
        assert not self.error, self.error
        assert self.status == http.client.OK, f"{self.status}: {self.events}"
        assert self.events[-1:] == ["[DONE]"], f"{len(self.events)} events, the last: {self.events[-1:]}"
        parts = [json.loads(event) for event in self.events[:-1]]
        ends = [choice["finish_reason"] for part in parts for choice in part["choices"] if choice["finish_reason"]]
        assert ends == ["length"], ends
        assert parts[-1]["usage"]["completion_tokens"] == self.tokens, parts[-1]

    def _read(self) -> None:
        body = self.deployment.chat(
            "Tell a long story about a river.",
            stream=True,
            max_tokens=self.tokens,
            ignore_eos=True,
            stream_options={"include_usage": True},
        )
        connection = http.client.HTTPConnection(
            LOOPBACK, self.deployment.edge_port, timeout=pace.of(REQUEST_SECONDS), source_address=(self.source, 0)
        )
        try:
            with contextlib.closing(connection):
                headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
                connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                response = connection.getresponse()
                self.status = response.status
                self.headers = {name.lower(): value for name, value in response.getheaders()}
                # A line that begins with a colon is a keep-alive, not an event.
                self.events.extend(line.removeprefix("data: ") for line in _lines(response))
        except (OSError, http.client.HTTPException) as error:
            self.error = f"after {len(self.events)} events: {error!r}"
        self.ended_at = time.monotonic()


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """The lines of an answer that say something, as they come."""
    while raw := response.readline():
        line = raw.decode().strip()
        if line and not line.startswith(":"):
            yield line
