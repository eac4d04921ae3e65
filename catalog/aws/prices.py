"""What a machine on AWS costs, running and stopped: list prices with sources and dates. No taxes, no traffic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from catalog.aws.instance_types import instance_types, price_date, price_region

HOURS_PER_MONTH = 730
"""As AWS's own calculator has it: 365 days of 24 hours, by 12."""

GP3_USD_PER_GIB_MONTH = 0.08
"""gp3 storage in us-east-1 with 3000 IOPS and 125 MiB/s; aws.amazon.com/ebs/pricing as read on 2026-09-29."""

GP3_FREE_THROUGHPUT = 125
"""MiB/s that the price of a gp3 volume includes; the same page and day."""

GP3_USD_PER_THROUGHPUT_MONTH = 0.04
"""Each MiB/s beyond them, in us-east-1; the same page and day."""

PUBLIC_IPV4_USD_PER_HOUR = 0.005
"""In every region, used or not; AWS's announcement of 2023-07-28, in force since 2024-02-01."""


class Gp3(NamedTuple):
    """A gp3 volume: its size in GiB, and its throughput in MiB/s."""

    gib: int
    throughput: int = GP3_FREE_THROUGHPUT

    @property
    def usd_per_month(self) -> float:
        """By the prices of us-east-1."""
        more = self.throughput - GP3_FREE_THROUGHPUT
        return self.gib * GP3_USD_PER_GIB_MONTH + more * GP3_USD_PER_THROUGHPUT_MONTH


@dataclass(frozen=True)
class Price:
    """What a machine costs, in USD.

    per_hour: the instance alone; None where no price is known. region, date: what the price of the instance is of.
    disks_and_address: a month of the disks and the public address, which is also what a stopped machine costs.
    """

    per_hour: float | None
    region: str
    date: str
    disks_and_address: float

    @property
    def per_month(self) -> float | None:
        """A month of the instance alone, running all the time."""
        return None if self.per_hour is None else self.per_hour * HOURS_PER_MONTH

    @property
    def stopped(self) -> float:
        """A month of the machine when it is stopped: its disks and its address stay on the bill."""
        return self.disks_and_address


def disks_and_address(disks: Iterable[Gp3]) -> float:
    """USD a month for all disks and one public IPv4 address, by the prices of us-east-1."""
    return sum(disk.usd_per_month for disk in disks) + PUBLIC_IPV4_USD_PER_HOUR * HOURS_PER_MONTH


def list_price(instance_type: str) -> float | None:
    """USD an hour on demand in `price_region()`, or None where it is not known."""
    known = instance_types().get(instance_type)
    return known.usd_per_hour if known else None


def answered_price(price_list: Iterable[str | Mapping[str, Any]]) -> tuple[float, str] | None:
    """USD an hour and the day since when, from what the Pricing API's GetProducts answers (`PriceList`); or None.

    None too where the products differ in price: then the filters did not mean one thing.
    """
    found = set[tuple[float, str]]()
    for product in price_list:
        read: Mapping[str, Any] = json.loads(product) if isinstance(product, str) else product
        for term in read.get("terms", {}).get("OnDemand", {}).values():
            for dimension in term.get("priceDimensions", {}).values():
                usd = float(dimension.get("pricePerUnit", {}).get("USD", 0))
                if usd > 0:
                    found.add((usd, str(term.get("effectiveDate", ""))[:10]))
    return next(iter(found)) if len(found) == 1 else None


def price(instance_type: str, region: str, disks: Iterable[Gp3], answered: tuple[float, str] | None) -> Price:
    """The price of a machine in a region. answered: what the Pricing API said of that region, if it did."""
    beside = disks_and_address(disks)
    if answered:
        return Price(answered[0], region, answered[1], beside)
    return Price(list_price(instance_type), price_region(), price_date(), beside)


def price_lines(instance_type: str, zone: str, region: str, price: Price, market: str) -> list[str]:
    """What a person reads of the price before anything is made."""
    beside = f"disks and address {price.disks_and_address:.0f} USD/month"
    stopped = f"stopped: {price.stopped:.0f} USD/month"
    if market == "capacity-block":
        return [f"{instance_type} in {zone}: paid with the capacity block; {beside}"]
    if price.per_hour is None or price.per_month is None:
        return [
            f"{instance_type} in {zone}: no price is known, see aws.amazon.com/ec2/pricing; {beside}; {stopped}"
        ]
    lines = [
        f"{instance_type} in {zone}: {price.per_hour:.2f} USD/h, about {price.per_month:.0f} USD/month "
        f"({price.region} list price of {price.date}), {beside}; {stopped}"
    ]
    if price.region != region:
        lines.append(f"this is an estimate: {region} has prices of its own, mostly higher")
    if market == "spot":
        lines.append("this is the price on demand; spot costs less, as the market goes")
    return lines
