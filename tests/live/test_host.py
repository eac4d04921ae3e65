"""The endpoint on a machine that SSH reaches: a real sshd, systemd and Docker, and images that are really pulled.

The tests share one machine, and each begins with what `on_host` says, whatever the one before it has left. What
this does NOT prove: anything about a GPU, about cloud-init, or about the way of `docker.Provider` over SSH, which
the rehearsal does not take (it forwards Docker's socket instead).
"""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from checks.endpoint import ask
from tests.live.harness import LOOPBACK, Checkout, free_ports, wait_until
from tests.live.host_machine import DATA_DIR, Machine
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
"""When the connections of an `up` end: the word it has said, and the longest time after it, in seconds.

The least is half of that: soon after the first word there may be no connection yet.
"""

SEQUENCES = 12
"""vLLM's max-num-seqs here, unless a test says otherwise."""


class Home:
    """A machine, and the stack on it in the state that each test begins with: see `ready`.

    said_before_power: what the `up` that made the stack has said by the time at which the machine was switched on.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.stack = place, place.stack
        self.stack.configure(model={"name": MODEL, "extra_args": {"max-num-seqs": SEQUENCES}})
        self.right = self.stack.settings
        self.said_before_power = ""
        self._has_weights = place.machine
        self._failures = 0

    def ready(self, failures: int) -> OnMachine:
        """The stack, up with its settings of the beginning, and answering through its tunnel.

        failures: of tests of this session so far. What a failed one leaves is not trusted; others put back what
        they change, all but the number of a key. Costs one completion where that is so.
        """
        failed, self._failures = failures > self._failures, failures
        if not (self.stack.state_dir / "rehearsal.json").exists():
            self._make()
        elif failed or self._settings() != self.right or not self.stack.answers():
            self._put_right()
        return self.stack

    def _settings(self) -> dict[str, object]:
        return {key: value for key, value in self.stack.settings.items() if key != "key_generations"}

    def _make(self) -> None:
        """An `up` that begins while the machine is off."""
        stack, told = self.stack, list[str]()
        stack.close_tunnel()
        stack.write(self.right)
        stack.forget_outputs()
        self.place.machine.stop()
        begin = datetime.now(UTC)
        with stack.checkout.start("up", stack.stack, *stack.how) as up:
            reader = threading.Thread(target=lambda: told.extend(up.stdout or ()), daemon=True)
            reader.start()
            wait_until(lambda: "reaching" in "".join(told), "the begin of an up")
            self.said_before_power = "".join(told)
            self._switch_on()
            wait_until(lambda: up.poll() is not None, "the end of an up", 600)
            reader.join()
        assert up.returncode == 0, "".join(told)
        stack.observe_start(since=begin)
        stack.open_tunnel()

    def _put_right(self) -> None:
        """An `up` on what is there, which may be another machine than the one that the stack knows."""
        self.stack.close_tunnel()
        self.stack.write(self.right)
        self._switch_on()
        self.place.machine.booted()
        done = self.stack.up(passes=None)
        if "--machine-replaced" in done.stderr:
            up_on_another_machine(self.stack)
        else:
            assert done.returncode == 0, done.stderr
        self.stack.open_tunnel()

    def _switch_on(self) -> None:
        machine = self.place.machine
        if machine is not self._has_weights:  # no hub is reached from there
            machine.give_model(MODEL)
            self._has_weights = machine
        machine.start()


def up_on_another_machine(stack: OnMachine) -> None:
    """`up`, told that the machine is another one than the stack knows."""
    stack.forget_outputs()
    done = stack.checkout.run("up", stack.stack, *stack.how, "--machine-replaced")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(checkout: Checkout, _shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A site with a machine that is not switched on yet."""
    _shared.release()
    place = Place(checkout, tmp_path_factory.mktemp("site"))
    yield place
    place.remove()


@pytest.fixture(scope="module")
def home(place: Place) -> Home:
    """That machine, and a stack that is not up yet."""
    return Home(place)


@pytest.fixture
def on_host(home: Home, request: pytest.FixtureRequest) -> OnMachine:
    """The stack, up and answering; where there was none, by an `up` that began before the machine was on."""
    return home.ready(request.session.testsfailed)


