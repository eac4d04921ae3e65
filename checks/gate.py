"""The last gate of `up`, run on the machine: wait for the engine, prove the endpoint, or say why not.

It reads one JSON object (see `Order`), watches the two containers, prints a line whenever something changes
and every ten seconds, and ends with status 0 only when the checks pass. On a failure it prints the end of the
container's log, the phase, the cause and the setting to change.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from catalog.failures import explain, explain_engine
from checks import endpoint
from checks.cache import HELD, cache_of, whole_requests
from checks.facts import just_before, seconds_since

RESTARTS_UNTIL_FAILURE = 3
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 10
LOOK_SECONDS = 10
"""Patience for one answer while waiting: another program on the port may take connections and say nothing."""
LOG_LINES = 300
OUTAGE_SECONDS = 7200
"""How far back the end of an earlier engine is looked for."""
SHOWN_LOG_LINES = 25


class GateFailed(Exception):  # noqa: N818 - reads as what happened
    """The endpoint did not come up. The text is what the administrator reads."""


@dataclass(frozen=True)
class Order:
    """What the gate is to wait for.

    engine, edge: names of the containers. target: how a client reaches the endpoint. deadline_seconds:
    patience for the whole start. engine_port: where the engine itself answers here, or None not to ask it.
    """

    engine: str
    edge: str
    target: endpoint.Target
    deadline_seconds: float
    engine_port: int | None = None

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The order as the program writes it."""
        values = json.loads(text)
        return cls(**{**values, "target": endpoint.Target(**values["target"])})


@dataclass(frozen=True)
class Container:
    """The state of a container as Docker reports it."""

    status: str
    exit_code: int
    restarts: int
    started_at: str = ""
    """Moment of its last start, as Docker writes it; empty where that is of no interest."""

    def since(self, restarts: int) -> Container:
        """The same container, its restarts counted from an earlier count."""
        return Container(self.status, self.exit_code, self.restarts - restarts)

    @property
    def failed(self) -> bool:
        """Whether it has ended, or keeps ending."""
        return self.status in ("exited", "dead") or self.restarts >= RESTARTS_UNTIL_FAILURE


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GateFailed(f"docker {arguments[0]} {arguments[-1]} failed: {done.stderr.strip()}")
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")


def inspect(name: str) -> Container:
    """The container's state now."""
    form = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}} {{.State.StartedAt}}"
    status, exit_code, restarts, started_at = _docker("inspect", "--format", form, name).split()
    return Container(status, int(exit_code), int(restarts), started_at)


def _log(name: str, since: str) -> str:
    """The end of a container's log. since: a moment; what earlier starts wrote is none of this one's causes."""
    return _docker("logs", "--tail", str(LOG_LINES), "--since", just_before(since), name)


def _outage(name: str) -> str:
    """How long the engine was away, in words; empty where it was not there before, or Docker knows no more.

    Docker keeps its last 256 events, and a health check makes three each time.
    """
    now = time.time()
    filters = ("--filter", f"container={name}", "--filter", "event=die")
    times = ("--since", str(int(now - OUTAGE_SECONDS)), "--until", str(int(now)))
    try:
        ends = _docker("events", *times, *filters, "--format", "{{.TimeNano}}").split()
    except GateFailed:
        return ""  # the endpoint works, whatever Docker remembers
    if not ends:
        return ""
    away, start = now - int(ends[-1]) / 1e9, seconds_since(inspect(name).started_at)
    return f"the engine was away for {away:.0f} s; its own start took {start:.0f} s of that"


def _why(name: str, container: Container, since: str) -> str:
    """The failure text for a container that ended: log, phase, cause."""
    log = _log(name, since)
    found = explain_engine(log) or explain(f"exit code {container.exit_code}")
    # A crash loop would keep two cores busy for nothing; the next `up` starts the container again.
    _docker("stop", "--time", "5", name)
    end = "\n".join(log.splitlines()[-SHOWN_LOG_LINES:])
    reason = found or (
        "cause: not one that this program knows; the log above has it\n"
        "change: what the log complains of; most often a setting below seatable-vllm:model"
    )
    return (
        f"--- last lines of {name} ---\n{end}\n---\nphase: {name} ended {container.restarts + 1} time(s), "
        f"last with status {container.exit_code}\n{reason}"
    )


