"""Unit tier: where the Pulumi CLI comes from, and the backend and passphrase of a stack without a login.

A module of the test stands in for the official installer. It does NOT prove that the CLI takes the passphrase: the
engine tier deploys without a login.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from scripts.commands import pulumi_cli
from scripts.commands.terminal import Terminal


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


def test_without_a_login_the_state_is_in_the_checkout_closed_to_others(passphrase: Path, tmp_path: Path) -> None:
    state = passphrase.with_name("pulumi")
    assert environment(tmp_path) == {
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
    }
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
def test_a_passphrase_of_ones_own_is_taken(name: str, passphrase: Path, tmp_path: Path) -> None:
    added = pulumi_cli.workspace_environment({"PULUMI_HOME": str(tmp_path), name: ""})
    assert sorted(added) == ["PULUMI_BACKEND_URL", "PULUMI_SKIP_UPDATE_CHECK"]
    assert not passphrase.exists()


@pytest.mark.parametrize("login", ["PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN", "credentials.json", "~"])
def test_a_login_is_left_as_it_is(
    login: str, passphrase: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"PULUMI_HOME": str(tmp_path), login: "x"}
    if login == "credentials.json":
        (tmp_path / login).touch()
    if login == "~":
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".pulumi").mkdir()
        (tmp_path / ".pulumi" / "credentials.json").touch()
        given = {}
    assert pulumi_cli.workspace_environment(given) == {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    assert not passphrase.parent.exists()


INSTALLS = """
import os, time
class PulumiCommand:
    @staticmethod
    def install(root):
        os.makedirs(root + "/bin")
        open(root + "/bin/pulumi", "w").close()
        WAY
"""


class Installer:
    """What stands in for the official one, and the folder that it installs into."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cli = folder / ".pulumi-cli"
        self._module = folder / "modules" / "pulumi" / "automation.py"
        self._module.parent.mkdir(parents=True)
        self._module.with_name("__init__.py").touch()
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # no test reaches the real one's host
        monkeypatch.setattr(pulumi_cli, "FOLDER", self.cli)
        monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))
        monkeypatch.setenv("PATH", str(folder))

    def ends(self, way: str) -> None:
        self._module.write_text(INSTALLS.replace("WAY", way))


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    return Installer(tmp_path, monkeypatch)


def test_a_cli_is_fetched_once_and_one_on_path_comes_first(installer: Installer, tmp_path: Path) -> None:
    installer.ends("pass")
    assert pulumi_cli.find_cli(Terminal()) == str(installer.cli)
    installer.ends("raise SystemExit('asked again')")
    assert pulumi_cli.find_cli(Terminal()) == str(installer.cli)
    (tmp_path / "pulumi").touch(mode=0o755)
    assert pulumi_cli.find_cli(Terminal()) == ""


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("raise OSError('no route')", "OSError: no route"),
        ("os._exit(3)", "its installer failed"),
        ("time.sleep(9)", "its download took more than 1 s"),
    ],
)
def test_a_cli_that_cannot_be_fetched_is_said_in_one_line_and_nothing_of_it_stays(
    way: str,
    reason: str,
    installer: Installer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pulumi_cli, "INSTALL_SECONDS", 1 if "sleep" in way else 60)
    installer.ends(way)
    assert pulumi_cli.find_cli(Terminal()) is None
    assert f"none to be had ({reason}): this is a rehearsal" in capsys.readouterr().err
    assert list(installer.cli.parent.glob(".pulumi-cli*")) == []


def test_what_a_killed_run_has_left_of_a_cli_is_neither_taken_nor_in_the_way(installer: Installer) -> None:
    left = installer.cli.with_name(".pulumi-cli.part") / "bin"
    left.mkdir(parents=True)
    (left / "pulumi").write_text("cut o")
    installer.ends("pass")
    assert pulumi_cli.find_cli(Terminal()) == str(installer.cli)
    assert (installer.cli / "bin" / "pulumi").read_text() == ""
