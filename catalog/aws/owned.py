"""What a stack may own in an AWS account: one table, for whoever looks at an account or removes something there.

A thing is a stack's by its tags (see `tags`). The tag OWNER says besides which state has made it: a run that was
killed leaves things that its state does not list, and only those may be removed unasked. Two stacks of one name,
of two checkouts or logins, have different owners.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.aws.tags import OWNER

OWNER_RESOURCE = "vm-owner"
"""The program's name for the random resource whose result is the owner."""

NAMES = "vm-"
"""What the names begin with of roles, profiles, schedules and budgets: Pulumi's names begin with those of the
program's resources (components/machine/aws). They cannot be listed by their tags."""

_ARN_PARTS = 5
_RANDOM = "random:index/randomUuid:RandomUuid"


@dataclass(frozen=True)
class Kind:
    """A kind of thing. type: Pulumi's, whose `id` tells one from another."""

    type: str
    words: str
    costs: bool = False
    """Whether it is on the bill as long as it is there."""
    kept: bool = False
    """Whether a removed stack may leave it on purpose, as `machine.data_disk.at_end` says."""


SCHEDULE = Kind("aws:scheduler/schedule:Schedule", "schedule")
BUDGET = Kind("aws:budgets/budget:Budget", "budget")
RECORD = Kind("aws:route53/record:Record", "record")
INSTANCE = Kind("aws:ec2/instance:Instance", "instance", costs=True)
ADDRESS = Kind("aws:ec2/eip:Eip", "Elastic IP", costs=True)
VOLUME = Kind("aws:ebs/volume:Volume", "data volume", costs=True, kept=True)
GROUP = Kind("aws:ec2/securityGroup:SecurityGroup", "security group")
ROUTES = Kind("aws:ec2/routeTable:RouteTable", "route table")
SUBNET = Kind("aws:ec2/subnet:Subnet", "subnet")
GATEWAY = Kind("aws:ec2/internetGateway:InternetGateway", "internet gateway")
VPC = Kind("aws:ec2/vpc:Vpc", "VPC")
KEY_PAIR = Kind("aws:ec2/keyPair:KeyPair", "key pair")
PROFILE = Kind("aws:iam/instanceProfile:InstanceProfile", "instance profile")
ROLE = Kind("aws:iam/role:Role", "role")

KINDS: Sequence[Kind] = (
    SCHEDULE, BUDGET, RECORD, INSTANCE, ADDRESS, VOLUME, GROUP, ROUTES, SUBNET, GATEWAY, VPC, KEY_PAIR, PROFILE,
    ROLE,
)  # fmt: skip
"""In the order in which they can be removed: nothing goes before what uses it."""

PARTS: Mapping[str, Kind] = {
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": GROUP,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": GROUP,
    "aws:ec2/route:Route": ROUTES,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": ROUTES,
    "aws:ec2/eipAssociation:EipAssociation": ADDRESS,
    "aws:ec2/volumeAttachment:VolumeAttachment": INSTANCE,
    "aws:iam/rolePolicy:RolePolicy": ROLE,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": ROLE,
}
"""Types of resources that are no things of their own: with what they go."""


@dataclass(frozen=True)
class Part:
    """A part that a killed run was making. It has no tags; what it is a part of may be in the state."""

    type: str
    name: str
    """The program's name for it."""
    inputs: Mapping[str, Any]
    """What it was to be, as Pulumi has it."""


@dataclass(frozen=True)
class Thing:
    """Something in an account that has a stack's tags. id: as Pulumi has it."""

    kind: Kind
    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    """What an administrator knows it by, beside its id."""

    def __str__(self) -> str:
        return f"{self.kind.words} {self.id}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Recorded:
    """What a stack's state says of the account."""

    ids: frozenset[tuple[str, str]] = frozenset()
    """Type and id of each resource."""
    creating: frozenset[str] = frozenset()
    """Types of the resources that a run was making when it was killed."""
    parts: Sequence[Part] = ()
    """The parts among these."""
    pending: int = 0
    """How many steps of any kind a run was at when it was killed."""
    owner: str | None = None
    """What its things have in the tag OWNER; None: nothing was made yet, or by an older version."""
    homes: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Of each resource that has an ARN, the account's number and the region; that of a role is empty."""

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Recorded:
        """From a state as Pulumi exports it."""
        resources = deployment.get("resources") or []
        pending = deployment.get("pending_operations") or []
        creating = [each["resource"] for each in pending if each["type"] == "creating"]
        owners = [
            str(each["outputs"]["result"])
            for each in resources
            if each["type"] == _RANDOM and str(each["urn"]).endswith(f"::{OWNER_RESOURCE}")
        ]
        return cls(
            frozenset((str(each["type"]), str(each["id"])) for each in resources if each.get("id")),
            frozenset(str(each["type"]) for each in creating),
            tuple(
                Part(str(each["type"]), str(each["urn"]).rpartition("::")[2], each.get("inputs") or {})
                for each in creating
                if each["type"] in PARTS
            ),
            len(pending),
            owners[0] if owners else None,
            {
                (str(each["type"]), str(each["id"])): (arn[4], arn[3])
                for each in resources
                if len(arn := str((each.get("outputs") or {}).get("arn", "")).split(":")) > _ARN_PARTS
            },
        )


@dataclass(frozen=True)
class Strays:
    """Things with the stack's tags that its state does not list."""

    mine: Sequence[Thing]
    """Made by a run of this very state, so to be removed; in the order in which they can be."""
    others: Sequence[Thing]
    """Of another state of that name, of an older version, or kept on purpose."""
    gone: frozenset[tuple[str, str]] = frozenset()
    """Type and id of what the state lists, and the account has not."""


def gone(
    things: Iterable[Thing], recorded: Recorded, asked: Iterable[Kind], here: tuple[str, str]
) -> frozenset[tuple[str, str]]:
    """What the state lists of the kinds that were asked for, and the account has not.

    here: number and region of the account that was asked; what the state has in another one is not looked for. Nor
    is an instance, which takes more with it than itself.
    """
    there = {(each.kind.type, each.id) for each in things}
    types = {kind.type for kind in asked if kind != INSTANCE}
    homes = (here, (here[0], ""))
    return frozenset(
        each for each, home in recorded.homes.items() if each[0] in types and home in homes and each not in there
    )


def strays(things: Iterable[Thing], recorded: Recorded) -> Strays:
    """What of these no resource of the state is."""
    order = {kind.type: place for place, kind in enumerate(KINDS)}
    unknown = sorted(
        (each for each in things if (each.kind.type, each.id) not in recorded.ids),
        key=lambda each: order[each.kind.type],
    )
    mine = [each for each in unknown if _is_mine(each, recorded)]
    return Strays(mine, [each for each in unknown if each not in mine])


def _is_mine(thing: Thing, recorded: Recorded) -> bool:
    if thing.kind.kept and thing.kind.type not in recorded.creating:
        # It may hold data, and the state has let go of it as the settings wanted.
        return False
    return recorded.owner is not None and thing.tags.get(OWNER) == recorded.owner
