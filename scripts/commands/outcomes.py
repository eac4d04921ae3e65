"""What became of every test: written down by pytest as it goes, and counted by `scripts/test`.

pytest loads this module as a plugin (`-p scripts.commands.outcomes --outcomes FILE`) and appends one JSON object
per event to the file: `selected` (the tests that it is going to run), `test` with its `outcome`, `ended`. A
process that dies writes no more, so every test that was selected and has no outcome counts as failed, and so does
a process that did not end in order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PLUGIN = "scripts.commands.outcomes"
"""This module, as pytest is given it."""

OUTCOMES = ("passed", "skipped", "failed")
"""The worst comes last: a test that passed and whose clean-up failed has failed."""

REPEATED_AT_MOST = 10
"""Tests. Where more have failed, it is not one unsteady test, and repeating them all would take too long."""


@dataclass
class Outcomes:
    """Outcomes by what was checked: the node id of a test or of a file, or the command line of a program."""

    of: dict[str, str] = field(default_factory=dict)
    selected: set[str] = field(default_factory=set)
    """The node ids of single tests among them. Nothing else can be run once more."""
    unsteady: list[str] = field(default_factory=list)
    """Tests that failed, and passed when they were run once more."""

    def add(self, what: str, outcome: str) -> None:
        """Notes an outcome; a worse one that is known already stays."""
        self.of[what] = max(self.of.get(what, outcome), outcome, key=OUTCOMES.index)

    def include(self, others: Outcomes) -> None:
        """Adds those of another process."""
        for what, outcome in others.of.items():
            self.add(what, outcome)
        self.selected |= others.selected
        self.unsteady += others.unsteady

    @property
    def failed(self) -> list[str]:
        """What failed, in the order in which it was noted."""
        return [what for what, outcome in self.of.items() if outcome == "failed"]

    def to_repeat(self) -> list[str]:
        """The failed tests, where running them once more can make everything pass; else none."""
        failed = self.failed
        return failed if len(failed) <= REPEATED_AT_MOST and self.selected.issuperset(failed) else []

    def repeated(self, again: Outcomes) -> None:
        """Takes in the outcomes of tests that were run once more: those that pass now are unsteady, not failed."""
        for what, outcome in again.of.items():
            if what in self.of and outcome == "passed":
                self.of[what] = outcome
                self.unsteady.append(what)
            else:
                self.add(what, outcome)

    def line(self) -> str:
        """`N passed, N failed, N skipped`."""
        counted = Counter(self.of.values())
        return ", ".join(f"{counted[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def read(file: Path, command: str, status: int) -> Outcomes:
    """What a pytest process has written down. command, status: its command line and its exit status.

    The command itself has failed where its process did not end in order, or failed without naming a test.
    """
    outcomes, ended = Outcomes(), False
    for line in file.read_text().splitlines() if file.exists() else ():
        event = json.loads(line)
        outcomes.selected.update(event.get("selected", ()))
        ended = ended or "ended" in event
        if "test" in event:
            outcomes.add(event["test"], event["outcome"])
    for test in sorted(outcomes.selected - outcomes.of.keys()):
        outcomes.add(test, "failed")
    in_order = status == 0 or (status == 1 and outcomes.failed)
    if not (ended and in_order):
        outcomes.add(f"{command} (exit status {status})", "failed")
    return outcomes


# --- the plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    """The file to append to."""
    parser.addoption("--outcomes", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Begins writing; a worker of pytest-xdist leaves that to the process that has started it."""
    if hasattr(config, "workerinput"):
        return
    writer = _WriterForWorkers if config.pluginmanager.hasplugin("xdist") else _Writer
    config.pluginmanager.register(writer(config.getoption("outcomes")))


class _Writer:
    def __init__(self, file: Path) -> None:
        self._file = file

    def _write(self, **event: object) -> None:
        # At once and whole, so that nothing is lost with a process that dies.
        with self._file.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(selected=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self._write(test=report.nodeid, outcome=report.outcome)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._write(test=report.nodeid, outcome=report.outcome)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write(ended=int(exitstatus))


class _WriterForWorkers(_Writer):
    """Where pytest-xdist is loaded, which alone knows its hook."""

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._write(selected=list(ids))
