"""Unit tier: a change by the Pulumi CLI that is broken off.

A program of the test stands in the CLI's place, as a real process that writes down the signals it gets. It does
NOT prove what Pulumi's engine or a provider does when it is asked to end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
import yaml

from scripts.commands.interrupts import Interrupted, collected, interrupted_in, status_of
from scripts.commands.pulumi_engine import looks_at
from scripts.commands.pulumi_process import insistence
from tests.conftest import PROJECT

URN = "urn:pulumi:s::seatable-vllm::aws:ec2/instance:Instance::vm-instance-vm"
STEP = {"op": "create", "urn": URN, "new": {"custom": True}}

BOUND_SECONDS = 120
"""After which Linux ends both programs, so that a test which misses a line fails and does not wait for ever."""

CLI = f"""
import json, os, signal, sys
signal.alarm({BOUND_SECONDS})
words = sys.argv[1:]
folder = os.environ["FAKE_FOLDER"]

def write(name, text):
    with open(os.path.join(folder, name), "a") as file:
        file.write(text + "\\n")

def event(**content):
    print(json.dumps(content), flush=True)

if words[0] == "version":
    print("v3.999.0")
elif words[:2] == ["stack", "export"]:
    print(json.dumps({{"deployment": {{"resources": []}}}}))
elif words[:2] == ["stack", "history"]:
    print("[]")
elif words[:2] == ["stack", "output"]:
    print("{{}}")
