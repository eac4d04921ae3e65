"""`scripts/doctor [stack]`: what is wrong with a stack, at any time, and what to change.

Looks at settings, machine, containers and their logs, edge, ports and disk, then asks the endpoint as a client
does. It changes nothing. Status 0 when all is well.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from checks.bundle import MIN_PYTHON_TEXT, facts_program
from checks.diagnosis import (
    LOOPBACK,
    Expected,
    Finding,
    Problem,
    changed_since_up,
    client_finding,
    explained,
    findings,
    not_looked_at,
)
from checks.endpoint import run
from components.machine.local_docker import local_docker_host
from components.machine.machine import DATA_LABEL
from rehearsal.errors import RehearsalError
from scripts.commands.aws_account import look_at_account, on_aws
from scripts.commands.check import reaching
from scripts.commands.deployed import outputs_of
from scripts.commands.errors import CommandError
from scripts.commands.failure_text import last_lines
from scripts.commands.places import host_of
from scripts.commands.stacks import DEFAULT_STACK, PROJECT, data_dir, stack_settings
from scripts.commands.target import client_target
from settings import AwsMachine, Settings, SettingsError

ROLES = ("engine", "edge")
MACHINE_SECONDS = 300
NEEDS_A_WAY = "mend the way to the machine (seatable-vllm:machine), or ask from where a client is"
NEEDS = f"see that python3 ({MIN_PYTHON_TEXT} or newer) runs there"


def main(arguments: list[str]) -> int:
    """Status 0 when all is well."""
    parser = argparse.ArgumentParser(prog="scripts/doctor", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK)
    stack = parser.parse_args(arguments).stack
    console = Console(highlight=False, soft_wrap=True)
    secrets: list[str] = []

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    problems: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for finding in examine(stack, secrets):
        word, style = ("problem", "bold red") if finding.problem else ("ok", "green")
        if finding.skipped:
            word, style = "skipped", "yellow"
        line = f"{finding.name}: {clean(finding.detail)}"
        console.print(Text.assemble((f"{word:<8}", style), line))
        if finding.problem:
            told = finding.problem
            # One cause is reported once, with all that shows it, and what the first of them had to show.
            names = problems.setdefault((told.cause, told.change), (clean(str(told)), []))[1]
            names.append(finding.name)
    for problem, names in problems.values():
        console.print(Text(f"\nproblem: {', '.join(names)}\n{problem}"))
    return 1 if problems else 0


def examine(stack: str, secrets: list[str]) -> Iterator[Finding]:
    """Everything there is to say of a stack. secrets: filled with the keys that must not be printed."""
    try:
        settings = stack_settings(stack)
    except SettingsError as error:
        yield Finding("settings", "cannot be used", Problem(str(error), f"correct Pulumi.{stack}.yaml as it says"))
        return
    except RehearsalError as error:
        yield Finding("settings", "cannot be read", Problem(str(error), "name a stack that has a readable file"))
        return
    yield Finding("settings", "valid")
    outputs, deployed = _deployed(stack)
    secrets += [client["key"] for client in outputs.get("clients", {}).values()]
    # That no `up` came to its end is a consequence, and reported as one where the machine shows of what.
    if not deployed.skipped:
        yield deployed
    if outputs:
        yield changed_since_up(stack, _as_outputs(settings), outputs)
    lost = ""
    for finding, loses in look_at_account(stack, settings):
        yield finding
        lost = lost or (f"of the {finding.name}" if loses else "")
    if lost:
        yield not_looked_at("machine, containers and edge", lost)
    else:
        unmade = "the last up ended before it" if deployed.broken else ""
        for finding in _machine(stack, settings, str(outputs.get("endpoint", "http://")), unmade):
            yield finding
            lost = lost or (f"of {finding.name}" if finding.broken else "")
    if deployed.skipped:
        yield not_looked_at(deployed.name, lost) if lost else _never_up(stack, deployed)
    if outputs and lost:
        yield not_looked_at("client's side", lost)
    elif outputs:
        yield from _client_side(stack, settings, outputs)


def _deployed(stack: str) -> tuple[dict[str, Any], Finding]:
    """The stack's outputs, or none and why: a problem where the last run says what it was, else skipped as yet."""
    try:
        outputs = dict(outputs_of(stack))
    except (CommandError, RehearsalError) as error:
        if own := last_failure(stack):
            return {}, Finding("deployed", "the last up failed", own)
        return {}, Finding("deployed", str(error), skipped=True)
    except Exception as error:  # noqa: BLE001 - backends are many, and each has errors of its own
        told = (str(error) or type(error).__name__)[:300]
        change = "correct what it names: a login to Pulumi's backend (pulumi login), or PULUMI_CONFIG_PASSPHRASE"
        problem = Problem("the stack's state cannot be read", change, told)
        return {}, Finding("deployed", "not known", problem, cuts=False)
    return outputs, Finding("deployed", f"{outputs['endpoint']}, {outputs['model']}")


