"""Rules of the way to the machine: name, address, subnet, and who is let in."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from catalog.aws.account import (
    ADDRESS_QUOTA,
    USUAL_ADDRESSES,
    Account,
    Shape,
    Unanswered,
    Wanted,
    items,
    known,
)
from catalog.aws.failures import quota_request
from catalog.aws.rules.finding import Findings, Problem, Rule
from catalog.aws.rules.lookups import may_be, own


def hosted_zone_holds_the_name(wanted: Wanted, account: Account) -> Findings:
    """The zone is there once, public, and the endpoint's name lies in it."""
    domain = wanted["domain"]
    if domain is None or not (domain["zone"] or domain["zone_id"]) or not known(account.hosted_zones):
        return
    meant, public = _meant_zones(wanted, account), public_zones(wanted, account)
    label = f"zone_id: {domain['zone_id']}" if domain["zone_id"] else f"zone: {domain['zone']}"
    if not meant:
        yield Problem(
            f"seatable-vllm:domain.{label} is not a hosted zone of this account (Route 53)",
            "correct it, or make the zone there and enter its name servers at the domain's registrar",
        )
    elif not public:
        yield Problem(
            f"seatable-vllm:domain.{label} is a private zone, which answers inside AWS alone",
            "set seatable-vllm:domain.zone_id to the public zone of the same name, or make one",
        )
    elif len(public) > 1:
        yield Problem(
            f"seatable-vllm:domain.{label} is there {len(public)} times: "
            f"{', '.join(zone_id(each) for each in public)}",
            "set seatable-vllm:domain.zone_id to the one that the domain's NS records lead to",
        )
    for each in public:
        if not f".{domain['host']}".endswith(f".{_name(each)}"):
            yield Problem(
                f"seatable-vllm:domain.{label} is {_name(each)}, which does not hold {domain['host']}",
                "name the zone that the host lies in",
            )


def networks_can_reach_the_machine(wanted: Wanted, account: Account) -> Findings:  # noqa: ARG001 - a rule's form
    """Those who are let in have addresses that the Internet knows."""
    groups = {"machine.admin_cidrs": wanted["admin_cidrs"]}
    if wanted["domain"]:
        groups |= {f"clients.{name}.cidrs": list(cidrs) for name, cidrs in wanted["clients"].items()}
    for setting, cidrs in groups.items():
        for cidr in cidrs:
            network = ipaddress.ip_network(cidr)
            if not network.is_global:
                yield (
                    f"seatable-vllm:{setting}: nobody comes to a public address from {cidr}, which is private or "
                    "reserved; name the public address that it leaves by"
                )
            elif network.version == 6 and not wanted["ipv6"]:
                yield (
                    f"seatable-vllm:{setting}: {cidr} is IPv6, and the machine has none; set "
                    "seatable-vllm:machine.ipv6 to true"
                )


def an_address_is_left(wanted: Wanted, account: Account) -> Findings:
    """One more Elastic IP may be had, or the stack has its own already."""
    if not known(account.addresses) or own(wanted, account.addresses):
        return
    quota, used = account.quotas.get(ADDRESS_QUOTA), len(items(account.addresses))
    if quota is None or isinstance(quota, Unanswered):
        if used >= USUAL_ADDRESSES:
            yield f"the account has {used} Elastic IPs in {wanted['region']}; {USUAL_ADDRESSES} are usual"
    elif used >= quota:
        yield Problem(
            f"the account has {used} Elastic IPs in {wanted['region']}, and may have {quota:g}",
            "release one (aws ec2 release-address), or ask AWS for more: "
            f"{quota_request(ADDRESS_QUOTA, used + 1, wanted['region'])}",
        )


def subnet_is_public(wanted: Wanted, account: Account) -> Findings:
    """The subnet that the stack names is there, leads to the Internet, and has an address left."""
    if wanted["subnet"] is None or account.subnets is None:
        return
    name = f"seatable-vllm:machine.subnet: {wanted['subnet']}"
    if known(account.subnets) and not items(account.subnets):
        yield Problem(
            f"{name} is not in {wanted['region']}",
            "correct it, or remove it: then the stack makes a VPC of its own",
        )
    for each in items(account.subnets):
        zone = str(each.get("AvailabilityZone"))
        if wanted["zones"] and zone not in wanted["zones"] and may_be(wanted["zones"], account):
            yield Problem(
                f"{name} is in {zone}, and not in {', '.join(wanted['zones'])}", f"set the zone to {zone}"
            )
        if each.get("AvailableIpAddressCount") == 0:
            yield Problem(f"{name} has no free address", "name another, or remove it")
        if wanted["ipv6"] and not each.get("Ipv6CidrBlockAssociationSet"):
            yield Problem(f"{name} has no IPv6 network", "give it one, or set seatable-vllm:machine.ipv6 to false")
        if known(account.route_tables) and not _leads_out(each, items(account.route_tables)):
            yield Problem(
                f"{name} is not public: its route table has no route to an Internet gateway",
                "name a public subnet, or remove it: then the stack makes a VPC of its own",
            )


def _leads_out(subnet: Shape, tables: Sequence[Shape]) -> bool:
    """Whether a subnet's route table, or its VPC's main one, has a default route to an Internet gateway."""
    own_table = [
        table
        for table in tables
        if any(link.get("SubnetId") == subnet.get("SubnetId") for link in table.get("Associations", []))
    ]
    main = [table for table in tables if any(link.get("Main") for link in table.get("Associations", []))]
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0"
        and str(route.get("GatewayId", "")).startswith("igw-")
        and route.get("State") == "active"
        for table in own_table or main
        for route in table.get("Routes", [])
    )


def zone_id(zone: Shape) -> str:
    """The id of a hosted zone without the path that Route 53 puts in front."""
    return str(zone["Id"]).rpartition("/")[2]


def public_zones(wanted: Wanted, account: Account) -> list[Shape]:
    """The hosted zones that the stack means and that the world can ask."""
    return [each for each in _meant_zones(wanted, account) if not each.get("Config", {}).get("PrivateZone")]


def _meant_zones(wanted: Wanted, account: Account) -> list[Shape]:
    domain = wanted["domain"]
    if domain is None:
        return []
    return [
        each
        for each in items(account.hosted_zones)
        if (zone_id(each) == domain["zone_id"] if domain["zone_id"] else _name(each) == domain["zone"])
    ]


def _name(zone: Shape) -> str:
    return str(zone["Name"]).rstrip(".").lower()


NETWORK_RULES: Sequence[Rule] = (
    hosted_zone_holds_the_name,
    networks_can_reach_the_machine,
    an_address_is_left,
    subnet_is_public,
)
