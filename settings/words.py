"""What single values of a stack's configuration look like: networks, names, ports, addresses of machines."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

WIDEST_NETWORK = {4: 8, 6: 7}
"""Shortest prefix of a client network by IP version: 10.0.0.0/8 and fc00::/7 are the widest private ones."""

NARROW_NETWORK = {4: 16, 6: 32}
"""Shortest prefix of an administrator's network by IP version: what one provider or office has."""


class RulesError(ValueError):
    """Problems that a rule over several settings found: a line each, beginning with the key it is about."""


class Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def _network(value: object) -> str:
    """One client network in canonical form; refuses what would open the door wider than it reads."""
    if not isinstance(value, str):
        raise ValueError('is not text; write a network such as "198.51.100.10/32"')
    try:
        network = ipaddress.ip_network(value, strict=False)
        if "%" in value:
            raise ValueError  # a scope names an interface, and means nothing to the edge
    except ValueError:
        raise ValueError("is not a network; write an address with its length, such as 198.51.100.10/32") from None
    if network.prefixlen < WIDEST_NETWORK[network.version]:
        raise ValueError("lets half the world in; name the addresses that SeaTable AI sends from")
    if "/" not in value:
        raise ValueError(f"has no length; for this one address write {network}")
    if ipaddress.ip_interface(value).ip != network.network_address:
        raise ValueError(
            f"has host bits set; write {network} for the network or {value.split('/')[0]}/"
            f"{network.max_prefixlen} for the one address"
        )
    return str(network)


def narrow_network(value: object) -> object:
    """An administrator's network: a few addresses, not a region of the net."""
    try:
        network = ipaddress.ip_network(str(value))
    except ValueError:
        return value  # `_network` says it better
    if network.prefixlen < NARROW_NETWORK[network.version]:
        raise ValueError(
            f"is wide for a login; name the addresses of your administrators, /{NARROW_NETWORK[network.version]} "
            "or longer"
        )
    return value


