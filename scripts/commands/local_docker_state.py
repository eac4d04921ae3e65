"""What of a stack is really on this computer's Docker, whatever any state says."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import docker

from components.machine.local_docker import local_docker_host
from components.machine.machine import DATA_LABEL, STACK_LABEL
from scripts.commands.engines import Say
from scripts.commands.errors import CommandError


def _client() -> docker.DockerClient:
    return docker.DockerClient(base_url=local_docker_host(), timeout=120)


def _found(stack: str) -> list[Any]:
    """The containers, then the networks, that have this stack's name on them."""
    client = _client()
    labels: dict[str, Any] = {"label": f"{STACK_LABEL}={stack}"}
    return [*client.containers.list(all=True, filters=labels), *client.networks.list(filters=labels)]


def _data_dir(item: Any) -> str:
    labels = item.labels if hasattr(item, "labels") else item.attrs.get("Labels")
    return str((labels or {}).get(DATA_LABEL, ""))


def _ours(stack: str, data: Path) -> list[Any]:
    return [item for item in _found(stack) if _data_dir(item) == str(data)]


def refuse_foreign(stack: str, data_dirs: Collection[str]) -> None:
    """CommandError when another checkout on this computer has a stack of the same name up.

    data_dirs: the folders that this checkout's stack has its data in, or had.
    """
    foreign = [item for item in _found(stack) if _data_dir(item) not in data_dirs]
    if foreign:
        raise CommandError(
            f"phase: machine ready\ncause: another checkout has a stack {stack} up here, with its data in"
            f" {_data_dir(foreign[0]) or 'an unknown folder'} ({foreign[0].name})\n"
            f"change: take it down there (scripts/down {stack}), or give this one a stack file of another name"
        )


def ids(stack: str, data: Path) -> set[str]:
    """Ids of the stack's containers and networks."""
    return {str(item.id) for item in _ours(stack, data)}


def stopped(stack: str, data: Path) -> list[str]:
    """Names of the stack's containers that are there and do not run."""
    return [
        str(item.name)
        for item in _ours(stack, data)
        if hasattr(item, "image") and item.status in ("exited", "created")
    ]


def remove_unknown(stack: str, data: Path, known: Collection[str], say: Say) -> int:
    """Removes containers and networks of the stack that the state does not know; how many those were.

    A run that was killed between making one and writing it down leaves it behind, and its name would be taken.
    """
    left = [item for item in _ours(stack, data) if item.id not in known]
    for item in left:
        say(f"removing {item.name}, left by an interrupted run")
        item.remove(**({"force": True} if hasattr(item, "image") else {}))
    return len(left)
