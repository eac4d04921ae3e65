"""Makes one Python text of the checks, for a machine that has Python and nothing of this repository.

The text goes to `python3 -` on standard input, so nothing of it, the client's key least of all, is in an
argument list.
"""

from __future__ import annotations

import base64
import io
import zipfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "catalog/__init__.py",
    *(f"catalog/failures/{path.name}" for path in sorted((ROOT / "catalog" / "failures").glob("*.py"))),
    "checks/__init__.py",
    "checks/cache.py",
    "checks/endpoint.py",
    "checks/facts.py",
    "checks/gate.py",
)
"""What the gate needs."""

FOLDER_MODULES = ("checks/__init__.py", "checks/data_folder.py")
"""What takes a data directory, and what clears it."""

FACTS_MODULES = ("checks/__init__.py", "checks/facts.py")
"""What a look at the machine needs."""

MIN_PYTHON = (3, 8)
"""The oldest Python that runs what is sent to a machine, Ubuntu 20.04's; assignments in expressions need it."""

MIN_PYTHON_TEXT = ".".join(map(str, MIN_PYTHON))

REMEDY = f"install Python {MIN_PYTHON_TEXT} or newer on the machine, and make it the one that python3 starts there"

VERSION_CHECK = f"""\
import sys
if sys.version_info < {MIN_PYTHON}:
    sys.exit("phase: machine ready\\n"
             "cause: python3 on the machine is version %d.%d.%d, and {MIN_PYTHON_TEXT} is the oldest that works\\n"
             "change: {REMEDY}" % sys.version_info[:3])
"""
"""Lines of Python, for any version, that end a program with status 1 on a machine whose Python is too old."""

_LOADER = """\
import base64, os, signal, sys, tempfile
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a stack trace
with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as archive:
    archive.write(base64.b64decode({archive!r}))
sys.path.insert(0, archive.name)
try:
    from checks import {module}
finally:
    os.unlink(archive.name)
sys.exit({module}.main({order!r}))
"""


@cache
def _archive(modules: tuple[str, ...]) -> str:
    """The modules as a zip archive in base64; the same bytes for the same sources."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in modules:
            archive.writestr(zipfile.ZipInfo(name), (ROOT / name).read_text())
    return base64.b64encode(buffer.getvalue()).decode()


def gate_program(order: str) -> str:
    """A complete Python program that runs the gate for this order (JSON, holds the client's key)."""
    return VERSION_CHECK + _LOADER.format(archive=_archive(MODULES), module="gate", order=order)


def facts_program(order: str) -> str:
    """A complete Python program that prints what is on the machine, for this order (JSON, no secret in it)."""
    return VERSION_CHECK + _LOADER.format(archive=_archive(FACTS_MODULES), module="facts", order=order)


def folder_program(order: str) -> str:
    """A complete Python program that takes or clears a data directory, for this order (JSON, no secret in it)."""
    return VERSION_CHECK + _LOADER.format(archive=_archive(FOLDER_MODULES), module="data_folder", order=order)
