"""The configuration of one stack: one frozen tree, built in one place, with every problem reported at once.

Secrets are never part of the tree. They travel beside it as Pulumi secrets, so that no error text and no
`repr` can show one.
"""

from __future__ import annotations

import copy
import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from catalog.models import DEFAULT_MAX_MODEL_LEN, KNOWN_MODELS, SMOLLM2
from catalog.vllm import TOOL_PARSERS

NAMESPACE = "seatable-vllm"

WIDEST_NETWORK = {4: 8, 6: 7}
"""Shortest prefix of a client network by IP version: 10.0.0.0/8 and fc00::/7 are the widest private ones."""

SECRETS = frozenset({"hugging_face_token", "aws_access_key_id", "aws_secret_access_key"})
"""Keys of the namespace that hold a secret; they are read as Pulumi secrets, never by `parse`."""

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
    "allowed-local-media-path": "it would let a client read files of the server",
    "enable-tokenizer-info-endpoint": "it would open a route that asks for no key",
    "profiler-config": "it would open routes that ask for no key",
    "ssl-ca-certs": "the edge ends TLS",
    "middleware": "it would run code of its own in front of the key check",
}
"""vLLM options that `model.extra_args` must not name, and what to do in place of it."""


class SettingsError(Exception):
    """A stack's configuration cannot be used. The text lists every problem with its key and the way out."""


class _RulesError(ValueError):
    """Problems that a rule over several settings found: a line each, beginning with the key it is about."""


class _Tree(BaseModel):
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


def _text_like(pattern: str, otherwise: str) -> BeforeValidator:
    """A validator for text of one form; its error says the form in words, not as a pattern."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(otherwise)
        return value

    return BeforeValidator(check)


def _tool_parser(value: object) -> str:
    if not isinstance(value, str) or value not in {*TOOL_PARSERS, "none"}:
        near = difflib.get_close_matches(str(value), TOOL_PARSERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(TOOL_PARSERS))}"
        raise ValueError(f"is no tool parser of vLLM 0.32; {hint} none switches tools off")
    return value


def _option_value(value: object) -> object:
    if not isinstance(value, bool | int | float | str | list | dict):
        raise ValueError("give text, a number, true or false, a list or a map")
    return value


def _written(value: object) -> object:
    if value is None:
        raise ValueError("is empty; write {host: NAME, tls: SOURCE}, or remove it")
    return value


_SSH_FORM = "write USER@HOST or USER@HOST:PORT, such as ubuntu@gpu1.example.com"
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
            raise ValueError(
                "is no SSH address; write USER@HOST or USER@HOST:PORT, such as ubuntu@gpu1.example.com"
            )
        return cls(found["user"], found["v6"] or found["host"], port)

    def __str__(self) -> str:
        """As `parse` reads it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" + ("" if self.port == 22 else f":{self.port}")


