"""What EC2's error codes ask for when a machine cannot be had: another zone, another type, or a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Answer = Literal["next zone", "next type", "stop"]

ANSWERS: Mapping[str, Answer] = {
    "InsufficientInstanceCapacity": "next zone",
    "UnfulfillableCapacity": "next zone",
    "Unsupported": "next zone",
    "InsufficientFreeAddressesInSubnet": "next zone",
    "InvalidInstanceType": "next type",
    "VcpuLimitExceeded": "stop",
    "MaxSpotInstanceCountExceeded": "stop",
}

_FORMS = (
    r"api error (?P<code>[A-Z][A-Za-z0-9.]+)",
    r"An error occurred \((?P<code>[A-Z][A-Za-z0-9.]+)\)",
    r"(?<![A-Za-z0-9.])(?P<code>[A-Z][A-Za-z0-9.]+): ",
)


def code_in(text: str) -> str | None:
    """The AWS error code in an error text, or None where there is none."""
    found = [match["code"] for form in _FORMS for match in re.finditer(form, text)]
    return next((code for code in found if code in ANSWERS), None)


def answer_to(code: str) -> Answer:
    """What to do after this code: try the next zone, the next type, or stop. Unknown codes stop."""
    return ANSWERS.get(code, "stop")


def quota_request(code: str, vcpus: int, region: str) -> str:
    """The command that asks AWS for so many vCPUs of a quota, to paste."""
    return (
        "aws service-quotas request-service-quota-increase --service-code ec2 "
        f"--quota-code {code} --desired-value {vcpus} --region {region}"
    )
