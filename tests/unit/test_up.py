"""Unit tier: how `scripts/up` chooses who deploys, looks at what is there, and asks an endpoint at its end.

States and outputs are dictionaries here, and a script of the test stands in Pulumi's place. It does NOT prove that
an endpoint answers, nor what the engine's program writes into a state: the live tier and the engine tier do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from scripts.commands import pulumi_cli, pulumi_engine, up
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Engine, Known, Outcome, RehearsalEngine
from scripts.commands.errors import CommandError
from scripts.commands.pulumi_engine import PulumiEngine, generated_in, without_instance
from scripts.commands.stacks import stack_settings
from scripts.commands.terminal import Terminal
from scripts.commands.up import PROBER, choose_engine, proof_order, refuse_to_rehearse, take_over_what_is_there
from settings import Settings, parse
from tests.unit.checkout_support import Checkout, FakeContainer, FakeDocker, in_checkout

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, FakeEndpoint

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


# Who deploys


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: FakeCommand) -> Iterator[Checkout]:
    """A checkout on a computer that has no Pulumi CLI, nor gets one."""
    monkeypatch.setenv("PATH", str(fake_command.folder / "bin"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")
    monkeypatch.setattr(pulumi_cli, "_install", lambda: "no network")
    pulumi_engine._cli.cache_clear()
    yield from in_checkout(tmp_path / "checkout", monkeypatch, "gpu1", "config: {}\n")
    pulumi_engine._cli.cache_clear()


def chosen(before: Engine | None = None, *, rehearse: bool = False) -> Engine:
    return choose_engine("gpu1", None, before, rehearse, Terminal())


def test_without_a_cli_the_program_is_rehearsed_and_why_is_said(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(chosen(), RehearsalEngine)
    assert "none to be had (no network): this is a rehearsal, not `pulumi up`" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["on PATH", "in the project"])
def test_the_cli_deploys_wherever_it_is(where: str, checkout: Checkout, fake_command: FakeCommand) -> None:
    fake_command.add("pulumi", "echo v3.999.0")
    if where == "in the project":
        cli = checkout.folder / ".pulumi-cli" / "bin" / "pulumi"
        cli.parent.mkdir(parents=True)
        (fake_command.folder / "bin" / "pulumi").rename(cli)
    engine = chosen()
    assert isinstance(engine, PulumiEngine)
    assert engine._cli.command == ("pulumi" if where == "on PATH" else str(cli))
    assert not (checkout.folder / ".state" / "gpu1").exists()


def test_who_asks_for_a_rehearsal_gets_one_beside_a_cli_and_keeps_its_keys(
    checkout: Checkout, fake_command: FakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command.add("pulumi", "echo v3.999.0")
    checkout.rehearse()
    keys = checkout.keys()
    assert isinstance(chosen(RehearsalEngine("gpu1"), rehearse=True), RehearsalEngine)
    assert checkout.keys() == keys
    assert keys
    assert "this is a rehearsal, not `pulumi up`" in capsys.readouterr().err
    assert fake_command.calls == []


@pytest.mark.parametrize("known", [Known(owner="ours"), Known(frozenset({"an-id"})), Known(pending=1)])
def test_what_pulumi_has_deployed_is_not_rehearsed(
    known: Known, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PulumiEngine, "known", lambda _: known)
    with pytest.raises(CommandError, match="`scripts/up gpu1` without --rehearse, or `scripts/down gpu1` first"):
        refuse_to_rehearse("gpu1", PulumiEngine("gpu1", None, ""))


def test_a_rehearsal_is_refused_before_anything_is_touched(
    checkout: Checkout, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command.add("pulumi", "echo v3.999.0")
    monkeypatch.setattr(PulumiEngine, "known", lambda _: Known(owner="ours"))
    monkeypatch.setattr(up, "aws_stack", lambda *_: pytest.fail("the account was looked at"))
    with pytest.raises(CommandError, match="Pulumi has deployed the stack gpu1 already"):
        up.bring_up(up._options(["gpu1", "--rehearse"]), settings(), Terminal())


def test_a_stack_that_pulumi_has_not_deployed_yet_may_be_rehearsed(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PulumiEngine, "known", lambda _: Known())
    refuse_to_rehearse("gpu1", PulumiEngine("gpu1", None, ""))
    refuse_to_rehearse("gpu1", RehearsalEngine("gpu1"))
    refuse_to_rehearse("gpu1", None)
    assert isinstance(chosen(PulumiEngine("gpu1", None, ""), rehearse=True), RehearsalEngine)


def test_the_cli_takes_over_from_a_rehearsal_and_leaves_none_of_its_keys(
    checkout: Checkout, fake_command: FakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_command.add("pulumi", "echo v3.999.0")
    checkout.rehearse()
    keys = checkout.keys()
    assert sorted(keys) == ["keys-engine", "keys-seatable-1"]
    assert isinstance(chosen(RehearsalEngine("gpu1")), PulumiEngine)
    assert checkout.holding(*keys.values()) == []
    assert "Pulumi takes over, with new keys" in capsys.readouterr().err


def test_who_has_read_the_state_already_deploys(checkout: Checkout, fake_command: FakeCommand) -> None:
    fake_command.add("pulumi", "echo v3.999.0")
    before = PulumiEngine("gpu1", None, "")
    assert chosen(before) is before


# What is there


def known(*ids: str, folders: tuple[str, ...] = ("/srv/new", "/srv/old")) -> Any:
    """An engine in whose state these are, with their data in these folders."""
    return SimpleNamespace(known=lambda: Known(frozenset(ids), frozenset(folders), "ours"))


def machine(**folders: str) -> DockerState:
    """A machine where containers of these names have their data in these folders; the stack's is /srv/new."""
    docker = FakeDocker()
    docker.items += [FakeContainer(docker, name, folder, "ours") for name, folder in folders.items()]
    return DockerState(docker, "gpu1", "/srv/new")  # type: ignore[arg-type]


