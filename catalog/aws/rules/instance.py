"""Rules of the instance: its type, its zone, the quota that it counts against."""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Sequence

from catalog.aws.account import Account, Shape, Unanswered, Wanted, items, known
from catalog.aws.failures import quota_request
from catalog.aws.instance_types import InstanceType, counts, instance_types, nearest, quota_code
from catalog.aws.memory import gpus_used, memory_doubt, memory_problem
from catalog.aws.rules.finding import Findings, Problem, Rule
from catalog.aws.rules.lookups import (
    chosen_zone,
    data_volumes,
    exists,
    may_be,
    named_in,
    offering_zones,
    own,
    to_be_replaced,
    vcpus_of,
    without_nvidia,
)

RUNNING = ("pending", "running")
STOPPED = ("stopping", "stopped")


def zones_are_of_the_region(wanted: Wanted, account: Account) -> Findings:
    """Zones are named after their region."""
    there = sorted(each["ZoneName"] for each in items(account.zones))
    for zone in wanted["zones"]:
        setting = named_in(wanted, zone, "zones")
        if not zone.startswith(wanted["region"]):
            yield Problem(
                f"{setting}: {zone} is not in aws:region {wanted['region']}",
                f"name zones of {wanted['region']}, or set aws:region to the zone's",
            )
        elif there and zone not in there:
            yield Problem(
                f"{setting}: {zone} is not a zone of {wanted['region']} for this account",
                f"name one of {', '.join(there)}",
            )


def types_exist(wanted: Wanted, account: Account) -> Findings:
    """Every type of the list is one that EC2 or this program knows."""
    for kind in wanted["instance_types"]:
        if exists(kind, account):
            continue
        near = nearest(kind)
        hint = f"write one that EC2 has, such as {' or '.join(near or ['g6.xlarge'])}"
        setting = named_in(wanted, kind, "instance_types")
        if known(account.types):
            yield Problem(f"{setting}: EC2 has no {kind} in {wanted['region']}", hint)
        else:
            yield f"{setting}: {kind} is not known here; {hint}"


def types_run_vllm(wanted: Wanted, account: Account) -> Findings:
    """Every type of the list has whole NVIDIA GPUs that vLLM runs on."""
    if wanted["gpus"] == "none":
        return
    answered = {each.get("InstanceType") for each in items(account.types)}
    for kind in wanted["instance_types"]:
        row, setting = instance_types().get(kind), named_in(wanted, kind, "instance_types")
        if row and row.no_vllm:
            yield Problem(f"{setting}: {kind} does not run vLLM: {row.no_vllm}", f"take {_suggestion(kind)}")
        elif without_nvidia(kind, account):
            yield Problem(
                f"{setting}: {kind} has no NVIDIA GPU",
                f"take {_suggestion(kind)}, or set seatable-vllm:machine.gpus to none to try without one",
            )
        elif row is None and kind in answered:
            yield f"{kind} is newer than this program: its price and compute capability are not known here"
        for note in row.notes if row else ():
            yield f"{kind}: {note}"


def _suggestion(kind: str) -> str:
    """Types to take in place of one that does not do."""
    size = kind.partition(".")[2]
    like = [name for name in (f"g6.{size}", f"g6e.{size}") if name in instance_types()]
    return " or ".join(like or ["g6.xlarge"])


def model_fits(wanted: Wanted, account: Account) -> Findings:  # noqa: ARG001 - a rule's form
    """The model's weights fit the memory of the GPUs that it is given, on every type of the list."""
    if wanted["gpus"] == "none":
        return
    rows = [row for kind in wanted["instance_types"] if (row := instance_types().get(kind)) and not row.no_vllm]
    refused = [(row, problem) for row in rows if (problem := _too_small(wanted, row))]
    if refused:
        # One cause for all types: the first is what the machine would be.
        (first, problem), *more = refused
        others = f" (likewise {', '.join(row.name for row, _ in more)})" if more else ""
        setting = named_in(wanted, first.name, "instance_types")
        yield Problem(f"{setting}: {first.name} {problem.cause}{others}", problem.change)
    for row in rows:
        if not _too_small(wanted, row) and (doubt := memory_doubt(wanted["model"], row)):
            yield doubt


def _too_small(wanted: Wanted, row: InstanceType) -> Problem | None:
    """Why the model does not go onto the GPUs of a type, as a sentence that goes on after the type's name."""
    used = gpus_used(wanted["model"])
    if used <= row.gpus:
        return Problem(*found) if (found := memory_problem(wanted["model"], row)) else None
    return Problem(
        f"has {row.gpus} GPU{'s' if row.gpus > 1 else ''}, and seatable-vllm:model.extra_args spread the model "
        f"over {used}",
        f"lower tensor-parallel-size or pipeline-parallel-size, so that their product is {row.gpus} at most, or "
        f"take a type with {used} GPUs",
    )


