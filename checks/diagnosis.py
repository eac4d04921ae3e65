"""What the facts of a machine and the answers of its endpoint say: findings, each well or with its way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.failures import Explanation, explain, explain_engine
from checks.endpoint import Verdict

MIN_FREE_MIB = 2048
"""Free space that `up` asks for before it begins."""

SETTLED_SECONDS = 10
"""A container that was started again and has run for less may be about to end again."""

LOOPBACK = "loopback"
"""The role of the port where the edge asks for no key."""

KILLED = 137
"""Exit status of a program ended by SIGKILL."""


@dataclass(frozen=True)
class Problem:
    """Why something is not well: what happened, what to change, and the line that shows it."""

    cause: str
    change: str
    seen: str = ""

    def __str__(self) -> str:
        """Two or three lines, in the form that all failures have."""
        return f"cause: {self.cause}\nchange: {self.change}" + (f"\nseen: {self.seen}" if self.seen else "")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    detail: str
    problem: Problem | None = None
    skipped: bool = False
    """Whether it was not looked at; detail then says why not."""
    cuts: bool = True
    """Whether a problem of it also ends what hangs on it: nothing of that is then looked at."""

    @property
    def broken(self) -> bool:
        """Whether what hangs on it cannot be well."""
        return self.problem is not None and self.cuts


def not_looked_at(name: str, because: str) -> Finding:
    """What hangs on something that has a problem."""
    return Finding(name, f"not looked at because {because}", skipped=True)


@dataclass(frozen=True)
class Expected:
    """What should be there. stack: its name. containers: names by role. data_dir: as the stack's file has it.

    ports: by role, the loopback listener's among them where there is one. model: its id. unmade: why something may
    not be there yet, where that is known already.
    """

    stack: str
    containers: Mapping[str, str]
    ports: Mapping[str, int]
    data_dir: str
    data_label: str
    model: str = ""
    unmade: str = ""


_OWN = re.compile(r"^cause: (?P<cause>.+)\nchange: (?P<change>.+)$", re.MULTILINE)
"""A failure of our programs, as they write it."""


def explained(text: str, cause: str, change: str, known: Callable[[str], Explanation | None] = explain) -> Problem:
    """What a text says in our own form, else the known cause that it shows, else the given one with its end."""
    if own := _OWN.search(text):
        return Problem(own["cause"], own["change"])
    found = known(text)
    if found:
        return Problem(found.failure.cause, found.failure.remedy, found.evidence)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shown = lines[-1][:300] if lines else ""
    return Problem(cause, change, "" if shown == cause.strip() else shown)


def findings(expected: Expected, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """What there is to say of a machine, the first broken link standing first.

    What hangs on that link has no problem of its own: it is said not to have been looked at.
    """
    yield _docker(facts["docker"])
    for path, free in facts["free_mib"].items():
        yield _disk(path, int(free))
    if facts["docker"]["complaint"]:
        yield not_looked_at("weights, containers, ports and edge", "Docker does not answer")
        return
    broken, running = expected.unmade, set()
    if facts["containers"].get("engine") is None and not broken:
        finding = _weights(expected, there=bool(facts.get("weights", True)))
        broken = "of the weights" if finding.broken else ""
        yield finding
    for role, name in expected.containers.items():
        seen = facts["containers"].get(role)
        finding = not_looked_at(name, broken) if seen is None and broken else _container(expected, name, seen)
        broken = broken or (f"of {name}" if finding.broken else "")
        yield finding
        if seen and seen["status"] in ("running", "restarting", "paused"):
            running.add(role)
    yield from _ports(expected, facts, running)
    if "edge" in running:
        yield _edge(expected, facts["edge"])
    else:
        yield not_looked_at("edge configuration", f"{expected.containers['edge']} does not run")


def _weights(expected: Expected, *, there: bool) -> Finding:
    """Asked where no engine is: it is made when they are whole."""
    if there:
        return Finding("weights", "there")
    problem = Problem(
        f"the weights of {expected.model} are not whole on the machine, so no engine was made",
        f"scripts/up {expected.stack} fetches them; where that fails it says why: most often "
        "seatable-vllm:model.name, seatable-vllm:hugging_face_token or the way to the model hub",
    )
    return Finding("weights", "are not there", problem)


def _ports(expected: Expected, facts: Mapping[str, Any], running: Collection[str]) -> Iterator[Finding]:
    for role, port in expected.ports.items():
        listening, owner = facts["listening"][role], "edge" if role == LOOPBACK else role
        ours = bool(facts["loopback"]["in_force"]) if role == LOOPBACK else owner in running
        if not listening and owner not in running:
            yield not_looked_at(f"port {port} ({role})", f"{expected.containers[owner]} does not run")
        elif role == LOOPBACK and not listening:
            yield _without_loopback(expected, port)
        else:
            yield _port(role, port, listening=listening, ours=ours)


def _docker(seen: Mapping[str, str]) -> Finding:
    complaint = seen["complaint"]
    if not complaint:
        return Finding("Docker", f"answers, version {seen['version']}")
    problem = explained(
        complaint, "Docker does not answer", "start it: systemctl start docker, or scripts/up as root"
    )
    return Finding("Docker", "does not answer", problem)


def _disk(path: str, free: int) -> Finding:
    if free >= MIN_FREE_MIB:
        return Finding("disk", f"{free} MiB free at {path}")
    text = f"seatable-vllm: disk nearly full: {free} MiB free at {path}, {MIN_FREE_MIB} wanted"
    return Finding("disk", f"{free} MiB free at {path}", explained(text, "", ""), cuts=False)


def _container(expected: Expected, name: str, seen: Mapping[str, Any] | None) -> Finding:
    up = f"scripts/up {expected.stack}"
    if seen is None:
        return Finding(name, "is not there", Problem(f"there is no container {name}", f"{up} makes it"))
    detail = f"{seen['status']}, {seen['restarts']} restarts"
    detail += f", exit code {seen['exit_code']}" if seen["status"] != "running" else ""
    detail += f", {seen['health']}" if seen["health"] and seen["status"] == "running" else ""
    data_dir = seen["labels"].get(expected.data_label, expected.data_dir)
    if data_dir != expected.data_dir:
        problem = Problem(
            f"{name} keeps its data in {data_dir}, and the stack's file says {expected.data_dir}",
            f"{up} moves it; if it belongs to another checkout, take it down there",
        )
        return Finding(name, detail, problem)
    return Finding(name, detail, _why(name, up, seen))


def _why(name: str, up: str, seen: Mapping[str, Any]) -> Problem | None:
    """Why a container is not well; None when it is. What a log holds is no problem while its program works."""
    log = f"{seen['error']}\n{seen['log']}"
    if seen["status"] in ("running", "restarting"):
        return _why_running(name, up, seen, log)
    if seen["out_of_memory"]:
        return explained("OOMKilled", "", "")
    if explain_engine(log):
        return explained(log, "", "", explain_engine)
    if seen["exit_code"] == KILLED:
        return Problem(
            f"{name} was killed: by hand (docker kill), or by the system for lack of memory",
            f"{up} starts it again; if it comes back, take a smaller model (seatable-vllm:model.name)",
        )
    ended = f"{name} does not run: stopped by hand, or ended with status {seen['exit_code']}"
    return Problem(ended, f"{up} starts it again", _last(log))


def _why_running(name: str, up: str, seen: Mapping[str, Any], log: str) -> Problem | None:
    read = f"read its log (docker logs {name}), then {up}"
    again = seen["restarts"] and (seen["health"] == "starting" or seen["up_seconds"] < SETTLED_SECONDS)
    if seen["status"] == "restarting" or again:
        ended = f"{name} ended {seen['restarts']} times and is started again each time"
        return explained(log, ended, read, explain_engine)
    if seen["health"] == "unhealthy":
        return explained(f"{seen['health_log']}\n{log}", f"{name} runs and does not work", read)
    return None


def _last(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _port(role: str, port: int, *, listening: bool, ours: bool) -> Finding:
    name = f"port {port} ({role})"
    if listening and not ours:
        text = f"seatable-vllm: port in use: {port} is taken by another program"
        found = explained(text, "", "")
        change = f"set seatable-vllm:ports.{role} to a free port, or end that program"
        return Finding(name, "taken by another program", Problem(found.cause, change, text))
    return Finding(name, "the stack's own" if listening else "nobody listens")


def _without_loopback(expected: Expected, port: int) -> Finding:
    cause = f"the edge runs and does not listen on port {port} (seatable-vllm:ports.loopback)"
    change = f"scripts/up {expected.stack}, which loads its configuration again"
    return Finding(f"port {port} ({LOOPBACK})", "nobody listens", Problem(cause, change), cuts=False)


def _edge(expected: Expected, seen: Mapping[str, str]) -> Finding:
    name, up = "edge configuration", f"scripts/up {expected.stack}"
    on_disk, in_force = seen["on_disk"], seen["in_force"]
    if seen["complaint"] or not in_force:
        cause = "the edge runs and does not answer as ours does"
        return Finding(name, "no answer", explained(seen["complaint"], cause, f"{up}, which loads it again"))
    if not on_disk or on_disk == in_force:
        return Finding(name, f"{in_force} in force")
    problem = Problem(f"the edge answers with configuration {in_force}, and {on_disk} is on the disk",
                      f"{up}, which loads it again")  # fmt: skip
    return Finding(name, f"{in_force} in force, {on_disk} expected", problem, cuts=False)


def changed_since_up(stack: str, file: Mapping[str, Any], deployed: Mapping[str, Any]) -> Finding:
    """Whether the stack's file says what was deployed. Both: outputs by name, of the file as far as known."""
    changed = [name for name, value in file.items() if name in deployed and deployed[name] != value]
    if not changed:
        return Finding("stack file", "as it was deployed")
    names = ", ".join(changed)
    problem = Problem(f"the stack's file was changed since the last up: {names}", f"scripts/up {stack}")
    return Finding("stack file", f"changed: {names}", problem, cuts=False)


def client_finding(engine: str, verdict: Verdict) -> Finding:
    """A check of the endpoint, as a finding. engine: its container's name, for where to look on."""
    if verdict.passed or verdict.skipped:
        return Finding(verdict.name, verdict.detail, skipped=verdict.skipped)
    change = f"see what the engine's log says of it: docker logs {engine}"
    if "no TLS" in verdict.detail or "no answer" in verdict.detail:
        change = (
            "see that nothing between here and seatable-vllm:ports.edge of the machine changes or cuts connections"
        )
    return Finding(verdict.name, verdict.detail, explained(verdict.detail, verdict.detail, change))
