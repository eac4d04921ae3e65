"""The memory of one GPU per machine, drawn as bars: weights, keys and values, overhead, free.

Drawn by hand: rich's own SVG draws bars as letters of a font that whoever looks at it fetches from the net.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from catalog.sizing import GIB, Fit, MemorySplit

PARTS = (
    ("weights", "weights", "#4063a3"),
    ("overhead", "overhead (CUDA, activations, graphs)", "#d9a441"),
    ("kv", "keys and values", "#4f9d69"),
    ("free", "left free", "#d8dce2"),
)
TOO_MUCH = "#c0504d"

NAMES = 260
"""Pixels for the machines' names."""
BARS = 640
AFTER = 240
"""Pixels behind the longest bar, for what is said about it."""
TOP = 84
LINE = 30
BAR = 18
LEAST_LABELLED = 44
"""Pixels of a part that has room for its number."""


def picture(title: str, forecasts: Sequence[tuple[str, Fit]]) -> str:
    """An SVG with a bar per machine, drawn to one scale; `forecasts` has a name and a forecast each."""
    width, height = NAMES + BARS + AFTER, TOP + LINE * len(forecasts) + 12
    largest = max((_needed(fit.memory) for _, fit in forecasts), default=1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, Arial, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(16, 28, f"Memory of one GPU: {title}", more='font-size="16" font-weight="bold"'),
        *_legend(),
    ]
    for number, (name, fit) in enumerate(forecasts):
        lines += _row(TOP + LINE * number, name, fit, BARS / largest)
    return "\n".join([*lines, "</svg>", ""])


def _needed(memory: MemorySplit) -> int:
    """What a bar is as long as: all of the GPU, or what is wanted of it, up to twice as much."""
    return min(max(memory.total, memory.weights + memory.overhead), 2 * memory.total)


def _legend() -> Iterable[str]:
    left = 16
    for _, name, colour in (*PARTS, ("", "more than the GPU has", TOO_MUCH)):
        yield f'<rect x="{left}" y="46" width="12" height="12" fill="{colour}"/>'
        yield _text(left + 18, 57, name)
        left += 40 + 7 * len(name)


def _row(top: int, name: str, fit: Fit, scale: float) -> Iterable[str]:
    memory = fit.memory
    yield _text(16, top + 14, name, more="" if fit.fits else 'fill="#777777"')
    left = float(NAMES)
    if memory.free < 0 or fit.kv is None:
        length = _needed(memory) * scale
        yield _box(left, top, memory.total * scale, "#f0f0f0")
        yield _box(left, top, length, TOO_MUCH)
        left += length
        # Where the GPU ends.
        yield f'<rect x="{NAMES + memory.total * scale:.1f}" y="{top - 3}" width="2" height="{BAR + 6}"/>'
    else:
        for part, _, colour in PARTS:
            size = getattr(memory, part)
            yield _box(left, top, size * scale, colour)
            if size * scale >= LEAST_LABELLED:
                dark = part in ("weights", "kv")
                colour_of_text = 'fill="#ffffff"' if dark else ""
                yield _text(left + 5, top + 14, f"{size / GIB:.1f}", more=f'font-size="11" {colour_of_text}')
            left += size * scale
    yield _text(left + 8, top + 14, _said(fit), more='font-size="12" fill="#333333"')


def _said(fit: Fit) -> str:
    memory = fit.memory
    if fit.kv is None:
        return "cannot run it"
    if memory.kv == 0:
        return f"{(memory.weights + memory.overhead) / GIB:.0f} GiB on {memory.total / GIB:.0f}"
    return f"{memory.total / GIB:.0f} GiB" + ("" if fit.fits else ", context does not fit")


def _box(left: float, top: int, width: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top}" width="{max(width, 0):.1f}" height="{BAR}" fill="{colour}"/>'


def _text(left: float, base: float, text: str, more: str = "") -> str:
    return f'<text x="{left:.1f}" y="{base}" {more}>{escape(text)}</text>'
