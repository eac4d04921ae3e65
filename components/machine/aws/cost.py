"""What ends spending from outside the machine: a stop every day, and mail when a month gets dear."""

import json
from collections.abc import Mapping
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from catalog.aws.tags import STACK
from settings import aws as settings

TYPE = "seatable-vllm:index:AwsCost"

STOP_TRIES = 5
"""How often the scheduler asks again, with growing pauses, where EC2 does not take the stop."""

STOP_AGE_SECONDS = 3600
"""How late a stop may be; after that the next day's is waited for."""

WARN_AT = {"ACTUAL": 80, "FORECASTED": 100}
"""Percent of the budget at which mail goes out: what was spent, and what the month will come to."""


class CostArgs(TypedDict):
    """Which machine, and what may be spent on it."""

    stack: str
    """The stack's name; its tag says what belongs to the budget."""
    cost: settings.Cost
    """What the settings ask for. idle_stop_minutes and live_hours are the machine's own (idle_stop.py)."""
    instance_id: pulumi.Input[str]
    """What is stopped."""
    instance_arn: pulumi.Input[str]
    """The only instance that the scheduler may stop."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


class Cost(pulumi.ComponentResource):
    """A daily stop and a budget, each where it is asked for. A stop ends neither disks nor address."""

    schedule: aws.scheduler.Schedule | None = None
    """The daily stop."""
    budget: aws.budgets.Budget | None = None
    """The limit that sends mail."""

    def __init__(self, name: str, args: CostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        cost = args["cost"]
        if cost.stop_at:
            self.schedule = self._stop(f"{name}-stop", args, cost.stop_at)
        if cost.budget:
            self.budget = self._budget(f"{name}-budget", args, cost.budget)
        self.register_outputs({})

    def _stop(self, name: str, args: CostArgs, at: str) -> aws.scheduler.Schedule:
        hour, minute = at.split(":")
        arn = pulumi.Output.from_input(args["instance_arn"])
        role = aws.iam.Role(
            f"{name}-role",
            description=f"Stops the machine of the stack {args['stack']}",
            assume_role_policy=arn.apply(scheduler_trust),
            tags=args["tags"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        allowed = aws.iam.RolePolicy(
            f"{name}-policy",
            role=role.id,
            policy=arn.apply(stop_policy),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return aws.scheduler.Schedule(
            name,
            description=f"Stops the machine of the stack {args['stack']}; scripts/up starts it again",
            schedule_expression=f"cron({int(minute)} {int(hour)} * * ? *)",
            schedule_expression_timezone=args["cost"].time_zone,
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=arn.apply(lambda known: f"arn:{known.split(':')[1]}:scheduler:::aws-sdk:ec2:stopInstances"),
                role_arn=role.arn,
                input=pulumi.Output.json_dumps({"InstanceIds": [args["instance_id"]]}),
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_retry_attempts=STOP_TRIES, maximum_event_age_in_seconds=STOP_AGE_SECONDS
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[allowed]),
        )

    def _budget(self, name: str, args: CostArgs, budget: settings.Budget) -> aws.budgets.Budget:
        return aws.budgets.Budget(
            name,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(budget.usd_per_month),
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:{STACK}${args['stack']}"])
            ],
            tags=args["tags"],
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                    subscriber_email_addresses=[budget.mail],
                )
                for kind, percent in WARN_AT.items()
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )


def scheduler_trust(instance_arn: str) -> str:
    """Who may be that role (JSON): EventBridge Scheduler, for schedules of the instance's own account."""
    account = instance_arn.split(":")[4]
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "scheduler.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"aws:SourceAccount": account}},
                }
            ],
        }
    )


def stop_policy(instance_arn: str) -> str:
    """What that role may do (JSON): stop this one instance."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "ec2:StopInstances", "Resource": instance_arn}],
        }
    )
