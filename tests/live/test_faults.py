"""An endpoint that serves, and what dies under it: it serves again without a hand, or after one `up`.

All tests share one stack and leave it serving. Seconds are measured from the fault and printed (`pytest -s`, or
`-rP`); the only limit on them is the promise of three minutes, which a busy computer may exceed (`harness.Pace`).

What this does not prove: a reboot and a restart of the Docker daemon, which other containers of this computer
would suffer from too (the restart policy that covers them is the one that brings back a crashed container here);
a hang inside a GPU; that a busy engine is left alone on a machine where one step takes longer than the health
check's patience.
"""

from __future__ import annotations

import http.client
import re
import signal

import pytest

from checks.watchdog import MISSES_UNTIL_KILL
from scripts.commands.bench_edge import image_of
from tests.live.faults_support import (
    Outage,
    listed,
    long_generations,
    serves,
    signal_processes,
)
from tests.live.harness import Checkout, Deployment, docker_client, pace, wait_until

BACK_SECONDS = 180
"""From the fault to the next token."""

SETTLE_SECONDS = 10
"""After the end of the engine: until then a request may be cut that was on its way into it."""

ENGINE_PROCESSES = r"VLLM::|EngineCore"
SERVER_PROCESS = r"python\S* .*(vllm serve|api_server)"

SEQUENCES = 64
"""How many requests vLLM works on at once; the next ones wait (max-num-seqs)."""


@pytest.fixture
def key(deployment: Deployment) -> str:
    """The key of the first client."""
    return deployment.key()


@pytest.fixture
def stack(deployment: Deployment) -> Deployment:
    """The shared stack, serving."""
    return deployment


def assert_said(outage: Outage, until: float = 0) -> None:
    """While the engine is away the edge says so in OpenAI's error form, with the time to come back.

    until: seconds from the fault to the end of the engine; what is under way at that moment may be cut.
    """
    from_the_edge = [answer for answer in outage.answers if answer.status in (502, 503)]
    assert from_the_edge, f"the edge never said that the engine is away: {outage.summary()}"
    for answer in from_the_edge:
        assert answer.headers.get("retry-after", "").isdecimal(), answer
        assert answer.headers["content-type"].startswith("application/json"), answer
        error = answer.json()["error"]
        assert error["code"] == answer.status, error
        assert "engine" in error["message"], error
    # vLLM itself says 500 in the seconds between the death of its engine and its own end.
    assert {answer.status for answer in outage.answers} <= {500, 502, 503}, outage.summary()
    late = [f"{seconds:.1f}" for seconds in outage.cut if seconds > until + pace.of(SETTLE_SECONDS)]
    assert not late, f"requests closed without an answer while the engine was away, at seconds {', '.join(late)}"


@pytest.mark.parametrize(
    ("name", "processes"), [("engine", ENGINE_PROCESSES), ("API server", SERVER_PROCESS)], ids=["engine", "server"]
)
def test_a_killed_process_of_vllm_is_back_without_a_hand_and_meanwhile_the_edge_says_so(
    stack: Deployment, key: str, name: str, processes: str
) -> None:
    before = stack.containers()
    outage = Outage()
    signal_processes(stack.engine, processes, signal.SIGKILL)
    # Half a minute is no promise but far below any client's patience: the answer must not wait for the engine.
    outage.last_until_served(stack, key, patience=30, deadline=BACK_SECONDS)
    print(f"{name} killed: served again after {outage.seconds:.1f} s ({outage.summary()})")
    assert not outage.silences, f"requests hung while the engine was away: {outage.summary()}"
    assert_said(outage)
    after = stack.containers()
    assert after[stack.edge] == before[stack.edge]
    assert after[stack.engine].id == before[stack.engine].id
    assert after[stack.engine].restarts == before[stack.engine].restarts + 1


def assert_back_after_a_hang(stack: Deployment, key: str, deadline: float) -> None:
    """Stops the engine's processes, which its health route does not notice; it must serve again by itself."""
    before = stack.containers()
    outage = Outage()
    signal_processes(stack.engine, ENGINE_PROCESSES, signal.SIGSTOP)
    assert stack.ask("GET", "/health", port=stack.engine_port).status == http.client.OK, "no hang but a crash"
    outage.last_until_served(stack, key, patience=5, deadline=deadline)
    print(f"engine stopped: served again after {outage.seconds:.1f} s ({outage.summary()})")
    assert outage.silences, "the engine was not stopped: it kept answering"
    assert_said(outage, until=max(outage.silences))
    after = stack.containers()
    assert after[stack.edge] == before[stack.edge]
    assert after[stack.engine].id == before[stack.engine].id
    assert after[stack.engine].restarts == before[stack.engine].restarts + 1


def healthy(stack: Deployment) -> bool:
    """Whether Docker has seen a good health check since the engine's last start."""
    state = docker_client().containers.get(stack.engine).attrs["State"]
    return bool(state["Health"]["Status"] == "healthy")


def test_an_engine_that_hangs_is_back_without_a_hand_though_its_health_route_says_200(
    stack: Deployment, key: str
) -> None:
    wait_until(lambda: healthy(stack), "a good health check")
    assert_back_after_a_hang(stack, key, BACK_SECONDS)


