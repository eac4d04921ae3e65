"""What whoever runs `up`, `down` and `doctor` of a stack on AWS has to be allowed there: one table.

The page docs/aws-rights.md has it as an IAM policy, which `python -m catalog.aws.rights` prints. The tests compare
it with the calls of real runs and with every call in our own code. Names of actions, of resources and of
conditions are those of AWS's Service Authorization Reference.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.aws import owned
from catalog.aws.owned import NAMES, Kind
from catalog.aws.tags import PROJECT, PROJECT_NAME

ZONE = "ZONE_ID"
"""What the page has in place of a hosted zone's id."""

_OURS = {"StringEquals": {f"aws:ResourceTag/{PROJECT}": PROJECT_NAME}}
_MADE_AS_OURS = {"StringEquals": {f"aws:RequestTag/{PROJECT}": PROJECT_NAME}}

_IPV6 = "machine.ipv6 changed for a machine in machine.subnet"
_BY_HAND = "where somebody removed the instance profile by hand"
_NO_SESSIONS = "the emulator that the runs were made with has no sessions"
_WIDTH = 110


@dataclass(frozen=True)
class Statement:
    """One statement of the policy.

    actions: each with why no recorded run has needed it (tests/unit/data/aws_calls.txt); empty where one has.
    setting: without it the statement is not needed. kinds: what of a stack's things it makes and ends.
    """

    name: str
    purpose: str
    actions: Mapping[str, str]
    resources: Sequence[str] = ("*",)
    condition: Mapping[str, Any] = field(default_factory=dict)
    setting: str = ""
    kinds: Sequence[Kind] = ()


def _seen(service: str, *names: str) -> Mapping[str, str]:
    return {f"{service}:{name}": "" for name in names}


