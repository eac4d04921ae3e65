"""The tags by which a stack's machine and disks are found, counted on the bill, and told from anybody else's."""

from collections.abc import Mapping

PROJECT = "Project"
STACK = "Stack"
MANAGED_BY = "ManagedBy"

REQUIRED = (PROJECT, STACK, MANAGED_BY)
"""What everything that can be tagged has."""


def tags_of(stack: str) -> Mapping[str, str]:
    """The tags of everything that a stack makes on AWS."""
    return {PROJECT: "seatable-vllm", STACK: stack, MANAGED_BY: "pulumi"}