def text_like(pattern: str, otherwise: str) -> BeforeValidator:
    """A validator for text of one form; its error says the form in words, not as a pattern."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(otherwise)
        return value

    return BeforeValidator(check)


def written(value: object) -> object:
    """A setting that may be left out, and not be left empty: nothing in its place is taken for a slip."""
    if value is None:
        raise ValueError("is not a domain; write {host: NAME, tls: SOURCE}, or remove it")
    return value


SSH_FORM = "write USER@HOST or USER@HOST:PORT, such as ubuntu@gpu1.example.com"
_SSH_TARGET = re.compile(
    r"(?P<user>[A-Za-z_][A-Za-z0-9_.-]*)@"
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*))(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class SshTarget:
    """One place that ssh can go to."""

    user: str
    host: str
    """A name, an address, or a `Host` of the user's ssh configuration; IPv6 without brackets."""
    port: int = 22

    @classmethod
    def parse(cls, text: str) -> SshTarget:
        """From USER@HOST[:PORT]; ValueError, in words, for anything else."""
        found = _SSH_TARGET.fullmatch(text)
        port = int((found and found["port"]) or 22)
        if found is None or not 0 < port < 65536:
            raise ValueError(f"is not an SSH address; {SSH_FORM}")
        return cls(found["user"], found["v6"] or found["host"], port)

    def __str__(self) -> str:
        """As `parse` reads it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" + ("" if self.port == 22 else f":{self.port}")


def _ssh_target(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not text; {SSH_FORM}")
    SshTarget.parse(value)
    return value


SYSTEM_FOLDERS = re.compile(
    r"/(bin|boot|dev|etc|home|lib|lib32|lib64|media|opt|proc|root|run|sbin|snap|srv|sys|tmp|usr|var"
    r"|usr/(bin|lib|local|share)|var/(lib|lib/docker|log|tmp))"
)
"""What no stack can have for itself, though some of it may be empty."""


def _folder_of_ones_own(value: str) -> str:
    path = re.sub("/+", "/", value)
    if SYSTEM_FOLDERS.fullmatch(path):
        raise ValueError(f"is a folder of the system; name one of the stack's own, such as {path}/seatable-vllm")
    return value


Network = Annotated[str, BeforeValidator(_network)]
SshAddress = Annotated[str, BeforeValidator(_ssh_target)]
KeyFile = Annotated[
    str,
    text_like(
        r"(~?/)?[^\n\"%~]*[^\n\"%~/]", "is not a path of a private key; write one such as ~/.ssh/id_ed25519"
    ),
]
HostKey = Annotated[
    str,
    text_like(
        r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+=*",
        "is not a host key; write its type and text, as in /etc/ssh/ssh_host_ed25519_key.pub on the machine",
    ),
]
Port = Annotated[int, Field(ge=1024, le=65535)]
EdgePort = Annotated[int, Field(ge=1, le=65535)]
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*"
HostName = Annotated[
    str,
    text_like(
        rf"(?!.*\.[0-9]+$)(?![0-9]+$){_NAME}",
        "is not a host name; write it in small letters without scheme, port, path or *, such as llm.example.com",
    ),
]
ZoneName = Annotated[
    str,
    text_like(
        _NAME, "is not the name of a zone; write it in small letters without a dot at its end, such as example.com"
    ),
]
ZoneId = Annotated[
    str, text_like(r"[A-Z0-9]{1,32}", "is not an id of a hosted zone; it looks like Z0123456789ABC")
]
EmailAddress = Annotated[
    str,
    text_like(
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+",
        "is not an e-mail address; write one such as ops@example.com",
    ),
]
HttpsUrl = Annotated[
    str,
    text_like(
        r"https://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?",
        "is not an https:// address of an ACME directory, such as https://ca.example.com/acme/directory",
    ),
]
Resolver = Annotated[
    str,
    text_like(
        rf"({_NAME}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?",
        "is not the address of a DNS resolver; write ADDRESS or ADDRESS:PORT, such as 9.9.9.9:53 or "
        "[2620:fe::fe]:53",
    ),
]
WebOrigin = Annotated[
    str,
    text_like(
        rf"https?://{_NAME}(:[1-9][0-9]{{0,4}})?",
        "is not an origin of a web page; write scheme and host in small letters, with the port where it is not "
        "the scheme's own, and nothing behind, such as https://app.example.com or http://localhost:3000",
    ),
]
FilePath = Annotated[str, text_like(r"[^\x00\n]+", "is not a path of a file; write one such as /etc/ssl/llm.pem")]
PemOrPath = Annotated[
    str,
    text_like(
        r"[^\x00\n]+|\s*-----BEGIN CERTIFICATE-----[^\x00]+",
        "is not a path of a file, and not PEM text; give one of them",
    ),
]
ClientName = Annotated[
    str, text_like(r"[a-z][a-z0-9-]{0,30}", "is not a client name; use a-z, 0-9 and -, at most 31 characters")
]
ImageReference = Annotated[
    str,
    text_like(r"[a-z0-9][A-Za-z0-9._/:@-]*", "is not an image reference; write NAME:TAG or NAME@sha256:DIGEST"),
]
PulledReference = Annotated[
    str,
    text_like(
        r"[a-z0-9][A-Za-z0-9._/:-]*@sha256:[0-9a-f]{64}",
        "is not an image with its digest; write NAME:TAG@sha256:DIGEST",
    ),
]
DataDir = Annotated[
    str,
    text_like(
        r"(?!.*/\.\.?(/|$))/[^:\x00-\x1f]*[^:/\x00-\x1f]",
        "is not an absolute folder without a colon (Docker splits mounts at colons); write one such as "
        "/srv/seatable-vllm, without . or .. in it",
    ),
    AfterValidator(_folder_of_ones_own),
]
