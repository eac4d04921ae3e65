"""Rules of the endpoint's name: whether it leads somewhere already, and to whom.

Route 53's records have no tags. One is the stack's where it leads to an address that has the stack's tags.
"""

from __future__ import annotations

from collections.abc import Sequence

from catalog.aws.account import Account, Shape, Unanswered, Wanted, items, known
from catalog.aws.rules.finding import Findings, Problem, Rule
from catalog.aws.rules.lookups import own
from catalog.aws.rules.network import public_zones
from catalog.aws.tags import STACK, tags_of, tags_on

ANOTHER_NAME = "set seatable-vllm:domain.host to another name"


def the_name_is_free(wanted: Wanted, account: Account) -> Findings:
    """No record of the endpoint's name is somebody else's, or it is to be taken over."""
    domain = wanted["domain"]
    if domain is None or len(public_zones(wanted, account)) != 1:
        return  # the zone's own rule speaks of that
    ours, host = own_records(wanted, account), domain["host"]
    for each in _of_the_name(wanted, account):
        kind = str(each["Type"])
        if kind in ours:
            continue
        what = (
            f"seatable-vllm:domain.host: {host} has a record {kind} already, which points to {_goal(each)}"
            f"{_whose(each, account)}"
        )
        if kind == "AAAA" and not wanted["ipv6"]:
            yield f"{what}: clients with IPv6 go there, and not to this machine; delete it"
        elif kind == "CNAME" or each.get("SetIdentifier"):
            # No record of ours can stand beside such a one, nor be written over it.
            yield Problem(what, f"delete it in Route 53, or {ANOTHER_NAME}")
        elif isinstance(account.addresses, Unanswered):
            yield f"{what}: not checked whether that is this stack's (ec2:DescribeAddresses)"
        elif not domain["adopt_record"]:
            yield Problem(
                what,
                "to take it over, set seatable-vllm:domain.adopt_record to true: it then points to this machine, "
                f"and scripts/down removes it; else {ANOTHER_NAME}",
            )
        else:
            yield f"{what}; this stack takes it over, and scripts/down removes it"


def own_records(wanted: Wanted, account: Account) -> list[str]:
    """The types of the name's records that lead to the stack's own address, such as A.

    AAAA is the stack's where A is: no answer of the account names the address of a machine that is gone.
    """
    mine = {str(each.get("PublicIp")) for each in own(wanted, account.addresses)}
    simple = {
        str(each["Type"]): {str(value["Value"]) for value in each.get("ResourceRecords", [])}
        for each in _of_the_name(wanted, account)
        if not each.get("SetIdentifier")
    }
    if not simple.get("A") or not simple["A"] <= mine:
        return []
    return [kind for kind in ("A", "AAAA") if kind in simple]


def _of_the_name(wanted: Wanted, account: Account) -> list[Shape]:
    """The records that say where the endpoint's name leads."""
    domain = wanted["domain"]
    if domain is None or not known(account.records):
        return []
    return [
        each
        for each in items(account.records)
        if str(each["Name"]).rstrip(".").lower() == domain["host"] and each["Type"] in ("A", "AAAA", "CNAME")
    ]


def _goal(record: Shape) -> str:
    if "AliasTarget" in record:
        return str(record["AliasTarget"].get("DNSName")).rstrip(".")
    return ", ".join(str(value["Value"]).rstrip(".") for value in record.get("ResourceRecords", [])) or "nowhere"


def _whose(record: Shape, account: Account) -> str:
    """Whose address a record leads to, where it is another stack's."""
    values = {str(value["Value"]) for value in record.get("ResourceRecords", [])}
    for each in items(account.addresses):
        stack = tags_on(each).get(STACK)
        if each.get("PublicIp") in values and stack and tags_of(stack).items() <= tags_on(each).items():
            return f", the address of the stack {stack}"
    return ""


RECORD_RULES: Sequence[Rule] = (the_name_is_free,)
