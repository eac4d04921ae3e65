"""Unit tier: how a machine on AWS is reached, what its settings may say, and what the commands do about it.

`ssh` is a script on PATH here, and a stack's state is a dictionary. It does NOT prove that Session Manager carries
a connection, nor that anything is made or removed at AWS.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog.aws import owned
from catalog.aws.owned import Recorded, Strays, Thing, strays
from catalog.aws.tags import OWNER
from components.machine import reach
from components.machine.aws.access import GPU_VM, Place, require_session_programs, ssh_of_instance
from components.machine.reach import AWAY, reach_program
from components.machine.ssh import Ssh
from rehearsal import run as rehearsal
from rehearsal.errors import RehearsalError
from scripts.commands import down, places
from scripts.commands.aws import Aws
from scripts.commands.engines import Known
from scripts.commands.errors import CommandError
from scripts.commands.places import NotMade, host_of
from scripts.commands.progress import Progress
from scripts.commands.pulumi_engine import INSTANCE, PulumiEngine
from scripts.commands.stacks import stack_settings
from scripts.commands.terminal import Terminal
from settings import AwsMachine, Settings, SettingsError, parse
from tests.unit.aws_support import STACK_FILE, stack

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

AWS: Mapping[str, Any] = {
    "kind": "aws",
    "instance_types": ["g6.xlarge"],
    "admin_cidrs": ["203.0.113.7/32"],
    "ssh_key": "~/.ssh/id_ed25519",
}
SSM = {**{key: value for key, value in AWS.items() if key != "admin_cidrs"}, "access": "ssm"}
DOMAIN = {"host": "llm.example.com", "tls": "acme-dns", "zone": "example.com", "acme_email": "ops@example.com"}
CLIENTS = {"seatable": {"kind": "seatable", "cidrs": ["198.51.100.10/32"]}}
PLACE: Place = {
    "instance": "i-0123456789abcdef0",
    "address": "203.0.113.99",
    "login": "ubuntu",
    "region": "eu-central-1",
}


def way(machine: Mapping[str, Any] = AWS) -> Ssh:
    return ssh_of_instance(AwsMachine.model_validate(machine), "dev", PLACE)


def settings(machine: Mapping[str, Any] = AWS, **more: object) -> Settings:
    return parse({"machine": {**machine}, "domain": DOMAIN, "clients": CLIENTS, **more})


def problems(**values: object) -> list[str]:
    """The lines of the refusal of a stack on AWS with these settings in place of its own."""
    with pytest.raises(SettingsError) as refused:
        parse({"machine": {**AWS}, "domain": DOMAIN, "clients": CLIENTS, **values})
    return str(refused.value).splitlines()[1:]


# Settings


def test_all_problems_of_a_stack_on_aws_are_told_at_once() -> None:
    lines = problems(
        machine={**AWS, "admin_cidrs": ["0.0.0.0/0"], "instance_types": "g6.xlarge", "ami": "x"},
        clients={"a": {"kind": "openai", "cidrs": ["127.0.0.1/32"]}},
    )
    keys = {line.split(": ")[0].removeprefix("seatable-vllm:") for line in lines}
    assert keys == {"machine.admin_cidrs.0", "machine.instance_types", "machine.ami", "clients.a.cidrs"}


@pytest.mark.parametrize("missing", ["aws", "session-manager-plugin"])
def test_session_manager_is_refused_before_anything_is_made_where_its_programs_are_not_here(
    missing: str, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in {"aws", "session-manager-plugin"} - {missing}:
        fake_command.add(program)
    monkeypatch.setenv("PATH", str(fake_command.folder / "bin"))
    require_session_programs(AwsMachine.model_validate(AWS))
    with pytest.raises(SettingsError) as refused:
        require_session_programs(AwsMachine.model_validate(SSM))
    assert str(refused.value).startswith(f"seatable-vllm:machine.access: ssm goes through {missing}, which is not")
    fake_command.add(missing)
    require_session_programs(AwsMachine.model_validate(SSM))


@pytest.mark.parametrize("tls", ["private-ca", "files"])
def test_on_aws_a_zone_is_for_every_source_of_certificates_and_elsewhere_for_one(tls: str) -> None:
    files = {"certificate": "c", "key": "k"} if tls == "files" else {}
    domain = {"host": "llm.example.com", "tls": tls, "zone": "example.com", **files}
    assert parse({"machine": {**AWS}, "domain": domain, "clients": CLIENTS}).domain
    with pytest.raises(SettingsError, match=r"domain\.zone: is for tls acme-dns"):
        parse({"domain": domain, "clients": CLIENTS})


# The way there


@pytest.fixture
def quick(fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch) -> FakeCommand:
    """A computer on which waiting takes no time, with Session Manager's programs."""
    monkeypatch.setattr(reach, "DENIED_SECONDS", 1)
    for name in ("sleep", "aws", "session-manager-plugin"):
        fake_command.add(name)
    return fake_command


