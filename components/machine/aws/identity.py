"""What the machine may do at AWS: be reached by Session Manager, and prove one name to a CA."""

import json
from collections.abc import Mapping
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from catalog.certificates import route53_policy

TYPE = "seatable-vllm:index:AwsIdentity"

SSM_CORE = "AmazonSSMManagedInstanceCore"
"""AWS's own policy for machines that Session Manager reaches; the way back in when an address has changed."""

PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
"""By the beginning of a region's name; all others are in `aws`."""

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)


class IdentityArgs(TypedDict):
    """Whose identity."""

    region: str
    """AWS region."""
    proves: "Proof | None"
    """The name that the machine proves by DNS, or None."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


class Proof(TypedDict):
    """One name in one zone."""

    host: str
    """The name."""
    zone_id: pulumi.Input[str]
    """The hosted zone it lies in."""
    looks_for_zone: bool
    """Whether the machine is to find that zone by its name."""


class Identity(pulumi.ComponentResource):
    """A role with the least that is needed."""

    profile: aws.iam.InstanceProfile
    """What an instance is given."""

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        role = aws.iam.Role(
            f"{name}-role", assume_role_policy=TRUST, tags=args["tags"], opts=pulumi.ResourceOptions(parent=self)
        )
        aws.iam.RolePolicyAttachment(
            f"{name}-ssm",
            role=role.name,
            policy_arn=f"arn:{partition(args['region'])}:iam::aws:policy/{SSM_CORE}",
            opts=pulumi.ResourceOptions(parent=self),
        )
        proof = args["proves"]
        if proof:
            host, listing = proof["host"], proof["looks_for_zone"]
            aws.iam.RolePolicy(
                f"{name}-proof",
                role=role.name,
                policy=pulumi.Output.from_input(proof["zone_id"]).apply(
                    lambda zone: route53_policy(host, zone, listing=listing)
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.profile = aws.iam.InstanceProfile(
            f"{name}-profile", role=role.name, tags=args["tags"], opts=pulumi.ResourceOptions(parent=self)
        )
        self.register_outputs({"profile": self.profile.name})


def partition(region: str) -> str:
    """The part of AWS that a region is in, as names of resources (ARN) have it."""
    return next((part for beginning, part in PARTITIONS.items() if region.startswith(beginning)), "aws")
