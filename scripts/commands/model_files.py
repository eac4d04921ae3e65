"""A model's sizes: from the catalogue, from a folder on this computer, or from the Hugging Face hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from catalog.models import KNOWN_MODELS, Family, family_of, weights_in_index
from catalog.sizing import ModelShape, ShapeError
from catalog.vllm_options import architectures
from scripts.commands.errors import failure

HUB = "https://huggingface.co"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE_FILES = ("model.safetensors", "consolidated.safetensors")
PARAMS = "params.json"
OWN_INDEX = "consolidated.safetensors.index.json"
"""Mistral's own form of a model. vLLM takes it wherever its weights (consolidated*.safetensors) are there too."""
SECONDS = 20
"""How long the hub has for an answer."""

NOT_FOUND = 404
REFUSED = (401, 403)


@dataclass(frozen=True)
class ModelFiles:
    """What is known of a model before any of its weights are fetched."""

    name: str
    shape: ModelShape
    family: Family | None
    source: str
    """Where the sizes are from: catalogue, a folder, or the hub."""


def find(name: str, *, token: str | None = None, hub: str | None = None) -> ModelFiles:
    """The model of this name: a folder that is there, one of the catalogue, or one of the hub.

    token: Hugging Face token for a gated model. hub: address of the hub; None: HF_ENDPOINT, or the public one.
    Raises CommandError that names what is wrong with the model's files, or the way to them.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder)
    if known := KNOWN_MODELS.get(name):
        return ModelFiles(name, known.shape, known.family, "catalogue")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise failure(
            f"{name} is no folder, and no id of a model on the hub",
            "name a folder with a config.json, or an id such as Qwen/Qwen3-8B",
        )
    return _from_hub(name, token, (hub or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"))


def _from_folder(folder: Path) -> ModelFiles:
    own = list(folder.glob("consolidated*.safetensors"))
    config = folder / (PARAMS if own and (folder / PARAMS).is_file() else CONFIG)
    if not config.is_file():
        raise failure(f"{folder} has no {CONFIG}", "name the folder that holds the model's files")
    others = [each for each in folder.glob("*.safetensors") if each not in own]
    # Both forms in one folder are the same weights twice.
    weights = sum(each.stat().st_size for each in (own if config.name == PARAMS or not others else others))
    if not weights and (folder / INDEX).is_file():
        weights = weights_in_index(_parsed((folder / INDEX).read_text(), f"{folder / INDEX}")) or 0
    return _found(folder.name, _parsed(config.read_text(), str(config)), weights, str(folder))


def _from_hub(name: str, token: str | None, hub: str) -> ModelFiles:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(headers=headers, timeout=SECONDS, follow_redirects=True) as client:
            config = _file(client, f"{hub}/{name}/resolve/main/{CONFIG}", name, hub, with_token=bool(token))
            own = _own_form(client, name, hub, with_token=bool(token))
            if own is not None:
                return _found(name, *own, hub)
            if config is None:
                raise failure(
                    f"{name} has no {CONFIG} on the hub, so it is no model that vLLM could serve",
                    "take the model itself, not a folder of GGUF files or adapters",
                )
            index = _file(client, f"{hub}/{name}/resolve/main/{INDEX}", name, hub, with_token=bool(token))
            weights = (
                weights_in_index(_parsed(index, f"{INDEX} of {name}")) if index else _single(client, name, hub)
            )
    except httpx.HTTPError as error:
        raise failure(
            f"the hub {hub} cannot be reached for {name}: {error or type(error).__name__}",
            "check the way out to it (HTTPS_PROXY, HF_ENDPOINT), or name a folder with the model's files",
        ) from None
    return _found(name, _parsed(config, f"{CONFIG} of {name}"), weights or 0, hub)


def _file(client: httpx.Client, url: str, name: str, hub: str, *, with_token: bool) -> str | None:
    """The text of one file, or None where the model has no such file."""
    answer = client.get(url)
    if answer.is_success:
        return answer.text
    code = answer.headers.get("x-error-code", "")
    if answer.status_code == NOT_FOUND and code == "EntryNotFound":
        return None
    if code == "GatedRepo" or (answer.status_code in REFUSED and code != "RepoNotFound"):
        change = (
            f"accept its licence at {hub}/{name} with the account that the token is of"
            if with_token
            else f"accept its licence at {hub}/{name}, and set HF_TOKEN to a token of that account"
        )
        raise failure(f"{name} is gated, and the hub does not hand out its files", change)
    if answer.status_code in (NOT_FOUND, *REFUSED):
        raise failure(
            f"the hub knows no model {name}",
            "write its id as on the hub, OWNER/NAME with the same letters; a private one needs HF_TOKEN",
        )
    raise failure(f"the hub answered {answer.status_code} for {name}", "try again later; its status page has more")


def _own_form(
    client: httpx.Client, name: str, hub: str, *, with_token: bool
) -> tuple[Mapping[str, Any], int] | None:
    """A Mistral model's params.json and the bytes of its weights; None where it has not both."""
    params = _file(client, f"{hub}/{name}/resolve/main/{PARAMS}", name, hub, with_token=with_token)
    if params is None:
        return None
    index = _file(client, f"{hub}/{name}/resolve/main/{OWN_INDEX}", name, hub, with_token=with_token)
    if index:
        weights = weights_in_index(_parsed(index, f"{OWN_INDEX} of {name}"))
    else:
        weights = _single(client, name, hub, SINGLE_FILES[1:])
    return (_parsed(params, f"{PARAMS} of {name}"), weights) if weights else None


def _single(client: httpx.Client, name: str, hub: str, files: Sequence[str] = SINGLE_FILES) -> int | None:
    """Bytes of a model whose weights are one file."""
    for file in files:
        # The hub's own answer has the size of the file; where it sends one to, there may be another size.
        answer = client.head(f"{hub}/{name}/resolve/main/{file}", follow_redirects=False)
        size = answer.headers.get("x-linked-size") or (
            answer.headers.get("content-length") if answer.is_success else None
        )
        if size and size.isdigit():
            return int(size)
    return None


def _parsed(text: str, what: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise failure(
            f"{what} is no JSON: {error}", "fetch the file anew; it is cut off or not the real one"
        ) from None
    if not isinstance(parsed, dict):
        raise failure(f"{what} is no JSON object", "fetch the file anew; it is not the real one")
    return parsed


def _found(name: str, config: Mapping[str, Any], weights: int, source: str) -> ModelFiles:
    if not weights:
        raise failure(
            f"{name} has no safetensors files, so the size of its weights is not known",
            "take a checkpoint with safetensors; vLLM 0.32 reads no GGUF",
        )
    try:
        shape = ModelShape.from_config(config, weights)
    except ShapeError as error:
        raise failure(f"{name}: {error}", "take another model, or try it on a machine by hand") from None
    if shape.architecture not in architectures():
        raise failure(
            f"{name} is a {shape.architecture}, which vLLM 0.32 does not serve",
            "take another model, or another image (seatable-vllm:images.vllm) that has it",
        )
    return ModelFiles(name, shape, family_of(name, shape.architecture), source)
