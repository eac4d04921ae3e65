"""What takes a GPU's memory beside keys and values: named constants, each with where it is from.

The constants are estimates: what a GPU really has to give is known after vLLM has measured itself at its start.
`/metrics` (`vllm:cache_config_info`) and the log line `Actual usage is ...` have its own figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.sizing.shape import ModelShape

MIB = 1 << 20
GIB = 1 << 30

UTILIZATION = 0.92
"""`--gpu-memory-utilization` of vLLM 0.32: the share of the whole GPU that one engine takes."""

CUDA_BYTES = 512 * MIB
"""The CUDA context and libraries: 0.34 to 0.43 GiB measured on A100 (vLLM issue 16570), and some to spare."""

NCCL_BYTES = 512 * MIB
"""Buffers for talking to other GPUs, per GPU, where there are any (estimate)."""

ACTIVATION_BYTES = 512 * MIB
"""What the run that vLLM measures itself with takes beside what grows with the model (estimate)."""

VISION_BYTES = 1536 * MIB
"""The same run with the largest pictures: 2.5 GiB for all activations measured (vLLM issue 16570)."""

CUDA_GRAPH_BYTES = 768 * MIB
"""CUDA graphs: 0.48 GiB (vLLM issue 20264) and 0.73 GiB (issue 39559) measured; none with `--enforce-eager`."""

HIDDEN_COPIES = 6
"""Activations of the hidden size that live at once in a layer: residual, normalized, q, k, v and output."""
INTERMEDIATE_COPIES = 2
"""Of the feed-forward size: gate and up, which become the one that goes down."""
SAMPLER_BYTES = 40
"""Bytes per sequence and word of the vocabulary while tokens are chosen: logits in 16 and 32 bit, sorted values,
their places in 64 bit, probabilities. Peaks of 4.76 (Llama 3.1 8B), 5.56 (Qwen3 0.6B) and 7.38 GiB (gpt-oss 20B
and 120B) measured on H100 with 1024 sequences are 38 to 40 bytes (llm-d-benchmark, config_explorer,
empirical-vllm-memory-results.md)."""
MXFP4_BYTES = 17 / 32
"""Bytes of a weight in MXFP4: 4 bits, and 8 for the scale that 32 weights share."""
MXFP4_HIDDEN, MXFP4_INTERMEDIATE = 256, 128
"""MXFP4 experts are padded to multiples of these: the Marlin and TensorRT-LLM kernels
(model_executor/layers/fused_moe/oracle/mxfp4.py), the most that any kernel for NVIDIA takes. gpt-oss-120b has
60.8 GiB of files; 65.97 (Marlin, vLLM issue 23278) and 64.38 GiB (Triton, issue 33155) in memory on H100."""

BATCHED_TOKENS = ((160 * GIB, 16384), (70 * GIB, 8192))
"""Defaults of `--max-num-batched-tokens` by the GPU's memory; below, and on A100, `FEW_BATCHED_TOKENS`."""
FEW_BATCHED_TOKENS = 2048
MAX_NUM_SEQS = 64
"""`--max-num-seqs` that this program sets (catalog/vllm.py)."""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    memory_mib: what CUDA says it has in all, in MiB; less than the box says, see `catalog.gpus`.
    capability: CUDA compute capability, such as 8.9. nvlink: whether several of them in one machine are linked.
    note: what was assumed, where its name did not say it.
    """

    name: str
    memory_mib: int
    capability: float
    nvlink: bool = False
    note: str = ""

    @property
    def memory_bytes(self) -> int:
        """All of its memory."""
        return self.memory_mib * MIB

    @property
    def batched_tokens(self) -> int:
        """vLLM's default of `--max-num-batched-tokens` for its API server on this GPU."""
        if "A100" in self.name:
            return FEW_BATCHED_TOKENS
        return next((tokens for least, tokens in BATCHED_TOKENS if self.memory_bytes >= least), FEW_BATCHED_TOKENS)


@dataclass(frozen=True)
class MemorySplit:
    """Where the memory of one GPU goes, in bytes. The four parts together are all of it."""

    weights: int
    kv: int
    """What is left for keys and values; 0 where the rest does not fit."""
    overhead: int
    free: int
    """What vLLM leaves alone (`--gpu-memory-utilization`); negative where weights and overhead are too much."""

    @property
    def total(self) -> int:
        """All of the GPU's memory."""
        return self.weights + self.kv + self.overhead + self.free


def padding(model: ModelShape, *, layers: int, ranks: int) -> int:
    """Bytes that the experts of so many layers take on one rank beyond their files."""
    experts = model.experts
    if experts is None or model.quantization != "mxfp4":
        return 0
    hidden, width = model.hidden_size, -(-experts.width // ranks)
    padded = _multiple(hidden, MXFP4_HIDDEN) * _multiple(width, MXFP4_INTERMEDIATE)
    # Gate, up and down.
    return int(layers * experts.number * 3 * (padded - hidden * width) * MXFP4_BYTES)


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of


def _expert_workspace(model: ModelShape, ranks: int) -> int:
    """Elements per token that a layer with experts works with.

    Each of a token's experts has an input, the product of gate and up, and an output of its own. vLLM keeps two
    workspaces, `max(width, hidden)` and `max(2 * width, hidden)` (`workspace_shapes` of fused_moe/experts/), which
    stay allocated (v1/worker/workspace.py); kernels for 8 and 4 bits gather the inputs too. Qwen3-235B-A22B-FP8 on
    4 H100 with 1024 sequences left 8.11 GiB of 71.2 beside 54.9 of weights (vLLM issues 21348 and 18446).
    """
    if model.experts is None:
        return 0
    hidden, width = model.hidden_size, -(-model.experts.width // ranks)
    return model.experts.per_token * (hidden + max(width, hidden) + max(2 * width, hidden))


def overhead(
    model: ModelShape,
    *,
    batched_tokens: int,
    max_num_seqs: int,
    ranks: int,
    stages: int,
    pictures: bool,
    eager: bool,
) -> int:
    """Bytes per GPU that are neither weights nor keys and values.

    The layers and the choice of tokens come one after the other, so that the larger of them counts.
    """
    widths = HIDDEN_COPIES * model.hidden_size + INTERMEDIATE_COPIES * -(-model.intermediate_size // ranks)
    layers = ACTIVATION_BYTES + batched_tokens * widths * model.element_bytes
    sampler = max_num_seqs * model.vocab_size * SAMPLER_BYTES
    return (
        CUDA_BYTES
        + (NCCL_BYTES if ranks * stages > 1 else 0)
        + batched_tokens * _expert_workspace(model, ranks) * model.element_bytes
        + max(layers, sampler)
        + (VISION_BYTES if pictures else 0)
        + (0 if eager else CUDA_GRAPH_BYTES)
    )


def split(gpu: Gpu, weights: int, other: int, utilization: float, kv_bytes: int | None = None) -> MemorySplit:
    """What is left for keys and values when weights and overhead are taken off the engine's share.

    kv_bytes: `--kv-cache-memory-bytes`, which vLLM takes as it is, whatever its share is.
    """
    engine = int(gpu.memory_bytes * utilization)
    kv = max(0, engine - weights - other) if kv_bytes is None else kv_bytes
    return MemorySplit(weights, kv, other, gpu.memory_bytes - weights - other - kv)