@contextlib.contextmanager
def argument_lists(machine: Machine) -> Iterator[Callable[[], dict[str, str]]]:
    """Looks at every command line on this computer and on the machine, until the end of the block.

    The block gets what has been seen so far, by where. The looking has begun, and goes on at the end.
    """
    seen: dict[str, None] = {}
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            told = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=False).stdout
            seen.update(dict.fromkeys(told.splitlines()))

    def so_far() -> dict[str, str]:
        there = machine.run("cat /tmp/ps")
        return {"argument lists here": "\n".join(list(seen)), "argument lists there": there}

    def shown(mark: str) -> bool:
        machine.run(f"sleep 0.1; : {mark}")
        return all(mark in text for text in so_far().values())

    here = threading.Thread(target=look)
    here.start()
    try:
        watch = "while [ -e /tmp/watch ]; do ps -eww -o args; sleep .02; done"
        machine.run(f"touch /tmp/watch; nohup sh -c '{watch}' >/tmp/ps 2>&1 &")
        wait_until(lambda: shown("a-mark-before"), "a command line of before")
        yield so_far
        wait_until(lambda: shown("a-mark-behind"), "a command line of afterwards")
    finally:
        done.set()  # a thread that goes on would keep a failed session from its end
        here.join()
        machine.run("rm -f /tmp/watch", check=False)


def test_an_up_that_began_before_the_machine_booted_ends_with_a_working_endpoint(
    on_host: OnMachine, home: Home
) -> None:
    """The one that made the stack."""
    assert "reaching" in home.said_before_power
    assert "deploying" not in home.said_before_power
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
    """Five in a row, each with another option of vLLM, so another engine, on what the last one has left.

    The last option is that of the beginning.
    """
    edge, engine = on_host.container(on_host.edge), on_host.container(on_host.engine)
    cut = []
    for number, (word, longest) in enumerate(CUTS, start=SEQUENCES - len(CUTS) + 1):
        on_host.configure(model={"name": MODEL, "extra_args": {"max-num-seqs": number}})
        moment = random.uniform(longest / 2, longest)  # noqa: S311 - told when it fails
        told, status = cut_up(on_host, word, moment)
        print(f"cut {moment:.1f} s after {word!r}: status {status}")
        assert "Traceback" not in told, f"cut {moment} s after {word!r}, status {status}: {told}"
        assert status != 0 or longest, f"nobody noticed the cut: {told}"
        cut.append(status != 0)
    assert sum(cut) >= 3, f"too few of the cuts came while there was a connection that mattered: {cut}"
    on_host.up()
    assert on_host.container(on_host.edge) == edge
    assert on_host.container(on_host.engine).id != engine.id
    assert "max-num-seqs: 12" in on_host.machine.run(f"cat {DATA_DIR}/vllm/config.yaml")
    on_host.open_tunnel()


def test_keys_are_in_no_argument_list_log_or_inspection_on_the_machine(on_host: OnMachine) -> None:
    keys = [client["key"] for client in on_host.outputs()["clients"].values()]
    keys += re.findall(r"[A-Za-z0-9]{64}", on_host.machine.run(f"cat {DATA_DIR}/vllm/config.yaml"))
    assert len(keys) >= 3
    with argument_lists(on_host.machine) as seen:
        on_host.rotate_key("agents")
    names = f"{on_host.engine} {on_host.edge}"
    places = {
        **seen(),
        "docker inspect": on_host.machine.run(f"docker inspect {names}"),
        "logs": on_host.machine.run(f"for name in {names}; do docker logs $name 2>&1; done"),
        "the journal": on_host.machine.run("sudo journalctl --quiet"),
    }
    assert "rotate-key" in places["argument lists here"]
    keys.append(on_host.key("agents"))
    for where, text in places.items():
        assert text
        assert not [key[:4] for key in keys if key in text], f"a key is in {where}"
    on_host.rotate_key("agents", "--finish")


def test_the_files_that_hold_a_key_on_the_machine_are_their_owners_alone(on_host: OnMachine) -> None:
    folders = f"{DATA_DIR}/vllm {DATA_DIR}/edge"
    form = f"find {folders} -type f \\( -name '*.yaml' -o -name '*.map' \\) -printf '%f %m\\n'"
    modes = {tuple(line.split()) for line in on_host.machine.run(form).splitlines()}
    held = {("config.yaml", "600"), ("client-keys.map", "600"), ("engine-key.map", "600")}
    assert held <= modes
    assert {mode for _, mode in modes} == {"600"}


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
    up_on_another_machine(on_host)
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
    on_host.machine.run(f"cd {DATA_DIR} && mkdir -p models/OTHER && touch models/OTHER/weights")
    try:
        done = on_host.checkout.run("down", on_host.stack, "--purge")
        assert done.returncode == 0, done.stderr
        listed = on_host.machine.run("docker ps --all --quiet; docker network ls --quiet --filter name=seatable")
        assert listed == ""
        assert on_host.machine.run(f"cd {DATA_DIR} && find . -type f").split() == ["./models/OTHER/weights"]
    finally:
        on_host.machine.run(f"rm -r {DATA_DIR}/models")  # or no stack may have this folder