def _ssh_target(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not text; {_SSH_FORM}")
    SshTarget.parse(value)
    return value


def _gpus(value: object) -> object:
    """How many GPUs of a machine, or which ones."""
    ids = isinstance(value, list) and value and all(re.fullmatch(r"[A-Za-z0-9-]+", str(each)) for each in value)
    count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if value in ("auto", "none") or count:
        return value
    if isinstance(value, list) and ids:
        return [str(each) for each in value]
    raise ValueError(
        "is no choice of GPUs; write auto, none, how many, or a list of device numbers or ids as nvidia-smi -L has"
    )


Network = Annotated[str, BeforeValidator(_network)]
SshAddress = Annotated[str, BeforeValidator(_ssh_target)]
KeyFile = Annotated[
    str,
    _text_like(r"(~?/)?[^\n\"%~]*[^\n\"%~/]", "is no path of a private key; write one such as ~/.ssh/id_ed25519"),
]
HostKey = Annotated[
    str,
    _text_like(
        r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+=*",
        "is no host key; write its type and text, as in /etc/ssh/ssh_host_ed25519_key.pub on the machine",
    ),
]
Port = Annotated[int, Field(ge=1024, le=65535)]
EdgePort = Annotated[int, Field(ge=1, le=65535)]
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*"
HostName = Annotated[
    str,
    _text_like(
        rf"(?!.*\.[0-9]+$)(?![0-9]+$){_NAME}",
        "is no host name; write it in small letters without scheme, port, path or *, such as llm.example.com",
    ),
]
ZoneName = Annotated[str, _text_like(_NAME, "is no zone; write it without a dot at its end, such as example.com")]
ZoneId = Annotated[str, _text_like(r"[A-Z0-9]{1,32}", "is no id of a hosted zone; it looks like Z0123456789ABC")]
EmailAddress = Annotated[
    str,
    _text_like(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", "is no e-mail address"),
]
HttpsUrl = Annotated[
    str,
    _text_like(
        r"https://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?",
        "is no https:// address of an ACME directory, such as https://ca.example.com/acme/directory",
    ),
]
FilePath = Annotated[str, _text_like(r"[^\x00\n]+", "is no path of a file")]
PemOrPath = Annotated[
    str, _text_like(r"[^\x00\n]+|\s*-----BEGIN CERTIFICATE-----[^\x00]+", "is no path of a file, and no PEM text")
]
ClientName = Annotated[
    str, _text_like(r"[a-z][a-z0-9-]{0,30}", "is no client name; use a-z, 0-9 and -, at most 31 characters")
]
ModelName = Annotated[
    str,
    _text_like(
        r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*",
        f"is no model id; write OWNER/NAME as on the Hugging Face hub, such as {SMOLLM2}",
    ),
]
ImageReference = Annotated[
    str,
    _text_like(r"[a-z0-9][A-Za-z0-9._/:@-]*", "is no image reference; write NAME:TAG or NAME@sha256:DIGEST"),
]
DataDir = Annotated[
    str,
    _text_like(r"/[^:]*[^:/]", "is no absolute folder without a colon (Docker splits mounts at colons)"),
]
OptionValue = Annotated[Any, BeforeValidator(_option_value)]


class LocalMachine(_Tree):
    """This computer, through its own Docker."""

    kind: Literal["local"] = "local"
    gpus: Literal["auto", "none"] = "auto"
    """auto: all NVIDIA GPUs that Docker can hand to a container, else the CPU. none: the CPU."""
    data_dir: DataDir | None = None
    """Absolute folder for weights, caches and keys; None: `.state/<stack>/data` in the project."""


class HostMachine(_Tree):
    """A Linux machine with Docker that SSH reaches."""

    kind: Literal["host"] = "host"
    ssh: SshAddress
    """USER@HOST or USER@HOST:PORT; the user may use Docker there."""
    ssh_key: KeyFile | None = None
    """Path of a private key on this computer; None: the agent and ssh's default keys."""
    jump: SshAddress | None = None
    """A host to go through, USER@HOST or USER@HOST:PORT; it gets the same key."""
    host_key: HostKey | None = None
    """The machine's public host key; no other is accepted. None: the one of the first contact is kept."""
    gpus: Annotated[Literal["auto", "none"] | int | list[str], BeforeValidator(_gpus)] = "auto"
    """auto: all NVIDIA GPUs, or the CPU where there is none. none: the CPU. A number: so many. A list: these."""
    data_dir: DataDir = "/srv/seatable-vllm"
    """Absolute folder on the machine for weights, caches and keys."""

    @property
    def target(self) -> SshTarget:
        """`ssh`, taken apart."""
        return SshTarget.parse(self.ssh)

    @property
    def jump_target(self) -> SshTarget | None:
        """`jump`, taken apart."""
        return SshTarget.parse(self.jump) if self.jump else None


def _kind(value: object) -> str:
    """Which kind's rules to go by. An unknown kind is refused by the rules of `local`."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "host" if kind == "host" else "local"


MachineSettings = Annotated[
    Annotated[LocalMachine, Tag("local")] | Annotated[HostMachine, Tag("host")], Discriminator(_kind)
]
KINDS = ("local", "host")


class Model(_Tree):
    """What vLLM serves, and the options the program does not set itself."""

    name: ModelName = SMOLLM2
    """The model's id on the Hugging Face hub; clients send exactly this id."""
    revision: str | None = None
    max_model_len: Annotated[int, Field(ge=256)] | None = None
    """Tokens of prompt and answer together; None: the model's own limit, at most 65536."""
    tool_parser: Annotated[str, BeforeValidator(_tool_parser)] | None = None
    """vLLM's parser for tool calls; None: the known one of this model; "none": no tool calls."""
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
            if plain == "trust-remote-code" and not self.revision:
                problems.append(
                    f"extra_args.{option}: runs the model publisher's code; pin it with model.revision"
                )
        if problems:
            raise _RulesError("\n".join(problems))
        return self


class Client(_Tree):
    """Somebody who may use the endpoint: one key, valid from these networks alone."""

    kind: Literal["seatable", "openai"]
    cidrs: Annotated[list[Network], Field(min_length=1)]


class Domain(_Tree):
    """A name and a certificate: the edge listens on all addresses, with TLS and nothing else."""

    host: HostName
    """The name that clients use and that the certificate is for."""
    tls: TlsSource
    """Where the certificate comes from: an own CA on the machine, given files, or an ACME CA."""
    zone: ZoneName | None = None
    """acme-dns: the Route 53 zone that the host lies in."""
    zone_id: ZoneId | None = None
    """acme-dns: that zone's id; with it the machine need not be allowed to list zones."""
    acme_email: EmailAddress | None = None
    """acme-*: where the CA writes to."""
    acme_staging: bool = False
    """acme-*: the CA's staging directory, for trying: no client trusts its certificates."""
    acme_server: HttpsUrl | None = None
    """acme-*: directory of another ACME CA; None: Let's Encrypt."""
    acme_ca: PemOrPath | None = None
    """acme-*: PEM of that CA's roots, as text or the path of a file; None: the machine's own roots."""
    certificate: FilePath | None = None
    """files: PEM file with the certificate and its chain, on the computer that runs Pulumi."""
    key: FilePath | None = None
    """files: PEM file with its private key, without a passphrase; likewise."""

    @property
    def acme(self) -> bool:
        """Whether the certificate comes from an ACME CA."""
        return self.tls.startswith("acme-")

    @model_validator(mode="after")
    def _each_source_has_what_it_needs(self) -> Domain:
        problems = []
        given = self.model_dump(exclude_defaults=True)
        for setting, sources in BELONGS_TO.items():
            if setting in given and self.tls not in sources:
                problems.append(f"{setting}: is for tls {' or '.join(sources)}, not {self.tls}; remove it")
        for setting in NEEDED_BY[self.tls]:
            if setting not in given:
                problems.append(f"{setting}: missing; tls {self.tls} needs it")
        if self.zone and self.tls == "acme-dns" and not f".{self.host}".endswith(f".{self.zone}"):
            problems.append(f"zone: {self.zone} does not hold {self.host}; name the zone that the host lies in")
        if self.acme_staging and self.acme_server:
            problems.append(
                "acme_staging: is of Let's Encrypt, and acme_server names another CA; keep one of them"
            )
        if problems:
            raise _RulesError("\n".join(problems))
        return self


TlsSource = Literal["private-ca", "files", "acme-dns", "acme-http"]

_ACME: tuple[TlsSource, ...] = ("acme-dns", "acme-http")

BELONGS_TO: Mapping[str, tuple[TlsSource, ...]] = {
    "zone": ("acme-dns",),
    "zone_id": ("acme-dns",),
    "acme_email": _ACME,
    "acme_staging": _ACME,
    "acme_server": _ACME,
    "acme_ca": _ACME,
    "certificate": ("files",),
    "key": ("files",),
}
"""Settings of a domain that only some sources of certificates have."""

NEEDED_BY: Mapping[TlsSource, tuple[str, ...]] = {
    "private-ca": (),
    "files": ("certificate", "key"),
    "acme-dns": ("zone", "acme_email"),
    "acme-http": ("acme_email",),
}
"""What a source of certificates cannot do without."""


HTTPS_PORT = 443
HTTP_PORT = 80
LOWEST_FREE_PORT = 1024


class Ports(_Tree):
    """TCP ports on the machine. Without a domain all are on its loopback address."""

    edge: EdgePort = 8080
    """Where clients connect; 443 where there is a domain."""
    engine: Port = 18000
    """Where vLLM answers the edge."""
    loopback: Port | None = None
    """Where the edge takes requests without a key, from the machine itself and SSH tunnels; None: nowhere."""

    @model_validator(mode="after")
    def _a_port_each(self) -> Ports:
        if self.edge == self.engine:
            raise _RulesError(f"edge: {self.edge} is the engine's port too; give each its own")
        if self.loopback in (self.edge, self.engine):
            whose = "edge" if self.loopback == self.edge else "engine"
            raise _RulesError(f"loopback: {self.loopback} is the {whose}'s port too; give each its own")
        return self


class Images(_Tree):
    """Other container images than the pinned ones: a mirror, or a digest. They are never made here."""

    vllm: ImageReference | None = None
    haproxy: ImageReference | None = None
    lego: ImageReference | None = None


KeyGenerations = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2)]


