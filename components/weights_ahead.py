"""Weights that are fetched while the engine's image, which else fetches them, is still being pulled."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import pulumi

from catalog.hub_client import pins
from catalog.images import ImageSource
from components import weights_fetch
from components.image import references
from components.machine import Machine

TYPE = "seatable-vllm:index:WeightsAhead"

PULL_SECONDS = 60
"""A line on which 45 MB take longer is busy with the engine's image for so long that nothing would be won."""


class WeightsAheadArgs(TypedDict):
    """Which model, where, and what is pulled meanwhile."""

    machine: Machine
    """The machine that is to hold the weights."""
    image: str
    """An image of Python."""
    engine: pulumi.Input[ImageSource]
    """The engine's image and its stand-in: where one of them is there, there is nothing to be ahead of."""
    engine_override: str | None
    """Another reference from the stack's settings, or None."""
    engine_pulled: str | None
    """What `scripts/up --pull` has found newest of it, or None."""
    model: str
    """The model's id on the hub."""
    revision: str | None
    """A commit of the model's repository, or None for its main branch."""
    token: pulumi.Input[str] | None
    """Hugging Face token for a gated model, or None."""


class WeightsAhead(pulumi.ComponentResource):
    """A try to have the weights on the disk before the engine's image is. It never fails."""

    image_tried: pulumi.Resource
    """Done when the image of Python is there, or is not to be had. Larger ones are to be pulled after it: Docker
    downloads three layers at a time, of all pulls together and in the order in which they were asked for
    (moby/moby issue 44346), so that a small image waits for the last layers of a large one."""
    tried: pulumi.Resource
    """Done when the weights are there, or are left to the engine's image."""

    def __init__(self, name: str, args: WeightsAheadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        machine = args["machine"]
        plan = references(args["engine"], args["engine_override"], args["engine_pulled"]).apply(
            lambda engine: Plan(machine.data_dir, args["model"], args["image"], engine)
        )
        pull = plan.apply(image_program)
        fetch = pulumi.Output.all(plan=plan, token=args["token"]).apply(
            lambda known: fetch_program(known["plan"], args["revision"], known["token"], pins())
        )
        # No look for lost weights: the engine's image is there then.
        pulled = machine.run(f"{name}-image", {"program": pull}, parent=self, depends_on=[machine.ready])
        fetched = machine.run(f"{name}-fetched", {"program": fetch}, parent=self, depends_on=[pulled.resource])
        self.image_tried, self.tried = pulled.resource, fetched.resource
        self.register_outputs({})


NO_CLIENT = 3
"""Status of the container where the hub's client cannot be installed."""

_CLIENT = """\
import subprocess, sys, tempfile
place = tempfile.mkdtemp()
with open(place + "/pins.txt", "w") as pins:
    pins.write({pins!r})
pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-cache-dir", "--no-compile"]
pip += ["--timeout", "15", "--retries", "2", "--require-hashes", "--only-binary", ":all:"]
pip += ["--target", place + "/packages", "--requirement", place + "/pins.txt"]
# Not this program's own standard input: pip's children would take the rest of it.
if subprocess.run(pip, stdin=subprocess.DEVNULL).returncode != 0:
    sys.exit({status})
sys.path.insert(0, place + "/packages")
"""


@dataclass(frozen=True)
class Plan:
    """What both programs know.

    data_dir: the machine's. model: its id on the hub. image: that of Python. engine_images: where one of these is
    here, there is nothing to be ahead of.
    """

    data_dir: str
    model: str
    image: str
    engine_images: Sequence[str]


def image_program(plan: Plan) -> str:
    """A bash program that pulls the image of Python where it is of use, and passes whatever comes of it."""
    return f"""\
{_begin(plan)}why="$image is not to be had"
docker image inspect "$image" >/dev/null || timeout {PULL_SECONDS} docker pull --quiet "$image" >/dev/null
why="$image is here for it"
"""


def fetch_program(plan: Plan, revision: str | None, token: str | None, packages: str) -> str:
    """A bash program that fetches the model with an image of Python alone, into which it puts the hub's client.

    It passes whatever happens, and says in one line what that is. Causes and ways out are left to the step with
    the engine's image, which goes on where this one ended; so no tool's words are let out here either. packages:
    the client's, with their hashes, as pip reads them.
    """
    fetch = _CLIENT.format(pins=packages, status=NO_CLIENT) + weights_fetch.fetching(plan.model, revision, token)
    return f"""\
{_begin(plan)}left="left to the engine's image"
why="$left: $image is not here"
docker image inspect "$image" >/dev/null
why="$left: its folder cannot be made"
mkdir -p "$models/.partial/$model" "$(dirname "$models/$model")"
{weights_fetch.LOCK}[ ! -f "$models/$model/config.json" ] || exit 0
trap - EXIT  # a heartbeat that is killed at its begin would have it too
{weights_fetch.PROGRESS}trap ended EXIT
why="$left: this try was cut short" status=0
{weights_fetch.CONTAINER} >/dev/null <<'FETCH' || status=$?
{fetch}
FETCH
[ $status != {NO_CLIENT} ] || why="$left: the hub's client is not to be had"
[ $status = 0 ] || exit 0
why="$left: it could not be put in place"
{weights_fetch.COMPLETE}"""


def _begin(plan: Plan) -> str:
    """Lines of bash that end where nothing is to be gained. Whatever ends the program says $why, with status 0."""
    return f"""\
set -euo pipefail
{weights_fetch.variables(plan.data_dir, plan.model)}image={shlex.quote(plan.image)}
{weights_fetch.MADE}exec 2>/dev/null
why="not begun" heartbeat=
ended() {{
  [ -z "$heartbeat" ] || kill "$heartbeat" || true
  if [ -f "$models/$model/config.json" ]; then echo "$model is here"; else echo "$model: $why"; fi
  exit 0
}}
trap ended EXIT
[ ! -f "$models/$model/config.json" ] || exit 0
if [ -f "$made/.complete" ]; then why="a copy is here"; exit 0; fi
for engine in {shlex.join(plan.engine_images)}; do
  if docker image inspect "$engine" >/dev/null; then why="the engine's image is here"; exit 0; fi
done
"""
