"""`scripts/test [TIER ...]`: the tests, with everything they need set up first.

Tiers: lint (ruff, mypy), unit (Python alone), live (real Docker, vLLM and HAProxy), engine (the real Pulumi CLI,
skipped with its reason where there is none). All of them unless some are named. The last line counts what passed,
failed and was skipped in all of them; each program of lint counts as one.

`scripts/test vllm`: what the pinned vLLM does by itself (each parameter of a request, the options of its parser,
the keys and values of small models). Run it after a change of that version, of the engine's environment, or of the
forecast (catalog/sizing); a run without arguments leaves it out.

`scripts/test mutants [--seed N] [--count N] [PATH ...]`: how many one-line faults the unit tests notice; takes an
hour or so; a run without arguments leaves it out.
"""

import argparse
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

from scripts.commands import mutants
from scripts.commands.docker_setup import ensure_docker
from scripts.commands.errors import CommandError
from scripts.commands.outcomes import PLUGIN, REPEATED_AT_MOST, Outcomes, read
from scripts.commands.stacks import DEFAULT_STACK, PROJECT, stack_settings
from scripts.commands.terminal import Terminal
from scripts.commands.up import obtain_what_cannot_be_pulled

Command = tuple[str, ...]
"""A module that Python runs, with its arguments."""


@dataclass(frozen=True)
class Tier:
    """What a tier runs: the groups one after another, the commands of a group at the same time.

    The first command of a group is seen at work and goes first. repeats: whether tests that fail get a second try.
    """

    groups: Sequence[Sequence[Command]]
    needs_docker: bool = False
    repeats: bool = False


UNIT = ("pytest", "tests/unit", "--numprocesses=auto", "--dist=worksteal")
"""In a random order, file by file, in as many processes as there are cores: a test that depends on another one
fails sooner or later. pytest names the seed first; its option `--randomly-seed` repeats the order."""

IN_ORDER = ("-p", "no:randomly")
"""Live tests stand in an order that starts few engines."""

LIVE = ("pytest", "tests/live", *IN_ORDER, "--durations=12", "-m")

TIERS: Mapping[str, Tier] = {
    "lint": Tier(([("ruff", "check", ".")], [("ruff", "format", "--check", ".")], [("mypy",)])),
    "unit": Tier(([UNIT],)),
    # Two engines that compute side by side on two cores would make each other's tests fail now and then: what is
    # marked `beside` mostly waits, and its containers get what the others leave (tests/live/conftest.py).
    "live": Tier(
        ([(*LIVE, "not beside and not vllm"), (*LIVE, "beside and not vllm")],), needs_docker=True, repeats=True
    ),
    "engine": Tier(([("pytest", "tests/engine", *IN_ORDER)],), needs_docker=True),
    "vllm": Tier(([(*LIVE, "vllm")],), needs_docker=True, repeats=True),
}

ASKED_FOR = {"vllm"}
"""Tiers that are run only when they are named."""


def main(arguments: list[str]) -> int:
    """Status 0 when nothing of what was asked for has failed."""
    if arguments[:1] == ["mutants"]:
        return mutants.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=f"any of {', '.join(TIERS)}")
    options = parser.parse_args(arguments)
    unknown = [tier for tier in options.tiers if tier not in TIERS]
    if unknown:
        raise CommandError(f"there is no tier {unknown[0]!r}; tiers: {', '.join(TIERS)}")
    return run({name: TIERS[name] for name in options.tiers or [each for each in TIERS if each not in ASKED_FOR]})


