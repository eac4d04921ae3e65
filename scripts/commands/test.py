"""`scripts/test [TIER ...]`: the tests, with everything they need set up first.

Tiers: lint (ruff, mypy), unit (Python alone), live (real Docker, vLLM and HAProxy), engine (the real Pulumi CLI,
skipped with its reason where there is none). All of them unless some are named.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO

from scripts.commands.docker_setup import ensure_docker
from scripts.commands.errors import CommandError
from scripts.commands.stacks import DEFAULT_STACK, PROJECT, stack_settings
from scripts.commands.terminal import Terminal
from scripts.commands.up import obtain_what_cannot_be_pulled

TIERS = ("lint", "unit", "live", "engine")
NEED_DOCKER = ("live", "engine")

UNIT_APART = (
    "tests/unit/test_aws_account.py",
    "tests/unit/test_aws_program.py",
    "tests/unit/test_aws_schema.py",
    "tests/unit/test_capacity.py",
    "tests/unit/test_certificates.py",
)
"""Unit tests that take as long as all others together."""

Command = tuple[str, ...]


def _halves(folder: str, apart: Sequence[str]) -> Sequence[Command]:
    """A folder's tests as two commands: the named files, and all others."""
    return ("pytest", folder, *(f"--ignore={path}" for path in apart)), ("pytest", *apart)


COMMANDS: Mapping[str, Sequence[Sequence[Command]]] = {
    "lint": ([("ruff", "check", ".")], [("ruff", "format", "--check", ".")], [("mypy",)]),
    "unit": (_halves("tests/unit", UNIT_APART),),
    # Two engines that compute side by side on two cores would make each other's tests fail now and then: what is
    # marked `beside` mostly waits, and its containers get what the others leave (tests/live/conftest.py).
    "live": ([("pytest", "tests/live", "-m", "not beside"), ("pytest", "tests/live", "-m", "beside")],),
    "engine": ([("pytest", "tests/engine")],),
}
"""What each tier runs, one after another. What stands in one list runs at the same time; the first goes first."""


def main(arguments: list[str]) -> int:
    """Status 0 when everything that ran has passed."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=f"any of {', '.join(TIERS)}")
    options = parser.parse_args(arguments)
    unknown = [tier for tier in options.tiers if tier not in TIERS]
    if unknown:
        raise CommandError(f"there is no tier {unknown[0]!r}; tiers: {', '.join(TIERS)}")
    terminal = Terminal()
    wanted = options.tiers or list(TIERS)
    failed = [tier for tier in wanted if not _passes(tier, terminal)]
    terminal.line(f"\nfailed: {', '.join(failed)}" if failed else f"\npassed: {', '.join(wanted)}")
    return 1 if failed else 0


def _passes(tier: str, terminal: Terminal) -> bool:
    terminal.line(f"\n=== {tier}")
    if tier in NEED_DOCKER:
        try:
            ensure_docker(terminal)
            obtain_what_cannot_be_pulled(DEFAULT_STACK, stack_settings(DEFAULT_STACK), terminal)
        except CommandError as error:
            # On a developer's computer without Docker the tests skip and say so; CI must not pass that way.
            terminal.line(f"{tier}: {error}")
            if os.environ.get("CI"):
                return False
    passed = [_pass_together(commands) for commands in COMMANDS[tier]]
    return all(passed)


def _pass_together(commands: Sequence[Command]) -> bool:
    """Runs commands at the same time; the first is seen at work, the others are shown when they have ended."""
    first, *others = commands
    with ExitStack() as files:
        beside = []
        for command in others:
            shown = files.enter_context(TemporaryFile())
            beside.append((_start(command, shown), shown))
        try:
            passed = [_start(first).wait() == 0]
        except KeyboardInterrupt:
            for process, _ in beside:
                process.terminate()
            raise
        for process, shown in beside:
            passed.append(process.wait() == 0)
            shown.seek(0)
            print(shown.read().decode(errors="replace"), flush=True)
    return all(passed)


def _start(command: Command, shown: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Starts a command; one that is to be shown later gives way to the one that is seen."""
    module = [sys.executable, "-m", *command]
    if shown is None:
        return subprocess.Popen(module, cwd=PROJECT)
    return subprocess.Popen(["nice", *module], cwd=PROJECT, stdout=shown, stderr=subprocess.STDOUT)
