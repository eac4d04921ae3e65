"""Whether a model fits on GPUs, how long and how many its requests may be, and what to change otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.sizing.kv import KvOptions, KvPlan, plan, stage_borders
from catalog.sizing.layers import Attention, Latent
from catalog.sizing.memory import GIB, Gpu, MemorySplit, overhead, padding, split
from catalog.sizing.serving import DEFAULTS, Serving
from catalog.sizing.shape import ModelShape

LEAST_CAPABILITY = 7.5
"""Oldest GPUs that vLLM 0.32 is built for (Turing)."""
BF16_CAPABILITY = 8.0
FP8_CAPABILITY = 8.9
"""Oldest GPUs that calculate with 8-bit floats; keys and values of 8 bits are offered from here on."""
QUANTIZATION_CAPABILITY = {
    "awq": 7.5,
    "fp8": 7.5,
    "fbgemm_fp8": 8.0,
    "mxfp4": 8.0,
    "modelopt": 8.0,
    "modelopt_fp4": 7.5,
    "experts_int8": 8.0,
}
"""`get_min_capability` of vLLM 0.32's quantization methods, those that ask for more than 7.0."""
FEWEST_TOKENS = 2048
"""A context shorter than this is of no use, and no lever proposes it."""
FEW_SEQS = 16
"""Requests at once, where there is no room for more."""
STEP = 1024
"""A proposed max_model_len is a multiple of it."""


@dataclass(frozen=True)
class Lever:
    """One change that makes a model fit.

    name: the vLLM option or setting. text: what to do. fit: what comes of it.
    """

    name: str
    text: str
    max_model_len: int
    """The longest context with this change alone."""


@dataclass(frozen=True)
class Fit:
    """The forecast for one model on some GPUs of one kind."""

    fits: bool
    why: str
    """One sentence: what is left over, or what is missing."""
    levers: tuple[Lever, ...]
    """What would make it fit, the least painful first; empty where it fits, or where nothing helps."""
    max_model_len: int
    """The longest context, in tokens; 0 where not even the weights fit."""
    concurrency: float
    """Requests of the asked length that are held at once."""
    memory: MemorySplit
    """Per GPU; of several the fullest."""
    tensor_parallel: int
    pipeline_parallel: int
    kv: KvPlan | None
    """How the cache is laid out; None where the GPUs cannot run the model at all."""
    doubts: tuple[str, ...]
    """Why the forecast is uncertain, which `why` has too; empty where it is not."""
    options: Mapping[str, Any]
    """What `model.extra_args` has to have for it: parallel sizes, and the type of old GPUs."""

    def users_at(self, length: int) -> int:
        """Requests of so many tokens that are held at once."""
        return int(self.kv.concurrency(self.memory.kv, length)) if self.kv else 0


def fits(
    model: ModelShape,
    gpu: Gpu,
    gpus: int,
    max_model_len: int,
    *,
    serving: Serving = DEFAULTS,
    users: int = 1,
) -> Fit:
    """Whether `gpus` GPUs of this kind serve this model with so long a context to so many requests at once.

    max_model_len: tokens of prompt and answer together. users: requests of that length held at once.
    """
    question = _Question(model, gpu, gpus, max_model_len, users, serving)
    ranks, stages = question.sizes
    if refused := question.refusal():
        nothing = MemorySplit(0, 0, 0, gpu.memory_bytes)
        return Fit(False, refused, (), 0, 0.0, nothing, ranks, stages, None, (), {})
    found = question.measured()
    return found if found.fits else replace(found, levers=tuple(_levers(question, found)))


def parallel(model: ModelShape, gpu: Gpu, gpus: int) -> tuple[int, int]:
    """Tensor- and pipeline-parallel size for so many GPUs.

    With NVLink the tensors are split; without it the layers, as vLLM's own guide has it for L4, L40S and A10G.
    """
    if gpus == 1:
        return 1, 1
    return (gpus, 1) if gpu.nvlink and model.attention_heads % gpus == 0 else (1, gpus)


