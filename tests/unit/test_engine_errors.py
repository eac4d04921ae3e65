"""Unit tier: an engine that does not start for a reason that the catalogue of failures lacks says it itself.

The logs in data/engine_logs are those of a real vLLM 0.32.0 on a CPU that was started with one wrong thing each,
shortened to the lines that a rule could take for the cause. It does NOT prove that another version of vLLM writes
its errors in these forms, nor how long the gate waits (test_gate).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.failures import explain_engine

LOGS = Path(__file__).parent / "data" / "engine_logs"

ARGS = "seatable-vllm:model.extra_args"

OWN_WORDS = {
    "awq": ("Cannot find the config file for awq", f"{ARGS}.quantization"),
    "badconfig": (
        "It looks like the config file at '/models/bad/config/config.json' is not a valid JSON file.",
        "",
    ),
    "badlogproc": ("Failed to load 0th LogitsProcessor plugin no.such:Thing", ""),
    "block": ("No common block size for 7 (CPU_ATTN: [MultipleOf(32)]).", ""),
    "draft": (
        "--speculative-config: Invalid repository ID or local directory specified: '/models/none/none'.",
        f"{ARGS}.speculative-config",
    ),
    "genconfig": (
        "Invalid repository ID or local directory specified: '/models/none'.",
        f"{ARGS}.generation-config",
    ),
    "heads": ("num_heads (7) is not divisible by num_kv_heads (3)", ""),
    "logout": ("Error: --enable-log-outputs requires --enable-log-requests", f"{ARGS}.enable-log-outputs"),
    "lora": ("Loading lora a failed: No adapter found for /models/none", ""),
    "mode": ("argument --compilation-config/-cc: Input should be 0, 1, 2 or 3", f"{ARGS}.compilation-config"),
    "ngram": (
        "--speculative-config: num_speculative_tokens must be provided with speculative model unless the draft "
        "model config contains an n_predict parameter.",
        f"{ARGS}.speculative-config",
    ),
    "nvfp4": ("FP8 KV cache on CPU requires x86 with AVX-512 or AMX.", ""),
    "sharded": (
        "Could not find checkpoint files '/models/HuggingFaceTB/SmolLM2-135M-Instruct/"
        "model-rank-0-part-*.safetensors', only pre-sharded checkpoints are currently supported!",
        "",
    ),
    "template": (
        "The supplied chat template string (/nowhere) appears path-like, but doesn't exist! Tried: /nowhere and "
        "/nowhere (parameter=chat_template)",
        f"{ARGS}.chat-template",
    ),
    "tp": (
        "Not enough allowed NUMA nodes to bind threads of 3 local CPUWorkers. Allowed NUMA nodes are [0]. Please "
        "try to bind threads manually or decrease DP/TP/PP.",
        "",
    ),
}
"""By log: what the cause must say, and the setting that the remedy must name; '' where vLLM names none."""


def told(log: str) -> tuple[str, str]:
    """Cause and remedy, as they are shown."""
    found = explain_engine(log)
    assert found, "no cause"
    return found.failure.cause, found.failure.remedy


@pytest.mark.parametrize("name", sorted(OWN_WORDS))
def test_the_cause_is_the_error_of_the_process_that_failed_first(name: str) -> None:
    words, setting = OWN_WORDS[name]
    cause, remedy = told((LOGS / f"{name}.log").read_text())
    assert cause == f"vLLM: {words}"
    assert remedy == f"correct {setting}" if setting else "seatable-vllm:model.name" in remedy


def test_every_recorded_log_is_looked_at() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(OWN_WORDS)


def test_a_known_cause_stays_what_it_is() -> None:
    log = "ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (8)"
    assert told(log)[1] == "lower seatable-vllm:model.max_model_len to the number that the line names"


@pytest.mark.parametrize(
    "after", ["asyncio.exceptions.CancelledError: Task cancelled", "BrokenPipeError: Broken pipe"]
)
def test_what_other_processes_say_after_the_failure_is_not_the_cause(after: str) -> None:
    log = f"ValueError: the real thing\nRuntimeError: Engine core initialization failed.\n{after}\nOSError: closed"
    assert told(log)[0] == "vLLM: the real thing"


def test_a_log_in_which_only_followers_speak_keeps_the_general_cause() -> None:
    found = explain_engine("RuntimeError: Engine core initialization failed. See root cause above.")
    assert found
    assert found.failure.name == "engine-process"


@pytest.mark.parametrize("line", ["ERROR Error retrieving file list: Repo id must be", '  File "ValueError: x"'])
def test_a_line_that_ends_no_traceback_is_no_cause(line: str) -> None:
    assert explain_engine(line) is None


@pytest.mark.parametrize("option", ["--max-num-seqs", "--tensor-parallel-size/-tp"])
def test_a_refused_value_is_known_under_the_options_short_name_too(option: str) -> None:
    log = f"vllm serve: error: argument {option}: invalid int value: 'many'"
    assert told(log)[0] == "vLLM does not know an option, or its value"


def test_a_setting_of_its_own_is_named_in_place_of_the_option() -> None:
    assert "seatable-vllm:model.max_model_len" in told("ValueError: --max-model-len is odd")[1]


@pytest.mark.parametrize("secret", ["hf_abcdefghijkl", "sk-abcdefghijkl", "a1B2" * 16])
def test_a_key_in_the_engines_words_is_not_shown(secret: str) -> None:
    assert secret not in told(f"OSError: no access with {secret}")[0]


def test_a_commit_in_the_engines_words_is_shown() -> None:
    assert "0123456789abcdef" in told(f"OSError: no revision {'0123456789abcdef' * 2}01234567")[0]