def _default_clients() -> dict[str, Client]:
    return {"seatable": Client(kind="seatable", cidrs=["127.0.0.1/32"])}


class Settings(_Tree):
    """One stack."""

    machine: MachineSettings = LocalMachine()
    model: Model = Model()
    clients: Annotated[dict[ClientName, Client], Field(min_length=1)] = Field(default_factory=_default_clients)
    key_generations: dict[ClientName, KeyGenerations] = {}
    """Which generations of a client's key are valid, oldest first; kept by scripts/rotate-key."""
    ports: Ports = Ports()
    images: Images = Images()
    domain: Annotated[Domain | None, BeforeValidator(_written)] = None
    """The endpoint's public name; None: it is reached from the machine's loopback address alone."""

    def local_source(self, client: str) -> str | None:
        """A loopback address that this client may send from, or None.

        Only such a client reaches a stack without a domain, and no client of one with a domain is looked for here.
        """
        if self.domain:
            return None
        loopback = ipaddress.IPv4Network("127.0.0.0/8")
        for cidr in self.clients[client].cidrs:
            network = ipaddress.ip_network(cidr)
            if isinstance(network, ipaddress.IPv4Network) and network.subnet_of(loopback):
                # The first address of a larger network names the network itself.
                return str(network.network_address + (0 if network.prefixlen == ipaddress.IPV4LENGTH else 1))
        return None

    def proving_client(self) -> str:
        """A client whose key works from the machine itself, where nothing else is said from 127.0.0.1.

        The gate proves the endpoint with it. With a domain it has a key of its own, and the first client is named.
        """
        if self.domain:
            return next(iter(self.clients))
        local = [name for name in self.clients if self.local_source(name)]
        return next((name for name in local if self.local_source(name) == "127.0.0.1"), local[0])

    def generations(self, client: str) -> list[int]:
        """The valid generations of this client's key, oldest first; the last one is handed out."""
        return self.key_generations.get(client, [1])

    @model_validator(mode="before")
    @classmethod
    def _a_domain_is_served_at_the_port_of_https(cls, values: Any) -> Any:
        """Fills in the edge's port, and takes a domain without anything in it (a schema's default) for none."""
        if not isinstance(values, dict) or "domain" not in values:
            return values
        if values["domain"] == {}:
            return {key: value for key, value in values.items() if key != "domain"}
        ports = values.get("ports", {})
        return {**values, "ports": {"edge": HTTPS_PORT, **ports}} if isinstance(ports, dict) else values

    @model_validator(mode="after")
    def _clients_and_generations_fit(self) -> Settings:
        problems = []
        if not self.domain and self.ports.edge < LOWEST_FREE_PORT:
            problems.append(
                f"ports.edge: {self.ports.edge} is a port of the system; without a domain use {LOWEST_FREE_PORT} "
                "or higher"
            )
        if self.domain and self.domain.tls == "acme-http" and self.ports.edge == HTTP_PORT:
            problems.append(f"ports.edge: {HTTP_PORT} is where the CA asks with tls acme-http; use {HTTPS_PORT}")
        if not self.domain and not any(self.local_source(name) for name in self.clients):
            problems.append(
                "clients: none of them may come from 127.0.0.0/8, and nobody else reaches an endpoint without a "
                'domain; give one the network "127.0.0.1/32", or set seatable-vllm:domain'
            )
        for name, generations in self.key_generations.items():
            if name not in self.clients:
                known = ", ".join(self.clients)
                problems.append(
                    f"key_generations.{name}: there is no such client; known: {known}. Remove the entry"
                )
            if sorted(set(generations)) != generations:
                problems.append(f"key_generations.{name}: {generations} must rise, oldest first")
        if problems:
            raise _RulesError("\n".join(problems))
        return self


