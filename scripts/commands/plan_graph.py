"""`scripts/plan --graph STACK`: the steps of a first `up`, what each waits for, and their critical path.

What waits for what is read off the program itself, which is run with stand-ins: nothing is made, no account and no
machine is asked. How long a step takes is typical, not measured: catalog/durations.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from catalog import durations
from catalog.models import KNOWN_MODELS
from catalog.vllm import Device
from rehearsal.order import ACCOUNT, REACHED, WEIGHTS_LOST, Part, in_order, program_order
from scripts.commands.stacks import PROJECT, stack_settings
from settings import AwsMachine, Settings

PLAIN_WIDTH = 132
"""Characters of a line where there is no terminal to ask."""

INSTANCE, BOOT = "vm-instance-vm", "machine-boots"
AHEAD = "inference-weights-ahead-fetched"
CONTAINER, ENGINE, GATE = "inference-vllm", "engine-starts", "readiness-gate"
"""Names of resources, and of what goes on by itself once one is made: no resource stands for that."""

STEPS: Sequence[tuple[str, str]] = (
    # A provider is configured when the account was asked, and takes no time itself.
    ("AWS account asked", f"{ACCOUNT}|vm-owner|vm-aws|vm-instance-aws"),
    ("keys made", "keys-.*"),
    ("network made", "vm-network-.*|getSubnet .*"),
    ("zone looked up", "getZone .*"),
    ("firewall made", "vm-firewall-.*"),
    ("role made", "vm-identity-.*"),
    ("instance made", f"vm-instance-key|{INSTANCE}"),
    ("machine boots", BOOT),
    ("data disk attached", "vm-storage-.*"),
    ("address led there", "vm-address-.*"),
    ("name led there", "dns-.*"),
    ("stop and budget set", "vm-cost-.*"),
    ("machine reached", REACHED),
    ("machine ready", "machine-.*"),
    ("weights looked for", WEIGHTS_LOST),
    ("engine image pulled", "inference-image-.*"),
    ("edge image pulled", "edge-image-.*"),
    ("ACME image pulled", "certificates-image-.*"),
    ("certificate", "certificates-present"),
    ("Python image pulled", "inference-weights-ahead-image"),
    ("weights fetched", AHEAD),
    ("weights present", "inference-weights-.*"),
    ("GPUs proved", "inference-gpus-.*"),
    ("tool parser proved", "inference-parser-.*"),
    ("engine starts", f"{CONTAINER}|{ENGINE}"),
    ("engine's files written", "inference-.*"),
    ("edge starts", "edge-.*"),
    ("checks", GATE),
)
"""The field's names for what belongs together, by the names of resources; the first that fits has it."""


@dataclass(frozen=True)
class Timed:
    """A part of the program with its place in time, in seconds from the begin of `up`."""

    part: Part
    begins: float
    ends: float
    last: str | None
    """Of what it waits for the one that is done last, or None."""


@dataclass(frozen=True)
class Step:
    """Parts that a reader thinks of as one. waits_for, beside: names of steps; beside: under way meanwhile."""

    name: str
    parts: Sequence[Timed]
    waits_for: Sequence[str]
    beside: Sequence[str]
    critical: bool

    @property
    def begins(self) -> float:
        """When its first part begins."""
        return min(each.begins for each in self.parts)

    @property
    def ends(self) -> float:
        """When its last part is done."""
        return max(each.ends for each in self.parts)


@dataclass(frozen=True)
class Plan:
    """A first `up`. critical: the parts of the longest way through, in their order."""

    stack: str
    steps: Sequence[Step]
    critical: Sequence[Timed]
    timed: Mapping[str, Timed]
    weights_known: bool
    """Whether the catalogue knows the model's size; else a usual one was taken."""

    @property
    def seconds(self) -> float:
        """From the begin to the end of the last step."""
        return self.critical[-1].ends


def plan_of(stack: str, project: Path = PROJECT) -> Plan:
    """The steps of a stack's first `up`. Raises SettingsError and RehearsalError as the program would."""
    settings = stack_settings(stack, project)
    return planned(stack, settings, program_order(stack, project))


def planned(stack: str, settings: Settings, parts: Iterable[Part]) -> Plan:
    """The plan of a program whose parts are known."""
    ordered = in_order(_with_what_goes_on(list(parts)))
    timed = _timed(ordered, settings)
    critical = _critical(timed)
    steps = _steps(timed, {each.part.name for each in critical})
    return Plan(stack, steps, critical, timed, weights_known=settings.model.name in KNOWN_MODELS)


