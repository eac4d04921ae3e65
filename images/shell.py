"""Commands of a build: output into log files, the latest line shown, failures told by their last lines."""

import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from images import ImageUnavailable, Say

POLL_S = 2.0
"""How often a running command is looked at and shown."""
TOLD_LINES = 15
"""How many lines of its output a failed command is told with."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Added behind PATH: debootstrap and chroot are in sbin, which not every PATH has."""

ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
"""Prefix for commands that mount or start services: what they mount and start ends with them, even killed."""


def find(program: str) -> str | None:
    """The path of a program, also in the system folders that PATH may lack."""
    return shutil.which(program, path=_path())


def last_line(output: str) -> str:
    """The last line that is not empty, without debootstrap's level mark, at most 60 characters."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1].removeprefix("I: ")[:60] if lines else ""


class Shell:
    """Runs commands, two at a time if wanted, and shows what all of them do in one line."""

    def __init__(self, logs: Path, say: Say) -> None:
        self._logs = logs
        self._say = say
        self._stopped = threading.Event()
        self._activities: dict[str, str] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        logs.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        activity: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        show: Callable[[str], str] = last_line,
    ) -> str:
        """Runs `command` and returns its output.

        activity: what it is for, in a few words; shown, and named in errors.
        env: variables added to those of this process.
        show: makes a short text for the user from the output so far.
        Raises ImageUnavailable with the end of the output when it fails or is stopped.
        """
        log = self._logs / f"{next(self._numbers)}.log"
        try:
            with log.open("wb") as output:
                # umask: what is written becomes part of images that any user reads.
                process = subprocess.Popen(
                    [*_dies_with_us(), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._logs.parent,
                    env={**os.environ, **(env or {}), "PATH": _path()},
                    umask=0o022,
                )
            code = self._wait(process, activity, lambda: show(_read(log)))
        except OSError as error:
            raise ImageUnavailable(f"{activity}: cannot run {command[0]}: {error}") from error
        finally:
            with self._lock:
                self._activities.pop(activity, None)
        if code != 0:
            raise ImageUnavailable(_failure(activity, command, code, _read(log)))
        return _read(log)

    def stop(self) -> None:
        """Ends all running commands, and those that would start."""
        self._stopped.set()

    def _wait(self, process: "subprocess.Popen[bytes]", activity: str, text: Callable[[], str]) -> int:
        try:
            self._show(activity, "")
            while not self._stopped.is_set():
                try:
                    return process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    self._show(activity, text())
            raise ImageUnavailable(f"{activity}: stopped")
        finally:
            # Reached with a running command when stopped or interrupted. unshare ignores SIGTERM: kill.
            if process.poll() is None:
                process.kill()
                process.wait()

    def _show(self, activity: str, text: str) -> None:
        with self._lock:
            self._activities[activity] = f"{activity}: {text}" if text else activity
            # Within the lock: the listener hears one at a time, though two threads may run commands.
            self._say(" | ".join(self._activities.values()))


def _dies_with_us() -> tuple[str, ...]:
    """A prefix that has the kernel end a command when this process is killed; empty where there is none."""
    setpriv = find("setpriv")
    return (setpriv, "--pdeathsig", "KILL") if setpriv else ()


def _path() -> str:
    return os.pathsep.join(filter(None, (os.environ.get("PATH", ""), SYSTEM_PATH)))


def _read(log: Path) -> str:
    return log.read_text(errors="replace")


def _failure(activity: str, command: Sequence[str], code: int, output: str) -> str:
    program = next((word for word in command if word not in ISOLATED), command[0])
    end = "\n".join(f"  {line}" for line in output.splitlines()[-TOLD_LINES:])
    return f"{activity}: {Path(program).name} ended with status {code}. Its last lines:\n{end or '  (none)'}"