def asked(ssh: Ssh, fake: FakeCommand, patience: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-s"],
        input=reach_program(ssh, "dev", patience),
        capture_output=True,
        text=True,
        check=False,
        cwd=fake.folder,
        env=fake.environment,
    )


def test_a_machine_is_known_by_its_instance_whatever_address_it_has() -> None:
    assert way().alias == "i-0123456789abcdef0"
    assert way().docker_host == "ssh://ubuntu@203.0.113.99:22"
    assert "HostKeyAlias=i-0123456789abcdef0" in shlex.split(way().command("true"))
    assert way(SSM).docker_host == "ssh://ubuntu@i-0123456789abcdef0:22"


def test_the_real_ssh_makes_of_a_session_what_session_manager_takes() -> None:
    words = shlex.split(way(SSM).command("true"))
    told = subprocess.run(
        ["ssh", "-G", "-F", "none", *words[1:-1]], capture_output=True, text=True, check=True
    ).stdout
    values = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    assert values["proxycommand"] == (
        "aws ssm start-session --region eu-central-1 --target %h --document-name AWS-StartSSHSession "
        "--parameters portNumber=%p"
    )
    assert values["hostname"] == "i-0123456789abcdef0"


def test_the_same_instance_with_another_host_key_is_refused_and_no_pin_is_spoken_of(quick: FakeCommand) -> None:
    quick.add("ssh", "echo 'REMOTE HOST IDENTIFICATION HAS CHANGED! SHA256:newnewnew' >&2; exit 255")
    quick.add("ssh-keygen", '[ "$3" = i-0123456789abcdef0 ] && echo "x ED25519 SHA256:oldoldold"')
    done = asked(way(), quick)
    assert done.returncode == 1
    for word in ("SHA256:oldoldold", "SHA256:newnewnew", "same instance", "--machine-replaced"):
        assert word in done.stderr
    assert "machine.host_key" not in done.stderr


@pytest.mark.parametrize(
    ("machine", "says", "words", "status"),
    [
        (AWS, "ssh: connect to host 203.0.113.99 port 22: Connection timed out",
         ("admin_cidrs", "scripts/up dev"), AWAY),
        (AWS, "ubuntu@203.0.113.99: Permission denied (publickey).", ("machine.ssh_key", "authorized_keys"), 1),
        (SSM, "An error occurred (TargetNotConnected) when calling the StartSession operation: not connected\n"
         "Connection closed by UNKNOWN port 65535", ("not connected", "ssm:StartSession"), AWAY),
        (SSM, "An error occurred (AccessDeniedException) when calling the StartSession operation\n"
         "Connection closed by UNKNOWN port 65535", ("AccessDeniedException", "ssm:StartSession"), 1),
        (SSM, "Unable to locate credentials. You can configure credentials by running aws configure.\n"
         "Connection closed by UNKNOWN port 65535", ("Unable to locate credentials", "aws configure"), 1),
    ],
)  # fmt: skip
def test_a_machine_on_aws_that_does_not_let_us_in_is_explained_in_its_own_settings(
    machine: Mapping[str, Any], says: str, words: tuple[str, ...], status: int, quick: FakeCommand
) -> None:
    quick.add("ssh", f"printf '%s\\n' {shlex.quote(says)} >&2; exit 255")
    done = asked(way(machine), quick)
    assert done.returncode == status
    for word in (*words, "phase: machine ready", "cause: ", "change: "):
        assert word in done.stderr
    assert "machine.ssh " not in done.stderr


