"""Every way in which `scripts/up` can fail on a machine behind SSH ends with its own cause in plain words, last.

All rows fail on one real machine (sshd, systemd, a Docker of its own), one after the other, and each mends what it
broke. No engine is ever started: what vLLM itself can find wrong is in test_failures_explained.

What this does not prove: failures that only a GPU has, a hub that answers, a cloud's firewall, and the way of
`docker.Provider` over SSH, which the rehearsal does not take (it forwards Docker's socket instead).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog.images import HAPROXY, LEGO, VLLM_CPU
from images.obtain import obtain
from scripts.commands.run_log import LOGS
from tests.live.conftest import Shared
from tests.live.faults_support import assert_explained, assert_refused
from tests.live.harness import LOOPBACK, Checkout, Deployment, free_ports
from tests.live.host_machine import Machine, Site, undone_by
from tests.live.machine_image import USER

# Those that share a stack come first, and its engine makes room; `make_stack` is what tells them apart.
pytestmark = [pytest.mark.usefixtures("make_stack"), pytest.mark.beside]

SUBNET = "198.18.78.0/24"
"""Not that of test_host, so that both can run at once."""

NOBODYS_ADDRESS = "198.18.78.99"
CLOSED_PORT = 2222

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MISSING_MODEL = {"name": "seatable-vllm-tests/no-such-model", "max_model_len": 512}

HOST = "llm.example.org"
SMALL_DISK_MIB = 64

NAMES = "docker ps --all --format '{{.Names}}'"

DEFAULT_PATIENCE = ("--patience", "1")
"""Seconds. What does not answer stays so in these tests."""


class FailingHost:
    """A machine that is up and a stack for it that never is."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        name = f"svf{os.getpid()}"
        self.site = Site(name, folder, SUBNET)
        with undone_by(self.site.remove):
            self.machine = Machine(f"{name}-1", self.site)
        self.stack = Deployment(checkout, "hostfail", {"machine": self.way()})
        self.right = self.stack.settings
        with undone_by(self.remove_machine):
            self.machine.start()
            self.machine.booted()

    def way(self, **changed: Any) -> dict[str, Any]:
        """The setting `machine` as it should be, but for what is given."""
        good = {"kind": "host", "ssh": f"{USER}@{self.site.address}", "ssh_key": str(self.site.key)}
        return {key: value for key, value in {**good, **changed}.items() if value is not None}

    def up(self, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`scripts/up` of the stack, whatever comes of it."""
        arguments = (self.stack.stack, "--rehearse", *DEFAULT_PATIENCE)
        return self.stack.checkout.run("up", *arguments, environment=environment)

    def remove_containers(self) -> None:
        """Takes away what an `up` has made beside what failed: the edge needs no engine to be started."""
        label = f"--filter label=seatable-vllm.stack={self.stack.stack}"
        self.machine.as_root(f"docker ps --all --quiet {label} | xargs --no-run-if-empty docker rm --force")

    def things(self) -> dict[str, str]:
        """What there is on the machine that a stack could have made or changed."""
        return {
            "containers": self.machine.run("docker ps --all --quiet --no-trunc"),
            "networks": self.machine.run("docker network ls --quiet --filter label=seatable-vllm.stack"),
            "images": self.machine.run("docker images --all --quiet"),
            "files": self.machine.as_root("find /srv -type f -printf '%p %T@\\n'"),
        }

    def remove(self) -> None:
        """Takes everything away."""
        self.stack.write(self.right)
        try:
            self.stack.purge()
        finally:
            self.remove_machine()

    def remove_machine(self) -> None:
        """Takes the machine and its network away."""
        self.machine.remove()
        self.site.remove()


@pytest.fixture(scope="module")
def failing(
    checkout: Checkout, _shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FailingHost]:
    """The one machine and stack that everything here fails on."""
    _shared.release()
    made = FailingHost(checkout, tmp_path_factory.mktemp("site"))
    yield made
    made.remove()


@pytest.fixture
def host(failing: FailingHost) -> Iterator[FailingHost]:
    """Machine and stack's file in order, before and after."""
    failing.stack.write(failing.right)
    yield failing
    failing.stack.write(failing.right)
    failing.remove_containers()


@pytest.fixture(scope="module")
def small_images(failing: FailingHost) -> None:
    """The machine's Docker has the pinned images but for the engine's, as if they had been pulled."""
    for source in (HAPROXY, LEGO):
        failing.machine.load(obtain(source, print))


@pytest.fixture(scope="module")
def engine_image(failing: FailingHost) -> None:
    """And the engine's; it is never started."""
    failing.machine.load(obtain(VLLM_CPU, print))


Breaking = Callable[[FailingHost], AbstractContextManager[None]]


@dataclass(frozen=True)
class Row:
    """One failure: how it is brought about, and what has to be said of it."""

    breaking: Breaking
    cause: str
    change: str


def way(**changed: Any) -> Breaking:
    """Another `machine` in the stack's file."""

    def breaking(host: FailingHost) -> AbstractContextManager[None]:
        host.stack.configure(machine=host.way(**changed))
        return contextlib.nullcontext()

    return breaking


def there(broken: str, mended: str, **changed: Any) -> Breaking:
    """Shell commands of root on the machine: one that breaks something, one that mends it. changed: see `way`."""

    @contextlib.contextmanager
    def breaking(host: FailingHost) -> Iterator[None]:
        host.stack.configure(machine=host.way(**changed))
        host.machine.as_root(broken)
        try:
            yield
        finally:
            host.machine.as_root(mended)

    return breaking


def moved(path: str, **changed: Any) -> Breaking:
    """A file that is not where it should be on the machine."""
    return there(f"mv {path} {path}.away", f"mv {path}.away {path}", **changed)


def stopped(*units: str) -> Breaking:
    """Services of the machine that do not run."""
    return there(f"systemctl stop {' '.join(units)}", f"systemctl start {' '.join(units)}")


def taken(port: str) -> Breaking:
    """Another program on a port of the machine's loopback address."""

    @contextlib.contextmanager
    def breaking(host: FailingHost) -> Iterator[None]:
        if port == "loopback":
            (number,) = free_ports(1)
            host.stack.configure(ports={**host.stack.settings["ports"], port: number})
        number = host.stack.settings["ports"][port]
        listen = f"python3 -m http.server --bind {LOOPBACK} {number}"
        host.machine.as_root(
            f"systemd-run --quiet --unit taken {listen}; "
            f"until ss -Hltn 'sport = {number}' | grep -q .; do sleep 0.1; done"
        )
        try:
            yield
        finally:
            host.machine.as_root("systemctl stop taken")

    return breaking


def told_to_sshd(line: str) -> Breaking:
    """Another line in sshd's configuration."""
    file = "/etc/ssh/sshd_config.d/broken.conf"
    return there(
        f"echo '{line}' > {file} && systemctl reload ssh",
        f"rm {file} && systemctl reload ssh",
    )


@contextlib.contextmanager
def unknown_key(host: FailingHost) -> Iterator[None]:
    """A key that nobody has let in."""
    key = host.site.key.with_name("stranger")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    host.stack.configure(machine=host.way(ssh_key=str(key)))
    yield


@contextlib.contextmanager
def another_pinned_key(host: FailingHost) -> Iterator[None]:
    """A host key in the settings that is not the machine's."""
    kind, key = host.site.key.with_suffix(".pub").read_text().split()[:2]
    host.stack.configure(machine=host.way(host_key=f"{kind} {key}"))
    yield


def jumping(jump: str) -> Breaking:
    """A way over a host at the machine's own address. jump: user, and port or nothing, with an @ in between."""

    def breaking(host: FailingHost) -> AbstractContextManager[None]:
        user, _, port = jump.partition("@")
        host.stack.configure(machine=host.way(jump=f"{user}@{host.site.address}{port}"))
        return contextlib.nullcontext()

    return breaking


def beyond_the_jump_host(host: FailingHost) -> AbstractContextManager[None]:
    """A jump host that lets us in, and a machine behind it that does not answer."""
    away = f"{USER}@{LOOPBACK}:{CLOSED_PORT}"
    host.stack.configure(machine=host.way(ssh=away, jump=f"{USER}@{host.site.address}"))
    return contextlib.nullcontext()


SMALL = "/srv/stacks/small"
ANOTHERS = "/srv/stacks/another"

ROWS: dict[str, Row] = {
    "a-key-that-the-machine-does-not-know": Row(
        unknown_key, r"refuses the login.*Permission denied", r"machine\.ssh .*machine\.ssh_key"
    ),
    "another-user": Row(
        lambda host: way(ssh=f"nobody-here@{host.site.address}")(host),
        r"nobody-here@\S+ refuses the login.*Permission denied",
        r"the user in seatable-vllm:machine\.ssh",
    ),
    "a-name-that-is-not-known": Row(
        way(ssh=f"{USER}@gpu1.invalid"), r"name of the machine is not known.*gpu1\.invalid", r"machine\.ssh"
    ),
    "sshd-is-stopped": Row(
        stopped("ssh"), r"does not answer.*Connection refused", r"start the machine.*machine\.ssh"
    ),
    "nobody-is-at-the-address": Row(
        way(ssh=f"{USER}@{NOBODYS_ADDRESS}"), r"does not answer.*(No route|timed out)", r"machine\.ssh.*firewall"
    ),
    "another-port": Row(
        lambda host: way(ssh=f"{USER}@{host.site.address}:{CLOSED_PORT}")(host),
        rf"{CLOSED_PORT} does not answer.*refused",
        r"machine\.ssh",
    ),
    "another-host-key-than-the-pinned-one": Row(
        another_pinned_key, r"another SSH host key.*SHA256:.*", r"seatable-vllm:machine\.host_key"
    ),
    "a-jump-host-that-does-not-answer": Row(
        jumping(f"{USER}@:{CLOSED_PORT}"), r"jump host.*does not answer.*refused", r"machine\.jump"
    ),
    "a-jump-host-that-refuses-the-user": Row(
        jumping("nobody-here@"), r"jump host.*refuses the login.*Permission denied", r"machine\.jump"
    ),
    "a-jump-host-that-cannot-reach-the-machine": Row(
        beyond_the_jump_host,
        r"jump host \S+ lets us in, and \S+ does not answer it",
        r"machine\.ssh as the jump host sees it",
    ),
    "a-user-without-a-shell": Row(
        there(f"usermod -s /usr/sbin/nologin {USER}", f"usermod -s /bin/bash {USER}"),
        r"cannot run a program.*not available",
        r"shell",
    ),
    "a-first-boot-that-does-not-end": Row(
        there("mkdir -p /run/cloud-init; touch /run/cloud-init/enabled", "rm -r /run/cloud-init"),
        r"cloud-init on \S+ does not end",
        r"cloud-init-output\.log",
    ),
    "docker-is-stopped": Row(stopped("docker.socket", "docker"), r"Docker.*does not answer", r"systemctl start"),
    "docker-is-not-there": Row(moved("/usr/bin/docker"), r"Docker is not on the machine", r"install Docker"),
    "a-user-who-may-not-use-docker": Row(
        there(f"gpasswd -d {USER} docker", f"gpasswd -a {USER} docker"),
        r"Docker does not answer.*permission denied",
        rf"usermod -aG docker {USER}",
    ),
    "python-is-not-there": Row(moved("/usr/bin/python3"), r"python3 is not on the machine", r"install"),
    "a-gpu-where-docker-knows-none": Row(
        way(gpus=1), r"no NVIDIA GPU", r"NVIDIA Container Toolkit.*machine\.gpus to none"
    ),
    "a-disk-that-is-nearly-full": Row(
        there(
            f"mkdir -p {SMALL} && mount -t tmpfs -o size={SMALL_DISK_MIB}m tmpfs {SMALL}",
            f"umount {SMALL}",
            data_dir=f"{SMALL}/data",
        ),
        rf"disk nearly full: \d+ MiB free at {SMALL}",
        r"machine\.data_dir to a larger disk",
    ),
    "a-data-folder-that-cannot-be-made": Row(
        moved("/etc/sudoers.d/90-ubuntu", data_dir="/opt/private/data"),
        rf"machine\.data_dir /opt/private/data cannot be made by {USER}, who has no sudo",
        rf"give it to {USER}|may write",
    ),
    "a-data-folder-of-somebody-else": Row(
        there("mkdir /opt/theirs && touch /opt/theirs/file", "rm -r /opt/theirs", data_dir="/opt/theirs"),
        rf"machine\.data_dir /opt/theirs is not {USER}'s to write",
        r"name another folder",
    ),
    "a-data-folder-with-something-else-in-it": Row(
        there(
            f"mkdir /opt/full && touch /opt/full/thesis && chown -R {USER} /opt/full",
            "rm -r /opt/full",
            data_dir="/opt/full",
        ),
        r"machine\.data_dir /opt/full holds what this stack did not make, such as thesis",
        r"\.seatable-vllm\.adopt",
    ),
    "a-data-folder-of-another-stack": Row(
        there(
            "tar -c -T /dev/null | docker import - nothing >/dev/null && docker create --name another-engine "
            f"--label seatable-vllm.stack=another --label seatable-vllm.data-dir={ANOTHERS} nothing true",
            "docker rm another-engine && docker rmi nothing",
            data_dir=ANOTHERS,
        ),
        rf"machine\.data_dir {ANOTHERS} is that of the stack another\b",
        r"folder of its own",
    ),
    "the-edges-port-is-taken": Row(taken("edge"), r"port in use: \d+", r"seatable-vllm:ports\.edge"),
    "the-engines-port-is-taken": Row(taken("engine"), r"port in use: \d+", r"seatable-vllm:ports\.engine"),
    "the-loopback-port-is-taken": Row(taken("loopback"), r"port in use: \d+", r"seatable-vllm:ports\.loopback"),
}


@pytest.mark.parametrize("which", ROWS)
def test_a_machine_that_is_not_as_it_should_be_is_named_with_its_way_out_and_left_as_it_is(
    host: FailingHost, which: str
) -> None:
    row, before = ROWS[which], host.things()
    with row.breaking(host):
        done = host.up()
    assert_explained(done, row.cause, row.change)
    host.machine.booted()
    assert host.things() == before


# --- refused before anything is asked


def test_a_key_file_that_is_not_there_is_named_with_its_setting(host: FailingHost) -> None:
    missing = host.site.key.with_name("missing")
    host.stack.configure(machine=host.way(ssh_key=str(missing)))
    assert_refused(host.up(), rf"seatable-vllm:machine\.ssh_key: {missing} cannot be read", "use the agent")


def test_a_key_file_that_others_can_read_is_named_with_the_command_that_mends_it(host: FailingHost) -> None:
    host.site.key.chmod(0o644)
    try:
        assert_refused(host.up(), r"seatable-vllm:machine\.ssh_key", f"chmod 600 {host.site.key}")
    finally:
        host.site.key.chmod(0o600)


@pytest.mark.parametrize("name", ["DOCKER_CONTEXT", "DOCKER_CERT_PATH"])
def test_a_variable_that_leads_docker_elsewhere_is_named(host: FailingHost, name: str) -> None:
    logins = host.machine.run("sudo journalctl --quiet --unit ssh")
    assert_refused(host.up({name: "elsewhere"}), f"{name} is set", "unset it")
    assert host.machine.run("sudo journalctl --quiet --unit ssh") == logins


# --- images, weights and certificates


@pytest.mark.usefixtures("small_images")
def test_an_image_that_the_registry_does_not_have_is_named_with_its_setting(host: FailingHost) -> None:
    image = f"{host.site.registry}/no-such-image:1"
    host.stack.configure(images={"vllm": image})
    assert_explained(host.up(), rf"image missing: {image}.*not found|unknown", r"seatable-vllm:images")
    assert host.stack.engine not in host.machine.run(NAMES)


@pytest.mark.usefixtures("small_images")
def test_a_registry_that_is_not_reached_is_named_with_the_way_out(host: FailingHost) -> None:
    image = f"{host.site.registry}/engine:1"
    wall = f"OUTPUT -p tcp -d {host.site.registry.partition(':')[0]} -j REJECT --reject-with tcp-reset"
    with there(f"iptables -I {wall}", f"iptables -D {wall}")(host):
        host.stack.configure(images={"vllm": image})
        done = host.up()
    assert_explained(done, rf"{image}.*could not be pulled: .*{host.site.registry}", r"way out.*registry")
    assert host.stack.engine not in host.machine.run(NAMES)


@pytest.mark.usefixtures("small_images", "engine_image")
def test_a_model_that_is_not_there_where_no_hub_is_reached_is_named_with_its_setting(host: FailingHost) -> None:
    host.stack.configure(model=MISSING_MODEL)
    assert_explained(
        host.up(), r"not here and hub not reached: seatable-vllm-tests/no-such-model", r"seatable-vllm:model\.name"
    )
    assert host.stack.engine not in host.machine.run(NAMES)


@pytest.fixture
def no_engine(host: FailingHost, small_images: None) -> None:
    """Keeps the engine from being started in a run in which only the certificate is to fail with a cause.

    Its image is another one, without Python, so its weights cannot be fetched.
    """
    host.stack.configure(images={"vllm": HAPROXY.made})


@pytest.mark.usefixtures("no_engine")
def test_a_certificate_that_is_not_for_the_name_is_named_with_its_setting(
    host: FailingHost, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
         "-subj", "/CN=www.example.net", "-addext", "subjectAltName=DNS:www.example.net",
         "-out", str(certificate), "-keyout", str(key)],
        capture_output=True, check=True,
    )  # fmt: skip
    domain = {"host": HOST, "tls": "files", "certificate": str(certificate), "key": str(key)}
    host.stack.configure(domain=domain)
    cause = r"domain\.certificate is not for llm\.example\.org but for .*www\.example\.net"
    assert_explained(host.up(), cause, r"seatable-vllm:domain\.")
    assert host.machine.run(NAMES) == ""


