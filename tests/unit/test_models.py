"""Unit tier: the catalogue of models, what vLLM is told of each family, and options that vLLM does not know.

Does not prove that a parser understands what a model writes: only a tool call to the served model shows that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog import vllm
from catalog.images import VLLM_VERSION
from catalog.models import KNOWN_MODELS, SMOLLM2, TEMPLATES, Family, families, family_of, weights_in_index
from catalog.vllm import TOOL_PARSERS
from catalog.vllm_options import architectures, nearest_option, options, reasoning_parsers
from settings import SettingsError, parse

DATA = Path(__file__).parent / "data"
PRESETS: dict[str, list[str]] = yaml.safe_load((DATA / "presets.yaml").read_text())


def configured(**changes: Any) -> dict[str, Any]:
    given = {"name": "o/m", "context_tokens": 4096, "tool_parser": None, "extra_args": {}, "engine_key": "k" * 64}
    text = vllm.configuration(**{**given, "device": "gpu", **changes})
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def arguments(family: Family) -> list[str]:
    """What vLLM gets on a GPU for this family, beyond what it gets for a model of none."""
    plain, own = configured(), configured(tool_parser=family.tool_parser, preset=family.preset())
    assert plain.items() <= own.items(), "a preset changes what is the program's own"
    return [
        f"--{name}" if value is True else f"--{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in own.items()
        if name not in plain
    ]


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_family_is_told_to_vllm_exactly_so(family: Family) -> None:
    assert arguments(family) == PRESETS[family.name]


def test_every_expected_preset_is_of_a_family() -> None:
    assert set(PRESETS) == {family.name for family in families()}


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_every_name_of_a_family_is_one_that_the_pinned_vllm_has(family: Family) -> None:
    assert set(family.architectures) <= architectures()
    assert family.tool_parser is None or family.tool_parser in TOOL_PARSERS
    assert family.reasoning_parser is None or family.reasoning_parser in reasoning_parsers()
    assert set(family.preset()) <= options().keys()
    version = [int(part) for part in family.min_vllm.split(".")]
    assert version <= [int(part) for part in VLLM_VERSION.split(".")]


def test_what_the_program_itself_sets_are_options_of_the_pinned_vllm() -> None:
    assert set(configured(tool_parser="hermes", device="cpu")) <= options().keys()


@pytest.mark.parametrize(
    ("name", "architecture", "family"),
    [
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "Qwen3MoeForCausalLM", "qwen3-coder"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen3MoeForCausalLM", "qwen3-2507"),
        ("RedHatAI/Qwen3-32B-FP8-dynamic", "Qwen3ForCausalLM", "qwen3"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "Qwen2ForCausalLM", "qwen2.5-coder"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "LlamaForCausalLM", "r1-distill"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "LlamaForCausalLM", "hermes"),
        ("meta-llama/Llama-3.2-3B-Instruct", "LlamaForCausalLM", "llama3.2"),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "LlamaForCausalLM", "llama3"),
        ("deepseek-ai/DeepSeek-V3-0324", "DeepseekV3ForCausalLM", "deepseek-v3"),
        ("moonshotai/Kimi-K2-Instruct", "DeepseekV3ForCausalLM", "kimi-k2"),
        ("zai-org/GLM-4.7", "Glm4MoeForCausalLM", "glm4.7"),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "Mistral3ForConditionalGeneration", "mistral-own"),
        ("RedHatAI/Mistral-Small-3.2-24B-Instruct-2506-FP8", "Mistral3ForConditionalGeneration", "mistral"),
        ("somebody/llama-of-mine", "LlamaForCausalLM", None),
        ("somebody/else", "SomeNewForCausalLM", None),
    ],
)
def test_a_model_is_of_the_family_that_its_id_and_architecture_say(
    name: str, architecture: str, family: str | None
) -> None:
    found = family_of(name, architecture)
    assert (found.name if found else None) == family


def test_models_that_think_are_told_not_to_where_they_listen() -> None:
    silent = {"qwen3", "qwen3.5", "glm4.5", "glm4.7", "glm5", "nemotron3"}
    for family in families():
        if family.name in silent:
            assert family.options["default-chat-template-kwargs"] == {"enable_thinking": False}
        elif family.reasoning_parser == "deepseek_r1":
            assert "always thinks" in family.note


def test_templates_are_used_where_the_image_has_them_and_tools_are_on() -> None:
    llama = KNOWN_MODELS["meta-llama/Llama-3.1-8B-Instruct"].family.preset()
    on = configured(tool_parser="llama3_json", preset=llama)
    assert on["chat-template"] == f"{TEMPLATES}/tool_chat_template_llama3.1_json.jinja"
    assert "chat-template" not in configured(tool_parser=None, preset=llama)
    assert "chat-template" not in configured(tool_parser="llama3_json", preset=llama, device="cpu")


def test_what_a_stack_says_wins_over_the_preset() -> None:
    thinking = {"default-chat-template-kwargs": {"enable_thinking": True}}
    preset = KNOWN_MODELS["Qwen/Qwen3-8B"].family.preset()
    assert configured(preset=preset, extra_args=thinking)["default-chat-template-kwargs"] == {
        "enable_thinking": True
    }


def test_the_settings_of_a_known_model_have_its_preset_and_those_of_others_none() -> None:
    assert parse({"model": {"name": "Qwen/Qwen3-8B"}}).model.preset["reasoning-parser"] == "qwen3"
    assert parse({"model": {"name": "o/m"}}).model.preset == {}


def test_known_models_have_the_sizes_that_their_users_ask_for() -> None:
    assert "o/m" not in KNOWN_MODELS
    for name, figures in {
        SMOLLM2: (0.25, 8192, "hermes", False),
        "RedHatAI/gemma-3-12b-it-quantized.w4a16": (8.0, 131072, "pythonic", True),
        "Qwen/Qwen3-8B": (15.26, 40960, "hermes", False),
    }.items():
        found = KNOWN_MODELS[name]
        assert (round(found.weights_gib, 2), found.max_model_len, found.tool_parser, found.vision) == figures
    for name, known in KNOWN_MODELS.items():
        assert known.shape.architecture in architectures(), name
        assert known.weights_gib > 0.2, name


def test_an_index_says_how_large_all_weights_are() -> None:
    assert weights_in_index({"metadata": {"total_size": 16381470720}, "weight_map": {}}) == 16381470720
    assert weights_in_index({"weight_map": {}}) is None


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("max-num-seq", "max-num-seqs"),
        ("kv-cache-dtyp", "kv-cache-dtype"),
        ("tensor-paralel-size", "tensor-parallel-size"),
    ],
)
def test_an_option_that_vllm_does_not_know_is_refused_with_the_nearest(written: str, nearest: str) -> None:
    assert nearest_option(written) == nearest
    with pytest.raises(SettingsError) as refused:
        parse({"model": {"extra_args": {written: 1}}})
    assert f"seatable-vllm:model.extra_args.{written}: vLLM {VLLM_VERSION} has no such option" in str(
        refused.value
    )
    assert f"did you mean {nearest}?" in str(refused.value)


@pytest.mark.parametrize("gone", ["swap-space", "guided-decoding-backend", "rope-scaling", "use-v2-block-manager"])
def test_options_of_old_versions_are_refused(gone: str) -> None:
    with pytest.raises(SettingsError, match="has no such option"):
        parse({"model": {"extra_args": {gone: 4}}})
