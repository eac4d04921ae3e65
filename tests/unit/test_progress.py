"""Unit tier: what is shown while Pulumi changes a stack, out of the events that its CLI writes.

The events are those of Pulumi 3.260, shortened. It does NOT prove that another version writes them so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.commands.progress import Progress
from scripts.commands.pulumi_events import Following
from scripts.commands.terminal import Terminal

TYPE = "command:local:Command"


class Clock:
    """Seconds, set by the test."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Seen:
    """One change as it is shown where no terminal can be redrawn."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *, verbose: bool = False) -> None:
        self._capsys, self.clock = capsys, Clock()
        terminal = Terminal(verbose=verbose)
        with terminal.step("deploying") as step:
            self.progress = Progress(terminal, step, self.clock)
        self.following = Following(self.progress)
        capsys.readouterr()

    def event(self, **content: Any) -> None:
        self.following.heard(json.dumps({"sequence": 1, "timestamp": 1, **content}))

    def step(self, what: str, name: str, operation: str = "create", *, custom: bool = True) -> None:
        urn = f"urn:pulumi:s::p::{TYPE}::{name}"
        made: Mapping[str, Any] = {"custom": custom, "type": TYPE, "urn": urn}
        state = {"old": made, "new": None} if "delete" in operation else {"old": None, "new": made}
        self.event(**{what: {"metadata": {"op": operation, "urn": urn, **state}}})

    def says(self, text: str, name: str = "", severity: str = "info") -> None:
        urn = f"urn:pulumi:s::p::{TYPE}::{name}" if name else ""
        self.event(diagnosticEvent={"urn": urn, "message": f"{text}\n", "severity": severity})

    def lines(self) -> list[str]:
        return [line.strip() for line in self._capsys.readouterr().err.splitlines()]


@pytest.fixture
def seen(capsys: pytest.CaptureFixture[str]) -> Seen:
    return Seen(capsys)


@pytest.mark.parametrize(
    ("operation", "doing", "done"),
    [
        ("create", "creating", "created"),
        ("delete", "deleting", "deleted"),
        ("update", "updating", "updated"),
        ("delete-replaced", "deleting original", "deleted original"),
    ],
)
def test_each_resource_is_named_with_how_long_it_took_and_what_is_under_way_with_its_words(
    seen: Seen, operation: str, doing: str, done: str
) -> None:
    seen.step("resourcePreEvent", "network", operation)
    seen.step("resourcePreEvent", "machine", operation)
    seen.clock.now = 3
    seen.step("resOutputsEvent", "network", operation)
    seen.says("waiting for SSH", "machine")
    assert seen.lines() == []
    seen.clock.now = 12
    seen.following.look()
    assert seen.lines() == [f"12 s: network {done} (3 s); machine {doing} (12 s): waiting for SSH"]
    seen.clock.now = 14
    seen.step("resOutputsEvent", "machine", operation)
    seen.progress.finish()
    assert seen.lines() == [f"14 s: machine {done} (14 s)"]


def test_components_and_what_stays_as_it_is_are_not_told(seen: Seen) -> None:
    for name, operation, custom in (("edge", "create", False), ("key", "same", True), ("x", "refresh", True)):
        seen.step("resourcePreEvent", name, operation, custom=custom)
        seen.step("resOutputsEvent", name, operation, custom=custom)
    seen.clock.now = 99
    seen.following.look()
    seen.progress.finish()
    assert seen.lines() == []


def test_an_hour_of_waiting_is_told_in_a_few_lines_and_not_in_silence(seen: Seen) -> None:
    seen.step("resourcePreEvent", "weights")
    told = []
    for second in range(3600):
        seen.clock.now = second
        seen.following.look()
        told += seen.lines()
    assert 15 < len(told) < 35
    assert all("weights creating" in line for line in told)


def test_a_failed_resource_is_named_and_its_error_is_kept_once(seen: Seen) -> None:
    seen.step("resourcePreEvent", "gate")
    for _ in range(2):
        seen.says("exit status 1\nphase: x\ncause: y", "gate", "error")
    seen.says("registering resource", "gate", "debug")
    seen.step("resOpFailedEvent", "gate")
    seen.progress.finish()
    assert seen.lines() == ["0 s: gate failed creating (0 s)"]
    assert seen.following.errors == ["gate: exit status 1\nphase: x\ncause: y"]


def test_a_warning_is_shown_at_once_and_once(seen: Seen) -> None:
    for _ in range(2):
        seen.says("the name is not in DNS yet", severity="warning")
    seen.says("using pulumi-resource-docker from $PATH at /usr/bin/x", severity="warning")
    assert seen.lines() == ["warning: the name is not in DNS yet"]


def test_what_the_cli_says_before_its_engine_starts_is_an_error_too(seen: Seen) -> None:
    seen.following.heard("error: could not lock the stack")
    seen.following.heard("")
    assert seen.following.errors == ["error: could not lock the stack"]


def test_what_the_last_gate_has_found_stays_and_that_it_waits_does_not(seen: Seen) -> None:
    seen.step("resourcePreEvent", "readiness-gate")
    for words in ("waiting for the engine, 20 s", "the engine was away for 7 s", "ok: models are listed: m"):
        seen.says(words, "readiness-gate")
    assert seen.lines() == [
        "readiness-gate: the engine was away for 7 s",
        "readiness-gate: ok: models are listed: m",
    ]


def test_verbose_has_each_event_in_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(capsys, verbose=True)
    seen.step("resourcePreEvent", "machine")
    seen.says("waiting for SSH", "machine")
    seen.clock.now = 11
    seen.step("resOutputsEvent", "machine")
    seen.progress.finish()
    assert seen.lines() == [
        "0 s: machine creating",
        "0 s: machine: waiting for SSH",
        "11 s: machine created (11 s)",
    ]


def test_a_step_without_a_change_that_waits_for_an_hour_is_told_in_a_few_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    with Terminal().step("checking the endpoint") as step:
        for clock.now in range(0, 3601, 2):
            step.say("the engine loads")
    assert 12 <= len(capsys.readouterr().err.splitlines()) <= 20


def test_a_warning_of_a_run_that_goes_from_zone_to_zone_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.step("deploying") as step:
        progress = Progress(terminal, step)
        for _ in "abc":
            warned = {"urn": "", "message": "not checked: the quota", "severity": "warning"}
            Following(progress).heard(json.dumps({"diagnosticEvent": warned}))
    assert capsys.readouterr().err.count("warning: not checked: the quota") == 1


def test_what_the_program_says_beside_its_resources_is_not_taken_for_what_is_being_done(seen: Seen) -> None:
    seen.says("KeyboardInterrupt")
    seen.clock.now = 99
    seen.following.look()
    assert seen.lines() == []


def test_nine_places_that_fail_one_after_another_report_as_often_as_one_that_takes_as_long(seen: Seen) -> None:
    told = []
    for second in range(540):
        seen.clock.now = second
        if second % 60 == 0:
            seen.step("resourcePreEvent", f"machine-{second}")
        if second % 60 == 59:
            seen.step("resOpFailedEvent", f"machine-{second - 59}")
        seen.following.look()
        told += seen.lines()
    seen.progress.finish()
    told += seen.lines()
    assert len(told) <= 14
    assert "\n".join(told).count("failed creating") == 9


def test_the_words_of_a_resource_whose_beginning_nobody_reports_are_what_is_being_done(seen: Seen) -> None:
    """The rehearsal reports no beginnings."""
    seen.progress.said("readiness-gate", "waiting for the engine, 20 s")
    seen.clock.now = 12
    seen.progress.look()
    assert seen.lines() == ["12 s: readiness-gate: waiting for the engine, 20 s"]


def test_on_a_terminal_the_step_is_redrawn_twice_a_second_and_what_has_ended_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    redrawn: list[tuple[float, str]] = []
    monkeypatch.setattr(Terminal, "redraws", True)
    seen = Seen(capsys)
    step = SimpleNamespace(say=lambda text: redrawn.append((seen.clock.now, text)))
    seen.clock.now = 100
    seen.progress = Progress(Terminal(), step, seen.clock)
    seen.following = Following(seen.progress)
    seen.step("resourcePreEvent", "machine")
    for name in "bcde":
        seen.step("resourcePreEvent", name)
    for seen.clock.now in (100.4, 100.5, 100.9, 101):
        seen.following.look()
    seen.clock.now = 102
    seen.step("resOutputsEvent", "machine")
    seen.progress.finish()
    five = "machine creating ({0} s), b creating ({0} s), c creating ({0} s), d creating ({0} s) and 1 more"
    four = "b creating (2 s), c creating (2 s), d creating (2 s), e creating (2 s)"
    assert redrawn == [
        (100.5, f"0 done; {five.format(0)}"),
        (101, f"0 done; {five.format(1)}"),
        (102, f"1 done; {four}"),
    ]
    assert seen.lines() == ["machine created (2 s)"]
