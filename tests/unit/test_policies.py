"""Unit tier: what no stack may ask AWS for, as rules over inputs, and as the policy pack that Pulumi would start.

The pack runs as a process of its own here and is asked over Pulumi's own protocol. Does NOT prove that the engine
asks it: that needs the CLI and `--policy-pack policies`.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from catalog.aws.tags import REQUIRED, tags_of
from policies import rules
from policies.rules import (
    ADDRESS,
    GROUP,
    INGRESS_RULE,
    INSTANCE,
    OLD_RULE,
    VOLUME,
    Meant,
    Resource,
    violations,
)  # fmt: skip
from settings.words import NARROW_NETWORK

PROJECT = Path(__file__).resolve().parent.parent.parent

TAGS = dict(tags_of("dev"))
PROD = Meant(production=True)


def rule(port: int, source: str, to: int | None = None) -> Resource:
    """An ingress rule as the program asks for one."""
    side = "cidrIpv6" if ":" in source else "cidrIpv4"
    ports = {"fromPort": float(port), "toPort": float(to or port)}
    return Resource(INGRESS_RULE, {"securityGroupId": "sg-1", "ipProtocol": "tcp", **ports, side: source})


def instance(**changes: Any) -> Resource:
    """The instance that the program asks for, but for these inputs."""
    inputs = {
        "instanceType": "g6.xlarge",
        "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1.0},
        "rootBlockDevice": {"volumeSize": 150.0, "encrypted": True},
        "tags": TAGS,
        "disableApiTermination": True,
    }
    return Resource(INSTANCE, {**inputs, **changes})


def volume(*, protected: bool = True, **changes: Any) -> Resource:
    """The data volume, likewise."""
    return Resource(VOLUME, {"size": 200.0, "encrypted": True, "tags": TAGS, **changes}, protected=protected)


# What is right


@pytest.mark.parametrize(
    "resource",
    [
        rule(443, "198.51.100.10/32"),
        rule(443, "2001:db8::10/128"),
        rule(443, "198.51.0.0/8"),
        rule(22, "203.0.113.7/32"),
        rule(22, "2001:db8::/32"),
        instance(),
        volume(),
        Resource(ADDRESS, {"tags": TAGS}, protected=True),
        Resource(GROUP, {"tags": TAGS}),
        Resource("random:index/randomPassword:RandomPassword", {"length": 64.0}),
    ],
    ids=lambda resource: resource.type.rpartition(":")[2],
)
def test_what_the_program_asks_for_is_in_order_even_in_production(resource: Resource) -> None:
    assert violations(resource, PROD) == []


# What is wrong


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        (rule(443, "0.0.0.0/0"), "port 443 is open to the world (0.0.0.0/0)"),
        (rule(443, "::/0"), "port 443 is open to the world (::/0)"),
        (rule(22, "0.0.0.0/0"), "port 22 is open to the world"),
        (rule(22, "10.0.0.0/8"), "port 22 is open to 10.0.0.0/8: name the administrators' addresses"),
        (rule(20, "198.51.0.0/12", 30), "port 22 is open to 198.51.0.0/12"),
        (rule(8000, "198.51.100.10/32"), "port 8000 is vLLM's own"),
        (rule(18000, "198.51.100.10/32"), "port 18000 is vLLM's own"),
        (rule(1, "198.51.100.10/32", 9000), "port 8000 is vLLM's own"),
        (Resource(INGRESS_RULE, {"ipProtocol": "-1", "cidrIpv4": "198.51.100.10/32"}), "port 8000 is vLLM's own"),
        (
            Resource(OLD_RULE, {"type": "ingress", "protocol": "tcp", "fromPort": 443, "toPort": 443,
                                "cidrBlocks": ["198.51.100.10/32", "0.0.0.0/0"]}),
            "port 443 is open to the world",
        ),
        (
            Resource(GROUP, {"tags": TAGS, "ingress": [
                {"protocol": "tcp", "fromPort": 443, "toPort": 443, "ipv6CidrBlocks": ["::/0"]}]}),
            "port 443 is open to the world (::/0)",
        ),
        (
            instance(metadataOptions={"httpTokens": "optional", "httpPutResponseHopLimit": 1}),
            "metadata can be read without a token",
        ),
        (
            instance(metadataOptions={"httpTokens": "required", "httpPutResponseHopLimit": 2.0}),
            "containers may reach the instance's metadata",
        ),
        (instance(metadataOptions=None), "metadata can be read without a token"),
        (instance(rootBlockDevice={"volumeSize": 150.0}), "root disk is not encrypted"),
        (instance(rootBlockDevice=None), "root disk is not encrypted"),
        (instance(ebsBlockDevices=[{"deviceName": "/dev/sdf"}]), "disk /dev/sdf is not encrypted"),
        (volume(encrypted=False), "the volume is not encrypted"),
        (volume(encrypted=None), "the volume is not encrypted"),
        (volume(tags={"Project": "seatable-vllm"}), "lacks the tags Stack, ManagedBy"),
        (volume(tags=None), "lacks the tags Project, Stack, ManagedBy"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_would_be_right(resource: Resource, words: str) -> None:
    told = violations(resource, PROD)
    assert any(words in text for text in told), told
    assert all(": " in text for text in told)


def test_what_goes_out_is_no_way_in() -> None:
    out = {"type": "egress", "protocol": "-1", "fromPort": 0, "toPort": 0, "cidrBlocks": ["0.0.0.0/0"]}
    assert violations(Resource(OLD_RULE, out)) == []
    assert (
        violations(Resource("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", {"cidrIpv4": "::/0"})) == []
    )


def test_a_port_that_is_meant_for_the_world_is_open_and_no_other() -> None:
    meant = Meant(open_to_all=frozenset({80}))
    assert violations(rule(80, "0.0.0.0/0"), meant) == []
    assert violations(rule(80, "0.0.0.0/0", 81), meant) != []
    assert violations(rule(443, "0.0.0.0/0"), meant) != []


def test_tags_of_the_provider_are_tags_of_the_resource() -> None:
    assert violations(Resource(GROUP, {"tags": {"Name": "x"}}, default_tags=TAGS)) == []


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        (volume(protected=False), "the data volume of a production stack is not protected"),
        (Resource(ADDRESS, {"tags": TAGS}), "the address of a production stack is not protected"),
        (instance(disableApiTermination=None), "can be terminated"),
    ],
)
def test_data_is_protected_in_production_and_nowhere_else(resource: Resource, words: str) -> None:
    assert [words in text for text in violations(resource, PROD)] == [True]
    assert violations(resource) == []


def test_the_rules_have_no_other_opinion_than_the_program() -> None:
    # The folder is used alone, so it has its own copies.
    assert (rules.TAGS, rules.NARROW) == (REQUIRED, NARROW_NETWORK)


# The pack


class Pack:
    """The running policy pack."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def configure(self, config: Mapping[str, Any]) -> None:
        properties = struct_pb2.Struct()
        properties.update(config)
        one = analyzer_pb2.PolicyConfig(enforcementLevel=analyzer_pb2.MANDATORY, properties=properties)
        names = rules.RULES
        self._stub.Configure(analyzer_pb2.ConfigureAnalyzerRequest(policyConfig=dict.fromkeys(names, one)))

    def told(self, resource: Resource, stack: str = "dev", provider: Mapping[str, Any] | None = None) -> list[str]:
        """What it says of a resource."""
        properties = struct_pb2.Struct()
        properties.update({key: value for key, value in resource.inputs.items() if value is not None})
        urn = f"urn:pulumi:{stack}::seatable-vllm::{resource.type}::it"
        request = analyzer_pb2.AnalyzeRequest(
            type=resource.type,
            properties=properties,
            urn=urn,
            name="it",
            options=analyzer_pb2.AnalyzerResourceOptions(protect=resource.protected),
        )
        if provider is not None:
            of = struct_pb2.Struct()
            of.update(provider)
            request.provider.CopyFrom(
                analyzer_pb2.AnalyzerProviderResource(type="pulumi:providers:aws", properties=of, name="aws")
            )
        return [
            f"{each.policyName}: {each.message}"
            for each in self._stub.Analyze(request).diagnostics
            if each.enforcementLevel == analyzer_pb2.MANDATORY
        ]


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[], Pack]]:
    """Starts the pack as Pulumi does: the folder, as a program."""
    processes, channels = [], []

    def begin() -> Pack:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "policies"), "127.0.0.1:1", str(PROJECT / "policies")],
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        processes.append(process)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "the pack says no port"
        channels.append(grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}"))
        return Pack(analyzer_pb2_grpc.AnalyzerStub(channels[-1]))

    yield begin
    for channel in channels:
        channel.close()
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def pack(start: Callable[[], Pack]) -> Pack:
    """A pack without configuration."""
    return start()


