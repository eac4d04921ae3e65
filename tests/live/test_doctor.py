"""scripts/doctor on a real stack: well, half up, and failed in the ways that an administrator meets.

What it does not prove: a machine behind SSH, and a GPU's failures. A real engine that was stopped, and one that
keeps failing, are in test_failures_explained, whose stack is not needed afterwards.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.conftest import MakeStack
from tests.live.faults_support import doctor, listener, problems, serves
from tests.live.harness import Deployment, docker_client, free_ports, wait_until


@pytest.fixture
def stack(deployment: Deployment) -> Deployment:
    """The shared stack, serving."""
    return deployment


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
    assert list(told) == [stack.edge], "what hangs on the edge has no problem of its own"
    assert f"client's side: not looked at because of {stack.edge}" in done.stdout
    stack.up()
    assert doctor(stack).returncode == 0


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
        "vLLM: new",
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


@pytest.mark.beside
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
    assert list(told) == [stack.engine], "what hangs on the engine has no problem of its own"
    for what in (stack.edge, "deployed"):
        assert f"{what}: not looked at because of {stack.engine}" in done.stdout
