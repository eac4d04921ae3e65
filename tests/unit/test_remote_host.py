"""Unit tier: how a `host` is reached, what is asked of it, and what the whole program asks for on one.

`ssh` is a script on PATH here, and no machine answers. It does NOT prove what a real sshd, a real Docker behind it
or a GPU make of it: the live tier has a whole machine, and nothing here has a GPU.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components.gpu_proof import gpu_program
from components.machine import reach
from components.machine.reach import AWAY, reach_program
from components.machine.remote_host import PCI, SharedArgs, glance_command, ready_program, whole
from components.machine.ssh import Ssh, prepare, refuse_docker_variables, ssh_of
from rehearsal.forward import provider_command
from settings import HostMachine, SettingsError, SshTarget, parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, Recorded, RecordProgram

PLAIN = Ssh(SshTarget("ubuntu", "gpu1.example.com"), ".state/gpu1/known_hosts")
EVERYTHING = Ssh(
    SshTarget("ubuntu", "gpu1", 2222), ".state/a b/kh", key="~/.ssh/my key", jump=SshTarget("me", "bastion")
)
HOST = {"kind": "host", "ssh": "ubuntu@gpu1.example.com"}
IDENTITY = {"identity": "0123456789abcdef"}


def bash(program: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program as a machine does, in a folder of its own, where known_hosts may be written."""
    with tempfile.TemporaryDirectory() as name:
        return subprocess.run(
            ["bash", "-s"],
            input=program,
            capture_output=True,
            text=True,
            check=False,
            cwd=name,
            env={**os.environ, **(environment or {})},
        )


def ssh_configuration(arguments: list[str]) -> dict[str, str]:
    """What the real ssh makes of these arguments."""
    words = ["ssh", "-G", "-F", "none", *arguments[1:]]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in told.splitlines() if " " in line}


# Settings


@pytest.mark.parametrize(
    "text", ["ubuntu@gpu1", "a_b.c-d@h.example.com:2222", "root@198.51.100.7", "me@[2001:db8::1]:22"]
)
def test_an_ssh_address_is_read_and_written_back(text: str) -> None:
    assert str(SshTarget.parse(text)) == text.removesuffix(":22")


@pytest.mark.parametrize(
    "text",
    ["gpu1", "-oProxyCommand=x@h", "u@-h", "u@h:0", "u@h:70000", "u@h:x", "u@h/x", "ssh://u@h", "u@h; id", ""],
)
def test_what_is_no_ssh_address_is_refused_and_told_the_form(text: str) -> None:
    with pytest.raises(SettingsError, match=r"machine\.ssh.*USER@HOST"):
        parse({"machine": {"kind": "host", "ssh": text}})


@pytest.mark.parametrize("gpus", [0, -1, True, [], ["a,b"], "all", {"a": 1}, 1.5])
def test_what_is_no_choice_of_gpus_is_refused(gpus: object) -> None:
    with pytest.raises(SettingsError, match=r"machine\.gpus"):
        parse({"machine": {**HOST, "gpus": gpus}})


def test_a_setting_of_a_host_is_unknown_to_this_computer() -> None:
    with pytest.raises(SettingsError, match=r"machine\.ssh: is for a machine of kind host, not local; remove it"):
        parse({"machine": {"kind": "local", "ssh": "a@b"}})


# The options of ssh


@pytest.mark.parametrize("ssh", [PLAIN, EVERYTHING])
def test_ssh_asks_nobody_and_checks_every_host_key_against_the_stacks_own_file(ssh: Ssh) -> None:
    told = ssh_configuration([*shlex.split(ssh.command("true"))[:-1]])
    assert told["batchmode"] == "yes"
    assert told["stricthostkeychecking"] == "accept-new"
    assert told["userknownhostsfile"] == ssh.known_hosts
    assert told["globalknownhostsfile"] == "/dev/null"
    assert told.get("controlpath", "none") == "none"
    assert int(told["serveraliveinterval"]) * int(told["serveralivecountmax"]) <= 180
    assert told["hostname"] == ssh.target.host
    assert int(told["port"]) == ssh.target.port


