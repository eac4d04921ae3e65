"""What a person sees while something takes long: the step, what it is doing, and for how long already."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.status import Status

PLAIN_LINE_SECONDS = 10
"""Where no terminal can be redrawn, the first line of a step that takes long comes after this."""

GROWTH = 1.4
"""Each of its lines comes so much later than the one before: an hour takes eighteen lines."""


class Step(Protocol):
    """A step under way."""

    def say(self, text: str) -> None:
        """Shows what it is doing now; the elapsed time is added."""


class _Console(Console):
    """A console whose reader may be gone, as when SSH is cut: what is at work goes on to its end."""

    def on_broken_pipe(self) -> None:
        # Rich would end the program here.
        self.quiet = True


class Terminal:
    """Steps with their elapsed time, redrawn in a terminal and in plain lines elsewhere. Writes to stderr."""

    def __init__(self, *, verbose: bool = False) -> None:
        """verbose: whether notes are shown."""
        self._console = _Console(stderr=True, highlight=False, soft_wrap=True)
        self.verbose = verbose
        self.log: Callable[[str], None] | None = None
        """Gets every line, and every note."""
        self._shown_once: set[str] = set()

    @property
    def redraws(self) -> bool:
        """Whether a step is redrawn in place."""
        return self._console.is_terminal

    def line(self, text: str) -> None:
        """One line that stays."""
        if self.log:
            self.log(text)
        self._print(text)

    def once(self, text: str) -> None:
        """One line that stays, unless it has been shown before."""
        if text not in self._shown_once:
            self._shown_once.add(text)
            self.line(text)

    def note(self, text: str) -> None:
        """One line for whoever wants to read everything."""
        if self.log:
            self.log(text)
        if self.verbose:
            self._print(f"  {text}")

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(text, markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Shows a step from its begin to its end."""
        begin = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(title) as status:
                yield _Redrawn(status, title, begin)
        else:
            self.line(f"{title} ...")
            yield _Plain(self, title, begin)
        self.line(f"{title}: done ({time.monotonic() - begin:.0f} s)")


class _Redrawn:
    def __init__(self, status: Status, title: str, begin: float) -> None:
        self._status, self._title, self._begin = status, title, begin

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self._begin
        self._status.update(f"{self._title} [dim]{elapsed:.0f} s[/dim] {_escape(text)}")


class _Plain:
    def __init__(self, terminal: Terminal, title: str, begin: float) -> None:
        self._terminal, self._title, self._begin = terminal, title, begin
        self._next_line = float(PLAIN_LINE_SECONDS)

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self._begin
        if elapsed >= self._next_line:
            self._next_line = elapsed * GROWTH
            self._terminal.line(f"{self._title}: {elapsed:.0f} s: {text}")


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def print_block(title: str, text: str) -> None:
    """A block of text to paste, on standard output, so that a pipe gets it unadorned."""
    print(f"\n--- {title}\n{text.rstrip()}", file=sys.stdout, flush=True)
