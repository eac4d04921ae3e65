"""Unit tier: `--help` where nothing is installed yet.

The copy of the scripts has no environment, and the Python is the one below this environment. It does NOT prove
what a machine without any Python shows: there, the environment is made first.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.commands import __main__ as commands
from tests.conftest import PROJECT

COMMANDS = sorted(
    path.name
    for path in (PROJECT / "scripts").iterdir()
    if path.is_file() and path.name not in ("_run", "__init__.py")
)


def options(text: str) -> list[str]:
    return [word.strip(",[]") for word in text.split() if word.startswith(("-", "[-"))]


@pytest.mark.parametrize(("command", "word"), [*((each, "--help") for each in COMMANDS), ("up", "-h")])
def test_help_makes_no_environment_and_names_every_option(
    command: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # what a command does first, and would stay
    shutil.copytree(PROJECT / "scripts", tmp_path / "scripts")
    done = subprocess.run(
        [f"scripts/{command}", word],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHON": str(Path(sys.executable).resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / ".venv").exists()
    with pytest.raises(SystemExit) as ended:
        commands.main([command, "--help"])
    assert ended.value.code == 0
    assert sorted(options(done.stdout)) == sorted(options(capsys.readouterr().out))
