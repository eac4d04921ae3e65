"""Unit tier: the forecast of memory, against figures that real engines have logged, and against its own rules.

Does not prove that the forecast is what vLLM does today, which tests/live/test_sizing.py asks it. Nor that the
overhead is what a GPU really needs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from catalog.gpus import UnknownGpuError, parse_gpu
from catalog.models import KNOWN_MODELS, SMOLLM2
from catalog.sizing import (
    GIB,
    Attention,
    Experts,
    Gpu,
    KvOptions,
    Latent,
    ModelShape,
    Serving,
    ShapeError,
    State,
    fits,
    parallel,
    plan,
)
from catalog.sizing.kv import stage_borders
from catalog.vllm import CPU_KV_GIB
from checks.cache import Cache, cache_of, told
from tests.sizing_combinations import COMBINATIONS, Combination

KIB = 1 << 10
L4 = parse_gpu("L4 24")[0]
H100 = parse_gpu("H100 80")[0]


def config(model_type: str = "llama", **more: Any) -> dict[str, Any]:
    """A config.json with what each has to have."""
    base = {"architectures": ["SomeForCausalLM"], "model_type": model_type, "hidden_size": 4096,
            "vocab_size": 32000,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14336, "max_position_embeddings": 131072}  # fmt: skip
    return {**base, **more}


def shape(model_type: str = "llama", weights: int = 0, **more: Any) -> ModelShape:
    return ModelShape.from_config(config(model_type, **more), weights)


GDN = {"linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_key_head_dim": 128,
       "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "options", "length", "tokens", "concurrency"),
    [
        # Engines on a CPU with 1 GiB for keys and values: what their logs said (vllm.md 1.3).
        (shape(num_hidden_layers=2, num_key_value_heads=4, head_dim=32), {}, 1024, 1_048_576, 1024.0),
        (
            shape("gemma3_text", num_hidden_layers=12, num_key_value_heads=2, head_dim=64, sliding_window=512),
            {},
            16384,
            576_041,
            35.16,
        ),
        (
            shape("deepseek_v2", num_hidden_layers=4, kv_lora_rank=512, qk_rope_head_dim=64),
            {},
            16384,
            233_008,
            14.22,
        ),
    ],
    ids=["llama", "gemma-3", "deepseek-v2"],
)
def test_the_forecast_equals_what_engines_have_logged(
    model: ModelShape, options: dict[str, Any], length: int, tokens: int, concurrency: float
) -> None:
    forecast = plan(model, KvOptions("cpu", **options))
    assert forecast.tokens(GIB, length) == tokens
    assert round(forecast.concurrency(GIB, length), 2) == concurrency


def test_a_coder_of_30_billion_needs_what_vllm_said_on_a_gpu() -> None:
    # vLLM issue 34076: "24.0 GiB KV cache is needed"; of 3.18 GiB (rounded) it estimated 34736 tokens.
    coder = KNOWN_MODELS["Qwen/Qwen3-Coder-30B-A3B-Instruct"].shape
    forecast = plan(coder, KvOptions())
    assert forecast.request_bytes(262144) == 24 * GIB
    assert abs(forecast.longest(int(3.18 * GIB), 262144) - 34736) <= 64


def test_a_hybrid_model_gets_the_block_that_its_log_on_a_gpu_had() -> None:
    # Qwen3.8-27B on an A6000 with 8-bit keys: block 1568, padding 0.13 percent; the sizes of heads are guessed.
    model = shape("qwen3_5_text", num_hidden_layers=64, num_attention_heads=24, num_key_value_heads=4,
                  head_dim=256, mamba_ssm_dtype="float32", **GDN)  # fmt: skip
    assert plan(model, KvOptions(element_bytes=1)).block == 1568


def test_the_states_of_mamba_layers_are_those_of_vllms_own_rule_for_both_families() -> None:
    # mamba2_state_shape of vLLM 0.32: (inner + 2 * groups * size) channels by (kernel - 1), heads * head * size.
    nemotron = shape("nemotron_h", num_hidden_layers=4, hybrid_override_pattern="M-M*", mamba_num_heads=4,
                     mamba_head_dim=8, ssm_state_size=16, n_groups=2, conv_kernel=4)  # fmt: skip
    state = State(32, 3, 512, 4, groups=2, group_channels=32, checkpoints=1)
    assert nemotron.layers == (state, None, state, Attention(8, 128, 128))
    half = shape("nemotron_h", num_hidden_layers=1, hybrid_override_pattern="M", mamba_num_heads=4, n_groups=2,
                 mamba_head_dim=8, ssm_state_size=16, conv_kernel=4, mamba_ssm_cache_dtype="bfloat16")  # fmt: skip
    assert half.layers == (replace(state, state_bytes=2),)
    granite = shape("granitemoehybrid", num_hidden_layers=1, layer_types=["mamba"], mamba_n_heads=48,
                    mamba_d_head=64, mamba_d_state=128, hidden_size=1536)  # fmt: skip
    assert granite.layers == (State(3072, 3, 393_216, None, groups=1, group_channels=256, checkpoints=1),)


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 56),
        ("meta-llama/Llama-3.1-8B-Instruct", 128),
        ("Qwen/Qwen3-8B", 144),
        ("Qwen/Qwen3-14B", 160),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", 160),
        ("Qwen/Qwen2.5-14B-Instruct", 192),
        ("microsoft/phi-4", 200),
        ("Qwen/Qwen2.5-32B-Instruct", 256),
        ("Qwen/Qwen3-32B", 256),
        ("meta-llama/Llama-3.3-70B-Instruct", 320),
        ("Qwen/Qwen2.5-72B-Instruct", 320),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 96),
        ("deepseek-ai/DeepSeek-V3.1", 68.625),
    ],
)
def test_a_token_takes_what_is_known_of_the_model(name: str, kib: float) -> None:
    forecast = plan(KNOWN_MODELS[name].shape, KvOptions())
    assert forecast.request_bytes(forecast.block) / forecast.block == kib * KIB


@pytest.mark.parametrize(("name", "kib"), [("openai/gpt-oss-20b", 24), ("openai/gpt-oss-120b", 36)])
def test_windows_cost_no_more_when_a_context_grows(name: str, kib: int) -> None:
    forecast = plan(KNOWN_MODELS[name].shape, KvOptions())
    assert forecast.request_bytes(131072) - forecast.request_bytes(65536) == 65536 * kib * KIB


QWEN_235B = ModelShape.from_config(
    config("qwen3_moe", hidden_size=4096, num_hidden_layers=94, num_attention_heads=64, num_key_value_heads=4,
           head_dim=128, intermediate_size=12288, moe_intermediate_size=1536, num_experts=128,
           num_experts_per_tok=8, vocab_size=151936, quantization_config={"quant_method": "fp8"}),
    int(4 * 54.92 * GIB),
)  # fmt: skip
LOGGED_H100 = replace(H100, memory_mib=int(79.18 * 1024))


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        # vLLM issue 23278: 65.97 GiB with Marlin. llm-d-benchmark: 13.47 with Triton, which pads less.
        (KNOWN_MODELS["openai/gpt-oss-120b"].shape, (65.8, 66.2)),
        (KNOWN_MODELS["openai/gpt-oss-20b"].shape, (13.47, 13.8)),
        (KNOWN_MODELS["Qwen/Qwen3-8B"].shape, (15.2, 15.3)),
    ],
    ids=["gpt-oss-120b", "gpt-oss-20b", "without-experts"],
)
def test_weights_in_memory_are_as_large_as_logs_have_them(model: ModelShape, weights: tuple[float, float]) -> None:
    taken = fits(model, H100, 1, 8192).memory.weights / GIB
    assert weights[0] <= taken <= weights[1]


def test_experts_of_four_bits_are_padded_on_each_rank() -> None:
    # 2880 / 8 is 360, and 384 are kept; whole they are 2944.
    model = KNOWN_MODELS["openai/gpt-oss-120b"].shape
    files = model.weights_bytes
    experts = 36 * 128 * 3 * 2880 * 2880 * 17 // 32
    whole, eighth = (
        fits(model, H100, ranks, 8192, serving=Serving(tensor_parallel=ranks)).memory.weights for ranks in (1, 8)
    )
    assert whole - files == pytest.approx(experts * (3072 * 2944 / 2880**2 - 1), rel=1e-3)
    assert eighth - files / 8 == pytest.approx(experts / 8 * (3072 * 384 / (2880 * 360) - 1), rel=1e-3)


@pytest.mark.parametrize(
    ("model", "gpus", "left"),
    [
        # What vLLM had left for keys and values on H100 with 0.9 of it, 1024 sequences and 8192 tokens at once:
        # llm-d-benchmark, empirical-vllm-memory-results.md; Qwen3-235B-A22B-FP8: vLLM issue 21348.
        (KNOWN_MODELS["openai/gpt-oss-20b"].shape, 1, 50.28),
        (KNOWN_MODELS["meta-llama/Llama-3.1-8B-Instruct"].shape, 1, 51.38),
        (KNOWN_MODELS["Qwen/Qwen3-32B"].shape, 1, 4.45),
        (QWEN_235B, 4, 8.11),
    ],
    ids=["gpt-oss-20b", "llama-3.1-8b", "qwen3-32b", "qwen3-235b-a22b"],
)
def test_no_more_is_left_for_keys_and_values_than_engines_had(model: ModelShape, gpus: int, left: float) -> None:
    serving = Serving(utilization=0.9, max_num_seqs=1024, tensor_parallel=gpus)
    forecast = fits(model, LOGGED_H100, gpus, 8192, serving=serving).memory.kv / GIB
    assert left - 3.5 < forecast <= left


def test_a_token_passes_its_experts_with_workspaces_of_their_own() -> None:
    # Mixtral's experts go by `intermediate_size`; two of eight, and their workspaces are in every forecast.
    mixtral = {"num_local_experts": 8, "num_experts_per_tok": 2, "hidden_size": 4096, "intermediate_size": 14336}
    model = shape("mixtral", **mixtral)
    assert model.experts == Experts(8, 2, 14336)
    with_them, without = (
        fits(each, H100, 1, 8192).memory.overhead for each in (model, replace(model, experts=None))
    )
    assert with_them - without == 8192 * 2 * (4096 + 14336 + 2 * 14336) * 2


def test_tensor_parallelism_divides_heads_down_to_one_and_never_a_latent() -> None:
    model, latent = shape(num_key_value_heads=4), KNOWN_MODELS["deepseek-ai/DeepSeek-V3.1"].shape
    sizes = [plan(model, KvOptions(tensor_parallel=ranks)).request_bytes(16) for ranks in (1, 2, 4, 8)]
    assert sizes == [sizes[0], sizes[0] // 2, sizes[0] // 4, sizes[0] // 4]
    assert len({plan(latent, KvOptions(tensor_parallel=ranks)).request_bytes(64) for ranks in (1, 8)}) == 1


def test_pipeline_stages_share_layers_as_vllm_does() -> None:
    assert [end - first for first, end in stage_borders(30, 4)] == [7, 8, 8, 7]
    assert [end - first for first, end in stage_borders(62, 4)] == [15, 16, 16, 15]
    assert plan(shape(num_hidden_layers=30), KvOptions(pipeline_parallel=4)).block_bytes == (
        7 * 65536, 8 * 65536, 8 * 65536, 7 * 65536,
    )  # fmt: skip


def test_eight_bits_halve_keys_and_values() -> None:
    model = shape()
    whole, half = (plan(model, KvOptions(element_bytes=each)).request_bytes(4096) for each in (None, 1))
    assert whole == 2 * half


def test_one_block_is_held_back() -> None:
    forecast = plan(shape(), KvOptions())
    need = forecast.request_bytes(4096)
    assert not forecast.fits(need, 4096)
    assert forecast.fits(need + forecast.block_bytes[0], 4096)
    assert forecast.longest(need, 131072) == 4096 - forecast.block


@pytest.mark.parametrize(("share", "used", "free"), [(0.92, 20740.5, 1803.5), (0.8, 18035.2, 4508.8)])
def test_vllm_fills_its_share_of_a_gpu_and_leaves_the_rest_free(share: float, used: float, free: float) -> None:
    # An L4 has 22544 MiB for programs, as nvidia-smi says.
    memory = fits(KNOWN_MODELS["Qwen/Qwen3-8B"].shape, L4, 1, 8192, serving=Serving(utilization=share)).memory
    assert min(memory.weights, memory.kv, memory.overhead) > 0
    assert (memory.weights + memory.kv + memory.overhead) / 2**20 == pytest.approx(used, abs=0.1)
    assert memory.free / 2**20 == pytest.approx(free, abs=0.1)


def test_weights_that_are_larger_than_a_gpu_leave_nothing_for_keys_and_values() -> None:
    fit = fits(KNOWN_MODELS["Qwen/Qwen3-32B"].shape, L4, 1, 8192)
    assert (fit.memory.kv, fit.max_model_len, fit.fits) == (0, 0, False)
    assert "weights (61.0 GiB) and overhead (2.1 GiB) are more than vLLM's share of the GPU's 22.0 GiB" in fit.why


def test_the_machine_of_seatables_guide_serves_its_model_with_the_guides_context() -> None:
    fit = fits(KNOWN_MODELS["RedHatAI/gemma-3-12b-it-quantized.w4a16"].shape, L4, 1, 65536)
    assert fit.fits, fit.why
    assert fit.levers == ()


def test_levers_come_in_their_order_and_each_helps_alone() -> None:
    model = KNOWN_MODELS["Qwen/Qwen3-8B"].shape
    fit = fits(model, L4, 1, 40960)
    assert not fit.fits
    assert "GiB for keys and values" in fit.why
    assert [lever.name for lever in fit.levers] == ["max-model-len", "quantization", "kv-cache-dtype", "gpus"]
    shorter = next(lever for lever in fit.levers if lever.name == "max-model-len").max_model_len
    assert fits(model, L4, 1, shorter).fits
    assert fits(model, L4, 1, 40960, serving=Serving(fp8_kv=True)).fits
    assert fits(model, L4, 2, 40960).fits


def test_more_users_than_are_held_at_once_are_too_many() -> None:
    model = KNOWN_MODELS["Qwen/Qwen3-14B-AWQ"].shape
    one = fits(model, H100, 1, 32768)
    assert one.fits
    enough = one.users_at(32768)
    assert fits(model, H100, 1, 32768, users=enough).fits
    more = fits(model, H100, 1, 32768, users=enough + 1)
    assert not more.fits
    assert f"{enough + 1} are asked for" in more.why
    shorter = next(lever.max_model_len for lever in more.levers if lever.name == "max-model-len")
    assert fits(model, H100, 1, shorter, users=enough + 1).fits


@pytest.mark.parametrize(
    ("given", "users", "enough"), [(GIB, 2, True), (GIB - 1, 2, False), (GIB, 3, False), (GIB - 1, 1, True)]
)
def test_as_many_users_as_are_held_at_once_are_not_too_many(given: int, users: int, enough: bool) -> None:
    # 128 KiB a token: 4096 tokens are half a GiB.
    serving = Serving.from_options({"kv-cache-memory-bytes": given})
    assert fits(shape(), H100, 1, 4096, users=users, serving=serving).fits is enough


def test_without_nvlink_layers_are_spread_and_with_it_tensors() -> None:
    model = shape()
    assert parallel(model, L4, 4) == (1, 4)
    assert parallel(model, H100, 4) == (4, 1)
    assert parallel(replace(model, attention_heads=30), H100, 4) == (1, 4)


@pytest.mark.parametrize(
    ("model", "gpu", "gpus", "serving", "why"),
    [
        (shape(num_attention_heads=30), H100, 4, Serving(tensor_parallel=4), "does not divide the model's 30"),
        (shape(), L4, 1, Serving(tensor_parallel=2), "the machine's GPUs are 1"),
        (shape(num_hidden_layers=2), L4, 4, Serving(pipeline_parallel=4), "more than the model's 2 layers"),
        (shape(), Gpu("V100", 16000, 7.0), 1, Serving(), "vLLM needs 7.5"),
        (
            shape(quantization_config={"quant_method": "mxfp4"}),
            parse_gpu("T4")[0],
            1,
            Serving(),
            "mxfp4 weights need 8.0",
        ),
    ],
)
def test_what_a_gpu_cannot_run_at_all_is_said_in_one_sentence(
    model: ModelShape, gpu: Gpu, gpus: int, serving: Serving, why: str
) -> None:
    fit = fits(model, gpu, gpus, 4096, serving=serving)
    assert not fit.fits
    assert why in fit.why
    assert fit.kv is None


def test_keys_that_a_publisher_left_out_are_those_of_the_class() -> None:
    # Gemma 3 4B names neither heads nor their size; 8, 4 and 256 are the class's (2560 / 8 would be 320).
    model = ModelShape.from_config(
        {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "vision_config": {},
         "text_config": {"hidden_size": 2560, "num_hidden_layers": 34, "model_type": "gemma3_text",
                         "sliding_window": 1024}}, 0,
    )  # fmt: skip
    assert model.vision
    # 5 layers that see all and 29 with a window: groups of 5 make 1 + 6.
    assert plan(model, KvOptions()).block_bytes == (5 * 16 * 4 * 2 * 256 * 2,)
    assert len(plan(model, KvOptions()).groups) == 1 + 6


KIMI_LINEAR: dict[str, Any] = {
    "hidden_size": 2304, "num_hidden_layers": 27, "num_attention_heads": 32, "num_key_value_heads": 32,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_experts": 256, "num_experts_per_token": 8,
    "moe_intermediate_size": 1024,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32,
        "short_conv_kernel_size": 4,
        "kda_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26],
    },
}  # fmt: skip
LATENT: dict[str, Any] = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_key_value_heads": 32}


@pytest.mark.parametrize("model_type", ["axk1", "glm4_moe_lite", "mistral4", "pangu_ultra_moe", "kimi_k2"])
def test_latent_attention_is_one_vector_per_token_whatever_the_heads(model_type: str) -> None:
    assert shape(model_type, **LATENT).layers == (Latent(576),) * 32


def test_a_model_with_such_keys_and_code_of_another_kind_is_not_latent() -> None:
    # MiniCPM3 has a latent rank, and vLLM keeps whole heads of it: its own list decides.
    assert isinstance(shape("minicpm3", **LATENT).layers[0], Attention)


def test_delta_attention_beside_latent_keeps_a_state_of_32_bits() -> None:
    model = shape("kimi_linear", **KIMI_LINEAR)
    latent = [at for at, layer in enumerate(model.layers) if layer == Latent(576)]
    assert latent == [3, 7, 11, 15, 19, 23, 26]
    assert model.layers[0] == State(3 * 32 * 128, 3, 32 * 128 * 128, 4, checkpoints=1)
    assert plan(model, KvOptions()).request_bytes(131072) < plan(
        shape("deepseek_v3", **KIMI_LINEAR), KvOptions()
    ).request_bytes(131072)


@pytest.mark.parametrize(
    ("kernel", "latent"), [({}, [4, 9]), ({"short_conv_kernel_size": 4}, [4, 9, 10, 11])], ids=["v2.5", "v3"]
)
def test_groups_of_linear_layers_end_in_a_latent_one(kernel: dict[str, int], latent: list[int]) -> None:
    model = shape("bailing_hybrid", num_hidden_layers=12, layer_group_size=5, **LATENT, **kernel)
    assert [at for at, layer in enumerate(model.layers) if isinstance(layer, Latent)] == latent


def test_a_count_of_pairs_of_layers_is_twice_as_many_caches() -> None:
    values = config("longcat_flash", num_layers=28, **LATENT)
    del values["num_hidden_layers"]
    assert len(ModelShape.from_config(values, 0).layers) == 56


PARAMS = {"dim": 4096, "n_layers": 8, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "hidden_dim": 14336,
          "vocab_size": 131072}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "architecture", "layers"),
    [
        ({}, "MistralForCausalLM", (Attention(8, 128, 128),) * 8),
        (
            {"sliding_window": [None, 4096]},
            "MistralForCausalLM",
            (Attention(8, 128, 128), Attention(8, 128, 128, "sliding", 4096)) * 4,
        ),
        (
            {"moe": {"num_experts": 8, "num_experts_per_tok": 2}},
            "MixtralForCausalLM",
            (Attention(8, 128, 128),) * 8,
        ),
        (
            {"kv_lora_rank": 256, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64},
            "MistralLarge3ForCausalLM",
            (Latent(320),) * 8,
        ),
        (
            {"vision_encoder": {"hidden_size": 1024}},
            "PixtralForConditionalGeneration",
            (Attention(8, 128, 128),) * 8,
        ),
    ],
    ids=["dense", "windows", "experts", "latent", "eyes"],
)
def test_a_mistral_models_own_file_is_read_as_vllm_reads_it(
    more: dict[str, Any], architecture: str, layers: tuple[object, ...]
) -> None:
    model = ModelShape.from_config({**PARAMS, **more}, 0)
    assert (model.architecture, model.layers) == (architecture, layers)
    assert (model.max_model_len, model.vision) == (128_000, "vision_encoder" in more)
    assert (model.experts is not None) == ("moe" in more)


@pytest.mark.parametrize("model_type", ["hy_v4", "glm5_next_text", "glm_moe_dsa", "deepseek_v32", "dots3_note"])
def test_sparse_attention_is_refused_though_its_key_is_left_out(model_type: str) -> None:
    with pytest.raises(ShapeError, match="sparse attention"):
        shape(model_type, **LATENT)


def test_states_on_a_cpu_have_four_bytes() -> None:
    model = shape("qwen3_next", num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=2, head_dim=256,
                  **GDN)  # fmt: skip
    own, whole, half = (plan(model, KvOptions("cpu", state_bytes=each)).block for each in (None, 4, 2))
    assert own == whole > half
    assert plan(model, KvOptions()).block == plan(model, KvOptions(state_bytes=2)).block


def test_every_known_model_has_been_compared_with_the_engine() -> None:
    assert {name: known.shape.doubts for name, known in KNOWN_MODELS.items() if known.shape.doubts} == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speculative-config": {"method": "mtp"}}, "speculative-config"),
        ({"cpu-offload-gb": 4}, "cpu-offload-gb"),
        ({"kv-cache-dtype": "nvfp4"}, "nvfp4 is counted as 16 bits"),
        ({"dtype": "float32"}, "dtype"),
        ({"hf-overrides": {"sliding_window": 7}}, "hf-overrides"),
    ],
)
def test_options_that_are_not_counted_make_a_forecast_uncertain(options: dict[str, Any], said: str) -> None:
    fit = fits(KNOWN_MODELS["Qwen/Qwen3-8B"].shape, L4, 1, 8192, serving=Serving.from_options(options))
    assert said in fit.doubts[0]
    assert fit.why.endswith(f"; uncertain: {fit.doubts[0]}")


def test_options_that_are_counted_or_change_nothing_leave_it_certain() -> None:
    options = {
        "kv-cache-dtype": "fp8",
        "dtype": "half",
        "max-num-seqs": 8,
        "cpu-offload-gb": 0,
        "enable-lora": False,
    }
    assert Serving.from_options(options).doubts == ()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, "names no architectures"),
        (config(num_hidden_layers="many"), "num_hidden_layers is 'many'"),
        (config(num_hidden_layers=0), "num_hidden_layers is 0"),
        (config(layer_types=["full_attention"]), "1 layer_types for 32 layers"),
        (config(layer_types=["quantum_attention"] * 32), "'quantum_attention'"),
        (config(num_key_value_heads=None, num_attention_heads=-3), "num_attention_heads is -3"),
        (config("deepseek_v32", index_topk=2048), "sparse attention"),
    ],
)
def test_a_broken_config_is_named_by_its_key(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(ShapeError, match=r"config\.json") as raised:
        ModelShape.from_config(json.loads(json.dumps(broken)), 1)
    assert said in str(raised.value)


def test_states_are_as_large_as_their_model_says() -> None:
    model = shape(
        "qwen3_next", num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=2, head_dim=256, **GDN
    )
    states = [layer for layer in model.layers if isinstance(layer, State)]
    assert len(states) == 6
    assert states[0].channels == 2 * 16 * 128 + 48 * 128
    assert states[0].state == 48 * 128 * 128


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("L4 24", "L4", 1), ("4x L40S", "L40S", 4), ("nvidia RTX 4090", "RTX 4090", 1), ("A100 40", "A100 40", 1),
     ("2 x H100 80 GB", "H100 80", 2), ("RTX 9090 32 12.0", "RTX 9090", 1)],
)  # fmt: skip
def test_gpus_are_read_as_people_write_them(text: str, name: str, count: int) -> None:
    found, number = parse_gpu(text)
    assert (found.name, number) == (name, count)


def test_a_gpu_that_is_not_in_the_table_can_be_described() -> None:
    with pytest.raises(UnknownGpuError, match="RTX 9090 32GB"):
        parse_gpu("Voodoo 3")
    with pytest.raises(UnknownGpuError, match="1x or more"):
        parse_gpu("0x L4")
    assert parse_gpu("Voodoo 32 8.9")[0].capability == 8.9


@pytest.mark.parametrize("asked", COMBINATIONS, ids=str)
def test_a_model_fits_its_gpus_or_the_first_lever_is_named(asked: Combination) -> None:
    fit = asked.fit()
    assert (fit.fits, fit.levers[0].name if fit.levers else None) == (asked.fits, asked.lever), fit.why


def test_the_combinations_are_many_and_of_both_kinds() -> None:
    assert len(COMBINATIONS) >= 30
    assert 10 < sum(asked.fits for asked in COMBINATIONS) < len(COMBINATIONS) - 10


METRICS = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",gpu_memory_utilization="0.92",\
kv_cache_max_concurrency="5.6875",kv_cache_size_tokens="46592",num_gpu_blocks="364"} 1.0
"""


