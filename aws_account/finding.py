"""Finds what a stack has in an account, kind by kind. See `catalog.aws.owned`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aws_account.clients import Clients
from aws_account.reader import ask
from catalog.aws import owned
from catalog.aws.account import Unanswered
from catalog.aws.owned import KINDS, NAMES, Kind, Thing
from catalog.aws.tags import belongs_to, tags_of, tags_on

Finder = Callable[[Clients, "Sought"], Iterator[Thing]]

_LIVE = ("pending", "running", "stopping", "stopped")
_ROOT_DEVICES = ("/dev/sda1", "/dev/xvda")


@dataclass(frozen=True)
class Sought:
    """Whose things are looked for. host: the endpoint's name, whose records may be the stack's."""

    stack: str
    host: str | None = None

    @property
    def filters(self) -> Any:
        """The stack's tags as EC2 takes them."""
        return [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags_of(self.stack).items()]


@dataclass(frozen=True)
class Found:
    """A look at an account. unanswered: what it did not say, by kind."""

    things: Sequence[Thing]
    unanswered: Mapping[Kind, Unanswered] = field(default_factory=dict)


def find(clients: Clients, sought: Sought, kinds: Sequence[Kind] = KINDS) -> Found:
    """Everything of these kinds that has the stack's tags, whoever has made it."""
    with ThreadPoolExecutor(max_workers=len(kinds)) as pool:
        asked = {kind: pool.submit(ask, kind.words, partial(_all, kind, clients, sought)) for kind in kinds}
    answers = {kind: each.result() for kind, each in asked.items()}
    return Found(
        [thing for each in answers.values() if not isinstance(each, Unanswered) for thing in each],
        {kind: each for kind, each in answers.items() if isinstance(each, Unanswered)},
    )


def _all(kind: Kind, clients: Clients, sought: Sought) -> list[Thing]:
    return list(_FIND[kind](clients, sought))


# By their tags


def _tagged(clients: Clients, sought: Sought, call: str, key: str) -> Iterator[Any]:
    for page in clients.ec2.get_paginator(call).paginate(Filters=sought.filters):
        yield from page.get(key, [])


