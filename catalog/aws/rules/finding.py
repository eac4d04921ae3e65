"""What a rule tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catalog.aws.account import Account, Wanted


@dataclass(frozen=True)
class Problem:
    """Something that would end the run later. change: the setting to change or the command to run."""

    cause: str
    change: str


Findings = Iterable[Problem | str]
"""Problems, and warnings as plain text."""

Rule = Callable[[Wanted, Account], Findings]
"""What the stack wants and what the account says, and what to tell a person of it."""
