"""Why a machine on AWS is not reached: what its account says of it, judged against what the stack wants."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from catalog.aws.account import Answered, Shape, Unanswered, items, known
from catalog.aws.rules.finding import Problem

SCHEDULE_SECONDS = 3600
"""How late the daily stop may come (components/machine/aws/cost.py)."""

ALIVE = ("pending", "running", "stopping", "stopped")


class MachineWanted(TypedDict):
    """What the stack's file and its state say of the machine."""

    stack: str
    """The stack's name."""
    region: str
    """aws:region."""
    address: str | None
    """The address that the stack's state has; None: not known."""
    doors: Mapping[int, Sequence[str]]
    """By TCP port: the networks that are to reach it."""
    stop_at: str | None
    """machine.cost.stop_at."""
    time_zone: str
    """machine.cost.time_zone."""
    idle_stop_minutes: int | None
    """machine.cost.idle_stop_minutes."""
    live_hours: int | None
    """machine.cost.live_hours."""


@dataclass(frozen=True)
class MachineFacts:
    """What the account says of the stack's machine, in EC2's shapes.

    account: its number. instances: DescribeInstances, in any state. statuses: DescribeInstanceStatus. addresses:
    DescribeAddresses. groups: DescribeSecurityGroups. All by the stack's tags.
    """

    account: str
    instances: Answered = None
    statuses: Answered = None
    addresses: Answered = None
    groups: Answered = None


@dataclass(frozen=True)
class Look:
    """One thing that the account was asked. lost: whether the machine cannot be reached for this problem."""

    name: str
    detail: str
    problem: Problem | None = None
    lost: bool = True


def look_at(wanted: MachineWanted, facts: MachineFacts) -> Iterator[Look]:
    """What there is to say; where the machine does not run, nothing of what hangs on that."""
    if isinstance(facts.instances, Unanswered):
        yield Look("instance", f"not known: {facts.instances.call} {facts.instances.why}")
        return
    instance = newest(facts)
    if instance is None:
        yield Look("instance", "is not there", _absent(wanted, facts))
        return
    detail = f"{instance['InstanceId']} is {_state(instance)}"
    if _state(instance) != "running":
        yield Look("instance", detail, _not_running(wanted, instance))
        return
    yield Look("instance", detail)
    yield _status(wanted, facts, instance)
    yield _address(wanted, facts, instance)
    yield from _firewall(wanted, facts, instance)


def newest(facts: MachineFacts) -> Shape | None:
    """The stack's instance: one that can serve again before one that is gone, the younger before the older."""
    return max(
        items(facts.instances), key=lambda each: (_state(each) in ALIVE, each.get("LaunchTime", 0)), default=None
    )


def _state(instance: Shape) -> str:
    return str(instance.get("State", {}).get("Name"))


def _absent(wanted: MachineWanted, facts: MachineFacts) -> Problem:
    return Problem(
        f"the account {facts.account} has no instance of the stack {wanted['stack']} in {wanted['region']}: it "
        "was terminated a while ago, was never made, or is in another account or region",
        f"scripts/up {wanted['stack']} makes it, with the stack's data, address and name; for another account set "
        "aws:profile, for another region aws:region, in the stack's file",
    )


def _not_running(wanted: MachineWanted, instance: Shape) -> Problem:
    name, state, up = instance["InstanceId"], _state(instance), f"scripts/up {wanted['stack']}"
    if state == "pending":
        return Problem(f"{name} is starting", "wait a minute, then run this again")
    if state in ("shutting-down", "terminated"):
        return Problem(
            f"{name} was terminated: {_reason(instance)}",
            f"{up} makes another, with the stack's data, address and name",
        )
    cause, more = _who_stopped(wanted, instance)
    return Problem(f"{name} is {state}: {cause}", f"{up} starts it" + (f"; {more}" if more else ""))


