"""What vLLM serves, and the options of it that a stack may set."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from catalog.images import VLLM_VERSION
from catalog.models import DEFAULT_MAX_MODEL_LEN, KNOWN_MODELS, SMOLLM2
from catalog.vllm import TOOL_PARSERS
from catalog.vllm_options import SUCCESSORS, long_name, nearest_option, options
from catalog.vllm_values import plain, problems
from settings.words import RulesError, Tree, text_like

_ONE_MACHINE = "a stack has one engine on one machine; use tensor-parallel-size or pipeline-parallel-size"
_EDGE_ENDS_TLS = "the edge ends TLS"
_EDGE_ANSWERS_BROWSERS = "the edge decides which web pages may ask"
_FOREIGN_CODE = "it would run code that is not vLLM's own"
_OTHER_MACHINES = "it would connect the engine with other machines, past the edge"
_CLIENT_COULD_END_IT = "one request of a client could end the engine for everybody, or take its memory"

OPTIONS_WE_OWN = {
    "api-key": "keys are generated, one per client",
    "config": "the program writes vLLM's configuration file",
    "host": "the engine listens where only the edge reaches it",
    "port": "set seatable-vllm:ports.engine",
    "uds": "the engine listens where only the edge reaches it",
    "model": "set seatable-vllm:model.name",
    "max-model-len": "set seatable-vllm:model.max_model_len",
    "revision": "set seatable-vllm:model.revision",
    "served-model-name": "clients are billed and configured by the model's own id",
    "tool-call-parser": "set seatable-vllm:model.tool_parser",
    "enable-auto-tool-choice": "set seatable-vllm:model.tool_parser",
    "root-path": "the edge decides which paths exist",
    "ssl-keyfile": _EDGE_ENDS_TLS,
    "ssl-certfile": _EDGE_ENDS_TLS,
    "ssl-cert-reqs": _EDGE_ENDS_TLS,
    "ssl-ciphers": _EDGE_ENDS_TLS,
    "enable-ssl-refresh": _EDGE_ENDS_TLS,
    "allowed-origins": _EDGE_ANSWERS_BROWSERS,
    "allowed-methods": _EDGE_ANSWERS_BROWSERS,
    "allowed-headers": _EDGE_ANSWERS_BROWSERS,
    "allow-credentials": _EDGE_ANSWERS_BROWSERS,
    "headless": "the endpoint needs the engine's server",
    "tokens-only": "the endpoint needs the engine's server",
    "grpc": "the edge speaks HTTP with the engine",
    "grpc-port": "the edge speaks HTTP with the engine",
    "nnodes": _ONE_MACHINE,
    "node-rank": _ONE_MACHINE,
    "master-addr": _ONE_MACHINE,
    "master-port": _ONE_MACHINE,
    "data-parallel-size": _ONE_MACHINE,
    "data-parallel-size-local": _ONE_MACHINE,
    "data-parallel-rank": _ONE_MACHINE,
    "data-parallel-start-rank": _ONE_MACHINE,
    "data-parallel-address": _ONE_MACHINE,
    "data-parallel-rpc-port": _ONE_MACHINE,
    "data-parallel-backend": _ONE_MACHINE,
    "data-parallel-hybrid-lb": _ONE_MACHINE,
    "data-parallel-external-lb": _ONE_MACHINE,
    "data-parallel-multi-port-external-lb": _ONE_MACHINE,
    "data-parallel-supervisor-port": _ONE_MACHINE,
    "enable-elastic-ep": _ONE_MACHINE,
    "elastic-ep-max-dp-size": _ONE_MACHINE,
    "ray-workers-use-nsight": _ONE_MACHINE,
    "tool-server": "it would run tools, and what a model writes, on the machine",
    "worker-cls": _FOREIGN_CODE,
    "worker-extension-cls": _FOREIGN_CODE,
    "scheduler-cls": _FOREIGN_CODE,
    "logits-processors": _FOREIGN_CODE,
    "io-processor-plugin": _FOREIGN_CODE,
    "tool-parser-plugin": _FOREIGN_CODE,
    "reasoning-parser-plugin": _FOREIGN_CODE,
    "structured-outputs-config.reasoning_parser_plugin": _FOREIGN_CODE,
    "model-class-overrides": _FOREIGN_CODE,
    "compilation-config.inductor_passes": _FOREIGN_CODE,
    "ec-manager-config": _FOREIGN_CODE,
    "log-config-file": _FOREIGN_CODE,
    "logging-config.pylogging_config_file": _FOREIGN_CODE,
    "kv-transfer-config": _OTHER_MACHINES,
    "kv-events-config": _OTHER_MACHINES,
    "ec-transfer-config": _OTHER_MACHINES,
    "weight-transfer-config": _OTHER_MACHINES,
    "otlp-traces-endpoint": _OTHER_MACHINES,
    "collect-detailed-traces": _OTHER_MACHINES,
    "download-dir": "weights are fetched before the engine starts, to models/ in machine.data_dir",
    "enable-prompt-embeds": _CLIENT_COULD_END_IT,
    "enable-mm-embeds": _CLIENT_COULD_END_IT,
    "trust-request-chat-template": _CLIENT_COULD_END_IT,
    "trust-request-mm-kwargs": _CLIENT_COULD_END_IT,
    "pooler-config": "the endpoint is one for chat completions",
    "skip-tokenizer-init": "the endpoint is one for chat completions",
    "mm-encoder-only": "the endpoint is one for chat completions",
    "enable-scale-out": "it would open routes that ask for no key",
    "enable-offline-docs": "the engine's documentation pages are off",
    "disable-fastapi-docs": "the engine's documentation pages are off",
    "disable-log-stats": "the health check reads the engine's counters",
    "hf-token": "set the secret seatable-vllm:hugging_face_token",
    "allowed-media-domains": "set seatable-vllm:model.media_domains",
    "allowed-local-media-path": "it would let a client read files of the server",
    "enable-tokenizer-info-endpoint": "it would open a route that asks for no key",
    "profiler-config": "it would open routes that ask for no key",
    "ssl-ca-certs": _EDGE_ENDS_TLS,
    "middleware": "it would run code of its own in front of the key check",
}
"""vLLM options that `model.extra_args` must not name, and what to do in place of it; OPTION.KEY in a map."""


def _tool_parser(value: object) -> str:
    if not isinstance(value, str) or value not in {*TOOL_PARSERS, "none"}:
        near = difflib.get_close_matches(str(value), TOOL_PARSERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(TOOL_PARSERS))}."
        raise ValueError(f"is not a tool parser of vLLM {VLLM_VERSION}; {hint} Write none to switch tools off")
    return value


def _option_value(value: object) -> object:
    if not isinstance(value, bool | int | float | str | list | dict):
        raise ValueError("is not a value of an option; give text, a number, true or false, a list or a map")
    return value


ModelName = Annotated[
    str,
    text_like(
        r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*",
        f"is not a model id; write OWNER/NAME as on the Hugging Face hub, such as {SMOLLM2}",
    ),
]
Revision = Annotated[
    str,
    text_like(
        r"[A-Za-z0-9][A-Za-z0-9._/-]*",
        "is not a revision; write a commit of the model's repository, in quotes where it is digits alone",
    ),
]
MediaDomain = Annotated[
    str,
    text_like(
        r"(?!(?:.*\.)?localhost$)(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*(?=[^.]*[a-z])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
        "is not the name of a host to fetch from; write it alone and in small letters, such as files.example.com: "
        "no https://, port, path, * or address",
    ),
]
OptionValue = Annotated[Any, BeforeValidator(_option_value)]


def _plain_values(extra_args: Mapping[str, object]) -> Mapping[str, object]:
    return {name: plain(name, value) if name in options() else value for name, value in extra_args.items()}


def _option_problems(option: str, value: object) -> Iterator[str]:
    """What is wrong with an option's name, or with its value: lines that begin with the option."""
    bare = option.lstrip("-").replace("_", "-").split(".")[0]
    name = long_name(bare)
    # vLLM completes a shortened option by itself.
    owned = (
        [name]
        if name in options()
        else [each for each in OPTIONS_WE_OWN if name and each.startswith(name) and "." not in each]
    )
    if reason := next((OPTIONS_WE_OWN[each] for each in owned if each in OPTIONS_WE_OWN), None):
        yield f"{option}: not free to set; {reason}"
    elif name not in options():
        yield f"{option}: vLLM {VLLM_VERSION} has no such option; {_in_place_of(name)}"
    elif "." in option:
        inner = option.partition(".")[2].replace(".", ": {") + ": VALUE" + "}" * option.count(".")
        yield f"{option}: write it as a map, {name}: {{{inner}"
    elif option != name:
        yield f"{option}: write the option as {name}"
    else:
        yield from _inner_problems(name, value) or problems(name, value)


