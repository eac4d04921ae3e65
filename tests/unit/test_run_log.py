"""Unit tier: what a failed run prints, and the log of each run.

The failures are texts, and a real process stands in Pulumi's place. It does NOT prove that every program on a
machine keeps its keys to itself: what has no form of a secret and is none of those in hand is written down.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import string
import subprocess
import time
from pathlib import Path

import pytest

from scripts.commands import run_log, up
from scripts.commands.errors import CommandError
from scripts.commands.failure_text import last_lines
from scripts.commands.progress import Progress
from scripts.commands.pulumi_events import Following
from scripts.commands.run_log import KEPT, RunLog, cleaned, logged
from scripts.commands.terminal import Terminal
from tests.conftest import PROJECT, FakeCommand

PHASE = "phase: certificate\ncause: the CA refuses\nchange: seatable-vllm:domain.host"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PROJECT / "Pulumi.yaml", tmp_path)
    shutil.copy(PROJECT / "Pulumi.local.yaml", tmp_path / "Pulumi.s.yaml")
    monkeypatch.setattr(run_log, "PROJECT", tmp_path)
    return tmp_path


def logs(project: Path) -> list[Path]:
    return sorted((project / ".state" / "s" / "logs").iterdir())


def pem(kind: str) -> str:
    """A real one, made here, so that no file holds one."""
    form = ["openssl", "genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    if kind == "PRIVATE KEY":
        return subprocess.run(form, capture_output=True, text=True, check=True).stdout
    form = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x"]
    return subprocess.run(form, capture_output=True, text=True, check=True).stdout


def key() -> str:
    """As the program makes them."""
    return "k1" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(62))


def test_a_known_failure_is_phase_cause_and_change_and_nothing_else() -> None:
    noise = "\n".join(f"line {number}" for number in range(300))
    text = f"{noise}\nTraceback (most recent call last):\n{pem('CERTIFICATE')}\n{PHASE}\n{PHASE}\n{noise}"
    assert str(up.not_up("dev", text)) == f"dev is not up.\n{PHASE}"
    assert up.not_up("dev", text).whole == text


@pytest.mark.parametrize("own", ["", "\nphase: engine ended\ncause: not one that this program knows; see above"])
def test_an_unknown_failure_shows_its_last_lines_once_without_certificate_and_stack_trace(own: str) -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\n'
    text = "\n".join(f"line {number}" for number in range(300)) + f"\n{trace}{pem('CERTIFICATE')}boom\nboom{own}"
    told = last_lines(text)
    assert len(told.splitlines()) < 20
    assert told.count("boom") == 1
    for noise in ("Traceback", 'File "', "BEGIN", "line 1\n"):
        assert noise not in told
    assert "cause: not one that this program knows" in told


def test_a_failed_run_of_many_resources_prints_forty_lines_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.step("deploying") as step:
        following = Following(Progress(terminal, step))
    for number in range(72):
        urn = f"urn:pulumi:s::p::aws:x:X::{number}"
        step_of = {"metadata": {"op": "create", "urn": urn, "new": {"custom": True}}}
        following.heard(json.dumps({"resourcePreEvent": step_of}))
        for line in pem_like(40):
            said = {"urn": urn, "severity": "info", "message": line}
            following.heard(json.dumps({"diagnosticEvent": said}))
        error = {"urn": urn, "severity": "error", "message": f"failed {number}\n{PHASE}"}
        following.heard(json.dumps({"diagnosticEvent": error}))
        following.heard(json.dumps({"resOpFailedEvent": step_of}))
    print(up.not_up("s", "\n".join(following.errors)))
    told = "".join(capsys.readouterr())
    assert len(told.splitlines()) <= 40
    assert told.count("cause: ") == 1


def pem_like(lines: int) -> list[str]:
    return ["-----BEGIN CERTIFICATE-----", *(["A" * 64] * lines), "-----END CERTIFICATE-----"]


def failed(text: str) -> str:
    """The event of an error, as the CLI writes it."""
    return json.dumps({"diagnosticEvent": {"severity": "error", "message": text, "urn": "u::certificate"}})


def test_no_secret_of_any_kind_gets_into_a_log(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ones: made as the program makes them, from the environment, the stack's file and .state."""
    client, token, aws = key(), f"hf_{key()[:34]}", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
    plain, phrase, session = "correct-horse-battery", secrets.token_urlsafe(32), "IQoJ/" + key()
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", plain)
    monkeypatch.setenv("AWS_SESSION_TOKEN", session)
    config = "config:\n  seatable-vllm:hugging_face_token: short-and-odd\n"
    (project / "Pulumi.s.yaml").write_text(config)
    found = (client, token, aws, plain, phrase, session, "short-and-odd")
    texts = (pem("PRIVATE KEY"), pem("CERTIFICATE"))

    def run() -> None:
        terminal = Terminal()
        with logged("s", "up", terminal), terminal.step("deploying") as step:
            # The first `up` makes the passphrase while its log is open.
            (project / ".state" / "passphrase").write_text(f"{phrase}\n")
            progress = Progress(terminal, step)
            following = Following(progress)
            for secret in (*found, f"Bearer {client}"):
                progress.said("edge", f"key={secret}, that is all")
                terminal.line(f"a line with {secret}")
                following.heard(failed(f'environment: {{"X": "{secret}"}}'))
            for text in texts:
                for line in text.splitlines():
                    progress.said("certificate", line)
                following.heard(failed(text))
                progress.note(json.dumps({"ca": text}))
            progress.said("certificate", "after it")
            raise CommandError("short", f"whole {client} {texts[0]}")

    with pytest.raises(CommandError):
        run()
    (log,) = logs(project)
    written = log.read_text()
    for secret in found:
        assert secret not in written
    for text in texts:
        assert not [line for line in text.splitlines()[1:-1] if line in written]
    assert "after it" in written
    assert "that is all" in written
    assert "short" in written


