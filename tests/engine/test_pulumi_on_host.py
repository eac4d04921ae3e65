"""Engine tier on a machine that SSH reaches: `docker.Provider` over ssh://, which no other tier takes.

The machine is a whole one (systemd, sshd, a Docker of its own) in a container. The tests share it and its stack,
and run in the order in which they stand, from nothing to nothing.

What this does not prove: anything of a GPU, a machine that is replaced or gone, and where a certificate of a
public CA comes from (`tests/live/test_host.py`, `test_tls.py`).
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.endpoint import ask
from tests.engine.conftest import PulumiStack
from tests.live.harness import Checkout, free_ports
from tests.live.host_support import MODEL, NAMED, OnMachine, Place, cut_up, secure
from tests.live.test_live_changes import nothing_is_disturbed

SUBNET = "198.18.79.0/24"
"""Not one of the live tier's, so that both can run at once."""

CONNECTIONS_OF_AN_UP = 6

CUTS = (
    ("deploying", 2),
    ("inference-config updated", 0.5),
    ("inference-vllm deleting original", 0.5),
    ("inference-vllm creating replacement", 0.5),
    ("readiness-gate", 3),
)
"""When the connections of an `up` end: the words it has said, and the longest time after them, in seconds."""


class PulumiOnMachine(PulumiStack, OnMachine):
    """A stack that the Pulumi CLI deploys on the machine."""

    def preview(self, *more: str) -> subprocess.CompletedProcess[str]:
        """`pulumi preview`, which fails where it finds something to do."""
        return self.pulumi("preview", "--expect-no-changes", "--diff", *more)


@pytest.fixture(scope="module")
def place(backend: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A site with a machine, and a stack that is not up yet."""
    assert backend
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    place = Place(checkout, tmp_path_factory.mktemp("site"), PulumiOnMachine, SUBNET, pulls=False)
    yield place
    place.remove()


@pytest.fixture(scope="module")
def on_host(place: Place) -> PulumiOnMachine:
    """The stack, up, with its tunnel."""
    place.switch_on()
    stack = place.stack
    assert isinstance(stack, PulumiOnMachine)
    stack.up()
    stack.open_tunnel()
    return stack


@pytest.mark.parametrize("more", [(), ("--refresh",)], ids=["as the state says", "as Docker there says"])
def test_a_preview_of_what_is_deployed_is_empty(on_host: PulumiOnMachine, more: tuple[str, ...]) -> None:
    done = on_host.preview(*more)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_up_changes_nothing_and_asks_little_of_sshd(on_host: PulumiOnMachine) -> None:
    before, containers = on_host.logins(), on_host.containers()
    assert "nothing changed" in on_host.up().stderr
    assert on_host.logins() - before <= CONNECTIONS_OF_AN_UP
    assert on_host.containers() == containers


def test_an_address_and_a_key_that_are_added_restart_nothing_and_cut_no_stream(on_host: PulumiOnMachine) -> None:
    """Both in one `up`, beside requests and streams that go on."""
    clients, old = on_host.settings["clients"], on_host.key()
    with nothing_is_disturbed(on_host):
        cidrs = [*clients["agents"]["cidrs"], "127.0.0.3/32"]
        on_host.configure(clients={**clients, "agents": {**clients["agents"], "cidrs": cidrs}})
        on_host.rotate_key("seatable")
    assert on_host.outputs()["allowed"]["agents"] == cidrs
    assert on_host.key() != old
    assert [on_host.ask("GET", "/v1/models", key=key).status for key in (old, on_host.key())] == [200, 200]


def test_an_up_whose_connections_are_cut_is_taken_over_by_the_next_one(on_host: PulumiOnMachine) -> None:
    """Five in a row, each with another option of vLLM, so another engine, on what the last one has left."""
    edge, engine = on_host.container(on_host.edge), on_host.container(on_host.engine)
    for number, (word, longest) in enumerate(CUTS, start=8):
        on_host.configure(model={"name": MODEL, "extra_args": {"max-num-seqs": number}})
        moment = random.uniform(0, longest)  # noqa: S311 - told when it fails
        told, status = cut_up(on_host, word, moment)
        print(f"cut {moment:.1f} s after {word!r}: status {status}")
        end = [line for line in told.splitlines() if line.strip()][-3:]
        assert status == 0 or any(line.startswith("change: ") for line in end), f"{word!r}, {moment}: {told}"
    on_host.up()
    assert on_host.container(on_host.edge) == edge
    assert on_host.container(on_host.engine).id != engine.id
    assert f"max-num-seqs: {number}" in on_host.machine.run("cat /srv/seatable-vllm/vllm/config.yaml")
    listed = on_host.machine.run("docker ps --all --format '{{.Names}}'").split()
    assert sorted(listed) == sorted([on_host.edge, on_host.engine])
    assert on_host.preview().returncode == 0
    on_host.open_tunnel()


def test_a_name_brings_tls_and_a_preview_of_it_is_empty(on_host: PulumiOnMachine) -> None:
    """A private CA, made on the machine."""
    engine, (port,) = on_host.container(on_host.engine), free_ports(1)
    clients = {
        "office": {"kind": "seatable", "cidrs": [f"{on_host.office}/32"]},
        "away": {"kind": "openai", "cidrs": ["203.0.113.7/32"]},
    }
    ports = {**on_host.settings["ports"], "edge": port}
    on_host.configure(domain=NAMED, clients=clients, ports=ports, key_generations=None)
    on_host.up()
    office, away = (secure(on_host, client) for client in clients)
    body = {"model": office.model, "messages": [{"role": "user", "content": "Say OK."}], "max_tokens": 2}
    chat = "/v1/chat/completions"
    assert ask(office, "POST", chat, key=office.key, body=body).status == 200
    assert ask(office, "POST", chat, key=away.key, body=body).status == 403
    done = on_host.preview()
    assert done.returncode == 0, done.stdout + done.stderr
    assert on_host.container(on_host.engine) == engine


def test_down_leaves_nothing_on_the_machine(on_host: PulumiOnMachine) -> None:
    on_host.close_tunnel()
    done = on_host.checkout.run("down", on_host.stack, "--purge")
    assert done.returncode == 0, done.stderr
    assert on_host.machine.run("docker ps --all --quiet; docker network ls --quiet --filter name=seatable") == ""
    assert (
        on_host.machine.run("ls -A /srv/seatable-vllm; systemctl list-timers --all | grep seatable || true") == ""
    )
    assert on_host.pulumi("stack", "output").returncode != 0