def _inner_problems(option: str, value: object) -> list[str]:
    """The keys of an option's map that are not free to set."""
    inside = [f"{option}.{key}" for key in value] if isinstance(value, dict) else []
    return [f"{place}: not free to set; {OPTIONS_WE_OWN[place]}" for place in inside if place in OPTIONS_WE_OWN]


def _in_place_of(name: str) -> str:
    """What to write in place of an option that this vLLM does not have."""
    if name in SUCCESSORS:
        return SUCCESSORS[name]
    positive = name.removeprefix("no-")
    if positive != name and options().get(positive, {}).get("is") == ["switch"]:
        return f"write {positive}: false"
    near = nearest_option(name)
    return f"did you mean {near}?" if near else "vllm serve --help=all has them"


class Model(Tree):
    """What vLLM serves, and the options the program does not set itself."""

    name: ModelName = SMOLLM2
    """The model's id on the Hugging Face hub; clients send exactly this id."""
    revision: Revision | None = None
    """A commit, branch or tag of the model's repository on the hub; None: its main branch."""
    max_model_len: Annotated[int, Field(ge=256)] | None = None
    """Tokens of prompt and answer together; None: the model's own limit, at most 65536."""
    tool_parser: Annotated[str, BeforeValidator(_tool_parser)] | None = None
    """vLLM's parser for tool calls; None: the known one of this model; "none": no tool calls."""
    media_domains: Sequence[MediaDomain] = ()
    """Hosts that the engine may fetch pictures from when a client sends their address (http and https, any port);
    none: clients send pictures in the request."""
    extra_args: Annotated[Mapping[str, OptionValue], AfterValidator(_plain_values)] = {}
    """Any other vLLM option by its long name without dashes in front."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer that is served, in tokens."""
        known = KNOWN_MODELS.get(self.name)
        limit = min(known.max_model_len, DEFAULT_MAX_MODEL_LEN) if known else DEFAULT_MAX_MODEL_LEN
        return self.max_model_len or limit

    @property
    def vision(self) -> Literal["yes", "no", "unknown"]:
        """Whether the model reads pictures, as far as this program knows it."""
        known = KNOWN_MODELS.get(self.name)
        return "unknown" if known is None else "yes" if known.vision else "no"

    @property
    def parser(self) -> str | None:
        """The tool parser in use, or None when tools are off."""
        if self.tool_parser is not None:
            return None if self.tool_parser == "none" else self.tool_parser
        known = KNOWN_MODELS.get(self.name)
        return known.tool_parser if known else None

    @property
    def preset(self) -> Mapping[str, Any]:
        """vLLM's options that this model's family needs, as far as this program knows it."""
        known = KNOWN_MODELS.get(self.name)
        return known.family.preset() if known else {}

    @model_validator(mode="after")
    def _fits_the_model_and_leaves_our_options_alone(self) -> Model:
        found = []
        known = KNOWN_MODELS.get(self.name)
        if known and self.max_model_len and self.max_model_len > known.max_model_len:
            found.append(
                f"max_model_len: {self.max_model_len} is longer than {self.name} allows; "
                f"set it to {known.max_model_len} or less, or leave it out"
            )
        for option, value in self.extra_args.items():
            found += [f"extra_args.{line}" for line in _option_problems(option, value)]
        if self.extra_args.get("trust-remote-code") is True and not self.revision:
            found.append(
                "extra_args.trust-remote-code: true: runs the model publisher's code; pin it with model.revision"
            )
        if found:
            raise RulesError("\n".join(found))
        return self
