"""The endpoint's name: records in a Route 53 zone that is there, or what somebody has to write elsewhere."""

from collections.abc import Mapping
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from components.machine import Machine
from components.machine.aws.zone import hosted_zone
from components.machine.machine import PublicAddress
from settings import Domain, Settings

TYPE = "seatable-vllm:index:Dns"

TTL_SECONDS = 60
"""How long a resolver may keep a record: a changed address is to be seen at once, and nobody asks often."""


class DnsArgs(TypedDict):
    """Which name leads where."""

    domain: Domain
    """The name, and the zone it lies in."""
    public: PublicAddress
    """Where it is to lead."""


class Dns(pulumi.ComponentResource):
    """A name that leads to the machine."""

    made: bool
    """Whether the records are made here; if not, somebody has to."""
    records: pulumi.Output[list[str]]
    """The records as a zone file has them; where they are made here, once that is done."""

    def __init__(self, name: str, args: DnsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        domain, public = args["domain"], args["public"]
        addresses: Mapping[str, pulumi.Output[str]] = {
            "A": public.ipv4,
            **({"AAAA": public.ipv6} if public.ipv6 is not None else {}),
        }
        zone = hosted_zone(domain, parent=self, provider=public.provider)
        self.made = zone is not None
        lines = []
        for kind, address in addresses.items():
            there = address if zone is None else self._record(f"{name}-{kind.lower()}", kind, args, zone)
            lines.append(pulumi.Output.concat(f"{domain.host}. {TTL_SECONDS} IN {kind} ", there))
        self.records = pulumi.Output.all(*lines)
        self.register_outputs({"records": self.records})

    def _record(self, name: str, kind: str, args: DnsArgs, zone: pulumi.Output[str]) -> pulumi.Output[str]:
        domain, public = args["domain"], args["public"]
        address = public.ipv4 if kind == "A" or public.ipv6 is None else public.ipv6
        adopt = domain.adopt_record
        record = aws.route53.Record(
            name,
            zone_id=zone,
            name=domain.host,
            type=kind,
            ttl=TTL_SECONDS,
            records=[address],
            # One of somebody else's has been refused by the preflight, and would be by Route 53.
            allow_overwrite=adopt or public.own_records.apply(lambda own: kind in own),
            # It says how the record was made; that it is there now must not show as a change in the next run.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=None if adopt else ["allowOverwrite"]),
        )
        return pulumi.Output.all(address, record.fqdn).apply(lambda known: str(known[0]))


def dns_for(settings: Settings, machine: Machine) -> Dns | None:
    """The name's records, where the stack has a domain and the program has made the machine; else None."""
    if settings.domain is None or machine.public is None:
        return None
    return Dns(
        "dns",
        {"domain": settings.domain, "public": machine.public},
        pulumi.ResourceOptions(providers=[machine.public.provider]),
    )
