"""How many tokens fit into memory for keys and values: vLLM 0.32's own arithmetic, block for block.

Follows v1/core/kv_cache_utils.py, v1/kv_cache_interface.py and platforms/interface.py of that version. Left out
are speculative drafts, decode context parallelism, encoder-decoders and sparse-attention indexers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from catalog.sizing.layers import Attention, Latent, Layer, State
from catalog.sizing.shape import ModelShape
from catalog.vllm import Device

DEFAULT_BLOCK = {"gpu": 16, "cpu": 128}
"""Tokens per block where `--block-size` does not say."""
KERNEL_BLOCK = {"gpu": 16, "cpu": 32}
"""Tokens that a block must be a multiple of (FlashAttention; the CPU's kernels)."""
MLA_BLOCK = {"gpu": 64, "cpu": 16}
"""Tokens per block of MLA models: FlashMLA on Hopper; the CPU's kernel takes no other."""
HYBRID_MLA_BLOCK = 128
"""Least alignment of a model with MLA and states."""
CPU_STATE_BYTES = 4
"""Bytes per element of a recurrent state on the CPU: its platform sets 32 bits where the processor has AVX-512
with bfloat16 (platforms/cpu.py), and no processor takes more."""
PADDING_LIMIT = 1.5
"""Layers of two kinds are padded to one count where they differ by less than this factor."""


@dataclass(frozen=True)
class KvOptions:
    """What of vLLM's options decides the number of blocks.

    batched_tokens: `--max-num-batched-tokens`. block: `--block-size`. element_bytes: 1 with
    `--kv-cache-dtype fp8`, None: the model's own. prefix_caching: the default; without it states need
    one block less. state_bytes: `--mamba-ssm-cache-dtype`, None: as the model says.
    """

    device: Device = "gpu"
    batched_tokens: int = 2048
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    block: int | None = None
    element_bytes: int | None = None
    state_bytes: int | None = None
    prefix_caching: bool = True
    in_flight: int | None = None
    """Tokens scheduled and not yet settled; None: by batched_tokens, stages and device."""

    @property
    def tokens_in_flight(self) -> int:
        """As `in_flight`; a GPU's scheduler runs one batch ahead of the stages."""
        if self.in_flight is not None:
            return self.in_flight
        batches = self.pipeline_parallel + (1 if self.device == "gpu" else 0)
        return self.batched_tokens * batches


@dataclass(frozen=True)
class _Spec:
    """What one layer needs: bytes of its page, tokens that a page holds, and how far it looks back."""

    kind: str
    heads: int
    size: int
    block: int
    page: int
    window: int = 0
    checkpoints: int = 0

    def blocks(self, length: int, options: KvOptions) -> int:
        """Blocks that one request of this many tokens holds at most."""
        if self.kind == "state":
            return 2 + self.checkpoints if options.prefix_caching else 1
        if self.kind == "sliding":
            # One more, because a window need not begin where a block does.
            return ceil(min(self.window - 1 + options.tokens_in_flight, length) / self.block) + 1
        if self.kind == "chunked":
            return ceil(min(self.window + options.tokens_in_flight, length) / self.block)
        return ceil(length / self.block)


@dataclass(frozen=True)
class KvPlan:
    """How the layers share blocks. All that is asked of it follows from groups and the bytes of one block."""

    options: KvOptions
    block: int
    """Tokens of a block of the attention layers."""
    block_bytes: tuple[int, ...]
    """Bytes of one block of all groups, per pipeline stage."""
    groups: tuple[_Spec, ...]

    def request_blocks(self, length: int) -> int:
        """Blocks that one request of so many tokens takes, over all groups."""
        return sum(spec.blocks(length, self.options) for spec in self.groups)

    def request_bytes(self, length: int) -> int:
        """Bytes that one request of so many tokens takes on the GPU of the fullest stage."""
        return self.request_blocks(length) * max(self.block_bytes, default=0)

    def blocks(self, available: int) -> int:
        """Blocks that so many bytes on each GPU hold."""
        return max(0, min((available // each for each in self.block_bytes if each), default=0))

    def concurrency(self, available: int, length: int) -> float:
        """Requests of so many tokens that are held at once."""
        return self.blocks(available) / self.request_blocks(length) if self.groups else 0.0

    def tokens(self, available: int, length: int) -> int:
        """vLLM's `KV cache size`: tokens in requests of this length."""
        return int(self.concurrency(available, length) * length)

    def fits(self, available: int, length: int) -> bool:
        """vLLM's rule at start: one request of this length, and one block that is always held back."""
        return all(
            available - each > 0 and self.request_blocks(length) * each <= available - each
            for each in self.block_bytes
            if each
        )

    def longest(self, available: int, at_most: int) -> int:
        """The longest request that passes the rule, in tokens; 0 where not even one token does."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(available, middle) else (low, middle - 1)
        return low


def plan(model: ModelShape, options: KvOptions) -> KvPlan:
    """How vLLM lays out this model's cache under these options."""
    block = _block(model, options)
    specs = {at: _spec(layer, model, options, block) for at, layer in enumerate(model.layers) if layer is not None}
    groups = _groups(specs)
    stages = []
    for first, end in stage_borders(len(model.layers), options.pipeline_parallel):
        stages.append(
            max((sum(specs_of[at].page for at in specs_of if first <= at < end) for specs_of in groups), default=0)
        )
    heads = [_widest_of(group) for group in groups]
    return KvPlan(options, block, tuple(stages), tuple(heads))


def stage_borders(layers: int, stages: int) -> list[tuple[int, int]]:
    """First layer and end of each pipeline stage; what does not divide goes to the stages before the last."""
    counts = [layers // stages] * stages
    for at in range(2, layers % stages + 2):
        counts[-at] += 1
    return [(sum(counts[:at]), sum(counts[: at + 1])) for at in range(stages)]


def _widest_of(group: dict[int, _Spec]) -> _Spec:
    return next(iter(group.values()))


def _shard(heads: int, options: KvOptions) -> int:
    """Heads on one rank; where there are fewer than ranks, each has a copy."""
    return max(1, heads // options.tensor_parallel)


def _token_bytes(layer: Attention | Latent, model: ModelShape, options: KvOptions) -> int:
    """Bytes of one token in one layer on one rank."""
    each = options.element_bytes or model.element_bytes
    if isinstance(layer, Latent):
        return layer.width * each
    return _shard(layer.kv_heads, options) * (layer.key_size + layer.value_size) * each


def state_page(state: State, model: ModelShape, options: KvOptions) -> int:
    """Bytes of one state on one rank."""
    ranks = options.tensor_parallel
    # Groups that do not divide are repeated, so that each rank has those of its heads.
    groups = state.groups + (0 if state.groups % ranks == 0 else ranks - state.groups)
    channels = (state.channels + groups * state.group_channels) // ranks
    own = CPU_STATE_BYTES if options.device == "cpu" else state.state_bytes
    each = options.state_bytes or own or model.element_bytes
    return channels * state.taps * model.element_bytes + state.state // ranks * each


def _block(model: ModelShape, options: KvOptions) -> int:
    """Tokens per block of the attention layers; grown until one page holds a state."""
    device = options.device
    latent = next((layer for layer in model.layers if isinstance(layer, Latent)), None)
    if latent and device == "cpu":
        block = MLA_BLOCK["cpu"]
    else:
        block = options.block or (MLA_BLOCK if latent else DEFAULT_BLOCK)[device]
    pages = [state_page(layer, model, options) for layer in model.layers if isinstance(layer, State)]
    attention = next((layer for layer in model.layers if isinstance(layer, Attention | Latent)), None)
    if not pages or attention is None:
        return block
    step = max(KERNEL_BLOCK[device], block, HYBRID_MLA_BLOCK if latent else 0)
    needed = step * ceil(max(pages) / (step * _token_bytes(attention, model, options)))
    return max(block, KERNEL_BLOCK[device] * ceil(needed / KERNEL_BLOCK[device]))


def _spec(layer: Layer, model: ModelShape, options: KvOptions, block: int) -> _Spec:
    if isinstance(layer, State):
        attention = next((each for each in model.layers if isinstance(each, Attention | Latent)), None)
        page = state_page(layer, model, options)
        if attention is not None:
            page = max(page, block * _token_bytes(attention, model, options))
        return _Spec("state", 0, 0, block, page, checkpoints=layer.checkpoints)
    each = _token_bytes(layer, model, options)
    if isinstance(layer, Latent):
        return _Spec("full", 1, layer.width, block, block * each)
    if layer.reach == "sliding":
        kernel = KERNEL_BLOCK[options.device]
        block = max(kernel, block // kernel * kernel)
    return _Spec(
        layer.reach, _shard(layer.kv_heads, options), layer.key_size, block, block * each, window=layer.window
    )


def _groups(specs: dict[int, _Spec]) -> list[dict[int, _Spec]]:
    """Layers that share a block table, by their place in the model."""
    if not specs:
        return []
    kinds = {(spec.kind, spec.window, spec.block, spec.checkpoints) for spec in specs.values()}
    if len(kinds) == 1:
        return [specs]
    specs = _one_page_size(specs)
    buckets: dict[_Spec, list[int]] = {}
    for at, spec in specs.items():
        buckets.setdefault(spec, []).append(at)
    least, most = min(map(len, buckets.values())), max(map(len, buckets.values()))
    size = most if most < least * PADDING_LIMIT else least
    grouped: list[dict[int, _Spec]] = []
    for places in buckets.values():
        number = ceil(len(places) / size)
        grouped += [{at: specs[at] for at in places[first::number]} for first in range(number)]
    return grouped


def _one_page_size(specs: dict[int, _Spec]) -> dict[int, _Spec]:
    """Makes all pages as large as the largest: more tokens to a page, or padding where it does not divide."""
    largest = max(spec.page for spec in specs.values())
    return {at: _grown(spec, largest) for at, spec in specs.items()}


def _grown(spec: _Spec, page: int) -> _Spec:
    if spec.kind != "state" and page % spec.page == 0:
        return replace(spec, block=spec.block * (page // spec.page), page=page)
    return replace(spec, page=page)
