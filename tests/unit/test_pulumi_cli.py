"""Unit tier: the passphrase of a stack without a login, in real files.

It does NOT prove that the CLI takes it: the engine tier deploys without a login.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from scripts.commands import pulumi_cli


@pytest.fixture
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept in a project of the test's own."""
    monkeypatch.setattr(pulumi_cli, "PROJECT", tmp_path)
    return tmp_path / ".state" / "passphrase"


def environment(home: Path) -> dict[str, str]:
    return pulumi_cli.workspace_environment({"PULUMI_HOME": str(home)})


def test_a_passphrase_is_made_once_and_is_the_users_alone(passphrase: Path, tmp_path: Path) -> None:
    assert environment(tmp_path)["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(passphrase)
    made = passphrase.read_text()
    assert len(made) > 40
    assert passphrase.stat().st_mode & 0o777 == 0o600
    environment(tmp_path)
    assert passphrase.read_text() == made
    assert sorted(path.name for path in passphrase.parent.iterdir()) == ["passphrase", "pulumi"]


def test_of_two_first_runs_the_later_one_takes_what_the_other_has_made(
    passphrase: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run makes it after this one has looked, and before it has written."""

    def meanwhile(_: int) -> str:
        passphrase.write_text("the other's")
        return "mine"

    monkeypatch.setattr(secrets, "token_urlsafe", meanwhile)
    environment(tmp_path)
    assert passphrase.read_text() == "the other's"
