"""Whether the machine may be stopped: run once a minute by a timer on it, with its order in a JSON file.

What counts as use are vLLM's own counters, which the requests of users and of nobody else move. The engine's
health check (checks/watchdog.py) asks for one token after a prompt of a token or two, every ten seconds; a request
is taken for it if its prompt has at most PROBE_PROMPT_TOKENS *and* it may have one token. vLLM keeps both numbers
of every finished request in histograms, so users' requests can be counted without them. Tokens of a stream count
while it runs. A client that only lists models, or is refused at the edge, uses nothing.

A machine is never stopped for idleness while a request runs, while the engine may still be loading, or while
somebody's program runs on it through SSH, as those of `up` do. Needs only the standard library.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

LOAD_SECONDS = 5400
"""How long an engine may stay silent before it counts as one that answers nothing: 1.5 times vLLM's own patience
with a start (VLLM_ENGINE_READY_TIMEOUT_S)."""

GRACE_SECONDS = 1800
"""After a boot the machine is left alone for so long, whatever is due: `up` needs minutes to reach it."""

LATEST_SECONDS = 900
"""How long a lifetime that has ended is stretched for a request, or for somebody at work on the machine."""

PROBE_PROMPT_TOKENS = 5
"""The health check's prompt has one to three, with a token for the begin; a chat of one word has ten."""

ANSWER_SECONDS = 10
"""Patience with vLLM; it answers this in milliseconds."""

LOOKS = 30
"""Looks, a second apart, that find out whether a running request is a user's: the health check's ends within 15 s,
and pauses for ten before the next."""

_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_UP_TO = re.compile(r'(?:^|,)le="([^"]+)"')


@dataclass(frozen=True)
class Order:
    """What to look at, and when to stop the machine."""

    metrics: str
    """URL of vLLM's counters."""
    idle_seconds: int | None
    """The machine is stopped when nothing has been used for so long; None: never."""
    live_seconds: int | None
    """The machine is stopped so long after the last `up`; None: never."""
    memory: str
    """File for what the last look has seen. It does not outlive a boot."""
    last_up: str
    """File with the time of the last `up`, in seconds since 1970."""
    poweroff: Sequence[str]
    """The command that stops the machine."""
    processes: str = "/proc"
    clock: str | None = None
    """A file with a clock of one's own, for tests: seconds since boot, and since 1970. None: the machine's."""
    pause: float = 1.0
    """Seconds between two looks at a running request."""


@dataclass(frozen=True)
class Seen:
    """What one look has seen. Times are in seconds since boot; they know no jumps of the clock."""

    now: float
    used: float | None
    """Requests and tokens of users since the engine started; None: the engine does not answer."""
    running: float
    """Requests that run or wait, the health check's too."""
    at_work: bool
    """Whether a program of an SSH session runs."""
    last_up: float | None
    """When the last `up` was; negative if before the boot. None: not known."""


@dataclass(frozen=True)
class Memory:
    """What is remembered from look to look. since: of when the last sign of use is."""

    since: float = 0.0
    used: float | None = None
    answered: float = 0.0
    said: str = ""


def decide(order: Order, memory: Memory, seen: Seen) -> tuple[Memory, str | None]:
    """What to remember, and why the machine is to be stopped, or None."""
    memory = _remember(memory, seen)
    if seen.now < GRACE_SECONDS:
        return memory, None
    if order.live_seconds is not None:
        over = seen.now - (seen.last_up or 0.0) - order.live_seconds
        busy = seen.running > 0 or seen.at_work
        if over >= (LATEST_SECONDS if busy else 0):
            return memory, f"its lifetime of {order.live_seconds // 3600} h after the last up has ended"
    if order.idle_seconds is None or seen.at_work or seen.running > 0:
        return memory, None
    silent_for = seen.now - memory.answered
    if seen.used is None and silent_for < LOAD_SECONDS + order.idle_seconds:
        return memory, None
    if seen.now - memory.since >= order.idle_seconds:
        return memory, f"it has answered nothing for {(seen.now - memory.since) // 60:.0f} min"
    return memory, None


def _remember(memory: Memory, seen: Seen) -> Memory:
    since = max(memory.since, seen.last_up or 0.0)
    if seen.used is None:
        return replace(memory, since=since)
    # An engine that has just been loaded (its counters begin anew) counts as used: somebody waits for it.
    if memory.used is None or seen.used != memory.used:
        since = seen.now
    return replace(memory, since=since, used=seen.used, answered=seen.now)


def usage(text: str) -> tuple[float, float]:
    """From vLLM's metrics: what users' requests have moved, and how many requests run or wait."""
    sums: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        up_to = _UP_TO.search(labels)
        key = f"{name} {float(up_to[1])}" if up_to else name
        sums[key] = sums.get(key, 0.0) + float(value)

    def above(histogram: str, limit: float) -> float:
        return sums.get(f"{histogram}_count", 0.0) - sums.get(f"{histogram}_bucket {float(limit)}", 0.0)

    long_prompts = above("vllm:request_prompt_tokens", PROBE_PROMPT_TOKENS)
    many_tokens = above("vllm:request_params_max_tokens", 1)
    # The health check's only token comes with its end, so that these two rise together.
    more_tokens = sums.get("vllm:generation_tokens_total", 0.0) - sums.get("vllm:request_success_total", 0.0)
    running = sums.get("vllm:num_requests_running", 0.0) + sums.get("vllm:num_requests_waiting", 0.0)
    return long_prompts + many_tokens + more_tokens, running


def at_work(processes: Path) -> bool:
    """Whether sshd has a child that is not sshd: a shell, a program of `up`, Docker's own way; no mere tunnel."""
    parents: dict[str, str] = {}
    names: dict[str, str] = {}
    for stat in processes.glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text(errors="replace").rpartition(")")
        except OSError:
            continue  # it has just ended
        pid, _, name = head.partition(" (")
        parents[pid], names[pid] = tail.split()[1], name
    return any(
        names.get(parent, "").startswith("sshd") and not names[pid].startswith("sshd")
        for pid, parent in parents.items()
    )


def look(order: Order) -> Seen:
    """One look at the machine."""
    now, epoch = _clock(order)
    try:
        last_up: float | None = float(Path(order.last_up).read_text()) - epoch + now
    except (OSError, ValueError):
        last_up = None
    used, running = None, 0.0
    try:
        with urllib.request.urlopen(order.metrics, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - of our own
            used, running = usage(answer.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        pass
    return Seen(now, used, running, at_work(Path(order.processes)), last_up)


def _clock(order: Order) -> tuple[float, float]:
    if order.clock is None:
        return time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    boot, epoch = Path(order.clock).read_text().split()
    return float(boot), float(epoch)


def settled(order: Order) -> Seen:
    """A look that the health check deceives no more: nothing runs in it, or what runs is a user's."""
    for _ in range(LOOKS - 1):
        seen = look(order)
        if not seen.running:
            return seen
        time.sleep(order.pause)
    return look(order)


def main(path: str) -> None:
    """One run of the timer. Says something only when it is something else than the last time."""
    order = Order(**json.loads(Path(path).read_text()))
    file = Path(order.memory)
    try:
        memory = Memory(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        memory = Memory()
    seen = look(order)
    if seen.running and decide(order, memory, replace(seen, running=0.0))[1]:
        seen = settled(order)
    memory, why = decide(order, memory, seen)
    words = f"stopping the machine: {why}" if why else "the machine stays on"
    if words != memory.said:
        print(words, flush=True)
    file.write_text(json.dumps(replace(memory, said=words).__dict__))
    if why:
        subprocess.run(order.poweroff, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
