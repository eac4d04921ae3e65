"""What both steps that fetch weights have in common: where they go, and the program that asks the hub for them."""

import shlex

from components.confined import RUN_OPTIONS
from components.machine.machine import heartbeat

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
        change = "accept its licence, then: scripts/secret hugging_face_token --stack STACK"
    elif "RevisionNotFoundError" in kinds:
        cause = f"seatable-vllm: revision unknown: the hub knows no revision {{revision}} of {{name}}"
        change = "set seatable-vllm:model.revision to a commit of the model's repository, or leave it out"
    elif "RepositoryNotFoundError" in kinds:
        cause = f"seatable-vllm: model unknown: the hub knows no {{name}} (revision {{revision or 'main'}})"
        change = "set seatable-vllm:model.name to the exact id on the hub"
    elif status == 429:
        cause = "seatable-vllm: hub rate limit: the Hugging Face hub has had too many requests from this address"
        change = "wait, or set a token: scripts/secret hugging_face_token --stack STACK"
    elif status in (401, 403):
        cause = f"seatable-vllm: hub token refused: the hub answers {{status}} to the token, or to none"
        change = "set one that may read it: scripts/secret hugging_face_token --stack STACK"
    else:
        cause = f"seatable-vllm: model not here and hub not reached: {{name}}: {{kinds[0]}}"
        change = "check seatable-vllm:model.name and the way out to the Hugging Face hub"
    print(f"phase: weights present\\ncause: {{cause}}\\nchange: {{change}}", file=sys.stderr)
    sys.exit(1)
"""


def fetching(model: str, revision: str | None, token: str | None) -> str:
    """A Python program that fetches a model with the hub's client into /models/.partial, or says why not."""
    return _FETCH.format(name=model, revision=revision, token=token or None, folder=f"/models/.partial/{model}")


def variables(data_dir: str, model: str) -> str:
    """Lines of bash: where models lie, which one is meant, and where it is noted how often that was lost."""
    models = f"{data_dir}/models"
    mark = f"{models}/.lost/{model}"
    return f"models={shlex.quote(models)} model={shlex.quote(model)} mark={shlex.quote(mark)}\n"


MADE = 'made="${XDG_CACHE_HOME:-$HOME/.cache}/seatable-vllm/models/$model"\n'
"""A line of bash: where scripts/up keeps a model that it has made from packages."""

PROGRESS = heartbeat('fetching $model, $(du -sm "$models/.partial" | cut -f1) MiB, $SECONDS s')
"""Lines of bash that say every ten seconds how much there is."""

LOCK = """\
# What an interrupted run left running must not write beside this one.
if command -v flock >/dev/null; then exec 9>"$models/.lock"; flock 9; fi
"""
"""Lines of bash after which no other run of either step writes there until this one ends."""

CONTAINER = f"""\
# As this user: what root wrote there the lines below could neither move nor remove.
docker run --rm --interactive {RUN_OPTIONS} \\
  --user "$(id -u):$(id -g)" --volume "$models:/models" --env HOME=/tmp \\
  --env HF_HOME=/models/.partial/.hub --env HF_XET_HIGH_PERFORMANCE=1 --env HF_HUB_DISABLE_PROGRESS_BARS=1 \\
  --entrypoint python3 "$image" -"""
"""Call of a container of $image that reads a Python program on its standard input."""

COMPLETE = """\
# The hub's client begins a file that was cut off anew, and leaves what there was of it.
find "$models/.partial/$model" -name '*.incomplete' -delete
# First noted, then there: at the end of a stack only what it has fetched is removed.
echo "$model" >> "$models/.made"
mv -T "$models/.partial/$model" "$models/$model"
rm -rf "$models/.partial"
"""
"""Lines of bash that give a whole download its name; a folder of that name counts as complete."""
