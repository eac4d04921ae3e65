"""How much a deployed engine holds at once, beside the forecast: read on its machine's loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx

from catalog.forecast import tokens_on_cpu
from checks.cache import cache_of, told
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
    model = settings.model
    forecast = tokens_on_cpu(model.name, model.context_tokens, model.extra_args)
    return told(cache, model.context_tokens, forecast if device == "cpu" else None)


@contextlib.contextmanager
def _engine(stack: str, settings: Settings) -> Iterator[str]:
    host = host_of(stack, settings)
    if host is None:
        yield f"http://127.0.0.1:{settings.ports.engine}"
        return
    with host.forwarded(settings.ports.engine) as (_, port):
        yield f"http://127.0.0.1:{port}"
