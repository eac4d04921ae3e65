"""The hub's client, for weights that are fetched before the engine's image, which has it, is on the machine."""

import functools
from pathlib import Path

_FILE = Path(__file__).with_suffix(".txt")


@functools.cache
def pins() -> str:
    """Every package of it with version and hashes, as pip reads them; made from hub_client.in."""
    return _FILE.read_text()
