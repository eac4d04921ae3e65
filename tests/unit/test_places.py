"""Unit tier: what the commands know of a stack's machine without one: whether it is waited for, its host key, and
whose things are whose. A script on PATH is `ssh`.

Does not prove that anything is reached over a network: tests/live/test_host.py does.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
import requests

from components.machine import reach
from components.machine.machine import DATA_LABEL, OWNER_LABEL
from components.machine.reach import identity_of
from components.machine.ssh import ssh_of
from rehearsal import forward
from rehearsal.errors import RehearsalError
from scripts.commands import places
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Known
from scripts.commands.errors import CommandError
from scripts.commands.places import Host, MachineAway, reached
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.terminal import Terminal
from settings import HostMachine, Settings, parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: FakeCommand) -> Host:
    """A machine behind SSH, and no patience but what a test asks for."""
    monkeypatch.setattr(places, "PROJECT", tmp_path)
    monkeypatch.setattr(reach, "DENIED_SECONDS", 0)
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    # Who waits for longer than was asked is ended, and does not keep the test waiting.
    naps = tmp_path / "naps"
    fake_command.add("sleep", f"echo >> {naps}; [ $(wc -l < {naps}) -lt 60 ] || kill $PPID; exec /bin/sleep 0.1")
    return Host("gpu1", ssh_of(HostMachine(ssh="ubuntu@gpu1"), "gpu1"), "/srv/data")


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        ("ssh: connect to host gpu1 port 22: Connection refused", MachineAway, "ubuntu@gpu1 does not answer"),
        ("ssh: Could not resolve hostname gpu1: Name or service not known", MachineAway, "name of the machine is"),
        ("ubuntu@gpu1: Permission denied (publickey).", CommandError, "refuses the login"),
        ("command-line line 0: Bad configuration option: x", CommandError, "Bad configuration option: x"),
    ],
)
def test_only_a_machine_that_does_not_answer_at_all_is_away(
    says: str, kind: type[CommandError], words: str, host: Host, fake_command: FakeCommand
) -> None:
    fake_command.add("ssh", f"cat >/dev/null; echo '{says}'; exit 255")
    said: list[str] = []
    with pytest.raises(CommandError) as failed:
        host.wait(said.append, 1)
    assert type(failed.value) is kind
    phase, cause, change = str(failed.value).splitlines()
    assert phase == "phase: machine ready"
    assert words in cause
    assert change.startswith("change: ")
    assert said[-3:] == [phase, cause, change]
    assert any(line.startswith("waiting for ubuntu@gpu1") for line in said) == ("refused" in says)


def test_a_machine_that_answers_late_is_waited_for(host: Host, fake_command: FakeCommand, tmp_path: Path) -> None:
    tries = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 3 ]"
    fake_command.add("ssh", f'cat >/dev/null; {tries} || exit 255; echo \'{{"identity": "0123"}}\'')
    said: list[str] = []
    host.wait(said.append, 60)
    assert said[-1] == '{"identity": "0123"}'
    assert len([call for call in fake_command.calls if call[0] == "ssh"]) == 3


def test_what_a_program_there_prints_is_shown_and_is_its_failure_whatever_bytes_it_has(
    host: Host, fake_command: FakeCommand
) -> None:
    said: list[str] = []
    fake_command.add("ssh", r"cat >/dev/null; printf 'caf\xe9\nthe end\n'")
    host.run("true", said.append)
    assert said == ["caf\N{REPLACEMENT CHARACTER}", "the end"]
    fake_command.add("ssh", "cat >/dev/null; echo the cause >&2; exit 3")
    with pytest.raises(CommandError, match="the cause"):
        host.run("true", said.append)


def test_a_question_runs_in_the_machines_python_and_its_answer_is_no_failure_whatever_it_is(
    host: Host, fake_command: FakeCommand, tmp_path: Path
) -> None:
    fake_command.add("ssh", 'cd /; echo "asked in $OLDPWD"; exec sh -c "${!#}"')
    done = host.ask("import sys; print('caf\\N{LATIN SMALL LETTER E WITH ACUTE}'); sys.exit('why')", 60)
    assert (done.returncode, done.stderr) == (1, "why\n")
    assert done.stdout == f"asked in {tmp_path}\ncaf\N{LATIN SMALL LETTER E WITH ACUTE}\n"


def test_a_question_that_is_not_answered_in_its_time_is_given_up_and_no_ssh_is_left(
    host: Host, fake_command: FakeCommand, tmp_path: Path
) -> None:
    fake_command.add("ssh", f"echo $$ > {tmp_path}/process; exec /bin/sleep 9")
    with pytest.raises(subprocess.TimeoutExpired):
        host.ask("", 2)
    assert not Path("/proc", (tmp_path / "process").read_text().strip()).exists()


TUNNEL = """
for word; do case $word in 127.0.0.1:*) port=$word;; *docker.sock:*) sock=${word%%:*};; esac; done
echo "$port" > PORT
touch "$sock"
exec cat
"""
"""An `ssh` that forwards nothing, and makes the file by which the real one shows that it does."""


class Client:
    """A client of Docker that raises the first of CLIENT_FAILS."""

    def __init__(self, base_url: str, timeout: int) -> None:
        self.base_url, self.timeout = base_url, timeout

    def ping(self) -> None:
        if CLIENT_FAILS:
            raise CLIENT_FAILS[0]


CLIENT_FAILS: list[Exception] = []
GONE = [docker.errors.DockerException("cut"), requests.ConnectionError("cut")]


@pytest.fixture
def tunnelled(host: Host, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    fake_command.add("ssh", TUNNEL.replace("PORT", str(tmp_path / "port")))
    monkeypatch.setattr(docker, "DockerClient", Client)
    CLIENT_FAILS.clear()
    return host


def test_the_machines_docker_and_a_port_of_it_are_brought_here_until_they_are_no_longer_needed(
    tunnelled: Host, tmp_path: Path
) -> None:
    with tunnelled.forwarded(8080) as (url, port):
        socket = Path(url.removeprefix("unix://"))
        assert socket.exists()
        assert (tmp_path / "port").read_text() == f"127.0.0.1:{port}:127.0.0.1:8080\n"
    assert not socket.parent.exists()
    with tunnelled.forwarded() as (_, port):
        assert port is None
        assert (tmp_path / "port").read_text() == "\n"


def test_a_tunnel_that_is_refused_is_told_at_once_in_the_last_words_of_ssh(
    host: Host, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "OPEN_SECONDS", 3600)
    for says, told in (("echo banner; echo refused >&2", "refused"), ("true", "ssh gives no reason")):
        fake_command.add("ssh", f"{says}; exit 255")
        with (
            pytest.raises(RehearsalError, match=rf"cause: no tunnel to the machine's Docker: {told}\n"),
            host.forwarded(),
        ):
            pass


def test_a_tunnel_that_does_not_open_in_its_time_is_given_up_and_no_ssh_is_left(
    host: Host, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forward, "OPEN_SECONDS", 1)
    fake_command.add("ssh", f"echo $$ > {tmp_path}/process; echo connecting; exec cat")
    with pytest.raises(RehearsalError, match="no tunnel to the machine's Docker: connecting"), host.forwarded():
        pass
    assert not Path("/proc", (tmp_path / "process").read_text().strip()).exists()


def test_what_is_on_a_machines_docker_is_seen_through_the_tunnel(tunnelled: Host) -> None:
    with tunnelled.docker() as here:
        assert here is not None
        assert (here.stack, here.data, here.by_place, here.owner) == ("gpu1", "/srv/data", False, None)
        client: Any = here.client
        assert client.base_url.endswith("/docker.sock")
        assert client.timeout == 120, "the SDK's own minute is too short for a machine under load"


@pytest.mark.parametrize("error", GONE)
def test_a_docker_that_does_not_answer_is_left_to_the_program_and_one_that_is_lost_later_is_a_failure(
    error: Exception, tunnelled: Host
) -> None:
    def lose(here: DockerState | None) -> None:
        assert here
        raise error

    with (
        pytest.raises(CommandError, match=r"Docker on ubuntu@gpu1 was reached, and now: cut"),
        tunnelled.docker() as here,
    ):
        lose(here)
    CLIENT_FAILS.append(error)
    with tunnelled.docker() as here:
        assert here is None


class Machine:
    """In place of a Host: it fails, or is reached."""

    name = "ubuntu@gpu1"

    def __init__(self, failure: CommandError | None = None) -> None:
        self.failure = failure
        self.patience: list[int] = []

    def wait(self, _: object, patience: int) -> None:
        self.patience.append(patience)
        if self.failure:
            raise self.failure

    @contextlib.contextmanager
    def docker(self) -> Iterator[str]:
        yield "its Docker"


ON_HOST = parse({"machine": {"kind": "host", "ssh": "ubuntu@gpu1"}})
ON_AWS = parse({
    "machine": {"kind": "aws", "instance_types": ["g6.xlarge"], "admin_cidrs": ["8.8.8.8/32"]},
})  # fmt: skip
AWAY, REFUSED = MachineAway("it is away"), CommandError("it refuses the login")


@pytest.mark.parametrize(
    ("settings", "failure", "found", "patience"),
    [
        (ON_HOST, None, "its Docker", 77),
        (ON_HOST, AWAY, AWAY, 77),
        (ON_HOST, REFUSED, REFUSED, 77),
        (ON_AWS, None, "its Docker", 20),
        (ON_AWS, AWAY, None, 20),
        (ON_AWS, REFUSED, REFUSED, 20),
    ],
    ids=["host", "host away", "host refuses", "aws", "aws away", "aws refuses"],
)
def test_a_machine_of_ones_own_has_to_answer_and_one_that_the_program_makes_may_be_away(
    settings: Settings, failure: CommandError | None, found: object, patience: int
) -> None:
    machine = Machine(failure)
    got: list[object] = []
    try:
        with reached("gpu1", settings, machine, Terminal(), 77) as here:  # type: ignore[arg-type]
            got.append(here)
    except CommandError as error:
        got.append(error)
    assert got == [found]
    assert machine.patience == [patience]


def test_a_machine_that_is_yet_to_be_made_is_not_looked_for() -> None:
    with reached("gpu1", ON_AWS, None, Terminal()) as here:
        assert here is None


@pytest.mark.parametrize("data_dir", [None, "/srv/mine"])
def test_the_folder_inside_the_checkout_is_the_stacks_by_its_place_and_another_is_not(
    data_dir: str | None, monkeypatch: pytest.MonkeyPatch, fake_command: FakeCommand
) -> None:
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/stand-in.sock")
    monkeypatch.setattr(docker, "DockerClient", lambda base_url, **_: base_url)
    fake_command.add("docker")
    settings = parse({"machine": {"kind": "local", "data_dir": data_dir}} if data_dir else {})
    with reached("gpu1", settings, None, Terminal()) as here:
        assert here
        assert str(here.client) == "unix:///run/stand-in.sock"
        own = Path(__file__).resolve().parents[2] / ".state" / "gpu1" / "data"
        assert (here.data, here.by_place) == (data_dir or str(own), data_dir is None)


def test_only_the_replaced_machines_key_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PROJECT", tmp_path)
    known = tmp_path / ".state" / "gpu1" / "known_hosts"
    known.parent.mkdir(parents=True)
    known.write_text(
        "gpu1 ssh-ed25519 AAAA\nbastion ssh-ed25519 gpu1\n|1|hashed ssh-rsa DDDD\ngpu1 ssh-rsa CCCC\n"
    )
    way = ssh_of(HostMachine(ssh="ubuntu@gpu1", jump="me@bastion"), "gpu1")
    Host("gpu1", way, "/srv/data").forget_host_key()
    assert known.read_text() == "bastion ssh-ed25519 gpu1\n"
    known.unlink()
    Host("gpu1", way, "/srv/data").forget_host_key()
    assert not known.exists()


def test_a_machine_that_does_not_say_which_one_it_is_ends_an_up() -> None:
    assert identity_of('warning\n{"identity": "0123"}\n') == "0123"
    for printed in ("", None, "{}"):
        with pytest.raises(ValueError, match="which one it is"):
            identity_of(printed)


class Found:
    """A container or network as Docker's client has it."""

    def __init__(self, name: str, owner: str | None, data: str = "/srv/data") -> None:
        self.id, self.name = name, name
        self.labels = {DATA_LABEL: data} | ({OWNER_LABEL: owner} if owner else {})


