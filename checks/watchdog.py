"""The engine's HEALTHCHECK, run inside its container: one token, and a look at whether the engine moves.

vLLM answers /health with 200 while its engine hangs, so only a real completion proves anything. A busy
engine may be slow to give one; it is left alone as long as its step counter moves. Three misses in a row with
a frozen counter, and every process of the container is killed: the restart policy brings the engine back.

Exit status: 0 healthy or busy, 1 a miss. Needs only the standard library and PyYAML, which vLLM brings.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
from pathlib import Path

import yaml

CONFIGURATION = Path("/etc/seatable-vllm/vllm/config.yaml")
MEMORY = Path("/tmp/seatable-vllm-watchdog.json")  # noqa: S108 - a file of the container, nobody else is in it
INIT = Path("/proc/1/stat")
PROCESSES = Path("/proc")
MISSES_UNTIL_KILL = 3

COMPLETION_SECONDS = 15
"""Patience for one token; on a GPU the longest step takes a second or two."""

COUNTER_SECONDS = 5

INTERVAL_SECONDS = 10
"""Pause between two checks; with the patience above, a hang ends after (10 + 15) * 3 s at the latest."""

COMPUTING_SECONDS = 5.0
"""CPU time between two checks that only an engine at work takes. On a CPU one step may last minutes (2,048 tokens
of a large model's prompt), while the step counter stands still; what hangs there takes next to none. A GPU's
engine may hang with a core at full speed, so this excuse is for the CPU alone."""

COUNTER = re.compile(r"^vllm:iteration_tokens_total_count(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


def decide(
    memory: dict[str, float], completed: bool, steps: float | None, computing: bool = False
) -> tuple[dict[str, float], str]:
    """What to remember, and the verdict: "healthy", "starting", "busy", "miss" or "kill".

    steps: how many steps the engine has made, or None where it does not say. computing: whether it has been at
    work on the CPU since the last check.
    """
    if completed:
        return {**memory, "misses": 0, "steps": steps or 0, "served": 1}, "healthy"
    if steps is None and not memory.get("served"):
        # Nothing listens before the model is loaded, which takes as long as it takes; the gate of `up` watches
        # over that.
        return memory, "starting"
    if steps is not None and (computing or steps > memory.get("steps", steps)):
        return {**memory, "misses": 0, "steps": steps}, "busy"
    misses = memory.get("misses", 0) + 1
    seen = {} if steps is None else {"steps": steps}
    return {**memory, **seen, "misses": misses, "served": 1}, "kill" if misses >= MISSES_UNTIL_KILL else "miss"


def _recall() -> dict[str, float]:
    """What the last check of this same start of the container left; a restart begins anew."""
    started = float(INIT.read_text().rsplit(")", 1)[1].split()[19])  # field 22 of proc(5): starttime
    try:
        memory = json.loads(MEMORY.read_text())
    except (OSError, ValueError):
        memory = {}
    return memory if memory.get("started") == started else {"started": started}


def _cpu_seconds() -> float:
    """CPU time that all processes in the container have taken so far, but for health checks."""
    ticks = 0
    for stat in PROCESSES.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has just ended
        if int(stat.parent.name) != os.getpid():
            ticks += int(fields[11]) + int(fields[12])  # fields 14 and 15 of proc(5): utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def _request(port: int, path: str, seconds: float, key: str = "", body: object = None) -> str | None:
    """The text of a 200 answer of the engine, or None for anything else."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"} if key else {}
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return text if answer.status == http.HTTPStatus.OK else None


def main() -> int:
    """One check; see the module's text."""
    options = yaml.safe_load(CONFIGURATION.read_text())
    port, key = options["port"], options["api-key"][0]
    prompt = {"model": options["served-model-name"], "prompt": "1", "max_tokens": 1}
    completed = _request(port, "/v1/completions", COMPLETION_SECONDS, key, prompt) is not None
    found = COUNTER.search(_request(port, "/metrics", COUNTER_SECONDS) or "")
    memory, cpu = _recall(), _cpu_seconds()
    computing = "VLLM_CPU_KVCACHE_SPACE" in os.environ and cpu - memory.get("cpu", cpu) >= COMPUTING_SECONDS
    memory, verdict = decide({**memory, "cpu": cpu}, completed, float(found[1]) if found else None, computing)
    MEMORY.write_text(json.dumps(memory))
    print(verdict, f"misses={memory.get('misses', 0):.0f}")
    if verdict == "kill":
        # -1: every process but the container's init and this one, stopped ones too.
        os.kill(-1, signal.SIGKILL)
    return 0 if verdict in ("healthy", "busy") else 1


if __name__ == "__main__":
    sys.exit(main())
