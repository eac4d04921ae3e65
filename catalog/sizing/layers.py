"""What each layer of a model keeps between tokens, by its config.json and the rules of vLLM 0.32's code for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from catalog.sizing.keys import Keys, ShapeError

Reach = Literal["full", "sliding", "chunked"]


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
    """One layer of Mamba, delta nets or linear attention: a constant state per request, no keys and values."""

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


def layers(keys: Keys) -> tuple[Layer | None, ...]:
    """The layers in order. Raises ShapeError for a kind that this forecast does not know."""
    model = str(keys.values.get("model_type"))
    if keys.values.get("compress_ratios") or keys.values.get("index_topk") or model in SPARSE_TYPES:
        raise ShapeError(
            "config.json describes sparse attention (DeepSeek V3.2 and later), whose caches this version does not "
            "forecast; start it with max_model_len set by hand and read vLLM's own figures"
        )
    count = keys.number("num_hidden_layers", 2 * keys.optional("num_layers") or None)
    if keys.values.get("kv_lora_rank") and model in MLA_TYPES:
        latent = Latent(keys.number("kv_lora_rank") + keys.optional("qk_rope_head_dim"))
        states = _beside_latent(keys, model, count)
        return tuple(states.get(at, latent) for at in range(count))
    kinds = _kinds(keys, count)
    made = {kind: _layer(keys, kind) for kind in dict.fromkeys(kinds)}
    shared = keys.optional("num_kv_shared_layers")
    return tuple(made[kind] for kind in kinds[: count - shared]) + (None,) * shared


SPARSE_TYPES = frozenset(
    [
        "deepseek_v32", "deepseek_v4", "deepseek_v41", "dots3_note", "glm5_next", "glm5_next_text", "glm_moe_dsa",
        "hy_v4",
    ]
)  # fmt: skip
"""`model_type`s whose latent attention has an indexer with a cache of its own, unless a file turns it off."""

MLA_TYPES = SPARSE_TYPES | frozenset(
    [
        "axk1", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_k2", "kimi_linear",
        "longcat_flash", "mistral4", "pangu_ultra_moe",
    ]
)  # fmt: skip
"""`model_type`s whose attention vLLM 0.32 runs as MLA: `is_deepseek_mla` of model_arch_config_convertor.py without
its drafts. vLLM has no code of its own for mistral4: its params.json makes it a deepseek_v3, its config.json goes
through Transformers, where `kv_lora_rank` decides (`use_mla` of config/model.py)."""


def _beside_latent(keys: Keys, model: str, count: int) -> dict[int, Layer]:
    """The layers of a model with latent attention that keep a state in its place, by their number."""
    if model == "kimi_linear":
        linear = keys.values.get("linear_attn_config")
        if not isinstance(linear, dict):
            return {}
        inner = Keys(linear)
        state = _kimi_delta(
            inner.number("num_heads"), inner.number("head_dim"), inner.number("short_conv_kernel_size")
        )
        return {at - 1: state for at in linear.get("kda_layers") or []}
    if model == "bailing_hybrid":
        every = keys.optional("layer_group_size") or 1
        heads = keys.number("num_attention_heads")
        size = keys.optional("head_dim") or keys.number("hidden_size") // heads
        kernel = keys.optional("short_conv_kernel_size")
        # The third version has delta attention, and layers that make no whole group are not of it.
        state = _kimi_delta(heads, size, kernel) if kernel else State(0, 0, heads * size * size, None)
        whole = count // every * every if kernel else count
        return {at: state for at in range(whole) if (at + 1) % every}
    return {}


def _kimi_delta(heads: int, size: int, kernel: int) -> State:
    """Kimi delta attention: its recurrent state has 32 bits (`kda_state_dtype` of mamba_utils.py).

    FlashKDA, which vLLM takes on Hopper and Blackwell, keeps a checkpoint of a prefill.
    """
    return State(3 * heads * size, kernel - 1, heads * size * size, 4, checkpoints=1)


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


def _kinds(keys: Keys, count: int) -> list[str]:
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


def _kinds_by_class(keys: Keys, count: int) -> list[str]:
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


def _window(keys: Keys) -> int:
    """Tokens of a sliding window, 0 where none is used."""
    if keys.values.get("use_sliding_window") is False:
        return 0
    return keys.optional("sliding_window")


def _layer(keys: Keys, kind: str) -> Layer | None:
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


def _gated_delta_net(keys: Keys) -> State:
    key = keys.number("linear_num_key_heads") * keys.number("linear_key_head_dim")
    value = keys.number("linear_num_value_heads") * keys.number("linear_value_head_dim")
    return State(
        channels=2 * key + value,
        taps=keys.number("linear_conv_kernel_dim") - 1,
        state=value * keys.number("linear_key_head_dim"),
        state_bytes={"float32": 4, "bfloat16": 2, "float16": 2}.get(str(keys.values.get("mamba_ssm_dtype"))),
    )


def _mamba2(keys: Keys) -> State:
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
