"""`scripts/plan MODEL`: which machines hold a model, for how long and how many requests, and what they cost.

MODEL is an id on the Hugging Face hub, or a folder with the model's files. A gated model's files are read with the
token in HF_TOKEN. Figures are forecasts: vLLM's own arithmetic for keys and values, estimates of the rest.

With `--graph STACK` in place of MODEL: what waits for what in a first `up` of that stack, and how long it takes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from catalog.aws.instance_types import instance_types, price_date, price_region
from catalog.aws.memory import gpu_of
from catalog.aws.prices import HOURS_PER_MONTH
from catalog.gpus import UnknownGpuError, parse_gpu
from catalog.models import DEFAULT_MAX_MODEL_LEN
from catalog.sizing import GIB, Fit, Gpu, fits
from scripts.commands.errors import CommandError
from scripts.commands.model_files import ModelFiles, find
from scripts.commands.plan_picture import picture

PROCESSOR = "x86_64"
"""What vLLM's image for GPUs of compute capability 7.5 and up is built for."""
GPU_COUNTS = (1, 2, 4, 8)
PLAIN_WIDTH = 132
"""Characters of a line where there is no terminal to ask."""


@dataclass(frozen=True)
class Row:
    """One machine and the forecast for it."""

    machine: str
    gpu: Gpu
    gpus: int
    """GPUs of the machine."""
    used: int
    """Of them used: the fewest that are enough, else all."""
    usd_per_hour: float | None
    fit: Fit

    @property
    def usd_per_month(self) -> float | None:
        """Running all the time."""
        return None if self.usd_per_hour is None else self.usd_per_hour * HOURS_PER_MONTH


@dataclass(frozen=True)
class _Candidate:
    """A machine that is asked about."""

    machine: str
    gpu: Gpu
    gpus: int
    usd_per_hour: float | None

    def row(self, model: ModelFiles, context: int, users: int) -> Row:
        counts = [number for number in GPU_COUNTS if number <= self.gpus]
        tried = [(used, fits(model.shape, self.gpu, used, context, users=users)) for used in counts]
        used, fit = next(((used, fit) for used, fit in tried if fit.fits), tried[-1])
        return Row(self.machine, self.gpu, self.gpus, used, self.usd_per_hour, fit)


