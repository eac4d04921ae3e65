"""What `scripts/doctor` asks an AWS account before it asks a machine there."""

from collections.abc import Iterator

from catalog.aws.machine import MachineWanted, look_at
from catalog.failures import explain
from checks.diagnosis import Finding, Problem, explained
from scripts.commands.aws import Aws, region_of
from scripts.commands.deployed import place_of, recorded_of
from scripts.commands.errors import CommandError
from scripts.commands.strays import account_of, refuse_others
from settings import AwsMachine, Settings
from settings.stack import SSH_PORT


def look_at_account(stack: str, settings: Settings) -> Iterator[tuple[Finding, bool]]:
    """What the account says of the stack's machine, each with whether the machine cannot be reached for it.

    Nothing for a machine that is not on AWS. An account that cannot be asked is not a problem of the stack:
    a line reports it, and the machine is asked all the same.
    """
    if not isinstance(settings.machine, AwsMachine):
        return
    # boto3 takes a third of a second to load, which no other stack is to wait for.
    from aws_account.machine import read_machine  # noqa: PLC0415
    from aws_account.session import AccountError  # noqa: PLC0415

    try:
        aws = region_of(stack)
        facts = read_machine(stack, aws.region, aws.profile)
    except (AccountError, CommandError) as error:
        told = str(error).replace("cause: ", "").replace("\nchange: ", "; to have it asked: ")
        yield Finding("AWS account", f"could not be asked: {told}", skipped=True), False
        return
    yield _unlisted(stack, settings, aws), False
    for look in look_at(_wanted(stack, settings, settings.machine, aws.region), facts):
        problem = Problem(look.problem.cause, look.problem.change) if look.problem else None
        yield Finding(f"AWS {look.name}", look.detail, problem), problem is not None and look.lost


def _unlisted(stack: str, settings: Settings, aws: Aws) -> Finding:
    """Whether the account has something of the stack that its state does not list."""
    name, said = "AWS bill", list[str]()
    try:
        recorded = recorded_of(stack)
        found = account_of(stack, settings, aws).strays(recorded, said.append, removing=True)
    except CommandError as error:
        return Finding(name, f"not looked at: {str(error).splitlines()[0]}", skipped=True)
    if found.mine or recorded.pending:
        left = ", ".join(map(str, found.mine)) or f"{recorded.pending} steps in the state"
        change = f"scripts/up {stack} removes that and goes on; scripts/down {stack} removes it and the stack"
        return Finding(
            name,
            "what an interrupted run left",
            Problem(f"a run that was interrupted, or is under way, has left: {left}", change),
        )
    try:
        refuse_others(stack, found.others)
    except CommandError as error:
        return Finding(name, "more than the state lists", explained(str(error), str(error), ""))
    return Finding(name, "has nothing of the stack that its state does not list")


def _wanted(stack: str, settings: Settings, machine: AwsMachine, region: str) -> MachineWanted:
    cost, doors = machine.cost, dict[int, list[str]]()
    if settings.domain:
        doors[settings.ports.edge] = [cidr for client in settings.clients.values() for cidr in client.cidrs]
    if machine.access == "ssh":
        doors[SSH_PORT] = list(machine.admin_cidrs)
    return MachineWanted(
        stack=stack,
        region=region,
        address=_address(stack),
        doors=doors,
        stop_at=cost.stop_at,
        time_zone=cost.time_zone,
        idle_stop_minutes=cost.idle_stop_minutes,
        live_hours=cost.live_hours,
    )


def _address(stack: str) -> str | None:
    """The machine's address as the stack's state has it; None where none can be read, which is said elsewhere."""
    try:
        place = place_of(stack)
    except Exception:  # noqa: BLE001 - backends are many, and each has errors of its own
        return None
    return place["address"] if place else None


def on_aws(told: str, problem: Problem, machine: AwsMachine) -> Problem:
    """Why SSH fails, for a machine of which the account has nothing bad to say: no setting names its address."""
    found = explain(told)
    if found is None:
        return problem
    if found.failure.name == "ssh-denied":
        change = (
            "the machine knows the key that it was made with: name it in seatable-vllm:machine.ssh_key (now "
            f"{machine.ssh_key}), or add this one to ~/.ssh/authorized_keys there"
        )
        return Problem(problem.cause, change, problem.seen)
    if found.failure.name not in ("ssh-timeout", "ssh-refused"):
        return problem
    if machine.access == "ssm":
        change = "see in Systems Manager (Fleet Manager) that its agent is online; else reboot it in EC2"
        return Problem("Session Manager does not reach the machine", change, problem.seen)
    change = (
        "see that seatable-vllm:machine.admin_cidrs has the address that this computer has now "
        f"({', '.join(machine.admin_cidrs)}), then scripts/up; if it has, reboot the machine in EC2"
    )
    return Problem("the machine does not answer SSH from here", change, problem.seen)