def _instances(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for group in _tagged(clients, sought, "describe_instances", "Reservations"):
        for each in group["Instances"]:
            if each["State"]["Name"] in _LIVE:
                detail = f"{each['InstanceType']}, {each['State']['Name']}"
                yield Thing(owned.INSTANCE, each["InstanceId"], tags_on(each), detail)


def _addresses(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for each in clients.ec2.describe_addresses(Filters=sought.filters)["Addresses"]:
        yield Thing(owned.ADDRESS, each["AllocationId"], tags_on(each), each["PublicIp"])


def _volumes(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for each in _tagged(clients, sought, "describe_volumes", "Volumes"):
        places = each.get("Attachments", [])
        with_instance = any(
            place.get("DeleteOnTermination") or place.get("Device") in _ROOT_DEVICES for place in places
        )
        if each["State"] in ("creating", "available", "in-use") and not with_instance:
            yield Thing(owned.VOLUME, each["VolumeId"], tags_on(each), f"{each['Size']} GiB, {each['State']}")


def _by_tags(kind: Kind, call: str, key: str, identity: str) -> Finder:
    def finder(clients: Clients, sought: Sought) -> Iterator[Thing]:
        for each in _tagged(clients, sought, call, key):
            yield Thing(kind, each[identity], tags_on(each))

    return finder


def _key_pairs(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for each in clients.ec2.describe_key_pairs(Filters=sought.filters)["KeyPairs"]:
        yield Thing(owned.KEY_PAIR, each["KeyName"], tags_on(each))


# By their names


def _roles(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for page in clients.iam.get_paginator("list_roles").paginate():
        for name in (each["RoleName"] for each in page["Roles"]):
            if name.startswith(NAMES):
                # A list of roles has no tags.
                tagged = clients.iam.get_role(RoleName=name)["Role"]
                if belongs_to(sought.stack, tagged):
                    yield Thing(owned.ROLE, name, tags_on(tagged))


def _profiles(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for page in clients.iam.get_paginator("list_instance_profiles").paginate():
        for name in (each["InstanceProfileName"] for each in page["InstanceProfiles"]):
            if name.startswith(NAMES):
                tagged = clients.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
                if belongs_to(sought.stack, tagged):
                    yield Thing(owned.PROFILE, name, tags_on(tagged))


def _schedules(clients: Clients, sought: Sought) -> Iterator[Thing]:
    """A schedule has no tags: it is the stack's where its role is, which is made before it and goes after it."""
    roles = {each.id: each.tags for each in _roles(clients, sought)}
    for page in clients.scheduler.get_paginator("list_schedules").paginate(NamePrefix=NAMES):
        for each in page["Schedules"]:
            named = {"Name": each["Name"], "GroupName": each["GroupName"]}
            role = clients.scheduler.get_schedule(**named)["Target"]["RoleArn"].rpartition("/")[2]
            if role in roles:
                yield Thing(owned.SCHEDULE, f"{each['GroupName']}/{each['Name']}", roles[role])


def _budgets(clients: Clients, sought: Sought) -> Iterator[Thing]:
    for page in clients.budgets.get_paginator("describe_budgets").paginate(AccountId=clients.number):
        for name in (each["BudgetName"] for each in page.get("Budgets", [])):
            if name.startswith(NAMES):
                arn = f"arn:{clients.partition}:budgets::{clients.number}:budget/{name}"
                answer = clients.budgets.list_tags_for_resource(ResourceARN=arn)
                tagged = {"Tags": answer.get("ResourceTags", [])}
                if belongs_to(sought.stack, tagged):
                    yield Thing(owned.BUDGET, f"{clients.number}:{name}", tags_on(tagged))


def _records(clients: Clients, sought: Sought) -> Iterator[Thing]:
    """A record has no tags: it is the stack's where it leads to an address that has them."""
    if sought.host is None:
        return
    tags = {each.detail: each.tags for each in _addresses(clients, sought)}
    for group in _tagged(clients, sought, "describe_instances", "Reservations"):
        for machine in group["Instances"]:
            for door in machine.get("NetworkInterfaces", []):
                tags |= {str(each["Ipv6Address"]): tags_on(machine) for each in door.get("Ipv6Addresses", [])}
    for zone in _zones(clients, sought.host):
        answer = clients.route53.list_resource_record_sets(
            HostedZoneId=zone, StartRecordName=sought.host, StartRecordType="A", MaxItems="10"
        )
        for each in answer["ResourceRecordSets"]:
            values = [str(value["Value"]) for value in each.get("ResourceRecords", [])]
            if each["Name"].rstrip(".") == sought.host and len(values) == 1 and values[0] in tags:
                identity = f"{zone}_{sought.host}_{each['Type']}"
                yield Thing(owned.RECORD, identity, tags[values[0]], f"leads to {values[0]}")


def _zones(clients: Clients, host: str) -> list[str]:
    """Ids of the public zones that a name can lie in."""
    found = []
    for page in clients.route53.get_paginator("list_hosted_zones").paginate():
        for each in page["HostedZones"]:
            name = str(each["Name"]).rstrip(".")
            if not each.get("Config", {}).get("PrivateZone") and (host == name or host.endswith(f".{name}")):
                found.append(str(each["Id"]).rpartition("/")[2])
    return found


_FIND: Mapping[Kind, Finder] = {
    owned.SCHEDULE: _schedules,
    owned.BUDGET: _budgets,
    owned.RECORD: _records,
    owned.INSTANCE: _instances,
    owned.ADDRESS: _addresses,
    owned.VOLUME: _volumes,
    owned.GROUP: _by_tags(owned.GROUP, "describe_security_groups", "SecurityGroups", "GroupId"),
    owned.ROUTES: _by_tags(owned.ROUTES, "describe_route_tables", "RouteTables", "RouteTableId"),
    owned.SUBNET: _by_tags(owned.SUBNET, "describe_subnets", "Subnets", "SubnetId"),
    owned.GATEWAY: _by_tags(owned.GATEWAY, "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    owned.VPC: _by_tags(owned.VPC, "describe_vpcs", "Vpcs", "VpcId"),
    owned.KEY_PAIR: _key_pairs,
    owned.PROFILE: _profiles,
    owned.ROLE: _roles,
}
