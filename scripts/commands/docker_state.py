"""What of a stack is really on its machine's Docker, whatever any state says."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import docker

from components.machine.machine import DATA_LABEL, STACK_LABEL
from rehearsal.docker_resources import remove
from scripts.commands.engines import Say
from scripts.commands.errors import CommandError


@dataclass(frozen=True)
class DockerState:
    """One stack's containers and networks.

    client: the machine's Docker. data: the stack's data directory there; with the name it says whose things are.
    """

    client: docker.DockerClient
    stack: str
    data: str

    def refuse_foreign(self, data_dirs: Collection[str]) -> None:
        """CommandError when another checkout has a stack of the same name up on the machine.

        data_dirs: the folders that this checkout's stack had its data in before.
        """
        foreign = [item for item in self._found() if _data_dir(item) not in (self.data, *data_dirs)]
        if foreign:
            raise CommandError(
                f"phase: machine ready\ncause: another checkout has a stack {self.stack} up here, with its data in"
                f" {_data_dir(foreign[0]) or 'an unknown folder'} ({foreign[0].name})\n"
                f"change: take it down there (scripts/down {self.stack}), or give this one a stack file of another"
                " name"
            )

    def ids(self) -> set[str]:
        """Ids of the stack's containers and networks."""
        return {str(item.id) for item in self._ours()}

    def stopped(self) -> list[str]:
        """Names of the stack's containers that are there and do not run."""
        return [
            str(item.name)
            for item in self._ours()
            if hasattr(item, "image") and item.status in ("exited", "created")
        ]

    def remove_unknown(self, known: Collection[str], say: Say) -> int:
        """Removes containers and networks of the stack that the state does not know; how many those were.

        A run that was killed between making one and writing it down leaves it behind, and its name would be taken.
        """
        left = [item for item in self._ours() if item.id not in known]
        for item in left:
            say(f"removing {item.name}, left by an interrupted run")
            remove(item)
        return len(left)

    def _found(self) -> list[Any]:
        """The containers, then the networks, that have this stack's name on them."""
        labels: dict[str, Any] = {"label": f"{STACK_LABEL}={self.stack}"}
        containers = self.client.containers.list(all=True, filters=labels, ignore_removed=True)
        return [*containers, *self.client.networks.list(filters=labels)]

    def _ours(self) -> list[Any]:
        return [item for item in self._found() if _data_dir(item) == self.data]


def _data_dir(item: Any) -> str:
    labels = item.labels if hasattr(item, "labels") else item.attrs.get("Labels")
    return str((labels or {}).get(DATA_LABEL, ""))
