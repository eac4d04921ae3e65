"""Rules of the instance: its type, its zone, the quota that it counts against."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.aws.account import Account, Shape, Unanswered, Wanted, items, known
from catalog.aws.failures import quota_request
from catalog.aws.instance_types import counts, instance_types, nearest, quota_code
from catalog.aws.memory import gpus_used, memory_doubt, memory_problem
from catalog.aws.rules.finding import Findings, Problem, Rule
from catalog.aws.rules.lookups import chosen_zone, may_be, offering_zones, own, vcpus_of

RUNNING = ("pending", "running")
STOPPED = ("stopping", "stopped")


def zones_are_of_the_region(wanted: Wanted, account: Account) -> Findings:
    """Zones are named after their region."""
    there = sorted(each["ZoneName"] for each in items(account.zones))
    for zone in wanted["zones"]:
        if not zone.startswith(wanted["region"]):
            yield Problem(
                f"seatable-vllm:machine.zones: {zone} is not in aws:region {wanted['region']}",
                f"name zones of {wanted['region']}, or set aws:region to the zone's",
            )
        elif there and zone not in there:
            yield Problem(
                f"seatable-vllm:machine.zones: {wanted['region']} has no zone {zone} for this account",
                f"it has {', '.join(there)}",
            )


def types_exist(wanted: Wanted, account: Account) -> Findings:
    """Every type of the list is one that EC2 or this program knows."""
    for kind in wanted["instance_types"]:
        if exists(kind, account):
            continue
        near = nearest(kind)
        hint = f"did you mean {' or '.join(near)}?" if near else "see catalog/aws/instance_types.json"
        if known(account.types):
            yield Problem(f"seatable-vllm:machine.instance_types: EC2 has no {kind} in {wanted['region']}", hint)
        else:
            yield f"seatable-vllm:machine.instance_types: {kind} is not known here; {hint}"


def exists(kind: str, account: Account) -> bool:
    """Whether EC2 or this program knows a type; of another one nothing more is to be said."""
    told = [each.get("InstanceType") for each in (*items(account.types), *items(account.offerings))]
    return kind in instance_types() or kind in told


def types_run_vllm(wanted: Wanted, account: Account) -> Findings:
    """Every type of the list has whole NVIDIA GPUs that vLLM runs on."""
    if wanted["gpus"] == "none":
        return
    answered = {each.get("InstanceType"): each for each in items(account.types)}
    for kind in wanted["instance_types"]:
        row, told = instance_types().get(kind), answered.get(kind)
        makers = {gpu.get("Manufacturer") for gpu in (told or {}).get("GpuInfo", {}).get("Gpus", [])}
        if row and row.no_vllm:
            yield Problem(f"{kind} does not run vLLM: {row.no_vllm}", f"take {_suggestion(kind)}")
        elif row is None and told and "NVIDIA" not in makers:
            yield Problem(
                f"{kind} has no NVIDIA GPU",
                f"take {_suggestion(kind)}, or set seatable-vllm:machine.gpus to none to try without one",
            )
        elif row is None and told:
            yield f"{kind} is newer than this program: its price and compute capability are not known here"
        for note in row.notes if row else ():
            yield f"{kind}: {note}"


def _suggestion(kind: str) -> str:
    """Types to take in place of one that does not do."""
    size = kind.partition(".")[2]
    like = [name for name in (f"g6.{size}", f"g6e.{size}") if name in instance_types()]
    return " or ".join(like or ["g6.xlarge"]) + " (seatable-vllm:machine.instance_types)"


def model_fits(wanted: Wanted, account: Account) -> Findings:  # noqa: ARG001 - a rule's form
    """The model's weights fit the memory of the GPUs that it is given, on every type of the list."""
    if wanted["gpus"] == "none":
        return
    used = gpus_used(wanted["model"])
    for kind in wanted["instance_types"]:
        row = instance_types().get(kind)
        if row is None or row.no_vllm:
            continue
        if used > row.gpus:
            yield Problem(
                f"seatable-vllm:model.extra_args spread the model over {used} GPUs, and {kind} has {row.gpus}",
                f"lower tensor-parallel-size to {row.gpus}, or take a type with {used} GPUs",
            )
        elif problem := memory_problem(wanted["model"], row):
            yield Problem(*problem)
        elif doubt := memory_doubt(wanted["model"], row):
            yield doubt


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
    selling = offering_zones(kind, account)
    if _runs_no_vllm(wanted) or (known(account.types) and not exists(kind, account)):
        return  # another type is to be taken anyway
    if not selling:
        others = [other for other in wanted["instance_types"] if other != kind and offering_zones(other, account)]
        sold = f"{', '.join(others)} of your list is sold there; put it first" if others else "take another type"
        yield Problem(f"{region} does not sell {kind} in any zone", f"{sold}, or set aws:region to another")
    elif wanted["zones"] and may_be(wanted["zones"], account) and not set(wanted["zones"]) & set(selling):
        yield Problem(
            # Begins with the code of EC2, so that whoever goes from zone to zone goes on to the next.
            f"Unsupported: {', '.join(wanted['zones'])} (seatable-vllm:machine.zones) does not sell {kind}",
            f"in {region} it is sold in {', '.join(selling)}",
        )


def quota_is_enough(wanted: Wanted, account: Account) -> Findings:
    """The account may run so many more vCPUs of this kind. A quota is asked for by the command in the answer."""
    kind, market = wanted["instance_type"], wanted["market"]
    need, code = vcpus_of(kind, account), quota_code(kind, market)
    if need is None or _runs_no_vllm(wanted) or market == "capacity-block" or wanted["reservation"]:
        return  # what is reserved has been counted already
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
            f"{kind} needs {need} vCPUs, and the account may have {max(0, quota - used):g} more in "
            f"{wanted['region']} (quota {code}: {quota:g}, in use: {used})",
            f"ask AWS for more, which takes minutes to days: {quota_request(code, used + need, wanted['region'])}",
        )


def _runs_no_vllm(wanted: Wanted) -> bool:
    """Whether another type is to be taken anyway."""
    row = instance_types().get(wanted["instance_type"])
    return bool(wanted["gpus"] == "auto" and row and row.no_vllm)


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
        if kind != wanted["instance_type"]:
            yield Problem(
                f"{name} is for {kind}, and the machine is {wanted['instance_type']}",
                f"set seatable-vllm:machine.instance_types to [{kind}]",
            )
        if zone != chosen_zone(wanted, account) and may_be(wanted["zones"], account):
            yield Problem(
                f"{name} is in {zone}, and the machine is to be in {chosen_zone(wanted, account)}",
                f"set seatable-vllm:machine.zones to [{zone}]",
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
)
