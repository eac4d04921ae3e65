"""Unit tier: known causes found in logs and error texts.

The texts in data/failures.yaml were recorded from real programs that failed, each with its origin; the lines here
are those of vllm.md sections 1.5, 2.3 and 8, of docker-over-ssh.md section 1.7, of cpu-vllm.md, of Docker's own
sources, and of healthy starts that were recorded. It does NOT prove that these programs still say so (live tier),
nor what the gate does with a cause (test_gate).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from catalog.failures import FAILURES, Failure, explain
from tests.unit.test_readme import setting_names

RECORDED = [
    (row["name"], row["text"])
    for row in yaml.safe_load((Path(__file__).parent / "data" / "failures.yaml").read_text())
]
"""Texts of real failures, whole, and the cause that each must be explained with."""

SETTINGS_OF_A_HOST = {
    "machine.ssh", "machine.ssh_key", "machine.jump", "machine.host_key", "machine.gpus", "machine.data_dir",
    "domain.host", "domain.zone", "domain.tls", "domain.acme_email", "domain.certificate", "domain.key",
}  # fmt: skip
"""Settings of a machine behind SSH; a stack on this computer has not all of them."""

HEALTHY = sorted((Path(__file__).parent / "healthy").glob("*.log"))
"""Logs of starts that went well: a real vLLM 0.32 and HAProxy 2.6, shortened, and the lines of a GPU's start."""

API_SERVER = "(APIServer pid=6) "
CORE = "(EngineCore pid=22) ERROR 11-21 10:58:02 [core.py:1100] "

