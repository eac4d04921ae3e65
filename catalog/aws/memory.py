"""Whether a model fits the GPUs of an instance type, by the forecast of `catalog.sizing`."""

from __future__ import annotations

from catalog.aws.account import WantedModel
from catalog.aws.instance_types import InstanceType
from catalog.gpus import gpu
from catalog.models import KNOWN_MODELS
from catalog.sizing import Fit, Gpu, Serving, fits


def gpu_of(kind: InstanceType) -> Gpu:
    """One of the type's GPUs. Those of the P families with several are linked by NVLink; no G type's are."""
    linked = kind.family.startswith("p") and kind.gpus > 1
    return gpu(kind.gpu, kind.mib_per_gpu, float(kind.compute_capability), nvlink=linked)


def gpus_used(model: WantedModel) -> int:
    """How many GPUs vLLM spreads the model over; one unless the stack says otherwise."""
    serving = Serving.from_options(model["extra_args"])
    return (serving.tensor_parallel or 1) * (serving.pipeline_parallel or 1)


def _fit(model: WantedModel, kind: InstanceType) -> Fit | None:
    known = KNOWN_MODELS.get(model["name"])
    if known is None:
        return None
    serving = Serving.from_options(model["extra_args"])
    return fits(known.shape, gpu_of(kind), gpus_used(model), model["context_tokens"], serving=serving)


def memory_problem(model: WantedModel, kind: InstanceType) -> tuple[str, str] | None:
    """Cause, as a sentence whose subject is the type, and change where a known model does not fit, else None.

    None as well where the forecast is uncertain: `memory_doubt` has it then.
    """
    found = _fit(model, kind)
    if found is None or found.fits or found.doubts:
        return None
    levers = "; or ".join(lever.text for lever in found.levers[:3])
    return (
        f"does not hold seatable-vllm:model.name {model['name']} on {gpus_used(model)} of its GPUs: {found.why}",
        levers or "take a type with more GPU memory, or a smaller or quantised model (seatable-vllm:model.name)",
    )


def memory_doubt(model: WantedModel, kind: InstanceType) -> str | None:
    """The forecast in words where it is uncertain, else None."""
    found = _fit(model, kind)
    if found is None or not found.doubts:
        return None
    verdict = "should fit" if found.fits else "may not fit"
    return f"{model['name']} {verdict} {gpus_used(model)} GPU of {kind.name}: {found.why}"
