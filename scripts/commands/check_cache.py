"""How much a deployed engine holds at once, beside the forecast: read on its machine's loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx

from catalog.models import KNOWN_MODELS
from catalog.sizing import GIB, KvOptions, plan
from catalog.sizing.memory import FEW_BATCHED_TOKENS
from catalog.sizing.truth import cache_of, told
from catalog.vllm import CPU_KV_GIB
from scripts.commands.places import host_of
from settings import Settings

SECONDS = 10


def cache_line(stack: str, settings: Settings, device: str) -> str | None:
    """What the engine holds at once; None where it cannot be asked, which is no failure of the endpoint.

    device: cpu or gpu, as the output `machine` has it. On a GPU only the engine knows how much memory is left.
    """
    try:
        with _engine(stack, settings) as address:
            metrics = httpx.get(f"{address}/metrics", timeout=SECONDS).text
    except (httpx.HTTPError, OSError):
        return None
    cache = cache_of(metrics)
    if cache is None:
        return None
    return told(cache, settings.model.context_tokens, _forecast(settings) if device == "cpu" else None)


@contextlib.contextmanager
def _engine(stack: str, settings: Settings) -> Iterator[str]:
    host = host_of(stack, settings)
    if host is None:
        yield f"http://127.0.0.1:{settings.ports.engine}"
        return
    with host.forwarded(settings.ports.engine) as (_, port):
        yield f"http://127.0.0.1:{port}"


def _forecast(settings: Settings) -> int | None:
    """Tokens that the CPU's memory for keys and values holds, for a model of the catalogue."""
    known, options = KNOWN_MODELS.get(settings.model.name), settings.model.extra_args
    if known is None or not options.keys() <= {"block-size", "max-num-batched-tokens", "max-num-seqs"}:
        return None

    def number(name: str) -> Any:
        value = options.get(name)
        return value if isinstance(value, int) else None

    batched = number("max-num-batched-tokens") or FEW_BATCHED_TOKENS
    forecast = plan(known.shape, KvOptions("cpu", batched_tokens=batched, block=number("block-size")))
    return forecast.tokens(CPU_KV_GIB * GIB, settings.model.context_tokens)
