"""What the edge costs: the same request past it and through it, in turns, so that drift hits both alike."""

import contextlib
import http.client
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeVar

from scripts.commands.bench_client import Place, Wanted, models_seconds, stream
from scripts.commands.errors import CommandError

WARM_UP = 5
"""Pairs that are thrown away: connections are opened and caches filled."""

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Row:
    """One comparison.

    direct, edge: medians. direct_p95, edge_p95: the worst of twenty, None where there is no such thing. added:
    median over the pairs of edge minus direct. ratio: edge by direct. aim: what the project wants, in words.
    """

    name: str
    unit: str
    repeats: int
    direct: float
    edge: float
    direct_p95: float | None
    edge_p95: float | None
    added: float
    ratio: float
    aim: str = ""


def compare(name: str, unit: str, pairs: Sequence[tuple[float, float]], aim: str = "") -> Row:
    """The comparison of pairs (direct, edge)."""
    direct, edge = ([pair[side] for pair in pairs] for side in (0, 1))
    return Row(
        name, unit, len(pairs), median(direct), median(edge), _p95(direct), _p95(edge),
        median(through - past for past, through in pairs), median(edge) / median(direct), aim,
    )  # fmt: skip


def models(what: str, direct: Place, edge: Place, pairs: int, aim: str = "") -> Row:
    """GET /v1/models over two connections that stay open, in ms."""
    with _connections(direct, edge) as connections:

        def once(side: int) -> float:
            return models_seconds(connections[side], (direct, edge)[side]) * 1000

        return compare(f"GET /v1/models, {what}", "ms", _in_turns(once, pairs), aim)


def streams(
    what: str, direct: Place, edge: Place, *, wanted: Wanted, pairs: int, aims: Sequence[str]
) -> list[Row]:
    """Streams: the first event in ms, tokens per second, and in how many pieces it comes.

    aims: of these three, in words.
    """
    with _connections(direct, edge) as connections:

        def once(side: int) -> tuple[float, float, float]:
            place = (direct, edge)[side]
            seen = stream(connections[side], place, wanted)
            if seen.outcome != "whole":
                raise CommandError(f"a stream from port {place.port} is {seen.outcome}: {seen.reason}")
            return seen.arrivals[0] * 1000, wanted.tokens / seen.arrivals[-1], seen.bursts

        seen = _in_turns(once, pairs)
    names = (
        ("first event of a stream", "ms"),
        ("tokens per second", "1/s"),
        ("pieces of a stream", "number"),
    )
    return [
        compare(f"{name}, {what}", unit, [(past[each], through[each]) for past, through in seen], aims[each])
        for each, (name, unit) in enumerate(names)
    ]


def _in_turns(once: Callable[[int], Seen], pairs: int) -> list[tuple[Seen, Seen]]:
    """Does it past the edge (0) and through it (1), over and over."""
    try:
        for side in (0, 1) * WARM_UP:
            once(side)
        return [(once(0), once(1)) for _ in range(pairs)]
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"the endpoint does not answer as it should: {error}") from None


@contextlib.contextmanager
def _connections(direct: Place, edge: Place) -> Iterator[tuple[http.client.HTTPConnection, ...]]:
    with contextlib.closing(direct.connection()) as past, contextlib.closing(edge.connection()) as through:
        yield past, through


def _p95(values: Sequence[float]) -> float | None:
    """The value that one in twenty exceeds; None for fewer than twenty."""
    return quantiles(values, n=20)[-1] if len(values) >= 20 else None
