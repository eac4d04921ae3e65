"""Unit tier: whose lock of Pulumi's file backend is broken. Real lock files and processes; the CLI is a script.

The other computer and the container are host names and notes that a test writes. What these tests do NOT prove:
that the CLI writes its locks in this form, which is that of its file backend (the engine tier kills real runs).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rehearsal.errors import RehearsalError
from rehearsal.state import exclusive
from scripts.commands import pulumi_engine
from scripts.commands.errors import CommandError
from scripts.commands.progress import Progress
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.pulumi_lock import INITIAL_PIDS, Lock, Run, judge, noted
from scripts.commands.terminal import Terminal
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

NOW = datetime.datetime.now(datetime.UTC)
HERE = dataclasses.replace(Run.here(), machine="m", boot="b", pids=INITIAL_PIDS)


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """The note of a run that began a minute ago, here, and was killed."""
    path = tmp_path / "run.json"
    began = NOW.timestamp() - 60
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(HERE, began=began))))
    return path


def noted_as(note: Path, **other: Any) -> Path:
    note.write_text(json.dumps({**json.loads(note.read_text()), **other}))
    return note


def lock(pid: int, host: str = HERE.host, since: datetime.datetime = NOW) -> Lock:
    return Lock(pid, host, "ops", since)


def test_the_lock_of_a_run_of_this_checkout_that_was_killed_here_is_known_to_be_nobodys(
    dead: int, note: Path
) -> None:
    assert judge(lock(dead), note, HERE) == "gone"


def test_the_lock_of_a_process_that_lives_here_is_waited_for(note: Path) -> None:
    assert judge(lock(os.getpid(), since=NOW + datetime.timedelta(hours=1)), note, HERE) == "lives"


def test_a_process_that_got_the_holders_number_later_is_not_the_holder(note: Path) -> None:
    """This process stands for it: it has begun long after a lock of last year."""
    long_ago = NOW - datetime.timedelta(days=365)
    noted_as(note, began=long_ago.timestamp() - 1)
    assert judge(lock(os.getpid(), since=long_ago), note, HERE) == "gone"


@pytest.mark.parametrize("alive", [True, False])
def test_the_lock_of_another_computer_is_not_judged_by_a_process_number_of_this_one(
    alive: bool, dead: int, note: Path
) -> None:
    assert judge(lock(os.getpid() if alive else dead, host="elsewhere"), note, HERE) == "unknown"
    noted_as(note, host="elsewhere")
    assert judge(lock(dead, host="elsewhere"), note, HERE) == "unknown"


@pytest.mark.parametrize(
    "other",
    [{"pids": "pid:[4026532001]"}, {"machine": "another"}, {"machine": "another", "boot": "another"}],
    ids=["another PID namespace", "another container's system", "another computer"],
)
def test_the_lock_of_another_system_with_this_host_name_is_not_broken(
    other: dict[str, str], dead: int, note: Path
) -> None:
    assert judge(lock(dead), noted_as(note, **other), HERE) == "unknown"


def test_the_lock_of_a_run_before_the_machine_was_rebooted_is_nobodys(dead: int, note: Path) -> None:
    assert judge(lock(dead), noted_as(note, boot="before"), HERE) == "gone"


def test_another_boot_says_nothing_in_a_container_or_without_the_machines_id(dead: int, note: Path) -> None:
    """Two computers may run a container of one image, under one name."""
    inside = "pid:[4026532001]"
    here = dataclasses.replace(HERE, pids=inside)
    assert judge(lock(dead), noted_as(note, boot="before", pids=inside), here) == "unknown"
    nameless = dataclasses.replace(HERE, machine="")
    assert judge(lock(dead), noted_as(note, boot="before", pids=INITIAL_PIDS, machine=""), nameless) == "unknown"


def test_a_lock_that_is_not_from_a_run_of_a_script_here_is_not_broken(dead: int, note: Path) -> None:
    """`pulumi up` by hand, or another checkout, notes nothing."""
    earlier = NOW - datetime.timedelta(hours=1)
    assert judge(lock(dead, since=earlier), note, HERE) == "unknown"
    note.unlink()
    assert judge(lock(dead), note, HERE) == "unknown"
    note.write_text("{")
    assert judge(lock(dead), note, HERE) == "unknown"


def test_a_run_notes_itself_and_takes_its_own_note_away(tmp_path: Path) -> None:
    path = tmp_path / "s" / "run.json"
    with noted(path, list):
        assert json.loads(path.read_text())["process"] == os.getpid()
        assert path.parent.stat().st_mode & 0o777 == 0o700, "the stack's folder is made by whoever is first"
    assert not path.exists()
    with noted(path, list):
        path.write_text("of another run")
    assert path.read_text() == "of another run"


def test_a_run_that_is_interrupted_and_leaves_a_lock_leaves_its_note_too(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt), noted(path, lambda: [lock(1)]):
        raise KeyboardInterrupt
    assert json.loads(path.read_text())["process"] == os.getpid()
    with pytest.raises(CommandError), noted(path, list):
        raise CommandError("the program's own failure")
    assert not path.exists()


# The engine


@dataclasses.dataclass(frozen=True)
class Backend:
    """A file backend with one lock, and a CLI that does nothing."""

    engine: PulumiEngine
    file: Path
    cli: FakeCommand

    def lock(self, text: str) -> None:
        self.file.write_text(text)

    @property
    def cancelled(self) -> bool:
        return any("cancel" in call for call in self.cli.calls)


@pytest.fixture
def backend(fake_command: FakeCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    fake_command.add("pulumi", '[ "$1" = version ] && echo v3.999.0 || echo {}')
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/a b?no_tmp_dir=true")
    monkeypatch.setattr(pulumi_engine, "PROJECT", tmp_path)
    pulumi_engine._cli.cache_clear()
    folder = tmp_path / "a b" / ".pulumi" / "locks" / "organization" / "seatable-vllm" / "gpu1"
    folder.mkdir(parents=True)
    return Backend(PulumiEngine("gpu1", None, ""), folder / "0.json", fake_command)


def content(pid: int, host: str) -> str:
    """As Pulumi writes it: Go's form of a time."""
    stamp = "2026-11-30T04:12:33.123456789+01:00"
    return json.dumps({"pid": pid, "username": "ops", "hostname": host, "timestamp": stamp})


