"""The model's weights on the machine's disk, fetched by the engine's own image before the engine starts."""

import shlex
from typing import TypedDict

import pulumi

from components.image import ContainerImage
from components.machine import Machine
from components.machine.machine import heartbeat

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
        # A folder that somebody removed: without a look at the disk it would count as done for ever.
        lost = machine.look(
            lost_program(machine.data_dir, model, write=not pulumi.runtime.is_dry_run()), parent=self
        )
        ran = machine.run(
            f"{name}-present",
            {"program": program, "triggers": [lost]},
            parent=self,
            depends_on=[args["image"].present],
        )
        self.present = ran.resource
        self.register_outputs({})


_FETCH = """\
import errno, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a stack trace
from huggingface_hub import HfApi, snapshot_download
name, revision, token, folder = {name!r}, {revision!r}, {token!r}, {folder!r}
try:
    files = HfApi().list_repo_files(name, revision=revision, token=token)
    # Other formats of the same weights would double or triple the download.
    useless = ["*.gguf", "*.pth", "original/*", "onnx/*"]
    useless += ["*.bin", "*.msgpack", "*.h5"] if any(f.endswith(".safetensors") for f in files) else []
    snapshot_download(name, revision=revision, token=token, local_dir=folder, ignore_patterns=useless)
except Exception as error:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    # The library wraps what the hub answered in an error about its cache.
    chain = [error, error.__cause__, error.__context__]
    status = next((each.response.status_code for each in chain if getattr(each, "response", None) is not None), 0)
    if getattr(error, "errno", None) == errno.ENOSPC:
        cause = "seatable-vllm: disk nearly full: No space left on device while the weights were fetched"
        change = "free space, or set seatable-vllm:machine.data_dir to a folder on a larger disk"
    elif "GatedRepoError" in kinds:
        cause = "GatedRepoError: the model is gated, or the token may not read it"
        change = "accept its licence, then: pulumi config set --secret seatable-vllm:hugging_face_token"
    elif "RevisionNotFoundError" in kinds:
        cause = f"seatable-vllm: revision unknown: the hub knows no revision {{revision}} of {{name}}"
        change = "set seatable-vllm:model.revision to a commit of the model's repository, or leave it out"
    elif "RepositoryNotFoundError" in kinds:
        cause = f"seatable-vllm: model unknown: the hub knows no {{name}} (revision {{revision or 'main'}})"
        change = "set seatable-vllm:model.name to the exact id on the hub"
    elif status == 429:
        cause = "seatable-vllm: hub rate limit: the Hugging Face hub has had too many requests from this address"
        change = "wait, or set a token: pulumi config set --secret seatable-vllm:hugging_face_token"
    elif status in (401, 403):
        cause = f"seatable-vllm: hub token refused: the hub answers {{status}} to the token, or to none"
        change = "set one that may read it: pulumi config set --secret seatable-vllm:hugging_face_token"
    else:
        cause = f"seatable-vllm: model not here and hub not reached: {{name}}: {{kinds[0]}}"
        change = "check seatable-vllm:model.name and the way out to the Hugging Face hub"
    print(f"phase: weights present\\ncause: {{cause}}\\nchange: {{change}}", file=sys.stderr)
    sys.exit(1)
"""


def weights_program(data_dir: str, model: str, revision: str | None, image: str, token: str | None) -> str:
    """A bash program that makes sure of the folder models/MODEL, resuming where a run was cut off.

    A folder of that name is complete: a download lives under models/.partial until its last byte is there.
    A copy in the user's cache (where scripts/up keeps what it made from packages) saves the download.
    """
    fetch = _FETCH.format(name=model, revision=revision, token=token or None, folder=f"/models/.partial/{model}")
    progress = 'fetching $model, $(du -sm "$models/.partial" | cut -f1) MiB, $SECONDS s'
    return f"""\
set -euo pipefail
{_variables(data_dir, model)}image={shlex.quote(image)}
here() {{ mkdir -p "$(dirname "$mark")"; [ -e "$mark" ] || echo 0 > "$mark"; echo "$model is here"; exit 0; }}
made="${{XDG_CACHE_HOME:-$HOME/.cache}}/seatable-vllm/models/$model"
[ ! -f "$models/$model/config.json" ] || here
mkdir -p "$models/.partial/$model" "$(dirname "$models/$model")"
# What an interrupted run left running must not write beside this one.
if command -v flock >/dev/null; then exec 9>"$models/.lock"; flock 9; fi
[ ! -f "$models/$model/config.json" ] || here
if [ -f "$made/.complete" ]; then
  cp -a "$made/." "$models/.partial/$model/"
else
  {heartbeat(progress)}
  # As this user: what root wrote there the lines below could neither move nor remove.
  docker run --rm --interactive --user "$(id -u):$(id -g)" --volume "$models:/models" --env HOME=/tmp \\
    --env HF_HOME=/models/.partial/.hub --env HF_XET_HIGH_PERFORMANCE=1 --env HF_HUB_DISABLE_PROGRESS_BARS=1 \\
    --entrypoint python3 "$image" - <<'FETCH'
{fetch}
FETCH
fi
mv -T "$models/.partial/$model" "$models/$model"
rm -rf "$models/.partial"
here
"""


def lost_program(data_dir: str, model: str, *, write: bool) -> str:
    """A bash program that prints how often the complete folder of a model was found gone.

    A number that only grows makes the weights be fetched again exactly once for each time. write: whether a new
    number is to be remembered; a preview only says it.
    """
    return f"""\
{_variables(data_dir, model)}lost=$(cat "$mark" 2>/dev/null) || {{ echo 0; exit 0; }}
if [ ! -f "$models/$model/config.json" ]; then
  lost=$((lost + 1))
  {'echo "$lost" > "$mark"' if write else ":"}
fi
echo "$lost"
"""


def _variables(data_dir: str, model: str) -> str:
    """Lines of bash: where models lie, which one is meant, and where it is noted how often that was lost."""
    models = f"{data_dir}/models"
    mark = f"{models}/.lost/{model}"
    return f"models={shlex.quote(models)} model={shlex.quote(model)} mark={shlex.quote(mark)}\n"
