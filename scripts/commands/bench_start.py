"""How fast a stack comes up, and what an `up` costs that changes nothing, each against what it cannot do without.

The physical floor of a start whose image and weights are on the machine is vLLM's own start: the same container,
stopped and started again, until the same completion comes.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import docker

from checks import gate
from checks.endpoint import completion_is_real, run
from components.machine.local_docker import local_docker_host
from scripts.commands.deployed import engine_of, outputs_of
from scripts.commands.engines import Say
from scripts.commands.errors import CommandError
from scripts.commands.places import host_of
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.stacks import PROJECT, stack_settings
from scripts.commands.target import client_target
from scripts.commands.terminal import Terminal

NO_OPS = 3
"""How often an `up` that changes nothing is timed, in turns with the CLI's own."""

STOP_SECONDS = 10
START_SECONDS = 1800
FIRST_TOKEN = "completion is real"  # noqa: S105 - what the last gate says of a completion
ANSWERS = "reaching "
"""Begin of the line that `up` ends with `: done` when a machine behind SSH has answered."""

AIM_START = 1.1
AIM_NO_OP = 2.0
AIM_CONNECTIONS = 6


@dataclass(frozen=True)
class Start:
    """Seconds, but for `connections`, the number of times that an `up` which changes nothing calls `ssh`.

    first_token: from the machine's answer, or on this computer from the begin of `up`, to the first completion.
    floor: from the start of vLLM's container to the same. no_op: a whole `up`. cli: `pulumi up` in its place; None
    in a rehearsal.
    """

    first_token: float
    floor: float
    no_op: float
    cli: float | None
    connections: int

    def as_json(self) -> dict[str, Any]:
        """For printing."""
        return {**asdict(self), "ratio": self.first_token / self.floor}

    def lines(self) -> list[str]:
        """For reading."""
        added = (
            "" if self.cli is None else f", the CLI's own {self.cli:.1f} s, added {self.no_op - self.cli:+.1f} s"
        )
        return [
            f"machine answers to first token: {self.first_token:.1f} s, vLLM's own start {self.floor:.1f} s,"
            f" ratio {self.first_token / self.floor:.2f}, aim <= {AIM_START}",
            f"up that changes nothing: {self.no_op:.1f} s{added}, aim added <= {AIM_NO_OP:.0f}",
            f"ssh called by it: {self.connections} times, aim <= {AIM_CONNECTIONS}",
        ]


def measure(stack: str, rehearse: bool, terminal: Terminal) -> Start:
    """Brings a stack up that is down, and leaves it up.

    rehearse: without the Pulumi CLI. CommandError where the stack is up, has a domain, or does not come up.
    """
    if stack_settings(stack).domain:
        raise CommandError(f"{stack} has a domain, and its start is measured without; take another stack")
    engine = engine_of(stack)
    if engine and engine.outputs():
        raise CommandError(
            f"{stack} is up, and its start is to be measured; scripts/down {stack} first. Image "
            "and weights stay, and its clients get new keys"
        )
    words = ["--rehearse"] if rehearse else []
    with terminal.step("from the machine's answer to the first token") as step:
        first_token = _up(stack, words, {}, step.say)
    with terminal.step("vLLM's own start") as step:
        floor = _own_start(stack, step.say)
    engine = engine_of(stack)
    pulumi = engine if isinstance(engine, PulumiEngine) else None
    no_op, cli = [], []
    with terminal.step("ups that change nothing") as step, tempfile.TemporaryDirectory() as folder:
        for _ in range(NO_OPS):
            begin = time.monotonic()
            _up(stack, words, _counting(Path(folder)), step.say)
            no_op.append(time.monotonic() - begin)
            if pulumi:
                cli.append(pulumi.plain_up_seconds())
        calls = Path(folder, "calls")
        connections = len(calls.read_text().split()) // NO_OPS if calls.exists() else 0
    return Start(first_token, floor, median(no_op), median(cli) if cli else None, connections)


def _up(stack: str, words: list[str], environment: Mapping[str, str], say: Say) -> float:
    """Runs `scripts/up`; seconds from the machine's answer to the first completion, 0 where none was asked for."""
    begin, token, told = time.monotonic(), 0.0, []
    command = [str(PROJECT / "scripts" / "up"), stack, *words]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the settings with their keys
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr or ():
            told.append(line)
            say(line.strip())
            if line.startswith(ANSWERS) and ": done" in line:
                begin = time.monotonic()
            if FIRST_TOKEN in line and not token:
                token = time.monotonic()
    if process.returncode != 0:
        raise CommandError("".join(told).strip())
    return token - begin if token else 0.0


def _own_start(stack: str, say: Say) -> float:
    """Stops vLLM and starts it again; seconds from there to the first completion."""
    settings = stack_settings(stack)
    target = client_target(settings, outputs_of(stack), settings.proving_client())
    engine, edge = (f"seatable-vllm-{stack}-{role}" for role in ("engine", "edge"))
    order = gate.Order(engine, edge, target, START_SECONDS)
    host = host_of(stack, settings)
    if host is None:
        container = docker.DockerClient(base_url=local_docker_host()).containers.get(engine)
        container.stop(timeout=STOP_SECONDS)
        begin = time.monotonic()
        gate.wait(order, say)  # starts it
        (verdict,) = run(target, (completion_is_real,))
        if not verdict.passed:
            raise CommandError(f"{verdict.name}: {verdict.detail}")
        return time.monotonic() - begin
    host.run(f"docker stop --time {STOP_SECONDS} {engine}", say)
    seen: list[float] = []

    def heard(line: str) -> None:
        say(line)
        if FIRST_TOKEN in line:
            seen.append(time.monotonic())

    begin = time.monotonic()
    host.prove(order, heard)
    return seen[0] - begin


def _counting(folder: Path) -> dict[str, str]:
    """An environment in which each call of `ssh` is written down in `folder`/calls, then made."""
    real = shutil.which("ssh")
    if real is None:
        return {}
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\necho 1 >> "{folder}/calls"\nexec {real} "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
