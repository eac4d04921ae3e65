"""`scripts/bench [stack] [--soak] [--json]`: what the edge costs, measured on a stack that is deployed.

Every request goes to vLLM itself and through the edge in turns. Nothing is judged: other work on the computer
shows in the absolute numbers, and much less in differences and ratios. `--start` measures a start in their place.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml
from rich.console import Console
from rich.table import Table

from scripts.commands.bench_client import Place, Wanted
from scripts.commands.bench_edge import LOOPBACK, FastEdge, fast_edge, image_of, resident_mb
from scripts.commands.bench_soak import ENGINE_STREAMS, FAST_STREAMS, Cell, engine_wanted, fast_wanted, soak
from scripts.commands.bench_speed import Row, models, streams
from scripts.commands.bench_start import measure
from scripts.commands.deployed import outputs_of
from scripts.commands.errors import CommandError
from scripts.commands.stacks import DEFAULT_STACK, data_dir, stack_settings
from scripts.commands.target import client_target
from scripts.commands.terminal import Step, Terminal

MODELS_PAIRS = 1500
FIRST_EVENT_PAIRS = 40
RATE_PAIRS = 10
FAST_STREAM_PAIRS = 300
"""How often each request is made past the edge and through it."""

RATE_TOKENS = 128
FIRST_EVENT_TOKENS = 16
FAST_GAP_MS = 1
"""A fast upstream that paused less would be measured together with the next event."""

AIM_MODELS = "added <= 0.25"
AIM_FIRST = "added <= 1"
AIM_RATE = "ratio 1"
AIM_MEMORY = "<= 40"


@dataclass(frozen=True)
class Measured:
    """Everything that one run of the command found. memory_mb: of the edge, before and after; None if not seen."""

    stack: str
    rows: list[Row]
    memory_mb: tuple[float | None, float | None]
    cells: list[Cell]

    def as_json(self) -> dict[str, Any]:
        """For printing."""
        return {
            "stack": self.stack,
            "compared": [asdict(row) for row in self.rows],
            "edge_memory_mb": {"before": self.memory_mb[0], "after": self.memory_mb[1]},
            "soak": [cell.as_json() for cell in self.cells],
        }


@dataclass(frozen=True)
class Deployed:
    """The stack to measure: vLLM itself, the same through the edge, and the edge's container by name."""

    stack: str
    direct: Place
    edge: Place
    container: str


def main(arguments: list[str]) -> int:
    """Status 0 when everything could be measured, whatever the numbers."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK)
    parser.add_argument("--soak", action="store_true", help="also count streams that are cut: tens of minutes")
    parser.add_argument(
        "--start", action="store_true", help="bring up a stack that is down, and measure that and further ups"
    )
    parser.add_argument("--rehearse", action="store_true", help="with --start: without the Pulumi CLI")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    # As Ctrl-C: what was started is ended first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.start:
        begun = measure(options.stack, options.rehearse, Terminal())
        print(json.dumps(begun.as_json(), indent=2) if options.json else "\n".join(begun.lines()))
        return 0
    deployed = deployed_stack(options.stack)
    terminal = Terminal()
    before = resident_mb(deployed.container)
    with fast_edge(image_of(deployed.container)) as fast:
        with terminal.step("measuring") as step:
            rows = list(_speed(deployed, fast, step))
        cells: list[Cell] = []
        if options.soak:
            with terminal.step("soak") as step:
                cells = list(_soak(deployed, fast, step))
    measured = Measured(options.stack, rows, (before, resident_mb(deployed.container)), cells)
    if options.json:
        print(json.dumps(measured.as_json(), indent=2))
    else:
        _print(measured)
    return 0


def deployed_stack(stack: str) -> Deployed:
    """Where the stack's engine and edge answer. CommandError where it is not deployed, or its key not readable."""
    settings = stack_settings(stack)
    if settings.domain:
        raise CommandError(
            f"{stack} has a domain, and the benchmark measures an edge without TLS; use the stack local"
        )
    target = client_target(settings, outputs_of(stack), settings.proving_client())
    url = urlsplit(target.base_url)
    file = data_dir(stack, settings) / "vllm" / "config.yaml"
    try:
        key = yaml.safe_load(file.read_text())["api-key"][0]
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError) as error:
        # Of the error only its kind: the text of the file has the key in it.
        raise CommandError(f"the engine's key cannot be read from {file}: {type(error).__name__}") from None
    return Deployed(
        stack,
        Place(LOOPBACK, settings.ports.engine, key, target.model),
        Place(url.hostname or LOOPBACK, url.port or 80, target.key, target.model, target.source),
        f"seatable-vllm-{stack}-edge",
    )


