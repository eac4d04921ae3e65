"""The last lines that a person reads after a run that failed: phase, cause, what to change."""

import re

from catalog.failures import explain

KEYS = ("phase: ", "cause: ", "change: ", "seen: ")


_SETTING = re.compile(r"(?P<cause>(?:seatable-vllm|aws):[a-zA-Z0-9_.-]+: .+?)(?:; (?P<change>.+))?$")
"""A line about a setting that cannot be used, as `settings` and the program write it."""


def last_lines(text: str) -> str:
    """The short form of a failure: what the program itself said of it, else what the text shows.

    A text that shows no known cause is returned from its first error on.
    """
    lines = [line.strip() for line in text.splitlines()]
    told = list(dict.fromkeys(line for line in lines if line.startswith(KEYS)))
    if any(line.startswith("cause: ") for line in told):
        return "\n".join(told)
    found = explain(text)
    if found:
        return "\n".join([*told, str(found)])
    refused = [match for line in dict.fromkeys(lines) if (match := _SETTING.match(line.removeprefix("error: ")))]
    if refused:
        return "\n".join(f"cause: {each['cause']}\nchange: {each['change'] or 'correct it'}" for each in refused)
    return "cause: not one that this program knows; see the lines above"
