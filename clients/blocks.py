"""All settings texts of one client, by output name."""

from collections.abc import Callable, Mapping
from typing import Literal

from clients import archi, openai, picoclaw, seatable
from clients.endpoint import ClientEndpoint

Kind = Literal["seatable", "openai", "picoclaw", "archi"]

_Texts = Mapping[str, Callable[[ClientEndpoint], str]]

_GENERAL: _Texts = {"openai_env": openai.env, "curl": openai.curl}

_OWN: Mapping[Kind, _Texts] = {
    "seatable": {"seatable_yaml": seatable.config_yaml, "seatable_env": seatable.env},
    "openai": {},
    "picoclaw": {"picoclaw_json": picoclaw.config_json, "picoclaw_security": picoclaw.security_yml},
    "archi": {"archi_yaml": archi.config_yaml, "archi_env": archi.env},
}

_LOOPBACK: Mapping[Kind, _Texts] = {
    "seatable": {},
    "openai": {},
    "picoclaw": {"picoclaw_loopback_json": picoclaw.loopback_json},
    "archi": {"archi_loopback_yaml": archi.loopback_yaml},
}

KEYLESS = frozenset({"picoclaw_json", "picoclaw_loopback_json", "archi_yaml", "archi_loopback_yaml"})
"""The texts without a key in them. All others are secret as a whole."""

PROBLEMS: Mapping[Kind, Callable[[str, ClientEndpoint], list[str]]] = {
    "picoclaw": picoclaw.problems,
    "archi": archi.problems,
}
"""Who reads a settings file that a user already has, and says what is wrong with it."""


def own_blocks(kind: Kind, *, loopback: bool) -> tuple[str, ...]:
    """The names of the texts that this kind of client alone has. loopback: whether one may come without a key."""
    return (*_OWN[kind], *(_LOOPBACK[kind] if loopback else ()))


def blocks(kind: Kind, endpoint: ClientEndpoint) -> Mapping[str, str]:
    """The client's key and every text to paste. All hold the key but those in KEYLESS."""
    makers = {**_GENERAL, **_OWN[kind], **(_LOOPBACK[kind] if endpoint.loopback else {})}
    return {"key": endpoint.key, **{name: make(endpoint) for name, make in makers.items()}}