@pytest.mark.parametrize("missing", ["aws", "session-manager-plugin"])
def test_session_managers_programs_are_missed_by_name_before_anything_is_tried(
    missing: str, fake_command: FakeCommand
) -> None:
    fake_command.add("ssh", "exit 1")
    for name in {"aws", "session-manager-plugin"} - {missing}:
        fake_command.add(name)
    # Only what bash itself and the program need, so that a real aws on this computer is not found.
    for name in ("bash", "mkdir", "dirname", "grep"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (fake_command.folder / "bin" / name).symlink_to(found)
    done = subprocess.run(
        ["bash", "-s"],
        input=reach_program(way(SSM), "dev", 1),
        capture_output=True,
        text=True,
        check=False,
        cwd=fake_command.folder,
        env={"PATH": str(fake_command.folder / "bin")},
    )
    assert done.returncode == 1
    assert f"{missing} " in done.stderr
    assert "machine.access" in done.stderr
    assert not [call for call in fake_command.calls if call[0] == "ssh"]


# The commands


@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> list[Thing]:
    """What the account has that no state lists; nobody is asked for it. Removed things leave the list."""
    things: list[Thing] = []

    class Account:
        stack, aws = "dev", Aws("eu-central-1")

        def strays(self, recorded: Recorded, *_: object, **__: object) -> Strays:
            return strays(things, recorded)

        def end(self, mine: Iterable[Thing], _: object) -> None:
            for each in list(mine):
                things.remove(each)

    monkeypatch.setattr(down, "account_of", lambda *_: Account())
    monkeypatch.setattr(down, "recorded_of", lambda _: Recorded(owner="ours"))
    monkeypatch.setattr(down, "region_of", lambda _: None)
    return things


def state(*resources: Mapping[str, object]) -> Any:
    """A stack whose exported state has these resources."""
    deployment = {"resources": list(resources)}
    return SimpleNamespace(export_stack=lambda: SimpleNamespace(deployment=deployment))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> PulumiEngine:
    """The engine of a stack, without a CLI."""
    made = PulumiEngine.__new__(PulumiEngine)
    monkeypatch.setattr(made, "_stack", lambda **_: state(), raising=False)
    return made


def test_the_place_of_a_machine_is_in_the_state_though_the_up_has_failed_later(
    engine: PulumiEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.place() is None
    half, instance = {"type": GPU_VM, "outputs": {}}, {"type": INSTANCE}
    whole = {**half, "outputs": {"place": PLACE}}
    monkeypatch.setattr(engine, "_stack", lambda **_: state(half, instance))
    assert engine.place() is None
    monkeypatch.setattr(engine, "_stack", lambda **_: state(whole, instance))
    assert engine.place() == PLACE
    monkeypatch.setattr(engine, "_stack", lambda **_: state(whole))
    assert engine.place() is None, "an interrupted down has removed the instance"


@pytest.mark.parametrize(
    ("resources", "removed"),
    [
        (["pulumi:pulumi:Stack", "pulumi:providers:command"], 0),
        (["pulumi:pulumi:Stack", "random:index/randomUuid:RandomUuid"], 2),
        ([], 0),
    ],
)
def test_a_stack_whose_up_was_refused_has_nothing_to_remove(
    engine: PulumiEngine, monkeypatch: pytest.MonkeyPatch, resources: list[str], removed: int
) -> None:
    engine.here = None
    deployment = {"resources": [{"type": each} for each in resources]}
    answers = {"_known": Known(), "_wait_for_lock": None, "_export": deployment, "_change": None}
    for name, answer in {**answers, "_last_changes": {"delete": len(resources)}}.items():
        monkeypatch.setattr(engine, name, lambda *_, answer=answer: answer)
    assert engine.down(Progress(Terminal(), SimpleNamespace(say=print))) == removed


def test_the_commands_reach_the_machine_that_the_state_knows(
    monkeypatch: pytest.MonkeyPatch, home_with_key: Path
) -> None:
    monkeypatch.setenv("HOME", str(home_with_key))
    monkeypatch.setattr(places, "place_of", lambda _: PLACE)
    host = host_of("dev", settings())
    assert host
    assert (host.name, host.data) == ("ubuntu@203.0.113.99", "/srv/seatable-vllm")


def test_a_machine_that_is_yet_to_be_made_is_not_taken_for_this_computer(
    monkeypatch: pytest.MonkeyPatch, home_with_key: Path
) -> None:
    monkeypatch.setenv("HOME", str(home_with_key))
    monkeypatch.setattr(places, "place_of", lambda _: None)
    with pytest.raises(NotMade, match="scripts/up dev"):
        host_of("dev", settings())


def test_a_protected_stack_is_not_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(down, "engine_of", lambda *_: pytest.fail("its engine was asked"))
    monkeypatch.setattr(down, "stack_settings", lambda _: settings({**AWS, "protected": True}))
    with pytest.raises(CommandError, match=r"machine\.protected to false, run scripts/up prod"):
        down.main(["prod"])


@pytest.mark.usefixtures("unlisted")
def test_a_stack_is_taken_down_without_asking_its_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = SimpleNamespace(name="pulumi", down=lambda _: 70)
    monkeypatch.setattr(down, "engine_of", lambda *_: engine)
    monkeypatch.setattr(down, "host_of", lambda *_: pytest.fail("the machine was asked"))
    monkeypatch.setattr(down, "what_stays", lambda _: ["stays on the bill: snap-1"])
    disk = {"data_disk": {"at_end": "snapshot"}}
    monkeypatch.setattr(down, "stack_settings", lambda _: settings({**AWS, **disk}))
    assert down.main(["dev"]) == 0
    told = "".join(capsys.readouterr())
    assert "70 resources removed" in told
    assert "a snapshot of the data volume (tag Stack=dev)\nstays on the bill: snap-1" in told


@pytest.mark.usefixtures("unlisted")
@pytest.mark.parametrize(("removed", "at_end"), [(70, "delete"), (70, "retain"), (0, "delete")])
def test_where_a_machine_was_is_forgotten_with_it_and_the_rest_of_the_file_stays(
    removed: int, at_end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = "    placed: {instance_type: g5.xlarge, zone: us-east-1b}\n"
    machine = f"    data_disk: {{at_end: {at_end}}} # costs\n{placed}"
    text = STACK_FILE.replace("  # who may use it\n", f"{machine}  # who may use it\n")
    stack(tmp_path, text)
    monkeypatch.setattr(down, "PROJECT", tmp_path)
    monkeypatch.setattr(down, "stack_settings", lambda name: stack_settings(name, tmp_path))
    monkeypatch.setattr(down, "engine_of", lambda *_: SimpleNamespace(name="pulumi", down=lambda _: removed))
    monkeypatch.setattr(down, "what_stays", lambda _: [])
    assert down.main(["gpu"]) == 0
    left = (tmp_path / "Pulumi.gpu.yaml").read_text()
    assert left == text.replace(placed, "")


@pytest.mark.usefixtures("unlisted")
def test_a_machine_that_could_not_be_removed_is_still_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> int:
        raise CommandError("cause: AWS says no\nchange: ask again")

    text = STACK_FILE.replace("  # who", "    placed: {instance_type: g5.xlarge, zone: us-east-1b}\n  # who")
    stack(tmp_path, text)
    monkeypatch.setattr(down, "PROJECT", tmp_path)
    monkeypatch.setattr(down, "stack_settings", lambda name: stack_settings(name, tmp_path))
    monkeypatch.setattr(down, "engine_of", lambda *_: SimpleNamespace(name="pulumi", down=fails))
    with pytest.raises(CommandError):
        down.main(["gpu"])
    assert (tmp_path / "Pulumi.gpu.yaml").read_text() == text


def test_without_a_cli_it_is_not_said_that_nothing_of_the_stack_is_at_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(down, "engine_of", lambda *_: None)
    monkeypatch.setattr(down, "stack_settings", lambda _: settings())
    with pytest.raises(CommandError, match="no Pulumi CLI here"):
        down.main(["dev"])


def test_a_machine_of_another_state_is_named_and_not_passed_over(
    unlisted: list[Thing], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(down, "engine_of", lambda *_: SimpleNamespace(name="pulumi", down=lambda _: 0))
    monkeypatch.setattr(down, "stack_settings", lambda _: settings())
    assert down.main(["dev"]) == 0
    assert "nothing of dev was there" in "".join(capsys.readouterr())
    unlisted.append(Thing(owned.INSTANCE, "i-7", {OWNER: "another"}, "g6.xlarge, running"))
    with pytest.raises(CommandError, match=r"in no state here: instance i-7 \(g6.xlarge, running\)"):
        down.main(["dev"])
    assert unlisted, "it was touched"


def test_what_a_killed_runs_last_calls_have_made_goes_too_and_is_counted(
    unlisted: list[Thing], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(down, "engine_of", lambda *_: SimpleNamespace(name="pulumi", down=lambda _: 2))
    monkeypatch.setattr(down, "stack_settings", lambda _: settings())
    monkeypatch.setattr(down, "what_stays", lambda _: [])
    unlisted.append(Thing(owned.INSTANCE, "i-8", {OWNER: "ours"}))
    assert down.main(["dev"]) == 0
    assert not unlisted
    assert "3 resources removed" in "".join(capsys.readouterr())


@pytest.mark.parametrize("at_end", ["delete", "snapshot", "retain"])
def test_a_data_volume_in_no_state_stays_and_only_retain_ends_well_with_it(
    at_end: str, unlisted: list[Thing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(down, "engine_of", lambda *_: SimpleNamespace(name="pulumi", down=lambda _: 2))
    monkeypatch.setattr(down, "stack_settings", lambda _: settings({**AWS, "data_disk": {"at_end": at_end}}))
    monkeypatch.setattr(down, "what_stays", lambda _: [])
    unlisted.append(Thing(owned.VOLUME, "vol-8", {OWNER: "ours"}, "100 GiB, available"))
    if at_end == "retain":
        assert down.main(["dev"]) == 0
    else:
        command = "aws ec2 --region eu-central-1 delete-volume --volume-id vol-8"
        with pytest.raises(CommandError, match=rf"data volume vol-8 \(100 GiB, available\)\nchange: {command}\n"):
            down.main(["dev"])
    assert unlisted, "it was touched"


def test_the_rehearsal_refuses_aws_in_one_line_before_anything_happens(tmp_path: Path) -> None:
    machine = json.dumps({**AWS})
    (tmp_path / "Pulumi.dev.yaml").write_text(f"config:\n  seatable-vllm:machine: {machine}\n")
    (tmp_path / "Pulumi.yaml").write_text("name: seatable-vllm\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RehearsalError) as refused:
        rehearsal.up("dev", lambda *_: None, tmp_path)
    assert "makes nothing on AWS" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
