"""Unit tier: what the engine is started with, as pure text: its options file and its environment.

Expectations: vllm.md section 10 (baseline that was run), section 4 (security), DESIGN section 5. It does NOT
prove that vLLM reads the file so (live tier), nor that the container gets it (test_program, live tier).
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from catalog import images, vllm
from catalog.vllm import Device
from settings import OPTIONS_WE_OWN

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ENGINE_KEY = "".join(["engine", "Key", "0" * 55])


def options(**changes: Any) -> dict[str, Any]:
    """The options that vLLM would read."""
    read: dict[str, Any] = yaml.safe_load(text(**changes))
    return read


def text(**changes: Any) -> str:
    values: dict[str, Any] = {
        "name": MODEL,
        "context_tokens": 8192,
        "tool_parser": "hermes",
        "extra_args": {},
        "engine_key": ENGINE_KEY,
        "device": "cpu",
    }
    return vllm.configuration(**{**values, **changes})


def environment(device: Device) -> dict[str, str]:
    return dict(item.split("=", 1) for item in vllm.environment(device))


def test_the_model_is_served_under_its_id_on_the_hub_letter_for_letter() -> None:
    # SeaTable bills by this id (consumers.md S26, S27).
    assert options()["served-model-name"] == MODEL
    assert options()["model"] == f"{vllm.MODELS_DIR}/{MODEL}"


def test_the_context_is_the_one_that_the_clients_are_told() -> None:
    assert options(context_tokens=4096)["max-model-len"] == 4096


def test_the_only_key_is_the_engines_own_and_is_a_list_so_that_it_can_overlap_with_a_next_one() -> None:
    assert options()["api-key"] == [ENGINE_KEY]
    assert text().count(ENGINE_KEY) == 1


@pytest.mark.parametrize("parser", ["hermes", "llama3_json"])
def test_tools_are_switched_on_by_both_options_together(parser: str) -> None:
    read = options(tool_parser=parser)
    assert (read["enable-auto-tool-choice"], read["tool-call-parser"]) == (True, parser)


def test_without_a_parser_neither_option_for_tools_is_there() -> None:
    assert not {"enable-auto-tool-choice", "tool-call-parser"} & set(options(tool_parser=None))


def test_the_queue_and_the_batch_are_bounded() -> None:
    # The default of 1,024 sequences stops large GPUs at start (vllm.md 0.9).
    assert options()["max-num-seqs"] == 64
    assert 0 < options()["max-num-queued-reqs"] <= 1024


def test_docker_waits_longer_for_the_stop_than_the_engine_drains() -> None:
    # vllm.md section 5: stop grace >= shutdown-timeout + 30.
    assert options()["shutdown-timeout"] > 0
    assert options()["shutdown-timeout"] + 30 <= vllm.STOP_GRACE_SECONDS


def test_the_engines_documentation_pages_are_off() -> None:
    assert options()["disable-fastapi-docs"] is True


def test_health_checks_do_not_fill_the_log() -> None:
    assert {"/health", "/metrics"} <= set(options()["disable-access-log-for-endpoints"].split(","))


def test_prompts_are_not_logged() -> None:
    assert "enable-log-requests" not in options()


def test_an_idle_stream_is_kept_alive() -> None:
    assert 0 < options()["sse-keep-alive-interval"] <= 30


@pytest.mark.parametrize(("device", "eager"), [("cpu", True), ("gpu", None)])
def test_only_the_cpu_runs_without_compiled_kernels(device: Device, eager: bool | None) -> None:
    assert options(device=device).get("enforce-eager") is eager


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gpu-memory-utilization", 0.85),
        ("limit-mm-per-prompt", {"image": 5}),
        ("enable-prefix-caching", False),
        ("dtype", "half"),
        ("chat-template", "{% if x %}\n: #'\"{% endif %}"),
        ("quantization", "no"),
        ("code-revision", "1234567"),
        ("kv-cache-dtype", "null"),
        ("default-chat-template-kwargs", {"enable_thinking": False}),
    ],
)
def test_an_option_of_the_stack_reaches_vllm_with_its_value_and_type(option: str, value: object) -> None:
    assert options(extra_args={option: value})[option] == value


@pytest.mark.parametrize("option", ["max-num-seqs", "shutdown-timeout", "enforce-eager", "max-num-queued-reqs"])
def test_an_option_of_the_stack_wins_over_a_default(option: str) -> None:
    assert options(extra_args={option: 7})[option] == 7


OWNED = {
    "api-key": [ENGINE_KEY],
    "host": "0.0.0.0",  # noqa: S104 - inside its container
    "port": 8000,
    "model": f"/models/{MODEL}",
    "served-model-name": MODEL,
    "max-model-len": 8192,
    "tool-call-parser": "hermes",
    "enable-auto-tool-choice": True,
    "allowed-media-domains": ["send-it-as-a-data-url.invalid"],
    "disable-fastapi-docs": True,
}
"""What the program itself sets, whatever the stack says."""


@pytest.mark.parametrize("option", list(OWNED))
def test_an_option_that_the_program_sets_never_comes_from_the_stack(option: str) -> None:
    # The settings refuse these; this is the second lock.
    assert option in OPTIONS_WE_OWN
    read = options(extra_args={option: "from the stack"}, preset={option: "from the family"})
    assert read[option] == OWNED[option]


def test_the_file_holds_what_the_program_owns_and_these_defaults_and_nothing_else() -> None:
    """An option more or less is a decision: each changes what clients may ask for, or what the machine bears."""
    assert {name: value for name, value in options().items() if name not in OWNED} == {
        "max-num-seqs": 64,
        "max-num-queued-reqs": 256,
        "shutdown-timeout": 20,
        "sse-keep-alive-interval": 15,
        "limit-mm-per-prompt": {"image": 32},
        "disable-access-log-for-endpoints": "/health,/metrics,/ping",
        "enforce-eager": True,
        "structured-outputs-config": {"backend": "xgrammar"},
    }


def test_nothing_is_fetched_unless_the_stack_names_a_host() -> None:
    # vLLM takes an empty list for every host (vllm.md 4.6), so there is always a name in it.
    (name,) = options()["allowed-media-domains"]
    assert name.endswith(".invalid")
    hosts = ["files.example.com", "seatable.example.com"]
    assert options(media_domains=hosts)["allowed-media-domains"] == hosts


def test_grammars_of_requests_go_to_the_library_that_refuses_huge_bounds_unless_the_stack_names_another() -> None:
    """What a huge bound does to the engine is shown in tests/live/test_requests.py."""
    option = "structured-outputs-config"
    assert options()[option]["backend"] == "xgrammar"
    spaces = {"disable_any_whitespace": True}
    assert options(extra_args={option: spaces})[option] == {"backend": "xgrammar", **spaces}
    assert options(extra_args={option: {"backend": "auto"}})[option] == {"backend": "auto"}


def test_the_pictures_of_a_prompt_are_bounded_and_a_stack_may_choose_how_many() -> None:
    assert 5 <= options()["limit-mm-per-prompt"]["image"] <= 64  # SeaTable sends up to five pages
    assert options(extra_args={"limit-mm-per-prompt": {"image": 2}})["limit-mm-per-prompt"] == {"image": 2}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_picture_is_bounded_too(device: Device) -> None:
    found = environment(device)
    a4_at_600_dpi = 4961 * 7016
    assert a4_at_600_dpi <= int(found["VLLM_MAX_IMAGE_PIXELS"]) <= 64_000_000
    assert int(found["VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"]) <= 64


def test_only_the_cpus_image_which_has_no_compiler_compiles_nothing() -> None:
    assert environment("cpu")["TORCHDYNAMO_DISABLE"] == "1"
    assert environment("cpu")["HOME"] == "/tmp"
    assert "TORCHDYNAMO_DISABLE" not in environment("gpu")


def test_the_options_file_has_a_name_that_vllm_accepts() -> None:
    assert vllm.CONFIG_FILE.endswith(".yaml")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_environment_holds_what_the_baseline_asks_for(device: Device) -> None:
    found = environment(device)
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["VLLM_NO_USAGE_STATS"] == "1"
    assert found["VLLM_ENABLE_STARTUP_PLAN"] == "1"
    assert found["VLLM_ENGINE_READY_TIMEOUT_S"] == "3600"
    assert found["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert int(found["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) >= 75
    assert 16 <= int(found["VLLM_MAX_N_SEQUENCES"]) <= 64


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_is_compiled_outlives_the_container(device: Device) -> None:
    found = environment(device)
    assert found["VLLM_CACHE_ROOT"].startswith(f"{vllm.CACHE_DIR}/")
    assert found["HF_HOME"].startswith(f"{vllm.CACHE_DIR}/")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "variable",
    [
        "VLLM_SERVER_DEV_MODE",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
        "VLLM_API_KEY",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE",
    ],
)
def test_the_environment_opens_no_hatch_and_holds_no_secret(variable: str, device: Device) -> None:
    assert variable not in environment(device)


def test_the_size_of_the_cpus_cache_is_set_for_the_cpu_alone() -> None:
    assert int(environment("cpu")["VLLM_CPU_KVCACHE_SPACE"]) >= 1
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment("gpu")


def test_shared_memory_is_larger_than_what_vllm_asks_for_at_start() -> None:
    # 64 MiB is Docker's default and too little, 256 was enough (cpu-vllm.md).
    assert vllm.SHM_MIB >= 256


def test_a_large_model_has_time_to_load_before_it_counts_as_ill() -> None:
    assert vllm.START_PERIOD_SECONDS >= 15 * 60


@pytest.mark.parametrize("image", [images.VLLM_GPU, images.VLLM_CPU])
def test_both_engine_images_are_pinned_to_the_version_that_was_checked(image: images.ImageSource) -> None:
    assert images.VLLM_VERSION == "0.32.0"
    assert image.official.endswith(f":v{images.VLLM_VERSION}")
