"""What a known cause is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """One known cause.

    name: short and stable, for tests and documentation. pattern: regular expression, searched per line.
    cause: what happened, in plain words. remedy: the setting to change, or the command to run.
    passing: whether another try may succeed by itself; whoever watches a container gives it that try.
    """

    name: str
    pattern: str
    cause: str
    remedy: str
    passing: bool = False