def _too_long(name: str, seconds: float, since: str) -> str:
    """The failure text for an engine that runs but does not answer. It is left running: it may only be slow."""
    log = _log(name, since)
    end = "\n".join(log.splitlines()[-SHOWN_LOG_LINES:])
    reason = explain(log) or (
        f"cause: the engine has not answered within {seconds:.0f} s, and its log names no cause\n"
        "change: run up again to wait longer, or take a smaller model (seatable-vllm:model.name)"
    )
    return f"--- last lines of {name} ---\n{end}\n---\nphase: engine healthy\n{reason}"


def _log_shows_a_cause(name: str, since: str) -> bool:
    """Whether the log names a cause that another start will not cure."""
    found = explain_engine(_log(name, since))
    return found is not None and not found.failure.passing


def _start_if_stopped(name: str) -> Container:
    if inspect(name).status in ("exited", "created"):
        _docker("start", name)
    return inspect(name)


def _answers(target: endpoint.Target) -> bool:
    try:
        return endpoint.ask(target, "GET", "/v1/models", key=target.key, seconds=LOOK_SECONDS).status == 200
    except endpoint.Untrusted as error:
        # No waiting mends this.
        raise GateFailed(
            f"phase: certificate\ncause: {error}\n"
            "change: seatable-vllm:domain (host, and for tls files the certificate with its whole chain); "
            "then run up again"
        ) from error
    except endpoint.Failed:
        return False


def wait(order: Order, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
    """Returns when the endpoint lists its model; GateFailed when a container fails or time runs out."""
    begin = said = clock()
    # Restarts and words of the past are none of this start's business: they count from here.
    found = {name: _start_if_stopped(name) for name in (order.edge, order.engine)}
    first = {name: container.restarts for name, container in found.items()}
    since = {name: container.started_at for name, container in found.items()}
    seen: dict[str, Container] = {}
    while not _answers(order.target):
        for name, earlier in list(first.items()):
            now = inspect(name)
            # Docker counts from zero again when somebody starts a container by hand.
            first[name] = min(earlier, now.restarts)
            container = now.since(first[name])
            if container.failed or (container.restarts and _log_shows_a_cause(name, since[name])):
                raise GateFailed(_why(name, container, since[name]))
            if container != seen.get(name):
                say(f"{name}: {container.status}, {container.restarts} restarts")
                said = clock()
            seen[name] = container
        if clock() - begin > order.deadline_seconds:
            raise GateFailed(_too_long(order.engine, order.deadline_seconds, since[order.engine]))
        if clock() - said > HEARTBEAT_SECONDS:
            said = clock()
            say(f"waiting for the engine, {clock() - begin:.0f} s")
        time.sleep(POLL_SECONDS)
    say(f"the engine answers after {clock() - begin:.0f} s")
    if seen and (outage := _outage(order.engine)):
        say(outage)


def held(port: int) -> str | None:
    """What the engine found room for, as `checks.cache.held_in` reads it; None where the engine does not say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LOOK_SECONDS) as answer:
            cache = cache_of(answer.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return None
    if cache is None:
        return None
    return f"{HELD}{cache.tokens:,} tokens, {whole_requests(cache.concurrency)} of full length at once"


def main(text: str) -> int:
    """Runs the gate for an order in JSON; 0 when the endpoint works."""

    def say(line: str) -> None:
        print(line, flush=True)

    order = Order.from_json(text)
    try:
        wait(order, say)
        for verdict in endpoint.run(order.target, endpoint.GATE_CHECKS):
            say(f"{'ok' if verdict.passed else 'FAILED'}: {verdict.name}: {verdict.detail}")
            if not verdict.passed:
                known = explain(verdict.detail)
                remedy = (
                    f"correct what the engine's log says of it (docker logs {order.engine}), then run up again"
                )
                raise GateFailed(
                    f"phase: endpoint checked\ncause: {verdict.name}: {verdict.detail}\n"
                    f"change: {known.failure.remedy if known else remedy}"
                )
    except GateFailed as failure:
        say(str(failure))
        return 1
    if order.engine_port and (line := held(order.engine_port)):
        say(line)
    return 0
