"""Whether a model fits the GPUs of an instance type, by the forecast of `catalog.sizing`."""

from __future__ import annotations

from catalog.aws.account import WantedModel
from catalog.aws.instance_types import InstanceType
from catalog.gpus import gpu
from catalog.models import KNOWN_MODELS
from catalog.sizing import Gpu, Serving, fits


def gpu_of(kind: InstanceType) -> Gpu:
    """One of the type's GPUs. Those of the P families with several are linked by NVLink; no G type's are."""
    linked = kind.family.startswith("p") and kind.gpus > 1
    return gpu(kind.gpu, kind.mib_per_gpu, float(kind.compute_capability), nvlink=linked)


def gpus_used(model: WantedModel) -> int:
    """How many GPUs vLLM spreads the model over; one unless the stack says otherwise."""
    serving = Serving.from_options(model["extra_args"])
    return (serving.tensor_parallel or 1) * (serving.pipeline_parallel or 1)


def memory_problem(model: WantedModel, kind: InstanceType) -> tuple[str, str] | None:
    """Cause and change where a known model does not fit the GPUs that it is given, else None."""
    known, used = KNOWN_MODELS.get(model["name"]), gpus_used(model)
    if known is None:
        return None
    serving = Serving.from_options(model["extra_args"])
    found = fits(known.shape, gpu_of(kind), used, model["context_tokens"], serving=serving)
    if found.fits:
        return None
    levers = "; or ".join(lever.text for lever in found.levers[:3])
    return (
        f"{model['name']} does not fit {used} GPU of {kind.name}: {found.why}",
        levers or "take a type with more GPU memory, or a smaller or quantised model (seatable-vllm:model.name)",
    )
