"""The endpoint on a machine that SSH reaches: a real sshd, systemd and Docker, and images that are really pulled.

The tests share one machine and run in the order in which they stand, from its first boot to its end. What this
does NOT prove: anything about a GPU, about cloud-init, or about the way of `docker.Provider` over SSH, which the
rehearsal does not take (it forwards Docker's socket instead).
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog.images import HAPROXY, VLLM_CPU
from checks.endpoint import Target, ask
from tests.live.harness import LOOPBACK, Checkout, Container, Deployment, free_ports, wait_until
from tests.live.host_machine import ADDRESS, Machine, Site
from tests.live.machine_image import USER

if TYPE_CHECKING:
    from tests.live.conftest import Shared

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CONNECTIONS_OF_AN_UP = 6
BACK_SECONDS = 240


class OnMachine(Deployment):
    """A stack on the machine; its endpoint is asked through the tunnel that its outputs name."""

    def __init__(self, checkout: Checkout, site: Site, images: dict[str, str], machine: Machine) -> None:
        place = {"kind": "host", "ssh": f"{USER}@{ADDRESS}", "ssh_key": str(site.key)}
        super().__init__(checkout, "host", {"machine": place, "images": images})
        self.machine = machine
        self._tunnel: subprocess.Popen[bytes] | None = None

    def container(self, name: str) -> Container:
        """As in Deployment, on the machine."""
        (found,) = json.loads(self.machine.run(f"docker inspect {name}"))
        state = found["State"]
        return Container(found["Id"], state["StartedAt"], found["RestartCount"], state["Status"])

    def open_tunnel(self) -> None:
        """Pastes the line of the outputs into a shell, as a client's administrator does."""
        trusting = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
        line = shlex.split(str(self.outputs()["tunnel"]).replace("ssh ", trusting, 1))

        def through() -> bool:
            if self._tunnel is None or self._tunnel.poll() is not None:  # the machine may still be booting
                self._tunnel = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return self.answers()

        self.close_tunnel()
        wait_until(through, "the endpoint behind the tunnel", BACK_SECONDS)

    def close_tunnel(self) -> None:
        """Ends it."""
        if self._tunnel:
            self._tunnel.terminate()
            self._tunnel.wait()
            self._tunnel = None

    def answers(self) -> bool:
        """Whether a completion comes through."""
        try:
            body = self.chat("Say OK.", max_tokens=2)
            return self.ask("POST", "/v1/chat/completions", key=self.key(), body=body).status == 200
        except OSError:
            return False

    def logins(self) -> int:
        """How many SSH connections the machine has let in so far."""
        return self.machine.run("sudo journalctl --quiet --unit ssh").count("Accepted publickey")

    def cut_every_connection(self) -> None:
        """Ends the sessions that the machine's sshd has."""
        self.machine.run("sudo pkill -KILL --full '^sshd: ubuntu'", check=False)


class Place:
    """What the tests of this file share."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.name = f"svt{os.getpid()}"
        self.disk = f"{self.name}-disk"
        self.site = Site(self.name, folder)
        images = {"vllm": VLLM_CPU.made or "", "haproxy": HAPROXY.made or ""}
        offered = {name: self.site.offer(image) for name, image in images.items()}
        self.machine = Machine(f"{self.name}-1", self.site, self.disk)
        self.machine.give_model(MODEL)
        self.stack = OnMachine(checkout, self.site, offered, self.machine)

    def replace_machine(self) -> Machine:
        """Another machine at the same address, with the disk of the old one and nothing else of it."""
        self.machine.remove()
        self.machine = self.stack.machine = Machine(f"{self.name}-2", self.site, self.disk)
        return self.machine

    def remove(self) -> None:
        """Takes everything away."""
        self.stack.close_tunnel()
        self.machine.remove()
        self.site.remove()
        subprocess.run(["docker", "volume", "rm", "--force", self.disk], capture_output=True, check=False)


@pytest.fixture(scope="module")
def place(checkout: Checkout, _shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A site with a machine that is not switched on yet."""
    _shared.release()
    place = Place(checkout, tmp_path_factory.mktemp("site"))
    yield place
    place.remove()


@pytest.fixture(scope="module")
def on_host(place: Place) -> OnMachine:
    """The stack, up: its first `up` began before the machine was switched on."""
    stack = place.stack
    told: list[str] = []
    with stack.checkout.start("up", stack.stack, "--rehearse") as up:
        reader = threading.Thread(target=lambda: told.extend(up.stdout or ()), daemon=True)
        reader.start()
        wait_until(lambda: "reaching" in "".join(told), "the begin of an up")
        place.machine.start()
        wait_until(lambda: up.poll() is not None, "the end of an up", 600)
        reader.join()
    assert up.returncode == 0, "".join(told)
    stack.open_tunnel()
    return stack


