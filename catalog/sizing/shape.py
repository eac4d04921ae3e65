"""What of a model decides how much memory it takes: read from its config.json, as vLLM 0.32 reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.sizing.keys import Keys, ShapeError, from_params, text_config
from catalog.sizing.layers import Layer, State, layers
from catalog.sizing.uncertain import doubts


@dataclass(frozen=True)
class Experts:
    """The experts of one layer, all as large as each other."""

    number: int
    per_token: int
    """Experts that one token passes."""
    width: int
    """Feed-forward size of one."""


@dataclass(frozen=True)
class ModelShape:
    """A model as far as memory goes. Sizes are in bytes and in tokens."""

    architecture: str
    layers: tuple[Layer | None, ...]
    """In order; None: a layer that keeps nothing between tokens."""
    attention_heads: int
    hidden_size: int
    intermediate_size: int
    """Width of the feed-forward layers without experts."""
    vocab_size: int
    max_model_len: int
    """Longest context that the model was made for."""
    weights_bytes: int
    """Sum of its safetensors files."""
    vision: bool = False
    quantization: str | None = None
    """`quant_method` of the checkpoint."""
    element_bytes: int = 2
    """Bytes of an activation and of an unquantized key or value; vLLM makes 2 of 4."""
    experts: Experts | None = None
    doubts: tuple[str, ...] = ()
    """Why the forecast of its cache is uncertain; empty where its kind has been compared with the engine."""

    @property
    def hybrid(self) -> bool:
        """Whether some layers keep a state in place of keys and values."""
        return any(isinstance(layer, State) for layer in self.layers)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], weights_bytes: int) -> ModelShape:
        """The shape that a parsed config.json describes.

        Keys that a publisher left out have the values of the class in Transformers, as for vLLM.
        Raises ShapeError where the model is of a kind that this forecast does not know.
        """
        config = from_params(config)
        architectures = config.get("architectures")
        if not isinstance(architectures, list) or not architectures:
            raise ShapeError("config.json names no architectures; is it the config.json of a language model?")
        text = Keys(text_config(config))
        return cls(
            architecture=str(architectures[0]),
            layers=layers(text),
            attention_heads=text.number("num_attention_heads"),
            hidden_size=text.number("hidden_size"),
            intermediate_size=text.largest(_DENSE_WIDTH) or 4 * text.number("hidden_size"),
            vocab_size=text.number("vocab_size", 32000),
            max_model_len=_longest(text),
            weights_bytes=weights_bytes,
            vision=any(key in config for key in ("vision_config", "vision_encoder", "visual", "vit_config"))
            or "embd_layer" in config,
            quantization=_quantization(config, text.values),
            experts=_experts(text),
            doubts=doubts(config, text.values),
        )


_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
_DENSE_WIDTH = ("intermediate_size_mlp", "intermediate_size")
_EXPERT_WIDTH = ("moe_intermediate_size", "expert_hidden_size", "expert_ffn_hidden_size")


def _experts(keys: Keys) -> Experts | None:
    """The experts by the names that vLLM looks for (model_arch_config_convertor.py); None: there are none."""
    number = keys.largest(_EXPERTS)
    if number < 2:
        return None
    # Where a token's number is missing, few models have more.
    per_token = keys.largest(_EXPERTS_PER_TOKEN) or min(number, 8)
    width = keys.largest(_EXPERT_WIDTH) or keys.optional("intermediate_size") or 4 * keys.number("hidden_size")
    return Experts(number, per_token, width)


def _longest(keys: Keys) -> int:
    """The context a model was made for: of the file, stretched by YaRN and the like where the file says so."""
    longest = keys.number("max_position_embeddings", 2048)
    scaling = keys.values.get("rope_scaling") or keys.values.get("rope_parameters")
    factor = scaling.get("factor") if isinstance(scaling, dict) else None
    # Of the other kinds (YaRN, Llama 3) and of Gemma 3 the file's figure is the stretched one.
    if not isinstance(scaling, dict) or scaling.get("rope_type", scaling.get("type")) not in ("linear", "dynamic"):
        return longest
    if "gemma3" in str(keys.values.get("model_type")) or not isinstance(factor, int | float):
        return longest
    return int(longest * factor)


def _quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    found: Sequence[Any] = [
        place.get(key) for place in (config, text) for key in ("quantization_config", "compression_config")
    ]
    method = next((each.get("quant_method") for each in found if isinstance(each, dict)), None)
    return str(method).replace("compressed_tensors", "compressed-tensors") if method else None