@pytest.mark.usefixtures("no_engine")
def test_an_acme_ca_that_is_not_reached_is_named_with_its_setting(host: FailingHost) -> None:
    domain = {
        "host": HOST,
        "tls": "acme-dns",
        "zone": "example.org",
        "zone_id": "Z0123456789",
        "acme_email": "ops@example.org",
        "acme_server": f"https://{LOOPBACK}:{CLOSED_PORT}/directory",
    }
    host.stack.configure(domain=domain)
    assert_explained(host.up(), "ACME server or Route 53 cannot be reached", r"seatable-vllm:domain\.acme_server")
    assert host.machine.run(NAMES) == ""


@pytest.mark.usefixtures("small_images")
def test_an_sshd_that_forwards_nothing_is_named_with_its_options(host: FailingHost) -> None:
    """Everything else is there, the weights too, so nothing else is complained of."""
    host.stack.configure(images={"vllm": HAPROXY.made})
    host.machine.give_model(MODEL)
    try:
        with told_to_sshd("DisableForwarding yes")(host):
            done = host.up()
        assert_explained(done, "sshd there does not forward", "DisableForwarding no")
        assert host.stack.engine not in host.machine.run(NAMES)
    finally:
        # With weights, others would get as far as an engine.
        host.machine.as_root(f"rm -rf /home/{USER}/.cache/seatable-vllm")
        host.stack.checkout.run("down", host.stack.stack, "--purge")


# --- and of a stack that never was up


def test_doctor_of_a_stack_that_is_not_up_finds_the_machine_in_order_and_names_up(host: FailingHost) -> None:
    """Whatever earlier rows have left: weights, the log of an `up` that failed, or nothing."""
    host.remove_containers()
    shutil.rmtree(host.stack.state_dir / LOGS, ignore_errors=True)
    done = host.stack.checkout.run("doctor", host.stack.stack)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "ok      Docker: answers" in done.stdout
    remedies = re.findall("^change: (.*)", done.stdout, re.MULTILINE)
    assert remedies, done.stdout
    assert all(f"scripts/up {host.stack.stack}" in remedy for remedy in remedies), done.stdout
    assert not re.search("is not reached|does not answer|permission", done.stdout), done.stdout


def test_doctor_says_of_a_machine_that_is_away_what_up_says(host: FailingHost) -> None:
    host.stack.configure(machine=host.way(ssh=f"{USER}@{host.site.address}:{CLOSED_PORT}"))
    done = host.stack.checkout.run("doctor", host.stack.stack)
    assert done.returncode == 1
    assert re.search(r"seen: .*Connection refused", done.stdout), done.stdout + done.stderr
    assert "seatable-vllm:machine.ssh" in done.stdout