elif words[0] in ("up", "destroy"):
    asked = []

    def note(number, _):
        asked.append(number)
        write("signals", signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    event(resourcePreEvent={{"metadata": {STEP!r}}})
    write("pid", str(os.getpid()))
    write("ready", "now")
    until = int(os.environ["FAKE_ENDS_AFTER"])
    while len(asked) < until or not os.path.exists(os.path.join(folder, "may-end")):
        signal.sigtimedwait([], 0.02)
    write("recorded", "i-1" if until == 1 else "nothing")
    event(resOutputsEvent={{"metadata": {STEP!r}}})
    event(diagnosticEvent={{"severity": "error", "message": "update canceled"}})
    sys.exit(1)
"""
"""The CLI: it ends after so many signals, and not before the test lets it."""

RUN = f"""
import signal, sys
signal.alarm({BOUND_SECONDS})
from pathlib import Path
from scripts.commands import __main__ as commands, pulumi_engine, pulumi_process, stacks, up, down
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.progress import Progress
from scripts.commands.terminal import Terminal

pulumi_engine.PROJECT = Path(sys.argv[2])

class Command:
    @staticmethod
    def main(arguments):
        terminal = Terminal()
        with terminal.step("at work") as step:
            getattr(PulumiEngine("s", None, ""), sys.argv[1])(Progress(terminal, step))
        return 0

commands.importlib.import_module = lambda name: Command
status = commands.main(["x"])
sys.stderr.flush()
sys.exit(status)
"""


class Run:
    """A command that has the fake CLI change a stack, in a process group of its own, as in a terminal."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self.process = folder, process
        assert process.stderr
        self.stderr: IO[str] = process.stderr
        self.told = ""

    def read_until(self, words: str) -> None:
        """Reads what the command says up to a line with these words."""
        for line in self.stderr:
            self.told += line
            if words in line:
                return
        pytest.fail(f"it never said {words!r}:\n{self.told}")

    def let_end(self) -> int:
        """Lets the CLI end; the command's exit status."""
        (self.folder / "may-end").touch()
        self.told += self.stderr.read()
        return self.process.wait()

    def until_cli_got(self, signals: int) -> None:
        """Waits until the CLI has so many signals: one that is sent while another is pending is lost."""
        while len(self.of_cli("signals")) < signals:
            assert self.process.poll() is None, self.told
            time.sleep(0.01)

    def of_cli(self, name: str) -> list[str]:
        """What the CLI wrote down."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a stack, and the fake CLI."""
    for name in ("Pulumi.yaml", "Pulumi.local.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name.replace("local", "s"))
    cli = tmp_path / "bin" / "pulumi"
    cli.parent.mkdir()
    cli.write_text(f"#!{sys.executable}\n{CLI}")
    cli.chmod(0o755)
    os.mkfifo(tmp_path / "ready")
    return tmp_path


def started(folder: Path, what: str, ends_after: int) -> Run:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "FAKE_FOLDER": str(folder),
        "FAKE_ENDS_AFTER": str(ends_after),
        "PULUMI_BACKEND_URL": f"file://{folder}",
        "PULUMI_CONFIG_PASSPHRASE": "x",
    }
    process = subprocess.Popen(
        ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-c", RUN, what, str(folder)],
        cwd=PROJECT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with (folder / "ready").open() as ready:  # until the CLI is at work
        assert ready.readline() == "now\n"
    return Run(folder, process)


@pytest.fixture(params=["up", "down"])
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_one_signal_to_the_whole_group_reaches_pulumi_once_and_its_end_is_awaited(
    folder: Path, what: str, number: signal.Signals
) -> None:
    run = started(folder, what, ends_after=1)
    os.killpg(run.process.pid, number)
    run.read_until("stopping: Pulumi awaits the steps under way (vm-instance-vm creating")
    assert run.process.poll() is None, "it did not wait for Pulumi"
    assert run.let_end() == 128 + number
    assert run.of_cli("signals") == ["SIGINT"]
    assert run.of_cli("recorded") == ["i-1"]
    assert "Ctrl-C again" in run.told
    assert "scripts/up s again to go on" in run.told.splitlines()[-1]
    for noise in ("Traceback", "closed file", "no state:"):
        assert noise not in run.told


def test_a_second_ctrl_c_ends_pulumi_at_once_and_names_what_may_be_left_and_what_looks(
    folder: Path, what: str
) -> None:
    run = started(folder, what, ends_after=2)
    os.killpg(run.process.pid, signal.SIGINT)
    run.read_until("stopping: ")
    run.until_cli_got(signals=1)
    os.killpg(run.process.pid, signal.SIGINT)
    run.read_until("ending Pulumi at once")
    assert run.let_end() == 130
    assert run.of_cli("signals") == ["SIGINT", "SIGINT"]
    assert "may exist, cost, and be in no state: vm-instance-vm creating" in run.told
    assert "scripts/doctor s" in run.told


def test_a_pulumi_that_was_killed_has_a_cause_and_the_way_to_go_on(folder: Path, what: str) -> None:
    run = started(folder, what, ends_after=9)
    os.kill(int(run.of_cli("pid")[0]), signal.SIGKILL)
    run.told += run.stderr.read()
    assert run.process.wait() == 1
    assert "cause: Pulumi was killed" in run.told
    assert "change: run scripts/up s to go on, or scripts/down s" in run.told


def test_a_third_ctrl_c_ends_a_pulumi_that_does_not_end_by_itself(folder: Path) -> None:
    run = started(folder, "up", ends_after=9)
    for asked, words in enumerate(("stopping: ", "ending Pulumi at once", "killing Pulumi")):
        run.until_cli_got(signals=asked)
        os.killpg(run.process.pid, signal.SIGINT)
        run.read_until(words)
    run.told += run.stderr.read()
    assert run.process.wait() == 130
    assert run.of_cli("recorded") == []
    assert "be in no state" in run.told


def test_a_ci_that_sends_sigterm_after_sigint_has_not_insisted(folder: Path) -> None:
    run = started(folder, "up", ends_after=1)
    os.kill(run.process.pid, signal.SIGINT)
    run.read_until("stopping: ")
    run.until_cli_got(signals=1)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.let_end() == 130
    assert run.of_cli("signals") == ["SIGINT"]
    assert run.of_cli("recorded") == ["i-1"]


@pytest.mark.parametrize("what_dies", ["the command is killed", "its terminal is gone"])
def test_pulumi_goes_on_to_its_own_end_when_nobody_reads_it_any_more(folder: Path, what_dies: str) -> None:
    run = started(folder, "up", ends_after=1)
    if what_dies == "its terminal is gone":
        run.stderr.close()
        os.killpg(run.process.pid, signal.SIGHUP)
        (folder / "may-end").touch()
        assert run.process.wait() == 128 + signal.SIGHUP
        assert run.of_cli("signals") == ["SIGINT"]
    else:
        os.mkfifo(folder / "recorded")
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        (pid,) = [each for each in Path("/proc").glob("[0-9]*") if _is_fake(each, folder)]
        (folder / "may-end").touch()
        os.kill(int(pid.name), signal.SIGINT)  # as somebody would who finds it
        with (folder / "recorded").open() as recorded:
            assert recorded.read() == "i-1\n"
        run.stderr.close()


def _is_fake(process: Path, folder: Path) -> bool:
    try:
        return f"{folder}/bin/pulumi".encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with collected() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("received", "times"), [([], 0), ([2], 1), ([2, 15, 1], 1), ([2, 15, 2], 2), ([15, 15, 15], 3)]
)
def test_only_the_same_signal_again_insists(received: Sequence[int], times: int) -> None:
    assert insistence(received) == times


def test_one_more_ctrl_c_while_the_command_ends_does_not_lose_what_there_is_to_say() -> None:
    said = Interrupted("this may exist and cost", signal.SIGINT)
    last = KeyboardInterrupt()
    last.__context__ = ValueError()
    last.__context__.__context__ = said
    assert interrupted_in(last) is said
    assert interrupted_in(said) is said
    plain = KeyboardInterrupt()
    assert interrupted_in(plain) is plain


def test_the_exit_status_names_the_signal() -> None:
    assert [status_of(KeyboardInterrupt()), status_of(Interrupted("", 15))] == [130, 143]


def test_what_looks_at_an_account_asks_for_the_tags_of_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "Pulumi.yaml", tmp_path)
    config = {"aws:region": "eu-west-1", "seatable-vllm:machine": {"kind": "aws"}}
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    monkeypatch.setattr("scripts.commands.pulumi_engine.PROJECT", tmp_path)
    command = looks_at("dev")
    assert command.startswith("aws resourcegroupstaggingapi get-resources --region eu-west-1 ")
    assert "Key=Stack,Values=dev" in command
