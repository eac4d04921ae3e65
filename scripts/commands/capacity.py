"""Where a machine on AWS lands: the types and zones of its stack, tried in order until one has capacity.

The winner is written into the stack's file as `machine.placed`, so that no later run, nor `pulumi up`, moves it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from catalog.aws.failures import answer_to, code_in, quota_request
from catalog.aws.instance_types import quota_code
from rehearsal.stack_file import stack_file
from scripts.commands.aws import MAY_NOT, Aws, AwsRefused, AwsStack, Volume
from scripts.commands.errors import CommandError
from scripts.commands.stacks import set_in_stack_file
from settings import AwsMachine
from settings.aws import Placement

T = TypeVar("T")
Say = Callable[[str], None]

QUOTAS = {"VcpuLimitExceeded": "on-demand", "MaxSpotInstanceCountExceeded": "spot"}
"""Codes that say that a quota is too small, and the market whose quota that is."""

NOT_THERE = ("NotFound", "Malformed")
"""Endings of the codes of EC2 that say that what a setting names is not there."""

_LIMIT = re.compile(r"current vCPU limit of (\d+)")


class Refused(CommandError):  # noqa: N818 - reads as what happened
    """AWS did not make the machine at `place`. code: its error code. seen: the line that has it."""

    def __init__(self, place: Placement, code: str, text: str, whole: str | None = None) -> None:
        super().__init__(text, whole)
        self.place = place
        self.code = code
        self.seen = next((line.strip() for line in self.whole.splitlines() if code in line), code)


class NoCapacity(CommandError):  # noqa: N818 - reads as what happened
    """No candidate was left."""


class NoCandidate(Exception):  # noqa: N818 - reads as what happened
    """AWS sells no type of the stack where it may be; the program's look at the account says why."""


def walk(candidates: Iterable[Placement], try_one: Callable[[Placement], T], say: Say) -> tuple[Placement, T]:
    """The first candidate that `try_one` does not raise Refused for, and what it returned.

    Each attempt and its answer is said in one line. Raises the Refused of a code that no other place helps
    against, NoCapacity where no candidate is left, and NoCandidate where there was none; whatever else `try_one`
    raises ends the walk.
    """
    refused: list[str] = []
    passed: set[str] = set()
    for candidate in candidates:
        if candidate.instance_type in passed:
            continue
        try:
            result = try_one(candidate)
        except Refused as error:
            answer = answer_to(error.code)
            refused.append(f"{where(candidate)}: {error.code}")
            say(f"{refused[-1]}; {answer}")
            if answer == "stop":
                raise
            if answer == "next type":
                passed.add(candidate.instance_type)
        else:
            say(f"{where(candidate)}: made")
            return candidate, result
    if not refused:
        raise NoCandidate
    raise NoCapacity(
        f"cause: AWS has none of these machines now: {', '.join(refused)}\n"
        "change: try again later, or name more types in seatable-vllm:machine.instance_types, or more zones"
    )


def where(place: Placement) -> str:
    """A candidate in words."""
    return f"{place.instance_type} in {place.zone}"


def candidates(
    machine: AwsMachine, offered: Callable[[str], Sequence[str]], only: str | None = None
) -> Iterator[Placement]:
    """Types x the zones that offer them, in the stack's order; where the machine was before comes first.

    offered: the zones that offer a type, asked when its turn comes. only: the one zone that is left, or None.
    """
    seen = set()
    if machine.placed and only in (None, machine.placed.zone):
        seen.add((machine.placed.instance_type, machine.placed.zone))
        yield machine.placed
    for instance_type in machine.instance_types:
        offering = offered(instance_type)
        for zone in [only] if only else machine.zones or offering:
            if zone in offering and (instance_type, zone) not in seen:
                seen.add((instance_type, zone))
                yield Placement(instance_type=instance_type, zone=zone)


def deploy_somewhere(stack: AwsStack, deploy: Callable[[], T], say: Say) -> T:
    """Runs `deploy` with the machine where it is, or else where AWS has capacity for it.

    Afterwards the stack's file says where the machine is, or, where none could be made, what it said before.
    """
    machine, volume = stack.machine, _holding(stack)
    there = stack.aws.instance(stack.name)
    if there:
        _refuse_another_zone(stack, volume)
        if machine.placed is None:
            _write(stack, Placement(instance_type=there.instance_type, zone=there.zone))
        elif machine.placed.instance_type not in machine.instance_types:
            say(
                f"the machine stays a {machine.placed.instance_type}, which machine.instance_types does not name: "
                "to change it, set machine.placed.instance_type"
            )
        return deploy()
    if volume:
        say(f"{volume.id}, the data volume, is in {volume.zone}, so no other zone is tried")
    try:
        return _walk_and_write(stack, _places(stack, volume), deploy, say)
    except NoCandidate:
        return deploy()
    except Refused as error:
        raise _explained(error, stack.aws) from None
    except NoCapacity as error:
        raise CommandError(f"{error}\n{stack.how_to_move(volume)}" if volume else str(error)) from None


