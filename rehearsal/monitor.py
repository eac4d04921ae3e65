"""Pulumi's test monitor with real effects: decides for each resource whether to keep, make again or remove it."""

import contextlib
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs, Mocks

from rehearsal.docker_resources import DockerContainer, DockerNetwork, require_docker_behind
from rehearsal.errors import RehearsalError
from rehearsal.forward import forwarded, provider_command
from rehearsal.resources import Handler, LocalCommand, RandomPassword, RandomUuid, Remembered, Say, run_command
from rehearsal.state import Made, State

_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key under which Pulumi's wire format marks a value as secret, asset or other; the value is beside it."""

LOCAL_RUN = "command:local:run"
"""The only function that a program which can be rehearsed calls."""


@dataclass
class Counts:
    """What a run did."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def handlers(say: Say) -> dict[str, Handler]:
    """Who makes what, by Pulumi's type token."""
    return {
        "random:index/randomPassword:RandomPassword": RandomPassword(),
        "random:index/randomUuid:RandomUuid": RandomUuid(),
        "command:local:Command": LocalCommand(say),
        "pulumi:providers:docker": Remembered(),
        "docker:index/network:Network": DockerNetwork(),
        "docker:index/container:Container": DockerContainer(),
    }


def plain(value: Any) -> Any:
    """A value of the wire format as Python has it: secrets opened, whole numbers as int."""
    if isinstance(value, dict):
        return plain(value.get("value")) if _SIGNATURE in value else {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Rehearsing(Mocks):
    """Answers each registration of the program by making the resource, or keeping the one that is there."""

    def __init__(self, state: State, say: Say) -> None:
        self.state = state
        self.counts = Counts()
        self.failures: list[str] = []
        self.seen: set[str] = set()
        self._handlers = handlers(say)
        self._lock = Lock()
        self._say = say
        self._tunnels = contextlib.ExitStack()
        self._reached: dict[str, str] = {}
        self._opening = Lock()

    def __enter__(self) -> "Rehearsing":
        return self

    def __exit__(self, *_: object) -> None:
        self._tunnels.close()

    def call(self, args: MockCallArgs) -> Any:
        """Answers the one function that a program which can be rehearsed may call: a local command."""
        if args.token != LOCAL_RUN:
            raise RehearsalError(f"a rehearsal cannot answer {args.token}")
        inputs = plain(args.args)
        try:
            return {**inputs, "stdout": "\n".join(run_command("machine", inputs, self._say)), "stderr": ""}
        except RehearsalError as error:
            with self._lock:
                self.failures.append(str(error))
            raise

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        """The id and outputs of one resource, made if need be."""
        if not args.custom:
            return args.name, {}
        try:
            made = self._settle(args.typ, args.name, plain(args.inputs), args.provider or "")
        except RehearsalError as error:
            with self._lock:
                self.failures.append(str(error))
            raise
        return made.id, made.outputs

    def provider_inputs(self, reference: str) -> dict[str, Any]:
        """The inputs of the provider that a resource names (a URN and an id, joined by ::)."""
        provider = self.state.made.get(reference.rpartition("::")[2])
        return self._brought_here(provider.inputs) if provider else {}

    def _brought_here(self, provider: dict[str, Any]) -> dict[str, Any]:
        """The inputs with a host of this computer: a Docker behind SSH is forwarded here, once in a run."""
        host = str(provider.get("host", ""))
        if not host.startswith("ssh://"):
            return provider
        with self._opening:
            if host not in self._reached:
                url, _ = self._tunnels.enter_context(forwarded(provider_command(provider)))
                require_docker_behind(url)
                self._reached[host] = url
        return {"host": self._reached[host]}

    def _settle(self, kind: str, name: str, inputs: dict[str, Any], provider: str) -> Made:
        handler = self._handlers.get(kind)
        if handler is None:
            raise RehearsalError(f"a rehearsal cannot make {name}: it does not know {kind}; use `pulumi up`")
        with self._lock:
            self.seen.add(name)
            before = self.state.made.get(name)
        settings = self.provider_inputs(provider)
        if before and before.inputs == inputs and handler.keep(before, settings):
            self._count(self.counts.unchanged, name)
            return before
        if before:
            self._say(name, "is made again" if before.inputs == inputs else "changes")
            if not (isinstance(handler, LocalCommand) and handler.changes_in_place(before, inputs)):
                handler.delete(before, settings)
                self.state.drop(name)
        identity, outputs = handler.create(name, inputs, settings)
        made = Made(kind, name, inputs, identity, {**outputs, "__provider": provider})
        self.state.put(made)
        self._count(self.counts.changed if before else self.counts.created, name)
        return made

    def remove(self, name: str) -> None:
        """Removes one resource that the program no longer asks for."""
        made = self.state.made[name]
        settings = self.provider_inputs(made.outputs.get("__provider", ""))
        self._handlers[made.type].delete(made, settings)
        self.state.drop(name)
        self._count(self.counts.deleted, name)

    def _count(self, where: list[str], name: str) -> None:
        with self._lock:
            where.append(name)