def cut_up(stack: OnMachine, word: str, seconds: float) -> tuple[str, int]:
    """What an `up` says, and its status, whose connections all end at once, so long after it has said a word."""
    told = []
    cut = threading.Timer(seconds, stack.cut_every_connection)
    with stack.checkout.start("up", stack.stack, "--rehearse") as up:
        assert up.stdout is not None
        for line in up.stdout:
            told.append(line)
            if word in line and not cut.is_alive() and not cut.finished.is_set():
                cut.start()
        assert word in "".join(told)
        cut.join()
    return "".join(told), up.returncode


def sightings(stack: OnMachine, done: threading.Event) -> list[str]:
    """Every command line on this computer and on the machine until `done`."""
    seen: set[str] = set()
    while not done.is_set():
        here = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=False).stdout
        seen.update(here.splitlines())
    return sorted(seen)


def test_an_up_that_began_before_the_machine_booted_ends_with_a_working_endpoint(on_host: OnMachine) -> None:
    assert on_host.outputs()["machine"]["kind"] == "host"
    assert on_host.outputs()["endpoint"] == f"http://{LOOPBACK}:{on_host.edge_port}/v1"
    assert on_host.answers()


def test_the_endpoint_listens_on_the_machines_loopback_address_alone(on_host: OnMachine) -> None:
    listening = on_host.machine.run("ss -Hltn | awk '{print $4}'").split()
    ours = [
        each for each in listening if each.rpartition(":")[2] in (str(on_host.edge_port), str(on_host.engine_port))
    ]
    assert sorted(ours) == sorted(f"{LOOPBACK}:{port}" for port in (on_host.edge_port, on_host.engine_port))


def test_a_second_up_changes_nothing_and_asks_little_of_sshd(on_host: OnMachine) -> None:
    before, containers = on_host.logins(), on_host.containers()
    assert "nothing changed" in on_host.up().stderr
    assert on_host.logins() - before <= CONNECTIONS_OF_AN_UP
    assert on_host.containers() == containers


def test_the_checks_pass_through_a_tunnel_of_their_own(on_host: OnMachine) -> None:
    done = on_host.checkout.run("check", on_host.stack)
    assert done.returncode == 0, done.stdout + done.stderr
    refused = on_host.checkout.run("check", on_host.stack, "--client", "agents")
    assert refused.returncode == 1
    assert "127.0.0.2" in refused.stderr


def test_a_clients_key_is_rotated_without_a_restart(on_host: OnMachine) -> None:
    containers, old = on_host.containers(), on_host.key()
    on_host.rotate_key("seatable")
    assert [on_host.ask("GET", "/v1/models", key=key).status for key in (old, on_host.key())] == [200, 200]
    on_host.rotate_key("seatable", "--finish")
    assert [on_host.ask("GET", "/v1/models", key=key).status for key in (old, on_host.key())] == [401, 200]
    assert on_host.containers() == containers


def test_an_up_whose_connection_is_cut_ends_in_words_and_the_next_one_goes_on(on_host: OnMachine) -> None:
    """The change is an option of vLLM: another engine, the same edge."""
    edge, engine = on_host.container(on_host.edge), on_host.container(on_host.engine)
    on_host.configure(model={"name": MODEL, "extra_args": {"max-num-seqs": 8}})
    told, status = cut_up(on_host, "readiness-gate: waiting", 0)
    assert status != 0, told
    assert "Traceback" not in told, told
    moment = random.uniform(0, 2)  # noqa: S311 - told when it fails
    told, status = cut_up(on_host, "deploying", moment)
    assert "Traceback" not in told, f"cut after {moment} s, status {status}: {told}"
    on_host.up()
    assert on_host.container(on_host.edge) == edge
    assert on_host.container(on_host.engine).id != engine.id
    config = on_host.machine.run("cat /srv/seatable-vllm/vllm/config.yaml")
    assert "max-num-seqs: 8" in config
    on_host.open_tunnel()


def test_keys_are_in_no_argument_list_log_or_inspection_on_the_machine(on_host: OnMachine) -> None:
    keys = [client["key"] for client in on_host.outputs()["clients"].values()]
    keys += re.findall(r"[A-Za-z0-9]{64}", on_host.machine.run("cat /srv/seatable-vllm/vllm/config.yaml"))
    assert len(keys) >= 3
    done = threading.Event()
    lines: list[str] = []
    here = threading.Thread(target=lambda: lines.extend(sightings(on_host, done)))
    here.start()
    watch = on_host.machine.run(
        "nohup sh -c 'for i in $(seq 400); do ps -eww -o args; sleep .02; done' >/tmp/ps 2>&1 &"
    )
    on_host.rotate_key("agents")
    done.set()
    here.join()
    names = f"{on_host.engine} {on_host.edge}"
    places = {
        "argument lists here": "\n".join(lines),
        "argument lists there": on_host.machine.run("cat /tmp/ps"),
        "docker inspect": on_host.machine.run(f"docker inspect {names}"),
        "logs": on_host.machine.run(f"for name in {names}; do docker logs $name 2>&1; done"),
        "the journal": on_host.machine.run("sudo journalctl --quiet"),
        "watch": watch,
    }
    keys.append(on_host.key("agents"))
    for where, text in places.items():
        assert not [key[:4] for key in keys if key in text], f"a key is in {where}"
    readable = on_host.machine.run(
        "find /srv/seatable-vllm/vllm /srv/seatable-vllm/edge -name '*.yaml' -perm /077"
    )
    assert readable == ""


