"""What makes a forecast uncertain: a kind of model, or a key or option, that it was not compared with vLLM for.

Better a word too many than a figure that is wrong without saying so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

COMPARED = frozenset(
    [
        "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5", "ernie4_5_moe", "exaone4", "gemma", "gemma2",
        "gemma3_text", "gemma3n_text", "gemma4_text", "glm4", "glm4_moe", "gpt_oss", "granite", "granitemoehybrid",
        "hunyuan_v1_dense", "llama", "llama4_text", "minimax_m2", "mistral", "mixtral", "nemotron_h", "olmoe",
        "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "seed_oss", "smollm3",
    ]
)  # fmt: skip
"""`model_type`s of language models whose layers tests/live/test_sizing.py compares with those of a real engine."""
SAME_CODE = frozenset(
    [
        "gemma4_unified_text", "kimi_k2", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_vl", "qwen2_vl_text",
        "qwen3_5_moe_text", "qwen3_5_text", "qwen3_vl_moe_text", "qwen3_vl_text",
    ]
)  # fmt: skip
"""`model_type`s that vLLM 0.32 runs with the layers of one of those (model_executor/models/)."""

_CACHE = re.compile(
    r"window|swa\b|swa_|sliding|kv_|_kv\b|lora_rank|latent|mla|state|ssm|mamba|conv|linear_|layer_types|"
    r"layers?_block|block_configs|block_types|pattern|interval|group_size|index|compress|chunk|cross_|encoder|"
    r"sparse|head_dim|head_size|num_.*heads|attn_|attention_(type|layer|head|group)|attention_heads|per_layer|"
    r"recurrent|lightning|share|skip_layers|full_attn|no_op|mtp|nextn"
)
"""Words in the keys that may decide what a layer keeps between tokens."""

_COUNTED = frozenset(
    [
        "attention_chunk_size", "attention_k_eq_v", "conv_kernel", "full_attention_interval",
        "global_head_dim", "head_dim", "hybrid_override_pattern", "kv_lora_rank", "layer_group_size",
        "layer_types", "layers_block_type", "linear_attn_config", "linear_conv_kernel_dim",
        "linear_key_head_dim", "linear_num_key_heads", "linear_num_value_heads", "linear_value_head_dim",
        "mamba_chunk_size", "mamba_d_conv", "mamba_d_head", "mamba_d_state", "mamba_expand",
        "mamba_head_dim", "mamba_n_groups", "mamba_n_heads", "mamba_num_heads", "mamba_ssm_cache_dtype",
        "mamba_ssm_dtype", "no_rope_layer_interval", "num_attention_heads", "num_global_key_value_heads",
        "num_key_value_heads", "num_kv_shared_layers", "qk_rope_head_dim", "short_conv_kernel_size",
        "sliding_window", "sliding_window_pattern", "_sliding_window_pattern", "ssm_state_size",
        "use_sliding_window",
    ]
)  # fmt: skip
"""Keys that the forecast reads."""
_HARMLESS = frozenset(
    [
        "activation_sparsity_pattern", "attn_config", "attn_factor", "attn_implementation",
        "attn_logit_softcapping", "attn_output_gate", "attn_scale", "attn_temperature_tuning",
        "chunk_size", "chunk_size_feed_forward", "conv_bias", "cross_attention_hidden_size",
        "decoder_sparse_step", "encoder_no_repeat_ngram_size", "for_llm_compressor", "head_group_size",
        "hidden_size_per_layer_input", "index_n_heads", "interleave_moe_layer_step", "is_encoder_decoder",
        "layer_index", "mamba_conv_bias", "mamba_hidden_act", "mamba_proj_bias", "max_window_layers",
        "mlp_layer_types", "moe_layer_end_index", "moe_layer_interval", "moe_layer_start_index",
        "moe_layers", "moe_num_shared_experts", "moe_shared_expert_intermediate_size",
        "mtp_num_hidden_layers", "n_shared_experts", "num_nextn_predict_layers", "num_shared_experts",
        "output_hidden_states", "q_lora_rank", "qk_head_dim", "qk_nope_head_dim", "query_pre_attn_scalar",
        "return_dict_in_generate", "shared_expert_intermediate_size", "shared_intermediate_size",
        "sliding_window_size", "tie_encoder_decoder", "time_step_limit", "use_conv_bias",
        "use_cross_attention", "use_shared_expert", "v_head_dim", "vision_feature_layer_index",
        "vocab_size_per_layer_input",
    ]
)  # fmt: skip
"""Keys with such a word that change nothing in what is kept: of experts, drafts that are not used, or unused."""

_NO_OPTIONS: tuple[Any, ...] = ("", None, False, 0, "auto", "none", [], {})
_UNCOUNTED = {
    "cpu-offload-gb": "weights outside the GPU are not counted",
    "data-parallel-size": "copies of the model are not counted",
    "decode-context-parallel-size": "a cache that is spread over ranks is not counted",
    "disable-hybrid-kv-cache-manager": "layers with windows then keep all tokens",
    "dtype": "another type than the model's own is not counted",
    "enable-expert-parallel": "experts are counted as spread by tensors",
    "enable-lora": "adapters are not counted",
    "hf-overrides": "its changes of config.json are not counted",
    "kv-offloading-size": "a cache outside the GPU is not counted",
    "mamba-cache-dtype": "another type of states is not counted",
    "num-gpu-blocks-override": "it replaces what vLLM measures",
    "prefill-context-parallel-size": "a cache that is spread over ranks is not counted",
    "quantization": "weights made smaller at the start are counted as in their files",
    "speculative-config": "a draft's weights and cache are not counted",
}
"""Options of vLLM that change memory and that the forecast does not count."""
_PLAIN_VALUES = {
    "dtype": frozenset({"bfloat16", "float16", "half"}),
    "kv-cache-dtype": frozenset({"auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"}),
}


def doubts(config: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the forecast for this model is uncertain, one phrase each; empty where it is not.

    config: the whole config.json. text: its language model's part.
    """
    return tuple(_of_config(config, text))


def _of_config(config: Mapping[str, Any], text: Mapping[str, Any]) -> Iterable[str]:
    model = text.get("model_type")
    if model not in COMPARED | SAME_CODE:
        yield f"layers of model_type {model} have not been compared with vLLM"
    if config.get("is_encoder_decoder"):
        yield "the cache of an encoder is not counted"
    unknown = sorted(key for key, value in text.items() if value and _may_matter(key))
    if unknown:
        yield f"config.json has keys that are not counted ({', '.join(unknown)})"


def _may_matter(key: str) -> bool:
    """Whether a key may decide about the cache and is not one that this forecast knows."""
    if key in _COUNTED | _HARMLESS or key.startswith("vision") or key.endswith("_token_index"):
        return False
    return _CACHE.search(key) is not None


def doubts_of_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Likewise for a stack's options of vLLM."""
    found = [
        f"extra_args {name}: {why}"
        for name, why in _UNCOUNTED.items()
        if options.get(name) not in _NO_OPTIONS and options.get(name) not in _PLAIN_VALUES.get(name, ())
    ]
    kept = str(options.get("kv-cache-dtype", "auto"))
    if kept not in _PLAIN_VALUES["kv-cache-dtype"]:
        found.append(
            f"extra_args kv-cache-dtype: {kept} is counted as {'8' if kept.startswith('fp8') else '16'} bits"
        )
    return tuple(found)
