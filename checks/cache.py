"""What a running vLLM says of its cache, to lay beside the forecast."""

from __future__ import annotations

import re
from dataclasses import dataclass

HELD = "the engine holds "
"""How the line begins in which the gate of `up` says what the engine found room for."""


@dataclass(frozen=True)
class Cache:
    """Labels of the metric `vllm:cache_config_info`.

    tokens: keys and values that are held at once. concurrency: requests of max_model_len tokens held at once.
    """

    blocks: int
    block: int
    tokens: int
    concurrency: float


def cache_of(metrics: str) -> Cache | None:
    """The cache by the text of /metrics; None where vLLM does not say it."""
    line = re.search(r"^vllm:cache_config_info\{(.*)\}", metrics, re.MULTILINE)
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line[1])) if line else {}
    try:
        return Cache(
            int(labels["num_gpu_blocks"]),
            int(labels["block_size"]),
            int(labels["kv_cache_size_tokens"]),
            float(labels["kv_cache_max_concurrency"]),
        )
    except (KeyError, ValueError):
        return None


def whole_requests(concurrency: float) -> str:
    """How many requests that is, in words: a part of one is none."""
    number = int(concurrency)
    return f"{number:,} request{'' if number == 1 else 's'}"


def held_in(printed: str) -> tuple[int, int] | None:
    """Tokens, and requests of full length, that are held at once, by what the gate printed; None if it did not."""
    found = re.search(rf"^{HELD}([\d,]+) tokens, ([\d,.]+) requests?\b", printed, re.MULTILINE)
    return (int(found[1].replace(",", "")), int(float(found[2].replace(",", "")))) if found else None


def told(cache: Cache, max_model_len: int, forecast: int | None) -> str:
    """One line for a person: what is held at once, and what was forecast where that is known (in tokens)."""
    requests = f"{whole_requests(cache.concurrency)} of {max_model_len:,} at once"
    held = f"{cache.tokens:,} tokens of keys and values, {requests}"
    if forecast is None:
        return held
    return f"{held}; forecast {forecast:,} tokens" + (
        "" if forecast == cache.tokens else ", which is not the same"
    )
