"""Unit tier: `scripts/plan --graph`: the order that is read off the program, and the time that is made of it.

Does not prove how long anything takes: durations are typical ones, and only their use is looked at. Nor that
Pulumi's engine keeps to the order; that it asks for no more is held against the recorder of the other tests.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog import durations
from rehearsal.errors import RehearsalError
from rehearsal.order import ACCOUNT, REACHED, WEIGHTS_LOST, Part, in_order, program_order
from rehearsal.stack_file import stack_config
from scripts.commands import plan, plan_graph
from scripts.commands.plan_graph import Plan, Step, plan_of
from scripts.commands.stacks import PROJECT

if TYPE_CHECKING:
    from tests.conftest import RecordProgram

STACKS = ("local", "second", "dev", "prod")


@pytest.fixture(autouse=True, scope="module")
def _nothing_but_the_program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A home without keys, where no command can be run and nobody can be called."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan runs nothing, and calls nobody")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("DOCKER_HOST", raising=False)
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def plans(_nothing_but_the_program: None) -> Mapping[str, Plan]:
    """Each stack's plan."""
    return {stack: plan_of(stack) for stack in STACKS}


@pytest.fixture(params=STACKS)
def any_plan(request: pytest.FixtureRequest, plans: Mapping[str, Plan]) -> Plan:
    """The plan of each stack in turn."""
    return plans[request.param]


def project_with(folder: Path, stack: str, config: str) -> Path:
    """A project of the same program, with one stack file of the test's own."""
    for name in ("__main__.py", "Pulumi.yaml"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / f"Pulumi.{stack}.yaml").write_text(f"config:\n{config}")
    return folder


def before(plan: Plan, name: str) -> set[str]:
    """All parts that come before this one, however far away."""
    found, waiting = set[str](), [name]
    while waiting:
        direct = plan.timed[waiting.pop()].part.waits_for - found
        found |= direct
        waiting += direct
    return found


def step(plan: Plan, name: str) -> Step:
    """The one step of this name."""
    (found,) = [each for each in plan.steps if each.name == name]
    return found


@pytest.mark.parametrize("stack", ["local", "dev"])
def test_it_has_every_resource_and_all_that_each_waits_for(
    stack: str, plans: Mapping[str, Plan], record_program: RecordProgram, home_with_key: Path
) -> None:
    recorded = record_program(stack, stack_config(stack), environment={"HOME": str(home_with_key)})
    assert {each.name for each in recorded.resources} <= plans[stack].timed.keys()
    for resource in recorded.resources:
        assert recorded.everything_before(resource) - {resource.name} <= before(plans[stack], resource.name)


def test_nothing_is_made_at_aws_before_the_account_was_asked(plans: Mapping[str, Plan]) -> None:
    dev = plans["dev"]
    at_aws = [
        name for name, each in dev.timed.items() if each.part.type.startswith(("aws:", "pulumi:providers:aws"))
    ]
    assert len(at_aws) > 20
    assert [name for name in at_aws if ACCOUNT not in before(dev, name)] == []


def test_programs_wait_until_the_machine_was_reached_and_that_waits_for_disk_and_address(
    plans: Mapping[str, Plan],
) -> None:
    dev = plans["dev"]
    programs = [name for name, each in dev.timed.items() if each.part.type == "command:local:Command"]
    assert "machine-ready" in programs
    assert [name for name in programs if REACHED not in before(dev, name)] == []
    assert {"vm-storage-attachment", "vm-address-association"} <= before(dev, REACHED)


def test_weights_wait_for_the_look_whether_they_were_lost(any_plan: Plan) -> None:
    assert WEIGHTS_LOST in before(any_plan, "inference-weights-present")
    assert WEIGHTS_LOST not in before(any_plan, "inference-image-present")


def test_this_computer_is_not_reached_and_no_account_asked(plans: Mapping[str, Plan]) -> None:
    assert {ACCOUNT, REACHED, plan_graph.BOOT} & plans["local"].timed.keys() == set()


def test_the_machine_boots_while_its_disk_is_attached(plans: Mapping[str, Plan]) -> None:
    for stack in ("dev", "prod"):
        boots = step(plans[stack], "machine boots")
        assert boots.waits_for == ["instance made"]
        assert {"data disk attached", "address led there", "name led there"} <= set(boots.beside)


def test_images_come_at_once_and_the_certificate_meanwhile(plans: Mapping[str, Plan]) -> None:
    dev = plans["dev"]
    for name in ("edge image pulled", "ACME image pulled"):
        # The small ones at once, and the engine's after the one of them that its weights are fetched with.
        assert "Python image pulled" in step(dev, name).beside
    assert "engine image pulled" not in before(dev, "certificates-present")
    assert "engine image pulled" in step(dev, "certificate").beside


def test_weights_come_beside_the_engines_image_and_only_the_slower_of_them_is_waited_for(
    plans: Mapping[str, Plan],
) -> None:
    for stack in ("dev", "prod"):
        fetched, pulled = step(plans[stack], "weights fetched"), step(plans[stack], "engine image pulled")
        assert fetched.waits_for == pulled.waits_for == ["Python image pulled"]
        assert "engine image pulled" in fetched.beside
        assert {"weights fetched", "engine image pulled"} <= set(step(plans[stack], "weights present").waits_for)
        assert [fetched.critical, pulled.critical] == [fetched.ends > pulled.ends, pulled.ends > fetched.ends]


