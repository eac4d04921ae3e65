"""Unit tier: `scripts/down` in a checkout of the test: what is left of a stack on this computer, on a machine
behind SSH, and beside one on AWS.

Folders, state and the program that clears a machine are real. `ssh` is a script that runs its command here;
Docker's client and the Pulumi CLI are stand-ins. It does NOT prove that Docker, sshd or AWS do it:
tests/live/test_host.py and tests/live/test_interrupted.py do.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from catalog.aws.owned import Strays
from components.machine import reach
from rehearsal.state import Made
from scripts.commands import deployed, down, pulumi_engine
from scripts.commands.errors import CommandError
from scripts.commands.strays import StackAccount
from tests.unit.aws_support import STACK_FILE
from tests.unit.checkout_support import Checkout, FakeContainer, FakeDocker, FakeItem, in_checkout

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

ENGINES_KEY, CLIENTS_KEY, OWNER = "e" * 64, "c" * 64, str(uuid.UUID(int=7))
KEPT = [
    "cache/vllm/graphs",
    "certificates/live/edge.pem",
    "models/.made",
    "models/owner/model/config.json",
]
"""Weights, caches and certificates."""

NOTHING_OF_IT = [".state", "Pulumi.gpu1.yaml", "Pulumi.yaml", "__main__.py"]
"""A checkout that never had the stack up; `.state` is an empty folder."""


class Stack:
    """A stack that the rehearsal has deployed, on a machine that is a folder and a stand-in for Docker."""

    def __init__(self, checkout: Checkout, data: Path, fake: FakeCommand) -> None:
        self.checkout, self.data, self.fake = checkout, data, fake
        self.docker = FakeDocker()
        fake.add("docker", "echo ABCD:EFGH")
        fake.add("sudo", "exit 1")
        fake.add("systemctl")
        self.reached("exec bash -c")
        self._deploy()

    def client(self, **_: object) -> FakeDocker:
        """In place of the class of clients."""
        return self.docker

    def reached(self, how: str) -> None:
        """`ssh`: a tunnel is open at once, and what is to be run there is given to this."""
        self.fake.add(
            "ssh",
            'for last; do case $last in *docker.sock:*) touch "${last%%:*}";; esac; done\n'
            f'if [ "$last" = cat ]; then exec cat; else {how} "$last"; fi',
        )

    def _deploy(self) -> None:
        state, provider = self.checkout.state, "docker::provider"
        made = [
            Made("random:index/randomPassword:RandomPassword", "keys-engine", {}, "none", {"result": ENGINES_KEY}),
            Made("random:index/randomPassword:RandomPassword", "keys-seatable-1", {}, "none",
                 {"result": CLIENTS_KEY}),
            Made("random:index/randomUuid:RandomUuid", "machine-owner", {}, OWNER, {"result": OWNER}),
            Made("pulumi:providers:docker", "provider", {"host": "unix:///run/stand-in.sock"}, "provider", {}),
            Made("docker:index/network:Network", "network", {}, "net", {"__provider": provider}),
            Made("docker:index/container:Container", "engine", {}, "engine", {"__provider": provider}),
            Made("docker:index/container:Container", "edge", {}, "edge", {"__provider": provider}),
        ]  # fmt: skip
        for each in made:
            state.put(each)
        state.finish({"clients": {"seatable": {"key": CLIENTS_KEY}}})
        for name in ("engine", "edge", "of-a-killed-run"):
            self.docker.items.append(FakeContainer(self.docker, name, str(self.data), OWNER))
        self.docker.items.append(FakeItem(self.docker, "net", str(self.data), OWNER))
        self.docker.items.append(FakeContainer(self.docker, "of-another-folder", "/srv/other", OWNER))
        for name, text in {
            "vllm/config.yaml": f"api-key: [{ENGINES_KEY}]",
            "vllm/config.yaml.Ab12Cd": f"api-key: [{ENGINES_KEY}]",
            "vllm/watchdog.py": f"KEY = {ENGINES_KEY!r}",
            "edge/releases/0123/haproxy.cfg": f"http-request set-header Authorization {ENGINES_KEY}",
            "edge/releases/0123/keys.map": f"{CLIENTS_KEY} seatable",
            "edge/releases/0122/keys.map": f"{CLIENTS_KEY} seatable",
            "cache/vllm/graphs": "graphs",
            "certificates/live/edge.pem": "PEM",
            "models/owner/model/config.json": "{}",
            "models/.made": "owner/model\n",
        }.items():
            (self.data / name).parent.mkdir(parents=True, exist_ok=True)
            (self.data / name).write_text(text)
        (self.data / "edge/live").symlink_to("releases/0123")
        (self.data / "edge/.live").symlink_to("releases/0122")
        marker = {"project": "seatable-vllm", "stack": "gpu1", "owner": OWNER, "made": True, "found": []}
        (self.data / ".seatable-vllm.json").write_text(json.dumps(marker))

    def kept(self) -> list[str]:
        return [name for name in self.checkout.left(self.data) if name != ".seatable-vllm.json"]

    def with_keys(self) -> list[str]:
        below = self.checkout.folder.parent
        return self.checkout.holding(ENGINES_KEY, CLIENTS_KEY, below=below)


FILES = {
    "this computer": "config: {seatable-vllm:machine: {kind: local}}\n",
    "a folder of one's own": "config: {seatable-vllm:machine: {kind: local, data_dir: DATA}}\n",
    "a host": "config: {seatable-vllm:machine: {kind: host, ssh: ubuntu@gpu1, data_dir: DATA}}\n",
}
ANYWHERE = pytest.mark.parametrize("stack", FILES, indirect=True)
ON_A_HOST = pytest.mark.parametrize("stack", ["a host"], indirect=True)


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: FakeCommand
) -> Iterator[Stack]:
    data = tmp_path / "srv" / "data"
    text = FILES[request.param].replace("DATA", str(data))
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/stand-in.sock")
    for checkout in in_checkout(tmp_path / "checkout", monkeypatch, "gpu1", text):
        own = checkout.folder / ".state" / "gpu1" / "data"
        found = Stack(checkout, data if "DATA" in FILES[request.param] else own, fake_command)
        monkeypatch.setattr(docker, "DockerClient", found.client)
        # Without the CLI of this computer, where a test takes the state away.
        monkeypatch.setattr(deployed, "on_path", lambda: False)
        yield found


@ANYWHERE
def test_what_is_taken_down_keeps_weights_caches_and_certificates_and_no_key_is_left_anywhere(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(stack.with_keys()) == 7, "the search finds the keys of a stack that is up"
    assert down.main(["gpu1"]) == 0
    assert stack.with_keys() == []
    assert stack.kept() == KEPT
    assert stack.docker.names == ["of-another-folder"]
    told = capsys.readouterr().err
    assert "7 resources removed" in told
    assert f"{stack.data} (weights, caches, certificates); scripts/down gpu1 --purge removes it" in told
    assert stack.checkout.file.exists()


@ANYWHERE
def test_a_purge_leaves_nothing_but_the_stacks_file(stack: Stack) -> None:
    assert down.main(["gpu1", "--purge"]) == 0
    assert not stack.data.exists()
    assert stack.checkout.left() == NOTHING_OF_IT
    assert stack.docker.names == ["of-another-folder"]


@pytest.mark.parametrize("stack", ["this computer", "a host"], indirect=True)
def test_a_purge_after_a_down_takes_what_that_kept(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    down.main(["gpu1"])
    capsys.readouterr()
    assert down.main(["gpu1", "--purge"]) == 0
    assert "nothing of gpu1 was there" in capsys.readouterr().err
    assert not stack.data.exists()
    assert stack.checkout.left() == NOTHING_OF_IT


@ANYWHERE
def test_keys_go_from_a_folder_whose_state_was_lost(stack: Stack) -> None:
    (stack.checkout.folder / ".state/gpu1/rehearsal.json").unlink()
    assert down.main(["gpu1"]) == 0
    assert stack.with_keys() == []
    assert stack.kept() == KEPT
    assert stack.docker.names == ["of-another-folder"]


def of_another_state(stack: Stack) -> None:
    marker = {"project": "seatable-vllm", "stack": "gpu1", "owner": "another", "made": True, "found": []}
    (stack.data / ".seatable-vllm.json").write_text(json.dumps(marker))
    for each in stack.docker.items:
        each.labels["seatable-vllm.owner"] = "another"


@pytest.mark.parametrize("stack", ["a folder of one's own", "a host"], indirect=True)
@pytest.mark.parametrize("words", [[], ["--purge"]])
def test_the_folder_and_the_containers_of_another_states_stack_of_that_name_are_left_alone(
    words: list[str], stack: Stack
) -> None:
    stack.docker.items = [each for each in stack.docker.items if each.name in ("of-a-killed-run", "edge")]
    of_another_state(stack)
    stack.checkout.state.drop("edge")
    before = stack.checkout.left(stack.data)
    assert down.main(["gpu1", *words]) == 0
    assert stack.checkout.left(stack.data) == before
    assert stack.docker.names == ["edge", "of-a-killed-run"]


@pytest.mark.parametrize("stack", ["this computer"], indirect=True)
def test_what_is_inside_the_checkout_is_the_stacks_whatever_state_made_it(stack: Stack) -> None:
    of_another_state(stack)
    assert down.main(["gpu1"]) == 0
    assert stack.with_keys() == []
    assert stack.docker.names == ["of-another-folder"]


def test_a_purge_removes_from_the_stacks_state_what_commands_have_put_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(down, "PROJECT", tmp_path)
    folder = tmp_path / ".state" / "gpu1"
    (folder / "logs").mkdir(parents=True)
    for name in ("rehearsal.json", "rehearsal.part", "rehearsal.lock", "known_hosts", "known_hosts.old",
                 "known_hosts.pinned", "logs/20260101T000000.000000Z-up.log", "notes.txt"):  # fmt: skip
        (folder / name).write_text("a text")
    down._forget_state("gpu1", None)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    down._forget_state("gpu1", None)
    assert not folder.exists()


# Behind SSH


@ON_A_HOST
def test_a_machine_that_is_gone_is_forgotten_with_its_keys_and_nothing_is_done_there(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(down, "GONE_SECONDS", 1)
    stack.reached('cat >/dev/null; echo "ssh: connect to host gpu1 port 22: Connection refused"; exit 255; :')
    before, files = stack.docker.names, stack.checkout.left(stack.data)
    assert down.main(["gpu1"]) == 0
    told = capsys.readouterr().err
    assert "Connection refused" in told
    assert "7 resources forgotten: nothing could be removed on ubuntu@gpu1" in told
    assert (stack.docker.names, stack.checkout.left(stack.data)) == (before, files)
    assert stack.checkout.holding(ENGINES_KEY, CLIENTS_KEY) == []


@ON_A_HOST
@pytest.mark.parametrize("words", [[], ["--purge"]])
def test_a_machine_that_is_said_to_be_gone_is_not_asked(words: list[str], stack: Stack) -> None:
    (stack.checkout.folder / ".state/gpu1/known_hosts").write_text("gpu1 ssh-ed25519 AAAA\n")
    assert down.main(["gpu1", "--machine-gone", *words]) == 0
    assert [call for call in stack.fake.calls if call[0] == "ssh"] == []
    assert stack.checkout.holding(ENGINES_KEY, CLIENTS_KEY) == []
    assert (stack.checkout.folder / ".state/gpu1/known_hosts").exists() == (not words)


@ON_A_HOST
def test_a_machine_that_refuses_the_login_is_not_taken_for_gone(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "DENIED_SECONDS", 0)
    stack.reached('cat >/dev/null; echo "ubuntu@gpu1: Permission denied (publickey)."; exit 255; :')
    with pytest.raises(CommandError, match="refuses the login"):
        down.main(["gpu1"])
    assert stack.checkout.keys() == {"keys-engine": ENGINES_KEY, "keys-seatable-1": CLIENTS_KEY}


@ON_A_HOST
def test_where_docker_does_not_answer_nothing_is_forgotten(stack: Stack) -> None:
    stack.docker.silent = True
    with pytest.raises(
        CommandError, match=r"Docker on ubuntu@gpu1 does not answer\n.*scripts/down gpu1 --machine-g"
    ):
        down.main(["gpu1", "--purge"])
    assert stack.checkout.keys() == {"keys-engine": ENGINES_KEY, "keys-seatable-1": CLIENTS_KEY}


# On AWS


@pytest.fixture
def on_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: FakeCommand
) -> Iterator[tuple[Checkout, FakeCommand]]:
    """A stack whose machine is on AWS, with a CLI that has three resources in its state until it removes them."""
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")
    monkeypatch.setattr(StackAccount, "strays", lambda *_, **__: Strays([], []))
    state = tmp_path / "state.json"
    kinds = ["aws:ec2/instance:Instance", "aws:ebs/volume:Volume", "random:index/randomUuid:RandomUuid"]
    resources = [{"type": each, "urn": f"urn::{each}", "id": "x", "outputs": {}} for each in kinds]
    state.write_text(json.dumps({"deployment": {"resources": resources}}))
    fake_command.add(
        "pulumi",
        f"""
