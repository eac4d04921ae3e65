"""Python packages into a folder, with uv, for a Python that need not be the one that runs here."""

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from images import ImageUnavailable, pins
from images.shell import Shell

_STARTED = re.compile(r"^\s*Downloading (\S+ \([^)]*\))", re.MULTILINE)
_ENDED = re.compile(r"^\s*Downloaded (\S+)", re.MULTILINE)


def install(folder: Path, what: Sequence[str], activity: str, shell: Shell) -> None:
    """Installs wheels into `folder` for the Python of the vLLM image, and nothing that they depend on.

    what: exact requirements, or `-r` and the path of a file with them.
    """
    if importlib.util.find_spec("uv") is None:
        raise ImageUnavailable(f"uv is missing in {sys.prefix}: install the project's requirements there")
    command = [
        *(sys.executable, "-m", "uv", "pip", "install", "--no-deps", "--only-binary", ":all:"),
        *("--python-version", pins.PYTHON, "--python-platform", pins.WHEEL_PLATFORM),
        # Copies: what is linked to uv's cache would be changed there too when libraries are stripped.
        *("--link-mode", "copy", "--target", str(folder), *what),
    ]
    shell.run(activity, command, show=fetching)


def fetching(output: str) -> str:
    """What uv is fetching, largest names as it gives them with sizes, from its output so far."""
    ended = set(_ENDED.findall(output))
    open_ones = [name for name in _STARTED.findall(output) if name.split()[0] not in ended]
    if not open_ones:
        return "installing" if ended else ""
    shown = ", ".join(open_ones[:2])
    return f"fetching {shown}" + (f" and {len(open_ones) - 2} more" if len(open_ones) > 2 else "")
