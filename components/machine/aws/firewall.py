"""What reaches the machine, and what it reaches: a security group without rules in it, and a rule per network.

Each rule is a resource named by its port and network, so that a network that is taken away takes exactly its rule
with it, and nothing else changes.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import pulumi
import pulumi_aws as aws

from components.machine.aws.network import ANYWHERE

TYPE = "seatable-vllm:index:AwsFirewall"

SSH_PORT = 22

EGRESS: tuple[tuple[Literal["tcp", "udp"], int, str], ...] = (
    ("tcp", 443, "registries, model hub, AWS, ACME"),
    ("tcp", 80, "package mirrors"),
    ("udp", 53, "names"),
    ("tcp", 53, "names"),
    ("udp", 123, "time"),
)
"""What a machine needs of the net. AWS's own name, time and metadata services are never filtered."""

LONGEST_DESCRIPTION = 255
"""Characters of a rule's description (EC2)."""


class FirewallArgs(TypedDict):
    """Who may come in, and what may be reached."""

    vpc_id: pulumi.Input[str]
    """The VPC that the machine is in."""
    doors: Mapping[int, Mapping[str, Sequence[str]]]
    """By TCP port: the networks that reach it, each with the names of who it is for."""
    egress_ports: Sequence[int]
    """TCP ports that the machine reaches anywhere, beside the usual ones."""
    ipv6: bool
    """Whether the machine has an IPv6 address."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


@dataclass(frozen=True)
class Network:
    """A network as a rule has it. slug: for the name of a resource, different for different networks."""

    cidr: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_network(self.cidr).version

    @property
    def slug(self) -> str:
        """The network without the characters that an URN is taken apart by."""
        return self.cidr.replace(":", "-").replace("/", "-")

    def side(self, version: int) -> str | None:
        """The network where a rule has one of this version, which is one of two arguments."""
        return self.cidr if self.version == version else None


class Firewall(pulumi.ComponentResource):
    """A security group with its rules."""

    group: aws.ec2.SecurityGroup
    """The group."""

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self.group = aws.ec2.SecurityGroup(
            f"{name}-group",
            description="seatable-vllm: clients and administrators, and what the machine needs",
            vpc_id=args["vpc_id"],
            tags=args["tags"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        for port, networks in args["doors"].items():
            for cidr, names in networks.items():
                self._let_in(name, port, Network(cidr), names)
        usual = {(protocol, port) for protocol, port, _ in EGRESS}
        more = [("tcp", port, "as the stack's settings say") for port in args["egress_ports"]]
        for protocol, port, why in [*EGRESS, *(each for each in more if each[:2] not in usual)]:
            for version in (4, 6) if args["ipv6"] else (4,):
                self._let_out(name, protocol, port, version, why)
        self.register_outputs({"group_id": self.group.id})

    def _let_in(self, name: str, port: int, network: Network, names: Sequence[str]) -> None:
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-in-{port}-{network.slug}",
            security_group_id=self.group.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            cidr_ipv4=network.side(4),
            cidr_ipv6=network.side(6),
            description=", ".join(names)[:LONGEST_DESCRIPTION],
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _let_out(self, name: str, protocol: str, port: int, version: int, why: str) -> None:
        network = Network(ANYWHERE[version])
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-out-{protocol}-{port}-ipv{version}",
            security_group_id=self.group.id,
            ip_protocol=protocol,
            from_port=port,
            to_port=port,
            cidr_ipv4=network.side(4),
            cidr_ipv6=network.side(6),
            description=why,
            opts=pulumi.ResourceOptions(parent=self),
        )


def by_network(named: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Networks with the names of who comes from there, from names with their networks.

    A network that two share is one entry: EC2 refuses the same rule twice, and the rule stays until both are gone.
    """
    networks: dict[str, list[str]] = {}
    for name, cidrs in named.items():
        for cidr in cidrs:
            names = networks.setdefault(cidr, [])
            if name not in names:
                names.append(name)
    return networks
