"""What EC2's error codes ask for when a machine cannot be had: another zone, another type, or a person.

What each of them means, and what that person does, is in `catalog.failures.aws`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Answer = Literal["next zone", "next type", "stop"]

_NEXT_ZONE = """
    InsufficientInstanceCapacity InsufficientHostCapacity InsufficientCapacity UnfulfillableCapacity
    MaxFleetCountExceeded Unsupported InsufficientVolumeCapacity InsufficientFreeAddressesInSubnet
    SpotMaxPriceTooLow
"""

_NEXT_TYPE = "InvalidInstanceType InstanceTypeNotSupported InstanceLimitExceeded"

# A quota counts all zones and nearly all types that a stack would name: another place cannot help. A reservation
# is of one zone and one type.
_STOP = """
    VcpuLimitExceeded MaxSpotInstanceCountExceeded AddressLimitExceeded VpcLimitExceeded VolumeLimitExceeded
    MaxIOPSLimitExceeded ReservationCapacityExceeded InvalidCapacityReservationId.NotFound
    InvalidBlockDeviceMapping InvalidParameterValue InvalidAMIID.NotFound InvalidAMIID.Unavailable
    InvalidSubnetID.NotFound InvalidSnapshot.NotFound PendingVerification OptInRequired Blocked
    UnauthorizedOperation AccessDenied AuthFailure ExpiredToken RequestExpired RequestLimitExceeded
"""

CODES: Mapping[str, Answer] = {
    **dict.fromkeys(_NEXT_ZONE.split(), "next zone"),
    **dict.fromkeys(_NEXT_TYPE.split(), "next type"),
    **dict.fromkeys(_STOP.split(), "stop"),
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


def answer_to(code: str) -> Answer:
    """What to do after this code: try the next zone, the next type, or stop. Unknown codes stop."""
    return CODES.get(code, "stop")


def quota_request(code: str, vcpus: int, region: str) -> str:
    """The command that asks AWS for so many vCPUs of a quota, to paste."""
    return (
        "aws service-quotas request-service-quota-increase --service-code ec2 "
        f"--quota-code {code} --desired-value {vcpus} --region {region}"
    )
