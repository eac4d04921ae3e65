"""A stack on a whole machine that SSH reaches, for the tests of the live tier and of the engine tier.

Interface: `Place` (a site with a machine and a stack for it), `OnMachine` (that stack), `cut_up` (an `up` whose
connections are cut), `secure` (the endpoint under a name, with TLS).
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from catalog.images import HAPROXY, VLLM_CPU
from checks.endpoint import Target
from tests.live.harness import Checkout, Container, Deployment, pace, wait_until
from tests.live.host_machine import SUBNET, Machine, Site, undone_by
from tests.live.machine_image import USER

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BACK_SECONDS = 240

IMAGES = {"vllm": VLLM_CPU.made or "", "haproxy": HAPROXY.made or ""}
"""By setting."""

NAMED = {"host": "llm.example.com", "tls": "private-ca"}


class OnMachine(Deployment):
    """A stack on the machine; its endpoint is asked through the tunnel that its outputs name."""

    def __init__(self, checkout: Checkout, site: Site, images: dict[str, str], machine: Machine) -> None:
        place = {"kind": "host", "ssh": f"{USER}@{site.address}", "ssh_key": str(site.key)}
        super().__init__(checkout, "host", {"machine": place, "images": images})
        self.machine = machine
        self.address = site.address
        self._tunnel: subprocess.Popen[bytes] | None = None

    def container(self, name: str) -> Container:
        """As in Deployment, on the machine."""
        (found,) = json.loads(self.machine.run(f"docker inspect {name}"))
        state = found["State"]
        return Container(found["Id"], state["StartedAt"], found["RestartCount"], state["Status"])

    @property
    def office(self) -> str:
        """This computer's address in the machine's network."""
        return str(ipaddress.ip_address(self.address) - 3)

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
        """Ends the sessions that the machine's sshd has, and those that it gets in the next two seconds."""
        kill = f"pkill -KILL --full '^sshd: {USER}'"
        self.machine.as_root(f"for i in $(seq 20); do {kill}; sleep 0.1; done; true")


class Place:
    """A site, one machine in it that is not switched on yet, and a stack that is not up yet."""

    def __init__(
        self,
        checkout: Checkout,
        folder: Path,
        kind: Callable[..., OnMachine] = OnMachine,
        subnet: str = SUBNET,
        *,
        pulls: bool = True,
    ) -> None:
        """kind: of the stack. pulls: whether it pulls its images; else call `switch_on`, which brings them."""
        self.name = f"svt{os.getpid()}"
        self.disk = f"{self.name}-disk"
        self.site = Site(self.name, folder, subnet)
        with undone_by(self.site.remove):
            offered = {name: self.site.offer(image) for name, image in IMAGES.items()} if pulls else IMAGES
            self.machine = Machine(f"{self.name}-1", self.site, self.disk)
            with undone_by(self.machine.remove):
                self.machine.give_model(MODEL)
            self.stack = kind(checkout, self.site, offered, self.machine)

    def switch_on(self) -> None:
        """Switches the machine on and gives its Docker the images, which is faster than pulling them."""
        self.machine.start()
        self.machine.booted()
        for image in IMAGES.values():
            self.machine.load(image)

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


def cut_up(stack: OnMachine, word: str, seconds: float) -> tuple[str, int]:
    """What an `up` says, and its status, whose connections are cut so long after it has said a word."""
    told = []
    cut = threading.Timer(seconds, stack.cut_every_connection)
    with stack.checkout.start("up", stack.stack, *stack.how) as up:
        assert up.stdout is not None
        for line in up.stdout:
            told.append(line)
            if word in line and not cut.is_alive() and not cut.finished.is_set():
                cut.start()
        assert word in "".join(told)
        cut.join()
    return "".join(told), up.returncode


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
        address=stack.address,
    )


def shown_certificate(target: Target, port: int) -> str:
    """The certificate that the edge shows, in PEM."""
    context = ssl.create_default_context(cadata=target.ca)
    with (
        socket.create_connection((target.address, port), timeout=pace.of(20)) as plain,
        context.wrap_socket(plain, server_hostname=NAMED["host"]) as tls,
    ):
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")
