"""Unit tier: how `scripts/up` reads a state, and asks an endpoint once more at its end.

States and outputs are dictionaries here, and a script of the test stands in Pulumi's place. It does NOT prove that
an endpoint answers, nor what the engine's program writes into a state: the live tier and the engine tier do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scripts.commands import pulumi_engine
from scripts.commands.engines import Engine, Outcome, RehearsalEngine
from scripts.commands.pulumi_engine import PulumiEngine, generated_in, without_instance
from scripts.commands.up import PROBER, proof_order
from settings import Settings, parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

KEY = "k" * 64
STATE = {
    "deployment": {
        "resources": [
            {"type": "pulumi:pulumi:Stack", "urn": "urn:pulumi:dev::p::pulumi:pulumi:Stack::p-dev"},
            {
                "type": "random:index/randomPassword:RandomPassword",
                "urn": "urn:pulumi:dev::p::random:index/randomPassword:RandomPassword::keys-engine",
                "outputs": {"result": {"4dabf18193072939515e22adb298388d": "secret", "plaintext": '"other"'}},
            },
            {
                "type": "random:index/randomPassword:RandomPassword",
                "urn": "urn:pulumi:dev::p::seatable-vllm:index:Keys$random:index/x:RandomPassword::keys-prober",
                "outputs": {"result": {"4dabf18193072939515e22adb298388d": "secret", "plaintext": f'"{KEY}"'}},
            },
        ]
    }
}
"""As `pulumi stack export --show-secrets` writes it."""


def settings(**more: Any) -> Settings:
    clients = {"agents": {"kind": "openai", "cidrs": ["127.0.0.1/32"]}}
    return parse({"clients": clients, **more})


def outcome() -> Outcome:
    outputs = {
        "endpoint": "https://llm.example.com/v1",
        "clients": {"agents": {"key": "of the client"}, "seatable": {"key": "of the client"}},
        "model": "m",
        "max_model_len": "2048",
        "tool_parser": "none",
        "ca_certificate": "PEM",
    }
    return Outcome(0, 0, 0, 73, outputs)


def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(RehearsalEngine, "generated", lambda _, name: generated_in(STATE, name))
    return RehearsalEngine("dev")


def test_the_gates_own_key_is_read_from_the_state() -> None:
    assert generated_in(STATE, PROBER) == KEY
    assert generated_in(STATE, "keys-nobody-1") is None
    assert generated_in({"deployment": None}, PROBER) is None


def test_an_endpoint_with_a_name_is_asked_on_the_machine_with_the_gates_own_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = settings(domain={"host": "llm.example.com", "tls": "private-ca"})
    target = proof_order("dev", named, engine(monkeypatch), outcome()).target
    assert (target.key, target.address, target.ca) == (KEY, "127.0.0.1", "PEM")
    assert target.base_url == "https://llm.example.com/v1"


def test_an_endpoint_without_a_name_is_asked_as_a_client_does(monkeypatch: pytest.MonkeyPatch) -> None:
    target = proof_order("dev", settings(), engine(monkeypatch), outcome()).target
    assert (target.key, target.address) == ("of the client", None)


def test_what_is_left_of_a_state_without_its_instance_depends_on_nothing_that_is_gone() -> None:
    vm, disk, name = "urn::aws:ec2/instance:Instance::vm", "urn::Volume::data", "urn::Command::ready"
    state: list[dict[str, Any]] = [
        {"type": "seatable-vllm:index:GpuVm", "urn": "urn::vm", "outputs": {"place": {"instance": "i-1"}}},
        {"type": "aws:ec2/instance:Instance", "urn": vm},
        {"type": "aws:ebs/volume:Volume", "urn": disk, "dependencies": [vm]},
        {"type": "aws:ec2/volumeAttachment:VolumeAttachment", "urn": "urn::attached", "dependencies": [vm, disk]},
        {"type": "aws:ec2/eipAssociation:EipAssociation", "urn": "urn::led", "dependencies": [vm]},
        {"type": "docker:index/container:Container", "urn": "urn::engine", "deletedWith": vm},
        {
            "type": "command:local:Command",
            "urn": name,
            "dependencies": [disk, "urn::attached"],
            "propertyDependencies": {"create": [vm], "stdin": [disk]},
        },
    ]
    left = {item["urn"]: item for item in without_instance(state)}
    assert list(left) == ["urn::vm", disk, "urn::led", name]
    assert left[disk]["dependencies"] == []
    assert left[name]["dependencies"] == [disk]
    assert left[name]["propertyDependencies"] == {"create": [], "stdin": [disk]}
    assert "place" not in left["urn::vm"]["outputs"]


def test_a_state_that_is_read_ahead_is_read_once_and_again_only_when_asked_again(
    fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = {"type": "docker:index/container:Container", "id": "c1", "inputs": {}}
    state = json.dumps({"deployment": {"resources": [container]}})
    fake_command.add("pulumi", f"[ \"$1\" = version ] && echo v3.999.0 || echo '{state}'")
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///nowhere")
    pulumi_engine._cli.cache_clear()
    engine = PulumiEngine("s", None, "")
    engine.read_ahead()
    assert engine.known().ids == {"c1"}
    assert [call for call in fake_command.calls if "export" in call] == fake_command.calls[1:]
    assert len(fake_command.calls) == 2, "the version, and one export"
    assert engine.known().ids == {"c1"}
    assert len(fake_command.calls) == 3
    pulumi_engine._cli.cache_clear()
