"""Reads what an account says of itself: all questions at once, each with its own short patience."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from aws_account.session import (
    NO_ANSWER,
    NOT_KNOWN,
    RUN_OUT,
    WITHOUT_RIGHTS,
    account_number,
    config,
    open_session,
    refused,
)
from catalog.aws.account import ADDRESS_QUOTA, Account, Shape, Unanswered, Wanted
from catalog.aws.images import FALLBACK_NAME, OWNER, parameter_for
from catalog.aws.instance_types import processor_of, quota_code
from catalog.aws.rules.network import public_zones, zone_id
from catalog.aws.tags import tags_of

if TYPE_CHECKING:
    import boto3

T = TypeVar("T")

PRICING_REGION = "us-east-1"
"""Where the Pricing API is; it tells the prices of all regions."""

_NOT_THERE = ("NotFound", "Malformed", "Unavailable", "NoSuchHostedZone", "NoSuchResourceException")
"""Endings of the codes that say that a thing is not there."""


def read_account(wanted: Wanted) -> Account:
    """Everything that the rules of the preflight look at.

    AccountError where there are no credentials that AWS accepts in this region. Whatever else is refused or fails
    becomes an `Unanswered`.
    """
    session = open_session(wanted["profile"], wanted["region"])
    questions = Questions(session, wanted)
    asked = {**questions.of_the_account(), **questions.of_what_is_named()}
    with ThreadPoolExecutor(max_workers=len(asked) + 1) as pool:
        number = pool.submit(account_number, session, wanted["region"])
        futures = {name: pool.submit(question) for name, question in asked.items()}
        answers: dict[str, Any] = {"id": number.result()}
        answers |= {name: future.result() for name, future in futures.items()}
    _refuse_where_the_region_is_off(session, wanted["region"], answers)
    quotas = {name: answers.pop(name) for name in list(answers) if name.startswith("L-")}
    image_id, images = answers.pop("image")
    hosted_zones, records = answers.pop("name", (None, None))
    return Account(
        **answers, quotas=quotas, image_id=image_id, images=images, hosted_zones=hosted_zones, records=records
    )


def _refuse_where_the_region_is_off(session: boto3.Session, region: str, answers: Mapping[str, Any]) -> None:
    """STS may know credentials in a region where EC2 is not to be had."""
    of_ec2 = [each for each in answers.values() if isinstance(each, Unanswered) and each.call.startswith("ec2:")]
    if wrong := sorted({each.code for each in of_ec2} & (NOT_KNOWN | RUN_OUT)):
        raise refused(session, region, wrong[0])


Question = Callable[[], Any]


def ask(call: str, question: Callable[[], T]) -> T | Unanswered:
    """The answer, or why there is none."""
    try:
        return question()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        return Unanswered(call, "is not allowed" if code in WITHOUT_RIGHTS else f"answers {code}", code)
    except NO_ANSWER as error:
        return Unanswered(call, f"does not answer: {type(error).__name__}")


def found(question: Callable[[], Sequence[Shape]]) -> Sequence[Shape]:
    """The answer; nothing where AWS says that the thing is not there."""
    try:
        return question()
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")).endswith(_NOT_THERE):
            return []
        raise


class Questions:
    """What is asked, by the name that `Account` has for the answer. Nothing is asked until one is called."""

    def __init__(self, session: boto3.Session, wanted: Wanted) -> None:
        # Clients are made here, one after the other: a session's factory is not made for threads, its clients are.
        self._wanted = wanted
        self._ec2 = session.client("ec2", config=config())
        self._ssm = session.client("ssm", config=config())
        self._quotas = session.client("service-quotas", config=config())
        self._pricing = session.client("pricing", region_name=PRICING_REGION, config=config(attempts=1))
        self._route53 = session.client("route53", config=config()) if _asks_for_a_zone(wanted) else None

    def of_the_account(self) -> dict[str, Question]:
        """What every stack wants to know."""
        wanted = self._wanted
        types = [{"Name": "instance-type", "Values": wanted["instance_types"]}]
        mine = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags_of(wanted["stack"]).items()]
        living = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        codes = {ADDRESS_QUOTA, quota_code(wanted["instance_type"], wanted["market"])} - {None}
        return {
            "types": self._pages("DescribeInstanceTypes", "InstanceTypes", Filters=types),
            "offerings": self._pages(
                "DescribeInstanceTypeOfferings",
                "InstanceTypeOfferings",
                LocationType="availability-zone",
                Filters=types,
            ),
            "zones": self._pages("DescribeAvailabilityZones", "AvailabilityZones"),
            "instances": self._instances(living),
            "volumes": self._pages("DescribeVolumes", "Volumes", Filters=mine),
            "addresses": self._pages("DescribeAddresses", "Addresses"),
            "image": self._image,
            "prices": self._prices,
            **{str(code): self._quota(str(code)) for code in sorted(map(str, codes))},
        }

    def of_what_is_named(self) -> dict[str, Question]:
        """What is asked for because the stack names it."""
        wanted, asked = self._wanted, dict[str, Question]()
        if wanted["subnet"]:
            asked["subnets"] = self._pages("DescribeSubnets", "Subnets", SubnetIds=[wanted["subnet"]])
            asked["route_tables"] = lambda: ask("ec2:DescribeRouteTables", self._route_tables)
        if wanted["snapshot"]:
            asked["snapshots"] = self._pages("DescribeSnapshots", "Snapshots", SnapshotIds=[wanted["snapshot"]])
        if wanted["reservation"]:
            asked["reservations"] = self._pages(
                "DescribeCapacityReservations",
                "CapacityReservations",
                CapacityReservationIds=[wanted["reservation"]],
            )
        if _asks_for_a_zone(wanted):
            asked["name"] = self._name
        return asked

    def _pages(self, call: str, key: str, **arguments: Any) -> Question:
        """A Describe call of EC2, all pages of it."""

        def question() -> Sequence[Shape]:
            name = _snake(call)
            if self._ec2.can_paginate(name):
                pages = self._ec2.get_paginator(name).paginate(**arguments)  # type: ignore[call-overload]
                return [item for page in pages for item in page.get(key, [])]
            return list(getattr(self._ec2, name)(**arguments).get(key, []))

        return lambda: ask(f"ec2:{call}", lambda: found(question))

    def _instances(self, filters: Sequence[Any]) -> Question:
        read = self._pages("DescribeInstances", "Reservations", Filters=filters)

        def question() -> Sequence[Shape] | Unanswered:
            answer = read()
            if isinstance(answer, Unanswered):
                return answer
            return [instance for reservation in answer for instance in reservation.get("Instances", [])]

        return question

    def _route_tables(self) -> Sequence[Shape]:
        """Of the VPC that the named subnet is in."""
        subnets = found(lambda: self._ec2.describe_subnets(SubnetIds=[str(self._wanted["subnet"])])["Subnets"])
        if not subnets:
            return []
        return self._ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [subnets[0]["VpcId"]]}])[
            "RouteTables"
        ]

    def _quota(self, code: str) -> Question:
        def question() -> float:
            try:
                answer = self._quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)
            except self._quotas.exceptions.NoSuchResourceException:
                # An account that never had it changed may have no value of its own.
                answer = self._quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)
            return float(answer["Quota"]["Value"])

        return lambda: ask("servicequotas:GetServiceQuota", question)

    def _image(self) -> tuple[str | None, Sequence[Shape] | Unanswered]:
        """The image's id, and what EC2 says of it."""
        named = self._wanted["ami"]
        if named is None:
            parameter = parameter_for(processor_of(self._wanted["instance_type"]))
            answer = ask("ssm:GetParameter", lambda: self._ssm.get_parameter(Name=parameter)["Parameter"]["Value"])
            if isinstance(answer, Unanswered):
                newest = ask("ec2:DescribeImages", self._newest_image)
                return (None, newest) if isinstance(newest, Unanswered) else (_id_of(newest), newest)
            named = answer
        read = self._pages("DescribeImages", "Images", ImageIds=[named])
        images: Sequence[Shape] | Unanswered = read()
        return (named if images else None), images

    def _newest_image(self) -> Sequence[Shape]:
        """By its name, where the parameter is not to be had."""
        filters = {
            "name": FALLBACK_NAME,
            "architecture": processor_of(self._wanted["instance_type"]),
            "state": "available",
        }
        images = self._ec2.describe_images(
            Owners=[OWNER], Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()]
        )["Images"]
        return sorted(images, key=lambda image: str(image.get("CreationDate")))[-1:]

    def _name(self) -> tuple[Sequence[Shape] | Unanswered, Sequence[Shape] | Unanswered | None]:
        """The hosted zones that may hold the endpoint's name, and the name's records where one zone is meant."""
        wanted, route53, zones = self._wanted, self._route53, self._hosted_zones()
        meant = public_zones(wanted, Account(hosted_zones=zones))
        if wanted["domain"] is None or route53 is None or len(meant) != 1:
            return zones, None
        zone, host = zone_id(meant[0]), wanted["domain"]["host"]

        def question() -> Sequence[Shape]:
            # Sorted by name: those of one name stand together, and there are a handful of types.
            answer = route53.list_resource_record_sets(HostedZoneId=zone, StartRecordName=host)
            return [each for each in answer["ResourceRecordSets"] if each["Name"].rstrip(".").lower() == host]

        return zones, ask("route53:ListResourceRecordSets", lambda: found(question))

    def _hosted_zones(self) -> Sequence[Shape] | Unanswered:
        domain, route53 = self._wanted["domain"], self._route53
        if domain is None or route53 is None:
            return []
        if domain["zone_id"]:
            name = domain["zone_id"]
            return ask(
                "route53:GetHostedZone", lambda: found(lambda: [route53.get_hosted_zone(Id=name)["HostedZone"]])
            )
        zone = str(domain["zone"])
        return ask(
            "route53:ListHostedZonesByName",
            lambda: route53.list_hosted_zones_by_name(DNSName=zone)["HostedZones"],
        )

    def _prices(self) -> Sequence[str] | Unanswered:
        meant = {
            "instanceType": self._wanted["instance_type"],
            "regionCode": self._wanted["region"],
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
        }
        filters: Any = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in meant.items()]
        return ask(
            "pricing:GetProducts",
            lambda: self._pricing.get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=10)[
                "PriceList"
            ],
        )


def _asks_for_a_zone(wanted: Wanted) -> bool:
    domain = wanted["domain"]
    return bool(domain and (domain["zone"] or domain["zone_id"]))


def _id_of(images: Sequence[Shape]) -> str | None:
    return str(images[0]["ImageId"]) if images else None


def _snake(call: str) -> str:
    """describe_instances for DescribeInstances."""
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in call).removeprefix("_")
