"""The model's weights on the machine's disk before the engine starts.

They are fetched by the engine's own image; where that has to be pulled first, a small image begins meanwhile.
"""

import shlex
from typing import TypedDict

import pulumi

from components import weights_fetch
from components.image import ContainerImage
from components.machine import Machine
from components.weights_ahead import WeightsAhead

TYPE = "seatable-vllm:index:Weights"


class WeightsArgs(TypedDict):
    """Which model, and where."""

    machine: Machine
    """The machine that is to hold the weights, below models/ in its data directory."""
    image: ContainerImage
    """The engine's image; it brings the hub's client."""
    model: str
    """The model's id on the hub."""
    revision: str | None
    """A commit of the model's repository, or None for its main branch."""
    token: pulumi.Input[str] | None
    """Hugging Face token for a gated model, or None."""
    ahead: WeightsAhead | None
    """What has begun while the image was pulled, or None."""


class Weights(pulumi.ComponentResource):
    """A complete model folder."""

    present: pulumi.Resource
    """Done when the folder is complete."""

    def __init__(self, name: str, args: WeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        machine, model, revision = args["machine"], args["model"], args["revision"]
        program = pulumi.Output.all(image=args["image"].reference, token=args["token"]).apply(
            lambda known: weights_program(machine.data_dir, model, revision, known["image"], known["token"])
        )
        ahead = [args["ahead"].tried] if args["ahead"] else []
        # A folder that somebody removed: without a look at the disk it would count as done for ever.
        lost = machine.look(
            lost_program(machine.data_dir, model, write=not pulumi.runtime.is_dry_run()), parent=self
        )
        ran = machine.run(
            f"{name}-present",
            {"program": program, "triggers": [lost]},
            parent=self,
            depends_on=[args["image"].present, *ahead],
        )
        self.present = ran.resource
        self.register_outputs({})


def weights_program(data_dir: str, model: str, revision: str | None, image: str, token: str | None) -> str:
    """A bash program that makes sure of the folder models/MODEL, resuming where a run was cut off.

    A folder of that name is complete: a download lives under models/.partial until its last byte is there.
    A copy in the user's cache (where scripts/up keeps what it made from packages) saves the download.
    """
    return f"""\
set -euo pipefail
{weights_fetch.variables(data_dir, model)}image={shlex.quote(image)}
here() {{ mkdir -p "$(dirname "$mark")"; [ -e "$mark" ] || echo 0 > "$mark"; echo "$model is here"; exit 0; }}
{weights_fetch.MADE}[ ! -f "$models/$model/config.json" ] || here
mkdir -p "$models/.partial/$model" "$(dirname "$models/$model")"
{weights_fetch.LOCK}[ ! -f "$models/$model/config.json" ] || here
if [ -f "$made/.complete" ]; then
  cp -a "$made/." "$models/.partial/$model/"
else
  {weights_fetch.PROGRESS}  {weights_fetch.CONTAINER} <<'FETCH'
{weights_fetch.fetching(model, revision, token)}
FETCH
fi
{weights_fetch.COMPLETE}here
"""


def lost_program(data_dir: str, model: str, *, write: bool) -> str:
    """A bash program that prints how often the complete folder of a model was found gone.

    A number that only grows makes the weights be fetched again exactly once for each time. write: whether a new
    number is to be remembered; a preview only says it.
    """
    return f"""\
{weights_fetch.variables(data_dir, model)}lost=$(cat "$mark" 2>/dev/null) || {{ echo 0; exit 0; }}
if [ ! -f "$models/$model/config.json" ]; then
  lost=$((lost + 1))
  {'echo "$lost" > "$mark"' if write else ":"}
fi
echo "$lost"
"""
