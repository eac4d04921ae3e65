"""An AWS account in the tests' own process: moto's EC2 with a stack's machine and disk in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from catalog.aws.tags import tags_of
from scripts.commands.aws import AwsStack, aws_stack
from scripts.commands.stacks import stack_settings

REGION = "us-east-1"
IMAGE = "ami-0123456789abcdef0"

STACK_FILE = """\
# The GPU machine of the team.
config:
  aws:region: us-east-1
  seatable-vllm:machine:
    kind: aws
    instance_types: [g6.xlarge, g5.xlarge] # the first that there is capacity for
    zones: ["us-east-1a", us-east-1b, us-east-1c]
    admin_cidrs: ["203.0.113.7/32"]
  # who may use it
  seatable-vllm:clients: {seatable: {kind: seatable, cidrs: ["127.0.0.1/32"]}}
"""


@contextmanager
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty account, and credentials that lead nowhere else."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    one_at_a_time, answer = threading.Lock(), BotocoreStubber.__call__

    def answer_alone(*arguments: Any, **named: Any) -> Any:
        # The product asks in several threads, for which moto's tables are not made.
        with one_at_a_time:
            return answer(*arguments, **named)

    monkeypatch.setattr(BotocoreStubber, "__call__", answer_alone)
    with mock_aws():
        yield


def stack(project: Path, text: str = STACK_FILE, name: str = "gpu") -> AwsStack:
    """The stack of this file in the project."""
    (project / "Pulumi.yaml").write_text("name: seatable-vllm\nruntime: python\n")
    (project / f"Pulumi.{name}.yaml").write_text(text)
    return again(project, name)


def again(project: Path, name: str = "gpu") -> AwsStack:
    """The stack as the next run reads it."""
    found = aws_stack(name, stack_settings(name, project), project)
    assert found is not None
    return found


def make_instance(stack: AwsStack, instance_type: str = "g6.xlarge", zone: str = "us-east-1a") -> str:
    """An instance with the stack's tags; its id."""
    ec2 = stack.aws.ec2
    made = ec2.run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        InstanceType=instance_type,  # type: ignore[arg-type]
        Placement={"AvailabilityZone": zone},
        # The instance's own disk gets the stack's tags too.
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": _tags(stack)},
            {"ResourceType": "volume", "Tags": _tags(stack)},
        ],
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": True}}],
    )
    return made["Instances"][0]["InstanceId"]


def make_volume(stack: AwsStack, zone: str, snapshot: str = "") -> str:
    """A data volume with the stack's tags; its id."""
    of: Any = {"SnapshotId": snapshot} if snapshot else {}
    made = stack.aws.ec2.create_volume(
        AvailabilityZone=zone, Size=8, TagSpecifications=[{"ResourceType": "volume", "Tags": _tags(stack)}], **of
    )
    return made["VolumeId"]


def _tags(stack: AwsStack) -> Any:
    return [{"Key": key, "Value": value} for key, value in tags_of(stack.name).items()]
