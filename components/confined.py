"""The rights of every container that the program starts, and its limit of processes.

A container's root keeps one capability, DAC_OVERRIDE: files are mounted into it that belong to whoever deploys and
that this user alone may read. It reaches nothing outside the container's own file system and its mounts.
"""

import shlex

CAPABILITIES = ("CAP_DAC_OVERRIDE",)
"""What is left of Docker's fourteen."""

SECURITY_OPTIONS = ("no-new-privileges",)

PIDS = 16384
"""Processes and threads of one container. Eight GPUs on 192 cores need some five thousand (an estimate); Linux
allows 32768 on the whole machine where it has 32 cores or fewer."""

_LIMITS = f"--security-opt no-new-privileges --pids-limit {PIDS}"

RUN_OPTIONS = f"{_LIMITS} --cap-drop ALL --cap-add DAC_OVERRIDE"
"""For `docker run`. With `--user` of anybody but root, the container has no capability at all."""

CHOWN_OPTIONS = f"{RUN_OPTIONS} --cap-add CHOWN"
"""For a container that hands files over to whoever deploys."""

CHOSEN_OPTIONS = f"{_LIMITS} --cap-drop ALL"
"""For a container whose capabilities are added one by one."""


def process_limit_program(container: str) -> str:
    """A bash program that limits a container's processes; Docker keeps the limit over restarts of it."""
    return f"""\
set -euo pipefail
if ! printed=$(docker update --pids-limit {PIDS} {shlex.quote(container)} 2>&1 >/dev/null); then
  echo "phase: engine started" >&2
  echo "cause: Docker cannot limit the number of the engine's processes: ${{printed##*$'\\n'}}" >&2
  echo "change: run up again; docker update --pids-limit {PIDS} {container} on the machine shows why" >&2
  exit 1
fi
echo "{container} may have {PIDS} processes and threads"
"""