STATEMENTS: Sequence[Statement] = (
    Statement(
        "Look",
        "what is there, what the account may have, prices; no action of it changes anything",
        {
            "ec2:Describe*": "",
            **_seen("iam", "ListRoles", "ListInstanceProfiles"),
            **_seen("route53", "ListHostedZones", "ListHostedZonesByName", "GetHostedZone", "GetChange"),
            **_seen("route53", "ListResourceRecordSets", "ListTagsForResource"),
            **_seen("scheduler", "ListSchedules"),
            **_seen("budgets", "ViewBudget"),
            **_seen("servicequotas", "GetServiceQuota"),
            "servicequotas:GetAWSDefaultServiceQuota": "where the account's quota was never changed",
            **_seen("pricing", "GetProducts"),
        },
    ),
    Statement(
        "Image",
        "the id of AWS's newest Deep Learning AMI",
        _seen("ssm", "GetParameter"),
        ("arn:aws:ssm:*::parameter/aws/service/*",),
    ),
    Statement(
        "Make",
        "machine, disk, address, network, security group and key pair, also in a subnet that is there",
        {
            **_seen("ec2", "RunInstances", "CreateVolume", "AllocateAddress", "AssociateAddress"),
            **_seen("ec2", "DisassociateAddress", "CreateVpc", "CreateSubnet", "CreateInternetGateway"),
            **_seen("ec2", "CreateRouteTable", "CreateSecurityGroup", "ImportKeyPair", "CreateSnapshot"),
            "ec2:AssignIpv6Addresses": _IPV6,
            "ec2:UnassignIpv6Addresses": _IPV6,
        },
        kinds=(
            owned.INSTANCE, owned.VOLUME, owned.ADDRESS, owned.VPC, owned.SUBNET, owned.GATEWAY, owned.ROUTES,
            owned.GROUP, owned.KEY_PAIR,
        ),
    ),
    Statement(
        "Tag",
        "the stack's tags on what is made",
        _seen("ec2", "CreateTags"),
        condition=_MADE_AS_OURS,
    ),
    Statement(
        "Change",
        f"what has the tag {PROJECT}: {PROJECT_NAME}: start, stop and end it, and change it with the settings",
        {
            **_seen("ec2", "StartInstances", "StopInstances", "TerminateInstances", "ModifyInstanceAttribute"),
            **_seen("ec2", "MonitorInstances"),
            "ec2:UnmonitorInstances": "the emulator has no metrics by the minute to end",
            "ec2:AssociateIamInstanceProfile": _BY_HAND,
            "ec2:ReplaceIamInstanceProfileAssociation": _BY_HAND,
            **_seen("ec2", "AttachVolume", "DetachVolume", "ModifyVolume", "DeleteVolume", "ReleaseAddress"),
            **_seen("ec2", "ModifyVpcAttribute", "AssociateVpcCidrBlock", "DisassociateVpcCidrBlock", "DeleteVpc"),
            **_seen("ec2", "AssociateSubnetCidrBlock", "DisassociateSubnetCidrBlock", "DeleteSubnet"),
            **_seen("ec2", "AttachInternetGateway", "DetachInternetGateway", "DeleteInternetGateway"),
            **_seen("ec2", "CreateRoute", "DeleteRoute", "AssociateRouteTable", "DisassociateRouteTable"),
            **_seen("ec2", "DeleteRouteTable", "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"),
            **_seen("ec2", "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress", "ModifySecurityGroupRules"),
            **_seen("ec2", "DeleteSecurityGroup", "DeleteKeyPair", "CreateTags"),
        },
        condition=_OURS,
    ),
    Statement(
        "Rules",
        "rules in the stack's security group; that group itself is in Change",
        _seen("ec2", "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress", "ModifySecurityGroupRules"),
        ("arn:aws:ec2:*:*:security-group-rule/*",),
    ),
    Statement(
        "Role",
        "what the machine, and the scheduler for it, may do at AWS",
        _seen(
            "iam", "CreateRole", "TagRole", "GetRole", "DeleteRole", "PutRolePolicy", "GetRolePolicy",
            "DeleteRolePolicy", "ListRolePolicies", "ListAttachedRolePolicies", "ListInstanceProfilesForRole",
            "CreateInstanceProfile", "TagInstanceProfile", "GetInstanceProfile", "AddRoleToInstanceProfile",
            "RemoveRoleFromInstanceProfile", "DeleteInstanceProfile",
        ),
        (f"arn:aws:iam::*:role/{NAMES}*", f"arn:aws:iam::*:instance-profile/{NAMES}*"),
        kinds=(owned.ROLE, owned.PROFILE),
    ),
    Statement(
        "RoleForSessions",
        "Session Manager on the machine, by AWS's own policy for that and by no other",
        _seen("iam", "AttachRolePolicy", "DetachRolePolicy"),
        (f"arn:aws:iam::*:role/{NAMES}*",),
        {"ArnEquals": {"iam:PolicyARN": "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"}},
    ),
    Statement(
        "PassRole",
        "those roles are for EC2 and EventBridge Scheduler alone",
        _seen("iam", "PassRole"),
        (f"arn:aws:iam::*:role/{NAMES}*",),
        {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "scheduler.amazonaws.com"]}},
    ),
    Statement(
        "Record",
        "A and AAAA records in one hosted zone",
        _seen("route53", "ChangeResourceRecordSets"),
        (f"arn:aws:route53:::hostedzone/{ZONE}",),
        {"ForAllValues:StringEquals": {"route53:ChangeResourceRecordSetsRecordTypes": ["A", "AAAA"]}},
        setting="domain.zone",
        kinds=(owned.RECORD,),
    ),
    Statement(
        "Stop",
        "the daily stop",
        _seen("scheduler", "CreateSchedule", "GetSchedule", "UpdateSchedule", "DeleteSchedule"),
        (f"arn:aws:scheduler:*:*:schedule/default/{NAMES}*",),
        setting="machine.cost.stop_at",
        kinds=(owned.SCHEDULE,),
    ),
    Statement(
        "Budget",
        "the budget that sends mail",
        _seen("budgets", "ModifyBudget", "TagResource", "ListTagsForResource"),
        (f"arn:aws:budgets::*:budget/{NAMES}*",),
        setting="machine.cost.budget",
        kinds=(owned.BUDGET,),
    ),
    Statement(
        "Spot",
        "the end of a spot request, which would start another machine",
        {"ec2:CancelSpotInstanceRequests": "the emulator has spot machines, and no requests of them"},
        setting="machine.market: spot",
    ),
    Statement(
        "Reservation",
        "a machine that is there moves into a capacity reservation",
        {"ec2:ModifyInstanceCapacityReservationAttributes": "the emulator has no reservations that can be used"},
        setting="machine.reservation",
    ),
    Statement(
        "Session",
        "the way to the machine through Session Manager",
        {"ssm:StartSession": _NO_SESSIONS},
        ("arn:aws:ec2:*:*:instance/*",),
        {"StringEquals": {f"ssm:resourceTag/{PROJECT}": PROJECT_NAME}},
        setting="machine.access: ssm",
    ),
    Statement(
        "SessionForSsh",
        "the kind of session that SSH goes through, and its data",
        {
            "ssm:StartSession": _NO_SESSIONS,
            "ssm:ResumeSession": _NO_SESSIONS,
            "ssmmessages:OpenDataChannel": _NO_SESSIONS,
        },
        ("arn:aws:ssm:*:*:document/AWS-StartSSHSession", "arn:aws:ssm:*:*:session/*"),
        setting="machine.access: ssm",
    ),
)  # fmt: skip

