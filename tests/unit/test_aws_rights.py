"""Unit tier: the IAM policy of docs/aws-rights.md against the calls of real runs and the calls in our own code.

The calls were recorded with the real Terraform AWS provider and boto3 (data/aws_calls.txt says how). What this
does not prove: that AWS evaluates resources and conditions as its documentation has it, nor which further calls
another version of the provider makes; reads of EC2 are allowed as a whole for that reason.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.session
import pytest
from botocore import xform_name

from catalog.aws.owned import BUDGET, KINDS, NAMES, PROFILE, ROLE, SCHEDULE
from catalog.aws.rights import STATEMENTS, actions_of, policy
from components.machine.aws.cost import scheduler_trust
from components.machine.aws.identity import SSM_CORE, TRUST
from tests.unit.test_readme import setting_names

if TYPE_CHECKING:
    from tests.conftest import RecordProgram

PROJECT = Path(__file__).resolve().parents[2]
CALLS = Path(__file__).parent / "data" / "aws_calls.txt"

SERVICES = {
    "ec2": "ec2", "iam": "iam", "route53": "route53", "scheduler": "scheduler", "budgets": "budgets", "ssm": "ssm",
    "quotas": "service-quotas", "pricing": "pricing", "sts": "sts",
}  # fmt: skip
"""By the name that our code has for a client: the service as boto3 names it."""

ALLOWED = {action for statement in STATEMENTS for action in statement.actions}
REASONS = {action: why for statement in STATEMENTS for action, why in statement.actions.items() if why}

Call = tuple[str, str]
"""Service and operation, as boto3 names them."""


def recorded() -> set[Call]:
    """The calls of the real runs."""
    lines = [line.split() for line in CALLS.read_text().splitlines() if line and not line.startswith("#")]
    return {(service, operation) for _, service, operation in lines}


def refused(calls: Iterable[Call]) -> set[str]:
    """What these calls need and the policy does not allow."""
    needed = {action for call in calls for action in actions_of(*call)}
    return {action for action in needed if not any(fnmatchcase(action, pattern) for pattern in ALLOWED)}


def unused(calls: Iterable[Call]) -> set[str]:
    """What the policy allows, without a reason, and none of these calls needs."""
    needed = {action for call in calls for action in actions_of(*call)}
    return {each for each in ALLOWED - set(REASONS) if not any(fnmatchcase(action, each) for action in needed)}


# --- the calls of real runs


def test_every_recorded_call_is_allowed() -> None:
    assert len(recorded()) > 90
    assert refused(recorded()) == set()


def test_every_action_was_needed_by_a_recorded_call_or_says_why_not() -> None:
    assert unused(recorded()) == set()


def test_no_action_that_a_recorded_call_needs_is_said_to_be_unseen() -> None:
    needed = {action for call in recorded() for action in actions_of(*call)}
    assert not [action for action in REASONS if action in needed]


@pytest.mark.parametrize("call", [("ec2", "CreateNatGateway"), ("iam", "CreateUser"), ("s3", "PutObject")])
def test_a_call_that_the_policy_does_not_allow_is_found(call: Call) -> None:
    assert refused({*recorded(), call}) == {f"{call[0]}:{call[1]}"}


@pytest.mark.parametrize(
    "call", [("ec2", "DeleteKeyPair"), ("iam", "CreateRole"), ("scheduler", "UpdateSchedule")]
)
def test_a_right_whose_last_call_goes_is_found(call: Call) -> None:
    assert unused(recorded() - {call})


@pytest.mark.parametrize(
    ("call", "actions"),
    [
        (("budgets", "DescribeNotificationsForBudget"), {"budgets:ViewBudget"}),
        (("budgets", "ListTagsForResource"), {"budgets:ListTagsForResource"}),
        (("service-quotas", "GetServiceQuota"), {"servicequotas:GetServiceQuota"}),
        (("scheduler", "CreateSchedule"), {"scheduler:CreateSchedule", "iam:PassRole"}),
        (("iam", "CreateRole"), {"iam:CreateRole", "iam:TagRole"}),
        (("sts", "GetCallerIdentity"), set()),
    ],
)
def test_what_a_call_needs_is_more_or_other_than_its_name_where_aws_says_so(call: Call, actions: set[str]) -> None:
    assert actions_of(*call) == actions


# --- the calls in our own code


@cache
def operations(service: str) -> Mapping[str, str]:
    """A service's operations, by their own names, those of boto3's methods and those of its waiters."""
    session = botocore.session.get_session()
    names = session.get_service_model(service).operation_names
    waiters = {}
    if service == "ec2":
        model = session.get_waiter_model(service)
        waiters = {xform_name(name): model.get_waiter(name).operation for name in model.waiter_names}
    return {spelled: name for name in names for spelled in (name, xform_name(name))} | waiters


def calls_in(source: str) -> Iterator[Call]:
    """Every call of AWS that a program can make: each name of an operation, wherever it stands.

    Where it is not known whose client is meant, as with the name that a paginator is asked for, every service that
    has such an operation counts.
    """
    for node in ast.walk(ast.parse(source)):
        services = [*SERVICES.values()]
        if isinstance(node, ast.Attribute):
            name = node.attr
            client = str(getattr(node.value, "attr", getattr(node.value, "id", ""))).strip("_")
            services = [SERVICES[client]] if client in SERVICES else services
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
        else:
            continue
        yield from ((service, operations(service)[name]) for service in services if name in operations(service))


def clients_in(source: str) -> set[str]:
    """The services that a program makes clients for."""
    made = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {
        node.args[0].value
        for node in made
        if isinstance(node.func, ast.Attribute)
        and node.func.attr.strip("_") == "client"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


SOURCES = {
    str(path.relative_to(PROJECT)): path.read_text()
    for folder in ("aws_account", "scripts", "components", "rehearsal")
    for path in sorted((PROJECT / folder).rglob("*.py"))
}


def test_every_call_in_our_own_code_is_allowed() -> None:
    found = {name: set(calls_in(source)) for name, source in SOURCES.items()}
    assert len({call for calls in found.values() for call in calls}) > 40
    assert {name: refused(calls) for name, calls in found.items() if refused(calls)} == {}


def test_our_own_code_asks_no_service_that_the_test_does_not_know() -> None:
    asked = {service for source in SOURCES.values() for service in clients_in(source)}
    assert asked == set(SERVICES.values())


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("clients.ec2.create_nat_gateway(SubnetId=s)", ("ec2", "CreateNatGateway")),
        ("ec2.get_paginator('list_images_in_recycle_bin')", ("ec2", "ListImagesInRecycleBin")),
        ("self._pages('GetConsoleOutput', 'Output')", ("ec2", "GetConsoleOutput")),
        ("clients.iam.update_role(RoleName=r)", ("iam", "UpdateRole")),
        ("getattr(self._budgets, 'update_budget_action')", ("budgets", "UpdateBudgetAction")),
    ],
)
def test_a_new_call_is_found_however_it_is_written(source: str, call: Call) -> None:
    assert call in set(calls_in(source))
    assert refused(calls_in(source))


def test_a_waiter_counts_as_the_call_that_it_makes() -> None:
    assert set(calls_in("ec2.get_waiter('instance_terminated')")) == {("ec2", "DescribeInstances")}


# --- the policy itself


def test_the_page_has_the_policy_and_a_row_for_each_statement_in_its_order() -> None:
    page = (PROJECT / "docs" / "aws-rights.md").read_text()
    assert page.split("```json\n")[1].split("```")[0] == policy()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [
        (each.name, f"`{each.setting}`" if each.setting else "always", each.purpose) for each in STATEMENTS
    ]


def test_aws_takes_the_policy_as_a_customer_managed_one() -> None:
    document = json.loads(policy())
    assert len("".join(policy().split())) <= 6144
    names = [statement["Sid"] for statement in document["Statement"]]
    assert all(re.fullmatch("[A-Za-z0-9]+", name) for name in names)
    assert len(set(names)) == len(names)


def test_the_settings_that_make_a_statement_necessary_exist() -> None:
    for setting in (each.setting.split(":")[0] for each in STATEMENTS if each.setting):
        assert any(name == setting or name.startswith(f"{setting}.") for name in setting_names()), setting


def test_every_kind_of_thing_that_a_stack_owns_has_its_statement() -> None:
    assert {kind for statement in STATEMENTS for kind in statement.kinds} == set(KINDS)


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_what_the_policy_allows_by_name_has_such_names(
    record_program: RecordProgram, home_with_key: Path, stack: str
) -> None:
    recorded = record_program(stack, environment={"HOME": str(home_with_key)})
    named = [each.name for kind in (ROLE, PROFILE, SCHEDULE, BUDGET) for each in recorded.of_type(kind.type)]
    assert named
    assert all(name.startswith(NAMES) for name in named)


def test_roles_are_passed_to_those_alone_who_may_take_them_and_get_no_policy_of_aws_but_one() -> None:
    conditions = {each.name: each.condition for each in STATEMENTS}
    trusted = [TRUST, scheduler_trust("arn:aws:ec2:eu-central-1:123456789012:instance/i-1")]
    assert conditions["PassRole"]["StringEquals"]["iam:PassedToService"] == [
        json.loads(trust)["Statement"][0]["Principal"]["Service"] for trust in trusted
    ]
    assert conditions["RoleForSessions"]["ArnEquals"]["iam:PolicyARN"].endswith(f":aws:policy/{SSM_CORE}")