def test_weights_that_wait_for_the_engines_image_make_the_way_longer(tmp_path: Path) -> None:
    config = "  seatable-vllm:machine: {kind: host, ssh: me@gpu.example.com}\n"
    config += "  seatable-vllm:model: {name: somebody/a-model}\n"
    beside = plan_of("own", project_with(tmp_path, "own", config))
    after = plan_of("own", project_with(tmp_path, "own", f"{config}  seatable-vllm:images: {{python: none}}\n"))
    assert "weights fetched" not in {each.name for each in after.steps}
    weights = after.timed["inference-weights-present"]
    assert weights.begins == after.timed["inference-image-present"].ends
    assert weights.ends - weights.begins == durations.weights_seconds(durations.USUAL_WEIGHTS_BYTES)
    assert beside.seconds < after.seconds


@pytest.mark.parametrize("faster", ["root_disk_throughput: 500", "data_disk: {throughput: 500}"])
def test_a_faster_disk_makes_the_way_shorter(faster: str, tmp_path: Path) -> None:
    aws = "instance_types: [g6.xlarge], admin_cidrs: [198.51.100.7/32], ssh_key: ~/.ssh/none"
    plans = [
        plan_of(
            "own", project_with(tmp_path, "own", f"  aws:region: eu-central-1\n  seatable-vllm:machine: {{{m}}}\n")
        )
        for m in (f"kind: aws, {aws}", f"kind: aws, {aws}, {faster}")
    ]
    assert plans[1].seconds < plans[0].seconds


def test_every_resource_belongs_to_a_step_with_a_name(any_plan: Plan) -> None:
    named = {name for name, _ in plan_graph.STEPS}
    assert {each.name for each in any_plan.steps} <= named
    shown = [part.part.name for each in any_plan.steps for part in each.parts]
    assert sorted(shown) == sorted(name for name, each in any_plan.timed.items() if not each.part.component)


def test_a_step_waits_for_what_is_done_when_its_first_part_can_be_done(any_plan: Plan) -> None:
    for each in any_plan.steps:
        for other in each.waits_for:
            assert step(any_plan, other).begins <= each.ends


def test_the_critical_path_is_without_gaps_and_ends_with_the_checks(any_plan: Plan) -> None:
    told = plan_graph.as_json(any_plan)
    assert any_plan.critical[0].begins == 0
    for earlier, later in zip(any_plan.critical, any_plan.critical[1:], strict=False):
        assert earlier.ends == later.begins
        assert earlier.part.name in before(any_plan, later.part.name)
    assert any_plan.critical[-1].part.name == "readiness-gate"
    assert sum(leg["seconds"] for leg in told["critical_path"]) == pytest.approx(
        told["critical_path_seconds"], abs=2
    )
    assert max(each.ends for each in any_plan.timed.values()) == any_plan.seconds


def test_a_larger_model_takes_longer_and_one_that_nobody_knows_is_said_to_be_a_guess(tmp_path: Path) -> None:
    host = "  seatable-vllm:machine: {kind: host, ssh: me@gpu.example.com}\n"
    plans = [
        plan_of("own", project_with(tmp_path, "own", f"{host}  seatable-vllm:model: {{name: {name}}}\n"))
        for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "somebody/a-model")
    ]
    assert plans[0].seconds < plans[1].seconds
    assert [each.weights_known for each in plans] == [True, False]
    guessed = plans[1].timed["inference-weights-ahead-fetched"]
    longest = durations.HUB_CLIENT_SECONDS + durations.weights_seconds(durations.USUAL_WEIGHTS_BYTES)
    assert guessed.ends - guessed.begins == longest


def test_a_host_needs_no_key_here_and_its_host_key_is_not_written_down(tmp_path: Path) -> None:
    machine = "{kind: host, ssh: me@gpu.example.com, ssh_key: ~/.ssh/none, host_key: ssh-ed25519 AAAAC3NzaC1lZDI1}"
    project = project_with(tmp_path, "only-planned", f"  seatable-vllm:machine: {machine}\n")
    names = {part.name for part in program_order("only-planned", project)}
    assert REACHED in names
    assert ACCOUNT not in names
    assert not (PROJECT / ".state" / "only-planned").exists()


def test_an_encrypted_secret_is_not_needed(tmp_path: Path) -> None:
    project = project_with(tmp_path, "sealed", "  seatable-vllm:hugging_face_token: {secure: AAABAK}\n")
    assert "inference-weights-present" in {part.name for part in program_order("sealed", project)}


def test_settings_that_the_program_refuses_are_told(tmp_path: Path) -> None:
    project = project_with(tmp_path, "wrong", "  seatable-vllm:ports: {edge: 99999}\n")
    with pytest.raises(RehearsalError, match=r"ports\.edge"):
        program_order("wrong", project)


def test_parts_come_after_what_they_wait_for_and_a_circle_is_named() -> None:
    parts = [Part("c", "", frozenset("ab")), Part("b", "", frozenset("a")), Part("a", "", frozenset())]
    assert [part.name for part in in_order(parts)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="each other: x, y"):
        in_order([Part("x", "", frozenset("y")), Part("y", "", frozenset("x"))])


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--graph", "local"]) == 0
    told = capsys.readouterr().out
    assert "Critical path: machine ready" in told
    assert plan.main(["--graph", "local", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert f"{said['critical_path_seconds'] / 60:.1f} min" in told
    assert [each["name"] for each in said["steps"] if each["critical"]][-1] == "checks"


@pytest.mark.parametrize("words", [[], ["owner/model", "--graph", "local"]])
def test_it_wants_a_model_or_a_stack(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan.main(words)
    assert "give a MODEL, or --graph STACK" in capsys.readouterr().err
