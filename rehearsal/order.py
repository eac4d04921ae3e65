"""What waits for what in a stack's program: seen by running it with stand-ins, so that nothing is made or asked.

Resources say themselves what they wait for. Questions (a look at the account, at the machine) do not: for each of
them the program is run once more with that answer unknown, and what then is unknown waits for it.
"""

import contextvars
import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.rpc import UNKNOWN

from catalog.aws.preflight import offer_unasked
from rehearsal.monitor import LOCAL_RUN
from rehearsal.run import PROJECT, run_program
from rehearsal.stack_file import stack_config
from settings import NAMESPACE, value_of

ACCOUNT, REACHED, WEIGHTS_LOST = "account-asked", "machine-reached", "weights-lost"
"""The questions that the program has names for; others go by their function and arguments."""

_STAND_IN = "stand-in"

_FACTS = json.dumps(
    {"identity": _STAND_IN, "device": "gpu", "host": _STAND_IN, "not_after": "2100-01-01T00:00:00Z", "ca": ""}
)
"""The last line of every program that a machine would run: all that any of them is asked for."""

_MADE: Mapping[str, Any] = {
    "arn": "arn:aws:ec2:us-east-1:123456789012:instance/i-0",
    "availabilityZone": "us-east-1a",
    "fqdn": _STAND_IN,
    "ipv6Addresses": ["2001:db8::10"],
    "ipv6CidrBlock": "2001:db8::/56",
    "name": _STAND_IN,
    "publicIp": "203.0.113.9",
    "result": _STAND_IN,
    "stderr": "",
    "stdout": _FACTS,
}
"""What becomes known of resources when they are made; each takes of it what it has."""

_PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"
"""In the form of one, and nobody's: a plan needs no key pair."""


@dataclass(frozen=True)
class Part:
    """One resource of the program, or one of its questions.

    type: Pulumi's type token, of a question that of its function. waits_for: names of parts, the direct ones.
    component: whether it only holds others together, and takes no time.
    """

    name: str
    type: str
    waits_for: frozenset[str]
    component: bool = False


def program_order(stack: str, project: Path = PROJECT) -> list[Part]:
    """Every part of the stack's program, in the order in which each can begin.

    Raises RehearsalError where the program refuses the stack's settings.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = _config(stack, project, Path(folder))
        seen = _watched(stack, config, project)
        waiting = {name: _direct(seen, name) for name in seen.resources}
        waiting |= {name: _of_question(seen, name) for name in seen.questions}
        for question in seen.questions:
            # The program itself waits for the account's answer, and registers nothing before.
            without = (
                _Seen({}, {}) if question == ACCOUNT else _watched(stack, config, project, unanswered=question)
            )
            for name in waiting.keys() - {question}:
                if _is_held_up(name, seen, without):
                    waiting[name].add(question)
    kinds = {name: (each.type, not each.custom) for name, each in seen.resources.items()}
    kinds |= {name: (each.tok, False) for name, each in seen.questions.items()}
    parts = [Part(name, kinds[name][0], frozenset(waiting[name]), kinds[name][1]) for name in waiting]
    return in_order(parts)


def in_order(parts: Iterable[Part]) -> list[Part]:
    """The parts so that each comes after all that it waits for."""
    left, ordered, done = list(parts), list[Part](), set[str]()
    while left:
        free = [part for part in left if part.waits_for <= done]
        if not free:
            raise ValueError(f"these wait for each other: {', '.join(part.name for part in left)}")
        ordered += free
        done |= {part.name for part in free}
        left = [part for part in left if part.name not in done]
    return ordered


def _config(stack: str, project: Path, folder: Path) -> dict[str, str]:
    """The stack's configuration, in which no key of this computer is needed and no secret has to be read."""
    config = stack_config(stack, project, secret=_STAND_IN)
    setting = f"{NAMESPACE}:machine"
    machine = value_of("machine", config.get(setting))
    if isinstance(machine, dict) and (machine.get("kind") == "aws" or "ssh_key" in machine):
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")  # of a stand-in nothing more is looked at
        key.with_suffix(".pub").write_text(_PUBLIC_KEY)
        machine["ssh_key"] = str(key)
    if isinstance(machine, dict) and "host_key" in machine:
        del machine["host_key"]  # the program would write it down for ssh
    return {**config, setting: json.dumps(machine)} if isinstance(machine, dict) else config


