"""Why a deployment fails, in the words of those who run it: patterns over logs and error texts.

Pure, and without imports beyond the standard library: the gate takes this file along to the machine.
Order matters, the first match wins: a precise cause stands before the general one that it also triggers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """One known cause.

    name: short and stable, for tests and documentation. pattern: regular expression, searched per line.
    cause: what happened, in plain words. remedy: the setting to change, or the command to run.
    """

    name: str
    pattern: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Explanation:
    """A cause found in a text, with the line that shows it."""

    failure: Failure
    evidence: str

    def __str__(self) -> str:
        """Three lines: cause, what to change, evidence."""
        return f"cause: {self.failure.cause}\nchange: {self.failure.remedy}\nseen: {self.evidence}"


FAILURES: tuple[Failure, ...] = (
    Failure(
        "docker-permission",
        r"permission denied while trying to connect to the [Dd]ocker"
        r"|Docker daemon at unix://\S+: .*[Pp]ermission ?denied",
        "this user may not use Docker",
        "add the user to the group docker and log in again, or run as root",
    ),
    Failure(
        "docker-not-running",
        r"Cannot connect to the Docker daemon|error during connect|failed to connect to any docker daemon"
        r"|failed to connect to the docker API|Is the docker daemon running|Docker does not answer",
        "Docker does not answer",
        "start Docker (systemctl start docker, or scripts/up as root), or be in the group docker",
    ),
    Failure(
        "disk-full",
        r"No space left on device|no space left on device|seatable-vllm: disk nearly full",
        "the disk is full, or would be",
        "free space, or set seatable-vllm:machine.data_dir to a folder on a larger disk",
    ),
    Failure(
        "port-in-use",
        r"seatable-vllm: port in use|Address already in use|address already in use|port is already allocated"
        r"|[Cc]annot bind (?:UNIX )?socket",
        "a port that the stack wants is taken by another program",
        "set seatable-vllm:ports.edge or seatable-vllm:ports.engine to a free port, or end that program",
    ),
    Failure(
        "image-missing",
        r"seatable-vllm: image missing|No such image|pull access denied|manifest unknown"
        r"|manifest for \S+ not found|Unable to find image|unable to find or pull image",
        "a container image is neither here nor to be pulled",
        "check seatable-vllm:images; where nothing can be pulled, scripts/up makes the pinned ones",
    ),
    Failure(
        "model-unknown",
        r"RepositoryNotFoundError|404 Client Error|Repository Not Found|seatable-vllm: model unknown",
        "the hub knows no model of this name",
        "set seatable-vllm:model.name to the exact id on the hub, OWNER/NAME, letters as written there",
    ),
    Failure(
        "model-gated",
        r"GatedRepoError|Access to model \S+ is restricted|401 Client Error|403 Client Error",
        "the model is gated, or the token may not read it",
        "accept its licence on the hub, then: pulumi config set --secret seatable-vllm:hugging_face_token",
    ),
    Failure(
        "model-unreachable",
        r"seatable-vllm: model not here and hub not reached|LocalEntryNotFoundError"
        r"|Cannot find the requested files",
        "the model's weights are not on the machine and the Hugging Face hub cannot be reached",
        "check seatable-vllm:model.name (OWNER/NAME) and the way out to the hub, "
        "or put the model's folder under models/ in the data directory",
    ),
    Failure(
        "context-too-long",
        r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len",
        "the context is longer than the model was made for",
        "lower seatable-vllm:model.max_model_len to the number that the line names",
    ),
    Failure(
        "memory-for-context",
        r"is larger than the available KV cache memory|No available memory for the cache blocks"
        r"|estimated maximum model length is",
        "the memory left beside the weights does not hold one request of the full context",
        "lower seatable-vllm:model.max_model_len, or take a smaller or quantised model",
    ),
    Failure(
        "gpu-busy",
        r"Free memory on device .* is less than desired GPU memory utilization",
        "another program holds memory of the GPU",
        "end it, or lower gpu-memory-utilization in seatable-vllm:model.extra_args",
    ),
    Failure(
        "gpu-out-of-memory",
        r"CUDA out of memory|OutOfMemoryError",
        "the model does not fit the GPU's memory",
        "take a smaller or quantised model, or lower max-num-seqs in seatable-vllm:model.extra_args",
    ),
    Failure(
        "gpu-runtime",
        r"could not select device driver|nvidia-container-cli|unknown or invalid runtime name: nvidia",
        "Docker cannot hand the GPU to a container",
        "install the NVIDIA Container Toolkit, or set seatable-vllm:machine.gpus to none",
    ),
    Failure(
        "gpu-driver",
        r"NVIDIA driver on your system is too old|unsatisfied condition: cuda",
        "the NVIDIA driver is older than the image's CUDA needs",
        "update the driver to 580 or newer, or set seatable-vllm:images.vllm to a -cu129 image",
    ),
    Failure(
        "gpu-too-old",
        r"Bfloat16 is only supported on GPUs with compute capability",
        "the GPU does not know the number format of the weights",
        "set dtype: half in seatable-vllm:model.extra_args, or take a newer GPU",
    ),
    Failure(
        "gpu-count",
        r"World size \(\d+\) is larger than the number of available GPUs",
        "the options ask for more GPUs than there are",
        "lower tensor-parallel-size (or pipeline-parallel-size) in seatable-vllm:model.extra_args",
    ),
    Failure(
        "not-divisible",
        r"must be divisible by tensor parallel size|is not divisible by (?:weight )?(?:quantization )?"
        r"(?:block|min_thread)",
        "the model cannot be split over this number of GPUs",
        "lower tensor-parallel-size in seatable-vllm:model.extra_args, or use pipeline-parallel-size",
    ),
    Failure(
        "too-many-sequences",
        r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks",
        "the hybrid model has no room for so many requests at once",
        "lower max-num-seqs in seatable-vllm:model.extra_args",
    ),
    Failure(
        "option-unknown",
        r"unrecognized arguments?: (.*)|invalid choice: |argument --[a-z-]+: (?:invalid|expected)",
        "vLLM does not know an option, or its value",
        "correct seatable-vllm:model.extra_args or model.tool_parser (vLLM 0.32: vllm serve --help=all)",
    ),
    Failure(
        "parser-mismatch",
        r"cannot be used with the tokenizer of|invalid tool call parser",
        "the tool parser does not fit the model",
        "set seatable-vllm:model.tool_parser to the model family's parser, or to none",
    ),
    Failure(
        "model-unsupported",
        r"Model architectures? .* (?:not supported|was supported in vLLM until)|are not supported for now",
        "this vLLM does not serve this kind of model",
        "set seatable-vllm:model.name to a model whose architecture vLLM 0.32 lists",
    ),
    Failure(
        "weights-broken",
        r"SafetensorError|Error while deserializing header|does not appear to have a file named",
        "the weights on the disk are incomplete",
        "remove the model's folder under models/ in the data directory; the next up fetches it again",
    ),
    Failure(
        "shared-memory",
        r"Insufficient space in /dev/shm|ncclShmOpen",
        "the container's shared memory is too small",
        "give Docker more memory",
    ),
    Failure(
        "memory-limit",
        r"exit code 137|\bOOMKilled\b|Available memory on node \d+ .* is less than",
        "the machine's memory ran out",
        "take a smaller model or a larger machine",
    ),
)


def explain(text: str) -> Explanation | None:
    """The first known cause in a log or an error text, or None. The evidence is cut at 300 characters."""
    lines = text.splitlines()
    for failure in FAILURES:
        pattern = re.compile(failure.pattern)
        for line in lines:
            if pattern.search(line):
                return Explanation(failure, line.strip()[:300])
    return None