def _speed(deployed: Deployed, fast: FastEdge, step: Step) -> Iterable[Row]:
    past, through = deployed.direct, deployed.edge
    step.say("the list of models")
    yield models("vLLM", past, through, MODELS_PAIRS, AIM_MODELS)
    yield models("fast upstream", fast.direct, fast.edge, MODELS_PAIRS, AIM_MODELS)
    step.say("streams of a fast upstream")
    wanted = Wanted(FIRST_EVENT_TOKENS, numbered=True, gap_ms=FAST_GAP_MS)
    aims = (AIM_FIRST, AIM_RATE, AIM_RATE)
    yield streams("fast upstream", fast.direct, fast.edge, wanted=wanted, pairs=FAST_STREAM_PAIRS, aims=aims)[0]
    step.say("first events of vLLM")
    wanted = Wanted(FIRST_EVENT_TOKENS)
    yield streams("vLLM", past, through, wanted=wanted, pairs=FIRST_EVENT_PAIRS, aims=aims)[0]
    step.say(f"streams of {RATE_TOKENS} tokens")
    wanted = Wanted(RATE_TOKENS)
    yield from streams("vLLM", past, through, wanted=wanted, pairs=RATE_PAIRS, aims=aims)[1:]


def _soak(deployed: Deployed, fast: FastEdge, step: Step) -> Iterable[Cell]:
    for cell in soak("fast", fast.edge, fast.container, fast_wanted, FAST_STREAMS):
        step.say(describe(cell))
        yield cell
    for cell in soak("engine", deployed.edge, deployed.container, engine_wanted, ENGINE_STREAMS):
        step.say(describe(cell))
        yield cell


def describe(cell: Cell) -> str:
    """One cell of the soak in one line."""
    return (
        f"{cell.upstream}, {'busy' if cell.busy else 'idle'} cores, {cell.at_once} at once:"
        f" {cell.whole} of {cell.planned} whole, {cell.cut} cut, {cell.failed} failed"
    )


def _print(measured: Measured) -> None:
    rows = [
        (
            row.name, row.unit, _number(row.direct), _number(row.edge), _number(row.direct_p95),
            _number(row.edge_p95), f"{row.added:+.3g}", f"{row.ratio:.3f}", row.aim,
        )
        for row in measured.rows
    ]  # fmt: skip
    heads = ("edge against vLLM directly", "unit", "direct", "edge", "p95", "p95 edge", "added", "ratio", "aim")
    _table(heads, rows)
    before, after = (_number(each) for each in measured.memory_mb)
    print(f"resident memory of the edge, MB: before {before}, after {after}, aim {AIM_MEMORY}")
    if measured.cells:
        print()
        _table(
            ("soak", "cores", "at once", "streams", "whole", "cut", "failed", "seconds", "edge waited, s"),
            [_cell_row(cell) for cell in measured.cells],
        )
        for cell in measured.cells:
            for text in (*cell.reasons, *([cell.note] if cell.note else [])):
                print(f"{describe(cell)}: {text}")


def _cell_row(cell: Cell) -> Sequence[str]:
    counts = (cell.at_once, cell.planned, cell.whole, cell.cut, cell.failed)
    return (
        cell.upstream, "busy" if cell.busy else "idle", *map(str, counts), f"{cell.seconds:.0f}",
        f"{cell.waited_seconds:.1f}",
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table where a terminal shows it, and lines of the same words elsewhere."""
    if sys.stdout.isatty():
        table = Table(*heads)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    for row in rows:
        values = (f"{head} {cell}" for head, cell in zip(heads[1:], row[1:], strict=True) if cell not in ("", "-"))
        print(f"{row[0]}: {', '.join(values)}")
