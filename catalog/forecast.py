"""What a stack's engine will hold at once, where that can be known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog.models import KNOWN_MODELS
from catalog.sizing import GIB, KvOptions, Serving, plan
from catalog.sizing.memory import FEW_BATCHED_TOKENS
from catalog.vllm import CPU_KV_GIB

SIZED_OPTIONS = frozenset(
    {"block-size", "gpu-memory-utilization", "kv-cache-memory-bytes", "max-num-batched-tokens", "max-num-seqs"}
)
"""Options of vLLM that the forecast knows the effect of. Those for memory have none on the CPU, where
VLLM_CPU_KVCACHE_SPACE, which this program sets, decides (platforms/cpu.py)."""


def tokens_on_cpu(model: str, max_model_len: int, options: Mapping[str, Any]) -> int | None:
    """Tokens of keys and values that an engine on the CPU holds; None for a model or options not known here.

    On a GPU only the engine knows how much memory is left for them.
    """
    known = KNOWN_MODELS.get(model)
    if known is None or not options.keys() <= SIZED_OPTIONS:
        return None

    serving = Serving.from_options(options)
    batched = serving.batched_tokens or FEW_BATCHED_TOKENS
    forecast = plan(known.shape, KvOptions("cpu", batched_tokens=batched, block=serving.block))
    return forecast.tokens(CPU_KV_GIB * GIB, max_model_len)
