"""The models this repository knows by name. Any other model works too; it then needs its own figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """What a model's publisher says of it.

    max_model_len: longest context in tokens (`max_position_embeddings` of its config.json).
    tool_parser: the vLLM tool parser that understands its template, or None.
    vision: whether it reads pictures; SeaTable's OCR needs that.
    weights_gib: size of its safetensors files.
    """

    max_model_len: int
    tool_parser: str | None
    vision: bool
    weights_gib: float


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Small enough to answer on two CPU cores; the model of the `local` stack unless another is named."""

KNOWN_MODELS: dict[str, KnownModel] = {
    SMOLLM2: KnownModel(max_model_len=8192, tool_parser="hermes", vision=False, weights_gib=0.3),
    "RedHatAI/gemma-3-12b-it-quantized.w4a16": KnownModel(
        max_model_len=131072, tool_parser="pythonic", vision=True, weights_gib=8.0
    ),
}

DEFAULT_MAX_MODEL_LEN = 65536
"""Tokens. SeaTable's guide uses it: five scanned pages and their answer fit."""