def test_a_key_file_is_the_only_key_and_its_home_is_left_to_ssh() -> None:
    told = ssh_configuration(shlex.split(EVERYTHING.command("true"))[:-1])
    assert told["identitiesonly"] == "yes"
    assert told["identityfile"] == "~/.ssh/my key"
    assert "IdentitiesOnly" not in PLAIN.command("true")


def test_the_jump_host_is_checked_as_strictly_as_the_machine() -> None:
    words = shlex.split(ssh_configuration(shlex.split(EVERYTHING.command("true"))[:-1])["proxycommand"])
    assert words[-1] == "bastion"
    told = ssh_configuration([word.replace("%h", "gpu1").replace("%p", "2222") for word in words])
    assert told["batchmode"] == "yes"
    assert told["stricthostkeychecking"] == "accept-new"
    assert told["userknownhostsfile"] == EVERYTHING.known_hosts
    assert told["hostkeyalias"] == "bastion"


def test_a_pinned_key_is_the_only_one_and_needs_no_first_contact(tmp_path: Path) -> None:
    machine = HostMachine(ssh="ubuntu@gpu1:2222", host_key="ssh-ed25519 AAAA")
    ssh = ssh_of(machine, "gpu1")
    prepare(machine, ssh, tmp_path)
    assert (tmp_path / ssh.known_hosts).read_text() == "gpu1-2222 ssh-ed25519 AAAA\n"
    assert ssh_configuration(shlex.split(ssh.command("true"))[:-1])["stricthostkeychecking"] in ("yes", "true")
    replaced = HostMachine(ssh="ubuntu@gpu1:2222", host_key="ssh-ed25519 BBBB")
    prepare(replaced, ssh_of(replaced, "gpu1"), tmp_path)
    assert (tmp_path / ssh.known_hosts).read_text() == "gpu1-2222 ssh-ed25519 BBBB\n"


def test_the_tunnel_of_a_provider_forwards_though_its_options_forbid_it() -> None:
    provider = {"host": EVERYTHING.docker_host, "sshOpts": json.dumps(EVERYTHING.options())}
    arguments = provider_command(provider)(["/tmp/d.sock:/var/run/docker.sock"])
    assert arguments[-1] == "cat", "what reads to the end of its input ends with the process that opened it"
    told = ssh_configuration(arguments[:-1])
    assert told["clearallforwardings"] == "no"
    assert told["exitonforwardfailure"] == "yes"
    assert (told["user"], told["hostname"], told["port"]) == ("ubuntu", "gpu1", "2222")


def test_the_line_for_people_has_port_key_and_jump_host() -> None:
    line = EVERYTHING.tunnel(8080)
    assert line == "ssh -i ~/'.ssh/my key' -N -L 8080:127.0.0.1:8080 -p 2222 -J me@bastion ubuntu@gpu1"
    assert PLAIN.tunnel(8080) == "ssh -N -L 8080:127.0.0.1:8080 ubuntu@gpu1.example.com"


@pytest.mark.parametrize(
    "name",
    ["DOCKER_CONTEXT", "DOCKER_SSH_OPTS", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS",
     "DOCKER_CERT_MATERIAL", "DOCKER_KEY_MATERIAL", "DOCKER_CA_MATERIAL"],
)  # fmt: skip
def test_a_variable_that_would_lead_docker_elsewhere_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        refuse_docker_variables({name: "x"})


def test_a_key_file_that_ssh_would_refuse_is_named_with_the_way_out(tmp_path: Path) -> None:
    key = tmp_path / "key"
    machine = HostMachine(ssh="a@b", ssh_key=str(key))
    with pytest.raises(SettingsError, match=r"machine\.ssh_key: .*key cannot be read"):
        prepare(machine, ssh_of(machine, "s"), tmp_path)
    key.write_text("ssh-ed25519 AAAA a@b\n")
    with pytest.raises(SettingsError, match="is not a private key"):
        prepare(machine, ssh_of(machine, "s"), tmp_path)
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")