def parse(values: Mapping[str, object]) -> Settings:
    """The settings of a stack from its configuration, keys without their namespace.

    Raises SettingsError with one line per problem: key, value, way out.
    """
    names = sorted({*Settings.model_fields, *SECRETS})
    problems = [
        f"{NAMESPACE}:{key}: there is no such setting; known: {', '.join(names)}"
        for key in values
        if key not in names
    ]
    problems += _half_a_pair(values)
    known = {key: value for key, value in values.items() if key in Settings.model_fields}
    settings, errors = _validate(known)
    problems += [line for error in errors for line in _explain(error)]
    if errors:
        # Rules over several settings are not tried while one of them is broken; try them on the rest.
        _, more = _validate(_without(known, errors))
        problems += [line for error in more if error["type"] == "value_error" for line in _explain(error)]
    if problems or settings is None:
        raise SettingsError("\n".join(["the stack's configuration cannot be used:", *dict.fromkeys(problems)]))
    return settings


def _half_a_pair(values: Mapping[str, object]) -> Iterable[str]:
    """The problem of one AWS secret without the other."""
    pair = ("aws_access_key_id", "aws_secret_access_key")
    for name, other in (pair, pair[::-1]):
        if name in values and other not in values:
            yield (
                f"{NAMESPACE}:{other}: missing, and {name} is useless without it; "
                f"pulumi config set --secret {NAMESPACE}:{other}"
            )


