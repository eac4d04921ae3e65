"""Removes single things and parts from an account, and waits until they are gone. See `catalog.aws.owned`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from aws_account.clients import Clients
from catalog.aws import owned
from catalog.aws.owned import Kind, Part, Thing

IN_USE_SECONDS = 180
"""How long what still uses a thing is waited for. An instance is gone minutes before its network interface."""

_PAUSE_SECONDS = 2
_IN_USE = frozenset(
    {"DependencyViolation", "InvalidIPAddress.InUse", "VolumeInUse", "DeleteConflict", "AuthFailure"}
)
"""Codes of what cannot be removed yet. AuthFailure is EC2's for an address whose interface is still there."""


def end(clients: Clients, thing: Thing) -> None:
    """Removes one thing; nothing where it is gone already. ClientError where AWS refuses for good."""
    deadline = time.monotonic() + IN_USE_SECONDS
    while True:
        try:
            _END[thing.kind](clients, thing.id)
        except ClientError as error:
            code = _code(error)
            if _is_gone(code):
                return
            if code not in _IN_USE or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def undo(clients: Clients, part: Part) -> bool:
    """Removes a part from what it belongs to; whether it was there. ClientError where AWS refuses."""
    try:
        return _UNDO.get(part.type, _nothing)(clients, part.inputs)
    except ClientError as error:
        if _is_gone(_code(error)):
            return False
        raise


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _is_gone(code: str) -> bool:
    return "NotFound" in code or code.startswith("NoSuchEntity")


def _instance(clients: Clients, name: str) -> None:
    (answer,) = clients.ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"]
    if request := answer.get("SpotInstanceRequestId"):
        # A persistent request would start another one.
        clients.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    clients.ec2.modify_instance_attribute(InstanceId=name, DisableApiTermination={"Value": False})
    clients.ec2.terminate_instances(InstanceIds=[name])
    clients.ec2.get_waiter("instance_terminated").wait(InstanceIds=[name])


def _address(clients: Clients, name: str) -> None:
    (answer,) = clients.ec2.describe_addresses(AllocationIds=[name])["Addresses"]
    if association := answer.get("AssociationId"):
        clients.ec2.disassociate_address(AssociationId=association)
    clients.ec2.release_address(AllocationId=name)


def _gateway(clients: Clients, name: str) -> None:
    (answer,) = clients.ec2.describe_internet_gateways(InternetGatewayIds=[name])["InternetGateways"]
    for each in answer.get("Attachments", []):
        clients.ec2.detach_internet_gateway(InternetGatewayId=name, VpcId=each["VpcId"])
    clients.ec2.delete_internet_gateway(InternetGatewayId=name)


def _routes(clients: Clients, name: str) -> None:
    (answer,) = clients.ec2.describe_route_tables(RouteTableIds=[name])["RouteTables"]
    for each in answer.get("Associations", []):
        if not each.get("Main"):
            clients.ec2.disassociate_route_table(AssociationId=each["RouteTableAssociationId"])
    clients.ec2.delete_route_table(RouteTableId=name)


def _profile(clients: Clients, name: str) -> None:
    answer = clients.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    for role in answer["Roles"]:
        clients.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role["RoleName"])
    clients.iam.delete_instance_profile(InstanceProfileName=name)


def _role(clients: Clients, name: str) -> None:
    for each in clients.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        clients.iam.detach_role_policy(RoleName=name, PolicyArn=each["PolicyArn"])
    for policy in clients.iam.list_role_policies(RoleName=name)["PolicyNames"]:
        clients.iam.delete_role_policy(RoleName=name, PolicyName=policy)
    clients.iam.delete_role(RoleName=name)


def _record(clients: Clients, name: str) -> None:
    zone, host, kind = name.split("_")
    answer = clients.route53.list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=host, StartRecordType=kind, MaxItems="1"
    )
    for each in answer["ResourceRecordSets"]:
        if each["Name"].rstrip(".") == host and each["Type"] == kind:
            batch: Any = {"Changes": [{"Action": "DELETE", "ResourceRecordSet": each}]}
            clients.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)


