"""What several rules ask of an account's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from catalog.aws.account import Account, Answered, Shape, Wanted, items, known
from catalog.aws.instance_types import instance_types
from catalog.aws.tags import DATA_ROLE, ROLE, belongs_to, tags_on


def vcpus_of(kind: str, account: Account) -> int | None:
    """vCPUs of a type: EC2's answer, else this program's table."""
    for each in items(account.types):
        if each.get("InstanceType") == kind and "VCpuInfo" in each:
            return int(each["VCpuInfo"]["DefaultVCpus"])
    row = instance_types().get(kind)
    return row.vcpus if row else None


def processors_of(kind: str, account: Account) -> Sequence[str]:
    """Processor architectures that a type runs, as AMIs name them; none where that is not known."""
    for each in items(account.types):
        if each.get("InstanceType") == kind and "ProcessorInfo" in each:
            return [str(name) for name in each["ProcessorInfo"].get("SupportedArchitectures", [])]
    row = instance_types().get(kind)
    return [row.processor] if row else []


def named_in(wanted: Wanted, name: str, setting: Literal["instance_types", "zones"]) -> str:
    """The setting that has a type or a zone: a list, or where the machine was placed by hand."""
    if name not in wanted["placed_only"]:
        return f"seatable-vllm:machine.{setting}"
    return "seatable-vllm:machine.placed." + {"instance_types": "instance_type", "zones": "zone"}[setting]


def exists(kind: str, account: Account) -> bool:
    """Whether EC2 or this program knows a type; of another one nothing more is to be said."""
    listed = [each.get("InstanceType") for each in (*items(account.types), *items(account.offerings))]
    return kind in instance_types() or kind in listed


def without_nvidia(kind: str, account: Account) -> bool:
    """Whether EC2 says that a type has no NVIDIA GPU."""
    listed = next((each for each in items(account.types) if each.get("InstanceType") == kind), None)
    makers = {gpu.get("Manufacturer") for gpu in (listed or {}).get("GpuInfo", {}).get("Gpus", [])}
    return listed is not None and kind not in instance_types() and "NVIDIA" not in makers


def to_be_replaced(wanted: Wanted, account: Account) -> bool:
    """Whether another type is to be taken anyway: one that is there, and that runs vLLM where it is to."""
    kind = wanted["instance_type"]
    if known(account.types) and not exists(kind, account):
        return True
    row = instance_types().get(kind)
    return wanted["gpus"] == "auto" and (bool(row and row.no_vllm) or without_nvidia(kind, account))


def offering_zones(kind: str, account: Account) -> list[str]:
    """The zones that sell this type, by name: whole availability zones that are up."""
    usable = {
        each["ZoneName"]
        for each in items(account.zones)
        if each.get("State", "available") == "available"
        and each.get("ZoneType", "availability-zone") == "availability-zone"
    }
    if not known(account.offerings):
        return sorted(usable)
    selling = {each["Location"] for each in items(account.offerings) if each.get("InstanceType") == kind}
    return sorted(selling & usable if usable else selling)


def may_be(zones: Sequence[str], account: Account) -> bool:
    """Whether no zones are named, or one of them is there; of zones that are not, their own rule speaks alone."""
    names = {each.get("ZoneName") for each in items(account.zones)}
    return not zones or not names or bool(set(zones) & names)


def own(wanted: Wanted, things: Answered) -> list[Shape]:
    """Those that are the stack's."""
    return [each for each in items(things) if belongs_to(wanted["stack"], each)]


def data_volumes(wanted: Wanted, account: Account) -> list[Shape]:
    """The stack's data disk, if it is there and will be kept.

    It is the volume of the stack that does not end with its instance, and has the role if any has. One that did
    not begin with the snapshot that the stack names will be made anew, in any zone.
    """
    ending = {
        mapping.get("Ebs", {}).get("VolumeId")
        for instance in items(account.instances)
        for mapping in instance.get("BlockDeviceMappings", [])
        if mapping.get("Ebs", {}).get("DeleteOnTermination")
    }
    found = [
        each
        for each in own(wanted, account.volumes)
        if each.get("VolumeId") not in ending
        and not any(link.get("DeleteOnTermination") for link in each.get("Attachments", []))
        and each.get("State") not in ("deleting", "deleted")
        and wanted["snapshot"] in (None, each.get("SnapshotId"))
    ]
    return [each for each in found if tags_on(each).get(ROLE) == DATA_ROLE] or found


def chosen_zone(wanted: Wanted, account: Account) -> str | None:
    """The zone for the machine: where something of the stack ties it, else the first that sells the type."""
    tied = [each.get("AvailabilityZone") for each in items(account.subnets)]
    tied += [each.get("AvailabilityZone") for each in data_volumes(wanted, account)]
    tied += [each.get("Placement", {}).get("AvailabilityZone") for each in own(wanted, account.instances)]
    held = next((str(zone) for zone in tied if zone), None)
    if held and (not wanted["zones"] or held in wanted["zones"]):
        return held
    selling = offering_zones(wanted["instance_type"], account)
    if not wanted["zones"]:
        return selling[0] if selling else None
    return next((zone for zone in wanted["zones"] if zone in selling), wanted["zones"][0])
