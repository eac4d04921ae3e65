"""A stack on AWS as the commands see it: its instance, its data volume, what the region offers.

boto3 takes a third of a second to load, which no other stack is to wait for: it is imported where AWS is asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.aws.tags import tags_of
from catalog.failures import explain
from rehearsal.stack_file import stack_config
from scripts.commands.errors import CommandError, failure
from scripts.commands.stacks import PROJECT
from settings import AwsMachine, Settings
from settings.aws import refused_region

if TYPE_CHECKING:
    from types_boto3_ec2.client import EC2Client
    from types_boto3_ec2.type_defs import VolumeTypeDef

MAY_NOT = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")

ALIVE = ("pending", "running", "stopping", "stopped")
"""States of an instance that can serve again; the others are on their way out."""

ROOT_DEVICES = ("/dev/sda1", "/dev/xvda")
"""What EC2 calls the disk that an instance starts from."""


@dataclass(frozen=True)
class Instance:
    """An instance of a stack, as EC2 tells it."""

    id: str
    state: str
    instance_type: str
    zone: str


@dataclass(frozen=True)
class Volume:
    """A stack's data volume. snapshot: what it was made from, or empty. attached: whether an instance has it."""

    id: str
    zone: str
    gib: int
    snapshot: str
    attached: bool