def _validate(values: Mapping[str, object]) -> tuple[Settings | None, list[Any]]:
    """The settings, or the errors that pydantic found."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        return None, list(error.errors())


_SOME_CLIENT = {"kind": "openai", "cidrs": ["127.0.0.1/32"]}


def _without(values: Mapping[str, object], errors: Sequence[Any]) -> dict[str, object]:
    """The values without those that are broken, so that no rule complains of what is not there any more.

    Where a rule asks for a value that is broken, one that breaks no rule stands in for it.
    """
    left: dict[str, Any] = copy.deepcopy(dict(values))
    for error in errors:
        first, *inner = _place(error) or [""]
        section = left.get(first)
        if first == "domain" and isinstance(section, dict):
            stand_in = _SOME_DOMAIN_SETTINGS.get(inner[0]) if inner else None
            if stand_in and section.get("tls") in NEEDED_BY:
                section[inner[0]] = stand_in
            else:
                left["domain"] = dict(_SOME_DOMAIN)
        elif not inner or not isinstance(section, dict):
            left.pop(first, None)
        elif first == "ports" and inner[0] in Ports.model_fields:
            section[inner[0]] = next(port for port in range(65535, 0, -1) if port not in section.values())
        elif first == "clients":
            misnamed = any(each["loc"][:3] == ("clients", inner[0], "[key]") for each in errors)
            section["some" if misnamed else inner[0]] = _SOME_CLIENT
            if misnamed:
                section.pop(inner[0], None)
        elif inner[0] == "extra_args" and len(inner) > 1 and isinstance(section.get("extra_args"), dict):
            section["extra_args"].pop(inner[1], None)
        elif first == "model" and inner[0] in _STAND_INS:
            section[inner[0]] = _STAND_INS[inner[0]]
        else:
            section.pop(inner[0], None)
    return left


_SOME_DOMAIN = {"host": "some.example", "tls": "private-ca"}
_SOME_DOMAIN_SETTINGS = {
    "acme_email": "some@example.com",
    "acme_server": "https://some.example",
    "certificate": "some",
    "key": "some",
    "acme_ca": "some",
}
"""A domain that breaks no rule, and settings of one that break none whatever its host is."""

_STAND_INS = {"name": "some/model", "revision": "some"}
"""A model whose limits are not known, and a revision: with them no rule of the model complains."""


def _place(detail: Any) -> list[str]:
    """Where an error is, as the stack file has it: pydantic adds the kind of machine whose rules it went by."""
    first, *inner = [str(part) for part in detail["loc"]] or [""]
    if first == "machine" and inner and inner[0] in KINDS:
        inner = inner[1:]
    if first == "machine" and inner[:1] == ["gpus"]:
        inner = inner[:1]
    return [first, *inner] if first else []


def _explain(detail: Any) -> Iterable[str]:
    """One line per problem of a pydantic error: full key, value where it is safe to show, way out."""
    path = [part for part in _place(detail) if part != "[key]"]
    key = f"{NAMESPACE}:" + ".".join(path)
    if detail["type"] == "value_error":
        reason = str(detail["ctx"]["error"])
        if isinstance(detail["ctx"]["error"], _RulesError):
            return [f"{key}.{line}" if path else f"{key}{line}" for line in reason.splitlines()]
        return [f"{key}: {_shown(detail, path)} {reason}"]
    if detail["type"] == "missing" and path == ["machine", "ssh"]:
        return [f"{key}: missing; {_SSH_FORM}"]
    if detail["type"] == "extra_forbidden":
        return [f"{key}: there is no such setting; see the settings table in the README"]
    if path[:2] == ["machine", "kind"]:
        return [f"{key}: {_shown(detail, path)} is not a kind of machine that this version has; use local or host"]
    return [f"{key}: {_shown(detail, path)}: {detail['msg'][0].lower()}{detail['msg'][1:]}"]


def _shown(detail: Any, path: list[str]) -> str:
    """The offending value for an error text; what may hold a secret, or is long, is named by its type."""
    value = detail["input"]
    if detail["type"] == "missing":
        return "missing"
    if isinstance(value, dict | list) or path[:2] == ["model", "extra_args"]:
        return f"a value of type {type(value).__name__}"
    return repr(value)
