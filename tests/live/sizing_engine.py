"""Runs inside the image of vLLM: starts its engine for many small models, and asks the engine's own rules.

Reads a list of models on stdin, and prints one line of JSON for each, `RESULT ` in front. Each is a real engine
with random weights: what it says of its cache is what its log says. A rule is a question to the function that lays
out the cache, for memory that this machine does not have.
"""

# ruff: noqa: PLC0415 - vLLM is there only inside the image, and takes its time to import

import copy
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock


def main() -> None:
    """Answers every question on stdin. A model that does not start is an answer too."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm.model_executor.models import registry  # type: ignore[import-not-found]

    # It looks at each architecture in a process of its own, which imports everything again; here nothing
    # of what that protects (CUDA) is there.
    registry._run_in_subprocess = lambda look: look()
    print("RESULT", json.dumps({"name": "latent types", "types": _latent_types()}), flush=True)
    for question in json.load(sys.stdin):
        print("RESULT", json.dumps(_answer(question)), flush=True)


def _latent_types() -> list[str]:
    """The `model_type`s whose attention vLLM runs as MLA: those named in its rule that the rule is true of."""
    from transformers import PretrainedConfig  # type: ignore[import-not-found]
    from vllm.transformers_utils.model_arch_config_convertor import (  # type: ignore[import-not-found]
        ModelArchConfigConvertorBase,
    )

    rule = ModelArchConfigConvertorBase.is_deepseek_mla
    named = {name for names in rule.__code__.co_consts if isinstance(names, tuple) for name in names}

    def latent(name: str) -> bool:
        config = PretrainedConfig()
        config.model_type, config.kv_lora_rank = name, 512
        return bool(ModelArchConfigConvertorBase(config, config).is_deepseek_mla())

    return sorted(name for name in named if latent(name))


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM  # type: ignore[import-not-found]
    from vllm.distributed import cleanup_dist_env_and_memory  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(question["config"]))
        try:
            engine = LLM(
                model=folder,
                skip_tokenizer_init=True,
                load_format="dummy",
                enforce_eager=True,
                seed=0,
                kv_cache_memory_bytes=question["bytes"],
                **question["options"],
            )
            found = _cache(engine.llm_engine.vllm_config.cache_config)
            found["rules"] = [
                {"name": rule.get("name"), **_rule(engine, rule)} for rule in question.get("rules", [])
            ]
        except Exception as error:  # noqa: BLE001 - the test shows it
            found = {"error": f"{type(error).__name__}: {error}"}
        finally:
            engine = None
            cleanup_dist_env_and_memory()
    return {"name": question["name"], **found}


def _cache(cache: Any) -> dict[str, Any]:
    """The figures behind the log line `KV cache size` and the labels of `vllm:cache_config_info`."""
    return {
        "block": cache.block_size,
        "blocks": cache.num_gpu_blocks,
        "tokens": cache.kv_cache_size_tokens,
        "concurrency": cache.kv_cache_max_concurrency,
    }


def _rule(engine: Any, rule: dict[str, Any]) -> dict[str, Any]:
    """What this model's engine would do with so much memory on each GPU of some pipeline stages."""
    from vllm.distributed.utils import get_pp_indices  # type: ignore[import-not-found]
    from vllm.v1.core.kv_cache_utils import (  # type: ignore[import-not-found]
        generate_scheduler_kv_cache_config,
        get_kv_cache_capacity,
        get_kv_cache_configs,
    )

    # Tensors are no part of it, and copying the rest keeps one rule from changing the next one's question.
    config = copy.copy(engine.llm_engine.vllm_config)
    for part in ("model_config", "cache_config", "scheduler_config", "parallel_config"):
        setattr(config, part, copy.copy(getattr(config, part)))
    stages = rule["stages"]
    config.model_config.max_model_len = rule["length"]
    config.scheduler_config.max_num_batched_tokens = rule["batched_tokens"]
    config.parallel_config.pipeline_parallel_size = stages
    config.scheduler_config.async_scheduling = rule["device"] == "gpu"
    (specs,) = engine.llm_engine.model_executor.collective_rpc("get_kv_cache_spec")
    layers = rule["layers"]
    borders = [get_pp_indices(layers, at, stages) for at in range(stages)]
    parts = [{name: spec for name, spec in specs.items() if first <= _place(name) < end} for first, end in borders]
    # The runner decides how many batches are under way; GPUs have the second, which needs Triton.
    runner = mock.patch.object(type(config), "use_v2_model_runner", rule["device"] == "gpu")
    try:
        with runner:
            configs = get_kv_cache_configs(config, parts, [rule["bytes"]] * stages)
            tokens, concurrency = get_kv_cache_capacity(config, generate_scheduler_kv_cache_config(configs))
    except ValueError as error:
        return {"starts": False, "says": str(error)}
    return {"starts": True, "blocks": configs[0].num_blocks, "tokens": tokens, "concurrency": concurrency}


def _place(layer: str) -> int:
    return next(int(part) for part in layer.split(".") if part.isdigit())


if __name__ == "__main__":
    main()
