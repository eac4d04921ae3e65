"""The network that the machine stands in: a small VPC of the stack's own, or a subnet that is there."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TypedDict

import pulumi
import pulumi_aws as aws

TYPE = "seatable-vllm:index:AwsNetwork"

CIDR = "10.213.0.0/24"
"""Of an own VPC. Docker takes its networks from 172.16.0.0/12 and 192.168.0.0/16."""

IPV6_HOST = 16
"""Which address of an own subnet the machine has; AWS keeps the first four. A new instance gets it again."""

ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


class NetworkArgs(TypedDict):
    """Where the machine is to stand."""

    zone: pulumi.Input[str]
    """The availability zone of an own subnet."""
    zone_is_free: bool
    """Whether nobody has asked for that zone; a subnet then stays in whatever zone it has."""
    subnet: str | None
    """Id of a public subnet that is there, or None for a VPC of the stack's own."""
    ipv6: bool
    """Whether the machine is to have an IPv6 address too."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


class Network(pulumi.ComponentResource):
    """A public subnet."""

    vpc_id: pulumi.Output[str]
    """The VPC it is in."""
    subnet_id: pulumi.Output[str]
    """Its id."""
    zone: pulumi.Output[str]
    """Its availability zone; it says where instance and volume go."""
    ipv6_addresses: pulumi.Output[Sequence[str]] | None
    """The IPv6 address for the machine; None where AWS is to choose one, or none is wanted."""
    online: Sequence[pulumi.Resource]
    """Done when the net can be reached from it."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self.ipv6_addresses = None
        if args["subnet"]:
            there = aws.ec2.get_subnet_output(id=args["subnet"], opts=pulumi.InvokeOutputOptions(parent=self))
            self.vpc_id, self.subnet_id, self.zone = there.vpc_id, there.id, there.availability_zone
            self.online = []
        else:
            self._make(name, args)
        self.register_outputs({"vpc_id": self.vpc_id, "subnet_id": self.subnet_id, "zone": self.zone})

    def _make(self, name: str, args: NetworkArgs) -> None:
        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=CIDR,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            assign_generated_ipv6_cidr_block=args["ipv6"],
            tags=args["tags"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        ipv6 = vpc.ipv6_cidr_block.apply(first_64) if args["ipv6"] else None
        subnet = aws.ec2.Subnet(
            f"{name}-subnet",
            vpc_id=vpc.id,
            cidr_block=CIDR,
            ipv6_cidr_block=ipv6,
            availability_zone=args["zone"],
            map_public_ip_on_launch=False,
            tags=args["tags"],
            # The first zone by name that offers the type may be another one tomorrow, and must move nothing.
            opts=pulumi.ResourceOptions(
                parent=self,
                ignore_changes=["availabilityZone"] if args["zone_is_free"] else None,
                # It has the whole network's addresses: where the machine is tried in another zone, it goes first.
                delete_before_replace=True,
            ),
        )
        gateway = aws.ec2.InternetGateway(
            f"{name}-gateway", vpc_id=vpc.id, tags=args["tags"], opts=pulumi.ResourceOptions(parent=self)
        )
        table = aws.ec2.RouteTable(
            f"{name}-routes", vpc_id=vpc.id, tags=args["tags"], opts=pulumi.ResourceOptions(parent=self)
        )
        self.online = [
            aws.ec2.Route(
                f"{name}-route",
                route_table_id=table.id,
                destination_cidr_block=ANYWHERE[4],
                gateway_id=gateway.id,
                opts=pulumi.ResourceOptions(parent=self),
            ),
            aws.ec2.RouteTableAssociation(
                f"{name}-routed",
                route_table_id=table.id,
                subnet_id=subnet.id,
                opts=pulumi.ResourceOptions(parent=self),
            ),
        ]
        if ipv6 is not None:
            route = aws.ec2.Route(
                f"{name}-route-ipv6",
                route_table_id=table.id,
                destination_ipv6_cidr_block=ANYWHERE[6],
                gateway_id=gateway.id,
                opts=pulumi.ResourceOptions(parent=self),
            )
            self.online = [*self.online, route]
            self.ipv6_addresses = ipv6.apply(lambda cidr: [machine_address(cidr)])
        self.vpc_id, self.subnet_id, self.zone = vpc.id, subnet.id, subnet.availability_zone


def first_64(cidr: str) -> str:
    """The first network of 64 bits in the one that AWS gave to the VPC."""
    return str(next(ipaddress.ip_network(cidr).subnets(new_prefix=64)))


def machine_address(cidr: str) -> str:
    """The machine's own address in an IPv6 subnet."""
    return str(ipaddress.ip_network(cidr)[IPV6_HOST])
