"""The rules, as functions of one resource each. They yield in words what is wrong and what would be right.

They know nothing of Pulumi and nothing of the rest of the program, so that the folder can be used alone. Inputs
are as a policy pack sees them: camelCase, numbers perhaps as floats.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
INSTANCE = "aws:ec2/instance:Instance"
VOLUME = "aws:ebs/volume:Volume"
ADDRESS = "aws:ec2/eip:Eip"

TAGGED = frozenset(
    {
        GROUP,
        INSTANCE,
        VOLUME,
        ADDRESS,
        "aws:ec2/vpc:Vpc",
        "aws:ec2/subnet:Subnet",
        "aws:ec2/internetGateway:InternetGateway",
        "aws:ec2/routeTable:RouteTable",
        "aws:ec2/keyPair:KeyPair",
        "aws:iam/role:Role",
        "aws:iam/instanceProfile:InstanceProfile",
        "aws:budgets/budget:Budget",
    }
)
"""What has tags to be found and counted by; the rest of what the program makes cannot have any."""

TAGS = ("Project", "Stack", "ManagedBy")

SSH = 22
NARROW = {4: 16, 6: 32}
"""Shortest prefix of a network that may log in, by IP version."""


@dataclass(frozen=True)
class Resource:
    """One resource as it is asked for. default_tags: those of its provider."""

    type: str
    inputs: Mapping[str, Any]
    protected: bool = False
    """Pulumi's `protect`."""
    default_tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Meant:
    """What the owner of the stacks has decided."""

    production: bool = False
    """Whether the stack is one that people rely on."""
    open_to_all: frozenset[int] = frozenset()
    """Ports that the whole world may reach, such as 80 where a CA asks there (acme-http)."""
    engine_ports: frozenset[int] = frozenset({8000, 18000})
    """vLLM's own ports; it answers eleven routes without asking for a key."""


@dataclass(frozen=True)
class _Opening:
    """One way in. sources: networks; none where it is another security group or a prefix list."""

    first: int
    last: int
    sources: Sequence[str]

    def has(self, port: int) -> bool:
        return self.first <= port <= self.last


def ingress(resource: Resource, meant: Meant) -> Iterator[str]:
    """The world gets in nowhere, logins come from a few networks, and nobody reaches vLLM past the edge."""
    for opening in _openings(resource):
        ports = str(opening.first) if opening.first == opening.last else f"{opening.first}-{opening.last}"
        for source in opening.sources:
            network = ipaddress.ip_network(source, strict=False)
            if network.prefixlen == 0 and not _only(opening, meant.open_to_all):
                yield f"port {ports} is open to the world ({source}): name the clients' networks"
            elif opening.has(SSH) and network.prefixlen < NARROW[network.version]:
                yield f"port 22 is open to {source}: name the administrators' addresses, or set access: ssm"
        for port in sorted(meant.engine_ports):
            if opening.has(port):
                yield f"port {port} is vLLM's own: clients go through the edge"


def metadata(resource: Resource, _: Meant) -> Iterator[str]:
    """Neither a container nor whoever tricks a program into a request gets the keys of the machine's role."""
    if resource.type == INSTANCE:
        options = resource.inputs.get("metadataOptions") or {}
        if options.get("httpTokens") != "required":
            yield "the metadata can be read without a token: set metadata_options.http_tokens to required"
        if options.get("httpPutResponseHopLimit") != 1:
            yield (
                "containers may reach the instance's metadata and its role: set "
                "metadata_options.http_put_response_hop_limit to 1"
            )


def encryption(resource: Resource, _: Meant) -> Iterator[str]:
    """Weights, prompts in logs and certificates lie on no disk in clear."""
    if resource.type == VOLUME and resource.inputs.get("encrypted") is not True:
        yield "the volume is not encrypted: set encrypted"
    if resource.type == INSTANCE:
        root = resource.inputs.get("rootBlockDevice") or {}
        if root.get("encrypted") is not True:
            yield "the instance's root disk is not encrypted: set root_block_device.encrypted"
        for device in resource.inputs.get("ebsBlockDevices") or []:
            if device.get("encrypted") is not True:
                yield f"the instance's disk {device.get('deviceName')} is not encrypted: set encrypted"


def tags(resource: Resource, _: Meant) -> Iterator[str]:
    """Everything says whose it is: the bill is counted, and what is left behind is found, by these."""
    if resource.type in TAGGED:
        present = {**resource.default_tags, **(resource.inputs.get("tags") or {})}
        missing = [tag for tag in TAGS if not present.get(tag)]
        if missing:
            yield f"it lacks the tags {', '.join(missing)}: set default_tags on its provider"


def data(resource: Resource, meant: Meant) -> Iterator[str]:
    """In production nothing that people would miss is deleted by a slip."""
    if not meant.production:
        return
    if resource.type in (VOLUME, ADDRESS) and not resource.protected:
        what = "data volume" if resource.type == VOLUME else "address"
        yield f"the {what} of a production stack is not protected: set seatable-vllm:machine.protected"
    if resource.type == INSTANCE and resource.inputs.get("disableApiTermination") is not True:
        yield "the machine of a production stack can be terminated: set seatable-vllm:machine.protected"


Rule = Callable[[Resource, Meant], Iterator[str]]

RULES: Mapping[str, Rule] = {
    "ingress": ingress,
    "metadata": metadata,
    "encryption": encryption,
    "tags": tags,
    "data": data,
}
"""All of them, by the names that the policy pack gives them."""


def violations(resource: Resource, meant: Meant | None = None) -> list[str]:
    """What is wrong with a resource, by every rule."""
    return [text for rule in RULES.values() for text in rule(resource, meant or Meant())]


def _openings(resource: Resource) -> Iterator[_Opening]:
    inputs = resource.inputs
    if resource.type == INGRESS_RULE:
        single = [inputs.get("cidrIpv4"), inputs.get("cidrIpv6")]
        yield _opening(inputs, "ipProtocol", [source for source in single if source])
    elif resource.type == OLD_RULE and inputs.get("type") == "ingress":
        yield _opening(inputs, "protocol", _blocks(inputs))
    elif resource.type == GROUP:
        for each in inputs.get("ingress") or []:
            yield _opening(each, "protocol", _blocks(each))


def _blocks(rule: Mapping[str, Any]) -> list[str]:
    return [*(rule.get("cidrBlocks") or []), *(rule.get("ipv6CidrBlocks") or [])]


def _opening(rule: Mapping[str, Any], protocol: str, sources: Sequence[str]) -> _Opening:
    everything = str(rule.get(protocol)) in ("-1", "all") or rule.get("fromPort") is None
    if everything:
        return _Opening(0, 65535, sources)
    return _Opening(int(rule["fromPort"]), int(rule.get("toPort", rule["fromPort"])), sources)


def _only(opening: _Opening, ports: frozenset[int]) -> bool:
    return all(port in ports for port in range(opening.first, opening.last + 1))
