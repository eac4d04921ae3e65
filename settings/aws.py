"""A GPU machine on AWS: what a stack says of the machine that the program makes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from settings.words import (
    DataDir,
    EmailAddress,
    KeyFile,
    Network,
    RulesError,
    Tree,
    narrow_network,
    text_like,
)

REGION_OF = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]+")
"""The region that a zone's name begins with."""


def refused_region(region: object) -> tuple[str, str] | None:
    """Cause and change where this is not the name of a region of AWS, else None."""
    if region in (None, ""):
        return "aws:region: missing", "write the region that your quota is in, such as aws:region: eu-central-1"
    if not isinstance(region, str) or not REGION_OF.fullmatch(region):
        return f"aws:region: {region!r} is not a region", "write one such as eu-central-1"
    return None


LARGEST_EBS_GIB = 65536
"""GiB; the largest gp3 volume (EC2's CreateVolume)."""

Throughput = Annotated[int, Field(ge=125, le=750)]
"""MiB/s of a gp3 volume: 125 are in its price, and the 3000 IOPS that it comes with carry 750 (EBS user guide)."""

InstanceType = Annotated[
    str, text_like(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "is not an instance type; write one such as g6.xlarge")
]
Zone = Annotated[
    str,
    text_like(
        r"[a-z]{2}(-[a-z]+)+-[0-9](-[a-z0-9-]+)?[a-z]",
        "is not an availability zone; write one such as eu-central-1a",
    ),
]
AmiId = Annotated[str, text_like(r"ami-[0-9a-f]{8,17}", "is not an AMI id; it looks like ami-0123456789abcdef0")]
SubnetId = Annotated[
    str, text_like(r"subnet-[0-9a-f]{8,17}", "is not a subnet id; it looks like subnet-0123456789abcdef0")
]
SnapshotId = Annotated[
    str, text_like(r"snap-[0-9a-f]{8,17}", "is not a snapshot id; it looks like snap-0123456789abcdef0")
]
ReservationId = Annotated[
    str, text_like(r"cr-[0-9a-f]{8,17}", "is not a capacity reservation's id; it looks like cr-0123456789abcdef0")
]
AdminNetwork = Annotated[Network, BeforeValidator(narrow_network)]
ClockTime = Annotated[
    str, text_like(r"([01][0-9]|2[0-3]):[0-5][0-9]", "is not a time of day; write one such as 20:00")
]
TimeZone = Annotated[
    str, text_like(r"UTC|[A-Za-z_]+(/[A-Za-z0-9_+-]+)+", "is not a time zone; write one such as Europe/Berlin")
]


_PRIVATE = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
    *("fc00::/7", "fe80::/10", "::1/128"),
)
"""Networks whose addresses never come over the Internet: private, carrier-grade NAT, link-local, loopback."""


def _never_on_the_net(cidr: str) -> bool:
    inside, network = (ipaddress.ip_network(each) for each in _PRIVATE), ipaddress.ip_network(cidr)
    return any(each.version == network.version and network.subnet_of(each) for each in inside)  # type: ignore[arg-type]


class Placement(Tree):
    """Where the machine has landed; written by `scripts/up`, so that later runs never move it."""

    instance_type: InstanceType
    zone: Zone


class DataDisk(Tree):
    """The volume that holds weights, caches and certificates; it outlives the instance."""

    gib: Annotated[int, Field(ge=8, le=LARGEST_EBS_GIB)] = 200
    throughput: Throughput = 125
    """How fast weights are read at each start of the engine; more than the instance's own limit is money lost."""
    at_end: Literal["delete", "snapshot", "retain"] = "delete"
    """What `scripts/down` does with it."""
    snapshot: SnapshotId | None = None
    """A snapshot to begin with; None: an empty disk, or what it began with. Another makes the disk anew."""


class Budget(Tree):
    """A limit that sends mail; it stops nothing."""

    usd_per_month: Annotated[int, Field(ge=1)]
    mail: EmailAddress


class Cost(Tree):
    """What ends spending by itself. All of it is off unless it is named here."""

    stop_at: ClockTime | None = None
    """The machine is stopped at this time each day; `scripts/up` starts it again."""
    time_zone: TimeZone = "UTC"
    """What `stop_at` is meant in."""
    idle_stop_minutes: Annotated[int, Field(ge=10)] | None = None
    """The machine stops itself when it has answered nothing for so long."""
    live_hours: Annotated[int, Field(ge=1)] | None = None
    """The machine stops so many hours after the last `scripts/up`."""
    budget: Budget | None = None


