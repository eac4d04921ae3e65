"""PicoClaw: `config.json` of schema version 3, and the key in `.security.yml` beside it, where PicoClaw keeps it.

PicoClaw sends `tools` with every request and `max_tokens` with every request, so both have to suit the model.
Schema: `pkg/config` of PicoClaw at cf67dd38 (2026-06-13); its loader was run on what stands here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from clients.endpoint import CA_FILE, SAVE_CA, ClientEndpoint
from clients.given import at, named
from settings.fallbacks import Fallback

VERSION = 3
"""Schema version of config.json. PicoClaw rewrites files of older ones, where they have no field it took out."""

NAME = "vllm"
"""What the entry is called in PicoClaw. `local-model` is taken by an entry of its own."""

TIMEOUT_SECONDS = 180
"""For one whole answer, in place of PicoClaw's 120."""

MOST_ANSWER_TOKENS = 8192
ANSWER_SHARE = 4
"""An answer gets this part of the context at most: PicoClaw takes it off what prompt, tools and history get."""

DEFAULT_ANSWER_TOKENS = 32768
"""What PicoClaw asks for where max_tokens is not set."""

RESTART = "picoclaw gateway"


def answer_tokens(max_model_len: int) -> int:
    """The longest answer to ask for, in tokens."""
    return min(MOST_ANSWER_TOKENS, max_model_len // ANSWER_SHARE)


def config_json(endpoint: ClientEndpoint) -> str:
    """`~/.picoclaw/config.json`, without a key."""
    return _config(endpoint, endpoint.base_url)


def loopback_json(endpoint: ClientEndpoint) -> str:
    """The same for a PicoClaw on the machine itself or at the end of a tunnel; it needs no key.

    ValueError where the endpoint has no listener that asks for none.
    """
    if endpoint.loopback is None:
        raise ValueError("set seatable-vllm:ports.loopback")
    return _config(endpoint, endpoint.loopback)


def security_yml(endpoint: ClientEndpoint) -> str:
    """`~/.picoclaw/.security.yml`: the key, by the name of the entry in config.json."""
    trust = (
        f"# private CA: {SAVE_CA}\n# and start PicoClaw with SSL_CERT_FILE={CA_FILE} in its environment\n"
        if endpoint.private_ca
        else ""
    )
    block: str = yaml.safe_dump({"model_list": {NAME: {"api_keys": [endpoint.key]}}}, width=1000)
    return (
        "# PicoClaw: put into ~/.picoclaw/.security.yml (chmod 600) beside config.json,\n"
        f"# then start it again: {RESTART}\n{trust}{block}{_keys_to_add(endpoint.fallbacks)}"
    )


def _keys_to_add(fallbacks: Sequence[Fallback]) -> str:
    """Lines of .security.yml, commented out, for the keys of the fallbacks: this program does not have them."""
    lines = []
    for each in fallbacks:
        block: str = yaml.safe_dump({each.name: {"api_keys": [f"KEY OF {each.provider}"]}}, width=1000)
        lines += [f"  # {line}\n" for line in block.splitlines()]
    said = "  # Each fallback needs its own key, if it asks for one. Write it here and remove the # in front:\n"
    return "".join([said, *lines]) if lines else ""


def _fallback_entry(fallback: Fallback) -> dict[str, Any]:
    return {
        "model_name": fallback.name,
        "provider": fallback.provider,
        "model": fallback.model,
        **({"api_base": fallback.base_url} if fallback.base_url else {}),
        "request_timeout": TIMEOUT_SECONDS,
        "enabled": True,
    }


def _config(endpoint: ClientEndpoint, base_url: str) -> str:
    names = [each.name for each in endpoint.fallbacks]
    tree = {
        "version": VERSION,
        "agents": {
            "defaults": {
                "model_name": NAME,
                **({"model_fallbacks": names} if names else {}),
                "max_tokens": answer_tokens(endpoint.max_model_len),
                "context_window": endpoint.max_model_len,
            }
        },
        "model_list": [
            {
                "model_name": NAME,
                # Without it the first part of the id would be taken for a provider.
                "provider": "vllm",
                "model": endpoint.model,
                "api_base": base_url,
                "request_timeout": TIMEOUT_SECONDS,
                "enabled": True,
            },
            *map(_fallback_entry, endpoint.fallbacks),
        ],
    }
    return json.dumps(tree, indent=2) + "\n"


def problems(text: str, endpoint: ClientEndpoint) -> list[str]:
    """What keeps a config.json from working with this endpoint: each with its place and the way out."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        return [f"config.json: is no JSON: {error}"]
    if not isinstance(tree, dict):
        return ["config.json: is no JSON object"]
    old = _old_format(tree)
    return old or [*_tokens(tree, endpoint), *_entry(tree, endpoint), *_fallbacks(tree)]


def _old_format(tree: Mapping[str, Any]) -> list[str]:
    found = []
    if "providers" in tree:
        found.append(
            "providers: is no part of the format any more, and PicoClaw does not load a file with it; an entry of "
            "model_list takes its place"
        )
    if at(tree, "agents", "defaults", "model") is not None:
        found.append("agents.defaults.model: is called model_name now, and names an entry of model_list")
    version = tree.get("version", 0)
    if version != VERSION:
        found.append(
            f"version: {version!r} is not the format that this program writes; use the one of version {VERSION}"
        )
    models = tree.get("model_list")
    for number, entry in enumerate(models if isinstance(models, list) else []):
        if isinstance(entry, dict) and "api_key" in entry:
            found.append(
                f"model_list[{number}].api_key: is no part of the format any more; the key goes to .security.yml, "
                "as api_keys"
            )
    return found


def _tokens(tree: Mapping[str, Any], endpoint: ClientEndpoint) -> list[str]:
    found = []
    limit = endpoint.max_model_len
    defaults = named(tree, "agents", "defaults")
    answer = defaults.get("max_tokens", DEFAULT_ANSWER_TOKENS)
    if not isinstance(answer, int) or answer >= limit:
        found.append(
            f"agents.defaults.max_tokens: {answer!r}, of {limit} tokens for prompt and answer together; the "
            f"endpoint answers 400. Set it to {answer_tokens(limit)}"
        )
    window = defaults.get("context_window")
    if not isinstance(window, int) or window > limit:
        found.append(
            f"agents.defaults.context_window: {'is missing' if window is None else repr(window)}; PicoClaw would "
            f"let a chat grow over what is served. Set it to {limit}"
        )
    return found


def _entries(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = tree.get("model_list")
    return [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []


def _fallbacks(tree: Mapping[str, Any]) -> list[str]:
    """Fallbacks without an entry. PicoClaw starts with them, and has no key and no address when it needs them."""
    where = "agents.defaults.model_fallbacks"
    given = at(tree, "agents", "defaults", "model_fallbacks")
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        return [f"{where}: is not a list of names; PicoClaw does not load such a file"]
    entries = _entries(tree)
    known = [str(each.get("model_name")) for each in entries]
    # PicoClaw looks for the id of a model too, with its provider in front or without.
    ids = {str(each.get("model")) for each in entries}
    ids |= {f"{each.get('provider')}/{each.get('model')}" for each in entries}
    return [
        f"{where}: {name!r} is not the model_name of an entry of model_list, which has {', '.join(known)}; add an "
        "entry with provider, model and enabled: true, or take it out"
        for name in given
        if name not in {*known, *ids}
    ]


def _entry(tree: Mapping[str, Any], endpoint: ClientEndpoint) -> list[str]:
    name = at(tree, "agents", "defaults", "model_name")
    entries = _entries(tree)
    entry = next((each for each in entries if each.get("model_name") == name), None)
    if name is None or entry is None:
        known = ", ".join(str(each.get("model_name")) for each in entries) or "nothing"
        return [
            f"agents.defaults.model_name: {name!r} is not in model_list, which has {known}; "
            "PicoClaw will not start"
        ]
    where = f"model_list ({name})"
    found = []
    if name == "local-model":
        found.append(f"{where}.model_name: PicoClaw has an entry of this name itself; call it {NAME}")
    for key, wanted in (("provider", "vllm"), ("model", endpoint.model), ("enabled", True)):
        if entry.get(key) != wanted:
            found.append(f"{where}.{key}: {entry.get(key)!r}; set it to {json.dumps(wanted)}")
    if str(entry.get("api_base", "")).rstrip("/") not in endpoint.base_urls:
        found.append(f"{where}.api_base: {entry.get('api_base')!r}; set it to {' or '.join(endpoint.base_urls)}")
    return found