def _who_stopped(wanted: MachineWanted, instance: Shape) -> tuple[str, str]:
    """Who or what has stopped an instance, as far as EC2 says, and what else can be done than start it."""
    code = str(instance.get("StateReason", {}).get("Code", ""))
    if code == "Client.InstanceInitiatedShutdown":
        guards = {"idle_stop_minutes": wanted["idle_stop_minutes"], "live_hours": wanted["live_hours"]}
        if asked := {name: value for name, value in guards.items() if value}:
            named = " or ".join(f"seatable-vllm:machine.cost.{name} {value}" for name, value in asked.items())
            return (
                f"it has stopped itself, by {named} (or somebody shut it down from within)",
                f"raise or remove {' and '.join(asked)} where that was too soon",
            )
        return "it was shut down from within (poweroff), by somebody who was logged in", ""
    if code == "Client.UserInitiatedShutdown" or not code:
        return _through_ec2(wanted, _moment(instance))
    if code.startswith("Server.Spot"):
        return (
            f"AWS has taken the spot machine back ({code})",
            "or AWS does so by itself when there is room; seatable-vllm:machine.market on-demand has no such "
            "stops",
        )
    if code == "Server.ScheduledStop":
        return "AWS has retired the hardware that it ran on", "it then runs on other hardware"
    return f"AWS stopped it: {_reason(instance)}", ""


def _through_ec2(wanted: MachineWanted, moment: datetime | None) -> tuple[str, str]:
    """The schedule of the stack, by the time of day, or somebody else."""
    when = f" at {moment:%Y-%m-%d %H:%M} UTC" if moment else ""
    if moment and _is_the_schedules(wanted, moment):
        return (
            f"the daily stop, seatable-vllm:machine.cost.stop_at {wanted['stop_at']} {wanted['time_zone']}, "
            f"stopped it{when}",
            "change or remove stop_at where that was wrong",
        )
    return (
        f"a person or a program outside this stack stopped it{when}, through EC2",
        "who it was is in CloudTrail's event history (event name StopInstances)",
    )


def _reason(instance: Shape) -> str:
    told = instance.get("StateReason", {}).get("Message") or instance.get("StateTransitionReason")
    return str(told or "AWS gives no reason")


def _moment(instance: Shape) -> datetime | None:
    """When it was stopped, by `User initiated (2026-11-30 19:00:11 GMT)`."""
    text = str(instance.get("StateTransitionReason", "")).partition("(")[2].partition(" GMT")[0]
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)  # noqa: UP017 - as its kin
    except ValueError:
        return None


def _is_the_schedules(wanted: MachineWanted, moment: datetime) -> bool:
    if wanted["stop_at"] is None:
        return False
    try:
        there = moment.astimezone(ZoneInfo(wanted["time_zone"]))
    except (ZoneInfoNotFoundError, ValueError):
        return False
    hour, minute = map(int, wanted["stop_at"].split(":"))
    since = there - there.replace(hour=hour, minute=minute, second=0)
    return since % timedelta(days=1) <= timedelta(seconds=SCHEDULE_SECONDS)


def _status(wanted: MachineWanted, facts: MachineFacts, instance: Shape) -> Look:
    name, region = instance["InstanceId"], wanted["region"]
    if not known(facts.statuses):
        return Look("status checks", "not known")
    told: Any = next((each for each in items(facts.statuses) if each.get("InstanceId") == name), {})
    system, own, disks = (
        str(told.get(key, {}).get("Status", "ok"))
        for key in ("SystemStatus", "InstanceStatus", "AttachedEbsStatus")
    )
    command = f"aws ec2 {{}}-instances --region {region} --instance-ids {name}"
    if "impaired" in (system, disks):
        what = "the hardware or network that it runs on" if system == "impaired" else "the way to its disks"
        return Look(
            "status checks",
            "impaired",
            Problem(
                f"AWS reports {what} as impaired",
                f"move {name} to other hardware: {command.format('stop')}, then scripts/up {wanted['stack']}",
            ),
        )
    if own == "impaired":
        return Look(
            "status checks",
            "impaired",
            Problem(
                f"{name} runs, and its system does not answer AWS's own check: it hangs, or has not booted",
                f"reboot it: {command.format('reboot')}; what it printed: aws ec2 get-console-output --region "
                f"{region} --latest --output text --instance-id {name}",
            ),
        )
    if "initializing" in (system, own):
        return Look("status checks", "AWS is still checking: the machine has just started")
    return Look("status checks", "passed")


