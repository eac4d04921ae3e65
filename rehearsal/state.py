"""What a rehearsal has made, kept in one 0600 file per stack, because keys are in it."""

import contextlib
import datetime
import fcntl
import getpass
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from rehearsal.errors import RehearsalError


@dataclass(frozen=True)
class Made:
    """One resource: what was asked for, and what came of it."""

    type: str
    name: str
    inputs: dict[str, Any]
    id: str
    outputs: dict[str, Any]


@dataclass
class State:
    """Everything a rehearsal of one stack has made, in the order of its making, and the stack's outputs."""

    path: Path
    made: dict[str, Made] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def load(cls, path: Path) -> "State":
        """The state in this file; an empty one where there is no file yet."""
        if not path.exists():
            return cls(path)
        try:
            values = json.loads(path.read_text())
            made = {item["name"]: Made(**item) for item in values["made"]}
            return cls(path, made, values["outputs"])
        except (ValueError, KeyError, TypeError) as error:
            raise RehearsalError(
                f"{path} cannot be read ({error!r}); put it aside, and the next run takes over what it finds"
            ) from None

    def put(self, item: Made) -> None:
        """Remembers a resource at once, so that a run that is killed forgets nothing it made."""
        with self._lock:
            self.made[item.name] = item
            self._save()

    def drop(self, name: str) -> None:
        """Forgets a resource that is gone."""
        with self._lock:
            self.made.pop(name, None)
            self._save()

    def finish(self, outputs: dict[str, Any]) -> None:
        """Remembers the stack's outputs at the end of a run."""
        with self._lock:
            self.outputs = outputs
            self._save()

    def _save(self) -> None:
        values = {"made": [asdict(item) for item in self.made.values()], "outputs": self.outputs}
        part = self.path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(values, file, indent=1)
        part.replace(self.path)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the stack for this process; RehearsalError when another run has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise RehearsalError(
                f"another run of this stack is under way ({lock.read().strip()}); wait for it to end. Its lock "
                "ends with its process"
            ) from None
        lock.truncate(0)
        now = datetime.datetime.now(datetime.UTC)
        user = str(os.getuid())
        with contextlib.suppress(KeyError, OSError):  # a container may know no name for its user
            user = getpass.getuser()
        lock.write(f"{user} on {socket.gethostname()}, process {os.getpid()}, since {now:%F %T %Z}\n")
        lock.flush()
        yield
