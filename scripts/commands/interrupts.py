"""Ctrl-C and its relatives, where something is at work that has to come to its own end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and the end of a terminal or of an SSH connection."""


SIGNALLED = 128
"""What shells add to the number of the signal that has ended a program."""


class Interrupted(KeyboardInterrupt):
    """The command was asked to end, and has. The text says what became of its work, and how to go on."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


def interrupted_in(last: KeyboardInterrupt) -> KeyboardInterrupt:
    """The Interrupted that was under way when another signal came, else the last one itself."""
    each: BaseException | None = last
    while each is not None:
        if isinstance(each, Interrupted) and str(each):
            return each
        each = each.__context__
    return last


def status_of(stopped: KeyboardInterrupt) -> int:
    """A command's exit status, as shells have it."""
    return SIGNALLED + (stopped.number if isinstance(stopped, Interrupted) else int(signal.SIGINT))


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Writes down each signal that asks for an end, in the place of what else would happen; oldest first.

    A signal that this process ignores stays ignored, as below `nohup`. Signals reach a main thread alone: in
    another one, this collects none.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in ENDING}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_interrupted(number: int, _: FrameType | None) -> None:
    """A handler that ends a command as Ctrl-C does."""
    raise Interrupted("", number)
