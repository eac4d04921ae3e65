"""The keys of a config.json or params.json: where the language model's are, and the errors of a broken file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from catalog.sizing.config_defaults import class_defaults, text_defaults


class ShapeError(ValueError):
    """A config.json that no forecast can be made from. The text names the key and the way out."""


class Keys:
    """The language model's part of a config.json, with the errors of a broken one."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def number(self, key: str, otherwise: int | None = None) -> int:
        """A positive whole number. `otherwise` stands in for one that is missing."""
        value = self.values.get(key)
        if value is None and otherwise is not None:
            return otherwise
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ShapeError(
                f"config.json: {key} is {value!r}; a positive number is needed to tell the model's size"
            )
        return value

    def optional(self, key: str) -> int:
        """A number that may be missing, null or 0, which all mean: not there."""
        value = self.values.get(key)
        if value is None or value is False:
            return 0
        if not isinstance(value, int) or value < 0:
            raise ShapeError(f"config.json: {key} is {value!r}; it should be a number")
        return value

    def largest(self, names: Sequence[str]) -> int:
        """Of the first of these keys that is there the number, or the largest of its list; 0 where none is."""
        value = next((self.values[name] for name in names if self.values.get(name)), 0)
        numbers = value if isinstance(value, list) else [value]
        return max((number for number in numbers if isinstance(number, int)), default=0)


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's keys, those of the class filled in where the file has none.

    config: a parsed config.json, or a Mistral model's params.json as `from_params` has made it.
    """
    inner = next(
        (
            config[key]
            for key in ("text_config", "llm_config", "language_config", "thinker_config")
            if isinstance(config.get(key), dict)
        ),
        None,
    )
    if inner is not None and isinstance(inner.get("text_config"), dict):
        inner = inner["text_config"]
    if inner is None:
        # Before nested configurations were usual, a language model's keys stood beside those of its eyes.
        return {**text_defaults(str(config.get("model_type"))), **config}
    own = inner.get("model_type")
    defaults = class_defaults(str(own)) if own else text_defaults(str(config.get("model_type")))
    return {**defaults, **inner}


_PARAMS = {
    "dim": "hidden_size",
    "n_kv_heads": "num_key_value_heads",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
}
_PARAMS_MOE = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "expert_hidden_dim": "moe_intermediate_size",
    "num_shared_experts": "n_shared_experts",
}


def from_params(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Mistral's own params.json as a config.json, by vLLM's rules (transformers_utils/configs/mistral.py).

    A model with `qk_nope_head_dim` has latent attention and is a DeepSeek V3 for vLLM, with experts or without.
    A config.json comes back as it is.
    """
    if not {"dim", "n_layers"} <= config.keys():
        return config
    made = {_PARAMS.get(key, key): value for key, value in config.items()}
    made["max_position_embeddings"] = made.get("max_position_embeddings") or made.get("max_seq_len") or 128_000
    moe = made.pop("moe", None) or {}
    made |= {_PARAMS_MOE[key]: value for key, value in moe.items() if key in _PARAMS_MOE}
    # No class's defaults stand behind this form.
    windows = made.setdefault("sliding_window", None)
    if isinstance(windows, list) and windows:
        made["layer_types"] = [
            "sliding_attention" if window else "full_attention"
            for window in windows * (made["num_hidden_layers"] // len(windows))
        ]
        made["sliding_window"] = next(filter(None, windows), None)
    if made.get("qk_nope_head_dim") or moe.get("num_shared_experts"):
        made |= {"model_type": "deepseek_v3", "architectures": ["MistralLarge3ForCausalLM"]}
    else:
        kind = ("mixtral", "MixtralForCausalLM") if moe else ("mistral", "MistralForCausalLM")
        made |= {"model_type": kind[0], "architectures": [kind[1]]}
    quantization = made.pop("quantization", None)
    if isinstance(quantization, dict):
        method = quantization.get("quant_method") or "fp8"
        made["quantization_config"] = {**quantization, "quant_method": method}
    eyes = made.get("vision_encoder") or (made.get("multimodal") or {}).get("vision_encoder_args")
    if eyes:
        made |= {"vision_config": eyes, "architectures": ["PixtralForConditionalGeneration"]}
    return made