def _never_up(stack: str, deployed: Finding) -> Finding:
    problem = Problem("no up of this stack ended well", f"scripts/up {stack}", deployed.detail[:300])
    return Finding(deployed.name, "no complete up", problem)


def last_failure(stack: str) -> Problem | None:
    """Why the last run of this stack failed, by its log; None where there is none, or it does not say."""
    logs = sorted((PROJECT / ".state" / stack / "logs").glob("*"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return None
    own: dict[str, str] = {}
    for line in last_lines(logs[-1].read_text(errors="replace")).splitlines():
        word, _, rest = line.partition(": ")
        own.setdefault(word, rest)
    return Problem(own["cause"], own["change"], own.get("seen", "")) if {"cause", "change"} <= own.keys() else None


def _as_outputs(settings: Settings) -> dict[str, Any]:
    """What the outputs would be by the stack's file, as far as that can be known without the program."""
    return {
        "model": settings.model.name,
        "max_model_len": settings.model.context_tokens,
        "tool_parser": settings.model.parser or "none",
        "allowed": {name: list(client.cidrs) for name, client in settings.clients.items()},
    }


def _machine(stack: str, settings: Settings, endpoint: str, unmade: str = "") -> Iterator[Finding]:
    """What one program on the machine reports of the stack. unmade: see Expected."""
    ports, loopback = settings.ports, settings.ports.loopback
    expected = Expected(
        stack=stack,
        containers={role: f"seatable-vllm-{stack}-{role}" for role in ROLES},
        ports={"engine": ports.engine, "edge": ports.edge} | ({LOOPBACK: loopback} if loopback else {}),
        data_dir=str(data_dir(stack, settings)),
        data_label=DATA_LABEL,
        model=settings.model.name,
        unmade=unmade,
    )
    order = {
        "containers": expected.containers,
        "ports": expected.ports,
        "data_dir": expected.data_dir,
        "model": expected.model,
        # No door is there: the edge itself answers at once, however busy the engine is.
        "edge_url": f"{endpoint.partition('://')[0]}://127.0.0.1:{ports.edge}/",
        "loopback_url": f"http://127.0.0.1:{loopback}/" if loopback else None,
    }
    try:
        done = run_on_machine(stack, settings, facts_program(json.dumps(order)))
    except (SettingsError, CommandError) as error:
        yield Finding("machine", "is not reached", explained(str(error), str(error), "correct that"))
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("machine", "is not reached", explained(str(error), str(error), NEEDS))
        return
    try:
        facts = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        told = done.stderr or done.stdout
        problem = explained(told, "the machine does not run our program", NEEDS)
        if isinstance(settings.machine, AwsMachine):
            problem = on_aws(told, problem, settings.machine)
        yield Finding("machine", "is not reached", problem)
        return
    yield from findings(expected, facts)


def run_on_machine(stack: str, settings: Settings, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python program on the stack's machine; for `local` that is this computer, with its own Docker."""
    if host := host_of(stack, settings):
        return host.ask(program, MACHINE_SECONDS)
    environment = {**os.environ, "DOCKER_HOST": local_docker_host()}
    environment.pop("DOCKER_CONTEXT", None)
    return subprocess.run(
        ["python3", "-"],
        input=program,
        capture_output=True,
        text=True,
        env=environment,
        timeout=MACHINE_SECONDS,
        check=False,
    )


def _client_side(stack: str, settings: Settings, outputs: dict[str, Any]) -> Iterator[Finding]:
    """The acceptance checks from here."""
    client = settings.proving_client()
    try:
        target = client_target(settings, outputs, client)
    except CommandError:
        return  # a client that is not deployed yet, which was said already
    try:
        with reaching(stack, settings, target) as within_reach:
            for verdict in run(within_reach):
                yield client_finding(f"seatable-vllm-{stack}-engine", verdict)
    except (CommandError, RehearsalError) as error:
        yield Finding("client's side", "is not reached", explained(str(error), str(error), NEEDS_A_WAY))
