"""Unit tier: a stopped machine on AWS is started before a deployment; what is left of a stack is told.

moto's EC2 runs in this process; where it has no answer like EC2's (no capacity at a start, a stop that takes long)
the answer is scripted. Does NOT prove how long a start takes, nor that anything runs on the machine afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from catalog.aws.tags import tags_of
from scripts.commands.aws import AwsStack, Instance, asking, what_stays
from scripts.commands.errors import CommandError
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.terminal import Terminal
from scripts.commands.up import forget_what_was_terminated
from scripts.commands.wake import LOOK_SECONDS, wake
from tests.unit.aws_support import account, again, make_instance, make_volume, stack


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in an empty account."""
    with account(monkeypatch):
        yield tmp_path


def state(project: Path) -> str:
    found = again(project).aws.instance("gpu")
    return found.state if found else "none"


def no_sleep(seconds: float) -> None:
    raise AssertionError("there was nothing to wait for")


def test_a_stopped_machine_is_started(project: Path) -> None:
    here = stack(project)
    here.aws.ec2.stop_instances(InstanceIds=[make_instance(here)])
    assert state(project) == "stopped"
    wake(here, Terminal(), no_sleep)
    assert state(project) == "running"


def test_a_machine_that_runs_is_left_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stack(project)
    make_instance(here)
    monkeypatch.setattr(here.aws.ec2, "start_instances", no_sleep)
    wake(here, Terminal(), no_sleep)
    assert state(project) == "running"


def test_a_stack_without_a_machine_has_nothing_to_wake(project: Path) -> None:
    here = stack(project)
    wake(here, Terminal(), no_sleep)
    here.aws.ec2.terminate_instances(InstanceIds=[make_instance(here)])
    wake(here, Terminal(), no_sleep)
    assert state(project) == "none"


def test_a_machine_that_is_just_stopping_is_started_when_it_has_stopped(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)
    states, started = iter(["stopping", "stopping", "stopping", "stopped", "pending", "running"]), []

    def instance(name: str) -> Instance:
        return Instance("i-1", next(states), "g6.xlarge", "us-east-1a")

    def start(**wanted: object) -> None:
        started.append(wanted)

    monkeypatch.setattr(here.aws, "instance", instance)
    monkeypatch.setattr(here.aws.ec2, "start_instances", start)
    pauses: list[float] = []
    wake(here, Terminal(), pauses.append)
    assert started == [{"InstanceIds": ["i-1"]}]
    assert pauses == [LOOK_SECONDS] * 3
    assert list(states) == []


def test_a_machine_that_does_not_stop_is_not_waited_for_for_ever(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)
    monkeypatch.setattr(here.aws, "instance", lambda *_: Instance("i-1", "stopping", "g6.xlarge", "us-east-1a"))
    pauses: list[float] = []
    with pytest.raises(CommandError, match="i-1 is not stopped after 20 minutes"):
        wake(here, Terminal(), pauses.append)
    assert sum(pauses) == 1200


class Deployed(PulumiEngine):
    """A stack whose state has a machine, and which counts how often it is told to forget it."""

    def __init__(self) -> None:
        self.forgotten = 0

    def place(self) -> Any:
        return {"instance": "i-1", "address": "198.51.100.1", "login": "ubuntu", "region": "us-east-1"}

    def forget_machine(self) -> None:
        self.forgotten += 1


def forgotten(here: AwsStack, monkeypatch: pytest.MonkeyPatch) -> int:
    engine = Deployed()
    monkeypatch.setattr("scripts.commands.up.engine_of", lambda _: engine)
    forget_what_was_terminated(here, Terminal())
    return engine.forgotten


def test_an_instance_that_somebody_has_terminated_is_forgotten(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)
    make_volume(here, "us-east-1a")
    here.aws.ec2.terminate_instances(InstanceIds=[make_instance(here)])
    assert forgotten(here, monkeypatch) == 1


def test_an_instance_that_is_there_is_not_forgotten(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stack(project)
    make_volume(here, "us-east-1a")
    here.aws.ec2.stop_instances(InstanceIds=[make_instance(here)])
    assert forgotten(here, monkeypatch) == 0


def test_credentials_of_another_account_make_nothing_be_forgotten(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)  # which neither its instance nor its volume is in
    assert forgotten(here, monkeypatch) == 0


def test_while_the_volume_still_hangs_on_the_old_instance_nothing_is_forgotten(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)
    other, volume = make_instance(again(project)), make_volume(here, "us-east-1a")
    here.aws.ec2.attach_volume(InstanceId=other, VolumeId=volume, Device="/dev/sdf")
    monkeypatch.setattr(here.aws, "instance", lambda _: None)
    assert forgotten(here, monkeypatch) == 0


def refuse_start(code: str) -> Any:
    def start(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "said by EC2"}}, "StartInstances")

    return start


def test_where_there_is_no_room_for_a_start_both_ways_out_are_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)
    volume = make_volume(here, "us-east-1a")
    here.aws.ec2.stop_instances(InstanceIds=[make_instance(here)])
    monkeypatch.setattr(here.aws.ec2, "start_instances", refuse_start("InsufficientInstanceCapacity"))
    with pytest.raises(CommandError) as seen:
        wake(here, Terminal(), no_sleep)
    cause, later, move = str(seen.value).splitlines()
    assert "no g6.xlarge free in us-east-1a now (InsufficientInstanceCapacity)" in cause
    assert "scripts/up gpu again later" in later
    assert f"--volume-id {volume}" in move
    assert "machine.data_disk.snapshot" in move


def test_what_else_keeps_it_from_starting_is_said_as_aws_says_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stack(project)
    here.aws.ec2.stop_instances(InstanceIds=[make_instance(here)])
    monkeypatch.setattr(here.aws.ec2, "start_instances", refuse_start("UnauthorizedOperation"))
    with pytest.raises(CommandError, match=r"may not ask to start i-.*\nchange: allow them ec2:StartInstances"):
        wake(here, Terminal(), no_sleep)
    monkeypatch.setattr(here.aws.ec2, "start_instances", refuse_start("IncorrectSpotInstanceRequestState"))
    with pytest.raises(CommandError, match="IncorrectSpotInstanceRequestState: said by EC2"):
        wake(here, Terminal(), no_sleep)


# Its end


def test_what_stays_on_the_bill_is_told_with_what_ends_it(project: Path) -> None:
    here = stack(project)
    assert what_stays(here) == []
    make_instance(here)
    volume = make_volume(here, "us-east-1a")
    snapshot = here.aws.ec2.create_snapshot(
        VolumeId=volume,
        TagSpecifications=[
            {
                "ResourceType": "snapshot",
                "Tags": [{"Key": key, "Value": value} for key, value in tags_of("gpu").items()],
            }
        ],
    )["SnapshotId"]
    assert what_stays(here) == [
        f"stays on the bill: {snapshot} (a snapshot of the data); "
        f"aws ec2 --region us-east-1 delete-snapshot --snapshot-id {snapshot}",
        f"stays on the bill: {volume} (the data volume, 8 GiB in us-east-1a); "
        f"aws ec2 --region us-east-1 delete-volume --volume-id {volume}",
    ]


def test_credentials_that_ran_out_meanwhile_are_the_cause_and_not_a_code() -> None:
    refused: Any = {"Error": {"Code": "RequestExpired", "Message": "Request has expired."}}
    words = r"^cause: the AWS credentials have run out\nchange: log in"
    with pytest.raises(CommandError, match=words), asking("for the instance of gpu", "ec2:DescribeInstances"):
        raise ClientError(refused, "DescribeInstances")
