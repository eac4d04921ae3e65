"""The last lines that a person reads after a run that failed: phase, cause, what to change."""

from catalog.failures import explain

KEYS = ("phase: ", "cause: ", "change: ", "seen: ")


def last_lines(text: str) -> str:
    """The short form of a failure: what the program itself said of it, else what the text shows.

    A text that shows no known cause is returned from its first error on.
    """
    lines = [line.strip() for line in text.splitlines()]
    told = list(dict.fromkeys(line for line in lines if line.startswith(KEYS)))
    if any(line.startswith("cause: ") for line in told):
        return "\n".join(told)
    found = explain(text)
    return (
        "\n".join([*told, str(found)]) if found else "cause: not one that this program knows; see the lines above"
    )