def test_an_engine_that_hangs_right_after_its_start_is_back_without_a_hand(stack: Deployment, key: str) -> None:
    """Before a health check has ever passed, and with no `up` that watches."""
    docker_client().containers.get(stack.engine).restart(timeout=1)
    wait_until(lambda: serves(stack, key), "an engine that was started again", BACK_SECONDS)
    if healthy(stack):
        pytest.skip("a health check came first, which this test cannot prevent")
    # No client waits for this one longer than for any other; only the health check has one more look to take.
    assert_back_after_a_hang(stack, key, BACK_SECONDS + 60)


def test_a_busy_engine_that_keeps_the_health_check_waiting_is_left_alone(stack: Deployment, key: str) -> None:
    before = stack.containers()
    container = docker_client().containers.get(stack.engine)

    def running() -> float:
        text = stack.ask("GET", "/metrics", port=stack.engine_port).text
        return sum(float(n) for n in re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE))

    verdicts: list[str] = []
    with long_generations(stack, key, SEQUENCES + 16, tokens=4000):
        wait_until(lambda: running() >= SEQUENCES, "an engine with its hands full")
        # The container's own health check, run back to back beside Docker's: more misses in less time.
        # So many misses in a row would be the end of it.
        while verdicts.count("busy") < MISSES_UNTIL_KILL and len(verdicts) <= MISSES_UNTIL_KILL:
            _, told = container.exec_run(["python3", "/etc/seatable-vllm/vllm/watchdog.py"])
            verdicts.append(told.decode().split()[0])
    enough = verdicts.count("busy") >= MISSES_UNTIL_KILL
    assert enough, f"the engine was not busy enough to prove anything: {verdicts}"
    assert "kill" not in verdicts
    assert stack.containers() == before
    wait_until(lambda: running() == 0, "the end of generations that nobody listens to")


@pytest.mark.parametrize("reloaded", [False, True], ids=["plain", "after-a-reload"])
def test_a_crashed_edge_is_back_by_itself(stack: Deployment, key: str, reloaded: bool) -> None:
    """A reload must not make Docker think that the container was stopped by hand."""
    clients = stack.settings["clients"]
    if reloaded:
        stack.configure(clients={**clients, "later": {"kind": "openai", "cidrs": ["127.0.0.3/32"]}})
        before = stack.containers()
        stack.up()
        assert stack.containers() == before, "a new client must not restart anything"
    before = stack.containers()
    try:
        outage = Outage()
        signal_processes(stack.edge, r"haproxy -W", signal.SIGKILL)
        wait_until(lambda: listed(stack, key), "an edge that passes requests on", BACK_SECONDS)
        outage.last_until_served(stack, key, patience=60, deadline=BACK_SECONDS)
        print(f"edge killed ({reloaded=}): served again after {outage.seconds:.1f} s")
        after = stack.containers()
        assert after[stack.engine] == before[stack.engine]
        assert after[stack.edge].id == before[stack.edge].id
        assert after[stack.edge].started_at != before[stack.edge].started_at
    finally:
        if reloaded:
            stack.configure(clients=clients)
            stack.up()


@pytest.mark.parametrize("role", ["engine", "edge"])
def test_a_container_that_was_killed_by_hand_is_started_again_by_up_which_says_so(
    stack: Deployment, key: str, role: str
) -> None:
    name, other = (stack.engine, stack.edge) if role == "engine" else (stack.edge, stack.engine)
    before = stack.containers()
    docker_client().containers.get(name).kill()
    wait_until(lambda: stack.container(name).status == "exited", f"the end of {name}")
    done = stack.up()
    after = stack.containers()
    assert after[name].id == before[name].id, "it was made again where starting it was enough"
    assert after[name].status == "running"
    assert after[other] == before[other]
    assert serves(stack, key)
    told = done.stdout + done.stderr
    assert re.search(rf"{role}.*\bstart|\bstart.*{role}", told), f"up does not say what it started:\n{told}"


@pytest.mark.parametrize("role", ["engine", "edge"])
def test_a_container_that_was_removed_by_hand_is_made_again_by_up_which_says_so(
    stack: Deployment, key: str, role: str
) -> None:
    name, other = (stack.engine, stack.edge) if role == "engine" else (stack.edge, stack.engine)
    before = stack.containers()
    docker_client().containers.get(name).remove(force=True)
    done = stack.up()
    after = stack.containers()
    assert after[name].id != before[name].id
    assert after[name].status == "running"
    assert after[other] == before[other]
    assert serves(stack, key), "a key of before is no longer good"
    assert "nothing changed" not in done.stderr, done.stderr


def test_a_second_up_changes_nothing_and_says_so(stack: Deployment) -> None:
    before, outputs = stack.containers(), stack.outputs()
    done = stack.up()
    assert "nothing changed" in done.stderr, done.stderr
    assert stack.containers() == before
    assert stack.outputs() == outputs


def test_a_stack_that_comes_fails_and_goes_beside_this_one_does_not_touch_it(
    stack: Deployment, key: str, checkout: Checkout
) -> None:
    before = stack.containers()
    network = docker_client().networks.get(stack.network).id
    # No second engine: what it is told to run is HAProxy. Its containers, files and state are really made.
    beside = Deployment(checkout, "beside", {"images": {"vllm": image_of(stack.edge)}})
    try:
        beside.up(passes=False)
        owned = docker_client().containers.list(
            all=True, filters={"label": f"seatable-vllm.stack={beside.stack}"}, ignore_removed=True
        )
        assert {container.name for container in owned} == {beside.edge, beside.engine}
        assert stack.containers() == before
    finally:
        beside.purge()
    assert stack.containers() == before
    assert docker_client().networks.get(stack.network).id == network
    assert serves(stack, key)
