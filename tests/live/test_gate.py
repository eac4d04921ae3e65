"""The last gate against a real crash loop: it ends at the third restart, and so does the loop.

No engine is started: what crashes is a shell in its place. What this does not prove: that a real vLLM which
crashes is restarted by Docker in the same way (test_faults).
"""

from __future__ import annotations

import pytest

from checks.endpoint import Target
from checks.gate import RESTARTS_UNTIL_FAILURE, GateFailed, Order, wait
from tests.live.conftest import MakeStack
from tests.live.harness import Deployment, docker_client

DEADLINE_SECONDS = 600


@pytest.mark.parametrize(
    ("said", "restarts", "cause"),
    [
        ("AssertionError: something new", RESTARTS_UNTIL_FAILURE, "vLLM: something new"),
        ("vllm serve: error: unrecognized arguments: --x", 1, "vLLM does not know an option"),
    ],
    ids=["unknown-cause", "known-cause"],
)
def test_a_crash_loop_ends_the_gate_and_is_ended_by_it(
    said: str, restarts: int, cause: str, make_stack: MakeStack
) -> None:
    stack: Deployment = make_stack("loop")
    client = docker_client()
    image = next(tag for each in client.images.list() for tag in each.tags if "haproxy" in tag)
    commands = {stack.engine: ["sh", "-c", f"echo '{said}'; exit 3"], stack.edge: ["sleep", "600"]}
    made = [
        client.containers.create(
            image,
            name=name,
            entrypoint=command,
            init=True,
            network_mode="none",
            restart_policy={"Name": "unless-stopped"},
        )
        for name, command in commands.items()
    ]
    try:
        for container in made:
            container.start()
        nobody = Target(f"http://127.0.0.1:{stack.edge_port}/v1", "k" * 64, "o/m", 512, tools=False)
        with pytest.raises(GateFailed) as failed:
            wait(Order(stack.engine, stack.edge, nobody, DEADLINE_SECONDS), lambda _: None)
        engine = made[0]
        engine.reload()
        assert f"cause: {cause}" in str(failed.value)
        assert said in str(failed.value)
        assert "has not answered within" not in str(failed.value)
        assert engine.attrs["State"]["Status"] == "exited", "the loop goes on"
        # Docker may have restarted it once or twice before the gate looked for the first time.
        assert restarts <= engine.attrs["RestartCount"] <= 2 * restarts + 2
    finally:
        for container in made:
            container.remove(force=True)
