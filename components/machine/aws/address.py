"""The address that the machine keeps, whatever instance it is."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from components.machine.aws.policy import Keeping

TYPE = "seatable-vllm:index:AwsAddress"


class AddressArgs(TypedDict):
    """Whose address."""

    instance_id: pulumi.Input[str]
    """What it leads to."""
    online: Sequence[pulumi.Resource]
    """The network's way to the net; an address cannot be given without it."""
    keeping: Keeping
    """How it is kept."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


class Address(pulumi.ComponentResource):
    """An Elastic IP that leads to the machine."""

    ipv4: pulumi.Output[str]
    """The address; known before it leads anywhere."""
    association: aws.ec2.EipAssociation
    """Done when it leads to the instance."""

    def __init__(self, name: str, args: AddressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        address = aws.ec2.Eip(
            f"{name}-ip",
            domain="vpc",
            tags=args["tags"],
            # Clients' firewalls and DNS records know it: a lost one cannot be had again.
            opts=pulumi.ResourceOptions(parent=self, protect=args["keeping"].protect),
        )
        self.ipv4 = address.public_ip
        self.association = aws.ec2.EipAssociation(
            f"{name}-association",
            allocation_id=address.id,
            instance_id=args["instance_id"],
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args["online"]), delete_before_replace=True),
        )
        self.register_outputs({"ipv4": self.ipv4})
