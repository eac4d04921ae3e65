"""The program that lets a machine stop itself: when it is idle, or when its lifetime has ended.

It installs what decides (`checks/idleness.py`) with a systemd timer, or takes both away where the settings ask for
neither. All of it is on the machine's own disk, so that it also works where the data volume does not. EC2 has to
be told that a machine which powers itself off is stopped, not terminated (instance_initiated_shutdown_behavior).
"""

import base64
import json
import shlex
from pathlib import Path

from checks import idleness
from settings.aws import Cost

UNITS = "/etc/systemd/system"
LIBRARY = "/usr/local/lib/seatable-vllm"
STATE = "/var/lib/seatable-vllm"

POWEROFF = ("systemctl", "poweroff")


def unit(stack: str) -> str:
    """The name of the timer and its service."""
    return f"seatable-vllm-{stack}-idle-stop"


def idle_stop_program(stack: str, cost: Cost, engine_port: int) -> str:
    """A bash program that brings the timer to what the settings say, or takes it away. It may run again and again.

    engine_port: where vLLM answers on the machine's loopback address. The run counts as an `up`.
    """
    if cost.idle_stop_minutes is None and cost.live_hours is None:
        return _HEAD + _REMOVE.format(unit=shlex.quote(unit(stack)), units=UNITS, library=LIBRARY)
    order = {
        "metrics": f"http://127.0.0.1:{engine_port}/metrics",
        "idle_seconds": cost.idle_stop_minutes * 60 if cost.idle_stop_minutes else None,
        "live_seconds": cost.live_hours * 3600 if cost.live_hours else None,
        "memory": f"/run/{unit(stack)}.json",
        "last_up": last_up_file(stack),
        "poweroff": POWEROFF,
    }
    program, settings = f"{LIBRARY}/{unit(stack)}.py", f"{LIBRARY}/{unit(stack)}.json"
    files = {
        program: Path(idleness.__file__).read_text(),
        settings: json.dumps(order, indent=1) + "\n",
        f"{UNITS}/{unit(stack)}.service": _SERVICE.format(program=program, settings=settings),
        f"{UNITS}/{unit(stack)}.timer": _TIMER,
    }
    puts = "".join(
        f"put {shlex.quote(path)} {base64.b64encode(text.encode()).decode()}\n" for path, text in files.items()
    )
    name = shlex.quote(f"{unit(stack)}.timer")
    return f"""\
{_HEAD}{_PUT}{puts}{_noted(stack)}\
[ -z "$changed" ] || as_root systemctl daemon-reload
as_root systemctl enable --quiet {name}
# Restarted, so that a changed interval counts from now on, and a timer that somebody stopped runs again.
if [ -n "$changed" ] || ! systemctl --quiet is-active {name}; then as_root systemctl restart {name}; fi
echo "the machine stops itself: {_words(cost)}"
"""


def up_noted_program(stack: str) -> str:
    """A bash program that notes on the machine that there was an `up` just now; a lifetime counts from it."""
    return _HEAD + _noted(stack) + 'echo "noted"\n'


def last_up_file(stack: str) -> str:
    """Where the time of the last `up` is, in seconds since 1970. It outlives a stop of the machine."""
    return f"{STATE}/{stack}-last-up"


def _noted(stack: str) -> str:
    path = shlex.quote(last_up_file(stack))
    return f"as_root mkdir -p {STATE}\ndate +%s | as_root tee {path} >/dev/null\n"


def _words(cost: Cost) -> str:
    parts = [f"{cost.idle_stop_minutes} min after its last request"] * bool(cost.idle_stop_minutes)
    parts += [f"{cost.live_hours} h after the last up"] * bool(cost.live_hours)
    return ", and ".join(parts)


_HEAD = """\
set -euo pipefail
fail() { echo "phase: idle stop" >&2; echo "cause: $1" >&2; echo "change: $2" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
as_root true 2>/dev/null || fail "$(id -un) has no sudo without a password on the machine" \\
  "name another AMI in seatable-vllm:machine.ami, or remove idle_stop_minutes and live_hours from machine.cost"
"""

_PUT = """\
changed=
put() {
  if ! base64 -d <<< "$2" | as_root cmp -s - "$1"; then
    as_root mkdir -p "$(dirname "$1")"
    base64 -d <<< "$2" | as_root tee "$1.part" >/dev/null
    as_root chmod 0644 "$1.part"
    as_root mv -f "$1.part" "$1"
    changed=yes
  fi
}
"""

_REMOVE = """\
unit={unit}
if [ -e "{units}/$unit.timer" ] || [ -e "{library}/$unit.py" ]; then
  as_root systemctl disable --quiet --now "$unit.timer" || true
  as_root rm -f "{units}/$unit.timer" "{units}/$unit.service" "{library}/$unit.py" "{library}/$unit.json"
  as_root rm -f "/run/$unit.json"
  as_root systemctl daemon-reload
  echo "the machine stops itself no more"
else
  echo "the machine does not stop itself"
fi
"""

_SERVICE = """\
[Unit]
Description=Stops the machine of a seatable-vllm stack when it is idle, or its time is over
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I {program} {settings}
TimeoutStartSec=120
# A run a minute would fill the journal with its begin and its end.
SyslogLevel=notice
LogLevelMax=notice
"""

_TIMER = """\
[Unit]
Description=Looks every minute whether the machine of a seatable-vllm stack is idle
[Timer]
OnActiveSec=1min
OnUnitInactiveSec=1min
AccuracySec=5s
[Install]
WantedBy=timers.target
"""
