"""Busy cores: loops that take the processor from the edge, and how long the edge had to wait for it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LOOPS = 4
"""Busy loops; reference/edge.md: four of them on two cores cut streams of a well-known proxy."""

LOOP_SECONDS = 3600
"""The longest that a loop lives, whatever becomes of who started it."""

LOWEST = 19
"""Unix priority: the processor is theirs when nobody else wants it."""

_LOOP = f"""
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
begin, parent = time.monotonic(), os.getppid()
if len(sys.argv) > 1:
    open(sys.argv[1], "w").write(str(os.getpid()))
print(flush=True)
while os.getppid() == parent and time.monotonic() - begin < {LOOP_SECONDS}:
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def busy_cores(processes: list[int]) -> Iterator[str]:
    """Keeps the cores busy and gives the processes the lowest priority, until the end. Yields what was possible.

    processes: ids of the edge's processes. Priorities count among processes of one control group alone, and a
    container is one, so the loops join the edge's. Without root they cannot, and the loops just compete.
    At the end the priority is the usual one again.
    """
    group = cpu_group(processes[0]) if processes else None
    loops, told = _start(group), "" if group else "loops outside the edge's control group"
    try:
        lowered = _set_priority(processes, LOWEST)
        if not lowered:
            told = "the edge at normal priority: lowering it needs root"
        yield told
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.communicate()
        _set_priority(processes, 0)


def _start(group: Path | None) -> list[subprocess.Popen[bytes]]:
    """The loops, running: each has said that it is where it belongs."""
    arguments = [sys.executable, "-c", _LOOP, *([str(group)] if group else [])]
    loops = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(LOOPS)]
    for loop in loops:
        if loop.stdout is not None:
            loop.stdout.readline()
    return loops


def cpu_group(pid: int) -> Path | None:
    """The file that takes a process into the same CPU control group; None where that is not possible here."""
    try:
        lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    except OSError:
        return None
    root = Path("/sys/fs/cgroup")
    for _, controllers, path in lines:
        if "cpu" in controllers.split(","):
            candidates = [root / controllers, root / "cpu"]
        elif not controllers and (root / "cgroup.controllers").exists():
            candidates = [root]
        else:
            continue
        for candidate in candidates:
            file = candidate / path.lstrip("/") / "cgroup.procs"
            if os.access(file, os.W_OK):
                return file
    return None


def waited_seconds(processes: list[int]) -> float:
    """For how long these processes have been ready to run without a core, in seconds, since they began."""
    return sum(
        int(file.read_text().split()[1]) / 1e9
        for pid in processes
        for file in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def _set_priority(processes: list[int], nice: int) -> bool:
    """Sets the Unix priority (-20 to 19) of every thread; whether all of it was allowed."""
    allowed = bool(processes)
    for pid in processes:
        # Linux keeps a priority per thread.
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            try:
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
            except ProcessLookupError:
                continue
            except PermissionError:
                allowed = False
    return allowed
