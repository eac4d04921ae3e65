"""The machine image (AMI): which one, what it supports, and who logs in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OWNER = "amazon"

_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04)"

FALLBACK_NAME = f"{_NAME} ????????"
"""Filter for the image's name where the parameter is not known; it ends in the day it was built."""

_WHOLE_GENERATION = {"p4": ("p4d",), "p6": ("p6-b200", "p6-b300")}
"""Descriptions that name a generation in place of its families. G7 does not stand for G7e, which came later."""


def parameter_for(processor: str) -> str:
    """The public SSM parameter that holds the newest image's id. processor: x86_64 or arm64."""
    kind = "base-oss-nvidia-driver-gpu-ubuntu-24.04"
    return f"/aws/service/deeplearning/ami/{processor}/{kind}/latest/ami-id"


def supported_families(description: str) -> frozenset[str] | None:
    """The families of instance types that an image's description names, or None where it names none.

    AWS writes: Supported EC2 instances: G4dn, G5, G6, ..., P6-B300. Release notes: https://...
    """
    found = re.search(r"Supported EC2 instances: *([A-Za-z0-9, -]+)", description)
    if not found:
        return None
    named = {word.strip().lower() for word in found[1].split(",") if word.strip()}
    return frozenset(named).union(*(_WHOLE_GENERATION[name] for name in named & _WHOLE_GENERATION.keys()))


def root_gib(image: Mapping[str, Any]) -> int | None:
    """GiB of the first disk's snapshot, from an image as EC2 describes it; None where it does not say."""
    root = image.get("RootDeviceName")
    for mapping in image.get("BlockDeviceMappings", []):
        if mapping.get("DeviceName") == root and "Ebs" in mapping:
            size = mapping["Ebs"].get("VolumeSize")
            return int(size) if size else None
    return None


def login(image: Mapping[str, Any]) -> str | None:
    """The user that cloud-init makes on machines of this image, as far as its name or description tells."""
    text = f"{image.get('Name', '')} {image.get('Description', '')}".lower()
    users = {"ubuntu": "ubuntu", "amazon linux": "ec2-user", "al2023": "ec2-user", "amzn2": "ec2-user"}
    return next((user for word, user in users.items() if word in text), "admin" if "debian" in text else None)
