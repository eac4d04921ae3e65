"""Unit tier: why a machine on AWS is not reached, by what its account says of it.

moto's EC2 answers where it can; reasons of a stop, status checks and events are written by hand after EC2's API
reference (StateReason, DescribeInstanceStatus). It does NOT prove that EC2 gives these reasons in these words, nor
that the remedies work there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aws_account.machine import read_machine
from catalog.aws.account import Unanswered
from catalog.aws.machine import Look, MachineFacts, MachineWanted, look_at
from catalog.aws.owned import INSTANCE, Recorded
from catalog.aws.tags import OWNER
from checks.diagnosis import Problem
from scripts.commands import aws_account, doctor
from scripts.commands.aws import AwsStack
from scripts.commands.aws_account import on_aws
from scripts.commands.stacks import stack_settings
from settings import AwsMachine, parse
from tests.unit.aws_support import REGION, account, again, make_instance, stack

ADMIN, CLIENT, EIP, NAME = "203.0.113.7/32", "198.51.100.0/24", "192.0.2.10", "i-0a"


def wanted(**changes: Any) -> MachineWanted:
    """A stack `gpu` with one administrator and one client."""
    values: dict[str, Any] = {
        "stack": "gpu", "region": REGION, "address": EIP, "doors": {22: [ADMIN], 443: [CLIENT]}, "stop_at": None,
        "time_zone": "UTC", "idle_stop_minutes": None, "live_hours": None,
    }  # fmt: skip
    return MachineWanted(**{**values, **changes})  # type: ignore[typeddict-item]


def rule(port: int, *cidrs: str) -> dict[str, Any]:
    return {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "IpRanges": [{"CidrIp": each} for each in cidrs],
    }


def machine(state: str = "running", code: str = "", transition: str = "", message: str = "") -> dict[str, Any]:
    return {
        "InstanceId": NAME, "State": {"Name": state}, "StateReason": {"Code": code, "Message": message},
        "StateTransitionReason": transition, "PublicIpAddress": EIP, "SecurityGroups": [{"GroupId": "sg-0a"}],
    }  # fmt: skip


WELL = MachineFacts(
    account="123456789012",
    instances=[machine()],
    statuses=[{"InstanceId": NAME, "SystemStatus": {"Status": "ok"}, "InstanceStatus": {"Status": "ok"}}],
    addresses=[{"PublicIp": EIP, "InstanceId": NAME, "AllocationId": "eipalloc-0a"}],
    groups=[{"GroupId": "sg-0a", "IpPermissions": [rule(22, ADMIN), rule(443, CLIENT)]}],
)
"""What an account says of a machine that nothing is wrong with."""


def the_problem(facts: MachineFacts, wants: MachineWanted | None = None) -> Look:
    """The one look that has a problem."""
    (found,) = [each for each in look_at(wants or wanted(), facts) if each.problem]
    return found


def test_of_a_machine_that_is_well_everything_is_looked_at_and_nothing_is_wrong() -> None:
    looks = list(look_at(wanted(), WELL))
    assert [each.name for each in looks] == ["instance", "status checks", "address", "security group"]
    assert not any(each.problem for each in looks)


STOP = "Client.UserInitiatedShutdown"
WITHIN = "Client.InstanceInitiatedShutdown"
AT_EIGHT_IN_BERLIN = "User initiated (2026-11-30 19:00:41 GMT)"
EVENING = {"stop_at": "20:00", "time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("instance", "wants", "cause", "change"),
    [
        (machine("stopped", WITHIN), {"idle_stop_minutes": 30}, "idle_stop_minutes 30", "raise or remove"),
        (machine("stopped", WITHIN), {"live_hours": 8}, "machine.cost.live_hours 8", "raise or remove live_hours"),
        (machine("stopped", WITHIN), {}, "shut down from within", "scripts/up gpu starts it"),
        (machine("stopped", STOP, AT_EIGHT_IN_BERLIN), EVENING, "cost.stop_at 20:00 Europe/Berlin", "stop_at"),
        (machine("stopped", STOP, AT_EIGHT_IN_BERLIN), {**EVENING, "time_zone": "UTC"}, "a person or a program",
         "CloudTrail"),
        (machine("stopped", STOP, AT_EIGHT_IN_BERLIN), {"idle_stop_minutes": 30}, "at 2026-11-30 19:00 UTC",
         "CloudTrail"),
        (machine("stopped", STOP, "User initiated (2026-11-30 00:10:00 GMT)"), {"stop_at": "23:50"},
         "machine.cost.stop_at 23:50", "stop_at"),
        (machine("stopping", STOP), {}, "is stopping: a person", "scripts/up gpu starts it"),
        (machine("stopped", "Server.SpotInstanceShutdown"), {}, "taken the spot machine back", "on-demand"),
        (machine("stopped", "Server.ScheduledStop"), {}, "retired the hardware", "other hardware"),
        (machine("stopped", "Server.InternalError", message="Server.InternalError: Internal error on launch"), {},
         "Internal error on launch", "scripts/up gpu"),
        (machine("terminated", message="Client.UserInitiatedShutdown: User initiated shutdown"), {},
         "was terminated: Client.UserInitiatedShutdown", "makes another, with the stack's data"),
        (machine("pending"), {}, "is starting", "wait a minute"),
    ],
)  # fmt: skip
def test_a_machine_that_does_not_run_is_said_to_with_who_stopped_it(
    instance: dict[str, Any], wants: dict[str, Any], cause: str, change: str
) -> None:
    looks = list(look_at(wanted(**wants), replace(WELL, instances=[instance])))
    assert len(looks) == 1, "nothing is said of what hangs on it"
    assert looks[0].problem
    assert cause in looks[0].problem.cause
    assert change in looks[0].problem.change
    assert "machine.ssh" not in str(looks[0].problem)


def test_an_account_without_the_machine_is_named_with_its_number_and_region() -> None:
    found = the_problem(replace(WELL, instances=[])).problem
    assert found
    assert "the account 123456789012 has no instance of the stack gpu in us-east-1" in found.cause
    assert "aws:profile" in found.change


def test_an_instance_that_runs_stands_before_one_that_was_terminated() -> None:
    gone = {**machine("terminated"), "InstanceId": "i-0b"}
    assert not any(each.problem for each in look_at(wanted(), replace(WELL, instances=[gone, machine()])))


@pytest.mark.parametrize(
    ("status", "cause", "change"),
    [
        ({"SystemStatus": {"Status": "impaired"}}, "hardware or network", "stop-instances"),
        ({"AttachedEbsStatus": {"Status": "impaired"}}, "its disks", "stop-instances"),
        ({"InstanceStatus": {"Status": "impaired"}}, "its system does not answer", "reboot-instances"),
    ],
)
def test_failed_status_checks_are_told_apart(status: dict[str, Any], cause: str, change: str) -> None:
    found = the_problem(replace(WELL, statuses=[{"InstanceId": NAME, **status}]))
    assert found.problem
    assert cause in found.problem.cause
    assert change in found.problem.change


def test_a_machine_that_aws_still_checks_is_no_problem() -> None:
    fresh = {"InstanceId": NAME, "SystemStatus": {"Status": "initializing"}}
    assert not any(each.problem for each in look_at(wanted(), replace(WELL, statuses=[fresh])))


@pytest.mark.parametrize(
    ("addresses", "cause", "change"),
    [
        ([{"PublicIp": EIP, "AllocationId": "eipalloc-0a"}], f"{EIP} is not at i-0a", "associate-address"),
        ([{"PublicIp": EIP, "InstanceId": "i-0z", "AllocationId": "eipalloc-0a"}], "is not at i-0a",
         "--allocation-id eipalloc-0a"),
        ([], f"the address {EIP} is no longer in the account", "pulumi refresh"),
        ([{"PublicIp": "192.0.2.99", "InstanceId": NAME}], "was deployed with 192.0.2.10", "pulumi refresh"),
    ],
)  # fmt: skip
def test_an_address_that_has_moved_is_told(addresses: list[dict[str, Any]], cause: str, change: str) -> None:
    found = the_problem(replace(WELL, addresses=addresses))
    assert found.problem
    assert found.lost
    assert cause in found.problem.cause
    assert change in found.problem.change


@pytest.mark.parametrize(
    ("rules", "cause", "lost"),
    [
        ([rule(443, CLIENT)], f"does not let in {ADMIN} to port 22", True),
        ([rule(22, ADMIN)], f"does not let in {CLIENT} to port 443", True),
        ([rule(22, ADMIN, "0.0.0.0/0"), rule(443, CLIENT)], "lets in 0.0.0.0/0 to port 22", False),
        ([rule(22, ADMIN), rule(443, CLIENT), {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
         "lets in 0.0.0.0/0 to all ports", False),
    ],
)  # fmt: skip
def test_a_security_group_that_somebody_changed_is_told(rules: list[Any], cause: str, lost: bool) -> None:
    found = the_problem(replace(WELL, groups=[{"GroupId": "sg-0a", "IpPermissions": rules}]))
    assert found.problem
    assert cause in found.problem.cause
    assert found.lost == lost


def test_a_machine_that_was_put_into_another_group_is_told() -> None:
    found = the_problem(replace(WELL, instances=[{**machine(), "SecurityGroups": [{"GroupId": "sg-0z"}]}]))
    assert found.problem
    assert "is not in the stack's security group sg-0a, but in sg-0z" in found.problem.cause


def test_what_the_account_does_not_say_is_no_problem() -> None:
    no = Unanswered("ec2:DescribeX", "is not allowed")
    for part in ("instances", "statuses", "addresses", "groups"):
        assert not any(each.problem for each in look_at(wanted(), replace(WELL, **{part: no})))  # type: ignore[arg-type]


# With boto3

OURS, ANOTHER = "this state's", "another's"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in an empty account; nobody asks Pulumi for a state."""
    with account(monkeypatch):
        stack(tmp_path)
        monkeypatch.setattr(doctor, "stack_settings", lambda name: stack_settings(name, tmp_path))
        monkeypatch.setattr(aws_account, "region_of", lambda name: again(tmp_path, name).aws)
        monkeypatch.setattr(aws_account, "place_of", lambda _: None)
        monkeypatch.setattr(aws_account, "recorded_of", lambda _: _lists_all(again(tmp_path)))
        yield tmp_path


