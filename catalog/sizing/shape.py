"""What of a model decides how much memory it takes: read from its config.json, as vLLM 0.32 reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from catalog.sizing.config_defaults import class_defaults, text_defaults

Reach = Literal["full", "sliding", "chunked"]


class ShapeError(ValueError):
    """A config.json that no forecast can be made from. The text names the key and the way out."""


@dataclass(frozen=True)
class Attention:
    """One layer that keeps a key and a value per token (and, with a reach, forgets old ones)."""

    kv_heads: int
    key_size: int
    value_size: int
    reach: Reach = "full"
    window: int = 0
    """Tokens that a layer with the reach `sliding` or `chunked` looks back."""


@dataclass(frozen=True)
class Latent:
    """One MLA layer: a single compressed vector per token, the same on every tensor-parallel rank."""

    width: int
    """`kv_lora_rank + qk_rope_head_dim`."""


@dataclass(frozen=True)
class State:
    """One Mamba-2 or gated-delta-net layer: a constant state per request in place of keys and values."""

    channels: int
    """Channels of the convolution without those of its groups."""
    taps: int
    """Convolution kernel minus one."""
    state: int
    """Elements of the recurrent state, all heads."""
    state_bytes: int | None
    """Bytes per element where the model says so; None: those of the model's own type."""
    groups: int = 0
    group_channels: int = 0
    checkpoints: int = 0
    """Blocks that vLLM keeps per request for checkpoints of a prefill (Mamba-2)."""


Layer = Attention | Latent | State


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
        architectures = config.get("architectures")
        if not isinstance(architectures, list) or not architectures:
            raise ShapeError("config.json names no architectures; is it the config.json of a language model?")
        text = _Keys(_text_config(config))
        return cls(
            architecture=str(architectures[0]),
            layers=_layers(text),
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
        )


class _Keys:
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


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's keys, those of the class filled in where the file has none."""
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


def _layers(keys: _Keys) -> tuple[Layer | None, ...]:
    if keys.values.get("compress_ratios") or keys.values.get("index_topk"):
        raise ShapeError(
            "config.json describes sparse attention (DeepSeek V3.2 and later), whose caches this version does not "
            "forecast; start it with max_model_len set by hand and read vLLM's own figures"
        )
    count = keys.number("num_hidden_layers")
    if keys.values.get("kv_lora_rank") and keys.values.get("model_type") in MLA_TYPES:
        width = keys.number("kv_lora_rank") + keys.optional("qk_rope_head_dim")
        return (Latent(width),) * count
    kinds = _kinds(keys, count)
    made = {kind: _layer(keys, kind) for kind in dict.fromkeys(kinds)}
    shared = keys.optional("num_kv_shared_layers")
    return tuple(made[kind] for kind in kinds[: count - shared]) + (None,) * shared


MLA_TYPES = frozenset(
    ["deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite", "longcat_flash", "pangu_ultra_moe"]
)
"""`model_type`s whose attention vLLM 0.32 runs as MLA (transformers_utils/model_arch_config_convertor.py)."""

NO_HEAD_DIM = "qwen2"
"""Beginning of the `model_type`s whose code in vLLM takes no notice of a `head_dim`."""

_NAMES = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "state",
    "mamba": "state",
    "mamba2": "state",
    "mlp": "none",
    "moe": "none",
}
_NEMOTRON = {"M": "state", "*": "full", "-": "none", "E": "none"}


def _kinds(keys: _Keys, count: int) -> list[str]:
    """What each layer is, by the list of the file or the rule of the model's class."""
    values = keys.values
    listed = values.get("layer_types") or values.get("layers_block_type")
    pattern = values.get("hybrid_override_pattern")
    if isinstance(listed, list):
        unknown = [name for name in listed if name not in _NAMES]
        if unknown:
            raise ShapeError(
                f"config.json: layer_types has {unknown[0]!r}, a kind of layer this version cannot size"
            )
        kinds = [_NAMES[name] for name in listed]
        if len(kinds) != count:
            raise ShapeError(
                f"config.json: {len(kinds)} layer_types for {count} layers (num_hidden_layers); the file is broken"
            )
    elif isinstance(pattern, str):
        kinds = [_NEMOTRON.get(letter, "none") for letter in pattern]
    else:
        kinds = _kinds_by_class(keys, count)
    if not _window(keys):
        kinds = ["full" if kind == "sliding" else kind for kind in kinds]
    return kinds


