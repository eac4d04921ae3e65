"""Models: what vLLM has to be told of each family, and the sizes of those this repository knows by name.

Any other model works too: its config.json names an architecture, and a family's presets go by that.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.sizing import ModelShape

_FILE = Path(__file__).with_suffix(".json")

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Small enough to answer on two CPU cores; the model of the `local` stack unless another is named."""

DEFAULT_MAX_MODEL_LEN = 65536
"""Tokens. SeaTable's guide uses it: five scanned pages and their answer fit."""

TEMPLATES = "/vllm-workspace/examples"
"""Where the official GPU image has vLLM's chat templates for tool calls."""


@dataclass(frozen=True)
class Family:
    """What vLLM has to be told of a kind of models, as its documentation and recipes have it.

    tool_parser, reasoning_parser: vLLM's parsers, or None. chat_template: file in `TEMPLATES` that makes tool
    calls work, or None where the model's own does. options: other options, with thinking off where that can be,
    as SeaTable reads the answer alone. min_vllm: the first version that runs it well. note: what to know of it.
    """

    name: str
    architectures: tuple[str, ...]
    tool_parser: str | None
    min_vllm: str
    names: str = ""
    """Pattern of model ids that it is for, where the architecture does not say enough."""
    reasoning_parser: str | None = None
    chat_template: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def preset(self) -> dict[str, Any]:
        """vLLM's options for it, the tool parser apart."""
        parser = {"reasoning-parser": self.reasoning_parser} if self.reasoning_parser else {}
        template = {"chat-template": f"{TEMPLATES}/{self.chat_template}"} if self.chat_template else {}
        return {**parser, **template, **self.options}


@dataclass(frozen=True)
class KnownModel:
    """A model whose sizes are in the catalogue."""

    family: Family
    shape: ModelShape

    @property
    def max_model_len(self) -> int:
        """Longest context in tokens."""
        return self.shape.max_model_len

    @property
    def tool_parser(self) -> str | None:
        """The vLLM tool parser that understands its template, or None."""
        return self.family.tool_parser

    @property
    def vision(self) -> bool:
        """Whether it reads pictures; SeaTable's OCR needs that."""
        return self.shape.vision

    @property
    def weights_gib(self) -> float:
        """Size of its safetensors files."""
        return self.shape.weights_bytes / (1 << 30)

    @property
    def billions(self) -> float | None:
        """Its parameters, from the size of its weights; None where those are quantized."""
        return None if self.shape.quantization else self.shape.weights_bytes / self.shape.element_bytes / 1e9


@functools.cache
def _data() -> Mapping[str, Any]:
    loaded: dict[str, Any] = json.loads(_FILE.read_text())
    return loaded


@functools.cache
def families() -> tuple[Family, ...]:
    """All families."""
    return tuple(
        Family(name, tuple(row.pop("architectures")), **row)
        for name, row in ((name, dict(row)) for name, row in _data()["families"].items())
    )


def family_of(name: str, architecture: str) -> Family | None:
    """The family of a model, by its id and its architecture; None where the catalogue has none.

    Ids decide between families of an architecture: Qwen3-Coder does not speak Qwen3's tool calls. A plain Llama
    may be anybody's, with a template of its own, and belongs to none.
    """
    candidates = [each for each in families() if architecture in each.architectures]
    named = [each for each in candidates if each.names and re.search(each.names, name, re.IGNORECASE)]
    if named:
        return named[-1]  # the catalogue has the special after the general
    return next((each for each in candidates if not each.names), None)


@functools.cache
def _model(name: str) -> KnownModel:
    row = _data()["models"][name]
    shape = ModelShape.from_config(row["config"], row["weights_bytes"])
    family = family_of(name, shape.architecture)
    if family is None:
        raise LookupError(f"{_FILE.name}: {name} is of no family")
    return KnownModel(family, shape)


class _KnownModels(Mapping[str, KnownModel]):
    """Reads the catalogue when it is first asked."""

    def __getitem__(self, name: str) -> KnownModel:
        if name not in _data()["models"]:
            raise KeyError(name)
        return _model(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_data()["models"])

    def __len__(self) -> int:
        return len(_data()["models"])


KNOWN_MODELS: Mapping[str, KnownModel] = _KnownModels()
"""The models this repository knows by name."""


_BILLIONS = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_MILLIONS = re.compile(r"(?<![a-z0-9.])(\d{2,3})m(?![a-z0-9])", re.IGNORECASE)
"""Two digits or more: in `-1M` it is the context."""


def billions_of(name: str) -> float | None:
    """Parameters of a model as its id has them, in billions, all experts together (30B-A3B: 30, 8x7B: 56).

    Where the id does not say it, as the catalogue has it; None where neither does.
    """
    said = name.partition("/")[2]
    sizes = [float(each) * int(experts or 1) for experts, each in _BILLIONS.findall(said)]
    sizes = sizes or [int(each) / 1000 for each in _MILLIONS.findall(said)]
    known = KNOWN_MODELS.get(name)
    return max(sizes) if sizes else known.billions if known else None


def weights_in_index(index: Mapping[str, Any]) -> int | None:
    """Bytes of all weights by a parsed `model.safetensors.index.json`, or None where it does not say."""
    total = index.get("metadata", {}).get("total_size") if isinstance(index.get("metadata"), dict) else None
    return int(total) if isinstance(total, int | float) and total > 0 else None
