"""The tags by which a stack's machine and disks are found, counted on the bill, and told from anybody else's."""

from collections.abc import Mapping
from typing import Any

PROJECT = "Project"
STACK = "Stack"
MANAGED_BY = "ManagedBy"
ROLE = "Role"
OWNER = "Owner"
"""Which state made a thing (see `owned`)."""

PROJECT_NAME = "seatable-vllm"
"""What PROJECT says on everything that any stack makes."""

DATA_ROLE = "data"
"""The role of the volume that outlives the instance."""

REQUIRED = (PROJECT, STACK, MANAGED_BY)
"""What everything that can be tagged has."""


def tags_of(stack: str) -> Mapping[str, str]:
    """The tags of everything that a stack makes on AWS."""
    return {PROJECT: PROJECT_NAME, STACK: stack, MANAGED_BY: "pulumi"}


def tags_on(thing: Mapping[str, Any]) -> Mapping[str, str]:
    """The tags of a thing as EC2 describes it, with its `Tags`."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def belongs_to(stack: str, thing: Mapping[str, Any]) -> bool:
    """Whether a thing, as EC2 describes it, is this stack's."""
    return tags_of(stack).items() <= tags_on(thing).items()
