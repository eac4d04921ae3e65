"""Models, GPUs and lengths with the verdict on each: for the forecast (unit) and for vLLM's own rule (live)."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.gpus import parse_gpu
from catalog.models import KNOWN_MODELS
from catalog.sizing import Fit, Gpu, ModelShape, Serving, fits


@dataclass(frozen=True)
class Combination:
    """One question: so many GPUs, one request of so many tokens."""

    model: str
    gpu: str
    gpus: int
    length: int
    fits: bool
    lever: str | None = None
    """The first change that is proposed."""

    @property
    def shape(self) -> ModelShape:
        return KNOWN_MODELS[self.model].shape

    @property
    def kind(self) -> Gpu:
        return parse_gpu(self.gpu)[0]

    def fit(self, serving: Serving | None = None) -> Fit:
        return fits(self.shape, self.kind, self.gpus, self.length, serving=serving or Serving())

    def __str__(self) -> str:
        return f"{self.model.split('/')[1]}-{self.gpus}x{self.gpu}-{self.length}".replace(" ", "")


QWEN7, QWEN8, QWEN14 = "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-8B", "Qwen/Qwen3-14B"
QWEN14_AWQ, QWEN32 = "Qwen/Qwen3-14B-AWQ", "Qwen/Qwen3-32B"
A3B, A3B_FP8 = "Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"
NEXT = "Qwen/Qwen3-Next-80B-A3B-Instruct"
LLAMA8, LLAMA70 = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"
SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
GEMMA12, GEMMA27 = "google/gemma-3-12b-it", "google/gemma-3-27b-it"
GEMMA12_W4 = "RedHatAI/gemma-3-12b-it-quantized.w4a16"
OSS20, OSS120 = "openai/gpt-oss-20b", "openai/gpt-oss-120b"
DEEPSEEK = "deepseek-ai/DeepSeek-V3.1"

COMBINATIONS = [
    Combination(QWEN7, "L4", 1, 32768, fits=True),
    Combination(QWEN7, "RTX 4090", 1, 32768, fits=True),
    Combination(QWEN7, "T4", 1, 8192, fits=False, lever="quantization"),
    Combination(QWEN8, "L4", 1, 16384, fits=True),
    Combination(QWEN8, "L4", 1, 40960, fits=False, lever="max-model-len"),
    Combination(QWEN8, "A10G", 1, 40960, fits=False, lever="max-model-len"),
    Combination(QWEN8, "L4", 2, 40960, fits=True),
    Combination(QWEN8, "L40S", 1, 40960, fits=True),
    Combination(QWEN14_AWQ, "L4", 1, 32768, fits=True),
    Combination(QWEN14, "L4", 1, 8192, fits=False, lever="quantization"),
    Combination(QWEN14, "L40S", 1, 40960, fits=True),
    Combination(QWEN32, "L40S", 1, 8192, fits=False, lever="quantization"),
    Combination(QWEN32, "H100", 1, 16384, fits=True),
    Combination(QWEN32, "H100", 1, 40960, fits=False, lever="max-model-len"),
    Combination(QWEN32, "L4", 8, 40960, fits=True),
    Combination(LLAMA8, "L4", 1, 131072, fits=False, lever="max-model-len"),
    Combination(LLAMA8, "L40S", 1, 131072, fits=True),
    Combination(LLAMA70, "H100", 4, 131072, fits=True),
    Combination(LLAMA70, "H100", 2, 32768, fits=False, lever="max-model-len"),
    Combination(GEMMA12_W4, "L4", 1, 65536, fits=True),
    Combination(GEMMA12_W4, "L4", 1, 131072, fits=False, lever="language-model-only"),
    Combination(GEMMA12, "L40S", 1, 131072, fits=True),
    Combination(GEMMA12, "RTX 5090", 1, 65536, fits=False, lever="max-model-len"),
    Combination(GEMMA27, "L40S", 1, 32768, fits=False, lever="quantization"),
    Combination(GEMMA27, "H100", 1, 131072, fits=False, lever="language-model-only"),
    Combination(OSS20, "L4", 1, 131072, fits=True),
    Combination(OSS120, "H100", 1, 131072, fits=False, lever="max-model-len"),
    Combination(OSS120, "H100", 1, 65536, fits=True),
    Combination(OSS120, "H100", 2, 131072, fits=True),
    Combination(A3B, "H100", 1, 131072, fits=True),
    Combination(A3B_FP8, "L40S", 1, 131072, fits=False, lever="max-model-len"),
    Combination(NEXT, "H200", 1, 65536, fits=False, lever="quantization"),
    Combination(NEXT, "H100", 4, 262144, fits=True),
    Combination(DEEPSEEK, "H200", 8, 131072, fits=True),
    Combination(DEEPSEEK, "H100", 8, 32768, fits=False),
    Combination(SCOUT, "H100", 4, 131072, fits=True),
]