@pytest.mark.parametrize("others", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_key_file_of_which_others_may_do_anything_is_refused(others: int, tmp_path: Path) -> None:
    key = tmp_path / "key"
    machine = HostMachine(ssh="a@b", ssh_key=str(key))
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o600)
    prepare(machine, ssh_of(machine, "s"), tmp_path)
    key.chmod(0o600 | others)
    with pytest.raises(SettingsError, match="chmod 600"):
        prepare(machine, ssh_of(machine, "s"), tmp_path)


def test_the_folder_of_a_pinned_key_is_for_the_user_alone_under_any_umask(tmp_path: Path) -> None:
    machine = HostMachine(ssh="a@b", host_key="ssh-ed25519 AAAA")
    ssh = ssh_of(machine, "s")
    before = os.umask(0)
    try:
        prepare(machine, ssh, tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ssh.known_hosts).parent.stat().st_mode) == 0o700


def test_the_way_to_a_machine_has_all_that_its_settings_say() -> None:
    plain = HostMachine(ssh="ubuntu@gpu1")
    assert ssh_of(plain, "s") == Ssh(SshTarget("ubuntu", "gpu1"), ".state/s/known_hosts")
    given = HostMachine(ssh="u@h:2222", ssh_key="~/key", jump="me@bastion", host_key="ssh-ed25519 AAAA")
    assert ssh_of(given, "s") == Ssh(
        SshTarget("u", "h", 2222),
        ".state/s/known_hosts.pinned",
        key="~/key",
        jump=SshTarget("me", "bastion"),
        pinned=True,
    )


# Waiting for the machine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fake_command: FakeCommand) -> FakeCommand:
    """Patience of one second, and a `sleep` that does not."""
    monkeypatch.setattr(reach, "DENIED_SECONDS", 1)
    fake_command.add("sleep", "exec /bin/sleep 0.2")
    return fake_command


def ssh_that(fake: FakeCommand, *says: tuple[int, str]) -> None:
    """An `ssh` that answers with these, one after the other, the last one for ever."""
    counter = shlex.quote(str(fake.folder / "count"))
    cases = "\n".join(
        f"{n}) printf '%s\\n' {shlex.quote(text)}; exit {status};;" for n, (status, text) in enumerate(says[:-1])
    )
    status, text = says[-1]
    fake.add(
        "ssh",
        f"cat >/dev/null; n=$(cat {counter} 2>/dev/null || echo 0); echo $((n + 1)) > {counter}\n"
        f"case $n in\n{cases}\n*) printf '%s\\n' {shlex.quote(text)}; exit {status};;\nesac",
    )


REFUSED = (255, "ssh: connect to host gpu1.example.com port 22: Connection refused")
SEEN = (0, '{"identity": "0123456789abcdef"}')


def test_a_machine_that_boots_is_waited_for_and_then_known(quick: FakeCommand) -> None:
    ssh_that(quick, REFUSED, (75, "cloud-init is still at work"), (75, "Docker does not answer yet"), SEEN)
    done = bash(reach_program(PLAIN, "gpu1", 30), quick.environment)
    assert (done.returncode, json.loads(done.stdout)) == (0, IDENTITY)
    for word in ("Connection refused", "cloud-init", "Docker does not answer"):
        assert word in done.stderr


def test_a_first_contact_that_says_more_than_its_answer_is_understood(quick: FakeCommand) -> None:
    ssh_that(quick, (0, "Welcome to gpu1\n" + SEEN[1]))
    assert json.loads(bash(reach_program(PLAIN, "gpu1"), quick.environment).stdout.splitlines()[-1]) == IDENTITY


def test_the_first_contact_makes_the_folder_of_the_host_keys_for_the_user_alone(quick: FakeCommand) -> None:
    ssh_that(quick, SEEN)
    told = shlex.quote(reach_program(PLAIN, "gpu1", 1))
    done = bash(f"umask 000; bash -c {told}; stat -c %a .state/gpu1", quick.environment)
    assert done.stdout.splitlines() == [SEEN[1], "700"]