@dataclass(frozen=True)
class _Question:
    """What `fits` is asked."""

    model: ModelShape
    gpu: Gpu
    gpus: int
    length: int
    users: int
    serving: Serving

    @property
    def sizes(self) -> tuple[int, int]:
        """Tensor- and pipeline-parallel size, as asked for or by the rules."""
        ranks, stages = self.serving.tensor_parallel, self.serving.pipeline_parallel
        if ranks is None and stages is None:
            return parallel(self.model, self.gpu, self.gpus)
        return ranks or 1, stages or 1

    @property
    def batched_tokens(self) -> int:
        return self.serving.batched_tokens or self.gpu.batched_tokens

    @property
    def doubts(self) -> tuple[str, ...]:
        """Of the model and of the options."""
        return self.model.doubts + self.serving.doubts

    def refusal(self) -> str:
        """Why so many GPUs of this kind cannot run the model at all, or nothing."""
        ranks, stages = self.sizes
        heads, layers = self.model.attention_heads, len(self.model.layers)
        least = QUANTIZATION_CAPABILITY.get(self.model.quantization or "", 0.0)
        own = f"{self.gpu.name} has compute capability {self.gpu.capability}"
        if self.gpu.capability < LEAST_CAPABILITY:
            return f"{own}; vLLM needs {LEAST_CAPABILITY} or newer"
        if self.gpu.capability < least:
            return f"{own}; {self.model.quantization} weights need {least}"
        if ranks * stages > self.gpus:
            return (
                f"tensor-parallel-size x pipeline-parallel-size is {ranks * stages}, "
                f"and the machine's GPUs are {self.gpus}"
            )
        if heads % ranks:
            whole = next(size for size in range(ranks, 0, -1) if heads % size == 0)
            return (
                f"tensor-parallel-size {ranks} does not divide the model's {heads} attention heads; "
                f"use {whole}, or pipeline-parallel-size {ranks}"
            )
        if layers < stages:
            return f"pipeline-parallel-size {stages} is more than the model's {layers} layers"
        return ""

    def measured(self) -> Fit:
        """The forecast without levers. Only for a question that is not refused."""
        model, (ranks, stages), serving = self.model, self.sizes, self.serving
        largest = max(end - first for first, end in stage_borders(len(model.layers), stages))
        weights = -(-model.weights_bytes * largest // (len(model.layers) * ranks))
        weights += padding(model, layers=largest, ranks=ranks)
        other = overhead(
            model,
            batched_tokens=self.batched_tokens,
            max_num_seqs=serving.max_num_seqs,
            ranks=ranks,
            stages=stages,
            pictures=model.vision and not serving.text_only,
            eager=serving.eager,
        )
        memory = split(self.gpu, weights, other, serving.utilization, serving.kv_bytes)
        kv = plan(model, self._kv_options())
        room = memory.kv
        enough = self.length <= model.max_model_len and kv.fits(room, self.length) and memory.free >= 0
        concurrency = kv.concurrency(room, self.length)
        return Fit(
            fits=enough and concurrency >= self.users,
            why="; uncertain: ".join([self._why(kv, memory), *([", ".join(self.doubts)] if self.doubts else [])]),
            levers=(),
            max_model_len=kv.longest(room, model.max_model_len) if memory.free >= 0 else 0,
            concurrency=concurrency,
            memory=memory,
            tensor_parallel=ranks,
            pipeline_parallel=stages,
            kv=kv,
            doubts=self.doubts,
            options=self._options(),
        )

    def _options(self) -> dict[str, Any]:
        ranks, stages = self.sizes
        return {
            **({"tensor-parallel-size": ranks} if ranks > 1 else {}),
            **({"pipeline-parallel-size": stages} if stages > 1 else {}),
            **({"dtype": "half"} if self.gpu.capability < BF16_CAPABILITY else {}),
        }

    def with_(self, **changed: Any) -> _Question:
        """The same question with other options of vLLM."""
        return replace(self, serving=replace(self.serving, **changed))

    def _kv_options(self) -> KvOptions:
        ranks, stages = self.sizes
        return KvOptions(
            batched_tokens=self.batched_tokens,
            tensor_parallel=ranks,
            pipeline_parallel=stages,
            block=self.serving.block,
            element_bytes=1 if self.serving.fp8_kv else None,
            state_bytes=self.serving.state_bytes,
            prefix_caching=self.serving.prefix_caching,
        )

    def _why(self, kv: KvPlan, memory: MemorySplit) -> str:
        length, held = self.length, kv.concurrency(memory.kv, self.length)
        if length > self.model.max_model_len:
            return f"the model was made for {self.model.max_model_len} tokens, and {length} are asked for"
        if self.serving.kv_bytes and memory.free < 0:
            return (
                f"kv-cache-memory-bytes ({_gib(memory.kv)} GiB), weights ({_gib(memory.weights)} GiB) and "
                f"overhead ({_gib(memory.overhead)} GiB) are more than the GPU's {_gib(memory.total)} GiB"
            )
        if memory.kv == 0:
            return (
                f"weights ({_gib(memory.weights)} GiB) and overhead ({_gib(memory.overhead)} GiB) are more than "
                f"vLLM's share of the GPU's {_gib(memory.total)} GiB"
            )
        if not kv.fits(memory.kv, length):
            return (
                f"a request of {length} tokens needs {_gib(kv.request_bytes(length))} GiB for keys and values, "
                f"and {_gib(memory.kv)} GiB are left"
            )
        if held < self.users:
            return f"{held:.1f} requests of {length} tokens are held at once, and {self.users} are asked for"
        return f"{_gib(memory.kv)} GiB for keys and values hold {held:.1f} requests of {length} tokens"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def _levers(asked: _Question, found: Fit) -> Iterator[Lever]:
    """The changes that help, each alone, best first: those that cost least quality and speed."""
    model, gpu, serving = asked.model, asked.gpu, asked.serving
    if asked.length > model.max_model_len:
        yield Lever("max-model-len", f"set max_model_len to {model.max_model_len} or less", model.max_model_len)
        return
    if serving.kv_bytes:
        text = "take kv-cache-memory-bytes out of extra_args, so that vLLM measures what is left"
        yield from _if_it_helps("kv-cache-memory-bytes", text, asked.with_(kv_bytes=None))
    if model.vision and not serving.text_only:
        text = "if no pictures are read, set extra_args language-model-only: true"
        yield from _if_it_helps("language-model-only", text, asked.with_(text_only=True))
    shorter = _shorter(found, asked.users)
    if FEWEST_TOKENS <= shorter < asked.length:
        yield Lever("max-model-len", f"set max_model_len to {shorter} or less", shorter)
    if not model.quantization:
        yield from _fewer_bits(asked)
    keys = any(isinstance(layer, Attention | Latent) for layer in model.layers)
    if keys and not serving.fp8_kv and gpu.capability >= FP8_CAPABILITY:
        text = "keep keys and values in 8 bits: extra_args kv-cache-dtype: fp8"
        yield from _if_it_helps("kv-cache-dtype", text, asked.with_(fp8_kv=True))
    if serving.max_num_seqs > FEW_SEQS:
        text = f"answer fewer at once: extra_args max-num-seqs: {FEW_SEQS}"
        yield from _if_it_helps("max-num-seqs", text, asked.with_(max_num_seqs=FEW_SEQS))
    yield from _more_gpus(asked)
    if not serving.eager:
        text = "give up CUDA graphs, which slows answers: extra_args enforce-eager: true"
        yield from _if_it_helps("enforce-eager", text, asked.with_(eager=True))


def _if_it_helps(name: str, text: str, changed: _Question) -> Iterator[Lever]:
    fit = changed.measured()
    if fit.fits:
        yield Lever(name, text, fit.max_model_len)


def _shorter(found: Fit, users: int) -> int:
    """The longest context that so many requests may have at once, rounded down."""
    if found.kv is None:
        return 0
    longest = found.max_model_len // STEP * STEP
    while longest >= FEWEST_TOKENS and found.kv.concurrency(found.memory.kv, longest) < users:
        longest -= STEP
    return longest


def _fewer_bits(asked: _Question) -> Iterator[Lever]:
    """A checkpoint of 8 or 4 bits in place of one of 16; embeddings and some layers stay as they are."""
    for bits, share, kind in ((8, 0.55, "FP8"), (4, 0.35, "w4a16, AWQ")):
        if bits == 8 and asked.gpu.capability < FP8_CAPABILITY:
            continue
        light = replace(asked.model, weights_bytes=int(asked.model.weights_bytes * share))
        fit = replace(asked, model=light).measured()
        if fit.fits:
            text = f"take a checkpoint of {bits} bits ({kind}), if the model has one"
            yield Lever("quantization", text, fit.max_model_len)
            return


def _more_gpus(asked: _Question) -> Iterator[Lever]:
    """The next number of such GPUs that is enough."""
    for more in (number for number in (2, 4, 8) if number > asked.gpus):
        larger = replace(asked.with_(tensor_parallel=None, pipeline_parallel=None), gpus=more)
        if not larger.refusal() and (fit := larger.measured()).fits:
            ranks, stages = larger.sizes
            option = f"tensor-parallel-size: {ranks}" if ranks > 1 else f"pipeline-parallel-size: {stages}"
            yield Lever("gpus", f"use {more} such GPUs: extra_args {option}", fit.max_model_len)
            return
