"""Asks an account for a stack's machine: does it run, is it well, what reaches it. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aws_account.reader import ask
from aws_account.session import account_number, config, open_session
from catalog.aws.account import Shape, items
from catalog.aws.machine import MachineFacts
from catalog.aws.tags import tags_of


def read_machine(stack: str, region: str, profile: str | None) -> MachineFacts:
    """What the account says of the stack's machine. AccountError where it cannot be asked at all."""
    session = open_session(profile, region)
    number = account_number(session, region)
    ec2 = session.client("ec2", config=config())
    mine: Any = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags_of(stack).items()]

    def pages(call: str, key: str, **arguments: Any) -> Callable[[], Sequence[Shape]]:
        return lambda: [
            item
            for page in ec2.get_paginator(call).paginate(**arguments)  # type: ignore[call-overload]
            for item in page.get(key, [])
        ]

    groups = pages("describe_instances", "Reservations", Filters=mine)
    instances = ask("ec2:DescribeInstances", lambda: [each for group in groups() for each in group["Instances"]])
    running = [each["InstanceId"] for each in items(instances) if each["State"]["Name"] == "running"]
    return MachineFacts(
        account=number,
        instances=instances,
        statuses=ask(
            "ec2:DescribeInstanceStatus",
            pages("describe_instance_status", "InstanceStatuses", InstanceIds=running),
        )
        if running
        else None,
        addresses=ask("ec2:DescribeAddresses", lambda: ec2.describe_addresses(Filters=mine)["Addresses"]),
        groups=ask(
            "ec2:DescribeSecurityGroups", pages("describe_security_groups", "SecurityGroups", Filters=mine)
        ),
    )
