"""EC2's GPU instance types: what no call of EC2 tells."""

from __future__ import annotations


def quota_code(name: str, market: str) -> str | None:
    """The quota that counts the vCPUs of this type, or None where it is not known."""
    codes = {"on-demand": {"g": "L-DB2E81BA", "p": "L-417A185B"}, "spot": {"g": "L-3819A6DF"}}
    return codes.get(market, {}).get(name[0])
