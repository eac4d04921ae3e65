"""The options of vLLM that decide about memory, read from a stack's `model.extra_args` as vLLM reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.sizing.memory import MAX_NUM_SEQS, UTILIZATION
from catalog.sizing.uncertain import doubts_of_options

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def whole_number(value: Any) -> int | None:
    """A positive whole number as vLLM reads it: 8192, "8192", "8K" (1024) or "25.6k" (1000); None for others.

    vLLM 0.32 takes the suffixes for `--max-num-batched-tokens` and `--kv-cache-memory-bytes`
    (utils/argparse_utils.py); fractions only of thousands, not of 1024.
    """
    if isinstance(value, bool):
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])?", str(value).strip())
    if found is None or ("." in found[1] and (found[2] or "K") in "KMGT"):
        return None
    number = int(float(found[1]) * _SUFFIXES[found[2]]) if found[2] else int(found[1])
    return number or None


def _share(value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        return UTILIZATION
    return share if not isinstance(value, bool) and 0 < share <= 1 else UTILIZATION


@dataclass(frozen=True)
class Serving:
    """The options of vLLM that decide about memory, with this program's defaults. None: vLLM's own default."""

    utilization: float = UTILIZATION
    max_num_seqs: int = MAX_NUM_SEQS
    batched_tokens: int | None = None
    kv_bytes: int | None = None
    """`--kv-cache-memory-bytes`: bytes per GPU for keys and values, in place of what `utilization` leaves."""
    block: int | None = None
    fp8_kv: bool = False
    text_only: bool = False
    """`--language-model-only`: no pictures, though the model could."""
    eager: bool = False
    prefix_caching: bool = True
    state_bytes: int | None = None
    tensor_parallel: int | None = None
    """None, with pipeline_parallel None too: chosen by the rules of `parallel`."""
    pipeline_parallel: int | None = None
    doubts: tuple[str, ...] = ()
    """Options that change memory and are not counted."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Serving:
        """What `model.extra_args` of a stack says. One GPU is used unless it has parallel sizes, as vLLM does.

        Numbers count whether they are written as numbers or as text. What is no number is vLLM's to refuse.
        """

        def number(name: str) -> int | None:
            return whole_number(options.get(name))

        return cls(
            utilization=_share(options.get("gpu-memory-utilization")),
            max_num_seqs=number("max-num-seqs") or MAX_NUM_SEQS,
            batched_tokens=number("max-num-batched-tokens"),
            kv_bytes=number("kv-cache-memory-bytes"),
            block=number("block-size"),
            fp8_kv=str(options.get("kv-cache-dtype", "")).startswith("fp8"),
            text_only=options.get("language-model-only") is True,
            eager=options.get("enforce-eager") is True,
            prefix_caching=options.get("enable-prefix-caching") is not False,
            state_bytes={"float32": 4, "float16": 2, "bfloat16": 2}.get(str(options.get("mamba-ssm-cache-dtype"))),
            tensor_parallel=number("tensor-parallel-size") or 1,
            pipeline_parallel=number("pipeline-parallel-size") or 1,
            doubts=doubts_of_options(options),
        )


DEFAULTS = Serving()
"""What this program serves with where a stack says nothing, on as many GPUs as there are."""
