"""What EC2's error codes ask for when a machine cannot be had: another zone, another type, or a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Answer = Literal["next zone", "next type", "stop"]


@dataclass(frozen=True)
class Code:
    """One error code of EC2. cause: what it means. change: the way out, where no other place helps."""

    answer: Answer
    cause: str
    change: str


_ELSEWHERE = "name more zones or types in seatable-vllm:machine.zones and machine.instance_types, or try later"
_QUOTA = "ask AWS for more (aws service-quotas request-service-quota-increase), or take a smaller type in "
_TYPES = "seatable-vllm:machine.instance_types"

CODES: Mapping[str, Code] = {
    "InsufficientInstanceCapacity": Code("next zone", "AWS has no such machine free in this zone now", _ELSEWHERE),
    "InsufficientHostCapacity": Code("next zone", "AWS has no host free in this zone now", _ELSEWHERE),
    "InsufficientCapacity": Code("next zone", "AWS has no such machine free in this zone now", _ELSEWHERE),
    "UnfulfillableCapacity": Code("next zone", "AWS has no such machine free in this zone now", _ELSEWHERE),
    "MaxFleetCountExceeded": Code("next zone", "too many fleets are asked for at once", "try later: scripts/up"),
    "Unsupported": Code("next zone", "this zone does not have machines of this type", _ELSEWHERE),
    "InsufficientVolumeCapacity": Code("next zone", "this zone has no room for such a disk now", _ELSEWHERE),
    "InsufficientFreeAddressesInSubnet": Code(
        "next zone", "the subnet has no free address", "set seatable-vllm:machine.subnet to another, or remove it"
    ),
    "SpotMaxPriceTooLow": Code(
        "next zone",
        "the spot price in this zone is over the limit",
        "set seatable-vllm:machine.market to on-demand",
    ),
    "InvalidInstanceType": Code("next type", "the region has no such type of machine", f"correct {_TYPES}"),
    "InstanceTypeNotSupported": Code("next type", "the region has no such type of machine", f"correct {_TYPES}"),
    "InstanceLimitExceeded": Code(
        "next type", "the account may have no more machines of this type", _QUOTA + _TYPES
    ),
    # A quota counts all zones and nearly all types that a stack would name: another place cannot help.
    "VcpuLimitExceeded": Code("stop", "the account's quota of vCPUs is too small for this type", _QUOTA + _TYPES),
    "MaxSpotInstanceCountExceeded": Code(
        "stop",
        "the account's quota of spot machines is used up",
        "ask AWS for more, or set seatable-vllm:machine.market to on-demand",
    ),
    # A reservation is of one zone and one type.
    "ReservationCapacityExceeded": Code(
        "stop",
        "the capacity reservation has no machine left",
        "end what runs in it, or correct seatable-vllm:machine.reservation",
    ),
    "InvalidCapacityReservationId.NotFound": Code(
        "stop",
        "AWS does not know the capacity reservation in this region",
        "correct seatable-vllm:machine.reservation",
    ),
    "AddressLimitExceeded": Code(
        "stop",
        "the account has as many Elastic IPs as it may",
        "release one (aws ec2 release-address), or ask AWS for more: quota L-0263D0A3",
    ),
    "VpcLimitExceeded": Code(
        "stop",
        "the account has as many VPCs as it may in this region",
        "set seatable-vllm:machine.subnet to a public subnet that is there, or ask AWS for more: quota L-F678F1CE",
    ),
    "VolumeLimitExceeded": Code(
        "stop", "the account may have no more disk space", "ask AWS for more gp3 storage: quota L-7A658B76"
    ),
    "MaxIOPSLimitExceeded": Code("stop", "the account may have no more IOPS", "ask AWS for more gp3 storage"),
    "InvalidBlockDeviceMapping": Code(
        "stop", "the first disk is smaller than its image", "raise seatable-vllm:machine.root_disk_gib"
    ),
    "InvalidParameterValue": Code(
        "stop",
        "AWS does not take one of the machine's settings",
        "the line above names it: see seatable-vllm:machine",
    ),
    "InvalidAMIID.NotFound": Code(
        "stop", "there is no such image in this region", "correct seatable-vllm:machine.ami, or remove it"
    ),
    "InvalidAMIID.Unavailable": Code(
        "stop", "the image is there no more", "correct seatable-vllm:machine.ami, or remove it"
    ),
    "InvalidSubnetID.NotFound": Code(
        "stop", "there is no such subnet in this region", "correct seatable-vllm:machine.subnet"
    ),
    "InvalidSnapshot.NotFound": Code(
        "stop", "there is no such snapshot in this region", "correct seatable-vllm:machine.data_disk.snapshot"
    ),
    "PendingVerification": Code(
        "stop", "AWS is still checking the new account for this region", "wait for its mail (up to four hours)"
    ),
    "OptInRequired": Code(
        "stop", "the account has not enabled EC2 here", "enable the region in the console, or change aws:region"
    ),
    "Blocked": Code("stop", "AWS has blocked the account", "write to AWS's support"),
    "UnauthorizedOperation": Code(
        "stop", "the credentials may not do this", "allow the action that the line names, or use other credentials"
    ),
    "AccessDenied": Code(
        "stop", "the credentials may not do this", "allow the action that the line names, or use other credentials"
    ),
    "AuthFailure": Code(
        "stop",
        "AWS does not know the credentials, or the account has not enabled the region",
        "renew the credentials, or enable the region of aws:region in the console",
    ),
    "ExpiredToken": Code("stop", "the credentials have run out", "renew them (aws sso login)"),
    "RequestExpired": Code(
        "stop", "the credentials have run out, or the clock is wrong", "renew them; set the clock"
    ),
    "RequestLimitExceeded": Code("stop", "too many requests to AWS at once", "try later: scripts/up"),
}
"""The codes that a start of a machine is known to fail with: EC2's API reference, and Karpenter's list."""

_FORMS = (
    r"api error (?P<code>[A-Z][A-Za-z0-9.]+)",  # AWS SDK for Go 2, in Pulumi's provider
    r"An error occurred \((?P<code>[A-Z][A-Za-z0-9.]+)\)",  # boto3
    r"(?<![A-Za-z0-9.])(?:Server|Client)\.(?P<code>[A-Z][A-Za-z0-9.]+)",  # why an instance ended while it started
    r"(?<![A-Za-z0-9.])(?P<code>[A-Z][A-Za-z0-9.]+): ",  # AWS SDK for Go 1
)


def code_in(text: str) -> str | None:
    """The AWS error code in an error text of Pulumi, its provider or boto3, or None where there is none.

    A known code goes before an unknown one: texts repeat what was tried before.
    """
    found = [match["code"].rstrip(".") for form in _FORMS[:3] for match in re.finditer(form, text)]
    plain = [match["code"] for match in re.finditer(_FORMS[3], text)]
    return next((code for code in [*found, *plain] if code in CODES), found[0] if found else None)


def action_in(text: str) -> str | None:
    """The IAM action that an error text refuses, as ec2:RunInstances, or None where it does not say."""
    if found := re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)", text):
        return found[1]
    if found := re.search(r"operation error ([A-Za-z0-9 ]+): ([A-Za-z0-9]+)", text):
        return f"{found[1].replace(' ', '').lower()}:{found[2]}"
    return None


def answer_to(code: str) -> Answer:
    """What to do after this code: try the next zone, the next type, or stop. Unknown codes stop."""
    return CODES[code].answer if code in CODES else "stop"


def cause_of(code: str) -> str:
    """What a code means, in words."""
    return CODES[code].cause if code in CODES else f"AWS refused with {code}"


def change_for(code: str) -> str:
    """What to change after a code that no other zone or type helps against."""
    return CODES[code].change if code in CODES else "see what the line above says, and seatable-vllm:machine"


def quota_request(code: str, vcpus: int, region: str) -> str:
    """The command that asks AWS for so many vCPUs of a quota, to paste."""
    return (
        "aws service-quotas request-service-quota-increase --service-code ec2 "
        f"--quota-code {code} --desired-value {vcpus} --region {region}"
    )
