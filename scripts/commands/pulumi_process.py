"""The Pulumi CLI as a process: asked for something, or changing a stack, which it has to end in its own order.

A change that is broken off loses what was being made: it exists, and no state knows it. So the CLI runs in a
session of its own, where neither Ctrl-C nor the end of the terminal reaches it, and writes into a file, which
unlike a pipe outlives whoever reads it. Asked once to end, Pulumi awaits the steps under way and records them;
asked twice, it does not.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Protocol

from pulumi import automation
from pulumi.automation.errors import create_command_error

from scripts.commands.interrupts import collected
from scripts.commands.stacks import PROJECT

LOOK_SECONDS = 0.1
"""How often what the CLI has written is looked at, and its end."""


class Listener(Protocol):
    """Whoever follows a change."""

    def heard(self, line: str) -> None:
        """A line that the CLI wrote."""

    def look(self) -> None:
        """Time has passed."""

    def stopping(self, times: int) -> None:
        """The CLI was asked to end: for the first time, or once more."""


def ask(command: str, words: Sequence[str], environment: Mapping[str, str]) -> str:
    """What the CLI prints; automation.CommandError, or a kind of it, where it fails."""
    done = subprocess.run(
        [command, *words, "--non-interactive"],
        cwd=PROJECT,
        env=_whole(command, environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise create_command_error(automation.CommandResult(done.stdout, done.stderr, done.returncode))
    return done.stdout


def change(
    command: str, words: Sequence[str], environment: Mapping[str, str], listener: Listener
) -> tuple[int, list[int]]:
    """Runs the CLI to its end, whatever this process is asked to do meanwhile.

    Its exit status, and the signals that asked for an end. The first is handed on, as SIGINT; one that comes a
    second time too, with which Pulumi ends at once; any further one kills it.
    """
    with tempfile.TemporaryFile() as written, collected() as received:
        process = subprocess.Popen(
            [command, *words, "--non-interactive"],
            cwd=PROJECT,
            env=_whole(command, environment),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        lines = _Lines(written)
        asked = 0
        ended = False
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
            ended = process.returncode is not None
            for line in lines.new(whole=not ended):
                listener.heard(line)
            listener.look()
            while asked < insistence(received) and not ended:
                asked += 1
                # Said first: what is under way is known before the CLI ends it.
                listener.stopping(asked)
                process.send_signal(signal.SIGINT if asked <= 2 else signal.SIGKILL)
        return process.returncode, list(received)


def insistence(received: Sequence[int]) -> int:
    """How often somebody has asked for an end: most often by one signal.

    A CI that cancels a job sends one signal after the other, within seconds, to whoever awaits its end.
    """
    return max((received.count(number) for number in received), default=0)


class _Lines:
    """What is written into a file, line by line; the writer shares the file's position, this does not."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read = 0
        self._rest = b""

    def new(self, *, whole: bool) -> Iterator[str]:
        """The lines since the last call. whole: only those that are complete."""
        while part := os.pread(self._file.fileno(), 1 << 20, self._read):
            self._read += len(part)
            *complete, self._rest = (self._rest + part).split(b"\n")
            for line in complete:
                yield line.decode(errors="replace")
        if self._rest and not whole:
            yield self._rest.decode(errors="replace")
            self._rest = b""


def _whole(command: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the CLI runs; plugins beside it are found first."""
    whole = {**os.environ, **environment, "PULUMI_AUTOMATION_API": "true"}
    folder = os.path.dirname(command)  # noqa: PTH120 - "" for one on PATH
    return {**whole, "PATH": f"{folder}{os.pathsep}{whole['PATH']}"} if folder else whole
