"""What must be so in an AWS account before anything is made there: rules over what the account says of itself.

Each rule is a function of what the stack wants and what the account says. It tells problems, which end a run
before it has made anything, and warnings. What an account does not answer is never a problem by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from catalog.aws.account import Account, Shape, Unanswered, Wanted, items
from catalog.aws.images import login, root_gib
from catalog.aws.instance_types import instance_types
from catalog.aws.prices import Gp3, answered_price, price, price_lines
from catalog.aws.rules.disks import DISK_RULES
from catalog.aws.rules.finding import Findings, Problem, Rule
from catalog.aws.rules.instance import INSTANCE_RULES
from catalog.aws.rules.lookups import chosen_zone, vcpus_of
from catalog.aws.rules.network import NETWORK_RULES, public_zones, zone_id
from catalog.aws.rules.records import RECORD_RULES, own_records

PHASE = "AWS account"

USUAL_ROOT_GIB = 75
"""The Deep Learning Base AMI's first disk (2026), where DescribeImages does not answer."""


class Gpu(TypedDict):
    """The GPUs of a machine."""

    name: str
    """As NVIDIA names it."""
    count: int
    """How many."""
    mib_each: int
    """Memory of one, in MiB."""
    compute_capability: str
    """As 8.9."""


class Offer(TypedDict):
    """What the account will give: everything that the resources of the machine have to know of it."""

    account: str
    """The account's number."""
    region: str
    """Where."""
    zone: str
    """The availability zone to take."""
    instance_type: str
    """The type to take."""
    ami: str
    """The image to start."""
    ami_root_gib: int
    """GiB of its first disk; the machine's must not be smaller."""
    login: str
    """The user to log in as."""
    vcpus: int
    """As the quota counts them."""
    gpu: Gpu | None
    """None: no GPU, or one that this program does not know."""
    hosted_zone_id: str | None
    """The Route 53 zone that holds the endpoint's name, where the stack names one."""
    own_records: list[str]
    """Types of the name's records that lead to its address already, such as A: these may be overwritten."""
    price_per_hour: float | None
    """USD for the instance; None where no price is known."""
    price_date: str
    """What day the price is of."""
    price_region: str
    """What region the price is of."""
    disks_and_address_per_month: float
    """USD for disks and address: what is left on the bill when the machine is stopped."""


@dataclass(frozen=True)
class Judgement:
    """What the rules say. offer: None where there are problems."""

    problems: Sequence[Problem]
    warnings: Sequence[str]
    offer: Offer | None
    price_lines: Sequence[str] = ()

    def __str__(self) -> str:
        """The problems, as a run that ends here tells them: one phase, then cause and change of each."""
        told = [f"cause: {problem.cause}\nchange: {problem.change}" for problem in self.problems]
        return "\n".join([f"phase: {PHASE}", *told])


def judge(wanted: Wanted, account: Account) -> Judgement:
    """All rules at once, and the offer where none of them has a problem."""
    findings = [finding for rule in RULES for finding in rule(wanted, account)]
    problems = list(dict.fromkeys(each for each in findings if isinstance(each, Problem)))
    warnings = list(dict.fromkeys(each for each in findings if isinstance(each, str)))
    if problems:
        return Judgement(problems, warnings, None)
    return _offered(wanted, account, warnings)


def offer_unasked(wanted: Wanted) -> Offer:
    """What an account would offer that lacks nothing, by the catalogue alone: for plans, where nobody is asked."""
    zone = next(iter(wanted["zones"]), f"{wanted['region']}a")
    offer = _offered(wanted, Account(image_id=wanted["ami"] or "ami-unasked"), []).offer
    assert offer is not None  # noqa: S101 - only problems take it away, and no rule was asked
    return {**offer, "zone": zone}


def _offered(wanted: Wanted, account: Account, warnings: list[str]) -> Judgement:
    kind, zone, image = wanted["instance_type"], chosen_zone(wanted, account), _image(account)
    prices = account.prices if account.prices and not isinstance(account.prices, Unanswered) else ()
    disks = [
        Gp3(wanted["root_disk_gib"], wanted["root_disk_throughput"]),
        Gp3(wanted["data_disk_gib"], wanted["data_disk_throughput"]),
    ]
    costs = price(kind, wanted["region"], disks, answered_price(prices))
    row = instance_types().get(kind)
    offer = Offer(
        account=account.id,
        region=wanted["region"],
        zone=zone or "",
        instance_type=kind,
        ami=account.image_id or str(image["ImageId"]),
        ami_root_gib=root_gib(image) or USUAL_ROOT_GIB,
        login=login(image) or "ubuntu",
        vcpus=vcpus_of(kind, account) or 0,
        gpu=Gpu(name=row.gpu, count=row.gpus, mib_each=row.mib_per_gpu, compute_capability=row.compute_capability)
        if row
        else None,
        hosted_zone_id=next((zone_id(each) for each in public_zones(wanted, account)), None),
        own_records=own_records(wanted, account),
        price_per_hour=costs.per_hour,
        price_date=costs.date,
        price_region=costs.region,
        disks_and_address_per_month=round(costs.disks_and_address, 2),
    )
    return Judgement(
        (), warnings, offer, price_lines(kind, offer["zone"], wanted["region"], costs, wanted["market"])
    )


def _image(account: Account) -> Shape:
    """The image as EC2 describes it; nothing where it does not."""
    return next(iter(items(account.images)), {})


def questions_are_answered(wanted: Wanted, account: Account) -> Findings:  # noqa: ARG001 - a rule's form
    """A warning for each thing that could not be looked at."""
    looked_at = {
        "types": "the instance types",
        "offerings": "which zones sell the type",
        "zones": "the availability zones",
        "instances": "how many vCPUs are in use",
        "volumes": "where the data disk is",
        "images": "the image",
        "addresses": "how many Elastic IPs there are",
        "hosted_zones": "the hosted zone",
        "records": "whether the name has a record already",
        "subnets": "the subnet",
        "route_tables": "whether the subnet is public",
        "snapshots": "the snapshot",
        "reservations": "the capacity reservation",
    }
    for name, words in looked_at.items():
        answer = getattr(account, name)
        if isinstance(answer, Unanswered):
            yield f"not checked: {words} ({answer.call} {answer.why})"
    for code, quota in account.quotas.items():
        if isinstance(quota, Unanswered):
            yield f"not checked: quota {code} ({quota.call} {quota.why})"


RULES: Sequence[Rule] = (
    *INSTANCE_RULES,
    *DISK_RULES,
    *NETWORK_RULES,
    *RECORD_RULES,
    questions_are_answered,
)
"""Every rule, in the order in which a reader wants to hear of them."""