def main(arguments: list[str]) -> int:
    """Status 0 where some machine holds the model, 1 where none does."""
    options = _options(arguments)
    if options.graph:
        # Only here: Pulumi takes a while to load, which a look at a model is not to wait for.
        from scripts.commands import plan_graph  # noqa: PLC0415

        return plan_graph.main(options.graph, as_text=not options.json)
    model = find(options.model, token=os.environ.get("HF_TOKEN") or None)
    context = options.context or min(model.shape.max_model_len, DEFAULT_MAX_MODEL_LEN)
    rows = plan_rows(model, context, options.users, options.gpu, every=options.all)
    if options.json:
        print(json.dumps(_as_json(model, context, options.users, rows), indent=2))
    else:
        _print(model, context, options.users, rows, own=bool(options.gpu))
    if options.picture:
        _save(
            options.picture,
            picture(_title(model, context, options.users), [(_place(row), row.fit) for row in rows]),
        )
    return 0 if any(row.fit.fits for row in rows) else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/plan", description=__doc__)
    parser.add_argument("model", metavar="MODEL", nargs="?", help="OWNER/NAME on the hub, or a folder")
    parser.add_argument(
        "--graph", metavar="STACK", help="what waits for what in a first up, and its critical path"
    )
    parser.add_argument(
        "--context", type=_positive, metavar="TOKENS", help="prompt and answer together (the model's, up to 65536)"
    )
    parser.add_argument("--users", type=_positive, default=1, metavar="N", help="requests of that length at once")
    parser.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="GPU",
        help='your own in place of AWS: "L4", "2x RTX 4090", "RTX 9090 32GB", a line of nvidia-smi -L',
    )
    parser.add_argument(
        "--all", action="store_true", help="every instance type, not the cheapest for each GPU alone"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the memory of one GPU per machine")
    options = parser.parse_args(arguments)
    if bool(options.model) == bool(options.graph):
        parser.error("give a MODEL, or --graph STACK")
    return options


def _positive(text: str) -> int:
    plain = text.replace("_", "")
    if not plain.isdecimal() or int(plain) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(plain)


def plan_rows(
    model: ModelFiles, context: int, users: int, own: Iterable[str], *, every: bool = False
) -> list[Row]:
    """The machines with their forecasts: those that hold the model first, the cheapest of them on top.

    own: GPUs in place of the instance types of AWS. Raises CommandError for one that nobody knows.
    """
    try:
        candidates = [_Candidate(text, *parse_gpu(text), None) for text in own] or list(_aws())
    except UnknownGpuError as error:
        raise CommandError(f"--gpu: {error}") from None
    rows = [each.row(model, context, users) for each in candidates]
    rows.sort(key=lambda row: (not row.fit.fits, row.usd_per_hour is None, row.usd_per_hour or 0.0, row.machine))
    return rows if every or own else list(_cheapest(rows))


def _aws() -> Iterable[_Candidate]:
    for each in instance_types().values():
        if each.no_vllm is None and each.processor == PROCESSOR:
            yield _Candidate(each.name, gpu_of(each), each.gpus, each.usd_per_hour)


def _cheapest(rows: Iterable[Row]) -> Iterable[Row]:
    """Of machines with the same kind of GPU the cheapest: that holds the model, or, where none does, at all."""
    seen = set[tuple[str, int]]()
    for row in rows:
        kind = (row.gpu.name, row.gpu.memory_mib)
        if kind not in seen:
            seen.add(kind)
            yield row


def _place(row: Row) -> str:
    number = f"{row.gpus}x " if row.gpus > 1 else ""
    own = row.machine if row.usd_per_hour is not None or row.machine in instance_types() else ""
    return f"{own} ({number}{row.gpu.name})" if own else f"{number}{row.gpu.name}"


def _title(model: ModelFiles, context: int, users: int) -> str:
    at_once = f"{users} requests" if users > 1 else "a request"
    return f"{model.name}: {at_once} of {context} tokens"


def _print(model: ModelFiles, context: int, users: int, rows: list[Row], *, own: bool) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    shape = model.shape
    console.print(
        f"{_title(model, context, users)}; {shape.weights_bytes / GIB:.1f} GiB of weights"
        f"{f' ({shape.quantization})' if shape.quantization else ''}, made for {shape.max_model_len} tokens",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for heading, side in (
        ("machine", "left"), ("fits", "left"), ("longest", "right"), ("at once", "right"), ("USD/h", "right"),
        ("USD/month", "right"), ("why, or what to change", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=heading == "machine")
    for row in rows:
        table.add_row(*_cells(row, context), style="" if row.fit.fits else "dim")
    console.print(table)
    for line in _below(model, rows, own=own):
        console.print(line, markup=False, soft_wrap=True)


def _cells(row: Row, context: int) -> list[str]:
    fit = row.fit
    first = fit.levers[0].text if fit.levers else ""
    options = ", ".join(f"{name}: {value}" for name, value in fit.options.items())
    told = (f"extra_args {options}" if options else "") if fit.fits else (first or fit.why)
    return [
        _place(row),
        ("uncertain" if fit.doubts else "yes") if fit.fits else "no",
        str(fit.max_model_len) if fit.max_model_len else "-",
        str(fit.users_at(context)) if fit.fits else "-",
        "-" if row.usd_per_hour is None else f"{row.usd_per_hour:.2f}",
        "-" if row.usd_per_month is None else f"{row.usd_per_month:.0f}",
        told,
    ]


def _below(model: ModelFiles, rows: list[Row], *, own: bool) -> Iterable[str]:
    if model.shape.doubts:
        yield f"uncertain: {', '.join(model.shape.doubts)}. Start it with max_model_len set by hand."
    yield from dict.fromkeys(row.gpu.note for row in rows if row.gpu.note)
    if not any(row.fit.fits for row in rows):
        yield f"No machine holds it like this. {rows[-1].fit.why}."
    family = model.family
    if family is None:
        yield "Its family is not in the catalogue: set model.tool_parser by hand, or leave tools off."
    elif model.source != "catalogue":
        preset = "; ".join(f"{name}: {value}" for name, value in family.preset().items())
        parser = family.tool_parser or "none"
        yield f"Set model.tool_parser: {parser}" + (f", and model.extra_args {preset}" if preset else "")
    if family and family.note:
        yield f"Mind: {family.note}."
    if not own:
        yield (
            f"Prices: on demand, {price_region()}, {price_date()}; a month is {HOURS_PER_MONTH} hours. "
            "Disks come on top."
        )
    yield "Forecasts; what vLLM finds at its start is the truth (scripts/check)."


def _as_json(model: ModelFiles, context: int, users: int, rows: list[Row]) -> dict[str, Any]:
    return {
        "model": model.name,
        "source": model.source,
        "family": model.family.name if model.family else None,
        "tool_parser": model.family.tool_parser if model.family else None,
        "context": context,
        "users": users,
        "weights_bytes": model.shape.weights_bytes,
        "max_model_len": model.shape.max_model_len,
        "uncertain": list(model.shape.doubts),
        "machines": [
            {
                "machine": row.machine,
                "gpu": row.gpu.name,
                "gpu_note": row.gpu.note,
                "gpus": row.gpus,
                "gpus_used": row.used,
                "fits": row.fit.fits,
                "why": row.fit.why,
                "longest_context": row.fit.max_model_len,
                "requests_at_once": row.fit.users_at(context) if row.fit.fits else 0,
                "extra_args": dict(row.fit.options),
                "levers": [{"name": lever.name, "text": lever.text} for lever in row.fit.levers],
                "usd_per_hour": row.usd_per_hour,
                "usd_per_month": row.usd_per_month,
                "bytes_per_gpu": {
                    "weights": row.fit.memory.weights,
                    "kv": row.fit.memory.kv,
                    "overhead": row.fit.memory.overhead,
                    "free": row.fit.memory.free,
                },
            }
            for row in rows
        ],
    }


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise CommandError(f"--picture: {path} cannot be written: {error.strerror}") from None
    print(f"{path} has the picture", file=sys.stderr)