def run(tiers: Mapping[str, Tier], folder: Path = PROJECT) -> int:
    """Runs the tiers in a folder and prints what became of them; the sum of all is the last line."""
    # The same orderly end as with Ctrl-C: whatever was started ends first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    terminal = Terminal()
    total, told, begin = Outcomes(), [], time.monotonic()
    with TemporaryDirectory() as notes:
        for name, tier in tiers.items():
            terminal.line(f"\n=== {name}")
            began = time.monotonic()
            outcomes = _Runner(folder, Path(notes) / name, terminal).tier(name, tier)
            told.append(f"{name}: {outcomes.line()} in {_duration(time.monotonic() - began)}")
            total.include(outcomes)
    told += [f"failed: {what}" for what in total.failed]
    told += [f"unsteady: {test} failed, and passed when it was run once more" for test in total.unsteady]
    told.append(f"{', '.join(tiers)} took {_duration(time.monotonic() - begin)}")
    print("", *told, total.line(), sep="\n", flush=True)
    return 1 if total.failed else 0


def _duration(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


class _Runner:
    """Runs the commands of one tier. notes: where its pytest processes write down outcomes, a file each."""

    def __init__(self, folder: Path, notes: Path, terminal: Terminal) -> None:
        self._folder, self._terminal = folder, terminal
        self._notes = (notes.with_name(f"{notes.name}-{number}") for number in itertools.count())

    def tier(self, name: str, tier: Tier) -> Outcomes:
        """What became of it; a tier whose needs cannot be met has failed."""
        outcomes = Outcomes()
        try:
            if tier.needs_docker:
                ensure_docker(self._terminal)
                obtain_what_cannot_be_pulled(DEFAULT_STACK, stack_settings(DEFAULT_STACK), self._terminal)
        except CommandError as error:
            self._terminal.line(f"{error}\n`scripts/test lint unit` needs no Docker.")
            outcomes.add(f"{name} could not begin: see above", "failed")
            return outcomes
        for commands in tier.groups:
            outcomes.include(self._together(commands))
        if tier.repeats and outcomes.failed:
            self._repeat(name, outcomes)
        return outcomes

    def _repeat(self, name: str, outcomes: Outcomes) -> None:
        """Gives failed tests their second try, alone on the computer."""
        tests = outcomes.to_repeat()
        if tests:
            self._terminal.line(f"\n=== {name}: {len(tests)} failed, once more")
            outcomes.repeated(self._together([("pytest", *IN_ORDER, *tests)]))
        else:
            self._terminal.line(
                f"\n=== {name}: nothing is run once more, as more than {REPEATED_AT_MOST} tests failed, "
                "or something that is not a single test"
            )

    def _together(self, commands: Sequence[Command]) -> Outcomes:
        """Runs commands at the same time; the first is seen at work, the others are shown when they have ended."""
        outcomes = Outcomes()
        with ExitStack() as files:
            started: list[_Started] = []
            try:
                for command in commands:
                    shown = files.enter_context(TemporaryFile()) if started else None
                    started.append(_Started(command, next(self._notes), self._folder, shown))
                for each in started:
                    outcomes.include(each.outcomes())
            except BaseException:
                # Ctrl-C or SIGTERM. Live tests take their stacks down before they end.
                for each in started:
                    each.process.terminate()
                for each in started:
                    each.process.wait()
                raise
        return outcomes


class _Started:
    """A command under way; one that is to be shown later gives way to the one that is seen."""

    def __init__(self, command: Command, note: Path, folder: Path, shown: IO[bytes] | None) -> None:
        self._line, self._note, self._shown = " ".join(command), note, shown
        module, *arguments = command
        self._is_pytest = module == "pytest"
        plugin = ["-p", PLUGIN, "--outcomes", str(note)] if self._is_pytest else []
        line = [sys.executable, "-m", module, *plugin, *arguments]
        if shown is None:
            self.process = subprocess.Popen(line, cwd=folder)
        else:
            self.process = subprocess.Popen(["nice", *line], cwd=folder, stdout=shown, stderr=subprocess.STDOUT)

    def outcomes(self) -> Outcomes:
        """Waits for its end and shows what it has printed."""
        status = self.process.wait()
        if self._shown is not None:
            self._shown.seek(0)
            print(self._shown.read().decode(errors="replace"), flush=True)
        if self._is_pytest:
            return read(self._note, self._line, status)
        outcomes = Outcomes()
        outcomes.add(self._line, "failed" if status else "passed")
        return outcomes
