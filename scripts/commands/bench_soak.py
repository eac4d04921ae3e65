"""The soak: many whole streams through an edge, one at a time and side by side, with idle and with busy cores."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.commands.bench_client import Place, Wanted, stream
from scripts.commands.bench_edge import haproxy_processes
from scripts.commands.bench_pressure import busy_cores, waited_seconds

STREAM_TOKENS = 64
"""Tokens of every stream, each an event of its own with the fast upstream."""

FAST_STREAMS = 1000
ENGINE_STREAMS = 100
"""Streams of each cell."""

SIDE_BY_SIDE = (1, 8)

STREAMS_PER_CONNECTION = 4
"""A client keeps its connection for so many streams; the next one opens another."""

CELL_SECONDS = 900
"""After this time a cell begins no more streams and says how many it left out."""

LONG_PROMPT_CHARACTERS = 40_000
"""More than HAProxy keeps of a request, so that it passes the body on while the answer already comes."""


@dataclass
class Cell:
    """One way of sending streams, and what became of them.

    upstream: fast or engine. at_once: streams side by side. planned: how many were to be sent. seconds: how long
    it took. waited_seconds: for how long the edge was ready to run and had no core. note: what was not possible.
    reasons: of the first streams that did not come whole.
    """

    upstream: str
    busy: bool
    at_once: int
    planned: int
    whole: int = 0
    cut: int = 0
    failed: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0
    note: str = ""
    reasons: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self)


def fast_wanted(number: int) -> Wanted:
    """The stream with this number: in turn without and with a pause of 1 ms, short and long prompts."""
    prompt = "word " * (LONG_PROMPT_CHARACTERS // 5) if number // 2 % 2 else "Count."
    return Wanted(STREAM_TOKENS, numbered=True, gap_ms=number % 2, prompt=prompt)


def engine_wanted(number: int) -> Wanted:
    """The stream with this number, for a real engine; each prompt is another."""
    return Wanted(STREAM_TOKENS, prompt=f"Tell story number {number} about a river.")


def soak(
    upstream: str, edge: Place, container: str, wanted: Callable[[int], Wanted], streams: int
) -> Iterator[Cell]:
    """Sends this many streams through the edge in each of four ways, and yields each cell when it is done.

    container: the edge's, whose processes get the lowest priority while the cores are busy.
    """
    cells = [(busy, at_once) for busy in (False, True) for at_once in SIDE_BY_SIDE]
    for busy, at_once in cells:
        cell = Cell(upstream, busy, at_once, streams)
        processes = haproxy_processes(container)
        with busy_cores(processes) if busy else contextlib.nullcontext("") as note:
            cell.note = note
            begin, waited = time.monotonic(), waited_seconds(processes)
            _fill(cell, edge, wanted)
            cell.seconds = time.monotonic() - begin
            cell.waited_seconds = waited_seconds(processes) - waited
        yield cell


def _fill(cell: Cell, edge: Place, wanted: Callable[[int], Wanted]) -> None:
    numbers, lock = iter(range(cell.planned)), threading.Lock()
    end = time.monotonic() + CELL_SECONDS

    def client() -> None:
        connection = edge.connection()
        for turn in itertools.count(1):
            with lock:
                number = next(numbers, None) if time.monotonic() < end else None
            if number is None:
                break
            seen = stream(connection, edge, wanted(number))
            if turn % STREAMS_PER_CONNECTION == 0:
                connection.close()
            with lock:
                setattr(cell, seen.outcome, getattr(cell, seen.outcome) + 1)
                if seen.reason and len(cell.reasons) < 3:
                    cell.reasons.append(f"{seen.outcome}: {seen.reason}")
        connection.close()

    clients = [threading.Thread(target=client, daemon=True) for _ in range(cell.at_once)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