def seen(*containers: Found, **known: Any) -> DockerState:
    docker = types.SimpleNamespace(
        containers=types.SimpleNamespace(list=lambda **_: list(containers)),
        networks=types.SimpleNamespace(list=lambda **_: []),
    )
    return DockerState(docker, "gpu1", "/srv/data", **known)  # type: ignore[arg-type]


OURS, OTHERS, EARLIER = Found("ours", "this-state"), Found("others", "another-state"), Found("earlier", None)


def test_containers_of_a_stack_of_that_name_and_folder_that_another_computer_has_made_are_left_alone() -> None:
    with pytest.raises(CommandError, match=r"another state.*\n.*scripts/down gpu1"):
        seen(OURS, OTHERS).refuse_foreign([], "this-state")
    with pytest.raises(CommandError, match="another state"):
        seen(OTHERS).refuse_foreign([], None)
    seen(OURS, EARLIER).refuse_foreign([], "this-state")
    assert seen(OURS, OTHERS, EARLIER, owner="this-state").ids() == {"ours", "earlier"}


def test_without_a_state_the_name_and_the_folder_say_what_down_removes() -> None:
    assert seen(OTHERS, EARLIER).ids() == {"others", "earlier"}
    assert seen(Found("elsewhere", None, "/srv/other")).ids() == set()


def test_a_lost_state_is_no_matter_for_a_folder_inside_the_checkout() -> None:
    here = seen(OTHERS, by_place=True, owner="this-state")
    here.refuse_foreign([], "this-state")
    assert here.ids() == {"others"}


def test_what_tells_a_stack_from_another_of_its_name_is_read_from_pulumis_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resources = [
        {"type": "random:index/randomUuid:RandomUuid", "urn": "urn::machine-owner", "outputs": {"result": "u"}},
        {"type": "docker:index/container:Container", "urn": "urn::engine", "id": "0123", "inputs": {}},
    ]
    for known, owner in ((resources, "u"), (resources[1:], None)):
        monkeypatch.setattr(
            PulumiEngine, "_run", lambda *_, known=known: json.dumps({"deployment": {"resources": known}})
        )
        assert PulumiEngine("gpu1", None, "").known() == Known(frozenset({"0123"}), frozenset(), owner)