def step_of(name: str) -> str:
    """What the part of this name belongs to."""
    return next((step for step, pattern in STEPS if re.fullmatch(pattern, name)), name)


def _with_what_goes_on(parts: Sequence[Part]) -> Iterable[Part]:
    """Adds what takes long and is no resource: a machine boots while its disk is attached, an engine loads."""
    names = {part.name for part in parts}
    after = {REACHED: BOOT} if INSTANCE in names else {}
    after |= {GATE: ENGINE}
    for part in parts:
        more = {after[part.name]} if part.name in after else set()
        yield Part(part.name, part.type, part.waits_for | more, part.component)
    if INSTANCE in names:
        yield Part(BOOT, "", frozenset({INSTANCE}))
    yield Part(ENGINE, "", frozenset({CONTAINER}))


def _timed(ordered: Iterable[Part], settings: Settings) -> dict[str, Timed]:
    timed: dict[str, Timed] = {}
    for part in ordered:
        # Of several that are done at once the one that took time itself tells more than what only held it.
        before = sorted(
            (timed[name] for name in part.waits_for), key=lambda each: (each.ends, each.begins, each.part.name)
        )
        begins = before[-1].ends if before else 0.0
        last = before[-1].part.name if before else None
        timed[part.name] = Timed(part, begins, begins + typical_seconds(part, settings), last)
    return timed


def typical_seconds(part: Part, settings: Settings) -> float:
    """How long a part typically takes on the stack's machine, by catalog/durations.py."""
    if part.component or part.type.startswith(("pulumi:providers:", "random:")):
        return 0.0
    known = KNOWN_MODELS.get(settings.model.name)
    weights = known.shape.weights_bytes if known else durations.USUAL_WEIGHTS_BYTES
    device = device_of(settings)
    root, data = _disks(settings)
    by_step: Mapping[str, float] = {
        "AWS account asked": durations.ASKED_SECONDS,
        "machine boots": durations.BOOT_SECONDS,
        "engine image pulled": durations.image_seconds(durations.ENGINE_IMAGE_MB[device], root),
        "edge image pulled": durations.image_seconds(durations.SMALL_IMAGE_MB, root),
        "Python image pulled": durations.image_seconds(durations.SMALL_IMAGE_MB, root),
        "ACME image pulled": durations.image_seconds(durations.SMALL_IMAGE_MB, root),
        "certificate": durations.CERTIFICATE_SECONDS[settings.domain.tls] if settings.domain else 0.0,
        "weights fetched": durations.HUB_CLIENT_SECONDS + durations.weights_seconds(weights, data),
        "weights present": durations.PROGRAM_SECONDS
        if AHEAD in part.waits_for
        else durations.weights_seconds(weights, data),
        "GPUs proved": durations.GPU_PROOF_SECONDS,
        "tool parser proved": durations.PARSER_PROOF_SECONDS,
        "checks": durations.CHECKS_SECONDS,
    }
    if part.name == ENGINE:
        return durations.engine_seconds(device, weights, data)
    if part.type.startswith("aws:"):
        return durations.AWS_SECONDS.get(part.type, durations.AWS_OTHER_SECONDS)
    return by_step.get(step_of(part.name), durations.PROGRAM_SECONDS)


def _disks(settings: Settings) -> tuple[float, float]:
    """MB/s of the disk with the images, and of that with the weights."""
    machine = settings.machine
    if isinstance(machine, AwsMachine):
        return machine.root_disk_throughput, machine.data_disk.throughput
    return durations.DISK_MB_PER_SECOND, durations.DISK_MB_PER_SECOND


def device_of(settings: Settings) -> Device:
    """What the engine probably computes on: only the machine itself knows."""
    return "cpu" if settings.machine.kind == "local" or settings.machine.gpus == "none" else "gpu"


def _critical(timed: Mapping[str, Timed]) -> list[Timed]:
    """From the part that ends last back through what each of them waited for longest."""
    at: str | None = max(timed, key=lambda name: (timed[name].ends, not timed[name].part.component))
    way = list[Timed]()
    while at is not None:
        way.insert(0, timed[at])
        at = timed[at].last
    return [each for each in way if each.ends > each.begins]


def _steps(timed: Mapping[str, Timed], critical: set[str]) -> list[Step]:
    grouped: dict[str, list[Timed]] = {}
    for name, each in timed.items():
        if not each.part.component:
            grouped.setdefault(step_of(name), []).append(each)
    before = {name: _all_before(timed, name) for name in timed}
    steps = [
        Step(
            step,
            sorted(parts, key=lambda each: (each.begins, each.ends, each.part.name)),
            _waits_for(step, parts, before),
            _beside(step, parts, grouped),
            any(each.part.name in critical for each in parts),
        )
        for step, parts in grouped.items()
    ]
    return sorted(steps, key=lambda step: (step.begins, step.ends))


