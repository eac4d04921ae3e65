"""Rules of the image and the disks."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.aws.account import Account, Unanswered, Wanted, items, known
from catalog.aws.images import login, root_gib, supported_families
from catalog.aws.instance_types import family_of
from catalog.aws.rules.finding import Findings, Problem, Rule
from catalog.aws.rules.lookups import data_volumes, may_be, named_in, own, processors_of, to_be_replaced
from catalog.models import KNOWN_MODELS

IMAGE_GIB = {"auto": 30, "none": 8}
"""Room for the engine's image beside what the AMI holds, with and without a GPU: what the machine's gate wants."""

CACHE_GIB = 5
"""Room on the data disk for compile caches and certificates."""

USABLE = 0.94
"""Part of a disk that files get: ext4 keeps five per cent for root, and its tables need some."""


def image_suits(wanted: Wanted, account: Account) -> Findings:
    """The image is there, of the type's processor, and made for its family."""
    kind, region, images = wanted["instance_type"], wanted["region"], account.images
    if isinstance(images, Unanswered) and account.image_id:
        return  # it may be there all the same
    other_type = to_be_replaced(wanted, account)
    if other_type and not wanted["ami"]:
        return  # that one has its own image
    if isinstance(images, Unanswered) or not items(images):
        why = f" ({images.call} {images.why})" if isinstance(images, Unanswered) else ""
        yield (
            Problem(
                f"seatable-vllm:machine.ami: {wanted['ami']} is not in {region}, or not for this account{why}",
                "correct it, or remove it: then the newest Deep Learning Base AMI is taken",
            )
            if wanted["ami"]
            else Problem(
                f"seatable-vllm:machine.ami: none is named, and AWS's Deep Learning Base AMI is not found in "
                f"{region}{why}",
                "name an image, or allow the credentials ssm:GetParameter and ec2:DescribeImages",
            )
        )
        return
    if other_type:
        return
    image = items(images)[0]
    processors = processors_of(kind, account)
    name = f"seatable-vllm:machine.ami: {image['ImageId']}"
    if not wanted["ami"]:
        name += " (the newest Deep Learning Base AMI)"
    if image.get("State", "available") != "available":
        yield Problem(f"{name} is {image['State']}", "name another")
    if processors and image.get("Architecture", processors[0]) not in processors:
        yield Problem(
            f"{name} is for {image['Architecture']}, and {kind} has {' or '.join(processors)}",
            f"name an image for {' or '.join(processors)}, or remove the setting: then the newest Deep Learning "
            "Base AMI is taken",
        )
    families = supported_families(str(image.get("Description", "")))
    if wanted["gpus"] == "auto" and families and family_of(kind) not in families:
        yield Problem(
            f"{name} does not support {family_of(kind)}: its driver is made for {', '.join(sorted(families))}",
            f"take a type of these families ({named_in(wanted, kind, 'instance_types')}), or name an image with "
            f"a driver for {family_of(kind)}",
        )
    if login(image) is None:
        yield f"{name} does not say who logs in: ubuntu is tried"


def disks_are_large_enough(wanted: Wanted, account: Account) -> Findings:
    """The first disk holds the image and the engine's image, the data disk the weights."""
    root, images = wanted["root_disk_gib"], items(account.images)
    least = root_gib(images[0]) if images else None
    room = IMAGE_GIB[wanted["gpus"]]
    if least and root < least:
        yield Problem(
            f"seatable-vllm:machine.root_disk_gib: {root} is less than the image's own {least}",
            f"set it to {least + room} or more",
        )
    elif least and root < least + room:
        left = root - least
        yield f"seatable-vllm:machine.root_disk_gib: {root} leaves {left} GiB for the engine, which wants {room}"
    model, gib = KNOWN_MODELS.get(wanted["model"]["name"]), wanted["data_disk_gib"]
    need = (model.weights_gib if model else 0) + CACHE_GIB
    if gib * USABLE < need:
        yield Problem(
            f"seatable-vllm:machine.data_disk.gib: {gib} does not hold {need - CACHE_GIB:.3g} GiB of weights of "
            f"{wanted['model']['name']} and {CACHE_GIB} GiB of caches",
            f"set it to {int(need / USABLE) + 1} or more",
        )