LINES: tuple[tuple[str, str], ...] = (
    (
        "docker-not-running",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    ),
    ("docker-behind-ssh", "Cannot connect to the Docker daemon at http://docker.example.com"),
    ("docker-not-running", "error: failed to connect to any docker daemon"),
    (
        "docker-not-running",
        "error during connect: this error may indicate that the docker daemon is not running: Get "
        '"http://%2F%2F.%2Fpipe%2Fdocker_engine/v1.24/info": open //./pipe/docker_engine: The system cannot find',
    ),
    (  # Docker 29
        "docker-not-running",
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if "
        "the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory",
    ),
    (
        "docker-permission",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
        'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info": dial unix: connect: permission denied',
    ),
    (  # Docker 28.4 and later
        "docker-permission",
        "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
    ),
    ("disk-full", "write /var/lib/docker/tmp/GetImageBlob1234: no space left on device"),
    ("disk-full", "OSError: [Errno 28] No space left on device: '/models/.partial/owner/model'"),
    ("disk-full", "cause: seatable-vllm: disk nearly full: 812 MiB free at /srv, 2048 MiB wanted"),
    ("port-in-use", "cause: seatable-vllm: port in use: 8080 is taken by another program"),
    (
        "port-in-use",
        "[ALERT]    (1) : config : Starting frontend clients: cannot bind socket (Address already in use) "
        "[127.0.0.1:8080]",
    ),
    (
        "port-in-use",
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint x (0f): "
        "Bind for 127.0.0.1:18000 failed: port is already allocated.",
    ),
    ("port-in-use", "OSError: [Errno 98] Address already in use"),
    ("image-missing", "cause: seatable-vllm: image missing: vllm/vllm-openai-cpu:v0.32.0 is not here"),
    ("image-missing", "unable to find or pull image haproxy:3.2"),
    ("image-missing", "Error: No such image: seatable-vllm/vllm-cpu:0.32.0"),
    ("image-missing", "pull access denied for vllm/vllm-openai-cpux, repository does not exist or may require"),
    ("image-missing", "manifest for vllm/vllm-openai:v9.9.9 not found: manifest unknown: manifest unknown"),
    (
        "model-gated",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-68) Cannot access gated "
        "repo for url https://huggingface.co/meta-llama/x/resolve/main/config.json. Access to model meta-llama/x "
        "is restricted. You must have access to it and be authenticated to access it.",
    ),
    ("model-gated", "Access to model google/gemma-3-12b-it is restricted and you are not in the authorized list."),
    (
        "model-unknown",
        "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1-68) Repository Not "
        "Found for url: https://huggingface.co/api/models/owner/modle.",
    ),
    ("model-unknown", "cause: seatable-vllm: model unknown: the hub knows no owner/modle (revision main)"),
    (
        "model-unreachable",
        "cause: seatable-vllm: model not here and hub not reached: owner/model: ConnectError",
    ),
    (
        "model-unreachable",
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the "
        "Hub and we cannot find the requested files in the local cache.",
    ),
    (
        "context-too-long",
        "Value error, User-specified max_model_len (16384) is greater than the derived max_model_len "
        "(max_position_embeddings=8192 or model_max_length=None in model's config.json).",
    ),
    (
        "memory-for-context",
        f"{CORE}ValueError: To serve at least one request with the model's max seq len (262144), (24.0 GiB KV "
        "cache is needed, which is larger than the available KV cache memory (3.18 GiB). Based on the available "
        "memory, the estimated maximum model length is 34736. Try increasing gpu_memory_utilization",
    ),
    (
        "memory-for-context",
        f"{CORE}ValueError: No available memory for the cache blocks. Try increasing gpu_memory_utilization",
    ),
    (
        "gpu-busy",
        f"{CORE}ValueError: Free memory on device cuda:0 (3.1/22.18 GiB) on startup is less than desired GPU "
        "memory utilization (0.92, 20.41 GiB).",
    ),
    (
        "gpu-out-of-memory",
        f"{CORE}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.47 GiB. GPU 0 has a total of",
    ),
    (
        "gpu-runtime",
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
    ),
    ("gpu-runtime", "docker: Error response from daemon: unknown or invalid runtime name: nvidia."),
    ("gpu-driver", "RuntimeError: The NVIDIA driver on your system is too old (found version 12040)."),
    (
        "gpu-too-old",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4",
    ),
    ("gpu-count", "Value error, World size (2) is larger than the number of available GPUs (1) in this node."),
    ("not-divisible", "Total number of attention heads (14) must be divisible by tensor parallel size (4)."),
    ("too-many-sequences", f"{CORE}ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (812)"),
    ("option-unknown", "vllm serve: error: unrecognized arguments: --swap-space 4"),
    (
        "option-unknown",
        "vllm serve: error: argument --dtype: invalid choice: 'bf16x' (choose from auto, bfloat16, float16)",
    ),
    ("option-unknown", "vllm serve: error: argument --max-num-seqs: invalid parse_type value: 'many'"),
    (
        "parser-mismatch",
        f"{API_SERVER}TypeError: --tool-call-parser llama3_json cannot be used with the tokenizer of /models/x: "
        "could not locate the bot token",
    ),
    (
        "parser-mismatch",
        f"{API_SERVER}KeyError: 'invalid tool call parser: hermess (chose from {{ apertus,hermes,mistral }})'",
    ),
    (
        "model-unsupported",
        "Value error, Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures:",
    ),
    (
        "model-unsupported",
        "Value error, Model architecture Phi4MultimodalForCausalLM was supported in vLLM until v0.12.0, and is",
    ),
    (
        "weights-broken",
        f"{CORE}safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
    ),
    ("weights-broken", "OSError: /models/owner/model does not appear to have a file named config.json."),
    (
        "shared-memory",
        f"{CORE}RuntimeError: Insufficient space in /dev/shm: 160 MiB required, 64 MiB free",
    ),
    ("shared-memory", "misc/shmutils.cc:72 NCCL WARN Call to ncclShmOpen failed: No such file"),
    (
        "memory-limit",
        f"{CORE}ValueError: Available memory on node 0 (1.2/2.0 GiB) on startup is less than desired CPU memory "
        "utilization (0.92, 1.84 GiB).",
    ),
    ("memory-limit", "exit code 137"),
)


@pytest.mark.parametrize(("name", "line"), LINES)
def test_a_known_failure_is_explained_by_its_line(name: str, line: str) -> None:
    found = explain(line)
    assert found is not None
    assert found.failure.name == name


@pytest.mark.parametrize(("name", "text"), RECORDED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(RECORDED)])
def test_a_recorded_text_is_explained_by_its_own_cause_and_not_by_one_that_stands_before_it(
    name: str, text: str
) -> None:
    found = explain(text)
    assert found is not None
    assert found.failure.name == name


def test_every_cause_of_the_catalog_was_seen_in_a_real_text() -> None:
    assert {name for name, _ in RECORDED} == {failure.name for failure in FAILURES}


