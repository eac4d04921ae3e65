"""Parts of the programs that look whether a machine can take the stack."""

import shlex

from components.machine.machine import STACK_LABEL

MIN_FREE_MIB = 2048
"""Free space below which nothing is begun: the default model and its caches take half of it."""

FAIL = """\
fail() { echo "phase: machine ready" >&2; echo "cause: $1" >&2; echo "change: $2" >&2; exit 1; }
"""


def room(place: str, mib: str) -> str:
    """Lines of bash that fail unless `place` has `mib` MiB free; bash expands both."""
    return f"""\
free=$(df -Pm "{place}" 2>/dev/null | awk 'NR == 2 {{print $4}}')
[ "${{free:-{mib}}}" -ge "{mib}" ] || fail \\
  "seatable-vllm: disk nearly full: $free MiB free at {place}, {mib} wanted" \\
  "free space, or set seatable-vllm:machine.data_dir to a larger disk"
"""


def free_ports(edge: int, engine: int) -> str:
    """Lines of bash that fail where a port is taken by anything but this stack ($stack)."""
    return f"""\
for port in edge:{edge} engine:{engine}; do
  if (exec 3<>"/dev/tcp/127.0.0.1/${{port#*:}}") 2>/dev/null &&
    [ -z "$(docker ps -q --filter "label={STACK_LABEL}=$stack" --filter "label=seatable-vllm.port=${{port#*:}}")" ]
  then
    fail "seatable-vllm: port in use: ${{port#*:}} is taken by another program" \\
      "set seatable-vllm:ports.${{port%:*}} to a free port, or end that program"
  fi
done
"""


def whose(stack: str, data: str) -> str:
    """The variables that the parts use."""
    return f"data={shlex.quote(data)} stack={shlex.quote(stack)}\n"
