"""`scripts/down [stack] [--purge]`: removes everything a stack made; with --purge its weights and caches too."""

import argparse
import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import docker

from catalog.aws.owned import Recorded, Thing
from components.machine.cleared import FolderOrder
from components.machine.local_docker import local_docker_host
from scripts.commands.aws import AwsStack, region_of, what_stays
from scripts.commands.deployed import engine_of, recorded_of
from scripts.commands.docker_setup import ensure_docker
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Engine
from scripts.commands.errors import failure
from scripts.commands.places import DOCKER_SECONDS, Host, MachineAway, clear_here, host_of
from scripts.commands.progress import followed
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.run_log import LOGS, logged
from scripts.commands.stacks import DEFAULT_STACK, PROJECT, data_dir, set_in_stack_file, stack_settings
from scripts.commands.strays import StackAccount, account_of, refuse_others
from scripts.commands.terminal import Terminal
from settings import AwsMachine, Settings

STATE_FILES = ("rehearsal.json", "rehearsal.part", "rehearsal.lock", "known_hosts", "known_hosts.pinned",
               "known_hosts.old")  # fmt: skip
"""What a stack keeps on this computer, below .state/STACK, beside its data."""

GONE_SECONDS = 30
"""How long a machine may stay silent before it is taken for gone."""


def main(arguments: list[str]) -> int:
    """Status 0 when nothing of the stack is left but what was asked to stay."""
    parser = argparse.ArgumentParser(prog="scripts/down", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK)
    parser.add_argument("--purge", action="store_true", help="weights, caches and state too")
    parser.add_argument(
        "--machine-gone", action="store_true", help="do not ask the machine behind SSH: only forget the stack"
    )
    parser.add_argument("--verbose", action="store_true", help="show all that the engine and its resources say")
    options = parser.parse_args(arguments)
    terminal = Terminal(verbose=options.verbose)
    settings = stack_settings(options.stack)
    with logged(options.stack, "down", terminal):
        return take_down(options, settings, terminal)


def take_down(options: argparse.Namespace, settings: Settings, terminal: Terminal) -> int:
    """Removes the stack from wherever it is."""
    if isinstance(settings.machine, AwsMachine):
        return _down_at_aws(options.stack, settings, settings.machine, options.purge, terminal)
    host = host_of(options.stack, settings)
    if host is None:
        return _down_here(options.stack, settings, options.purge, terminal)
    try:
        if options.machine_gone:
            raise MachineAway("as you say, it is gone")
        with terminal.step(f"reaching {host.name}") as step:
            host.wait(step.say, GONE_SECONDS)
    except MachineAway as away:
        return _forget(options.stack, host, str(away), options.purge, terminal)
    return _down_there(options.stack, host, options.purge, terminal)


def _down_here(stack: str, settings: Settings, purge: bool, terminal: Terminal) -> int:
    ensure_docker(terminal)
    client = docker.DockerClient(base_url=local_docker_host(), timeout=DOCKER_SECONDS)
    data, by_place = data_dir(stack, settings), settings.machine.data_dir is None
    removed, engine, owner = _remove(stack, DockerState(client, stack, str(data), by_place=by_place), terminal)
    order: FolderOrder = {"data": str(data), "stack": stack, "owner": owner, "ours": by_place}
    clear_here(order, terminal.line, purge=purge)
    terminal.line(f"{removed} resources removed" if removed else f"nothing of {stack} was there")
    if purge:
        _forget_state(stack, engine)
    elif data.exists():
        terminal.line(f"kept: {data} (weights, caches, certificates); scripts/down {stack} --purge removes it")
    return 0


