"""What the pinned vLLM knows by name: its options, reasoning parsers and model architectures."""

import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_suffix(".json")


@functools.cache
def _data() -> Mapping[str, frozenset[str]]:
    loaded: dict[str, Any] = json.loads(_FILE.read_text())
    return {name: frozenset(values) for name, values in loaded.items() if isinstance(values, list)}


def options() -> frozenset[str]:
    """Long names of the options of `vllm serve`, without dashes in front."""
    return _data()["options"]


def reasoning_parsers() -> frozenset[str]:
    """The choices of `--reasoning-parser`."""
    return _data()["reasoning_parsers"]


def architectures() -> frozenset[str]:
    """The architectures that a config.json may name."""
    return _data()["architectures"]


def nearest_option(name: str) -> str | None:
    """The option whose name is most like this one, or None where none is like it."""
    return next(iter(difflib.get_close_matches(name, sorted(options()), n=1)), None)