def test_what_only_looks_like_a_key_stays_readable() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    for text in (
        f"vllm at {commit}",
        "ghcr.io/x/y@sha256:" + "1f" * 32,
        "/srv/seatable-vllm/models/somebody/some-model-name/config.json",
        "i-0123456789abcdef0 in eu-central-1a",
    ):
        assert cleaned(text) == text


def test_each_line_of_a_log_begins_with_the_seconds_since_the_runs_beginning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([500.0, 500.0, 501.25, 4100.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    log = RunLog("s", "up", project)
    for text in ("begins", "two\nlines\n", "ends  "):
        log.write(text)
    assert log.path.read_text() == "    0.0  begins\n    1.2  two\nlines\n 3600.0  ends\n", "before it is closed"
    log.close()
    assert log.path.name.endswith("Z-up.log")


def test_the_last_ten_logs_are_kept_and_closed_to_others(project: Path) -> None:
    before = os.umask(0)
    try:
        for number in range(KEPT + 3):
            log = RunLog("s", "up" if number % 2 else "down", project)
            log.write(f"run {number}")
            log.close()
    finally:
        os.umask(before)
    kept = logs(project)
    assert [path.read_text().split()[-1] for path in kept] == [str(number) for number in range(3, KEPT + 3)]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert kept[0].parent.stat().st_mode & 0o777 == 0o700


def test_a_failure_names_its_log_last_and_a_run_without_a_log_goes_on(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError) as failed, logged("s", "up", Terminal()):
        raise CommandError(PHASE, "all of it")
    (log,) = logs(project)
    assert str(failed.value) == f"{PHASE}\nlog: .state/s/logs/{log.name}"
    assert "all of it" in log.read_text()
    shutil.rmtree(log.parent)
    log.parent.write_text("in the way")
    with logged("s", "up", Terminal()):
        pass
    assert "no log of this run is kept" in capsys.readouterr().err


def test_an_interrupted_run_and_a_defect_of_ours_are_in_the_log_too(project: Path) -> None:
    for error, words in (
        (KeyboardInterrupt("stopped; recorded"), "stopped; recorded"),
        (ZeroDivisionError(), "Zero"),
    ):
        with pytest.raises(type(error)), logged("s", "down", Terminal()):
            raise error
        assert words in logs(project)[-1].read_text()


def test_scripts_up_prints_its_failure_once_and_verbose_the_rest(project: Path, fake_command: FakeCommand) -> None:
    events = [
        {"diagnosticEvent": {"severity": "info", "message": "only whoever looks", "urn": "u::gate"}},
        {"diagnosticEvent": {"severity": "error", "message": f"exit status 1\n{PHASE}", "urn": "u::gate"}},
    ]
    printed = "\n".join(json.dumps(event) for event in events)
    fake_command.add(
        "pulumi", f"case $1 in version) echo v3.999.0;; up) echo '{printed}'; exit 1;; *) echo {{}};; esac"
    )
    for words, shown in (([], False), (["--verbose"], True)):
        done = _deploy(project, fake_command, words)
        assert done.returncode == 1
        assert done.stderr.count("cause: the CA refuses") == (2 if shown else 1), "as it happens, and at the end"
        assert ("only whoever looks" in done.stderr) == shown
        assert done.stderr.splitlines()[-1].startswith("log: .state/s/logs/")
        assert "only whoever looks" in logs(project)[-1].read_text()


RUN = """
import sys
from pathlib import Path
from scripts.commands import __main__ as commands, pulumi_engine, run_log
from scripts.commands.run_log import logged
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.terminal import Terminal
from scripts.commands.up import deploy

pulumi_engine.PROJECT = run_log.PROJECT = Path(sys.argv[1])

class Command:
    @staticmethod
    def main(words):
        terminal = Terminal(verbose="--verbose" in words)
        with logged("s", "up", terminal):
            engine = PulumiEngine("s", None, "")
            engine._known = lambda: pulumi_engine.Known()
            deploy(engine, "s", None, terminal)

commands.importlib.import_module = lambda name: Command
sys.exit(commands.main(["x", *sys.argv[2:]]))
"""


def _deploy(project: Path, fake: FakeCommand, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**fake.environment, "PULUMI_BACKEND_URL": "file:///nowhere"}
    command = ["python", "-c", RUN, str(project), *words]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