def test_the_truth_is_read_from_the_engines_metrics_and_shown_beside_the_forecast() -> None:
    cache = cache_of(METRICS)
    assert cache == Cache(364, 128, 46592, 5.6875)
    forecast = plan(KNOWN_MODELS[SMOLLM2].shape, KvOptions("cpu")).tokens(CPU_KV_GIB * GIB, 8192)
    assert told(cache, 8192, forecast).endswith("5 requests of 8,192 at once; forecast 46,592 tokens")
    assert " 1 request of" in told(Cache(364, 128, 8200, 1.0009), 8192, None)
    assert "which is not the same" in told(cache, 8192, 46000)
    assert "forecast" not in told(cache, 8192, None)


@pytest.mark.parametrize(
    "metrics", ["", "vllm:cache_config_info 1.0", 'vllm:cache_config_info{block_size="x"} 1.0']
)
def test_metrics_that_do_not_say_it_are_no_failure(metrics: str) -> None:
    assert cache_of(metrics) is None


def test_a_stacks_options_decide_as_they_do_for_vllm() -> None:
    model = KNOWN_MODELS["Qwen/Qwen3-8B"].shape
    # One GPU is used however many there are, unless the stack says so.
    assert not fits(model, L4, 4, 40960, serving=Serving.from_options({})).fits
    for options in (
        {"tensor-parallel-size": 2},
        {"pipeline-parallel-size": 4},
        {"kv-cache-dtype": "fp8"},
    ):
        assert fits(model, L4, 4, 40960, serving=Serving.from_options(options)).fits, options
    less = fits(model, L4, 1, 16384, serving=Serving.from_options({"gpu-memory-utilization": 0.8}))
    assert less.memory.kv < fits(model, L4, 1, 16384).memory.kv
    eager = fits(model, L4, 1, 16384, serving=Serving.from_options({"enforce-eager": True, "max-num-seqs": 8}))
    assert eager.memory.overhead < fits(model, L4, 1, 16384).memory.overhead
    # What is no number is vLLM's to refuse, and none of this forecast's business.
    assert Serving.from_options({"max-num-seqs": "many", "gpu-memory-utilization": 7}) == Serving.from_options({})


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (8192, 8192), ("8192", 8192), (" 8192 ", 8192), ("8K", 8192), ("8k", 8000), ("25.6k", 25600),
        ("2G", 2 * GIB), ("1.5g", 1_500_000_000), ("1.5G", None), ("0", None), (0, None), (-1, None),
        (True, None), ("many", None), ("8 K", None), (8.5, None), (None, None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_vllm_reads_them(written: object, number: int | None) -> None:
    read = Serving.from_options({"max-num-batched-tokens": written, "kv-cache-memory-bytes": written})
    assert (read.batched_tokens, read.kv_bytes) == (number, number)


def test_numbers_written_as_text_count_as_numbers() -> None:
    numbers = {"gpu-memory-utilization": 0.8, "max-num-seqs": 32, "tensor-parallel-size": 2, "block-size": 32}
    assert Serving.from_options({name: str(value) for name, value in numbers.items()}) == Serving.from_options(
        numbers
    )


def test_memory_that_a_stack_gives_to_keys_and_values_is_taken_as_it_is() -> None:
    model = KNOWN_MODELS["Qwen/Qwen3-8B"].shape
    free = fits(model, L4, 1, 16384)
    for share in (0.5, 0.92):
        options = {"kv-cache-memory-bytes": "3G", "gpu-memory-utilization": share}
        given = fits(model, L4, 1, 16384, serving=Serving.from_options(options))
        assert given.fits, given.why
        assert given.memory.kv == 3 * GIB
        assert given.max_model_len == plan(model, KvOptions()).longest(3 * GIB, 40960)
    assert free.memory.kv > 3 * GIB


@pytest.mark.parametrize(
    ("given", "why"),
    [("1G", "1.0 GiB are left"), ("20G", "kv-cache-memory-bytes (20.0 GiB), weights (15.3 GiB)")],
    ids=["too-little", "more-than-the-gpu-has"],
)
def test_memory_for_keys_and_values_that_cannot_do_is_named_with_its_setting(given: str, why: str) -> None:
    model = KNOWN_MODELS["Qwen/Qwen3-8B"].shape
    fit = fits(model, L4, 1, 16384, serving=Serving.from_options({"kv-cache-memory-bytes": given}))
    assert not fit.fits
    assert why in fit.why
    assert fit.levers[0].name == "kv-cache-memory-bytes"