def type_is_sold_in_the_zone(wanted: Wanted, account: Account) -> Findings:
    """The zone that is meant sells the type."""
    kind, region = wanted["instance_type"], wanted["region"]
    if not known(account.offerings):
        if chosen_zone(wanted, account) is None:
            yield Problem(
                f"no zone of {region} is known: ec2:DescribeAvailabilityZones does not answer",
                f"name one in seatable-vllm:machine.zones, such as {region}a",
            )
        return
    selling, setting = offering_zones(kind, account), named_in(wanted, kind, "instance_types")
    zone = chosen_zone(wanted, account)
    if to_be_replaced(wanted, account):
        return
    if not selling:
        others = [other for other in wanted["instance_types"] if other != kind and offering_zones(other, account)]
        sold = f"{', '.join(others)} of your list is sold there; put it first" if others else "take another type"
        yield Problem(
            f"{setting}: AWS does not sell {kind} in any zone of {region}", f"{sold}, or set aws:region to another"
        )
    elif zone in selling or not may_be(wanted["zones"], account):
        return
    elif zone in wanted["zones"]:
        yield Problem(
            f"{named_in(wanted, str(zone), 'zones')}: {' and '.join(wanted['zones'])} do not sell {kind}",
            f"name a zone that does: {', '.join(selling)}",
        )
    elif not own(wanted, account.instances):
        yield Problem(
            f"{setting}: {kind} is not sold in {zone}, where the stack's "
            f"{'data disk' if data_volumes(wanted, account) else 'subnet'} is",
            f"take a type that {zone} sells; {kind} is sold in {', '.join(selling)}",
        )


def quota_is_enough(wanted: Wanted, account: Account) -> Findings:
    """The account may run so many more vCPUs of this kind. A quota is asked for by the command in the answer."""
    kind, market = wanted["instance_type"], wanted["market"]
    need, code = vcpus_of(kind, account), quota_code(kind, market)
    if need is None or to_be_replaced(wanted, account) or market == "capacity-block" or wanted["reservation"]:
        return  # what is reserved has been counted already
    if known(account.offerings) and not offering_zones(kind, account):
        return  # the region does not sell it
    if code is None:
        yield f"not checked: the quota, as which one counts {kind} ({market}) is not known here"
        return
    quota = account.quotas.get(code)
    if quota is None or isinstance(quota, Unanswered):
        return
    mine = own(wanted, account.instances)
    if any(each.get("InstanceType") == kind and _state(each) in RUNNING for each in mine):
        return  # it runs
    others = [each for each in items(account.instances) if each not in mine and _state(each) in RUNNING]
    used = sum(_vcpus_in_use(each) for each in others if _counted(each, code, market))
    if used + need > quota:
        yield Problem(
            f"{named_in(wanted, kind, 'instance_types')}: {kind} needs {need} vCPUs, and the account may have "
            f"{max(0, quota - used):g} more in "
            f"{wanted['region']} (quota {code}: {quota:g}, in use: {used})",
            f"ask AWS for more, which takes minutes to days: {quota_request(code, used + need, wanted['region'])}",
        )


def the_machine_runs(wanted: Wanted, account: Account) -> Findings:
    """A stopped machine cannot say which one it is, so a preview has to take it for another."""
    for each in own(wanted, account.instances):
        if _state(each) in STOPPED:
            yield (
                f"{each.get('InstanceId')}, the machine, is {_state(each)}; scripts/up {wanted['stack']} "
                "starts it. What a preview shows as replaced on it until then stays as it is"
            )


def _state(instance: Shape) -> str:
    return str(instance.get("State", {}).get("Name"))


def _counted(instance: Shape, code: str, market: str) -> bool:
    lifecycle = instance.get("InstanceLifecycle", "on-demand")
    return bool(lifecycle == market and counts(code, str(instance.get("InstanceType"))))


def _vcpus_in_use(instance: Shape) -> int:
    row = instance_types().get(str(instance.get("InstanceType")))
    if row:
        return row.vcpus
    options = instance.get("CpuOptions", {})
    return int(options.get("CoreCount", 0)) * int(options.get("ThreadsPerCore", 1))


def reservation_suits(wanted: Wanted, account: Account) -> Findings:
    """The reservation is there, of this type, in a zone that is meant."""
    if wanted["reservation"] is None or not known(account.reservations):
        return
    name = f"seatable-vllm:machine.reservation: {wanted['reservation']}"
    if not items(account.reservations):
        yield Problem(f"{name} is not in {wanted['region']}", "correct it, or remove it")
    for each in items(account.reservations):
        kind, zone = each.get("InstanceType"), each.get("AvailabilityZone")
        if each.get("State") not in ("active", "scheduled", None):
            yield Problem(f"{name} is {each.get('State')}", "name another, or remove it")
            continue
        if kind != wanted["instance_type"] and not to_be_replaced(wanted, account):
            yield Problem(
                f"{name} is for {kind}, and the machine is {wanted['instance_type']}",
                f"set seatable-vllm:machine.instance_types to [{kind}]",
            )
        if zone != chosen_zone(wanted, account) and may_be(wanted["zones"], account):
            yield Problem(
                f"{name} is in {zone}, and the machine is to be in {chosen_zone(wanted, account)}",
                f"set seatable-vllm:machine.zones to [{zone}]",
            )


def time_zone_exists(wanted: Wanted, account: Account) -> Findings:  # noqa: ARG001 - a rule's form
    """The time zone of the daily stop is in the IANA's list, as AWS's scheduler wants it."""
    known_zones, name = zoneinfo.available_timezones(), wanted["time_zone"]
    if known_zones and name not in known_zones:
        near = difflib.get_close_matches(name, known_zones, n=2) or ["Europe/Berlin"]
        yield Problem(
            f"seatable-vllm:machine.cost.time_zone: there is no time zone {name}",
            f"write one of the IANA's list, such as {' or '.join(near)}",
        )


INSTANCE_RULES: Sequence[Rule] = (
    zones_are_of_the_region,
    types_exist,
    types_run_vllm,
    model_fits,
    type_is_sold_in_the_zone,
    quota_is_enough,
    the_machine_runs,
    reservation_suits,
    time_zone_exists,
)