@pytest.mark.parametrize(
    "line",
    [
        f"{CORE}ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (812)",
        "Value error, World size (2) is larger than the number of available GPUs (1) in this node.",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 "
        "GPU has compute capability 7.5.",
        "ValueError: The output_size of gate's and up's weight = 192 is not divisible by weight quantization "
        "block_n = 128.",
        "ValueError: Total number of attention heads (14) must be divisible by tensor parallel size (4).",
    ],
)
def test_a_start_up_error_that_the_reference_lists_is_explained(line: str) -> None:
    # vllm.md section 1.5, and section 8 rows 2, 3, 13 and 14.
    assert explain(line) is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            # The hub answers 401, not 404, to an anonymous question for a model that it does not have.
            "model-unknown",
            "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-68)\n\n"
            "Repository Not Found for url: https://huggingface.co/api/models/owner/modle.\n"
            "If you are trying to access a private or gated repo, make sure you are authenticated.",
        ),
        (
            # What rehearsal/docker_resources says of a socket that this user may not open.
            "docker-permission",
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock: Error while fetching server API "
            "version: ('Connection aborted.', PermissionError(13, 'Permission denied'))",
        ),
        (
            "disk-full",
            "unable to find or pull image haproxy:3.2\n"
            "failed to register layer: write /usr/lib/x.so: no space left on device",
        ),
        (
            "context-too-long",
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, User-specified max_model_len (16384) is greater than the derived max_model_len "
            "(max_position_embeddings=8192)\nRuntimeError: Engine core initialization failed. exit code 137",
        ),
        (
            "gpu-busy",
            "ValueError: Free memory on device cuda:0 (3.1/22.18 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 20.41 GiB). Decrease it or reduce GPU memory used by other processes.\n"
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        (
            "gpu-out-of-memory",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.47 GiB.\nexit code 137",
        ),
        (
            "port-in-use",
            "[ALERT]    (1) : config : Starting frontend clients: cannot bind socket (Address already in use)\n"
            "[ALERT]    (1) : [haproxy.main()] Some protocols failed to start their listeners! Exiting.",
        ),
    ],
)
def test_a_precise_cause_goes_before_the_general_one_that_it_also_triggers(name: str, text: str) -> None:
    found = explain(text)
    assert found is not None
    assert found.failure.name == name


@pytest.mark.parametrize("log", HEALTHY, ids=lambda log: log.name)
def test_no_line_of_a_healthy_start_is_taken_for_a_failure(log: Path) -> None:
    lines = log.read_text().splitlines()
    assert len(lines) >= 8
    for line in lines:
        assert explain(line) is None, line


def test_an_unknown_text_and_no_text_have_no_explanation() -> None:
    assert explain("Traceback (most recent call last):\nAssertionError: something new") is None
    assert explain("") is None


def test_an_explanation_says_cause_change_and_the_line_that_shows_it() -> None:
    found = explain("one\n  vllm serve: error: unrecognized arguments: --swap-space 4  \nthree")
    lines = str(found).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["cause", "change", "seen"]
    assert lines[2] == "seen: vllm serve: error: unrecognized arguments: --swap-space 4"


def test_a_very_long_line_is_cut_so_that_the_cause_stays_on_the_screen() -> None:
    found = explain("No space left on device " + "x" * 100_000)
    assert found is not None
    assert len(found.evidence) <= 300


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_every_remedy_names_a_setting_or_a_command(failure: Failure) -> None:
    commands = r"\b(?:scripts/[a-z]|systemctl |docker |usermod |timedatectl |ssh-keygen |ssh-add)"
    assert re.search(rf"(?:seatable-vllm|aws):[a-z]|{commands}", failure.remedy)
    assert failure.cause


def test_every_setting_that_a_remedy_names_exists() -> None:
    known = setting_names() | SETTINGS_OF_A_HOST
    known |= {".".join(name.split(".")[:depth]) for name in known for depth in (1, 2)}
    for failure in FAILURES:
        for key in re.findall(r"seatable-vllm:([a-z_]+(?:\.[a-z_]+)?)", failure.remedy):
            assert key in known, f"{failure.name}: {key}"


def test_every_script_that_a_remedy_names_exists() -> None:
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    for failure in FAILURES:
        for name in re.findall(r"scripts/([a-z-]+)", failure.remedy):
            assert (scripts / name).exists(), f"{failure.name}: scripts/{name}"


def test_a_token_in_a_line_is_not_repeated() -> None:
    found = explain("hf_abcdefghijklmnop Bearer 0123456789abcdef: Invalid credentials in Authorization header")
    assert found is not None
    assert "hf_" not in found.evidence
    assert "0123" not in found.evidence


def test_names_are_unique_and_patterns_are_valid() -> None:
    assert len({failure.name for failure in FAILURES}) == len(FAILURES)
    for failure in FAILURES:
        assert re.compile(failure.pattern)


@pytest.mark.parametrize(
    "case",
    ["model-unknown", "context-too-long", "option-unknown", "port-in-use", "docker-not-running", "disk-full",
     "image-missing"],
)  # fmt: skip
def test_each_failure_that_the_issue_lists_has_a_cause_of_its_own(case: str) -> None:
    assert [failure.name for failure in FAILURES].count(case) == 1