def test_the_refusal_names_host_user_time_and_the_command_that_removes_the_lock(
    backend: Backend, dead: int
) -> None:
    backend.lock(content(dead, "build-7"))
    with pytest.raises(CommandError) as refused:
        backend.engine._wait_for_lock(lambda _: None)
    told = str(refused.value)
    for part in ("build-7", "ops", f"process {dead}", "2026-11-30 04:12:33 UTC+01:00"):
        assert part in told
    command = told.partition("remove its lock: ")[2]
    assert command.startswith("PULUMI_BACKEND_URL='file:///")
    assert command.endswith("pulumi cancel --yes --stack gpu1")
    assert not backend.cancelled
    assert backend.file.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_lock_that_cannot_be_read_is_not_broken(text: str, backend: Backend) -> None:
    backend.lock(text)
    with pytest.raises(CommandError, match="cannot be read"):
        backend.engine._wait_for_lock(lambda _: None)
    assert not backend.cancelled


def test_the_lock_of_a_killed_run_of_this_checkout_is_broken(backend: Backend, dead: int) -> None:
    backend.engine._note.parent.mkdir(parents=True)
    backend.engine._note.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(Run.here(), began=0))))
    backend.lock(content(dead, Run.here().host))
    backend.engine._wait_for_lock(lambda _: None)
    assert backend.cancelled


def test_without_a_lock_nothing_is_asked_of_the_cli(backend: Backend) -> None:
    backend.engine._wait_for_lock(lambda _: None)
    assert backend.cli.calls == []


# What a killed run has left in the state

STATE_CLI = """
case "$1 $2" in
    "version "*) echo v3.999.0 ;;
    "stack export") cat "$STATE" ;;
    "stack import") cat >"$STATE" ;;
    "stack history") echo "[]" ;;
    *) echo "{}" ;;
esac
"""


@pytest.mark.parametrize("change", ["up", "down"])
def test_the_marks_of_a_killed_runs_steps_are_taken_out_of_the_state_and_nothing_else(
    backend: Backend, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "Pulumi.yaml", tmp_path)
    shutil.copy(PROJECT / "Pulumi.local.yaml", tmp_path / "Pulumi.gpu1.yaml")
    container = {"type": "docker:index/container:Container", "id": "c1", "urn": "urn::edge-haproxy"}
    mark = {"type": "creating", "resource": {**container, "id": ""}}
    path = tmp_path / "state.json"
    path.write_text(
        json.dumps({"version": 3, "deployment": {"resources": [container], "pending_operations": [mark]}})
    )
    monkeypatch.setenv("STATE", str(path))
    backend.cli.add("pulumi", STATE_CLI)
    terminal = Terminal()
    with terminal.step("at work") as step:
        getattr(backend.engine, change)(Progress(terminal, step))
    deployment = json.loads(path.read_text())["deployment"]
    assert deployment["pending_operations"] == []
    assert deployment["resources"] == [container]
    words = [call[1] for call in backend.cli.calls]
    (imported,) = (n for n, call in enumerate(backend.cli.calls) if call[1:3] == ["stack", "import"])
    assert imported < words.index({"up": "up", "down": "destroy"}[change]), "before the change"


def test_pulumi_is_asked_of_what_is_gone_and_of_nothing_else(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "Pulumi.yaml", tmp_path)
    listed = [
        {"type": "aws:ec2/eip:Eip", "id": name, "urn": f"urn::{name}"} for name in ("eipalloc-1", "eipalloc-2")
    ]
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 3, "deployment": {"resources": listed}}))
    monkeypatch.setenv("STATE", str(path))
    backend.cli.add("pulumi", STATE_CLI)
    terminal = Terminal()
    with terminal.step("at work") as step:
        backend.engine.compare({("aws:ec2/eip:Eip", "eipalloc-2")}, Progress(terminal, step))
    (refresh,) = (call for call in backend.cli.calls if call[1] == "refresh")
    assert [word for word in refresh if word.startswith("--target")] == ["--target=urn::eipalloc-2"]


# The rehearsal


def test_whoever_finds_a_rehearsal_under_way_reads_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.json"
    for _ in range(2):  # a lock file of an earlier run is there the second time
        with exclusive(path), pytest.raises(RehearsalError) as refused, exclusive(path):
            pytest.fail("two runs at once")
        assert str(refused.value).count(f"on {Run.here().host}, process {os.getpid()}, since ") == 1