def _kinds_by_class(keys: _Keys, count: int) -> list[str]:
    """The layers of models whose class in Transformers, and so vLLM, makes the list by a rule."""
    kind = str(keys.values.get("model_type"))
    every = keys.optional("sliding_window_pattern") or keys.optional("_sliding_window_pattern")
    if kind in ("gemma2", "gpt_oss"):
        every = 2
    if kind in ("gemma3_text", "cohere2", "olmo3", "exaone4", "gemma3n_text", "gemma4_text"):
        every = every or {"gemma3_text": 6, "gemma4_text": 6, "gemma3n_text": 5}.get(kind, 4)
    if kind in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"):
        every = keys.optional("full_attention_interval") or 4
        return ["full" if (at + 1) % every == 0 else "state" for at in range(count)]
    if kind == "llama4_text":
        every = keys.optional("no_rope_layer_interval") or 4
        return ["full" if (at + 1) % every == 0 else "chunked" for at in range(count)]
    if every:
        kinds = ["full" if (at + 1) % every == 0 else "sliding" for at in range(count)]
        if kind == "gemma4_text":
            kinds[-1] = "full"
        return kinds
    return ["sliding" if _window(keys) else "full"] * count


def _window(keys: _Keys) -> int:
    """Tokens of a sliding window, 0 where none is used."""
    if keys.values.get("use_sliding_window") is False:
        return 0
    return keys.optional("sliding_window")


def _layer(keys: _Keys, kind: str) -> Layer | None:
    if kind == "none":
        return None
    if kind == "state":
        return _gated_delta_net(keys) if keys.values.get("linear_num_value_heads") else _mamba2(keys)
    heads = keys.number("num_attention_heads")
    size = 0 if str(keys.values.get("model_type")).startswith(NO_HEAD_DIM) else keys.optional("head_dim")
    size = size or keys.number("hidden_size") // heads
    kv_heads = keys.number("num_key_value_heads", heads)
    model = keys.values.get("model_type")
    if kind == "full" and model in ("gemma4_text", "gemma4_unified_text"):
        size = keys.optional("global_head_dim") or size
        if keys.values.get("attention_k_eq_v"):
            kv_heads = keys.optional("num_global_key_value_heads") or kv_heads
    if kind == "sliding":
        # Cohere's windows do not count the token that looks back (model_executor/models/commandr.py).
        extra = 1 if model in ("cohere2", "cohere2_moe") else 0
        return Attention(kv_heads, size, size, "sliding", _window(keys) + extra)
    if kind == "chunked":
        return Attention(kv_heads, size, size, "chunked", keys.number("attention_chunk_size"))
    return Attention(kv_heads, size, size)


def _gated_delta_net(keys: _Keys) -> State:
    key = keys.number("linear_num_key_heads") * keys.number("linear_key_head_dim")
    value = keys.number("linear_num_value_heads") * keys.number("linear_value_head_dim")
    return State(
        channels=2 * key + value,
        taps=keys.number("linear_conv_kernel_dim") - 1,
        state=value * keys.number("linear_key_head_dim"),
        state_bytes={"float32": 4, "bfloat16": 2, "float16": 2}.get(str(keys.values.get("mamba_ssm_dtype"))),
    )


def _mamba2(keys: _Keys) -> State:
    if keys.values.get("mamba_num_heads"):  # Nemotron-H
        heads, head, size = (keys.number(key) for key in ("mamba_num_heads", "mamba_head_dim", "ssm_state_size"))
        inner, groups, kernel = heads * head, keys.number("n_groups"), keys.number("conv_kernel")
        state_bytes: int | None = 2 if keys.values.get("mamba_ssm_cache_dtype") in ("bfloat16", "float16") else 4
    else:  # Granite 4 H
        heads, head, size = (keys.number(key) for key in ("mamba_n_heads", "mamba_d_head", "mamba_d_state"))
        inner = keys.number("mamba_expand", 2) * keys.number("hidden_size")
        groups, kernel = keys.number("mamba_n_groups", 1), keys.number("mamba_d_conv", 4)
        state_bytes = None
    return State(inner, kernel - 1, heads * head * size, state_bytes, groups, 2 * size, checkpoints=1)


_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
_DENSE_WIDTH = ("intermediate_size_mlp", "intermediate_size")
_EXPERT_WIDTH = ("moe_intermediate_size", "expert_hidden_size", "expert_ffn_hidden_size")


def _experts(keys: _Keys) -> Experts | None:
    """The experts by the names that vLLM looks for (model_arch_config_convertor.py); None: there are none."""
    number = keys.largest(_EXPERTS)
    if number < 2:
        return None
    # Where a token's number is missing, few models have more.
    per_token = keys.largest(_EXPERTS_PER_TOKEN) or min(number, 8)
    width = keys.largest(_EXPERT_WIDTH) or keys.optional("intermediate_size") or 4 * keys.number("hidden_size")
    return Experts(number, per_token, width)


def _longest(keys: _Keys) -> int:
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