def _walk_and_write(stack: AwsStack, places: Iterable[Placement], deploy: Callable[[], T], say: Say) -> T:
    before = _Before(stack)
    asked: list[Placement] = []

    def try_one(place: Placement) -> T:
        before.write(place)
        if not asked:  # the answer to each is a line already
            say(f"asking AWS for {where(place)}")
        asked.append(place)
        try:
            return deploy()
        except CommandError as error:
            code = code_in(error.whole)
            # A log may look like a code of AWS. Where the machine was made, it did not lack capacity.
            if code is None or stack.aws.instance(stack.name):
                raise
            raise Refused(place, code, str(error), error.whole) from None

    try:
        return walk(places, try_one, say)[1]
    except BaseException:
        # Interrupted, or failed after the machine was made: then it is where the file says now.
        if not _is_there(stack):
            before.restore()
        raise


class _Before:
    """The stack's file as it was before the walk; Pulumi itself may write into it meanwhile (encryptionsalt)."""

    def __init__(self, stack: AwsStack) -> None:
        self._stack = stack
        self._path = stack_file(stack.name, stack.project)
        self._text = self._ours = self._path.read_text()
        self._others = False

    def write(self, place: Placement) -> None:
        self._others = self._others or self._path.read_text() != self._ours
        _write(self._stack, place)
        self._ours = self._path.read_text()

    def restore(self) -> None:
        if self._others or self._path.read_text() != self._ours:
            _write(self._stack, self._stack.machine.placed)
        else:
            self._path.write_text(self._text)


def _write(stack: AwsStack, place: Placement | None) -> None:
    value = place.model_dump() if place else None
    set_in_stack_file(stack.name, ("machine", "placed"), value, stack.project)


def _is_there(stack: AwsStack) -> bool:
    """Whether the machine was made; also where AWS does not say: a next run may begin at either."""
    try:
        return stack.aws.instance(stack.name) is not None
    except CommandError:
        return True


def _places(stack: AwsStack, volume: Volume | None) -> Iterable[Placement]:
    machine, aws = stack.machine, stack.aws

    def offered(instance_type: str) -> Sequence[str]:
        try:
            return aws.zones_with(instance_type)
        except AwsRefused as refused:
            if refused.code not in MAY_NOT or not (only or machine.zones):
                raise
            return [only] if only else machine.zones

    try:
        if machine.reservation:
            instance_type, zone = aws.reserved(machine.reservation)
            return [Placement(instance_type=instance_type, zone=zone)]
        only = volume.zone if volume else aws.zone_of_subnet(machine.subnet) if machine.subnet else None
    except AwsRefused as refused:
        if not refused.code.endswith(NOT_THERE):
            raise
        return []
    return candidates(machine, offered, only)


def _holding(stack: AwsStack) -> Volume | None:
    """The volume that holds the machine in its zone; None where it is to be made anew, from a snapshot."""
    volume, wanted = stack.aws.data_volume(stack.name), stack.machine.data_disk.snapshot
    return None if volume is None or (wanted and volume.snapshot != wanted) else volume


def _refuse_another_zone(stack: AwsStack, volume: Volume | None) -> None:
    placed = stack.machine.placed
    if volume and placed and placed.zone != volume.zone:
        raise CommandError(
            f"cause: seatable-vllm:machine.placed.zone is {placed.zone}, and {volume.id}, the data volume, is in "
            f"{volume.zone}: it would be made anew, empty\nchange: set it back to {volume.zone}\n"
            f"{stack.how_to_move(volume)}"
        )


def _explained(error: Refused, aws: Aws) -> CommandError:
    """A code that ends the walk, with the line to paste where it is a quota."""
    market = QUOTAS.get(error.code)
    if market is None:
        return CommandError(str(error), error.whole)
    instance_type = error.place.instance_type
    limit = _LIMIT.search(error.seen)
    wanted = (int(limit[1]) if limit else 0) + aws.vcpus_of(instance_type)
    request = quota_request(quota_code(instance_type, market) or "CODE", wanted, aws.region)
    return CommandError(
        f"cause: the quota of vCPUs is too small for a {instance_type} ({market}), in every zone\n"
        f"change: ask for more with the next line and wait for AWS's mail, or name a smaller type\n{request}\n"
        f"seen: {error.seen}"
    )