def _address(wanted: MachineWanted, facts: MachineFacts, instance: Shape) -> Look:
    name, region, before = instance["InstanceId"], wanted["region"], wanted["address"]
    if not known(facts.addresses):
        return Look("address", "not known")
    mine = items(facts.addresses)
    here = next((each for each in mine if each.get("InstanceId") == name), None)
    if here is None:
        now = str(instance.get("PublicIpAddress") or "none")
        if not mine:
            problem = Problem(
                f"the address {before or 'of the stack'} is no longer in the account: it was released, and the "
                f"machine has {now}",
                f"pulumi refresh --stack {wanted['stack']}, then scripts/up {wanted['stack']}, which makes "
                "another; clients' firewalls and DNS records that name the old one have to change",
            )
        else:
            problem = Problem(
                f"the stack's address {mine[0].get('PublicIp')} is not at {name}, which has {now}",
                f"bring it back: aws ec2 associate-address --region {region} --instance-id {name} --allocation-id "
                f"{mine[0].get('AllocationId')}",
            )
        return Look("address", f"moved: {now}", problem)
    address = str(here.get("PublicIp"))
    if before and before != address:
        problem = Problem(
            f"the machine's address is {address}, and the stack was deployed with {before}",
            f"pulumi refresh --stack {wanted['stack']}, then scripts/up {wanted['stack']}",
        )
        return Look("address", f"moved: {address}", problem)
    return Look("address", address)


def _firewall(wanted: MachineWanted, facts: MachineFacts, instance: Shape) -> Iterator[Look]:
    name, label = instance["InstanceId"], "security group"
    if not known(facts.groups):
        yield Look(label, "not known")
        return
    mine = {str(each["GroupId"]) for each in items(facts.groups)}
    has = {str(each["GroupId"]) for each in instance.get("SecurityGroups", [])}
    if mine and not mine & has:
        group = sorted(mine)[0]
        problem = Problem(
            f"{name} is not in the stack's security group {group}, but in {', '.join(sorted(has)) or 'none'}",
            f"put it back: aws ec2 modify-instance-attribute --region {wanted['region']} --instance-id {name} "
            f"--groups {group}",
        )
        yield Look(label, "another", problem)
        return
    let_in = _let_in([each for each in items(facts.groups) if each["GroupId"] in has])
    asked = {(port, str(ipaddress.ip_network(cidr))) for port, cidrs in wanted["doors"].items() for cidr in cidrs}
    found = {pair for pair in let_in if isinstance(pair[0], int)}
    wide = {cidr for port, cidr in let_in if port is None}
    missing = sorted(pair for pair in asked - found if not _covered(pair, let_in))
    more = sorted(
        (str(port or "all ports"), cidr) for port, cidr in (found | {(None, each) for each in wide}) - asked
    )
    up = f"scripts/up {wanted['stack']}"
    if missing:
        problem = Problem(
            f"the security group {', '.join(sorted(has & mine))} does not let in {_words(missing)}, which the "
            "stack's file names",
            f"{up}, if the file was changed; if a rule was removed by hand, first pulumi refresh --stack "
            f"{wanted['stack']}",
        )
        yield Look(label, "changed", problem)
    if more:
        problem = Problem(
            f"the security group lets in {_words(more)}, which the stack's file does not name",
            f"remove that rule in EC2; if you have just taken it out of the file, {up} does so",
        )
        yield Look(label, "lets in more than the settings", problem, lost=False)
    if not missing and not more:
        yield Look(label, "as the settings say")


def _let_in(groups: Sequence[Shape]) -> set[tuple[int | None, str]]:
    """(port, network) of everything that comes in by TCP; None: a range of ports, or all."""
    found: set[tuple[int | None, str]] = set()
    for group in groups:
        for rule in group.get("IpPermissions", []):
            if str(rule.get("IpProtocol")) not in ("tcp", "6", "-1"):
                continue
            one = rule.get("FromPort") == rule.get("ToPort") and rule.get("FromPort", -1) != -1
            port = int(rule["FromPort"]) if one else None
            found |= {(port, str(each["CidrIp"])) for each in rule.get("IpRanges", [])}
            found |= {(port, str(each["CidrIpv6"])) for each in rule.get("Ipv6Ranges", [])}
    return found


def _covered(pair: tuple[int, str], let_in: set[tuple[int | None, str]]) -> bool:
    """Whether a wider rule lets the network in to that port."""
    wanted = ipaddress.ip_network(pair[1])
    for port, cidr in let_in:
        network = ipaddress.ip_network(cidr)
        if port in (None, pair[0]) and network.version == wanted.version and wanted.subnet_of(network):  # type: ignore[arg-type]
            return True
    return False


def _words(pairs: Sequence[tuple[Any, str]]) -> str:
    return ", ".join(f"{cidr} to {'' if port == 'all ports' else 'port '}{port}" for port, cidr in pairs)
