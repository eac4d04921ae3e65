"""Archi: its `config.yaml` with the endpoint as the `openai` provider, and the key in the `.env` beside it.

The `openai` provider is the only one of Archi's that sends a key. `local`, for the listener that asks for none,
always sends a placeholder, and `vllm` was never released. Checked against Archi's own loader and providers at
f4775da (2026-03-05).
"""

from collections.abc import Mapping
from typing import Any

import yaml

from clients.endpoint import CA_FILE, SAVE_CA, ClientEndpoint
from clients.given import at, named

AGENT_CLASS = "CMSCompOpsAgent"
AGENTS_DIR = "examples/agents"
"""Archi's own example agent. Both keys are required."""

EMBEDDINGS = "HuggingFaceEmbeddings"
"""Archi's default, OpenAIEmbeddings, would send the endpoint's key and the documents to api.openai.com."""

CREATE = "archi create -n NAME -c config.yaml -e .env --services chatbot"
RESTART = "archi restart -n NAME -c config.yaml -e .env"

CHAT = ("services", "chat_app")


def config_yaml(endpoint: ClientEndpoint) -> str:
    """`config.yaml` with a key from `.env`."""
    return _config(
        endpoint,
        "openai",
        {"base_url": endpoint.base_url},
        f"# then: {CREATE}\n# or, where it is there already: {RESTART}\n",
    )


def loopback_yaml(endpoint: ClientEndpoint) -> str:
    """`config.yaml` for an Archi on the machine itself or at the end of a tunnel; it needs no key.

    ValueError where the endpoint has no listener that asks for none.
    """
    if endpoint.loopback is None:
        raise ValueError("set seatable-vllm:ports.loopback")
    # Without host networking the address would be that of Archi's own container.
    then = f"# then, on the host's network: {CREATE} --hostmode\n"
    return _config(endpoint, "local", {"base_url": endpoint.loopback, "mode": "openai_compat"}, then)


def env(endpoint: ClientEndpoint) -> str:
    """Lines for the `.env` that `archi create -e` is given; without quotes, which not every reader takes off."""
    trust = (
        f"# private CA: {SAVE_CA}\n# mount it into its containers, and name it here: SSL_CERT_FILE=/{CA_FILE}\n"
        if endpoint.private_ca
        else ""
    )
    # An .env without a newline at its end would else take the first line for a part of its last value.
    return f"\n# Archi: append to the .env of `archi create -e .env`\n{trust}OPENAI_API_KEY={endpoint.key}\n"


def _config(endpoint: ClientEndpoint, provider: str, way: Mapping[str, str], then: str) -> str:
    tree = {
        "name": "archi",
        "services": {
            "chat_app": {
                "agent_class": AGENT_CLASS,
                "agents_dir": AGENTS_DIR,
                "default_provider": provider,
                "default_model": endpoint.model,
                "providers": {
                    provider: {
                        "enabled": True,
                        **way,
                        "default_model": endpoint.model,
                        "models": [endpoint.model],
                    }
                },
            }
        },
        "data_manager": {"embedding_name": EMBEDDINGS},
    }
    block: str = yaml.safe_dump(tree, sort_keys=False, width=1000)
    return (
        "# Archi: config.yaml, or copy services.chat_app and data_manager.embedding_name into yours,\n"
        f"{then}"
        f"# The model takes {endpoint.max_model_len} tokens. Archi shortens no longer chat: begin another.\n"
        f"{block}"
    )


def problems(text: str, endpoint: ClientEndpoint) -> list[str]:
    """What keeps a config.yaml from working with this endpoint: each with its place and the way out."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's own text quotes the file, in which a key may stand.
        mark = getattr(error, "problem_mark", None)
        return [f"config.yaml: is no YAML{f', see line {mark.line + 1}' if mark else ''}"]
    if not isinstance(tree, dict):
        return ["config.yaml: is no map"]
    old = _old_format(tree)
    return old or [*_required(tree), *_provider(tree, endpoint)]


def _old_format(tree: Mapping[str, Any]) -> list[str]:
    found = []
    if "archi" in tree:
        found.append("archi: Archi refuses a file with this section; the model is named in services.chat_app now")
    if "vllm" in named(tree, "services"):
        found.append(
            "services.vllm: no release of Archi reads it; services.chat_app.providers says where the endpoint "
            "is. Do not select the service vllm-server either"
        )
    for key in ("provider", "model"):
        if key in named(tree, *CHAT):
            found.append(f"services.chat_app.{key}: Archi refuses it; write default_{key}")
    for owner in ("default_provider", "default_model"):
        value = str(at(tree, *CHAT, owner) or "")
        if value == "vllm" or value.startswith("vllm/"):
            found.append(
                f"services.chat_app.{owner}: {value!r}: no release of Archi has a provider vllm; use openai"
            )
    return found


def _required(tree: Mapping[str, Any]) -> list[str]:
    missing = [("name", tree.get("name"))]
    missing += [
        (f"services.chat_app.{key}", at(tree, *CHAT, key))
        for key in ("agent_class", "agents_dir", "default_provider", "default_model")
    ]
    return [f"{path}: is missing; Archi requires it" for path, value in missing if not value]


def _provider(tree: Mapping[str, Any], endpoint: ClientEndpoint) -> list[str]:
    found = []
    provider, model = at(tree, *CHAT, "default_provider"), at(tree, *CHAT, "default_model")
    if model and model != endpoint.model:
        found.append(f"services.chat_app.default_model: {model!r}; set it to {endpoint.model}")
    if provider not in ("openai", "local", None):
        found.append(f"services.chat_app.default_provider: {provider!r} does not reach this endpoint; use openai")
    if provider not in ("openai", "local"):
        return found
    where, given = f"services.chat_app.providers.{provider}", named(tree, *CHAT, "providers", provider)
    url = endpoint.base_url if provider == "openai" else endpoint.loopback
    if url is None:
        found.append(
            f"{where}: sends no key; use openai, or set seatable-vllm:ports.loopback and bring that port here"
        )
    elif str(given.get("base_url", "")).rstrip("/") != url:
        found.append(f"{where}.base_url: {given.get('base_url')!r}; set it to {url}")
    if given.get("enabled") is False:
        found.append(f"{where}.enabled: Archi refuses a default provider that is switched off; set it to true")
    if provider == "local" and given.get("mode") != "openai_compat":
        found.append(f"{where}.mode: {given.get('mode')!r} speaks Ollama's protocol; set it to openai_compat")
    embeddings = at(tree, "data_manager", "embedding_name") or "OpenAIEmbeddings"
    if provider == "openai" and embeddings == "OpenAIEmbeddings":
        found.append(
            "data_manager.embedding_name: OpenAIEmbeddings, the default, sends this endpoint's key and your "
            f"documents to api.openai.com; set it to {EMBEDDINGS}"
        )
    return found