@pytest.mark.parametrize(
    ("says", "words", "status"),
    [
        (REFUSED[1], ("does not answer", "Connection refused", "start the machine"), AWAY),
        ("ssh: Could not resolve hostname gpu1: Name or service not known", ("not known", "machine.ssh"), AWAY),
        ("u@gpu1: Permission denied (publickey).", ("refuses the login", "machine.ssh_key"), 1),
        ("command-line line 0: Bad configuration option: x", ("Bad configuration option",), 1),
    ],
)
def test_a_machine_that_does_not_let_us_in_is_explained(
    says: str, words: tuple[str, ...], status: int, quick: FakeCommand
) -> None:
    ssh_that(quick, (255, says))
    done = bash(reach_program(PLAIN, "gpu1", 1), quick.environment)
    assert done.returncode == status
    for word in (*words, "phase: machine ready", "cause: ", "change: "):
        assert word in done.stderr


JUMPING = Ssh(SshTarget("ubuntu", "gpu1.example.com"), ".state/gpu1/known_hosts", jump=SshTarget("me", "bastion"))


@pytest.mark.parametrize(
    ("says", "cause", "setting", "status"),
    [
        ("channel 0: open failed: stdio forwarding failed", "the jump host me@bastion lets us in, and",
         "machine.ssh", AWAY),
        ("kex_exchange_identification: Connection closed", "the jump host me@bastion does not answer",
         "machine.jump", AWAY),
        (REFUSED[1], "ubuntu@gpu1.example.com does not answer", "machine.ssh", AWAY),
    ],
)  # fmt: skip
def test_behind_a_jump_host_it_is_said_which_of_the_two_does_not_answer(
    says: str, cause: str, setting: str, status: int, quick: FakeCommand
) -> None:
    ssh_that(quick, (255, says))
    done = bash(reach_program(JUMPING, "gpu1", 1), quick.environment)
    assert done.returncode == status, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("cause: "))
    (remedy,) = (line for line in done.stderr.splitlines() if line.startswith("change: "))
    assert cause in said
    assert setting in remedy


CHANGED = """\
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
SHA256:newnewnew.
Host key verification failed."""


def test_another_host_key_ends_it_at_once_with_both_fingerprints_and_the_way_out(quick: FakeCommand) -> None:
    quick.add("ssh-keygen", "echo 'gpu1.example.com ED25519 SHA256:oldoldold'")
    ssh_that(quick, (255, CHANGED))
    done = bash(reach_program(PLAIN, "gpu1"), quick.environment)
    assert done.returncode == 1
    for word in ("SHA256:oldoldold", "SHA256:newnewnew", "scripts/up gpu1 --machine-replaced", "machine.host_key"):
        assert word in done.stderr
    assert len([call for call in quick.calls if call[0] == "ssh"]) == 1


@pytest.mark.parametrize(
    ("ssh", "good", "printed"), [("echo 1", True, "1\n"), ("exit 255", True, ""), ("exit 3", False, "")]
)
def test_a_glance_at_a_machine_that_is_away_prints_nothing_and_other_failures_count(
    ssh: str, good: bool, printed: str, quick: FakeCommand
) -> None:
    quick.add("ssh", ssh)
    done = bash(glance_command(PLAIN), quick.environment)
    assert (done.returncode == 0) == good
    assert done.stdout == printed


def test_a_preview_does_not_wait_for_a_machine_that_is_away(quick: FakeCommand) -> None:
    ssh_that(quick, REFUSED)
    done = bash(reach_program(PLAIN, "gpu1", 0), quick.environment)
    assert (done.returncode, done.stdout.strip()) == (0, "{}")
    assert len([call for call in quick.calls if call[0] == "ssh"]) == 1


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_part_of_a_program_is_never_run(cut: int, tmp_path: Path) -> None:
    program = whole(
        f"set -e\ntouch {tmp_path}/one\ncat > {tmp_path}/two <<'END'\ntext\nEND\ntouch {tmp_path}/three"
    )
    bash(program[:-cut])
    assert not list(tmp_path.iterdir())
    assert bash(program).returncode == 0
    assert len(list(tmp_path.iterdir())) == 3


# Looking whether it can take the stack

