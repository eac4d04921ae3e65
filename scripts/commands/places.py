"""The machine of a stack as the commands reach it: this computer's Docker, or one behind SSH."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import requests

from checks import gate
from checks.bundle import gate_program
from components.machine.aws.access import require_key, ssh_of_instance
from components.machine.cleared import FolderOrder, clear_program
from components.machine.local_docker import local_docker_host
from components.machine.machine import BASH, PYTHON, Interpreter
from components.machine.reach import AWAY, BOOT_SECONDS, reach_program
from components.machine.remote_host import folder_of, whole
from components.machine.ssh import Ssh, prepare, refuse_docker_variables, ssh_of
from rehearsal.forward import forwarded, provider_command
from scripts.commands.deployed import place_of
from scripts.commands.docker_setup import ensure_docker
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Say
from scripts.commands.errors import CommandError, failure
from scripts.commands.stacks import PROJECT, data_dir
from scripts.commands.terminal import Terminal
from settings import AwsMachine, HostMachine, Settings

DOCKER_SECONDS = 120

MADE_SECONDS = 20
"""Patience for a machine that the program makes, before the program is run."""


class MachineAway(CommandError):  # noqa: N818 - reads as what happened
    """The machine does not answer at all: switched off, gone, or cut off from here."""


class NotMade(CommandError):  # noqa: N818 - reads as what happened
    """A machine that the program is to make is not there yet, or not any more."""


class Host:
    """A machine that SSH reaches."""

    def __init__(self, stack: str, way: Ssh, data: str) -> None:
        """way: how it is reached. data: its data directory."""
        self.name = str(way.target)
        self.data = data
        self._stack = stack
        self._ssh = way

    def wait(self, say: Say, patience: int = BOOT_SECONDS) -> None:
        """Returns when the machine lets us in. CommandError says why not, MachineAway if nothing answers."""
        program = reach_program(self._ssh, self._stack, patience)
        status, lines = _run(["bash", "-s"], program, say)
        if status != 0:
            kind = MachineAway if status == AWAY else CommandError
            raise kind("\n".join(line for line in lines if not line.startswith("waiting for ")))

    def forget_host_key(self) -> None:
        """Takes the key that this machine had so far out of the stack's known_hosts."""
        path = PROJECT / self._ssh.known_hosts
        if path.exists():
            kept = [line for line in path.read_text().splitlines(keepends=True) if not self._is_ours(line)]
            path.write_text("".join(kept))

    @contextlib.contextmanager
    def docker(self) -> Iterator[DockerState | None]:
        """What is on the machine's Docker; None where it does not answer, which the program's gate explains.

        CommandError where it was reached and then no more, such as when the connection is cut.
        """
        with self.forwarded() as (url, _):
            try:
                client = docker.DockerClient(base_url=url, timeout=DOCKER_SECONDS)
                client.ping()
            except (docker.errors.DockerException, requests.RequestException):
                yield None
                return
            try:
                yield DockerState(client, self._stack, self.data)
            except (docker.errors.DockerException, requests.RequestException) as error:
                raise failure(
                    f"Docker on {self.name} was reached, and now: {error}",
                    "see that the machine and the way to it hold, then run this again: it goes on from here",
                ) from None

    def forwarded(self, port: int | None = None) -> contextlib.AbstractContextManager[tuple[str, int | None]]:
        """The machine's Docker, and a port of its loopback address, brought here. See rehearsal.forward."""
        provider = {"host": self._ssh.docker_host, "sshOpts": self._ssh.options()}
        return forwarded(provider_command(provider), port)

    def run(self, program: str, say: Say) -> None:
        """Runs a bash program there; CommandError with what it printed when it fails."""
        self._run(BASH, whole(program), say)

    def clear(self, owner: str | None, say: Say, *, purge: bool) -> None:
        """Runs there what `clear_program` makes. owner: the stack's, None where no state has it."""
        self._run(PYTHON, clear_program(folder_of(self.data, self._stack, owner), purge=purge), say)

    def _run(self, interpreter: Interpreter, program: str, say: Say) -> None:
        status, lines = _run(["sh", "-c", self._ssh.command(interpreter)], program, say)
        if status != 0:
            raise CommandError("\n".join(lines))

    def ask(self, program: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Runs a Python program there that prints what it sees; whatever comes of it. seconds: patience."""
        return subprocess.run(
            ["sh", "-c", f"exec {self._ssh.command(PYTHON)}"],  # so that the patience ends ssh, and not a shell
            cwd=PROJECT,
            input=program,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def prove(self, order: gate.Order, say: Say) -> None:
        """Runs the last gate there; CommandError with its own words when the endpoint does not work."""
        self._run(PYTHON, gate_program(json.dumps(dataclasses.asdict(order))), say)

    def _is_ours(self, line: str) -> bool:
        # A hashed name can be anybody's, and only a file that others had their hands in has one.
        return line.split(" ", 1)[0] == self._ssh.alias or line.startswith("|1|")


def host_of(stack: str, settings: Settings) -> Host | None:
    """The stack's machine where SSH leads to it; None for this computer.

    NotMade where the program has yet to make it.
    """
    machine = settings.machine
    if isinstance(machine, HostMachine):
        refuse_docker_variables()
        way = ssh_of(machine, stack)
        prepare(machine, way, PROJECT)
        return Host(stack, way, machine.data_dir)
    if isinstance(machine, AwsMachine):
        refuse_docker_variables(kind="aws")
        require_key(machine)
        place = place_of(stack)
        if place is None:
            raise NotMade(
                f"cause: {stack} has no machine yet that could be reached\nchange: run scripts/up {stack}"
            )
        return Host(stack, ssh_of_instance(machine, stack, place), machine.data_dir)
    return None


@contextlib.contextmanager
def reached(
    stack: str, settings: Settings, host: Host | None, terminal: Terminal, patience: int = BOOT_SECONDS
) -> Iterator[DockerState | None]:
    """The stack's machine, waited for or set up, and what is on its Docker.

    patience: seconds for a machine behind SSH that does not answer. One that the program makes is not waited for:
    it may be about to be made, or to be made anew.
    """
    made = isinstance(settings.machine, AwsMachine)
    if made and host is None:
        yield None
        return
    if host is None:
        ensure_docker(terminal)
        client = docker.DockerClient(base_url=local_docker_host(), timeout=DOCKER_SECONDS)
        by_place = settings.machine.data_dir is None
        yield DockerState(client, stack, str(data_dir(stack, settings)), by_place=by_place)
        return
    with terminal.step(f"reaching {host.name}") as step:
        try:
            host.wait(step.say, MADE_SECONDS if made else patience)
            away = False
        except MachineAway:
            if not made:
                raise
            away = True
            step.say("it does not answer; the program looks after it")
    if away:
        yield None
        return
    with host.docker() as state:
        yield state


def clear_here(order: FolderOrder, say: Say, *, purge: bool) -> None:
    """Runs on this computer what `clear_program` makes; CommandError with its own words when it fails."""
    status, lines = _run([sys.executable, "-"], clear_program(order, purge=purge), say)
    if status != 0:
        raise CommandError("\n".join(lines))


def _run(command: list[str], program: str, say: Say) -> tuple[int, list[str]]:
    """Runs a command with a program on its input; its status, and the lines it printed, as `say` had them."""
    process = subprocess.Popen(
        command,
        cwd=Path(PROJECT),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both were asked for
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(program)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        say(lines[-1])
    return process.wait(), lines
