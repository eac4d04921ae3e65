"""The resource types that a rehearsal can make: keys and commands here, Docker's in docker_resources."""

import contextlib
import ctypes
import os
import secrets
import signal
import string
import subprocess
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from rehearsal.errors import RehearsalError
from rehearsal.state import Made

Say = Callable[[str, str], None]
"""Takes the name of a resource and one line of what it is doing."""


class Handler(Protocol):
    """Makes resources of one type."""

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Makes it; its physical id and outputs."""

    def keep(self, made: Made, provider: dict[str, Any]) -> bool:
        """Whether what was made is still there, after mending what can be mended in place."""

    def delete(self, made: Made, provider: dict[str, Any]) -> None:
        """Removes it; one that is gone already is no error."""


class Remembered:
    """What is nowhere but in the state: it stays until its inputs change, and there is nothing to remove."""

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Only remembers the inputs."""
        return name, inputs

    def keep(self, made: Made, provider: dict[str, Any]) -> bool:
        """Always there."""
        return True

    def delete(self, made: Made, provider: dict[str, Any]) -> None:
        """Nothing to remove."""


class RandomPassword(Remembered):
    """`random.RandomPassword`, letters and digits alone."""

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A new secret text of `length` characters."""
        if inputs.get("special") is not False:
            raise RehearsalError(f"{name}: the rehearsal makes keys of letters and digits only")
        alphabet = string.ascii_letters + string.digits
        result = "".join(secrets.choice(alphabet) for _ in range(inputs["length"]))
        return "none", {**inputs, "result": result}


class RandomUuid(Remembered):
    """`random.RandomUuid`."""

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A new one; it is no secret."""
        result = str(uuid.uuid4())
        return result, {**inputs, "result": result}


class LocalCommand(Remembered):
    """`command.local.Command`: a program on standard input, its output passed on line by line.

    As with the real provider, what it did is not looked at again, and its end runs `delete`, where it has one,
    with the inputs that it had last.
    """

    def __init__(self, say: Say) -> None:
        self._say = say

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Runs it. A failure's text is what the program itself said last, never its input."""
        lines = run_command(name, inputs, self._say)
        return name, {**inputs, "stdout": "\n".join(lines), "stderr": ""}

    def delete(self, made: Made, provider: dict[str, Any]) -> None:
        """Runs `delete`; with the same inputs otherwise, the program on standard input too."""
        if made.inputs.get("delete"):
            run_command(made.name, {**made.inputs, "create": made.inputs["delete"]}, self._say)

    def changes_in_place(self, made: Made, inputs: dict[str, Any]) -> bool:
        """Triggers alone replace a command; all else runs `create` again."""
        return bool(made.inputs.get("triggers", []) == inputs.get("triggers", []))


def run_command(name: str, inputs: dict[str, Any], say: Say) -> list[str]:
    """Runs the `create` or `command` of a local command in a shell; the lines it printed.

    RehearsalError with what the program itself said last, never its input.
    """
    process = subprocess.Popen(  # noqa: S602 - the provider, too, gives it to a shell
        inputs.get("create") or inputs["command"],
        shell=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **inputs.get("environment", {})},
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both were asked for
    # One that ended early reads no more; its status says why.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(inputs.get("stdin", ""))
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        say(name, lines[-1])
    status = process.wait()
    if status != 0:
        raise RehearsalError(f"{name} failed with status {status}:\n" + "\n".join(lines[-60:]))
    return lines


def _end_with_parent() -> None:
    """In the child: end it when the rehearsal is killed, or its program would go on beside the next run's."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
