"""What the pinned vLLM knows by name: its options and what each takes, and model architectures.

vllm_options.json is made by catalog/vllm_parser.py from vLLM's own parser. `options` holds by long name what an
option takes, a `Spec`:

- `is`: the forms that it may have: switch (true or false), integer, number, text, list, map; without it, anything
- `choices`: all values that there are; `gt`, `ge`, `lt`, `le`: the range
- `suffix`: vLLM also takes text such as 8k (8,000) and 8K (8,192)
- `of`: the Spec of a list's items; `values`: of a map's values; `keys`: of a map's values by their keys, with
  no other keys
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Spec = Mapping[str, Any]

_FILE = Path(__file__).with_suffix(".json")

SUCCESSORS: Mapping[str, str] = {
    "calculate-kv-scales": "it is gone; leave it out (scales come with the model)",
    "chat-template-text-format": "use chat-template-content-format",
    "cuda-graph-sizes": "use cudagraph-capture-sizes",
    "device": "set seatable-vllm:machine.gpus",
    "disable-async-output-proc": "it is gone; leave it out",
    "disable-frontend-multiprocessing": "it is gone; leave it out",
    "disable-log-requests": "leave it out: requests are not logged unless enable-log-requests is true",
    "disable-mm-preprocessor-cache": "use mm-processor-cache-gb: 0",
    "enable-lora-bias": "it is gone; leave it out",
    "enable-microbatching": "use enable-dbo",
    "enable-multimodal-encoder-data-parallel": "use mm-encoder-tp-mode: data",
    "enable-prompt-adapter": "it is gone; leave it out",
    "enable-reasoning": "use reasoning-parser alone",
    "engine-use-ray": "it is gone; leave it out",
    "eplb-log-balancedness": "use eplb-config: {log_balancedness: true}",
    "eplb-step-interval": "use eplb-config: {step_interval: NUMBER}",
    "eplb-window-size": "use eplb-config: {window_size: NUMBER}",
    "full-cuda-graph": "use compilation-config: {cudagraph_mode: FULL}",
    "guided-decoding-backend": "use structured-outputs-config: {backend: NAME}",
    "guided-decoding-disable-additional-properties": (
        "use structured-outputs-config: {backend: guidance, disable_additional_properties: true}"
    ),
    "guided-decoding-disable-any-whitespace": "use structured-outputs-config: {disable_any_whitespace: true}",
    "guided-decoding-disable-fallback": "it is gone; leave it out",
    "long-lora-scaling-factors": "it is gone; leave it out",
    "lora-extra-vocab-size": "it is gone; leave it out",
    "max-context-len-to-capture": "use max-cudagraph-capture-size, which counts requests",
    "max-long-partial-prefills": "it is gone; leave it out",
    "max-num-partial-prefills": "it is gone; leave it out",
    "max-prompt-adapter-token": "it is gone; leave it out",
    "max-prompt-adapters": "it is gone; leave it out",
    "max-seq-len-to-capture": "use max-cudagraph-capture-size, which counts requests",
    "multi-step-stream-outputs": "it is gone; leave it out",
    "ngram-prompt-lookup-max": "use speculative-config: {prompt_lookup_max: NUMBER}",
    "ngram-prompt-lookup-min": "use speculative-config: {prompt_lookup_min: NUMBER}",
    "num-lookahead-slots": "it is gone; leave it out",
    "num-redundant-experts": "use eplb-config: {num_redundant_experts: NUMBER}",
    "num-scheduler-steps": "it is gone; leave it out",
    "num-speculative-tokens": "use speculative-config: {num_speculative_tokens: NUMBER}",
    "override-attention-dtype": "it is gone; leave it out",
    "override-neuron-config": "it is gone; leave it out",
    "preemption-mode": "it is gone; leave it out",
    "qlora-adapter-name-or-path": "it is gone; leave it out",
    "quantization-param-path": "use kv-cache-dtype alone; scales come with the model",
    "rope-scaling": "use hf-overrides: {rope_parameters: {...}}",
    "rope-theta": "use hf-overrides: {rope_parameters: {rope_theta: NUMBER}}",
    "scheduler-delay-factor": "it is gone; leave it out",
    "speculative-disable-by-batch-size": "it is gone; leave it out",
    "speculative-draft-tensor-parallel-size": "use speculative-config: {draft_tensor_parallel_size: NUMBER}",
    "speculative-max-model-len": "use speculative-config: {max_model_len: NUMBER}",
    "speculative-model": "use speculative-config: {model: NAME}",
    "swap-space": "it is gone; leave it out (kv-offloading-size keeps some keys and values in main memory)",
    "task": "use runner; for this endpoint leave it out",
    "tokenizer-pool-extra-config": "it is gone; leave it out",
    "tokenizer-pool-size": "it is gone; leave it out",
    "tokenizer-pool-type": "it is gone; leave it out",
    "use-v2-block-manager": "it is gone; leave it out",
    "worker-use-ray": "it is gone; leave it out: all GPUs are those of one machine",
}
"""Options of earlier versions of vLLM, and what to do in place of each."""


@functools.cache
def _data() -> Mapping[str, Any]:
    loaded: dict[str, Any] = json.loads(_FILE.read_text())
    return loaded


def options() -> Mapping[str, Spec]:
    """What each option of `vllm serve` takes, by its long name without dashes in front."""
    found: dict[str, Spec] = _data()["options"]
    return found


def reasoning_parsers() -> frozenset[str]:
    """The choices of `--reasoning-parser`."""
    return frozenset(options()["reasoning-parser"]["choices"])


def chat_templates() -> frozenset[str]:
    """The templates that vLLM finds by their file's name alone."""
    return frozenset(_data()["chat_templates"])


def architectures() -> frozenset[str]:
    """The architectures that a config.json may name."""
    return frozenset(_data()["architectures"])


def long_name(name: str) -> str:
    """The first long name of an option: of a short one (tp), of another spelling, or itself."""
    found: str = {**_data()["short"], **_data()["aliases"]}.get(name, name)
    return found


def nearest_option(name: str) -> str | None:
    """The option whose name is most like this one, or None where none is like it."""
    return next(iter(difflib.get_close_matches(name, sorted(options()), n=1)), None)
