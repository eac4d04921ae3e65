"""Unit tier: options of vLLM in `model.extra_args`: names, types, choices, ranges, checked before anything starts.

Expectations: the help of vLLM 0.32's own parser, how it reads its configuration file (a command line), and the
inputs of the issue. It does NOT prove that catalog/vllm_options.json is what that parser has (live tier,
test_vllm_options), nor that vLLM can do with a model what a value of the right form asks for.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from catalog.models import families
from catalog.vllm import TOOL_PARSERS
from catalog.vllm_options import SUCCESSORS, long_name, options
from catalog.vllm_values import problems
from settings import OPTIONS_WE_OWN, SettingsError, parse

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def taken(**extra_args: object) -> dict[str, Any]:
    """What the rest of the program reads of these options, underscores in place of dashes."""
    return dict(parse({"model": {"extra_args": dashed(extra_args)}}).model.extra_args)


def dashed(extra_args: dict[str, object]) -> dict[str, object]:
    return {name.replace("_", "-"): value for name, value in extra_args.items()}


def refused(extra_args: dict[str, object]) -> list[str]:
    """The lines of the refusal, without the part that all have."""
    with pytest.raises(SettingsError) as error:
        parse({"model": {"extra_args": extra_args}})
    prefix = "seatable-vllm:model.extra_args."
    lines = str(error.value).splitlines()[1:]
    assert all(line.startswith(prefix) for line in lines), lines
    return [line.removeprefix(prefix) for line in lines]


@pytest.mark.parametrize(
    ("option", "value", "shown", "remedy"),
    [
        # Those that the issue names.
        ("enable-prefix-caching", "True", "'True'", "write true, without quotes"),
        ("enable-prefix-caching", "False", "'False'", "write false, without quotes"),
        ("gpu-memory-utilization", 5, "5", "write more than 0, and 1 or less"),
        ("gpu-memory-utilization", 95, "95", "write more than 0, and 1 or less"),
        ("max-num-seqs", 0, "0", "write 1 or more"),
        ("max-num-seqs", "many", "'many'", "write an integer, without quotes"),
        ("tensor-parallel-size", -1, "-1", "write 1 or more"),
        ("compilation-config", 3, "3", "write a map, such as {mode: VALUE}"),
        ("chat-template", "/nowhere", "'/nowhere'", "write a path below /models/OWNER/NAME"),
        ("reasoning-parser", "qwen33", "'qwen33'", "did you mean qwen3?"),
        ("distributed-executor-backend", "ray", "'ray'", "use mp or uni"),
        ("runner", "pooling", "'pooling'", "use auto or generate"),
        ("max-num-seqs", "8", "'8'", "write 8, without quotes"),
        ("gpu-memory-utilization", "0.9", "'0.9'", "write 0.9, without quotes"),
        # More of each kind.
        ("enforce-eager", "yes", "'yes'", "write true, without quotes"),
        ("language-model-only", "on", "'on'", "write true, without quotes"),
        ("enforce-eager", 1, "1", "write true or false, without quotes"),
        ("max-num-batched-tokens", True, "true", "write an integer, without quotes"),
        ("max-num-seqs", 8.0, "8.0", "write an integer, without quotes"),
        ("max-num-seqs", 2**64, str(2**64), "or less"),
        ("gpu-memory-utilization", 0, "0", "write more than 0"),
        ("gpu-memory-utilization", float("nan"), "nan", "write a number"),
        ("watermark", 1.0, "1.0", "less than 1.0"),
        ("kv-cache-memory-bytes", 0, "0", "write 1 or more"),
        ("kv-cache-memory-bytes", "4.5G", "'4.5G'", "write an integer"),
        ("api-server-count", 0, "0", "write 1 or more"),
        ("shutdown-timeout", 600, "600", "20 or less"),
        ("max-log-len", -1, "-1", "write 0 or more"),
        ("max-lora-rank", 9, "9", "use 1, 8, 16"),
        ("optimization-level", "3", "'3'", "write 3, without quotes"),
        ("dtype", "bf16", "'bf16'", "did you mean bfloat16?"),
        ("kv-cache-dtype", "FP8", "'FP8'", "fp8"),
        ("quantization", False, "false", "awq"),
        ("load-format", "tensorizer", "'tensorizer'", "use auto"),
        ("convert", "embed", "'embed'", "use auto or none"),
        ("code-revision", 1234567, "1234567", 'in quotes, such as "1234567"'),
        ("limit-mm-per-prompt", "4", "'4'", "write a map"),
        ("limit-mm-per-prompt", ["image"], "a list", "write a map"),
        ("hf-overrides", "x", "'x'", "write a map"),
        ("cudagraph-capture-sizes", "8", "'8'", "write a list"),
        ("ignore-patterns", [], "an empty list", "name at least one"),
        ("generation-config", "", "an empty text", "leave the option out"),
        ("chat-template", "chatml.jinja", "", "template_chatml.jinja"),
        ("chat-template", "/models/o/m/../../../etc/seatable-vllm/vllm/config.yaml", "", "write a path below"),
        ("generation-config", "/etc/seatable-vllm/vllm", "'/etc/seatable-vllm/vllm'", "write a path below"),
        ("tokenizer", "~/tokenizer", "'~/tokenizer'", "write a path below"),
        ("tokenizer", "./tokenizer", "'./tokenizer'", "write a path below"),
        ("tokenizer", "/etc/tokenizer", "'/etc/tokenizer'", "write a path below"),
        ("tokenizer", "/models/./o/m", "'/models/./o/m'", "write a path below"),
        ("tokenizer", "/models-of-others/o/m", "'/models-of-others/o/m'", "write a path below"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_with_option_value_and_remedy(
    option: str, value: object, shown: str, remedy: str
) -> None:
    (line,) = refused({option: value})
    assert line.startswith(f"{option}: ")
    assert shown in line
    assert remedy in line


@pytest.mark.parametrize(
    ("option", "value", "place", "remedy"),
    [
        ("speculative-config", {"num_speculative_tokens": 0}, "num_speculative_tokens: 0", "write more than 0"),
        ("speculative-config", {"methd": "ngram"}, "methd", "did you mean method?"),
        ("speculative-config", {"method": "custom_class"}, "method: 'custom_class'", "ngram"),
        ("speculative-config", {"model": "/etc/x"}, "model: '/etc/x'", "write a path below"),
        ("compilation-config", {"pass_config": {"fuse_act_quant": "true"}}, "pass_config.fuse_act_quant", "true"),
        ("structured-outputs-config", {"backend": "xgramar"}, "backend: 'xgramar'", "did you mean xgrammar?"),
        ("limit-mm-per-prompt", {"image": -1}, "image: -1", "write 0 or more"),
        ("limit-mm-per-prompt", {"image": "4"}, "image: '4'", "write 4, without quotes"),
        ("cudagraph-capture-sizes", [1, 0], "1: 0", "write 1 or more"),
        ("lora-modules", ["a=/etc/x"], "0: ", "write a path below"),
        ("default-mm-loras", {"image": "/etc/x"}, "image: '/etc/x'", "write a path below"),
    ],
)
def test_a_value_in_a_map_or_a_list_is_refused_by_its_place(
    option: str, value: object, place: str, remedy: str
) -> None:
    (line,) = refused({option: value})
    assert line.startswith(f"{option}.{place}")
    assert remedy in line


@pytest.mark.parametrize(
    ("option", "written", "read"),
    [
        ("max-num-seqs", 8, 8),
        ("gpu-memory-utilization", 1, 1),
        ("gpu-memory-utilization", 0.85, 0.85),
        ("max-num-batched-tokens", "8k", 8000),
        ("max-num-batched-tokens", "8K", 8192),
        ("kv-cache-memory-bytes", "25.6k", 25600),
        ("kv-cache-memory-bytes", "4G", 4 << 30),
        ("enable-prefix-caching", False, False),
        ("limit-mm-per-prompt", {"image": 5}, {"image": 5}),
        ("limit-mm-per-prompt", {"image": {"count": 5, "width": 512}}, {"image": {"count": 5, "width": 512}}),
        ("limit-mm-per-prompt", '{"image": 5}', {"image": 5}),
        ("speculative-config", {"method": "ngram", "num_speculative_tokens": 3, "model": None}, None),
        ("compilation-config", {"mode": 3, "custom_ops": ["-rms_norm"], "cudagraph_mode": "FULL"}, None),
        ("hf-overrides", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, None),
        ("attention-backend", "flash_attn", "flash_attn"),
        ("dtype", "half", "half"),
        ("optimization-level", 3, 3),
        ("max-logprobs", -1, -1),
        ("seed", -7, -7),
        ("lora-modules", "a=/models/o/lora", ["a=/models/o/lora"]),
        ("default-mm-loras", {"image": "/models/o/lora"}, None),
        ("chat-template", "{% if x %}\n{% endif %}", None),
        ("chat-template", "template_chatml.jinja", None),
        ("chat-template", f"/models/{NAME}/chat.jinja", None),
        ("chat-template", "/vllm-workspace/examples/tool_chat_template_hermes.jinja", None),
        ("tokenizer", "owner/other", "owner/other"),
        ("code-revision", "1234567", "1234567"),
        ("default-chat-template-kwargs", {"enable_thinking": False, "budget": "8"}, None),
        ("distributed-executor-backend", "mp", "mp"),
    ],
)  # fmt: skip
def test_a_value_that_vllm_takes_is_taken_in_the_form_that_the_forecast_counts(
    option: str, written: object, read: object
) -> None:
    assert taken(**{option: written}) == {option: written if read is None else read}


@pytest.mark.parametrize("value", ["--middleware=evil.Class", "-x", ["a", "--api-key=x"]])
@pytest.mark.parametrize("option", ["code-revision", "ignore-patterns", "served-model-name", "chat-template"])
def test_a_value_that_vllm_would_read_as_another_option_is_refused(option: str, value: object) -> None:
    assert refused({option: value})


@pytest.mark.parametrize(
    "option",
    ["headless", "nnodes", "node-rank", "master-addr", "allowed-origins", "grpc", "grpc-port",
     "data-parallel-size", "data-parallel-rank", "tool-server", "worker-cls", "logits-processors",
     "reasoning-parser-plugin", "tool-parser-plugin", "kv-transfer-config", "kv-events-config",
     "ec-transfer-config", "weight-transfer-config", "otlp-traces-endpoint", "log-config-file",
     "download-dir", "enable-prompt-embeds", "trust-request-chat-template", "disable-log-stats",
     "enable-scale-out", "tokens-only"],
)  # fmt: skip
def test_what_opens_a_port_runs_code_or_leaves_the_machine_is_not_free_to_set(option: str) -> None:
    assert option in options()
    for written in (option, option.replace("-", "_"), f"--{option}"):
        (line,) = refused({written: True})
        assert line.startswith(f"{written}: not free to set; ")


@pytest.mark.parametrize(
    ("option", "key"),
    [name.split(".") for name in sorted(OPTIONS_WE_OWN) if "." in name],
)
def test_nor_is_it_as_a_key_of_another_options_map(option: str, key: str) -> None:
    assert key in options()[option]["keys"]
    for value in ({key: "/models/x.py"}, f'{{"{key}": "/models/x.py"}}'):
        (line,) = refused({option: value})
        assert line.startswith(f"{option}.{key}: not free to set; ")


@pytest.mark.parametrize("name", sorted(OPTIONS_WE_OWN))
def test_every_option_that_is_not_free_exists(name: str) -> None:
    assert name.split(".", maxsplit=1)[0] in options()


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("tp", "write the option as tensor-parallel-size"),
        ("-tp", "write the option as tensor-parallel-size"),
        ("q", "write the option as quantization"),
        ("max_num_seqs", "write the option as max-num-seqs"),
        ("device-memory-utilization", "write the option as gpu-memory-utilization"),
        ("no-enable-prefix-caching", "write enable-prefix-caching: false"),
        ("no_enforce_eager", "write enforce-eager: false"),
        ("compilation-config.mode", "write it as a map, compilation-config: {mode: VALUE}"),
        ("compilation_config.pass_config.fuse_act_quant", "{pass_config: {fuse_act_quant: VALUE}}"),
    ],
)
def test_another_spelling_of_an_option_is_refused_with_the_one_that_counts(written: str, remedy: str) -> None:
    (line,) = refused({written: 1})
    assert line.startswith(f"{written}: ")
    assert remedy in line


def test_two_spellings_of_one_option_cannot_both_be_there() -> None:
    assert refused({"max_num_seqs": 8, "max-num-seqs": 9}) == ["max_num_seqs: write the option as max-num-seqs"]


@pytest.mark.parametrize(
    ("gone", "successor"),
    [
        ("enable-reasoning", "reasoning-parser"),
        ("guided-decoding-backend", "structured-outputs-config"),
        ("task", "runner"),
        ("rope-scaling", "hf-overrides"),
        ("swap-space", "gone"),
        ("num-scheduler-steps", "gone"),
        ("speculative-model", "speculative-config"),
        ("max-seq-len-to-capture", "max-cudagraph-capture-size"),
        ("disable_log_requests", "leave it out"),
    ],
)
def test_an_option_of_an_earlier_vllm_is_refused_with_its_successor(gone: str, successor: str) -> None:
    (line,) = refused({gone: 4})
    assert line.startswith(f"{gone}: vLLM 0.32.0 has no such option; ")
    assert successor in line.partition("; ")[2]
    assert "did you mean" not in line


@pytest.mark.parametrize("name", sorted(SUCCESSORS))
def test_every_successor_is_an_option_with_such_a_key_and_what_it_succeeds_is_none(name: str) -> None:
    assert name not in options()
    if found := re.match(r"use ([a-z-]+)(?:: \{([a-z_]+):)?", SUCCESSORS[name]):
        assert found[1] in options()
        assert found[2] is None or found[2] in options()[found[1]].get("keys", {found[2]})


def secret() -> str:
    """What a user might paste into the wrong place; put together here, so that no file holds such a text."""
    return "hf_" + "Zz9" * 8


@pytest.mark.parametrize(
    "option", ["dtype", "max-num-seqs", "enforce-eager", "compilation-config", "chat-template"]
)
@pytest.mark.parametrize("form", [str, lambda text: [text], lambda text: {"key": text}, lambda text: f"-{text}"])
def test_a_text_that_may_be_a_secret_is_not_shown(option: str, form: Any) -> None:
    assert secret() not in "\n".join(refused({option: form(secret())}))


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_what_the_program_sets_for_a_family_is_what_vllm_takes(family: Any) -> None:
    assert [line for option, value in family.preset().items() for line in problems(option, value)] == []


def test_the_tool_parsers_are_those_of_the_pinned_parser() -> None:
    assert set(options()["tool-call-parser"]["choices"]) == TOOL_PARSERS


def test_a_short_or_second_name_leads_to_an_option() -> None:
    assert long_name("tp") == "tensor-parallel-size"
    assert long_name("max-num-seqs") == "max-num-seqs"
    assert long_name("device-memory-utilization") in options()
