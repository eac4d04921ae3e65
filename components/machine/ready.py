"""Parts of the programs that look whether a machine can take the stack."""

import json
import shlex

from catalog.haproxy import CONFIGURATION
from checks.bundle import MIN_PYTHON_TEXT, VERSION_CHECK, folder_program
from components.machine.cleared import FolderOrder
from components.machine.machine import STACK_LABEL

MIN_FREE_MIB = 2048
"""Free space below which nothing is begun: the default model and its caches take half of it."""

FAIL = """\
fail() { echo "phase: machine ready" >&2; echo "cause: $1" >&2; echo "change: $2" >&2; exit 1; }
"""

PYTHON_CHECK = f"""\
command -v python3 >/dev/null ||
  fail "python3 is not on the machine" "install it there, {MIN_PYTHON_TEXT} or newer (apt-get install python3)"
python3 -c {shlex.quote(VERSION_CHECK)}
"""
"""Lines of bash that fail where the machine's Python cannot run what is sent to it; to be run before all else."""


def room(place: str, mib: str) -> str:
    """Lines of bash that fail unless `place` has `mib` MiB free; bash expands both."""
    return f"""\
there="{place}"
while [ ! -e "$there" ]; do there=$(dirname "$there"); done  # its folder is made last, when all else is well
free=$(df -Pm "$there" 2>/dev/null | awk 'NR == 2 {{print $4}}')
[ "${{free:-{mib}}}" -ge "{mib}" ] || fail \\
  "seatable-vllm: disk nearly full: $free MiB free at {place}, {mib} wanted" \\
  "free space, or set seatable-vllm:machine.data_dir to a larger disk"
"""


def free_ports(edge: int, engine: int, loopback: int | None) -> str:
    """Lines of bash that fail where a port is taken by anything but this stack ($stack, with its data in $data).

    loopback: that of the listener without a key, or None. It comes and goes without another container, so no label
    names it: it is the stack's own where its edge runs with it.
    """
    ports = f"edge:{edge} engine:{engine}" + (f" loopback:{loopback}" if loopback else "")
    return f"""\
ours() {{
  [ -z "$(docker ps -q --filter "label={STACK_LABEL}=$stack" --filter "label=seatable-vllm.port=$1")" ] || return 0
  grep -qsx " *bind 127.0.0.1:$1" "$data/edge/live/{CONFIGURATION}" &&
    [ -n "$(docker ps -q --filter "label={STACK_LABEL}=$stack" --filter "name=-edge")" ]
}}
for port in {ports}; do
  if (exec 3<>"/dev/tcp/127.0.0.1/${{port#*:}}") 2>/dev/null && ! ours "${{port#*:}}"; then
    fail "seatable-vllm: port in use: ${{port#*:}} is taken by another program" \\
      "set seatable-vllm:ports.${{port%:*}} to a free port, or end that program"
  fi
done
"""


def whose(stack: str, data: str) -> str:
    """The variables that the parts use."""
    return f"data={shlex.quote(data)} stack={shlex.quote(stack)}\n"


def taken(folder: FolderOrder, *, adopt: bool) -> str:
    """Lines of bash that take the data directory for the stack, or fail before anything is written there.

    adopt: whether its disk was given to the stack, with whatever is on it.
    """
    order = json.dumps({**folder, "do": "take", "adopt": adopt})
    return f"python3 - <<'FOLDER'\n{folder_program(order)}FOLDER\n"