NAMED = {"host": "llm.example.com", "tls": "private-ca"}
OFFICE = "198.18.77.1"
"""This computer's address in the machine's network."""


def secure(stack: OnMachine, client: str) -> Target:
    """The endpoint under its name, at the machine's address, as a client of this computer sees it."""
    told = stack.outputs()
    key, model = told["clients"][client]["key"], told["model"]
    return Target(
        told["endpoint"],
        key,
        model,
        told["max_model_len"],
        tools=False,
        ca=told["ca_certificate"],
        address=ADDRESS,
    )


def shown_certificate(target: Target, port: int) -> str:
    """The certificate that the edge shows, in PEM."""
    context = ssl.create_default_context(cadata=target.ca)
    with (
        socket.create_connection((ADDRESS, port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=NAMED["host"]) as tls,
    ):
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")


def test_a_name_brings_tls_on_the_machines_own_addresses_and_a_timer_that_renews_it(on_host: OnMachine) -> None:
    """A private CA here; `test_tls` has the other sources. The engine is not touched by any of it."""
    engine, plain = on_host.container(on_host.engine), on_host.settings
    (port,) = free_ports(1)
    clients = {
        "office": {"kind": "seatable", "cidrs": [f"{OFFICE}/32"]},
        "away": {"kind": "openai", "cidrs": ["203.0.113.7/32"]},
    }
    on_host.configure(domain=NAMED, clients=clients, ports={**plain["ports"], "edge": port}, key_generations=None)
    on_host.up()
    office, away = (secure(on_host, client) for client in clients)
    body = {"model": office.model, "messages": [{"role": "user", "content": "Say OK."}], "max_tokens": 2}
    chat = "/v1/chat/completions"
    assert ask(office, "POST", chat, key=office.key, body=body).status == 200
    assert ask(office, "POST", chat, key=away.key, body=body).status == 403, "another client's key from here"
    assert "nothing changed" in on_host.up().stderr
    edge, first = on_host.container(on_host.edge), shown_certificate(office, port)
    unit = f"seatable-vllm-{on_host.stack}-certificate"
    assert on_host.machine.run(f"systemctl is-active {unit}.timer").strip() == "active"
    on_host.machine.run("/srv/seatable-vllm/certificates/renew --force")
    assert shown_certificate(office, port) != first
    assert on_host.container(on_host.edge) == edge
    assert ask(office, "GET", "/v1/models", key=office.key).status == 200
    assert on_host.container(on_host.engine) == engine
    on_host.write(plain)
    on_host.up()
    assert on_host.container(on_host.engine) == engine
    on_host.open_tunnel()


@pytest.mark.parametrize("event", ["Docker is restarted", "the machine is rebooted"])
def test_the_endpoint_comes_back_by_itself_when(event: str, on_host: OnMachine) -> None:
    if "Docker" in event:
        on_host.machine.run("sudo systemctl restart docker")
    else:
        on_host.machine.stop()
        on_host.machine.start()
    on_host.open_tunnel()
    assert on_host.answers()


def test_another_machine_at_the_same_address_is_not_trusted_unasked_and_then_set_up_anew(
    on_host: OnMachine, place: Place
) -> None:
    """The new one has the disk with the weights, and no other way to get them."""
    before = on_host.containers()
    machine = place.replace_machine()
    machine.start()
    machine.booted()
    refused = on_host.up(passes=False).stderr
    assert refused.count("SHA256:") >= 2
    assert "--machine-replaced" in refused
    assert machine.run("docker ps --all --quiet") == ""
    done = on_host.checkout.run("up", on_host.stack, "--rehearse", "--machine-replaced")
    assert done.returncode == 0, done.stderr
    assert {each.id for each in on_host.containers().values()}.isdisjoint(each.id for each in before.values())
    on_host.open_tunnel()


def test_a_machine_that_is_gone_does_not_hold_up_down_and_one_that_was_only_off_is_cleaned_later(
    on_host: OnMachine,
) -> None:
    on_host.close_tunnel()
    on_host.machine.stop()
    done = on_host.checkout.run("down", on_host.stack)
    assert done.returncode == 0, done.stderr
    assert "forgotten" in done.stderr
    assert not (on_host.state_dir / "rehearsal.json").exists()
    on_host.machine.start()
    on_host.machine.booted()
    done = on_host.checkout.run("down", on_host.stack, "--purge")
    assert done.returncode == 0, done.stderr
    assert on_host.machine.run("docker ps --all --quiet; docker network ls --quiet --filter name=seatable") == ""
    assert on_host.machine.run("ls -A /srv/seatable-vllm") == ""