def data_disk_only_grows(wanted: Wanted, account: Account) -> Findings:
    """EC2 makes no volume smaller. One that is at no machine may be what an earlier stack has left."""
    for each in data_volumes(wanted, account):
        there = int(each.get("Size", 0))
        if each.get("Attachments") and there > wanted["data_disk_gib"]:
            yield Problem(
                f"seatable-vllm:machine.data_disk.gib: {wanted['data_disk_gib']} is less than the {there} of the "
                f"stack's data disk {each.get('VolumeId')}, and no volume can be made smaller",
                f"set it to {there} or more; a smaller disk is a new stack's",
            )


def machine_keeps_its_processor(wanted: Wanted, account: Account) -> Findings:
    """An image that nobody has named stays with its machine, and is for one kind of processor."""
    kind = wanted["instance_type"]
    processors = processors_of(kind, account)
    for each in own(wanted, account.instances):
        processor = each.get("Architecture")
        if wanted["ami"] or not processors or processor in (None, *processors) or to_be_replaced(wanted, account):
            continue
        newest = account.image_id or "one of that processor"
        yield Problem(
            f"{named_in(wanted, kind, 'instance_types')}: {kind} has {' or '.join(processors)}, and the machine "
            f"{each.get('InstanceId')} has an image for "
            f"{processor}, which it keeps",
            f"set seatable-vllm:machine.ami to {newest}: the machine is then made anew from that, with its data, "
            "address and name",
        )


def snapshot_is_there(wanted: Wanted, account: Account) -> Findings:
    """The snapshot that the data disk begins with is whole, and not larger than the disk."""
    if wanted["snapshot"] is None or account.snapshots is None:
        return
    name = f"seatable-vllm:machine.data_disk.snapshot: {wanted['snapshot']}"
    if known(account.snapshots) and not items(account.snapshots):
        yield Problem(
            f"{name} is not in {wanted['region']}", "correct it, or remove it to begin with an empty disk"
        )
    for each in items(account.snapshots):
        if each.get("State", "completed") != "completed":
            yield Problem(f"{name} is {each['State']}", "wait until it is completed")
        if int(each.get("VolumeSize", 0)) > wanted["data_disk_gib"]:
            yield Problem(
                f"seatable-vllm:machine.data_disk.gib: {wanted['data_disk_gib']} is less than the snapshot's "
                f"{each['VolumeSize']}",
                f"set it to {each['VolumeSize']} or more",
            )


def machine_is_where_its_data_is(wanted: Wanted, account: Account) -> Findings:
    """A disk cannot be attached in another zone."""
    zones = wanted["zones"]
    for each in data_volumes(wanted, account):
        there = each.get("AvailabilityZone")
        if zones and there not in zones and may_be(zones, account):
            yield Problem(
                f"the stack's data disk {each.get('VolumeId')} is in {there}, and the machine is to be in "
                f"{' or '.join(zones)} ({named_in(wanted, zones[0], 'zones')})",
                f"set seatable-vllm:machine.placed.zone (or machine.zones) to {there}; or make a snapshot of the "
                "disk, name it in machine.data_disk.snapshot, and remove the disk",
            )
        elif len({volume.get("AvailabilityZone") for volume in data_volumes(wanted, account)}) > 1:
            yield f"the stack has data disks in several zones; {each.get('VolumeId')} is in {there}"


DISK_RULES: Sequence[Rule] = (
    image_suits,
    machine_keeps_its_processor,
    disks_are_large_enough,
    data_disk_only_grows,
    snapshot_is_there,
    machine_is_where_its_data_is,
)
