"""One stack: what `settings` puts together of the parts, and the rules between them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from settings.aws import AwsMachine
from settings.domain import Domain
from settings.fallbacks import GivenFallback
from settings.machines import LocalMachine, MachineSettings
from settings.model import Model
from settings.words import (
    ClientName,
    EdgePort,
    ImageReference,
    Network,
    Port,
    PulledReference,
    RulesError,
    Tree,
    WebOrigin,
    written,
)


class Client(Tree):
    """Somebody who may use the endpoint: one key, valid from these networks alone."""

    kind: Literal["seatable", "openai", "picoclaw", "archi"]
    cidrs: Annotated[list[Network], Field(min_length=1)]
    routes: list[Literal["responses", "embeddings"]] = Field(default_factory=list)
    """Routes beside completions and models that are open to this client: POST /v1/responses, /v1/embeddings."""
    origins: list[WebOrigin] = Field(default_factory=list)
    """Web pages whose scripts may use the endpoint from this client's networks (CORS)."""
    fallbacks: list[GivenFallback] = Field(default_factory=list)
    """picoclaw: the models that it asks, in this order, when the endpoint refuses or does not answer."""

    @model_validator(mode="after")
    def _fallbacks_are_picoclaws(self) -> Client:
        if self.fallbacks and self.kind != "picoclaw":
            raise RulesError(
                f"fallbacks: are for a client of kind picoclaw, and this one is of kind {self.kind}; remove them, "
                "or configure them in the client itself"
            )
        names = [each.identity for each in self.fallbacks]
        if twice := [each.name for each in self.fallbacks if names.count(each.identity) > 1]:
            raise RulesError(
                f"fallbacks: {' and '.join(twice)} are one for PicoClaw, with one address and one key; keep one, "
                "or write provider openai for the other, with its base_url"
            )
        return self


HTTPS_PORT = 443
HTTP_PORT = 80
SSH_PORT = 22
LOWEST_FREE_PORT = 1024


class Ports(Tree):
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
            raise RulesError(f"edge: {self.edge} is the engine's port too; give each its own")
        if self.loopback in (self.edge, self.engine):
            whose = "edge" if self.loopback == self.edge else "engine"
            raise RulesError(f"loopback: {self.loopback} is the {whose}'s port too; give each its own")
        return self


class Pulled(Tree):
    """The newest images that `scripts/up --pull` has found; each is used as long as the rest of its name is."""

    vllm: PulledReference | None = None
    haproxy: PulledReference | None = None


class Edge(Tree):
    """How the edge treats requests."""

    answer_seconds: Annotated[int, Field(ge=30, le=3600)] = 600
    """How long the engine, or a client that is being answered, may be silent before the edge ends the request."""


class Images(Tree):
    """Other container images than the pinned ones: a mirror, or a digest. They are never made here."""

    vllm: ImageReference | None = None
    haproxy: ImageReference | None = None
    lego: ImageReference | None = None
    python: ImageReference | None = None
    """Fetches weights while vLLM's image is pulled; "none": they wait for that."""
    pulled: Pulled = Pulled()
    """Written by `scripts/up --pull`."""


KeyGenerations = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2)]


def _default_clients() -> dict[str, Client]:
    return {"seatable": Client(kind="seatable", cidrs=["127.0.0.1/32"])}


class Settings(Tree):
    """One stack."""

    machine: MachineSettings = LocalMachine()
    model: Model = Model()
    clients: Annotated[dict[ClientName, Client], Field(min_length=1)] = Field(default_factory=_default_clients)
    key_generations: dict[ClientName, KeyGenerations] = Field(default_factory=dict)
    """Which generations of a client's key are valid, oldest first; kept by scripts/rotate-key."""
    ports: Ports = Ports()
    edge: Edge = Edge()
    images: Images = Images()
    domain: Annotated[Domain | None, BeforeValidator(written)] = None
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
        problems = [*self._problems_of_the_zone(), *self._problems_on_aws(), *self._problems_of_fallbacks()]
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
            raise RulesError("\n".join(problems))
        return self

    def _problems_of_the_zone(self) -> Iterable[str]:
        """A zone is for the certificate's proof, and for the record of a machine that the program makes."""
        if self.domain is None:
            return
        on_aws = isinstance(self.machine, AwsMachine)
        if self.domain.adopt_record and not (on_aws and (self.domain.zone or self.domain.zone_id)):
            yield (
                "domain.adopt_record: is for the record that the program writes, for a machine of kind aws with "
                "domain.zone or domain.zone_id; remove it"
            )
        if self.domain.tls == "acme-dns" or on_aws:
            return
        for name in ("zone", "zone_id"):
            if getattr(self.domain, name):
                yield (
                    f"domain.{name}: is for tls acme-dns, not {self.domain.tls} (or for a machine of kind aws); "
                    "remove it"
                )

    def _problems_of_fallbacks(self) -> Iterable[str]:
        """PicoClaw asks by provider and model: one of the endpoint's own would be asked in its place, at once."""
        own = f"vllm/{self.model.name}".lower()
        for name, client in self.clients.items():
            for number, fallback in enumerate(client.fallbacks):
                if fallback.identity == own:
                    yield (
                        f"clients.{name}.fallbacks.{number}: {fallback.model} at provider vllm is what this "
                        "endpoint serves, and PicoClaw would send every request to the fallback; write provider "
                        "openai for it, with its base_url"
                    )

    def _problems_on_aws(self) -> Iterable[str]:
        """What cannot be right for a machine that the whole net could reach."""
        if self.domain is None or not isinstance(self.machine, AwsMachine):
            return
        if self.domain.tls == "acme-http":
            yield (
                "domain.tls: acme-http would open port 80 of this machine to the world; set it to acme-dns, which "
                "opens nothing, or to files or private-ca"
            )
        if self.ports.edge in (SSH_PORT, HTTP_PORT):
            yield f"ports.edge: {self.ports.edge} is not for TLS; use {HTTPS_PORT}"
        for name, client in self.clients.items():
            inside = [cidr for cidr in client.cidrs if ipaddress.ip_network(cidr).is_loopback]
            if inside:
                yield (
                    f"clients.{name}.cidrs: {inside[0]} is the machine on AWS itself; name the addresses that "
                    f"{name} sends from, as the net sees them"
                )