def _lists_all(here: AwsStack) -> Recorded:
    """A state that lists every instance there is."""
    groups = here.aws.ec2.describe_instances()["Reservations"]
    return Recorded(
        frozenset((INSTANCE.type, each["InstanceId"]) for group in groups for each in group["Instances"])
    )


def test_the_stacks_machine_is_found_by_its_tags_in_any_state(project: Path) -> None:
    here = again(project)
    assert "has no instance of the stack gpu" in str(the_problem(read_machine("gpu", REGION, None)).problem)
    name = make_instance(here)
    assert [each["InstanceId"] for each in read_machine("gpu", REGION, None).instances or []] == [name]  # type: ignore[union-attr]
    assert read_machine("other", REGION, None).instances == []
    here.aws.ec2.stop_instances(InstanceIds=[name])
    assert f"{name} is stopped" in str(the_problem(read_machine("gpu", REGION, None)).problem)
    here.aws.ec2.terminate_instances(InstanceIds=[name])
    assert f"{name} was terminated" in str(the_problem(read_machine("gpu", REGION, None)).problem)


@pytest.fixture
def examined(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Runs scripts/doctor on a stack that was deployed; what it printed."""

    def run() -> str:
        monkeypatch.setattr(doctor, "outputs_of", lambda _: {"endpoint": "https://x", "model": "m", "clients": {}})
        assert doctor.main(["gpu"]) == 1
        return capsys.readouterr().out

    return run


def test_doctor_asks_the_account_first_and_not_a_machine_that_is_stopped(
    project: Path, examined: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "run_on_machine", lambda *_: pytest.fail("there is nobody to ask"))
    here = again(project)
    here.aws.ec2.stop_instances(InstanceIds=[make_instance(here)])
    told = examined()
    assert "problem AWS instance: " in told
    assert "skipped machine, containers and edge: not looked at because of the AWS instance" in told
    assert "skipped client's side: not looked at because of the AWS instance" in told
    assert told.count("cause: ") == 2, "the changed file of this test's outputs, and the stop"
    assert "machine.ssh" not in told


@pytest.mark.parametrize("owner", [OURS, ANOTHER])
def test_doctor_names_a_machine_that_no_state_lists_with_what_ends_it(
    owner: str, project: Path, examined: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = again(project)
    make_instance(here)
    recorded = replace(_lists_all(here), owner=OURS)
    left = make_instance(here)
    here.aws.ec2.create_tags(Resources=[left], Tags=[{"Key": OWNER, "Value": owner}])
    monkeypatch.setattr(aws_account, "recorded_of", lambda _: recorded)
    monkeypatch.setattr(doctor, "run_on_machine", lambda *_: pytest.fail("there is nobody to ask"))
    told = examined()
    assert "problem AWS bill: " in told
    (cause,) = [line for line in told.splitlines() if line.startswith("cause: ") and left in line]
    assert ("a run that was interrupted" in cause) is (owner == OURS)
    assert ("scripts/up gpu removes that" in told) is (owner == OURS)


def test_doctor_says_that_an_account_could_not_be_asked_and_goes_on(
    project: Path, examined: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(project / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(project / "none"))
    monkeypatch.setenv("HOME", str(project / "without an SSH key"))
    told = examined()
    assert "skipped AWS account: could not be asked: there are no AWS credentials" in told
    assert "to have it asked: log in" in told
    assert "problem machine: " in told, "it went on"
    assert "cause: cause:" not in told


@pytest.mark.parametrize(
    ("text", "cause", "change"),
    [
        (
            "ssh: connect to host 192.0.2.10 port 22: Connection timed out",
            "does not answer SSH",
            "machine.admin_cidrs",
        ),
        ("ubuntu@192.0.2.10: Permission denied (publickey).", "refuses the user or the key", "machine.ssh_key"),
    ],
)
def test_a_way_that_fails_names_no_setting_that_a_machine_on_aws_does_not_have(
    text: str, cause: str, change: str, project: Path
) -> None:
    machine = stack_settings("gpu", project).machine
    assert isinstance(machine, AwsMachine)
    told = str(on_aws(text, Problem("refuses the user or the key", "correct machine.ssh", text), machine))
    assert cause in told
    assert change in told
    assert "machine.ssh " not in told.replace("machine.ssh_key", "")


@pytest.mark.parametrize("found", [{"address": EIP}, None, OSError("no backend")])
def test_the_account_is_asked_for_what_the_stacks_file_wants_and_the_address_that_its_state_has(
    found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place_of(_: str) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(aws_account, "place_of", place_of)
    cost = {"stop_at": "19:00", "time_zone": "Europe/Berlin", "idle_stop_minutes": 60, "live_hours": 8}
    own = {"kind": "aws", "instance_types": ["g6.xlarge"], "admin_cidrs": [ADMIN]}
    clients = {"a": {"kind": "openai", "cidrs": [CLIENT]}, "b": {"kind": "openai", "cidrs": ["8.8.8.8/32"]}}
    domain = {"host": "h.example.com", "tls": "private-ca"}
    address = EIP if isinstance(found, dict) else None
    settings = parse({"machine": {**own, "cost": cost}, "clients": clients, "domain": domain})
    assert isinstance(settings.machine, AwsMachine)
    assert aws_account._wanted("gpu", settings, settings.machine, REGION) == {
        "stack": "gpu", "region": REGION, "address": address,
        "doors": {settings.ports.edge: [CLIENT, "8.8.8.8/32"], 22: [ADMIN]}, **cost,
    }  # fmt: skip
