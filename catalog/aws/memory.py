"""Whether a model's weights fit the GPUs of an instance type."""

from __future__ import annotations

import math

from catalog.aws.account import WantedModel
from catalog.aws.instance_types import InstanceType
from catalog.models import KNOWN_MODELS

FOR_WEIGHTS = 0.9
"""Part of a GPU's memory that weights may fill: vLLM takes 92 % of it, and some of that must hold a context."""


def gpus_used(model: WantedModel) -> int:
    """How many GPUs vLLM spreads the model over; one unless the stack says otherwise."""
    options = model["extra_args"]
    sizes = [options.get(name, 1) for name in ("tensor-parallel-size", "pipeline-parallel-size")]
    return math.prod(size for size in sizes if isinstance(size, int))


def memory_problem(model: WantedModel, kind: InstanceType) -> tuple[str, str] | None:
    """Cause and change where the weights of a known model do not fit the GPUs that it is given, else None."""
    known, used = KNOWN_MODELS.get(model["name"]), gpus_used(model)
    usable_gib = kind.mib_per_gpu * used * FOR_WEIGHTS / 1024
    if known is None or known.weights_gib <= usable_gib:
        return None
    spread = f", or spread it over {kind.gpus} GPUs (tensor-parallel-size)" if kind.gpus > used else ""
    return (
        f"{model['name']} has {known.weights_gib:g} GiB of weights, and {used} GPU of {kind.name} holds "
        f"{usable_gib:.1f} GiB of them",
        f"take a type with more GPU memory, or a smaller or quantised model (seatable-vllm:model.name){spread}",
    )
