"""Whether a model fits the GPUs of an instance type, by the forecast of `catalog.sizing`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from catalog.aws.account import WantedModel
from catalog.aws.instance_types import InstanceType
from catalog.gpus import gpu
from catalog.models import KNOWN_MODELS
from catalog.sizing import Serving, fits

_SIZES = ("tensor-parallel-size", "pipeline-parallel-size")


def gpus_used(model: WantedModel) -> int:
    """How many GPUs vLLM spreads the model over; one unless the stack says otherwise."""
    return math.prod(_number(model["extra_args"], name, 1) for name in _SIZES)


def memory_problem(model: WantedModel, kind: InstanceType) -> tuple[str, str] | None:
    """Cause and change where a known model does not fit the GPUs that it is given, else None."""
    known, used = KNOWN_MODELS.get(model["name"]), gpus_used(model)
    if known is None:
        return None
    nvlink = kind.family.startswith("p") and kind.gpus > 1  # no G type has it
    card = gpu(kind.gpu, kind.mib_per_gpu, float(kind.compute_capability), nvlink=nvlink)
    found = fits(known.shape, card, used, model["context_tokens"], serving=_serving(model["extra_args"]))
    if found.fits:
        return None
    levers = "; or ".join(lever.text for lever in found.levers[:3])
    return (
        f"{model['name']} does not fit {used} GPU of {kind.name}: {found.why}",
        levers or "take a type with more GPU memory, or a smaller or quantised model (seatable-vllm:model.name)",
    )


def _serving(options: Mapping[str, Any]) -> Serving:
    """The options of vLLM that decide about memory, as the stack sets them."""
    plain = Serving()
    utilization = options.get("gpu-memory-utilization", plain.utilization)
    return Serving(
        utilization=float(utilization) if isinstance(utilization, int | float) else plain.utilization,
        max_num_seqs=_number(options, "max-num-seqs", plain.max_num_seqs),
        batched_tokens=_number(options, "max-num-batched-tokens", 0) or None,
        block=_number(options, "block-size", 0) or None,
        fp8_kv=str(options.get("kv-cache-dtype", "")).startswith("fp8"),
        text_only=options.get("language-model-only") is True,
        eager=options.get("enforce-eager") is True,
        prefix_caching=options.get("enable-prefix-caching", True) is True,
        tensor_parallel=_number(options, _SIZES[0], 1),
        pipeline_parallel=_number(options, _SIZES[1], 1),
    )


def _number(options: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = options.get(name, otherwise)
    return value if isinstance(value, int) else otherwise
