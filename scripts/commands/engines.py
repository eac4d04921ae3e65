"""Who deploys a stack: the Pulumi CLI, or, where none can be had, the rehearsal. Same calls, same answers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from components.machine.machine import DATA_LABEL, MACHINE_OWNER
from rehearsal import run as rehearsal
from rehearsal.errors import RehearsalError
from scripts.commands.errors import CommandError
from scripts.commands.progress import Progress

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run changed, and the stack's outputs."""

    created: int
    changed: int
    deleted: int
    unchanged: int
    outputs: dict[str, Any]

    @property
    def nothing_changed(self) -> bool:
        """Whether everything was as it should be already."""
        return not (self.created or self.changed or self.deleted)


@dataclass(frozen=True)
class Known:
    """What a stack's state holds of Docker: ids of its resources, and the data folders on their labels.

    owner: what tells the stack from another one of its name (components.machine.Machine); None: no state has it.
    pending: how many steps a run was at when it was killed.
    """

    ids: frozenset[str] = frozenset()
    data_dirs: frozenset[str] = frozenset()
    owner: str | None = None
    pending: int = 0

    @classmethod
    def from_inputs(
        cls, made: Iterable[tuple[str, Mapping[str, Any]]], owner: str | None, pending: int = 0
    ) -> "Known":
        """From the id and the inputs of each of Docker's resources."""
        items = list(made)
        labels = [label for _, inputs in items for label in inputs.get("labels", [])]
        folders = (label["value"] for label in labels if label["label"] == DATA_LABEL)
        return cls(frozenset(identity for identity, _ in items), frozenset(folders), owner, pending)


class Engine(Protocol):
    """Deploys and removes one stack."""

    name: str

    def up(self, progress: Progress) -> Outcome:
        """Brings the stack to what its file says. CommandError with the program's own words on failure."""

    def outputs(self) -> dict[str, Any] | None:
        """The outputs of the last complete run, secrets opened; None where the stack is not deployed."""

    def known(self) -> Known:
        """What the stack's state holds of Docker."""

    def generated(self, name: str) -> str | None:
        """The random value that the program has made under this name of a resource; None where there is none."""

    def down(self, progress: Progress) -> int:
        """Removes everything the stack made; how many resources that were."""

    def abandon(self) -> int:
        """Forgets everything the stack made, where its machine is gone; how many resources those were."""


class RehearsalEngine:
    """The program run without the Pulumi CLI."""

    name = "rehearsal"

    def __init__(self, stack: str) -> None:
        self._stack = stack

    def up(self, progress: Progress) -> Outcome:
        """See Engine."""

        def say(name: str, text: str) -> None:
            progress.line(f"{name}: {text}") if name == rehearsal.WARNING else progress.said(name, text)

        try:
            counts, outputs = rehearsal.up(self._stack, say)
        except RehearsalError as error:
            raise CommandError(str(error)) from None
        return Outcome(
            len(counts.created), len(counts.changed), len(counts.deleted), len(counts.unchanged), outputs
        )

    def outputs(self) -> dict[str, Any] | None:
        """See Engine."""
        return rehearsal.outputs(self._stack)

    def known(self) -> Known:
        """See Engine."""
        made = ((item.id, item.inputs) for item in rehearsal.docker_resources(self._stack))
        return Known.from_inputs(made, rehearsal.generated(self._stack, MACHINE_OWNER))

    def generated(self, name: str) -> str | None:
        """See Engine."""
        return rehearsal.generated(self._stack, name)

    def down(self, progress: Progress) -> int:
        """See Engine."""
        return len(rehearsal.down(self._stack, progress.said).deleted)

    def abandon(self) -> int:
        """See Engine."""
        return rehearsal.forget(self._stack)

    def was_used(self) -> bool:
        """Whether this stack was rehearsed, completely or not, and not removed since."""
        return rehearsal.state_path(self._stack).exists()