def _all_before(timed: Mapping[str, Timed], name: str) -> set[str]:
    """The names of all parts that come before this one, components left out."""
    found, waiting = set[str](), [name]
    while waiting:
        direct = timed[waiting.pop()].part.waits_for - found
        found |= direct
        waiting += direct
    return {each for each in found if not timed[each].part.component}


def _waits_for(step: str, parts: Iterable[Timed], before: Mapping[str, set[str]]) -> list[str]:
    """The steps of what each part waits for and nothing else of that does."""
    nearest = set[str]()
    for each in parts:
        names = before[each.part.name]
        nearest |= names - {earlier for name in names for earlier in before[name]}
    return sorted({step_of(name) for name in nearest} - {step})


def _beside(step: str, parts: Sequence[Timed], grouped: Mapping[str, Sequence[Timed]]) -> list[str]:
    """The other steps that are under way meanwhile, those first that are so for longest."""
    shared = {other: _overlap(parts, others) for other, others in grouped.items() if other != step}
    return sorted((other for other, seconds in shared.items() if seconds > 0), key=lambda other: -shared[other])


def _overlap(parts: Iterable[Timed], others: Sequence[Timed]) -> float:
    return max(min(one.ends, other.ends) - max(one.begins, other.begins) for one in parts for other in others)


def show(plan: Plan) -> None:
    """Prints the plan as a table, and the critical path under it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(f"A first up of {plan.stack}; * is on the critical path", markup=False)
    table = Table(box=None, pad_edge=False)
    for heading, right in (("begins", True), ("takes", True), ("", False), ("step", False), ("waits for", False),
                           ("beside it", False), ("resources", False)):  # fmt: skip
        table.add_column(
            heading, justify="right" if right else "left", no_wrap=heading in ("begins", "takes", "step")
        )
    for step in plan.steps:
        table.add_row(
            clock(step.begins),
            clock(step.ends - step.begins),
            "*" if step.critical else "",
            step.name,
            ", ".join(step.waits_for),
            in_short(step.beside),
            in_short([each.part.name for each in step.parts]),
            style="bold" if step.critical else "",
        )
    console.print(table)
    console.print(f"Critical path: {', '.join(_legs(plan))}: {plan.seconds / 60:.1f} min.", markup=False)
    told = "Times are typical ones (catalog/durations.py), with no image and no weights on the machine yet."
    if not plan.weights_known:
        told += f" The model's size is not known here: {durations.USUAL_WEIGHTS_BYTES / 1e9:.0f} GB assumed."
    console.print(told, markup=False)


def clock(seconds: float) -> str:
    """Minutes and seconds, as 1:05."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def in_short(names: Sequence[str]) -> str:
    """Up to three names, else two and how many more."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _legs(plan: Plan) -> Iterable[str]:
    """The critical path step by step, each with its seconds."""
    legs: dict[str, float] = {}
    for each in plan.critical:
        step = step_of(each.part.name)
        legs[step] = legs.get(step, 0.0) + each.ends - each.begins
    return (f"{step} {seconds:.0f} s" for step, seconds in legs.items())


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs; times in seconds from the begin of `up`."""
    return {
        "stack": plan.stack,
        "critical_path_seconds": round(plan.seconds, 1),
        "weights_known": plan.weights_known,
        "critical_path": [
            {
                "resource": each.part.name,
                "step": step_of(each.part.name),
                "seconds": round(each.ends - each.begins, 1),
            }
            for each in plan.critical
        ],
        "steps": [
            {
                "name": step.name,
                "begins": round(step.begins, 1),
                "ends": round(step.ends, 1),
                "critical": step.critical,
                "waits_for": list(step.waits_for),
                "beside": list(step.beside),
                "resources": [each.part.name for each in step.parts],
            }
            for step in plan.steps
        ],
        "resources": [
            {
                "name": name,
                "type": each.part.type,
                "begins": round(each.begins, 1),
                "ends": round(each.ends, 1),
                "waits_for": sorted(each.part.waits_for),
            }
            for name, each in plan.timed.items()
            if not each.part.component
        ],
    }


def main(stack: str, *, as_text: bool) -> int:
    """Prints the plan of the stack, as a table or as JSON."""
    plan = plan_of(stack)
    if as_text:
        show(plan)
    else:
        print(json.dumps(as_json(plan), indent=2))
    return 0