def test_what_a_killed_run_left_in_the_folder_before_this_one_is_removed_and_nothing_else() -> None:
    here = machine(listed="/srv/old", left="/srv/old", new="/srv/new")
    take_over_what_is_there(here, known("listed"), Terminal())
    assert here.client.names == ["listed", "new"]


@pytest.mark.parametrize("before", [None, known()], ids=["no state", "a state"])
def test_a_stack_of_that_name_from_another_checkout_is_refused_and_not_touched(before: Any) -> None:
    here = machine(left="/srv/old", theirs="/srv/theirs")
    with pytest.raises(CommandError, match="another checkout has a stack gpu1 up here"):
        take_over_what_is_there(here, before, Terminal())
    assert here.client.names == ["left", "theirs"]


@pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "", "soon"])
def test_a_patience_that_is_none_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One that is taken must not deploy anything from a unit test.
    monkeypatch.setattr(up, "stack_settings", lambda _: pytest.fail("it was taken, and up began"))
    with pytest.raises(SystemExit):
        up.main([f"--patience={seconds}"])
    assert f"{seconds!r} is no whole number of seconds from 1 on" in capsys.readouterr().err


def test_a_patience_is_a_whole_number_of_seconds_from_one_on() -> None:
    assert [up._options([f"--patience={seconds}"]).patience for seconds in ("1", "90")] == [1, 90]


def test_a_model_is_to_be_had_from_the_disk_or_from_a_hub_that_answers(
    checkout: Checkout, fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = stack_settings(checkout.stack, checkout.folder)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{fake_endpoint.port}")
    assert up._model_is_to_be_had(checkout.stack, settings)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not up._model_is_to_be_had(checkout.stack, settings)
    config = checkout.folder / ".state" / checkout.stack / "data" / "models" / settings.model.name / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    assert up._model_is_to_be_had(checkout.stack, settings)


# The state, and the last question


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
