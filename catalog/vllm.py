"""What the engine is started with: its configuration file and its environment, as pure functions.

Options and the engine's key go through a 0600 YAML file, because a command line and a container's environment
can be read by everyone who may run `ps` or `docker inspect`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

Device = Literal["cpu", "gpu"]

PORT = 8000
"""TCP port inside the engine's container."""

MODELS_DIR = "/models"
CACHE_DIR = "/cache"
TEMPORARY = "/tmp"  # noqa: S108 - inside the container, and in memory
CONFIG_DIR = "/etc/seatable-vllm/vllm"
CONFIG_FILE = f"{CONFIG_DIR}/config.yaml"
WATCHDOG_FILE = f"{CONFIG_DIR}/watchdog.py"

_TOOL_PARSERS = """
    apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4 deepseek_v41 dots
    ernie45 functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc granite4 hermes hf hunyuan_a13b
    hy_v3 hy_v4 inkling internlm jamba k2_horizon kimi_k2 kimi_k3 lfm2 ling3 llama3_json llama4_json
    llama4_pythonic longcat mimo minicpm5 minimax_m2 minimax_m3 mistral muse_glimmer olmo3 openai phi4_mini_json
    plamo3 poolside_v1 pythonic qwen3_coder qwen3_json qwen3_xml seed_oss step3 step3p5 xlam
"""
TOOL_PARSERS = frozenset(_TOOL_PARSERS.split())
"""The choices of `--tool-call-parser` in vLLM 0.32.0."""

SHM_MIB = 1024
"""Shared memory of the container. vLLM asks for 160 MiB on the CPU at start; Docker's default is 64."""

DRAIN_SECONDS = 20
"""How long running requests may take to end when the container is stopped."""

CPU_KV_GIB = 1
"""Memory for keys and values on a CPU: 46,000 tokens of SmolLM2, and the whole container stays under 4 GB."""

STOP_GRACE_SECONDS = DRAIN_SECONDS + 30
"""Docker's patience after SIGTERM; longer than the drain, or the drain is cut off."""

NO_MEDIA_DOMAIN = "send-it-as-a-data-url.invalid"
"""What stands in the list of hosts to fetch from where there is none: vLLM takes an empty list for all hosts.
Nobody can register a name below `.invalid` (RFC 2606), and a client reads it in the error that it gets."""

MAX_PICTURES = 32
"""Pictures in one prompt, unless a stack says otherwise. vLLM allows 999."""

MAX_PICTURE_PIXELS = 50_000_000
"""Of one picture: 150 MB unpacked. A page of A4 at 600 dpi has 35 million. vLLM allows 179 million."""

MAX_DOWNLOAD_MB = 32
"""Of one file that the engine fetches. vLLM allows 256."""

START_PERIOD_SECONDS = 1200
"""How long a start may take before misses of the health check count (load and compile of a large model)."""


def model_folder(name: str) -> str:
    """Where the weights of this model lie inside the container."""
    return f"{MODELS_DIR}/{name}"


def configuration(
    *,
    name: str,
    context_tokens: int,
    tool_parser: str | None,
    extra_args: Mapping[str, Any],
    engine_key: str,
    device: Device,
    preset: Mapping[str, Any] | None = None,
    media_domains: Sequence[str] = (),
) -> str:
    """The text of vLLM's `--config` file. It holds the engine's key.

    media_domains: the hosts that the engine may fetch pictures, sound and films from; empty: none. preset: what
    the model's family needs. `extra_args` win over it and over every default here, never over what the program
    owns (settings.OPTIONS_WE_OWN).
    """
    options: dict[str, Any] = {
        # One client's burst must not take the whole memory; the default of 1024 stops large GPUs at start.
        "max-num-seqs": 64,
        "max-num-queued-reqs": 256,
        "shutdown-timeout": DRAIN_SECONDS,
        "sse-keep-alive-interval": 15,
        "limit-mm-per-prompt": {"image": MAX_PICTURES},
        "disable-access-log-for-endpoints": "/health,/metrics,/ping",
        # The CPU build compiles with a C++ compiler that an image need not have.
        **({"enforce-eager": True} if device == "cpu" else {}),
        **_of_family(preset or {}, tool_parser, device),
        **extra_args,
        # By itself vLLM passes what xgrammar refuses on to llguidance, where a list of at least 10**9 items takes
        # all memory, in the process that answers everybody.
        "structured-outputs-config": {"backend": "xgrammar", **extra_args.get("structured-outputs-config", {})},
        "model": model_folder(name),
        "served-model-name": name,
        "max-model-len": context_tokens,
        "api-key": [engine_key],
        "allowed-media-domains": list(media_domains) or [NO_MEDIA_DOMAIN],
        "host": "0.0.0.0",  # noqa: S104 - inside its container; only the machine's loopback is published
        "port": PORT,
        "disable-fastapi-docs": True,
    }
    if tool_parser:
        options |= {"enable-auto-tool-choice": True, "tool-call-parser": tool_parser}
    text: str = yaml.safe_dump(options, sort_keys=False)
    return text


def _of_family(preset: Mapping[str, Any], tool_parser: str | None, device: Device) -> dict[str, Any]:
    """The preset without a template that nobody needs, or that the CPU's image need not have."""
    wanted = tool_parser is not None and device == "gpu"
    return {name: value for name, value in preset.items() if name != "chat-template" or wanted}


def memory_folders(device: Device) -> dict[str, str] | None:
    """Folders of the engine's container that are in memory, with their mount options, beside a read-only rest.

    None: the container is writable. On a GPU several libraries compile kernels at run time, each into a folder of
    its own below the home directory or in its own package; that list has not been measured.
    """
    return {TEMPORARY: "exec,mode=1777"} if device == "cpu" else None


def environment(device: Device) -> list[str]:
    """The engine container's environment, without secrets."""
    common = {
        # Weights are on the disk before the container starts; nothing is to be fetched behind our back.
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{CACHE_DIR}/huggingface",
        "VLLM_CACHE_ROOT": f"{CACHE_DIR}/vllm",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_STARTUP_PLAN": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
        # Longer than the edge keeps idle connections, or it would send into one that is just being closed.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        "VLLM_MAX_N_SEQUENCES": "64",
        # vLLM looks at the host of the first address alone.
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": str(MAX_DOWNLOAD_MB),
        "VLLM_MAX_IMAGE_PIXELS": str(MAX_PICTURE_PIXELS),
    }
    cpu = {
        "VLLM_CPU_KVCACHE_SPACE": str(CPU_KV_GIB),
        # The sampler compiles some functions at their first use, even with enforce-eager; without a C++ compiler
        # in the image that ends the engine, by the first request for logprobs.
        "TORCHDYNAMO_DISABLE": "1",
        "HOME": TEMPORARY,
    }
    return [f"{key}={value}" for key, value in (common | (cpu if device == "cpu" else {})).items()]
