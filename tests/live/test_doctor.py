"""scripts/doctor on a real stack: well, half up, and failed in the ways that an administrator meets.

What it does not prove: a machine behind SSH, and a GPU's failures. An engine is started once for the shared
stack, and once more at the end, to put it back; the crash loop ends before any weights are loaded.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.conftest import MakeStack
from tests.live.faults_support import listener, serves
from tests.live.harness import Checkout, Deployment, docker_client, free_ports, wait_until


def doctor(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    """`scripts/doctor` of the stack; whatever it says holds no key and no stack trace."""
    done = deployment.checkout.run("doctor", deployment.stack)
    told = done.stdout + done.stderr
    assert "Traceback" not in told, told
    assert deployment.engine_key() not in told
    for client in ("seatable", "agents"):
        assert deployment.key(client) not in told
    return done


def problems(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What was told of each problem, by what it is about."""
    blocks = [block for block in done.stdout.split("\n\n") if block.startswith("problem: ")]
    return {block.splitlines()[0].removeprefix("problem: "): block for block in blocks}


@pytest.fixture
def stack(deployment: Deployment) -> Iterator[Deployment]:
    """The shared stack, serving before and after."""
    yield deployment
    if not serves(deployment, deployment.key()):
        deployment.up()


def test_a_stack_that_works_has_no_problem(stack: Deployment) -> None:
    before = stack.containers()
    done = doctor(stack)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines), done.stdout
    for part in ("settings", "Docker", "disk", stack.engine, stack.edge, "edge configuration", "stream arrives"):
        assert any(part in line for line in lines), f"nothing of {part} in:\n{done.stdout}"
    assert stack.containers() == before, "it changed something"


def test_a_file_changed_since_the_last_up_is_named(stack: Deployment) -> None:
    right = stack.settings
    clients = {**right["clients"], "agents": {"kind": "openai", "cidrs": ["127.0.0.3/32"]}}
    stack.configure(clients=clients)
    try:
        told = problems(doctor(stack))
    finally:
        stack.write(right)
    assert list(told) == ["stack file"]
    assert f"change: scripts/up {stack.stack}" in told["stack file"]


def test_a_port_without_a_key_that_is_not_the_edges_is_named(stack: Deployment) -> None:
    right = stack.settings
    (port,) = free_ports(1)
    stack.configure(ports={**right["ports"], "loopback": port})
    try:
        closed = problems(doctor(stack))
        with listener(port):
            taken = problems(doctor(stack))
    finally:
        stack.write(right)
    assert list(closed) == list(taken) == [f"port {port} (loopback)"]
    assert f"scripts/up {stack.stack}" in closed[f"port {port} (loopback)"]
    assert "seatable-vllm:ports.loopback" in taken[f"port {port} (loopback)"]


def test_a_key_that_the_edge_does_not_know_is_named(stack: Deployment) -> None:
    """Somebody has put an older set of the edge's files in force, by hand."""
    client = docker_client().containers.get(stack.edge)
    live = (stack.data_dir / "edge" / "live").resolve()
    keys = live / "client-keys.map"
    right = keys.read_text()
    try:
        keys.write_text("".join(f"{'x' * 64} {line.split()[1]}\n" for line in right.splitlines()))
        client.exec_run(["sh", "-c", "kill -USR2 1"])
        wait_until(lambda: not serves(stack, stack.key()), "the edge forgets the keys")
        done = doctor(stack)
        assert done.returncode == 1
        told = "\n".join(problems(done).values())
        assert "does not know the client's key" in told
        assert "scripts/up" in told
    finally:
        keys.write_text(right)
        client.exec_run(["sh", "-c", "kill -USR2 1"])
        wait_until(lambda: serves(stack, stack.key()), "the edge knows the keys again")