RUNC, NVIDIA = '{"runc":{}}', '{"nvidia":{},"runc":{}}'
L4 = "echo 'GPU 0: NVIDIA L4 (UUID: GPU-5d5ba0d6)'"


OWNER = "3f0c1a52-0000-4000-8000-000000000000"


def ready(data: Path, *, made: bool = False, **changes: object) -> str:
    """The program for a machine whose PCI bus is the folder `pci` beside the data directory."""
    args: dict[str, Any] = {
        "stack": "gpu1",
        "ssh": PLAIN,
        "data_dir": str(data),
        "gpus": "auto",
        "weights_mib": 0,
        "edge_port": 1,
        "engine_port": 2,
        "loopback_port": None,
    }
    program = ready_program(SharedArgs(**{**args, **changes}), OWNER, adopt=made)  # type: ignore[typeddict-item]
    return program.replace(PCI, shlex.quote(str(data.parent / "pci")))


def put_on_the_bus(folder: Path, vendor: str = "0x10de", kind: str = "0x030200") -> None:
    """A device on the PCI bus of a machine whose data directory is in `folder`; an L4 unless it is said."""
    device = folder / "pci" / "0000:31:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")


def docker(fake: FakeCommand, runtimes: str = RUNC, security: str = '["name=seccomp"]', others: str = "") -> None:
    fake.add("timeout", "exit 0")
    fake.add("df", "echo 'Filesystem 1048576-blocks Used Available'; echo '/dev/x 9 9 99999 9% /'")
    fake.add(
        "docker",
        f"""case "$1 $*" in
  "info "*) echo '{runtimes} {security} /var/lib/docker';;
  "ps "*format*) printf '%b' '{others}';;
esac""",
    )


