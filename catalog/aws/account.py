"""What a stack wants of an AWS account, and what the account says of itself in the shapes of EC2's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict


class WantedModel(TypedDict):
    """What the engine is to serve."""

    name: str
    """The model's id."""
    context_tokens: int
    """Longest prompt plus answer."""
    extra_args: Mapping[str, Any]
    """Further options of vLLM by their long names."""


class WantedDomain(TypedDict):
    """The endpoint's public name."""

    host: str
    """The name that clients use."""
    zone: str | None
    """The Route 53 zone that holds it, where the stack names one."""
    zone_id: str | None
    """That zone's id, likewise."""
    adopt_record: bool
    """Whether a record of the name that is there already is taken over."""


class Wanted(TypedDict):
    """A stack's settings, as far as an AWS account has a say in them. Plain JSON, and no secret in it."""

    stack: str
    """The stack's name."""
    region: str
    """aws:region."""
    profile: str | None
    """aws:profile; None: the usual chain of credentials."""
    instance_types: list[str]
    """In order of preference."""
    instance_type: str
    """The one that is asked for now."""
    zones: list[str]
    """Zones that may be taken, in order; the one where the machine has landed, alone; or none: all."""
    placed_only: list[str]
    """Type and zone that stand in machine.placed and in neither list of the stack's file."""
    ami: str | None
    """None: the newest Deep Learning Base AMI."""
    subnet: str | None
    """None: a VPC of the stack's own."""
    ipv6: bool
    """Whether the machine gets an IPv6 address too."""
    admin_cidrs: list[str]
    """Who reaches port 22."""
    root_disk_gib: int
    """GiB of the first disk."""
    root_disk_throughput: int
    """MiB/s of the first disk."""
    data_disk_gib: int
    """GiB of the data disk."""
    data_disk_throughput: int
    """MiB/s of the data disk."""
    snapshot: str | None
    """What the data disk begins with."""
    time_zone: str
    """What machine.cost.stop_at is meant in."""
    market: Literal["on-demand", "spot", "capacity-block"]
    """How the instance is paid."""
    reservation: str | None
    """An existing capacity reservation or block."""
    gpus: Literal["auto", "none"]
    """none: a machine without a GPU will do."""
    clients: Mapping[str, list[str]]
    """Per client the networks that it sends from."""
    domain: WantedDomain | None
    """None: no public name, clients come through a tunnel."""
    model: WantedModel
    """What the engine is to serve."""


Shape = Mapping[str, Any]
"""One item of an answer, with the keys that boto3 gives it."""


@dataclass(frozen=True)
class Unanswered:
    """A question that the account did not answer.

    call: the IAM action, as ec2:DescribeAddresses. why: in words. code: AWS's error code, where it gave one.
    """

    call: str
    why: str
    code: str = ""


Answered = Sequence[Shape] | Unanswered | None
"""Items as EC2 gives them; why there is no answer; or None where nobody asked."""


@dataclass(frozen=True)
class Account:
    """What an account says of itself in one region, and the calls that said so.

    types: DescribeInstanceTypes for the types of the stack. offerings: DescribeInstanceTypeOfferings by zone.
    zones: DescribeAvailabilityZones. quotas: GetServiceQuota by code, service ec2 (vCPUs, or addresses).
    instances: DescribeInstances, all that are not terminated. volumes: DescribeVolumes of the stack.
    addresses: DescribeAddresses. image_id: the image that will be used. images: DescribeImages of that one.
    hosted_zones: Route 53's zones of the name, or the one of the id. records: ListResourceRecordSets, those of the
    endpoint's name. subnets, route_tables, snapshots,
    reservations: of the ones that the stack names. prices: `PriceList` of the Pricing API's GetProducts.
    """

    id: str = ""
    types: Answered = None
    offerings: Answered = None
    zones: Answered = None
    quotas: Mapping[str, float | Unanswered] = field(default_factory=dict)
    instances: Answered = None
    volumes: Answered = None
    addresses: Answered = None
    image_id: str | None = None
    images: Answered = None
    hosted_zones: Answered = None
    records: Answered = None
    subnets: Answered = None
    route_tables: Answered = None
    snapshots: Answered = None
    reservations: Answered = None
    prices: Sequence[str | Shape] | Unanswered | None = None


ADDRESS_QUOTA = "L-0263D0A3"
"""Elastic IPs per region (EC2-VPC Elastic IPs)."""
USUAL_ADDRESSES = 5
"""Elastic IPs per region that every account begins with (AWS's page of VPC quotas)."""


def items(answered: Answered) -> Sequence[Shape]:
    """What was answered; nothing where nothing was."""
    return [] if answered is None or isinstance(answered, Unanswered) else answered


def known(answered: Answered) -> bool:
    """Whether there is an answer, be it that there is nothing."""
    return answered is not None and not isinstance(answered, Unanswered)
