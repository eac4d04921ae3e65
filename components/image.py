"""One container image on the machine: there before a container asks for it, and before an old one is stopped."""

import shlex
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import pulumi

from catalog.images import ImageSource
from components.machine import Machine
from components.machine.machine import heartbeat

TYPE = "seatable-vllm:index:ContainerImage"


class ContainerImageArgs(TypedDict):
    """Which image, and where."""

    machine: Machine
    """The machine that is to hold it."""
    source: pulumi.Input[ImageSource]
    """The pinned image and its stand-in."""
    override: str | None
    """Another reference from the stack's settings, or None. It is never replaced by a stand-in."""
    after: NotRequired[Sequence[pulumi.Resource]]
    """What is to be done first; nothing unless told."""


class ContainerImage(pulumi.ComponentResource):
    """An image that is present."""

    reference: pulumi.Output[str]
    """The name that a container is to be made from."""
    present: pulumi.Resource
    """Done when the image is there."""

    def __init__(self, name: str, args: ContainerImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        machine = args["machine"]
        program = references(args["source"], args["override"]).apply(
            lambda names: image_program(
                names[0],
                names[1] if len(names) > 1 else None,
                WAY_OUT if machine.images_are_made else WAY_OUT_ELSEWHERE,
            )
        )
        ran = machine.run(
            f"{name}-present",
            {"program": program},
            parent=self,
            depends_on=[machine.ready, *args.get("after", [])],
        )
        self.reference = ran.last_line
        self.present = ran.resource
        self.register_outputs({"reference": self.reference})


def references(source: pulumi.Input[ImageSource], override: str | None) -> pulumi.Output[list[str]]:
    """The names of an image any of which will do, the one that would be pulled first."""
    return pulumi.Output.from_input(source).apply(
        lambda known: [override] if override else [known.official, *([known.made] if known.made else [])]
    )


WAY_OUT = "check the way out to the registry or seatable-vllm:images; scripts/up makes the pinned ones"
WAY_OUT_ELSEWHERE = "check the machine's way out to the registry, or name a mirror in seatable-vllm:images"


def image_program(official: str, made: str | None, way_out: str = WAY_OUT) -> str:
    """A bash program that makes sure of an image and prints its reference in the last line.

    In order: the official one that is here, the made one that is here, the official one pulled.
    way_out: what to do where none of them can be had.
    """
    return f"""\
set -euo pipefail
official={shlex.quote(official)} made={shlex.quote(made or "")}
for image in "$official" $made; do
  if docker image inspect "$image" >/dev/null 2>&1; then echo "$image"; exit 0; fi
done
echo "pulling $official"
{heartbeat("still pulling $official, $SECONDS s")}if ! told=$(docker pull --quiet "$official" 2>&1); then
  echo "$told" >&2
  echo "phase: images present" >&2
  echo "cause: seatable-vllm: image missing: $official is not here and could not be pulled: ${{told##*$'\\n'}}" >&2
  echo "change: "{shlex.quote(way_out)} >&2
  exit 1
fi
echo "$official"
"""
