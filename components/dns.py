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
            there = address if zone is None else self._record(name, kind, domain.host, zone, address)
            lines.append(pulumi.Output.concat(f"{domain.host}. {TTL_SECONDS} IN {kind} ", there))
        self.records = pulumi.Output.all(*lines)
        self.register_outputs({"records": self.records})

    def _record(
        self, name: str, kind: str, host: str, zone: pulumi.Output[str], address: pulumi.Output[str]
    ) -> pulumi.Output[str]:
        record = aws.route53.Record(
            f"{name}-{kind.lower()}",
            zone_id=zone,
            name=host,
            type=kind,
            ttl=TTL_SECONDS,
            records=[address],
            opts=pulumi.ResourceOptions(parent=self),
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
