"""What an engine does to a stack, resource by resource: redrawn in a terminal, else in a few plain lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scripts.commands.run_log import cleaned
from scripts.commands.terminal import GROWTH, PLAIN_LINE_SECONDS, Step, Terminal

NAMED = 4
"""How many of the resources under way are named."""

GATE = "readiness-gate"
EVIDENCE = ("ok: ", "the engine ")
"""The gate's words that stay to be read; that it waits is of this moment only."""


@dataclass
class _UnderWay:
    name: str
    doing: str
    begun: float
    words: str = ""


class Progress:
    """Follows the runs of an engine in a step of the terminal. They share its clock, so nine are not louder."""

    def __init__(self, terminal: Terminal, step: Step, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal, self._step, self._clock = terminal, step, clock
        self._begin = self._drawn = clock()
        self._next_line = float(PLAIN_LINE_SECONDS)
        self._under_way: dict[str, _UnderWay] = {}
        self._finished: list[str] = []
        self._count = 0
        self._words = ""
        self._in_pem: set[str] = set()

    def say(self, text: str) -> None:
        """What the engine does beside its resources."""
        self._terminal.note(text)
        self._words = text
        self.look()

    def line(self, text: str) -> None:
        """What is to be read also later, as a warning is."""
        self._terminal.line(f"  {text}")

    def warn(self, text: str) -> None:
        """A warning, which is shown once however often a run deploys, as from zone to zone."""
        self._terminal.once(f"  warning: {text}")

    def note(self, text: str) -> None:
        """What only whoever looks into a failure wants to read."""
        self._terminal.note(cleaned(text))

    def began(self, key: str, name: str, doing: str) -> None:
        """A resource is being created, deleted and so on. key: the same in `ended`."""
        self._under_way[key] = _UnderWay(name, doing, self._clock())
        self._terminal.note(f"{self._elapsed} s: {name} {doing}")
        self.look()

    def ended(self, key: str, done: str) -> None:
        """It is created, deleted, or has failed; one that has not begun is of no interest."""
        item = self._under_way.pop(key, None)
        if item is None:
            return
        self._count += 1
        told = f"{item.name} {done} ({self._clock() - item.begun:.0f} s)"
        self._terminal.note(f"{self._elapsed} s: {told}")
        if self._terminal.redraws and not self._terminal.verbose:
            self._terminal.line(f"  {told}")
        else:
            self._finished.append(told)
        self.look()

    def said(self, name: str, text: str) -> None:
        """A line that a resource prints while it is made. What is in PEM is left out."""
        if self._is_pem(name, text):
            return
        text = cleaned(text)
        if name.endswith(GATE) and text.startswith(EVIDENCE):
            self.line(f"{name}: {text}")
        else:
            self._terminal.note(f"{self._elapsed} s: {name}: {text}")
        item = next((each for each in self._under_way.values() if each.name == name), None)
        if item:
            item.words = text
        else:
            self._words = f"{name}: {text}"
        self.look()

    def _is_pem(self, name: str, text: str) -> bool:
        begins, ends = "-----BEGIN " in text, "-----END " in text
        if begins and not ends:
            self._in_pem.add(name)
            return True
        inside = name in self._in_pem and (ends or " " not in text)
        if ends or not inside:
            self._in_pem.discard(name)
        return inside

    def look(self) -> None:
        """Shows how far it is, as often as that is of use."""
        if self._terminal.redraws:
            if self._clock() - self._drawn >= 0.5:
                self._drawn = self._clock()
                self._step.say(f"{self._count} done{self._now('; ')}")
        elif self._clock() - self._begin >= self._next_line:
            self._flush()

    def finish(self) -> None:
        """Names what has ended since the last line."""
        if self._finished:
            self._flush()

    def under_way(self) -> str:
        """What is being done now, in words; empty where it is nothing."""
        items = list(self._under_way.values())
        told = ", ".join(
            f"{item.name} {item.doing} ({self._clock() - item.begun:.0f} s)" for item in items[:NAMED]
        )
        return f"{told} and {len(items) - NAMED} more" if len(items) > NAMED else told

    @property
    def _elapsed(self) -> str:
        return f"{self._clock() - self._begin:.0f}"

    def _now(self, before: str) -> str:
        """What is under way, with the last words of the resource that began first; else the engine's own."""
        now = self.under_way()
        words = next((item.words for item in self._under_way.values() if item.words), "" if now else self._words)
        told = ": ".join(filter(None, (now, words[:120])))
        return f"{before}{told}" if told else ""

    def _flush(self) -> None:
        self._next_line = max(self._next_line, (self._clock() - self._begin) * GROWTH, PLAIN_LINE_SECONDS)
        told = ", ".join(self._finished) + self._now("; " if self._finished else "")
        if told and not self._terminal.verbose:
            self._terminal.line(f"  {self._elapsed} s: {told}")
        self._finished = []


@contextmanager
def followed(terminal: Terminal, title: str) -> Iterator[Progress]:
    """A step for an engine's runs; what has ended in them is named when the step ends, also in a failure."""
    with terminal.step(title) as step:
        progress = Progress(terminal, step)
        try:
            yield progress
        finally:
            progress.finish()