_FREE = frozenset({"sts:GetCallerIdentity"})
"""What AWS allows everybody."""

_SERVICES = {"service-quotas": "servicequotas"}

_BESIDES: Mapping[str, Sequence[str]] = {
    "ec2:CreateTags": (
        "ec2:RunInstances", "ec2:CreateVolume", "ec2:AllocateAddress", "ec2:CreateVpc", "ec2:CreateSubnet",
        "ec2:CreateInternetGateway", "ec2:CreateRouteTable", "ec2:CreateSecurityGroup", "ec2:ImportKeyPair",
        "ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress", "ec2:CreateSnapshot",
    ),
    "iam:TagRole": ("iam:CreateRole",),
    "iam:TagInstanceProfile": ("iam:CreateInstanceProfile",),
    "iam:PassRole": (
        "ec2:RunInstances", "ec2:AssociateIamInstanceProfile", "ec2:ReplaceIamInstanceProfileAssociation",
        "iam:AddRoleToInstanceProfile", "scheduler:CreateSchedule", "scheduler:UpdateSchedule",
    ),
    "budgets:TagResource": ("budgets:CreateBudget",),
}  # fmt: skip
"""By action: the calls that need it beside their own, because they set tags or name a role."""


def actions_of(service: str, operation: str) -> frozenset[str]:
    """The actions that AWS looks for in a policy when an operation is called. service: as boto3 names it."""
    call = f"{_SERVICES.get(service, service)}:{operation}"
    beside = {action for action, calls in _BESIDES.items() if call in calls}
    if service == "budgets" and not re.search("Resource$|BudgetAction", operation):
        call = "budgets:ViewBudget" if operation.startswith("Describe") else "budgets:ModifyBudget"
    return frozenset({call, *beside} - _FREE)


def policy() -> str:
    """The whole table as the JSON of an IAM policy."""
    statements = ",\n".join(map(_as_json, STATEMENTS))
    return f'{{"Version": "2012-10-17", "Statement": [\n{statements}\n]}}\n'


def _as_json(statement: Statement) -> str:
    """One key per line, and long lists wrapped."""
    body = {
        "Sid": statement.name,
        "Effect": "Allow",
        "Action": list(statement.actions),
        "Resource": list(statement.resources),
        **({"Condition": statement.condition} if statement.condition else {}),
    }
    wrap = textwrap.TextWrapper(_WIDTH, " ", "  ", break_long_words=False, break_on_hyphens=False)
    lines = [wrap.fill(f'"{key}": {json.dumps(value)}') for key, value in body.items()]
    return "{" + ",\n".join(lines)[1:] + "}"


if __name__ == "__main__":
    print(policy(), end="")