def test_the_pack_refuses_what_the_rules_refuse(pack: Pack) -> None:
    (told,) = pack.told(rule(22, "0.0.0.0/0"))
    assert told.startswith("ingress: ")
    assert "port 22 is open to the world (0.0.0.0/0): name the clients' networks" in told
    assert pack.told(rule(443, "198.51.100.10/32")) == []


def test_the_pack_knows_production_by_the_name_of_the_stack(pack: Pack) -> None:
    assert pack.told(volume(protected=False), "dev") == []
    assert any("not protected" in text for text in pack.told(volume(protected=False), "prod"))
    assert pack.told(volume(protected=True), "prod") == []


def test_the_pack_counts_the_tags_of_the_provider(pack: Pack) -> None:
    group = Resource(GROUP, {"tags": {"Name": "x"}})
    assert any("lacks the tags" in text for text in pack.told(group))
    assert pack.told(group, provider={"defaultTags": json.dumps({"tags": TAGS})}) == []


def test_the_pack_takes_what_its_owner_means(start: Callable[[], Pack]) -> None:
    pack = start()
    pack.configure({"production_stacks": ["live"], "open_to_all": [80], "engine_ports": [9000]})
    assert pack.told(rule(80, "0.0.0.0/0")) == []
    assert any("port 9000 is vLLM's own" in text for text in pack.told(rule(9000, "198.51.100.10/32")))
    assert pack.told(volume(protected=False), "prod") == []
    assert any("not protected" in text for text in pack.told(volume(protected=False), "live"))


def test_the_pack_tells_pulumi_its_policies(pack: Pack) -> None:
    told = pack._stub.GetAnalyzerInfo(empty_pb2.Empty())
    assert (told.name, sorted(each.name for each in told.policies)) == ("seatable-vllm", sorted(rules.RULES))
    assert all(each.description for each in told.policies)
