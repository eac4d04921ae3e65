"""What vLLM serves, and the options of it that a stack may set."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from catalog.images import VLLM_VERSION
from catalog.models import DEFAULT_MAX_MODEL_LEN, KNOWN_MODELS, SMOLLM2
from catalog.vllm import TOOL_PARSERS
from catalog.vllm_options import nearest_option, options
from settings.words import RulesError, Tree, text_like

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
    "ssl-keyfile": "the edge ends TLS",
    "ssl-certfile": "the edge ends TLS",
    "hf-token": "set the secret seatable-vllm:hugging_face_token",
    "allowed-media-domains": "set seatable-vllm:model.media_domains",
    "allowed-local-media-path": "it would let a client read files of the server",
    "enable-tokenizer-info-endpoint": "it would open a route that asks for no key",
    "profiler-config": "it would open routes that ask for no key",
    "ssl-ca-certs": "the edge ends TLS",
    "middleware": "it would run code of its own in front of the key check",
}
"""vLLM options that `model.extra_args` must not name, and what to do in place of it."""


def _tool_parser(value: object) -> str:
    if not isinstance(value, str) or value not in {*TOOL_PARSERS, "none"}:
        near = difflib.get_close_matches(str(value), TOOL_PARSERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(TOOL_PARSERS))}."
        raise ValueError(f"is no tool parser of vLLM {VLLM_VERSION}; {hint} Write none to switch tools off")
    return value


def _option_value(value: object) -> object:
    if not isinstance(value, bool | int | float | str | list | dict):
        raise ValueError("is no value of an option; give text, a number, true or false, a list or a map")
    return value


ModelName = Annotated[
    str,
    text_like(
        r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*",
        f"is no model id; write OWNER/NAME as on the Hugging Face hub, such as {SMOLLM2}",
    ),
]
Revision = Annotated[
    str,
    text_like(
        r"[A-Za-z0-9][A-Za-z0-9._/-]*",
        "is no revision; write a commit of the model's repository, in quotes where it is digits alone",
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
    extra_args: Mapping[str, OptionValue] = {}
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
        problems = []
        known = KNOWN_MODELS.get(self.name)
        if known and self.max_model_len and self.max_model_len > known.max_model_len:
            problems.append(
                f"max_model_len: {self.max_model_len} is longer than {self.name} allows; "
                f"set it to {known.max_model_len} or less, or leave it out"
            )
        for option in self.extra_args:
            plain = option.lstrip("-").replace("_", "-").split(".")[0]
            if option != plain:
                problems.append(f"extra_args.{option}: write the option as {plain}")
            # vLLM completes a shortened option by itself.
            if owned := next((name for name in OPTIONS_WE_OWN if plain and name.startswith(plain)), None):
                problems.append(f"extra_args.{option}: not free to set; {OPTIONS_WE_OWN[owned]}")
            elif option == plain and plain not in options():
                near = nearest_option(plain)
                hint = f"did you mean {near}?" if near else "vllm serve --help=all has them"
                problems.append(f"extra_args.{option}: vLLM {VLLM_VERSION} has no such option; {hint}")
            if plain == "trust-remote-code" and not self.revision:
                problems.append(
                    f"extra_args.{option}: runs the model publisher's code; pin it with model.revision"
                )
        if problems:
            raise RulesError("\n".join(problems))
        return self
