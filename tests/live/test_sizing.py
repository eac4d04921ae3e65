"""The forecast of keys and values against real vLLM: its engine with random weights, and its own rule for a start.

One process in the image of vLLM starts a small model of each architecture. What this does not prove: what weights,
activations and CUDA graphs take on a GPU, which catalog/sizing/memory.py estimates.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest

from catalog.images import VLLM_CPU
from catalog.models import SMOLLM2
from catalog.sizing import KvOptions, Latent, ModelShape, Serving, plan
from catalog.sizing.config_defaults import text_defaults
from catalog.sizing.layers import MLA_TYPES
from catalog.sizing.uncertain import COMPARED
from catalog.vllm import CPU_KV_GIB
from tests.live.conftest import HERE, Shared
from tests.live.harness import pace
from tests.sizing_combinations import COMBINATIONS, Combination

pytestmark = [pytest.mark.beside, pytest.mark.vllm]

PROJECT = HERE.parents[1]
MIB = 1 << 20
SECONDS = 1800
"""A bound for a machine that does much else, which goes first; it takes about two minutes alone."""


def _config(architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    """A small config.json of one architecture: sizes that cost little, and none of the default ones."""
    base: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 512,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "dtype": "bfloat16",
    }
    return {**base, **more}


@dataclass(frozen=True)
class Case:
    """A model that is really started."""

    name: str
    config: dict[str, Any]
    length: int
    block: int | None = None
    mib: int = 64
    batched: int = 2048
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> ModelShape:
        return ModelShape.from_config(self.config, 0)

    def forecast(self, **changed: Any) -> KvOptions:
        state = 4 if self.options.get("mamba_ssm_cache_dtype") == "float32" else None
        given: dict[str, Any] = {"device": "cpu", "batched_tokens": self.batched, "block": self.block}
        prefixes = self.options.get("enable_prefix_caching", True)
        return KvOptions(**{**given, "state_bytes": state, "prefix_caching": prefixes, **changed})


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "norm_topk_prob": True}
GEMMA = {"num_hidden_layers": 12, "sliding_window": 512, "hidden_activation": "gelu_pytorch_tanh"}
GDN = {
    **EXPERTS,
    "num_hidden_layers": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "shared_expert_intermediate_size": 128,
}
MLA = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "q_lora_rank": None,
    "num_key_value_heads": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 4,
    "head_dim": None,
}
F32 = {"mamba_ssm_cache_dtype": "float32"}
"""What the CPU's kernels take, so that the state has one size on every processor."""

SMALL = json.loads((PROJECT / "catalog" / "models.json").read_text())["models"][SMOLLM2]["config"]

CASES = [
    # As the stack `local` has it; scripts/check shows the same two figures.
    Case("smollm2", {**SMALL, "dtype": "bfloat16"}, 8192, mib=1024 * CPU_KV_GIB),
    Case("llama", _config("LlamaForCausalLM", "llama"), 1000),
    Case("llama-block-32", _config("LlamaForCausalLM", "llama"), 40000, block=32, mib=200),
    Case("qwen2", _config("Qwen2ForCausalLM", "qwen2", num_key_value_heads=4), 32768, mib=128),
    Case("qwen3", _config("Qwen3ForCausalLM", "qwen3", head_dim=128), 8192),
    Case("qwen3-moe", _config("Qwen3MoeForCausalLM", "qwen3_moe", **EXPERTS), 20000, mib=100),
    Case("mistral", _config("MistralForCausalLM", "mistral", sliding_window=None), 16384),
    Case("mistral-window", _config("MistralForCausalLM", "mistral", sliding_window=4096), 32768, mib=90),
    Case("gemma2", _config("Gemma2ForCausalLM", "gemma2", **GEMMA, query_pre_attn_scalar=64), 8192, mib=200),
    Case("gemma3", _config("Gemma3ForCausalLM", "gemma3_text", **GEMMA), 16384, mib=300),
    Case(
        "gemma3-27-layers",
        _config("Gemma3ForCausalLM", "gemma3_text", **{**GEMMA, "num_hidden_layers": 27}),
        12345,
        block=64,
        mib=300,
        batched=4096,
    ),
    Case(
        "gpt-oss",
        _config(
            "GptOssForCausalLM", "gpt_oss", num_hidden_layers=6, num_local_experts=4, num_experts_per_tok=2,
            sliding_window=128, attention_bias=True,
        ),
        30000,
        mib=128,
    ),
    Case("deepseek-mla", _config("DeepseekV2ForCausalLM", "deepseek_v2", **MLA), 16384, block=16, mib=150),
    Case("qwen3-next", _config("Qwen3NextForCausalLM", "qwen3_next", **GDN), 16384, mib=200, options=F32),
    Case(
        "qwen3-next-without-prefixes",
        _config("Qwen3NextForCausalLM", "qwen3_next", **GDN),
        5000,
        mib=200,
        options={**F32, "enable_prefix_caching": False},
    ),
    Case(
        "granite-4-hybrid",
        _config(
            "GraniteMoeHybridForCausalLM", "granitemoehybrid", num_hidden_layers=8, num_local_experts=0,
            num_experts_per_tok=0, shared_intermediate_size=256, head_dim=None,
            layer_types=["mamba", "mamba", "mamba", "attention"] * 2, mamba_n_heads=16, mamba_d_head=16,
            mamba_d_state=64, mamba_d_conv=4, mamba_expand=2, mamba_n_groups=1, mamba_chunk_size=256,
            position_embedding_type="nope",
        ),
        8192,
        mib=128,
        options=F32,
    ),
    Case(
        "llama-4-chunked",
        _config(
            "Llama4ForCausalLM", "llama4_text", num_hidden_layers=8, attention_chunk_size=8192,
            num_local_experts=2, num_experts_per_tok=1, intermediate_size_mlp=256, interleave_moe_layer_step=1,
        ),
        65536,
        mib=300,
    ),
]  # fmt: skip

MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
SHARED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "n_shared_experts": 1}

KINDS = [
    # One of each kind that catalog/sizing/uncertain.py calls compared, beyond those above.
    Case("phi3", _config("Phi3ForCausalLM", "phi3", sliding_window=None, pad_token_id=0, head_dim=None), 8192),
    Case(
        "phi3-window",
        _config("Phi3ForCausalLM", "phi3", sliding_window=2047, pad_token_id=0, head_dim=None),
        8192,
    ),
    Case("granite", _config("GraniteForCausalLM", "granite"), 8192),
    Case("gemma", _config("GemmaForCausalLM", "gemma"), 8192),
    Case(
        "cohere2",
        _config(
            "Cohere2ForCausalLM", "cohere2", num_hidden_layers=8, sliding_window=512, logit_scale=0.25,
            layer_norm_eps=1e-5,
        ),
        8192,
    ),
    Case("exaone4", _config("Exaone4ForCausalLM", "exaone4", num_hidden_layers=8, sliding_window=512), 8192),
    Case("seed-oss", _config("SeedOssForCausalLM", "seed_oss"), 8192),
    Case("smollm3", _config("SmolLM3ForCausalLM", "smollm3", pad_token_id=0), 8192),
    Case("mixtral", _config("MixtralForCausalLM", "mixtral", sliding_window=None, **MOE), 8192),
    Case(
        "qwen2-moe",
        _config(
            "Qwen2MoeForCausalLM", "qwen2_moe", head_dim=None, shared_expert_intermediate_size=128,
            decoder_sparse_step=1, **EXPERTS,
        ),
        8192,
    ),
    Case("olmoe", _config("OlmoeForCausalLM", "olmoe", head_dim=None, num_experts=4, num_experts_per_tok=2), 8192),
    Case("glm4", _config("Glm4ForCausalLM", "glm4", pad_token_id=0), 8192),
    Case(
        "glm4-moe",
        _config("Glm4MoeForCausalLM", "glm4_moe", first_k_dense_replace=1, n_group=1, topk_group=1, **SHARED),
        8192,
    ),
    Case("ernie4.5", _config("Ernie4_5ForCausalLM", "ernie4_5", pad_token_id=0), 8192),
    Case(
        "ernie4.5-moe",
        _config(
            "Ernie4_5_MoeForCausalLM", "ernie4_5_moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=128,
            moe_num_shared_experts=1, pad_token_id=0, moe_layer_start_index=1, moe_layer_end_index=3,
            moe_layer_interval=1,
        ),
        8192,
    ),
    Case(
        "hunyuan",
        _config(
            "HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", pad_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        8192,
    ),
    Case(
        "nemotron-h",
        _config(
            "NemotronHForCausalLM", "nemotron_h", num_hidden_layers=8, hybrid_override_pattern="M-M*M-M*",
            mamba_num_heads=8, mamba_head_dim=32, ssm_state_size=64, n_groups=1, conv_kernel=4, chunk_size=128,
            expand=2,
        ),
        8192,
        options=F32,
    ),
    Case(
        "minimax-m2",
        _config(
            "MiniMaxM2ForCausalLM", "minimax_m2", rotary_dim=32, use_qk_norm=True, scoring_func="sigmoid",
            use_routing_bias=True, **MOE,
        ),
        8192,
    ),
    Case(
        "gemma3n",
        _config(
            "Gemma3nForCausalLM", "gemma3n_text", num_hidden_layers=10, num_kv_shared_layers=2, sliding_window=512,
            intermediate_size=[256] * 10, vocab_size_per_layer_input=512, hidden_size_per_layer_input=32,
            laurel_rank=8, activation_sparsity_pattern=[0.0] * 10, altup_num_inputs=2,
        ),
        8192,
    ),
    Case(
        "gemma4",
        _config(
            "Gemma4ForCausalLM", "gemma4_text", num_hidden_layers=12, sliding_window=512, global_head_dim=128,
            num_kv_shared_layers=0, hidden_size_per_layer_input=0,
        ),
        8192,
        mib=96,
    ),
    Case(
        "deepseek-v3",
        _config("DeepseekV3ForCausalLM", "deepseek_v3", **{**MLA, **SHARED}),
        8192,
    ),
]  # fmt: skip

RULES = [
    {"bytes": size * MIB, "length": length, "stages": stages, "batched_tokens": batched, "device": device}
    for size, length in ((16, 4096), (64, 50000), (900, 131072), (24000, 131072))
    for stages in (1, 2)
    for batched, device in ((2048, "cpu"), (8192, "gpu"))
]
"""Asked of each started engine's own function: memory in bytes per GPU, tokens, pipeline stages."""


def _small(asked: Combination, ranks: int) -> dict[str, Any]:
    """A model with the keys and values of a real one, as one tensor-parallel rank has them, and hardly weights."""
    row = json.loads((PROJECT / "catalog" / "models.json").read_text())["models"][asked.model]["config"]
    text = {**text_defaults(row["model_type"]), **row.get("text_config", row)}
    heads = text["num_attention_heads"]
    config = {
        **text,
        "architectures": [TEXT_ONLY.get(row["architectures"][0], row["architectures"][0])],
        "head_dim": text.get("head_dim") or text["hidden_size"] // heads,
        "num_key_value_heads": max(1, text["num_key_value_heads"] // ranks),
        **{key: text[key] // ranks for key in ("linear_num_key_heads", "linear_num_value_heads") if key in text},
        **dict.fromkeys(("hidden_size", "intermediate_size", "moe_intermediate_size"), 64),
        **dict.fromkeys(("num_experts", "num_local_experts"), 4),
        **{"num_experts_per_tok": 1, "vocab_size": 128, "intermediate_size_mlp": 64, "dtype": "bfloat16"},
        **{"shared_expert_intermediate_size": 64, "query_pre_attn_scalar": 64, "attention_bias": False},
    }
    config["num_attention_heads"] = config["num_key_value_heads"]
    if config["model_type"].startswith("qwen2"):  # takes the size of a head from that of all
        config["hidden_size"] = config["head_dim"] * config["num_attention_heads"]
    config.pop("quantization_config", None)
    if "kv_lora_rank" in config:
        # The second version with dense layers has the same cache as the third with experts.
        config |= {**MLA, "model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"]}
        config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "first_k_dense_replace": 99}
    return config


TEXT_ONLY = {
    "Gemma3ForConditionalGeneration": "Gemma3ForCausalLM",
    "Llama4ForConditionalGeneration": "Llama4ForCausalLM",
}


def _serving(asked: Combination) -> Serving:
    """Blocks that the CPU's kernels take, for the forecast and the engine alike; on a GPU they have 16 tokens."""
    latent = any(isinstance(layer, Latent) for layer in asked.shape.layers)
    return Serving(block=16 if latent else 32, state_bytes=4)


def _questions() -> list[dict[str, Any]]:
    cases = [
        {
            "name": case.name,
            "config": case.config,
            "bytes": case.mib * MIB,
            "options": {
                "max_model_len": case.length,
                "max_num_batched_tokens": case.batched,
                **({"block_size": case.block} if case.block else {}),
                **case.options,
            },
            "rules": [{**rule, "layers": case.config["num_hidden_layers"]} for rule in RULES if case in CASES],
        }
        for case in CASES + KINDS
    ]
    return cases + list(_models().values())


def _models() -> dict[str, dict[str, Any]]:
    """One engine for all combinations with the same keys and values, each of which is a rule of it."""
    questions: dict[str, dict[str, Any]] = {}
    for asked in COMBINATIONS:
        fit, block = asked.fit(_serving(asked)), _serving(asked).block
        config = _small(asked, fit.tensor_parallel)
        states = {"mamba_ssm_cache_dtype": "float32"} if asked.shape.hybrid else {}
        options = {"max_model_len": 64, "max_num_batched_tokens": 2048, "block_size": block, **states}
        name = json.dumps(config, sort_keys=True)
        question = {"name": name, "config": config, "bytes": 512 * MIB, "options": options, "rules": []}
        questions.setdefault(name, question)["rules"].append(
            {
                "name": str(asked),
                "bytes": fit.memory.kv,
                "length": asked.length,
                "stages": fit.pipeline_parallel,
                "device": "gpu",
                "batched_tokens": asked.kind.batched_tokens,
                "layers": config["num_hidden_layers"],
            }
        )
    return questions


@pytest.fixture(scope="session")
def engines(_shared: Shared) -> dict[str, Any]:
    """What the engine says of each question, by name. One container for all of them."""
    _shared.release()
    image = next((tag for tag in (VLLM_CPU.made, VLLM_CPU.official) if tag and _present(tag)), None)
    if image is None:
        reason = "the image of vLLM for CPUs is not on this machine"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    name = f"seatable-vllm-sizing-{os.getpid()}"
    run = ["docker", "run", "--rm", "-i", "--name", name, "--network", "none", "--shm-size", "256m",
           "--cpu-shares", "2",
           "-v", f"{HERE}/sizing_engine.py:/sizing_engine.py:ro", "--entrypoint", "python3", image,
           "/sizing_engine.py"]  # fmt: skip
    try:
        done = subprocess.run(
            run,
            input=json.dumps(_questions()),
            capture_output=True,
            text=True,
            timeout=pace.of(SECONDS),
            check=False,
        )
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    answers = {answer["name"]: answer for answer in map(json.loads, lines)}
    assert answers, done.stderr[-3000:]
    return answers


def _present(image: str) -> bool:
    return not subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode


def test_latent_attention_is_where_vllms_own_rule_has_it(engines: dict[str, Any]) -> None:
    drafts = {name for name in engines["latent types"]["types"] if name.endswith("_mtp")} | {"k3_dspark"}
    assert len(drafts) > 3, "the rule was read"
    # Of mistral4 the rule for models that go through Transformers says the same.
    assert set(engines["latent types"]["types"]) - drafts == MLA_TYPES - {"mistral4"}


def test_every_kind_that_is_called_compared_is_compared() -> None:
    text = {(case.config.get("text_config") or case.config)["model_type"] for case in CASES + KINDS}
    assert text == COMPARED
    assert [case.name for case in CASES + KINDS if case.shape.doubts] == []


@pytest.mark.parametrize("case", CASES + KINDS, ids=lambda case: case.name)
def test_the_forecast_is_what_the_engine_says_of_its_cache(case: Case, engines: dict[str, Any]) -> None:
    said = {key: value for key, value in engines[case.name].items() if key not in ("name", "rules")}
    forecast = plan(case.shape, case.forecast())
    size = case.mib * MIB
    assert said == {
        "block": forecast.block,
        "blocks": forecast.blocks(size),
        "tokens": forecast.tokens(size, case.length),
        "concurrency": forecast.concurrency(size, case.length),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_engine_starts_where_the_forecast_says_so_and_nowhere_else(
    case: Case, engines: dict[str, Any]
) -> None:
    answered = engines[case.name].get("rules", [])
    assert len(answered) == len(RULES), engines[case.name]
    for rule, answer in zip(RULES, answered, strict=True):
        # The block is that of the engine that was started; on a GPU it would be another one.
        forecast = plan(
            case.shape,
            case.forecast(batched_tokens=rule["batched_tokens"], pipeline_parallel=rule["stages"], **_like(rule)),
        )
        size, length = int(str(rule["bytes"])), int(str(rule["length"]))
        assert answer["starts"] == forecast.fits(size, length), (rule, answer)
        if answer["starts"]:
            assert answer["blocks"] == forecast.blocks(size), rule
            assert answer["tokens"] == forecast.tokens(size, length), rule
        elif "the estimated maximum model length is" in answer["says"]:
            longest = forecast.longest(size, length)
            assert f"the estimated maximum model length is {longest}." in answer["says"], rule


def _like(rule: dict[str, Any]) -> dict[str, Any]:
    """The batches in flight of a GPU, with the blocks of the CPU that really answers."""
    return {"in_flight": rule["batched_tokens"] * (rule["stages"] + (rule["device"] == "gpu"))}


@pytest.mark.parametrize("asked", COMBINATIONS, ids=str)
def test_the_engines_own_rule_lets_a_model_start_where_the_forecast_says_it_fits(
    asked: Combination, engines: dict[str, Any]
) -> None:
    fit = asked.fit(_serving(asked))
    engine = engines[json.dumps(_small(asked, fit.tensor_parallel), sort_keys=True)]
    assert "rules" in engine, engine
    answer = next(rule for rule in engine["rules"] if rule["name"] == str(asked))
    assert answer["starts"] == fit.fits == asked.fits, (answer, fit.why)
    if answer["starts"] and fit.kv is not None:
        assert answer["blocks"] == fit.kv.blocks(fit.memory.kv)
        assert answer["concurrency"] == fit.concurrency