class AwsRefused(CommandError):  # noqa: N818 - reads as what happened
    """AWS answered a request with an error. code: its code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Aws:
    """One region of the account that the credentials on this computer lead to."""

    def __init__(self, region: str, profile: str | None = None) -> None:
        self.region = region
        self.profile = profile

    def instance(self, stack: str) -> Instance | None:
        """The stack's instance; None where there is none, or it is being terminated."""
        wanted = [*_by_tags(tags_of(stack)), {"Name": "instance-state-name", "Values": list(ALIVE)}]
        with asking(f"for the instance of {stack}", "ec2:DescribeInstances"):
            pages = self.ec2.get_paginator("describe_instances").paginate(Filters=wanted)  # type: ignore[arg-type]
            found = [each for page in pages for group in page["Reservations"] for each in group["Instances"]]
        # While one is replaced there may be two; the younger one stays.
        newest = max(found, key=lambda each: each["LaunchTime"], default=None)
        if newest is None:
            return None
        return Instance(
            newest["InstanceId"],
            newest["State"]["Name"],
            newest["InstanceType"],
            newest["Placement"]["AvailabilityZone"],
        )

    def data_volume(self, stack: str) -> Volume | None:
        """The stack's data volume; None where there is none. An instance's own disk goes with it, and is none."""
        wanted = _by_tags(tags_of(stack))
        with asking(f"for the data volume of {stack}", "ec2:DescribeVolumes"):
            pages = self.ec2.get_paginator("describe_volumes").paginate(Filters=wanted)  # type: ignore[arg-type]
            found = [each for page in pages for each in page["Volumes"] if _outlives_its_instance(each)]
        newest = max(found, key=lambda each: (each["State"] == "in-use", each["CreateTime"]), default=None)
        if newest is None:
            return None
        return Volume(
            newest["VolumeId"],
            newest["AvailabilityZone"],
            newest["Size"],
            newest.get("SnapshotId", ""),
            newest["State"] == "in-use",
        )

    def snapshots(self, stack: str) -> list[str]:
        """Ids of the snapshots of the stack's data volume, the youngest first."""
        wanted = _by_tags(tags_of(stack))
        with asking(f"for snapshots of {stack}", "ec2:DescribeSnapshots"):
            pages = self.ec2.get_paginator("describe_snapshots").paginate(
                OwnerIds=["self"],
                Filters=wanted,  # type: ignore[arg-type]
            )
            found = [each for page in pages for each in page["Snapshots"]]
        return [each["SnapshotId"] for each in sorted(found, key=lambda each: each["StartTime"], reverse=True)]

    def zones_with(self, instance_type: str) -> list[str]:
        """The region's availability zones that offer this type, by name; no local zones."""
        with asking(f"which zones have {instance_type}", "ec2:DescribeInstanceTypeOfferings"):
            zones = self.ec2.describe_availability_zones(
                Filters=[
                    {"Name": "zone-type", "Values": ["availability-zone"]},
                    {"Name": "state", "Values": ["available"]},
                ]
            )
            offers = self.ec2.describe_instance_type_offerings(
                LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}]
            )
        known = {zone["ZoneName"] for zone in zones["AvailabilityZones"]}
        return sorted(known & {offer["Location"] for offer in offers["InstanceTypeOfferings"]})

    def zone_of_subnet(self, subnet: str) -> str:
        """The zone that a subnet is in; an instance in it can be nowhere else."""
        with asking(f"for {subnet}", "ec2:DescribeSubnets"):
            return self.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailabilityZone"]

    def reserved(self, reservation: str) -> tuple[str, str]:
        """Type and zone of a capacity reservation."""
        with asking(f"for {reservation}", "ec2:DescribeCapacityReservations"):
            answer = self.ec2.describe_capacity_reservations(CapacityReservationIds=[reservation])
        found = answer["CapacityReservations"][0]
        return found["InstanceType"], found["AvailabilityZone"]

    def vcpus_of(self, instance_type: str) -> int:
        """vCPUs of an instance type, which is what quotas count."""
        with asking(f"for {instance_type}", "ec2:DescribeInstanceTypes"):
            answer = self.ec2.describe_instance_types(InstanceTypes=[instance_type])  # type: ignore[list-item]
        return answer["InstanceTypes"][0]["VCpuInfo"]["DefaultVCpus"]

    @cached_property
    def ec2(self) -> "EC2Client":
        """The client; a start that meets no capacity is to say so, and not to be tried for minutes."""
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        try:
            session = boto3.Session(region_name=self.region, profile_name=self.profile)
            return session.client("ec2", config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
        except BotoCoreError as error:
            raise _unreachable(error) from None


@dataclass(frozen=True)
class AwsStack:
    """A stack whose machine is made on AWS."""

    name: str
    machine: AwsMachine
    aws: Aws
    project: Path = PROJECT

    def how_to_move(self, volume: Volume) -> str:
        """How the machine gets into another zone with its data, in words."""
        return (
            f"change: or move the data out of {volume.zone} by a snapshot: aws ec2 create-snapshot --region "
            f"{self.aws.region} --volume-id {volume.id}; when it is completed, scripts/down {self.name}; then in "
            f"Pulumi.{self.name}.yaml set machine.data_disk.snapshot to its id, remove machine.placed, and "
            f"scripts/up {self.name}"
        )


def what_stays(stack: AwsStack) -> list[str]:
    """What of a removed stack is still on the bill, each with the command that ends it."""
    aws = stack.aws
    try:
        volume, snapshots = aws.data_volume(stack.name), aws.snapshots(stack.name)
    except CommandError as error:
        return [f"whether a data volume or a snapshot stays on the bill could not be seen:\n{error}"]
    found = [(f"{each} (a snapshot of the data)", f"delete-snapshot --snapshot-id {each}") for each in snapshots]
    if volume:
        what = f"{volume.id} (the data volume, {volume.gib} GiB in {volume.zone})"
        found.append((what, f"delete-volume --volume-id {volume.id}"))
    return [f"stays on the bill: {what}; aws ec2 --region {aws.region} {end}" for what, end in found]


def aws_stack(stack: str, settings: Settings, project: Path = PROJECT) -> AwsStack | None:
    """The stack where its machine is made on AWS, else None.

    CommandError where no region is named, or a zone is of another.
    """
    if not isinstance(settings.machine, AwsMachine):
        return None
    aws = region_of(stack, project)
    if elsewhere := settings.machine.zone_elsewhere(aws.region):
        raise failure(*elsewhere)
    return AwsStack(stack, settings.machine, aws, project)


def region_of(stack: str, project: Path = PROJECT) -> Aws:
    """The region that the stack's file names. CommandError where it names none, as the program takes no other."""
    config = stack_config(stack, project, secret="")
    profile = config.get("aws:profile")
    region = config.get("aws:region")
    if refused := refused_region(region):
        raise failure(*refused)
    return Aws(str(region), str(profile) if profile else None)


@contextmanager
def asking(what: str, permission: str) -> Iterator[None]:
    """Tells a refused request in words. what: what AWS was asked. permission: what the credentials need for it."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        code, told = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code in MAY_NOT:
            words = (
                f"the AWS credentials of this computer may not ask {what}",
                f"allow them {permission} (docs/aws-rights.md has the whole policy)",
            )
        elif known := explain(str(error)):
            words = (known.failure.cause, known.failure.remedy)
        else:
            words = (
                f"AWS was asked {what} and refused: {code}: {told}",
                "correct what it names, or the credentials (aws:profile) and aws:region that it was asked with",
            )
        raise AwsRefused(code, str(failure(*words))) from None
    except BotoCoreError as error:
        raise _unreachable(error) from None


def _unreachable(error: Exception) -> CommandError:
    return failure(
        f"AWS cannot be asked: {error}",
        "log in to AWS (aws sso login, or aws configure), and check this computer's network",
    )


def _outlives_its_instance(volume: "VolumeTypeDef") -> bool:
    places = volume.get("Attachments", [])
    own = any(place.get("DeleteOnTermination") or place.get("Device") in ROOT_DEVICES for place in places)
    return volume["State"] in ("in-use", "available") and not own


def _by_tags(tags: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
