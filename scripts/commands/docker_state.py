"""What of a stack is really on its machine's Docker, whatever any state says."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import docker

from components.machine.machine import DATA_LABEL, OWNER_LABEL, STACK_LABEL
from rehearsal.docker_resources import remove
from scripts.commands.engines import Say
from scripts.commands.errors import CommandError


@dataclass(frozen=True)
class DockerState:
    """One stack's containers and networks.

    client: the machine's Docker. data: the stack's data directory there; with the name it says whose things are.
    by_place: whether that directory is this checkout's by its place. owner: what the stack's state has to tell it
    from another stack of that name and directory, which another computer may have; None: these two decide.
    """

    client: docker.DockerClient
    stack: str
    data: str
    by_place: bool = False
    owner: str | None = None

    def refuse_foreign(self, data_dirs: Collection[str], owner: str | None) -> None:
        """CommandError when another checkout or state has a stack of the same name up on the machine.

        data_dirs: the folders that this checkout's stack had its data in before. owner: its own, if any.
        """
        foreign = [item for item in self._found() if _label(item, DATA_LABEL) not in (self.data, *data_dirs)]
        if foreign:
            raise CommandError(
                f"phase: machine ready\ncause: another checkout has a stack {self.stack} up here, with its data in"
                f" {_label(foreign[0], DATA_LABEL) or 'an unknown folder'} ({foreign[0].name})\n"
                f"change: take it down there (scripts/down {self.stack}), or give this one a stack file of another"
                " name"
            )
        held = [] if self.by_place else [item for item in self._found() if _label(item, OWNER_LABEL)]
        others = [item for item in held if _label(item, OWNER_LABEL) != owner]
        if others:
            raise CommandError(
                f"phase: machine ready\ncause: a stack {self.stack} that another state has made is up here, with"
                f" its data in {_label(others[0], DATA_LABEL)} ({others[0].name})\n"
                f"change: deploy it from where that state is, or give this one a stack file of another name; if"
                f" that state is lost, scripts/down {self.stack} and then scripts/up {self.stack}"
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
        own = ("", self.owner)
        return [
            item
            for item in self._found()
            if _label(item, DATA_LABEL) == self.data
            and (self.by_place or self.owner is None or _label(item, OWNER_LABEL) in own)
        ]


def _label(item: Any, name: str) -> str:
    labels = item.labels if hasattr(item, "labels") else item.attrs.get("Labels")
    return str((labels or {}).get(name, ""))
