"""Unit tier: how a Docker on this computer is found, and what is said or done where none answers.

Scripts on PATH stand in for docker, apt-get, systemctl and dockerd. It does NOT prove that a real one starts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.commands import docker_setup
from scripts.commands.docker_setup import ensure_docker
from scripts.commands.errors import CommandError
from scripts.commands.terminal import Terminal

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

USUAL, OTHER = "unix:///var/run/docker.sock", "unix:///run/user/1000/docker.sock"
DENIED = "echo Client:; echo 'ERROR: permission denied while trying to connect'; exit 1"
DOWN = "echo 'Cannot connect to the Docker daemon' >&2; exit 1"


class Computer:
    """A computer with nothing on its PATH but the shell's tools and what a test puts there."""

    def __init__(self, fake: FakeCommand, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake, self._monkeypatch = fake, monkeypatch
        tools = folder / "tools"
        tools.mkdir()
        for name in ("bash", "ln", "touch"):
            (tools / name).symlink_to(f"/bin/{name}")
        monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}:{tools}")
        monkeypatch.setattr(docker_setup, "DAEMON_LOG", folder / "dockerd.log")
        self.user(0)

    def user(self, number: int) -> None:
        self._monkeypatch.setattr(os, "geteuid", lambda: number)

    def at(self, address: str) -> None:
        self._monkeypatch.setenv("DOCKER_HOST", address)

    def refused(self) -> list[str]:
        with pytest.raises(CommandError) as refused:
            ensure_docker(Terminal())
        return str(refused.value).splitlines()


@pytest.fixture
def computer(fake_command: FakeCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    found = Computer(fake_command, tmp_path, monkeypatch)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    found.at(USUAL)
    return found


def test_a_docker_that_answers_is_taken_and_what_is_started_later_asks_the_same_one(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    computer.fake.add("docker", "[ $DOCKER_HOST = unix:///run/user/1000/docker.sock ]")
    computer.at(OTHER)
    assert ensure_docker(Terminal()) == "unix:///run/user/1000/docker.sock"
    assert os.environ["DOCKER_HOST"] == "unix:///run/user/1000/docker.sock"
    assert "DOCKER_CONTEXT" not in os.environ, "it would win"
    assert computer.fake.calls == [["docker", "info", "--format", "{{.ServerVersion}}"]]


def test_a_docker_at_another_address_is_nobodys_to_start(computer: Computer) -> None:
    computer.at(OTHER)
    for body, told in ((DOWN, "Cannot connect to the Docker daemon"), ("exit 1", "it gives no reason")):
        computer.fake.add("docker", body)
        assert computer.refused()[0] == (
            f"cause: Docker does not answer at unix:///run/user/1000/docker.sock: {told}"
        )
    assert {call[0] for call in computer.fake.calls} == {"docker"}


@pytest.mark.parametrize(
    ("body", "cause", "change"),
    [
        (None, "Docker is not installed", "run this as root on Debian or Ubuntu"),
        (DENIED, "permission denied", "usermod -aG docker"),
        (DOWN, "Cannot connect", "systemctl start docker"),
    ],
)
def test_a_user_who_is_not_root_reads_what_to_do(
    body: str | None, cause: str, change: str, computer: Computer
) -> None:
    computer.user(1000)
    if body:
        computer.fake.add("docker", body)
    told = computer.refused()
    assert cause in told[0]
    assert change in told[1]


def test_where_it_can_be_neither_found_nor_installed_root_is_told_so(computer: Computer) -> None:
    assert computer.refused()[0] == "cause: Docker is not installed"


def test_root_gets_one_installed_and_started(computer: Computer, tmp_path: Path) -> None:
    programs, start = computer.fake.folder / "bin", f"touch {tmp_path}/started"
    computer.fake.add("docker", f"[ -e {tmp_path}/started ]")
    computer.fake.add("systemctl", start)
    computer.fake.add("of-the-package", start)
    computer.fake.add(
        "apt-get",
        f"[ $DEBIAN_FRONTEND = noninteractive ] || exit 1\n"
        f"[ $1 = update ] || ln -s {programs}/of-the-package {programs}/dockerd",
    )
    assert ensure_docker(Terminal()) == "unix:///var/run/docker.sock"
    assert [call for call in computer.fake.calls if call[0] == "apt-get"] == [
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "docker.io"],
    ]


def test_what_apt_complains_of_is_told(computer: Computer) -> None:
    computer.fake.add("apt-get", "echo no room >&2; exit 100")
    told = computer.refused()
    assert told[:2] == ["cause: apt-get update -qq failed:", "no room"]


def test_a_docker_that_does_not_start_is_given_up_with_the_end_of_its_log(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_setup, "START_SECONDS", 0)
    docker_setup.DAEMON_LOG.write_text("the reason\n")
    computer.fake.add("docker", DOWN)
    for starter in ("systemctl", "dockerd"):
        computer.fake.add(starter)
    told = computer.refused()
    assert "did not start within 0 s: Cannot connect to the Docker daemon" in told[0]
    assert told[1] == "the reason"
