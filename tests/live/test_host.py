"""The endpoint on a machine that SSH reaches: a real sshd, systemd and Docker, and images that are really pulled.

The tests share one machine and run in the order in which they stand, from its first boot to its end. What this
does NOT prove: anything about a GPU, about cloud-init, or about the way of `docker.Provider` over SSH, which the
rehearsal does not take (it forwards Docker's socket instead).
"""

from __future__ import annotations

import random
import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from checks.endpoint import ask
from tests.live.harness import LOOPBACK, Checkout, free_ports, wait_until
from tests.live.host_support import MODEL, NAMED, OnMachine, Place, cut_up, secure, shown_certificate

if TYPE_CHECKING:
    from tests.live.conftest import Shared

pytestmark = pytest.mark.beside

CONNECTIONS_OF_AN_UP = 6

CUTS = (
    ("deploying", 0.5),
    ("deploying", 2),
    ("deploying", 4),
    ("readiness-gate: ", 0),
    ("readiness-gate: ", 3),
)
"""When the connections of an `up` end: the word it has said, and the longest time after it, in seconds."""


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
    begin = datetime.now(UTC)
    with stack.checkout.start("up", stack.stack, "--rehearse") as up:
        reader = threading.Thread(target=lambda: told.extend(up.stdout or ()), daemon=True)
        reader.start()
        wait_until(lambda: "reaching" in "".join(told), "the begin of an up")
        place.machine.start()
        wait_until(lambda: up.poll() is not None, "the end of an up", 600)
        reader.join()
    assert up.returncode == 0, "".join(told)
    stack.observe_start(since=begin)
    stack.open_tunnel()
    return stack


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


def test_an_up_whose_connections_are_cut_ends_in_words_and_the_next_one_goes_on(on_host: OnMachine) -> None:
    """Five in a row, each with another option of vLLM, so another engine, on what the last one has left."""
    edge, engine = on_host.container(on_host.edge), on_host.container(on_host.engine)
    for number, (word, longest) in enumerate(CUTS, start=8):
        on_host.configure(model={"name": MODEL, "extra_args": {"max-num-seqs": number}})
        moment = random.uniform(0, longest)  # noqa: S311 - told when it fails
        told, status = cut_up(on_host, word, moment)
        assert "Traceback" not in told, f"cut {moment} s after {word!r}, status {status}: {told}"
        assert status != 0 or longest, f"nobody noticed the cut: {told}"
    on_host.up()
    assert on_host.container(on_host.edge) == edge
    assert on_host.container(on_host.engine).id != engine.id
    assert f"max-num-seqs: {number}" in on_host.machine.run("cat /srv/seatable-vllm/vllm/config.yaml")
    on_host.open_tunnel()


def test_keys_are_in_no_argument_list_log_or_inspection_on_the_machine(on_host: OnMachine) -> None:
    keys = [client["key"] for client in on_host.outputs()["clients"].values()]
    keys += re.findall(r"[A-Za-z0-9]{64}", on_host.machine.run("cat /srv/seatable-vllm/vllm/config.yaml"))
    assert len(keys) >= 3
    done = threading.Event()
    lines: list[str] = []
    here = threading.Thread(target=lambda: lines.extend(sightings(on_host, done)))
    here.start()
    try:
        watch = on_host.machine.run(
            "nohup sh -c 'for i in $(seq 400); do ps -eww -o args; sleep .02; done' >/tmp/ps 2>&1 &"
        )
        on_host.rotate_key("agents")
    finally:
        done.set()  # a thread that goes on would keep a failed session from its end
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


def test_a_name_brings_tls_on_the_machines_own_addresses_and_a_timer_that_renews_it(on_host: OnMachine) -> None:
    """A private CA here; `test_tls` has the other sources. The engine is not touched by any of it."""
    engine, plain = on_host.container(on_host.engine), on_host.settings
    (port,) = free_ports(1)
    clients = {
        "office": {"kind": "seatable", "cidrs": [f"{on_host.office}/32"]},
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
    on_host.machine.run("cd /srv/seatable-vllm && mkdir -p models/OTHER && touch models/OTHER/weights")
    done = on_host.checkout.run("down", on_host.stack, "--purge")
    assert done.returncode == 0, done.stderr
    assert on_host.machine.run("docker ps --all --quiet; docker network ls --quiet --filter name=seatable") == ""
    assert on_host.machine.run("cd /srv/seatable-vllm && find . -type f").split() == ["./models/OTHER/weights"]
