"""EC2's GPU instance types: what no call of EC2 tells (compute capability, quota, price), and what tests need."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_suffix(".json")
"""One line per type, with the source of each column and the date of the prices."""

STANDARD_QUOTA = "L-1216C47A"
"""Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances; for trying without a GPU."""
STANDARD_SPOT_QUOTA = "L-34B43A08"
"""All Standard Spot Instance Requests."""

QUOTA_FAMILIES: Mapping[str, str] = {
    "L-DB2E81BA": "g vt",
    "L-417A185B": "p",
    "L-3819A6DF": "g vt",
    "L-7212CCBC": "p2 p3 p4",
    "L-C4BD4855": "p5",
    STANDARD_QUOTA: "a c d h i im is m r t z",
    STANDARD_SPOT_QUOTA: "a c d h i im is m r t z",
}
"""Which types a quota counts, by the beginnings of their names: the letters before the first digit, or with it."""


@dataclass(frozen=True)
class InstanceType:
    """One type of EC2 instance. Sources and dates: `sources` in the data file.

    mib_per_gpu: memory of one GPU in MiB. usd_per_hour: on demand, Linux, in us-east-1; None: not sold so.
    quota, spot_quota: codes of Service Quotas, counted in vCPUs. no_vllm: why vLLM does not run on it, or None.
    """

    name: str
    gpu: str
    gpus: int
    mib_per_gpu: int
    compute_capability: str
    architecture: str
    processor: str
    vcpus: int
    usd_per_hour: float | None
    quota: str | None
    spot_quota: str | None
    no_vllm: str | None
    notes: Sequence[str]

    @property
    def family(self) -> str:
        """What stands before the dot, as in g6e."""
        return family_of(self.name)


@functools.cache
def _data() -> Mapping[str, Any]:
    data: dict[str, Any] = json.loads(DATA.read_text())
    return data


@functools.cache
def instance_types() -> Mapping[str, InstanceType]:
    """Every GPU type that this program knows, by name."""
    return {name: InstanceType(name=name, **row) for name, row in _data()["instance_types"].items()}


def price_date() -> str:
    """The day of the list prices, as 2026-07-20."""
    return str(_data()["prices"]["date"])


def price_region() -> str:
    """The region that the list prices are of."""
    return str(_data()["prices"]["region"])


def family_of(name: str) -> str:
    """What stands before the dot of a type's name, as g6e of g6e.xlarge."""
    return name.partition(".")[0]


def processor_of(name: str) -> str:
    """The processor's architecture as AMIs name it. Of unknown types: arm64 where a g follows the generation."""
    known = instance_types().get(name)
    if known:
        return known.processor
    return "arm64" if re.match(r"[a-z]+[0-9]+[a-z]*g[a-z]*\.", name) else "x86_64"


def nearest(name: str) -> list[str]:
    """Up to three known types whose names are like this one, the likest first."""
    return difflib.get_close_matches(name, instance_types(), n=3, cutoff=0.6)


def quota_code(name: str, market: str) -> str | None:
    """The quota that counts the vCPUs of this type, or None where it is not known.

    market: on-demand or spot. A capacity block counts against none.
    """
    if market == "capacity-block":
        return None
    known = instance_types().get(name)
    if known:
        return known.spot_quota if market == "spot" else known.quota
    spot = {"L-3819A6DF", "L-7212CCBC", "L-C4BD4855", STANDARD_SPOT_QUOTA}
    codes = [code for code in QUOTA_FAMILIES if (code in spot) == (market == "spot")]
    return next((code for code in codes if counts(code, name)), None)


def counts(code: str, name: str) -> bool:
    """Whether this quota counts instances of this type."""
    known = instance_types().get(name)
    if known:
        return code in (known.quota, known.spot_quota)
    family = family_of(name)
    letters = next((family[:n] for n, sign in enumerate(family) if sign.isdigit()), family)
    return bool({letters, family[: len(letters) + 1]} & set(QUOTA_FAMILIES.get(code, "").split()))
