"""The locks of Pulumi's file backend: who has one, and whether that run is known to have ended.

Such a lock holds a process number and a host name. Neither says enough: the backend may be shared, two containers
may have one host name, and a number that is free here may be at work in another PID namespace. So each run of a
script notes where it takes place (`Run`), and a lock is broken only where such a note proves its holder gone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from scripts.commands.errors import CommandError, failure

INITIAL_PIDS = "pid:[4026531836]"
"""The PID namespace of a machine itself, the same number on every Linux (include/linux/proc_ns.h)."""

CLOCK_SECONDS = 60
"""How far the start of a process may be off: the boot time that it is counted from follows the clock."""

Verdict = Literal["lives", "gone", "unknown"]


@dataclass(frozen=True)
class Lock:
    """A lock as Pulumi writes it. host, user: empty and pid: 0 where the file says nothing that can be read."""

    pid: int
    host: str
    user: str
    since: datetime.datetime | None

    @classmethod
    def read(cls, path: Path) -> Lock:
        """The lock in a file, which may be about to be written, or to be removed."""
        try:
            said = json.loads(path.read_text())
            pid, host, user = int(said["pid"]), str(said["hostname"]), str(said["username"])
            # Go writes nanoseconds, which Python 3.11 cuts off.
            return cls(pid, host, user, datetime.datetime.fromisoformat(said["timestamp"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(0, "", "", None)

    def __str__(self) -> str:
        if self.since is None:
            return "a run whose lock cannot be read"
        return f"{self.user} on {self.host}, process {self.pid}, since {self.since:%Y-%m-%d %H:%M:%S %Z}"


@dataclass(frozen=True)
class Run:
    """Where a run takes place, and when it has begun (seconds since 1970)."""

    host: str
    machine: str
    boot: str
    pids: str
    began: float
    process: int

    @classmethod
    def here(cls) -> Run:
        """This process's. What a system does not say is empty."""
        pids = ""
        with contextlib.suppress(OSError):
            pids = str(Path("/proc/self/ns/pid").readlink())
        now = datetime.datetime.now(datetime.UTC).timestamp()
        boot = _said("/proc/sys/kernel/random/boot_id")
        return cls(socket.gethostname(), _said("/etc/machine-id"), boot, pids, now, os.getpid())


@contextlib.contextmanager
def noted(path: Path, locks: Callable[[], Sequence[Lock]]) -> Iterator[None]:
    """Keeps a note of this run in a file until it has ended.

    The note stays where the run is killed, and where it leaves a lock: its CLI was killed, or is interrupted.
    """
    mine = json.dumps(asdict(Run.here()))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(mine)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not locks() and path.read_text() == mine:  # else another run has begun meanwhile
                path.unlink()


def judge(lock: Lock, note: Path, here: Run) -> Verdict:
    """Whether the holder of a lock lives, is gone for certain, or cannot be told of from here.

    note: where the last run of this checkout has noted itself.
    """
    if lock.since is None or lock.host != here.host:
        return "unknown"
    if _runs(lock):
        return "lives"
    try:
        run = Run(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return "unknown"
    if lock.since.timestamp() < run.began or (run.host, run.machine) != (here.host, here.machine):
        return "unknown"
    if (run.boot, run.pids) == (here.boot, here.pids):
        return "gone"
    rebooted = bool(run.machine) and run.boot != here.boot and run.pids == here.pids == INITIAL_PIDS
    return "gone" if rebooted else "unknown"


def refusal(stack: str, lock: Lock, environment: dict[str, str], command: str) -> CommandError:
    """What a person reads who alone can tell whether the lock's holder is gone. command: path of the CLI."""
    given = {name: environment.get(name) or os.environ.get(name) for name in ("PULUMI_BACKEND_URL",)}
    words = [f"{name}={shlex.quote(value)}" for name, value in given.items() if value]
    cancel = " ".join([*words, shlex.quote(command), "cancel", "--yes", "--stack", shlex.quote(stack)])
    return failure(
        f"another run has locked the stack {stack} ({lock}), and from here it cannot be seen whether it goes on",
        "wait until it has ended, then run this again. If you are sure that it is not running, "
        f"remove its lock: {cancel}",
    )


def _runs(lock: Lock) -> bool:
    """Whether the lock's process is here and may be the holder: not one that got its number later."""
    try:
        os.kill(lock.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    begun = _begin(lock.pid)
    return begun is None or lock.since is None or begun <= lock.since.timestamp() + CLOCK_SECONDS


def _begin(pid: int) -> float | None:
    """When a process has begun, in seconds since 1970; None where the system does not say."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        lines = Path("/proc/stat").read_text().splitlines()
        boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def _said(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