def _down_at_aws(stack: str, settings: Settings, machine: AwsMachine, purge: bool, terminal: Terminal) -> int:
    """The machine goes with everything on it, so it need not answer, nor even run."""
    if machine.protected:
        raise failure(
            f"{stack} is protected: its data volume, its address and its instance cannot be deleted",
            f"set seatable-vllm:machine.protected to false, run scripts/up {stack}, then this again",
        )
    engine = engine_of(stack)
    if engine is None:
        # Not "nothing was there": what nobody here can see goes on costing.
        raise failure(
            f"there is no Pulumi CLI here, and nothing else knows what {stack} has at AWS",
            "put pulumi on PATH (www.pulumi.com/docs/install), then run this again",
        )
    account, removed = account_of(stack, settings, region_of(stack)), 0
    before = recorded_of(stack)
    if isinstance(engine, PulumiEngine):
        removed = engine.settle(account, terminal.line, removing=True).removed
    with followed(terminal, f"removing {stack} and its machine ({engine.name})") as progress:
        removed += engine.down(progress)
    late, volumes = _end_what_came_late(account, before, terminal)
    removed += late
    terminal.line(f"{removed} resources removed" if removed else f"nothing of {stack} was there")
    if machine.placed:
        # It says where a machine is. A data volume that stays holds the next one in its zone by itself.
        set_in_stack_file(stack, ("machine", "placed"), None, PROJECT)
        terminal.line(f"seatable-vllm:machine.placed is taken out of Pulumi.{stack}.yaml: no machine is left")
    if removed and machine.data_disk.at_end != "delete":
        kept = "the data volume" if machine.data_disk.at_end == "retain" else "a snapshot of the data volume"
        terminal.line(f"kept at AWS, and paid for: {kept} (tag Stack={stack})")
        for line in what_stays(AwsStack(stack, machine, region_of(stack))):
            terminal.line(line)
    if purge:
        _forget_state(stack, engine)
    if volumes and machine.data_disk.at_end != "retain":
        raise failure(
            f"still on the bill, as it may hold data and was not in the state: {', '.join(map(str, volumes))}",
            "; ".join(
                f"aws ec2 --region {account.aws.region} delete-volume --volume-id {each.id}" for each in volumes
            ),
        )
    return 0


def _end_what_came_late(
    account: StackAccount, before: Recorded, terminal: Terminal
) -> tuple[int, Sequence[Thing]]:
    """Removes what a killed run's last calls have made since the first look.

    before: the state as it was, for its owner. How many things those were, and the data volumes that stay.
    CommandError where something else stays on the bill.
    """
    left = account.strays(Recorded(owner=before.owner), terminal.line, removing=True)
    account.end(left.mine, terminal.line)
    refuse_others(account.stack, left.others)
    for each in left.others:
        if not each.kind.costs:
            terminal.line(f"not touched, as another state or an older version made it: {each}")
    return len(left.mine), [each for each in left.others if each.kind.kept]


def _down_there(stack: str, host: Host, purge: bool, terminal: Terminal) -> int:
    with host.docker() as here:
        if here is None:
            raise failure(
                f"Docker on {host.name} does not answer",
                f"start it there, or, if the machine is of no use any more: scripts/down {stack} --machine-gone",
            )
        removed, engine, owner = _remove(stack, here, terminal)
    host.clear(owner, terminal.line, purge=purge)
    terminal.line(f"{removed} resources removed" if removed else f"nothing of {stack} was there")
    if purge:
        _forget_state(stack, engine)
    else:
        terminal.line(
            f"kept on {host.name}: {host.data} (weights, caches, certificates); "
            f"scripts/down {stack} --purge removes it"
        )
    return 0


def _forget(stack: str, host: Host, why: str, purge: bool, terminal: Terminal) -> int:
    """The end of a stack whose machine is gone: nothing can be removed there, so its record is dropped."""
    engine = engine_of(stack)
    known = engine.abandon() if engine else 0
    terminal.line(f"{why}\n\n{known} resources forgotten: nothing could be removed on {host.name}.")
    terminal.line(
        "If it is only switched off, the endpoint comes back with it, and its keys stay good: "
        f"start it, then run scripts/down {stack} once more. It removes by their labels what was left there."
    )
    if purge:
        _forget_state(stack, engine)
    return 0


def _remove(stack: str, here: DockerState, terminal: Terminal) -> tuple[int, Engine | None, str | None]:
    """Removes what the state knows, then what it does not; how much that was, who had the state, and its owner."""
    engine = engine_of(stack, here)
    owner = engine.known().owner if engine else None
    here = replace(here, owner=owner)
    removed = 0
    if engine is not None:
        with followed(terminal, f"removing {stack} ({engine.name})") as progress:
            removed = engine.down(progress)
    return removed + here.remove_unknown(set(), terminal.line), engine, owner


def _forget_state(stack: str, engine: Engine | None) -> None:
    if isinstance(engine, PulumiEngine):
        engine.forget()
    folder = PROJECT / ".state" / stack
    _require_writable(folder)
    for name in STATE_FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / LOGS, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or with something in it that no command has put there
        folder.rmdir()


def _require_writable(folder: Path) -> None:
    if folder.exists() and not os.access(folder, os.W_OK):
        raise failure(
            f"{folder} is not this user's to remove",
            "run this again as root, or as the user who ran scripts/up",
        )
