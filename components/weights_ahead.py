"""Weights that are fetched while the engine's image, which else fetches them, is still being pulled."""

import shlex
from collections.abc import Sequence

from components import weights_fetch

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


def ahead_program(
    data_dir: str,
    model: str,
    revision: str | None,
    token: str | None,
    *,
    image: str,
    engine_images: Sequence[str],
    pins: str,
) -> str:
    """A bash program that fetches the model with an image of Python alone, into which it puts the hub's client.

    It ends with status 0 whatever happens, and says in one line what that is. Causes and ways out are left to the
    step with the engine's image, which goes on where this one ended; so no tool's words are let out here either.
    image: that of Python. engine_images: where one of these is here, there is nothing to be ahead of. pins: the
    client's packages with their hashes, as pip reads them.
    """
    fetch = _CLIENT.format(pins=pins, status=NO_CLIENT) + weights_fetch.fetching(model, revision, token)
    return f"""\
set -euo pipefail
{weights_fetch.variables(data_dir, model)}image={shlex.quote(image)}
{weights_fetch.MADE}exec 2>/dev/null
why="its folder cannot be made" heartbeat=
ended() {{
  [ -z "$heartbeat" ] || kill "$heartbeat" || true
  if [ -f "$models/$model/config.json" ]; then echo "$model is here"
  else echo "$model is left to the engine's image: $why"; fi
  exit 0
}}
trap ended EXIT
[ ! -f "$models/$model/config.json" ] || exit 0
if [ -f "$made/.complete" ]; then why="a copy is here"; exit 0; fi
for engine in {shlex.join(engine_images)}; do
  if docker image inspect "$engine" >/dev/null; then why="that is here"; exit 0; fi
done
mkdir -p "$models/.partial/$model" "$(dirname "$models/$model")"
{weights_fetch.LOCK}[ ! -f "$models/$model/config.json" ] || exit 0
{weights_fetch.PROGRESS}trap ended EXIT
why="$image is not to be had"
docker image inspect "$image" >/dev/null || timeout 300 docker pull --quiet "$image" >/dev/null
why="this try was cut short"
status=0
{weights_fetch.CONTAINER} >/dev/null <<'FETCH' || status=$?
{fetch}
FETCH
[ $status != {NO_CLIENT} ] || why="the hub's client is not to be had"
[ $status = 0 ] || exit 0
why="it could not be put in place"
{weights_fetch.COMPLETE}"""
