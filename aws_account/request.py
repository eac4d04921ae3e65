"""From a stack's settings to what is asked of its AWS account."""

from __future__ import annotations

from catalog.aws.account import Wanted, WantedDomain
from settings import AwsMachine, Domain, Settings


def request_of(
    settings: Settings, machine: AwsMachine, *, stack: str, region: str, profile: str | None = None
) -> Wanted:
    """What the stack wants of the account, as JSON can hold it. Settings hold no secret, so neither does it."""
    model = settings.model
    types = [machine.instance_type, *machine.instance_types]
    return Wanted(
        stack=stack,
        region=region,
        profile=profile,
        instance_types=list(dict.fromkeys(types)),
        instance_type=machine.instance_type,
        zones=[machine.placed.zone] if machine.placed else list(machine.zones),
        placed_only=_placed_only(machine),
        ami=machine.ami,
        subnet=machine.subnet,
        ipv6=machine.ipv6,
        admin_cidrs=list(machine.admin_cidrs),
        root_disk_gib=machine.root_disk_gib,
        root_disk_throughput=machine.root_disk_throughput,
        data_disk_gib=machine.data_disk.gib,
        data_disk_throughput=machine.data_disk.throughput,
        snapshot=machine.data_disk.snapshot,
        time_zone=machine.cost.time_zone,
        market=machine.market,
        reservation=machine.reservation,
        gpus=machine.gpus,
        clients={name: list(client.cidrs) for name, client in settings.clients.items()},
        domain=_domain(settings.domain),
        model={
            "name": model.name,
            "context_tokens": model.context_tokens,
            "extra_args": dict(model.extra_args),
        },
    )


def _placed_only(machine: AwsMachine) -> list[str]:
    placed = machine.placed
    if placed is None:
        return []
    lists = ((placed.instance_type, machine.instance_types), (placed.zone, machine.zones))
    return [name for name, listed in lists if name not in listed]


def _domain(domain: Domain | None) -> WantedDomain | None:
    if domain is None:
        return None
    return WantedDomain(
        host=domain.host, zone=domain.zone, zone_id=domain.zone_id, adopt_record=domain.adopt_record
    )