class _StandIns(Mocks):
    """Answers as the providers would, out of thin air."""

    def call(self, args: MockCallArgs) -> Any:
        if args.token != LOCAL_RUN:
            return {**args.args, "id": _STAND_IN, "zoneId": _STAND_IN, "vpcId": _STAND_IN, "availabilityZone": "a"}
        asked = _name_of(args.token, args.args)
        printed = json.dumps(offer_unasked(json.loads(args.args["stdin"]))) if asked == ACCOUNT else _FACTS
        return {"stdout": printed, "stderr": ""}

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return f"id-of-{args.name}", {**_MADE, **args.inputs} if args.custom else {}


class _Watching(MockMonitor):
    """Pulumi's test monitor, which keeps every request. unanswered: name of the question that gets no answer."""

    def __init__(self, unanswered: str | None) -> None:
        super().__init__(_StandIns())
        self.asked_for: dict[str, resource_pb2.RegisterResourceRequest] = {}
        self.questions: dict[str, resource_pb2.ResourceInvokeRequest] = {}
        self._unanswered = unanswered
        self._recording = Lock()

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> Any:  # noqa: N802 - Pulumi's name
        if request.type != "pulumi:pulumi:Stack":
            with self._recording:
                self.asked_for[request.name] = request
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> Any:  # noqa: N802 - Pulumi's name
        name = _name_of(request.tok, json_format.MessageToDict(request.args))
        with self._recording:
            self.questions[name] = request
        if name == self._unanswered:
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        return super().Invoke(request)  # type: ignore[no-untyped-call]

    def GetDeploymentInfo(self, request: Any) -> Any:  # noqa: N802 - Pulumi's name
        # Only to a monitor that knows this does the program say what its questions wait for.
        info = super().GetDeploymentInfo(request)  # type: ignore[no-untyped-call]
        info.supportedFeatures.append(resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_DEPENDS_ON)
        return info


@dataclass(frozen=True)
class _Seen:
    """One run of the program."""

    resources: Mapping[str, resource_pb2.RegisterResourceRequest]
    questions: Mapping[str, resource_pb2.ResourceInvokeRequest]


def _watched(stack: str, config: dict[str, str], project: Path, *, unanswered: str | None = None) -> _Seen:
    monitor = _Watching(unanswered)

    def run() -> None:
        # A preview: an unknown answer then holds up what is made from it, and else nothing.
        run_program(stack, config, monitor.mocks, project, preview=True, monitor=monitor)

    # A context of its own, because configuration, monitor and root stack are context variables.
    contextvars.copy_context().run(run)
    return _Seen(monitor.asked_for, monitor.questions)


def _name_of(function: str, arguments: Mapping[str, Any]) -> str:
    """What a question is called; the same in every run."""
    if function == LOCAL_RUN:
        program = str(arguments.get("stdin"))
        if "aws_account.preflight" in arguments["command"]:
            return ACCOUNT
        if "/models/.lost/" in program:
            return WEIGHTS_LOST
        return (
            REACHED
            if "/run/cloud-init/" in program
            else f"look-{hashlib.sha256(program.encode()).hexdigest()[:8]}"
        )
    asked = ", ".join(str(value) for value in arguments.values() if isinstance(value, str))
    return f"{function.rpartition(':')[2]} {asked}"


def _direct(seen: _Seen, name: str) -> set[str]:
    """What a resource waits for by its own word: dependencies, provider, parent, and what it ends with."""
    request = seen.resources[name]
    urns = {*request.dependencies, request.deletedWith}
    for dependency in request.propertyDependencies.values():
        urns |= {*dependency.urns}
    urns |= {each.rpartition("::")[0] for each in (request.provider, *request.providers.values())}
    # Whoever waits for a component names what is in it: Pulumi itself puts that in its place.
    return _known(seen, [*urns, request.parent])


def _of_question(seen: _Seen, name: str) -> set[str]:
    request = seen.questions[name]
    return _known(seen, [*request.dependsOn, request.provider.rpartition("::")[0]])


def _known(seen: _Seen, urns: Iterable[str]) -> set[str]:
    return {urn.rpartition("::")[2] for urn in urns} & seen.resources.keys()


def _is_held_up(name: str, seen: _Seen, without: _Seen) -> bool:
    """Whether a part is not asked for, or not known in full, in the run that lacks an answer."""
    if name in seen.questions:
        return name not in without.questions
    if name not in without.resources:
        return True
    return _unknowns(without.resources[name]) > _unknowns(seen.resources[name])


def _unknowns(request: resource_pb2.RegisterResourceRequest) -> int:
    return str(json_format.MessageToDict(request.object)).count(UNKNOWN)
