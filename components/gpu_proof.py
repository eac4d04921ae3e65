"""The proof that the engine's image can use the machine's GPUs, before an old engine is stopped for it."""

import shlex
from collections.abc import Sequence
from typing import TypedDict

import pulumi

from components.confined import RUN_OPTIONS
from components.image import ContainerImage
from components.machine import Machine

TYPE = "seatable-vllm:index:GpuProof"


class GpuProofArgs(TypedDict):
    """Whose GPUs, and what is to use them."""

    machine: Machine
    """The machine that has them."""
    image: ContainerImage
    """The engine's image."""


class GpuProof(pulumi.ComponentResource):
    """GPUs that a container sees, with a driver that suits the image."""

    proved: pulumi.Resource
    """Done when that is so, or the engine is to use the CPU."""

    def __init__(self, name: str, args: GpuProofArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        machine, image = args["machine"], args["image"]
        chosen = machine.device_ids
        program = pulumi.Output.all(image=image.reference, gpus=machine.gpus, device=machine.device).apply(
            lambda known: gpu_program(known["image"], known["gpus"], chosen if known["device"] == "gpu" else ())
        )
        ran = machine.run(f"{name}-seen", {"program": program}, parent=self, depends_on=[image.present])
        self.proved = ran.resource
        self.register_outputs({})


_SEE = "import torch; torch.cuda.init(); print(*map(torch.cuda.get_device_name, range(torch.cuda.device_count())))"
"""Asks the driver, but holds no memory of a GPU: the old engine may have all of it."""


def gpu_program(image: str, gpus: str | None, chosen: Sequence[str]) -> str:
    """A bash program that shows the GPUs inside a container of the image, or does nothing where none are wanted.

    gpus: Docker's --gpus, or None. chosen: device numbers or ids in place of it.
    """
    wanted = f'"device={",".join(chosen)}"' if chosen else gpus
    if wanted is None:
        return "set -euo pipefail\necho 'no GPU is used'\n"
    variables = f"image={shlex.quote(image)} gpus={shlex.quote(wanted)} look={shlex.quote(_SEE)}"
    return f"""\
set -euo pipefail
{variables}
see() {{
  docker run --rm --network none {RUN_OPTIONS} \\
    --gpus "$gpus" --entrypoint "$1" "$image" "${{@:2}}" 2>&1
}}
if ! told=$(see nvidia-smi -L && see python3 -c "$look"); then
  echo "$told" >&2
  echo "phase: GPU in a container" >&2
  case $told in
    *"driver on your system is too old"* | *"unsatisfied condition"*)
      echo "cause: the NVIDIA driver is older than the image's CUDA needs" >&2
      echo "change: take driver 580 or newer, or set seatable-vllm:images.vllm to a -cu129 image" >&2;;
    *)
      echo "cause: a container cannot use the GPU: ${{told##*$'\\n'}}" >&2
      echo "change: install the NVIDIA Container Toolkit on the machine, correct seatable-vllm:machine.gpus," \\
        "or set it to none" >&2;;
  esac
  exit 1
fi
echo "$told"
"""
