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
    pulled: NotRequired[str | None]
    """What `scripts/up --pull` has found newest, with its digest; None: nothing yet."""
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
        program = references(args["source"], args["override"], args.get("pulled")).apply(
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


def references(
    source: pulumi.Input[ImageSource], override: str | None, pulled: str | None = None
) -> pulumi.Output[list[str]]:
    """The names of an image any of which will do, the one that would be pulled first. See `names_of`."""
    return pulumi.Output.from_input(source).apply(lambda known: names_of(known, override, pulled))


def names_of(source: ImageSource, override: str | None, pulled: str | None) -> list[str]:
    """The same for a source that is known.

    pulled: NAME:TAG@DIGEST of that image; of another NAME:TAG, as of an earlier version, it counts for nothing.
    """
    wanted = override or source.official
    if pulled and pulled.partition("@")[0] == wanted:
        return [f"{repository(wanted)}@{pulled.partition('@')[2]}"]
    return [wanted] if override or not source.made else [wanted, source.made]


def repository(reference: str) -> str:
    """A reference without its tag: every version of Docker knows an image by its digest in this form."""
    folder, slash, name = reference.rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"


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


PULLED = "pulled:"
"""Begins the last line of `pull_program` where the registry has answered."""


def pull_program(reference: str, container: str) -> str:
    """A bash program that asks the registry for the newest image of a reference, whatever is here.

    container: the one that runs on it, or empty. The last line is PULLED and up to five words: the digest now; the
    ids of the image before, which is the container's where there is one, and now; the digest before, or none; and
    `container` where there is one.
    """
    return f"""\
set -euo pipefail
reference={shlex.quote(reference)} container={shlex.quote(container)}
runs=$(docker container inspect --format '{{{{.Image}}}}' "$container" 2>/dev/null || true)
had=$(docker image inspect --format '{{{{.Id}}}}' "$reference" 2>/dev/null || true)
before=${{runs:-${{had:-none}}}}
digests=$(docker image inspect --format '{{{{join .RepoDigests " "}}}}' "$before" 2>/dev/null || true)
old=none  # an image may have digests of several registries
for each in $digests; do if [ "${{each%@*}}" = {shlex.quote(repository(reference))} ]; then old=$each; fi; done
{heartbeat("still pulling $reference, $SECONDS s")}if ! told=$(docker pull "$reference" 2>&1); then
  echo "${{told##*$'\n'}}" >&2
  exit 1
fi
digest=$(sed -n 's/^Digest: //p' <<< "$told")
after=$(docker image inspect --format '{{{{.Id}}}}' "$reference")
echo "{PULLED} $digest $before $after $old ${{runs:+container}}"
"""
