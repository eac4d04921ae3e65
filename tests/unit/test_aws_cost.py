"""Unit tier: what ends spending from outside the machine: the daily stop and the budget, as they are asked for.

Does NOT prove that the scheduler stops anything, nor that a budget sees the tag: AWS must be told to.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.runtime import mocks

from components.machine.aws.cost import Cost
from settings.aws import Cost as CostSettings

ARN = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0"

SCHEDULE = "aws:scheduler/schedule:Schedule"
ROLE = "aws:iam/role:Role"
POLICY = "aws:iam/rolePolicy:RolePolicy"
BUDGET = "aws:budgets/budget:Budget"

STOP = {"stop_at": "20:05", "time_zone": "Europe/Berlin"}
MONEY = {"budget": {"usd_per_month": 300, "mail": "ops@example.com"}}


class Recorder(mocks.Mocks):
    """Keeps what is asked for."""

    def __init__(self) -> None:
        self.made: dict[str, Mapping[str, Any]] = {}

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(f"nothing is to be asked: {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.custom:
            self.made[args.typ] = args.inputs
        arn = {"arn": f"arn:aws:iam::123456789012:role/{args.name}"} if args.typ == ROLE else {}
        return f"id-of-{args.name}", {**args.inputs, **arn}


def asked_for(settings: Mapping[str, Any], arn: str = ARN) -> Mapping[str, Mapping[str, Any]]:
    """The inputs of what the component makes, by type. Pulumi's state is left as it was."""
    return contextvars.copy_context().run(_asked_for, settings, arn)


def _asked_for(settings: Mapping[str, Any], arn: str) -> Mapping[str, Mapping[str, Any]]:
    recorder = Recorder()
    mocks.set_mocks(recorder, project="seatable-vllm", stack="dev", preview=False)

    async def program() -> None:
        Cost(
            "cost",
            {
                "stack": "dev",
                "cost": CostSettings.model_validate(settings),
                "instance_id": pulumi.Output.from_input("i-0123456789abcdef0"),
                "instance_arn": pulumi.Output.from_input(arn),
                "tags": {},
            },
        )

    as_a_test: Any = pulumi.runtime.test
    as_a_test(program)()
    return recorder.made


def test_nothing_is_made_where_nothing_is_asked_for() -> None:
    assert asked_for({"idle_stop_minutes": 30, "live_hours": 8}) == {}


def test_the_machine_is_stopped_each_day_at_that_time_of_that_place() -> None:
    made = asked_for(STOP)
    schedule = made[SCHEDULE]
    assert (schedule["scheduleExpression"], schedule["scheduleExpressionTimezone"]) == (
        "cron(5 20 * * ? *)", "Europe/Berlin",
    )  # fmt: skip
    assert schedule["flexibleTimeWindow"] == {"mode": "OFF"}
    assert schedule["target"]["arn"] == "arn:aws:scheduler:::aws-sdk:ec2:stopInstances"
    assert schedule["target"]["roleArn"].endswith(":role/cost-stop-role")
    assert json.loads(schedule["target"]["input"]) == {"InstanceIds": ["i-0123456789abcdef0"]}
    assert set(made) == {SCHEDULE, ROLE, POLICY}


def test_the_schedulers_role_may_stop_this_instance_and_nothing_else() -> None:
    made = asked_for(STOP)
    assert json.loads(made[POLICY]["policy"])["Statement"] == [
        {"Effect": "Allow", "Action": "ec2:StopInstances", "Resource": ARN}
    ]
    assert json.loads(made[ROLE]["assumeRolePolicy"])["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "scheduler.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
        }
    ]


def test_other_partitions_of_aws_have_their_own_scheduler() -> None:
    made = asked_for(STOP, ARN.replace("arn:aws:", "arn:aws-cn:"))
    assert made[SCHEDULE]["target"]["arn"] == "arn:aws-cn:scheduler:::aws-sdk:ec2:stopInstances"


def test_a_budget_writes_before_it_is_used_up_and_counts_this_stack_alone() -> None:
    made = asked_for(MONEY)
    budget = made[BUDGET]
    assert (budget["budgetType"], budget["timeUnit"]) == ("COST", "MONTHLY")
    assert (budget["limitAmount"], budget["limitUnit"]) == ("300", "USD")
    assert budget["costFilters"] == [{"name": "TagKeyValue", "values": ["user:Stack$dev"]}]
    told = [
        (each["notificationType"], each["threshold"], each["comparisonOperator"], each["subscriberEmailAddresses"])
        for each in budget["notifications"]
    ]
    assert told == [
        ("ACTUAL", 80, "GREATER_THAN", ["ops@example.com"]),
        ("FORECASTED", 100, "GREATER_THAN", ["ops@example.com"]),
    ]
    assert set(made) == {BUDGET}
