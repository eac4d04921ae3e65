"""Unit tier: a clone has LF in every text file, whatever the user's git is set to.

The present files are cloned, committed or not. What this does NOT prove: that the scripts run on Windows, which
they do not without a Linux beside it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def git(folder: Path, *words: str) -> str:
    """What git prints, with no settings but those given."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of this one's present files, and of two more, one with CRLF as an editor may write it."""
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no checkout of git: there is nothing to clone")
    folder = tmp_path_factory.mktemp("origin")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    (folder / "new-script").write_bytes(b"#!/usr/bin/env bash\r\necho new\r\n")
    (folder / "weights.bin").write_bytes(b"\0\r\n\r\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message", "x")
    return folder


SETTINGS = {
    "core.autocrlf=true": ["--config", "core.autocrlf=true"],
    "core.autocrlf=input": ["--config", "core.autocrlf=input"],
    "core.eol=crlf": ["--config", "core.eol=crlf"],
    "core.eol=crlf alone": ["--config", "core.autocrlf=false", "--config", "core.eol=crlf"],
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_no_text_file_of_a_clone_has_a_carriage_return(settings: str, origin: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", *SETTINGS[settings], str(origin), "clone")
    clone = tmp_path / "clone"
    files = [clone / name for name in git(clone, "ls-files", "-z").split("\0") if name]
    assert len(files) > 300
    assert [str(path) for path in files if b"\r" in path.read_bytes() and path.name != "weights.bin"] == []
    assert (clone / "weights.bin").read_bytes() == b"\0\r\n\r\n", "what is no text stays as it is"
    assert git(clone, "status", "--porcelain") == ""
    said = subprocess.run(["bash", "-n", clone / "scripts/_run"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