words="$*"
case "${{words#--non-interactive }}" in
  version*) echo v3.999.0;;
  "stack export"*) cat {state};;
  "stack history"*) echo '[{{"resourceChanges": {{"delete": 3}}}}]';;
  "stack rm"*) [[ $* = *--preserve-config* ]] || rm Pulumi.gpu.yaml;;
  destroy*) echo '{{"deployment": {{}}}}' > {state};;
esac""",
    )
    pulumi_engine._cli.cache_clear()
    for checkout in in_checkout(tmp_path / "checkout", monkeypatch, "gpu", STACK_FILE):
        known_hosts = checkout.folder / ".state/gpu/known_hosts"
        known_hosts.parent.mkdir(parents=True)
        known_hosts.write_text("i-0123 ssh-ed25519 AAAA\n")
        yield checkout, fake_command
    pulumi_engine._cli.cache_clear()


def test_a_stack_on_aws_keeps_its_record_until_it_is_purged(
    on_aws: tuple[Checkout, FakeCommand], capsys: pytest.CaptureFixture[str]
) -> None:
    checkout, cli = on_aws
    assert down.main(["gpu"]) == 0
    assert "3 resources removed" in capsys.readouterr().err
    assert (checkout.folder / ".state/gpu/known_hosts").exists()
    assert not [call for call in cli.calls if "rm" in call]
    assert down.main(["gpu", "--purge"]) == 0
    assert "nothing of gpu was there" in capsys.readouterr().err
    assert checkout.left() == [".state", "Pulumi.gpu.yaml", "Pulumi.yaml", "__main__.py"]
    assert [call[-1] for call in cli.calls if "rm" in call] == ["gpu"]
    assert checkout.file.read_text() == STACK_FILE
