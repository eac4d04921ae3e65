"""The last lines that a person reads after a run that failed: phase, cause, what to change."""

import re

from catalog.failures import explain
from scripts.commands.run_log import cleaned

KEYS = ("phase: ", "cause: ", "change: ", "seen: ")
UNKNOWN = "cause: not one that this program knows"

TOLD = 24
"""Lines at most of what the program says; each resource that failed may add some."""

SHOWN = 12
"""Lines of the text itself, where its cause is unknown."""

WIDTH = 300

_NOISE = ("Traceback (most recent call last)", 'File "', "update failed", "---", "^^^", "~~~")

_SETTING = re.compile(r"(?P<cause>(?:seatable-vllm|aws):[a-zA-Z0-9_.-]+: .+?)(?:; (?P<change>.+))?$")
"""A line about a setting that cannot be used, as `settings` and the program write it."""


def last_lines(text: str) -> str:
    """The short form of a failure: what the program itself said of it, else what the text shows.

    Where no cause is known, the last lines of the text come first.
    """
    lines = [line.strip() for line in text.splitlines()]
    told = list(dict.fromkeys(line for line in lines if line.startswith(KEYS)))
    if not any(line.startswith("cause: ") for line in told):
        cause = explain(text) or _refused_settings(lines) or f"{UNKNOWN}; see the lines above"
        told += str(cause).splitlines()
    above = _essence(text) if any(line.startswith(UNKNOWN) for line in told) else []
    return "\n".join([*above, *told[:TOLD]])


def _refused_settings(lines: list[str]) -> str:
    """Cause and change of each line about a setting; nothing where there is none."""
    refused = [match for line in dict.fromkeys(lines) if (match := _SETTING.match(line.removeprefix("error: ")))]
    return "\n".join(f"cause: {each['cause']}\nchange: {each['change'] or 'correct it'}" for each in refused)


def _essence(text: str) -> list[str]:
    """The last lines of a text without those that say nothing to an administrator, and without keys."""
    kept = [
        line.strip()[:WIDTH]
        for line in cleaned(text).splitlines()
        if line.strip() and not line.strip().startswith((*_NOISE, *KEYS))
    ]
    return list(dict.fromkeys(kept))[-SHOWN:]
