"""vLLM 0.32, in the words of its own source, and of torch and transformers below it."""

from __future__ import annotations

from catalog.failures.failure import Failure

VLLM: tuple[Failure, ...] = (
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
        "lower seatable-vllm:model.max_model_len, or take a smaller or quantised model (seatable-vllm:model.name)",
    ),
    Failure(
        "gpu-busy",
        r"Free memory on device .* is less than (?:desired GPU memory utilization|the engine's budget)",
        "another program holds memory of the GPU",
        "end it (nvidia-smi names it), or lower gpu-memory-utilization in seatable-vllm:model.extra_args",
    ),
    Failure(
        "gpu-out-of-memory",
        r"CUDA out of memory|OutOfMemoryError|Failed to load model - not enough GPU memory",
        "the model does not fit the GPU's memory",
        "take a smaller or quantised model (seatable-vllm:model.name), or lower max-num-seqs in "
        "seatable-vllm:model.extra_args",
    ),
    Failure(
        "gpu-driver",
        r"NVIDIA driver on your system is too old|unsatisfied condition: cuda",
        "the NVIDIA driver is older than the image's CUDA needs",
        "update the driver to 580 or newer, or set seatable-vllm:images.vllm to a -cu129 image",
    ),
    Failure(
        "gpu-not-seen",
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver on your system",
        "the engine is to compute on a GPU and sees none",
        "see that nvidia-smi works on the machine, or set seatable-vllm:machine.gpus to none",
    ),
    Failure(
        "gpu-too-old",
        r"Bfloat16 is only supported on GPUs with compute capability",
        "the GPU does not know the number format of the weights",
        "set dtype: half in seatable-vllm:model.extra_args, or take a newer GPU",
    ),
    Failure(
        "quantization",
        r"Unknown quantization method|Quantization method specified in the model config"
        r"|[Qq]uantization (?:method \S+|scheme)(?: \+ awq)? is not supported for the current GPU",
        "the model's number format is one that vLLM 0.32 or this GPU does not know",
        "take another variant of the model (seatable-vllm:model.name), or remove quantization from "
        "seatable-vllm:model.extra_args",
    ),
    Failure(
        "gpu-count",
        r"World size \(\d+\) is larger than the number of available GPUs",
        "the options ask for more GPUs than there are",
        "lower tensor-parallel-size (or pipeline-parallel-size) in seatable-vllm:model.extra_args",
    ),
    Failure(
        "not-divisible",
        r"must be divisible by tensor[ -]parallel size|is not divisible by (?:weight )?(?:quantization )?"
        r" ?(?:block|min_thread|group_size)",
        "the model cannot be split over this number of GPUs",
        "lower tensor-parallel-size in seatable-vllm:model.extra_args, or use pipeline-parallel-size",
    ),
    Failure(
        "gpu-link",
        r"NCCL error: ",
        "the GPUs of the machine cannot talk to each other",
        "set disable-custom-all-reduce: true, or tensor-parallel-size: 1, in seatable-vllm:model.extra_args",
    ),
    Failure(
        "too-many-sequences",
        r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks",
        "the hybrid model has no room for so many requests at once",
        "lower max-num-seqs in seatable-vllm:model.extra_args",
    ),
    Failure(
        "option-conflict",
        r"max_num_batched_tokens \(\d+\) (?:is smaller than max_model_len|must be greater than or equal to)",
        "two options of vLLM contradict each other",
        "raise max-num-batched-tokens in seatable-vllm:model.extra_args, or take it out",
    ),
    Failure(
        "option-unknown",
        r"unrecognized arguments?: (.*)|invalid choice: "
        r"|argument --[a-z-]+(?:/-\w+)?: (?:invalid|expected|Value .* cannot be)",
        "vLLM does not know an option, or its value",
        "correct seatable-vllm:model.extra_args or model.tool_parser (vLLM 0.32: vllm serve --help=all)",
    ),
    Failure(
        "parser-mismatch",
        r"cannot be used with the tokenizer of|invalid (?:tool call|reasoning) parser"
        r"|Reasoning parser '.*' not found|Error in extracting tool call from response"
        r"|Error trying to handle streaming tool call",
        "the tool parser does not fit the model",
        "set seatable-vllm:model.tool_parser to the model family's parser, or to none (and reasoning-parser in "
        "seatable-vllm:model.extra_args, if it is there)",
    ),
    Failure(
        "model-code",
        r"contains custom code which must be executed",
        "the model comes with code of its publisher, which is not run unasked",
        "read that code, then set trust-remote-code: true in seatable-vllm:model.extra_args and pin the code with "
        "seatable-vllm:model.revision",
    ),
    Failure(
        "model-unsupported",
        r"Model architectures? .* (?:not supported|was supported in vLLM until)|are not supported for now"
        r"|does not recognize this architecture",
        "this vLLM does not serve this kind of model",
        "set seatable-vllm:model.name to a model whose architecture vLLM 0.32 lists",
    ),
    Failure(
        "weights-broken",
        r"SafetensorError|Error while deserializing header|does not appear to have a file named"
        r"|Cannot find any model weights with",
        "the weights on the disk are incomplete",
        "remove the model's folder under models/ in the data directory; the next scripts/up fetches it again",
    ),
    Failure(
        "shared-memory",
        r"Insufficient space in /dev/shm|ncclShmOpen|\bBus error\b",
        "the container's shared memory is too small",
        "lower tensor-parallel-size or max-num-seqs in seatable-vllm:model.extra_args, or give Docker more memory",
    ),
    Failure(
        "slow-disk",
        r"Timed out waiting for (?:new )?engine core processes to start",
        "the weights load too slowly, as from a network disk",
        "set seatable-vllm:machine.data_dir to a local disk",
    ),
    Failure(
        "memory-limit",
        r"exit code 137|\bOOMKilled\b|Available memory on node \d+ .* is less than",
        "the machine's memory ran out",
        "take a smaller model (seatable-vllm:model.name) or a larger machine",
    ),
    Failure(
        "engine-hung",
        r"^(?:miss|kill) misses=[1-9]",
        "the engine runs and answers nobody",
        "it is ended and started again by itself at the third miss; docker restart CONTAINER does so sooner",
        passing=True,
    ),
    Failure(
        "engine-busy-starting",
        r"No available shared memory broadcast block found",
        "the engine's processes wait for each other: one compiles or loads for long, or hangs",
        "wait; if it stays so, set enforce-eager: true in seatable-vllm:model.extra_args",
        passing=True,
    ),
    Failure(
        "engine-stopped",
        r"KeyboardInterrupt: terminated",
        "something outside ended the engine while it was starting",
        "scripts/up starts it again; let no other program restart its container before it is ready",
        passing=True,
    ),
    Failure(
        "engine-process",
        r"Engine core initialization failed|WorkerProc initialization failed",
        "a process of the engine ended while it started, without a word that is known: often for lack of memory",
        "read the lines above it (docker logs), or take a smaller model (seatable-vllm:model.name)",
        passing=True,
    ),
)
