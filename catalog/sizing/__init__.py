"""Whether a model fits on a GPU: vLLM's own arithmetic for keys and values, and estimates of the rest.

shape = ModelShape.from_config(config, weights_bytes)       # a parsed config.json and its safetensors files
fit = fits(shape, Gpu("L4", 22700, 8.9), gpus=1, max_model_len=65536)
fit.fits, fit.why, fit.levers, fit.max_model_len, fit.concurrency, fit.memory

With `serving=Serving.from_options(extra_args)` it answers for a stack's own options.
"""

from catalog.sizing.fit import Fit, Lever, fits, parallel
from catalog.sizing.keys import ShapeError
from catalog.sizing.kv import KvOptions, KvPlan, plan
from catalog.sizing.layers import Attention, Latent, State
from catalog.sizing.memory import GIB, Gpu, MemorySplit
from catalog.sizing.serving import Serving
from catalog.sizing.shape import Experts, ModelShape

__all__ = [
    "GIB",
    "Attention",
    "Experts",
    "Fit",
    "Gpu",
    "KvOptions",
    "KvPlan",
    "Latent",
    "Lever",
    "MemorySplit",
    "ModelShape",
    "Serving",
    "ShapeError",
    "State",
    "fits",
    "parallel",
    "plan",
]