def test_an_edge_that_was_killed_is_named_and_comes_back_by_the_advice_that_is_given(stack: Deployment) -> None:
    docker_client().containers.get(stack.edge).kill()
    done = doctor(stack)
    assert done.returncode == 1
    told = problems(done)
    assert "was killed" in told[stack.edge]
    assert f"scripts/up {stack.stack}" in told[stack.edge]
    assert stack.engine not in told
    assert any("nothing listens" in block for block in told.values())
    stack.up()
    assert doctor(stack).returncode == 0


def test_an_engine_that_was_stopped_and_one_that_keeps_failing_are_told_apart(
    stack: Deployment, checkout: Checkout
) -> None:
    client = docker_client()
    engine = client.containers.get(stack.engine)
    engine.stop(timeout=1)
    told = problems(doctor(stack))
    assert f"scripts/up {stack.stack}" in told[stack.engine]
    assert "does not run" in told[stack.engine] or "was killed" in told[stack.engine]
    # Its file gets an option that vLLM does not know, and Docker starts it again and again.
    configuration = stack.data_dir / "vllm" / "config.yaml"
    right = configuration.read_text()
    try:
        configuration.write_text(f"{right}no-such-option: 1\n")
        engine.start()
        wait_until(lambda: stack.container(stack.engine).restarts >= 1, "the engine has failed")
        done = doctor(stack)
        assert done.returncode == 1
        told = problems(done)
        assert "does not know an option" in told[stack.engine]
        assert "no-such-option" in told[stack.engine]
        assert "seatable-vllm:model.extra_args" in told[stack.engine]
    finally:
        engine.stop(timeout=1)
        configuration.write_text(right)


SECOND = 1_000_000_000
"""In nanoseconds, as Docker takes the times of a health check."""

STATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "crash-loop": (
        {
            "entrypoint": ["sh", "-c", "echo 'vllm serve: error: unrecognized arguments: --x'; exit 2"],
            "restart_policy": {"Name": "unless-stopped"},
        },
        "restarting",
        "does not know an option",
    ),
    "killed-for-memory": (
        {"entrypoint": ["sh", "-c", "head -c 100m /dev/zero | tail >/dev/null"], "mem_limit": "20m"},
        "exited",
        "memory ran out",
    ),
    "ended-for-a-reason-nobody-knows": (
        {"entrypoint": ["sh", "-c", "echo AssertionError: new; exit 3"]},
        "exited",
        "ended with status 3",
    ),
    "hung": (
        {
            "entrypoint": ["sleep", "120"],
            "init": True,
            "healthcheck": {"test": ["CMD-SHELL", "echo miss misses=2; exit 1"], "interval": SECOND, "retries": 1},
        },
        "unhealthy",
        "answers nobody",
    ),
    "of-another-checkout": (
        {"entrypoint": ["sleep", "120"], "init": True},
        "running",
        "keeps its data in /elsewhere",
    ),
}
"""How a container is made, the state it gets into, and what is to be said of it. None of them is an engine."""


@pytest.mark.parametrize("name", STATES)
def test_a_container_in_any_state_is_explained(name: str, make_stack: MakeStack) -> None:
    options, state, cause = STATES[name]
    stack: Deployment = make_stack("states")
    client = docker_client()
    image = next(tag for each in client.images.list() for tag in each.tags if "haproxy" in tag)
    folder = "/elsewhere" if name == "of-another-checkout" else str(stack.data_dir)
    container = client.containers.create(
        image, name=stack.engine, network_mode="none", labels={"seatable-vllm.data-dir": folder}, **options
    )
    try:
        container.start()

        def there() -> bool:
            container.reload()
            seen = container.attrs["State"]
            return state in (seen["Status"], (seen.get("Health") or {}).get("Status"))

        wait_until(there, f"the container is {state}")
        done = stack.checkout.run("doctor", stack.stack)
    finally:
        container.remove(force=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    told = problems(done)
    assert cause in told[stack.engine], done.stdout
    assert "change: " in told[stack.engine]
    assert "there is no container" in told[stack.edge]
    assert "deployed" in told, "nothing was deployed, and it does not say so"