class AwsMachine(Tree):
    """A GPU instance with its own network, firewall, address and data disk."""

    kind: Literal["aws"] = "aws"
    instance_types: Annotated[list[InstanceType], Field(min_length=1)]
    """In order of preference; `scripts/up` takes the first that there is capacity for."""
    zones: list[Zone] = Field(default_factory=list)
    """Availability zones in order of preference; none: all that offer the type, by name."""
    placed: Placement | None = None
    admin_cidrs: list[AdminNetwork] = Field(default_factory=list)
    """Who reaches port 22; nobody does with access ssm."""
    access: Literal["ssh", "ssm"] = "ssh"
    """How programs and Docker reach the machine: port 22 from admin_cidrs, or Session Manager and no open port."""
    ssh_key: KeyFile = "~/.ssh/id_ed25519"
    """Path of a private key on this computer; the public one lies beside it, with .pub at its end."""
    ami: AmiId | None = None
    """None: the newest Deep Learning Base AMI (Ubuntu 24.04) when the machine is made."""
    subnet: SubnetId | None = None
    """A public subnet of an existing VPC; None: a VPC of the stack's own."""
    ipv6: bool = False
    """Whether the machine also gets an IPv6 address, and its name an AAAA record."""
    root_disk_gib: Annotated[int, Field(ge=30, le=LARGEST_EBS_GIB)] = 150
    root_disk_throughput: Throughput = 125
    """How fast the engine's image is unpacked, once on each new machine."""
    data_disk: DataDisk = DataDisk()
    market: Literal["on-demand", "spot", "capacity-block"] = "on-demand"
    reservation: ReservationId | None = None
    """An existing capacity reservation or block to start in; the program never buys one."""
    cost: Cost = Cost()
    protected: bool = False
    """For production: termination protection, Pulumi's `protect` on what holds data, detailed monitoring."""
    gpus: Literal["auto", "none"] = "auto"
    """auto: all GPUs of the instance; one that shows none ends `up`. none: the CPU, for trying without a GPU."""
    data_dir: DataDir = "/srv/seatable-vllm"
    """Absolute folder on the machine, where the data disk is mounted."""

    @property
    def instance_type(self) -> str:
        """The type that the program asks for: where the machine has landed, else the first choice."""
        return self.placed.instance_type if self.placed else self.instance_types[0]

    @property
    def zone(self) -> str | None:
        """The availability zone that the program asks for; None: the first that offers the type, by name."""
        return self.placed.zone if self.placed else self.zones[0] if self.zones else None

    def zone_elsewhere(self, region: str) -> tuple[str, str] | None:
        """Cause and change where a zone is of another region than aws:region; None where all are of it."""
        # A zone of the list stands in `placed` too, while `scripts/up` tries it.
        named = ({self.placed.zone: "placed.zone"} if self.placed else {}) | dict.fromkeys(self.zones, "zones")
        for zone, setting in named.items():
            if (own := REGION_OF.match(zone)) and own[0] != region:
                return (
                    f"seatable-vllm:machine.{setting}: {zone} is not in aws:region {region}",
                    f"name zones of {region}, such as {region}a, or set aws:region to {own[0]}",
                )
        return None

    @model_validator(mode="after")
    def _access_market_and_cost_fit(self) -> AwsMachine:
        if problems := list(self._problems()):
            raise RulesError("\n".join(problems))
        return self

    def _problems(self) -> Iterable[str]:
        if self.access == "ssh" and not self.admin_cidrs:
            yield (
                "admin_cidrs: missing; name the address that you run this from, such as "
                '["203.0.113.7/32"], or set access: ssm'
            )
        if self.access == "ssm" and self.admin_cidrs:
            yield "admin_cidrs: has no effect with access ssm, which opens no port 22; remove it"
        private = [cidr for cidr in self.admin_cidrs if _never_on_the_net(cidr)]
        if private and private == self.admin_cidrs:
            yield (
                f"admin_cidrs: {', '.join(private)} does not reach the machine, which has a public address; name "
                "the public address that you run this from (curl https://checkip.amazonaws.com)"
            )
        if self.market == "capacity-block" and not self.reservation:
            yield "reservation: missing; buy a capacity block, and write its id, such as cr-0123456789abcdef0"
        if self.market == "spot" and self.reservation:
            yield "reservation: a machine of market spot cannot start in one; remove it, or set market: on-demand"
        if self.cost.time_zone != "UTC" and not self.cost.stop_at:
            yield "cost.time_zone: has no effect without cost.stop_at; set that, or remove it"
        if len({found[0] for zone in self.zones if (found := REGION_OF.match(zone))}) > 1:
            yield f"zones: {', '.join(self.zones)} are of several regions; name zones of aws:region alone"
