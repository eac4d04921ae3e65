"""The tags that say whose a thing in an AWS account is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROJECT_TAG = "Project"
PROJECT = "seatable-vllm"
STACK_TAG = "Stack"


def stack_tags(stack: str) -> dict[str, str]:
    """The tags that everything of a stack has."""
    return {PROJECT_TAG: PROJECT, STACK_TAG: stack}


def belongs_to(stack: str, thing: Mapping[str, Any]) -> bool:
    """Whether a thing, as EC2 describes it (with its `Tags`), is this stack's."""
    tags = {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}
    return stack_tags(stack).items() <= tags.items()