def _schedule(clients: Clients, name: str) -> None:
    group, _, schedule = name.partition("/")
    clients.scheduler.delete_schedule(GroupName=group, Name=schedule)


def _budget(clients: Clients, name: str) -> None:
    account, _, budget = name.partition(":")
    clients.budgets.delete_budget(AccountId=account, BudgetName=budget)


_END: Mapping[Kind, Callable[[Clients, str], Any]] = {
    owned.SCHEDULE: _schedule,
    owned.BUDGET: _budget,
    owned.RECORD: _record,
    owned.INSTANCE: _instance,
    owned.ADDRESS: _address,
    owned.VOLUME: lambda clients, name: clients.ec2.delete_volume(VolumeId=name),
    owned.GROUP: lambda clients, name: clients.ec2.delete_security_group(GroupId=name),
    owned.ROUTES: _routes,
    owned.SUBNET: lambda clients, name: clients.ec2.delete_subnet(SubnetId=name),
    owned.GATEWAY: _gateway,
    owned.VPC: lambda clients, name: clients.ec2.delete_vpc(VpcId=name),
    owned.KEY_PAIR: lambda clients, name: clients.ec2.delete_key_pair(KeyName=name),
    owned.PROFILE: _profile,
    owned.ROLE: _role,
}


def _rule(clients: Clients, inputs: Mapping[str, Any], *, egress: bool) -> bool:
    group = inputs["securityGroupId"]
    names = {"ipProtocol": "IpProtocol", "cidrIpv4": "CidrIpv4", "cidrIpv6": "CidrIpv6"}
    names |= {"fromPort": "FromPort", "toPort": "ToPort"}
    pages = clients.ec2.get_paginator("describe_security_group_rules")
    rules = [
        each["SecurityGroupRuleId"]
        for page in pages.paginate(Filters=[{"Name": "group-id", "Values": [group]}])
        for each in page["SecurityGroupRules"]
        if each["IsEgress"] is egress and all(each.get(there) == inputs.get(here) for here, there in names.items())
    ]
    if rules and egress:
        clients.ec2.revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=rules)
    elif rules:
        clients.ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=rules)
    return bool(rules)


def _route(clients: Clients, inputs: Mapping[str, Any]) -> bool:
    names = {
        "destinationCidrBlock": "DestinationCidrBlock",
        "destinationIpv6CidrBlock": "DestinationIpv6CidrBlock",
    }
    destination = {theirs: inputs[ours] for ours, theirs in names.items() if ours in inputs}
    clients.ec2.delete_route(RouteTableId=inputs["routeTableId"], **destination)
    return True


def _routed(clients: Clients, inputs: Mapping[str, Any]) -> bool:
    (table,) = clients.ec2.describe_route_tables(RouteTableIds=[inputs["routeTableId"]])["RouteTables"]
    found = [each for each in table.get("Associations", []) if each.get("SubnetId") == inputs["subnetId"]]
    for each in found:
        clients.ec2.disassociate_route_table(AssociationId=each["RouteTableAssociationId"])
    return bool(found)


def _policy(clients: Clients, inputs: Mapping[str, Any]) -> bool:
    clients.iam.delete_role_policy(RoleName=inputs["role"], PolicyName=inputs["name"])
    return True


def _attached_policy(clients: Clients, inputs: Mapping[str, Any]) -> bool:
    clients.iam.detach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
    return True


def _nothing(_: Clients, __: Mapping[str, Any]) -> bool:
    """The provider takes over an address or a volume that is where it is to be, and frees it before it goes."""
    return False


_UNDO: Mapping[str, Callable[[Clients, Mapping[str, Any]], bool]] = {
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": partial(_rule, egress=False),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": partial(_rule, egress=True),
    "aws:ec2/route:Route": _route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _routed,
    "aws:iam/rolePolicy:RolePolicy": _policy,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _attached_policy,
}
"""Made twice, a rule, a route or an association is refused; a role with policies cannot be removed."""