@pytest.mark.parametrize(
    ("gpus", "runtimes", "smi", "device"),
    [
        ("auto", RUNC, None, "cpu"),
        ("auto", NVIDIA, L4, "gpu"),
        ("auto", NVIDIA, None, "gpu"),  # a machine whose driver comes without nvidia-smi
        ("all", NVIDIA, L4, "gpu"),
        ("none", NVIDIA, L4, "cpu"),
        (2, NVIDIA, L4, "gpu"),
        (["0"], NVIDIA, L4, "gpu"),
    ],
)
def test_a_machine_says_what_it_computes_on(  # noqa: PLR0917 - fixtures and one case
    gpus: object, runtimes: str, smi: str | None, device: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, runtimes)
    if smi is not None:
        fake_command.add("nvidia-smi", smi)
    done = bash(ready(tmp_path / "data", gpus=gpus), fake_command.environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"device": device}
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize(
    ("gpus", "runtimes", "smi", "word"),
    [
        ("auto", RUNC, L4, "Container Toolkit"),
        (1, RUNC, None, "no NVIDIA GPU"),
        (1, NVIDIA, "echo 'No devices were found'", "driver does not work: No devices were found"),
        ("auto", NVIDIA, "echo 'NVIDIA-SMI has failed'; exit 9", "driver does not work: NVIDIA-SMI has failed"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_no_silent_cpu(  # noqa: PLR0917 - fixtures and one case
    gpus: object, runtimes: str, smi: str | None, word: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, runtimes)
    if smi is not None:
        fake_command.add("nvidia-smi", smi)
    done = bash(ready(tmp_path / "data", gpus=gpus), fake_command.environment)
    assert done.returncode == 1
    assert word in done.stderr
    assert "machine.gpus" in done.stderr


@pytest.mark.parametrize(
    ("bus", "runtimes", "smi", "cause", "change"),
    [
        (True, RUNC, None, "no NVIDIA driver", "remove seatable-vllm:machine.ami"),
        (False, RUNC, None, "no NVIDIA driver", "remove seatable-vllm:machine.ami"),
        (True, NVIDIA, None, "no NVIDIA driver", "Deep Learning AMI has the driver"),
        (True, NVIDIA, "echo 'couldn'\\''t communicate with the driver'; exit 9", "communicate", "a reboot"),
        (True, RUNC, "exit 0", "nvidia-smi lists no GPU", "supports this instance type"),
        (False, NVIDIA, "echo 'No devices were found'; exit 6", "on its PCI bus", "machine.instance_types"),
        (True, RUNC, L4, "no runtime nvidia", "Deep Learning AMI has the NVIDIA Container Toolkit"),
    ],
)
def test_a_machine_that_is_paid_for_its_gpu_never_computes_on_the_cpu_unasked(  # noqa: PLR0917 - one case
    bus: bool, runtimes: str, smi: str | None, cause: str, change: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command, runtimes)
    if bus:
        put_on_the_bus(tmp_path)
    if smi is not None:
        fake_command.add("nvidia-smi", smi)
    done = bash(ready(tmp_path / "data", made=True, gpus="all"), fake_command.environment)
    assert done.returncode == 1, done.stdout
    told = dict(line.split(": ", 1) for line in done.stderr.splitlines())
    assert cause in told["cause"]
    assert change in told["change"]
    assert told["change"].endswith("or set seatable-vllm:machine.gpus to none")
    asked = bash(ready(tmp_path / "data", made=True, gpus="none"), fake_command.environment)
    assert json.loads(asked.stdout.splitlines()[-1])["device"] == "cpu"


def test_a_card_without_a_driver_is_no_machine_without_a_card(tmp_path: Path, fake_command: FakeCommand) -> None:
    docker(fake_command)
    put_on_the_bus(tmp_path)
    told = bash(ready(tmp_path / "data"), fake_command.environment).stderr
    assert "cause: the machine has no NVIDIA driver" in told
    assert "change: install or repair the NVIDIA driver there" in told
    assert "machine.ami" not in told, "a machine of somebody's own has no such setting"


@pytest.mark.parametrize(("vendor", "kind"), [("0x1002", "0x030000"), ("0x10de", "0x020700")])
def test_what_is_no_nvidia_gpu_on_the_bus_leaves_auto_with_the_cpu(
    vendor: str, kind: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command)
    put_on_the_bus(tmp_path, vendor, kind)
    done = bash(ready(tmp_path / "data"), fake_command.environment)
    assert json.loads(done.stdout.splitlines()[-1])["device"] == "cpu"


def test_a_rootless_docker_is_refused(tmp_path: Path, fake_command: FakeCommand) -> None:
    docker(fake_command, security='["name=rootless"]')
    assert "rootless" in bash(ready(tmp_path / "data"), fake_command.environment).stderr


def test_the_folder_of_another_stack_is_not_shared(tmp_path: Path, fake_command: FakeCommand) -> None:
    docker(fake_command, others="another\\t")
    told = bash(ready(tmp_path / "data"), fake_command.environment).stderr
    assert "the stack another" in told
    assert "machine.data_dir" in told


def test_a_folder_that_only_root_can_make_is_made_with_sudo_and_given_to_the_user(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker(fake_command)
    parent = tmp_path / "parent"
    parent.write_text("what no mkdir of the user can do anything about")
    place = shlex.quote(str(parent))
    fake_command.add("sudo", f'[ "$2" != mkdir ] || {{ rm {place}; /bin/mkdir -p {place}/data; }}')
    done = bash(ready(parent / "data"), fake_command.environment)
    assert done.returncode == 0, done.stderr
    asked = [call[2:3] for call in fake_command.calls if call[0] == "sudo"]
    assert asked == [["mkdir"], ["chown"]]


# The GPUs inside a container


@pytest.mark.parametrize(
    ("gpus", "chosen", "wanted"), [("all", (), "all"), ("2", (), "2"), (None, ("0", "1"), '"device=0,1"')]
)
def test_a_container_of_the_engines_image_shows_the_gpus(
    gpus: str | None, chosen: tuple[str, ...], wanted: str, fake_command: FakeCommand
) -> None:
    fake_command.add("docker", "echo 'NVIDIA A10G'")
    done = bash(gpu_program("image:1", gpus, chosen), fake_command.environment)
    assert done.returncode == 0, done.stderr
    for call in fake_command.calls:
        assert call[call.index("--gpus") + 1] == wanted


def test_a_driver_that_is_too_old_is_told_with_both_ways_out(fake_command: FakeCommand) -> None:
    fake_command.add("docker", "echo 'RuntimeError: The NVIDIA driver on your system is too old'; exit 1")
    told = bash(gpu_program("image:1", "all", ()), fake_command.environment).stderr
    assert "580" in told
    assert "-cu129" in told


def test_without_a_gpu_nothing_is_started(fake_command: FakeCommand) -> None:
    fake_command.add("docker", "exit 1")
    assert bash(gpu_program("image:1", None, ()), fake_command.environment).returncode == 0
    assert not fake_command.calls


# The whole program


def host(
    record_program: RecordProgram, *, preview: bool = False, may_fail: bool = False, **machine: object
) -> Recorded:
    config = {"seatable-vllm:machine": json.dumps({**HOST, **machine})}
    return record_program("gpu1", config, preview=preview, may_fail=may_fail)


def test_every_program_goes_to_the_machine_on_standard_input_of_one_ssh(record_program: RecordProgram) -> None:
    recorded = host(record_program)
    commands = recorded.of_type("command:local:Command")
    assert len(commands) == 14
    for command in commands:
        words = shlex.split(command.inputs.get("delete", command.inputs["create"]))
        assert words[0] == "ssh"
        assert words[-1] in ("bash -s", "python3 -")
        assert not any(key in command.inputs["create"] for key in recorded.keys.values())
        assert "environment" not in command.inputs


def test_every_program_runs_again_on_another_machine(record_program: RecordProgram) -> None:
    for command in host(record_program).of_type("command:local:Command"):
        if command.name != "machine-cleared":  # replacing it would clear the machine that has just been set up
            assert command.inputs["triggers"][0] == IDENTITY["identity"]


def test_docker_takes_the_same_way_as_the_programs(record_program: RecordProgram) -> None:
    recorded = host(record_program)
    provider = recorded.one("machine-docker").inputs
    assert provider["host"] == "ssh://ubuntu@gpu1.example.com:22"
    options = json.loads(provider["sshOpts"])
    create = recorded.one("machine-ready").inputs["create"]
    assert shlex.split(create)[1 : 1 + len(options)] == options


def test_no_container_of_a_host_listens_beyond_the_loopback_address(record_program: RecordProgram) -> None:
    recorded = host(record_program)
    assert recorded.outputs["endpoint"].value == "http://127.0.0.1:8080/v1"
    assert recorded.outputs["tunnel"].value == "ssh -N -L 8080:127.0.0.1:8080 ubuntu@gpu1.example.com"
    assert "tunnel" not in record_program("local").outputs


def test_chosen_gpus_are_asked_for_by_id(record_program: RecordProgram) -> None:
    config = {"seatable-vllm:machine": json.dumps({**HOST, "gpus": ["0", "1"]})}
    engine = record_program("gpu1", config, facts={"device": "gpu"}).one("inference-vllm").inputs
    assert engine["deviceRequests"] == [{"driver": "nvidia", "deviceIds": ["0", "1"], "capabilities": ["gpu"]}]
    assert "gpus" not in engine


def test_a_gpu_is_proved_in_a_container_before_the_engine_is_touched(record_program: RecordProgram) -> None:
    recorded = host(record_program)
    assert "inference-gpus-seen" in recorded.everything_before(recorded.one("inference-vllm"))
    assert "inference-gpus-seen" not in {name for _, name in host(record_program, gpus="none").names}


def test_a_preview_asks_for_the_same_as_an_up(record_program: RecordProgram) -> None:
    assert host(record_program, preview=True).names == host(record_program).names


def test_a_docker_variable_ends_the_program_before_anything_is_asked_for(record_program: RecordProgram) -> None:
    config = {"seatable-vllm:machine": json.dumps(HOST)}
    recorded = record_program("gpu1", config, environment={"DOCKER_CONTEXT": "elsewhere"}, may_fail=True)
    assert isinstance(recorded.error, pulumi.RunError)
    assert "DOCKER_CONTEXT" in str(recorded.error)
    assert not recorded.resources
