"""A settings file that a client already has, against what the stack hands out for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients.blocks import KEYLESS, PROBLEMS, Kind
from clients.endpoint import ClientEndpoint
from scripts.commands.errors import CommandError


def look_through(file: Path, kind: Kind, outputs: Mapping[str, Any], client: str) -> int:
    """Prints what is wrong with the file and what to write; status 0 where nothing is.

    CommandError where the file cannot be read, or is of a client whose files nobody here can look through.
    """
    if kind not in PROBLEMS:
        raise CommandError(
            f"{client} is a client of kind {kind}; files of {' and '.join(PROBLEMS)} can be looked through. "
            "For others compare with scripts/output"
        )
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from None
    texts: Mapping[str, str] = outputs["clients"][client]
    endpoint = ClientEndpoint(
        base_url=outputs["endpoint"],
        key=texts["key"],
        model=outputs["model"],
        max_model_len=int(outputs["max_model_len"]),
        private_ca=bool(outputs.get("ca_certificate")),
        loopback=outputs.get("loopback"),
    )
    problems = PROBLEMS[kind](text, endpoint)
    if endpoint.key in text:
        problems.append(f"the key stands in this file; it belongs into {_beside(texts)}")
    if not problems:
        print(f"ok     {file} suits {endpoint.base_url}")
        return 0
    print("\n".join(f"FAILED {problem}" for problem in problems))
    for name in (name for name in texts if name in KEYLESS):
        print(f"\n--- what to write ({name}; the key is in {_beside(texts)})\n{texts[name]}", end="")
    return 1


def _beside(texts: Mapping[str, str]) -> str:
    """The output with the key that goes with a text without one."""
    return next(name for name in ("picoclaw_security", "archi_env") if name in texts)
