"""Engine tier: the unmodified program by the real Pulumi CLI, from nothing to nothing, in the order of this file.

Does not prove anything of a Pulumi Cloud backend or of another CLI than the one on PATH, nor what the live tier
shows of the endpoint itself: the graph, its providers and their state are meant here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import docker
import pytest

from tests.engine.conftest import PulumiStack
from tests.live.harness import STACK_LABEL, docker_client, wait_until


def interrupted_up(stack: PulumiStack, moment: str) -> None:
    """Starts `scripts/up` and kills its process, not its children, when a line of it contains `moment`."""
    with stack.checkout.start("up", stack.stack, "--verbose") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("moment", ["deploying", "edge-haproxy creating", "readiness-gate creating"])
def test_an_up_that_is_killed_leaves_nothing_that_the_next_one_cannot_take_over(
    pulumi_stack: PulumiStack, moment: str
) -> None:
    # The proof is the next test: it deploys on what these three leave behind.
    interrupted_up(pulumi_stack, moment)


def test_ctrl_c_is_handed_to_pulumi_once_and_all_that_was_made_is_in_the_state(pulumi_stack: PulumiStack) -> None:
    """As a terminal sends it, to the whole group."""
    with pulumi_stack.checkout.start("up", pulumi_stack.stack, "--verbose") as process:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            if line.endswith("readiness-gate creating\n"):
                os.killpg(process.pid, signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT, told
    assert told.count("stopping: Pulumi awaits the steps under way") == 1, told
    assert "Pulumi has recorded what was made" in told
    assert "closed file" not in told
    state = json.loads(pulumi_stack.pulumi("stack", "export").stdout)["deployment"]
    assert not state.get("pending_operations")
    known = {str(item.get("id")) for item in state["resources"]}
    assert {pulumi_stack.container(name).id for name in (pulumi_stack.engine, pulumi_stack.edge)} <= known


def test_an_up_after_killed_ones_ends_with_one_engine_one_edge_and_an_answer(pulumi_stack: PulumiStack) -> None:
    pulumi_stack.up()
    label = {"label": f"{STACK_LABEL}={pulumi_stack.stack}"}
    names = sorted(
        item.name for item in docker_client().containers.list(all=True, filters=label, ignore_removed=True)
    )
    assert names == sorted([pulumi_stack.engine, pulumi_stack.edge])
    assert len(docker_client().networks.list(filters=label)) == 1
    assert not json.loads(pulumi_stack.pulumi("stack", "export").stdout)["deployment"].get("pending_operations")
    body = pulumi_stack.chat("What is the capital of France?", max_tokens=24)
    answer = pulumi_stack.ask("POST", "/v1/chat/completions", key=pulumi_stack.key(), body=body)
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_a_second_up_changes_nothing_and_says_so(pulumi_stack: PulumiStack) -> None:
    before = pulumi_stack.containers()
    assert "nothing changed" in pulumi_stack.up().stderr
    assert pulumi_stack.containers() == before


@pytest.mark.parametrize("more", [(), ("--refresh",)], ids=["as the state says", "as Docker says"])
def test_a_preview_of_what_is_deployed_is_empty(pulumi_stack: PulumiStack, more: tuple[str, ...]) -> None:
    done = pulumi_stack.pulumi("preview", "--expect-no-changes", "--diff", *more)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_output_prints_what_pulumi_prints(pulumi_stack: PulumiStack) -> None:
    done = pulumi_stack.pulumi("stack", "output", "--json", "--show-secrets")
    assert json.loads(done.stdout) == json.loads(pulumi_stack.output("--json", "--show-secrets"))


@pytest.mark.parametrize("name", [(), ("endpoint",), ("machine",), ("seatable_env",), ("max_model_len",)])
def test_scripts_output_prints_plain_text_as_pulumi_does(pulumi_stack: PulumiStack, name: tuple[str, ...]) -> None:
    done = pulumi_stack.pulumi("stack", "output", *name, "--show-secrets")
    assert pulumi_stack.output(*name, "--show-secrets") == done.stdout


def test_no_key_stands_in_the_state_in_clear(pulumi_stack: PulumiStack, backend: Path) -> None:
    keys = [client["key"] for client in pulumi_stack.outputs()["clients"].values()]
    keys.append(pulumi_stack.engine_key())
    files = [path for path in backend.rglob("*") if path.is_file()]
    assert any(pulumi_stack.stack in path.name for path in files), "the state is not where it was looked for"
    for path in files:
        content = path.read_bytes()
        assert not any(key.encode() in content for key in keys), path


def test_a_client_that_is_added_restarts_neither_container(pulumi_stack: PulumiStack) -> None:
    before = pulumi_stack.containers()
    clients = pulumi_stack.settings["clients"]
    pulumi_stack.configure(clients={**clients, "third": {"kind": "openai", "cidrs": ["127.0.0.3/32"]}})
    pulumi_stack.up()
    assert pulumi_stack.containers() == before
    assert pulumi_stack.ask("GET", "/v1/models", key=pulumi_stack.key("third"), source="127.0.0.3").status == 200


def test_a_container_that_was_removed_by_hand_is_made_again(pulumi_stack: PulumiStack) -> None:
    docker_client().containers.get(pulumi_stack.edge).remove(force=True)
    pulumi_stack.up()
    wait_until(
        lambda: pulumi_stack.ask("GET", "/v1/models", key=pulumi_stack.key()).status == 200,
        "an answer of the edge",
    )


def test_a_container_that_was_killed_by_hand_is_started_again(pulumi_stack: PulumiStack) -> None:
    before = pulumi_stack.container(pulumi_stack.edge)
    docker_client().containers.get(pulumi_stack.edge).kill()
    pulumi_stack.up()
    assert pulumi_stack.container(pulumi_stack.edge).id == before.id
    assert pulumi_stack.ask("GET", "/v1/models", key=pulumi_stack.key()).status == 200


def test_a_wrong_setting_is_told_in_words_and_changes_nothing(pulumi_stack: PulumiStack) -> None:
    before, settings = pulumi_stack.containers(), pulumi_stack.settings
    pulumi_stack.configure(ports={"edge": 80, "engine": 81})
    done = subprocess.run(
        ["pulumi", "preview", "--stack", pulumi_stack.stack, "--non-interactive"],
        cwd=pulumi_stack.checkout.path,
        capture_output=True,
        text=True,
        check=False,
    )
    pulumi_stack.write(settings)
    assert done.returncode != 0
    assert "seatable-vllm:ports.edge" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert pulumi_stack.containers() == before


def test_the_start_of_a_stack_that_is_up_is_not_measured_and_nothing_is_touched(pulumi_stack: PulumiStack) -> None:
    before = pulumi_stack.containers()
    done = pulumi_stack.checkout.run("bench", pulumi_stack.stack, "--start")
    assert done.returncode != 0
    assert f"scripts/down {pulumi_stack.stack}" in done.stderr
    assert pulumi_stack.containers() == before


def test_down_leaves_nothing_of_the_stack(pulumi_stack: PulumiStack) -> None:
    done = pulumi_stack.checkout.run("down", pulumi_stack.stack)
    assert done.returncode == 0, done.stderr
    label = {"label": f"{STACK_LABEL}={pulumi_stack.stack}"}
    assert docker_client().containers.list(all=True, filters=label, ignore_removed=True) == []
    assert docker_client().networks.list(filters=label) == []
    assert not (pulumi_stack.data_dir / "vllm").exists()
    assert not (pulumi_stack.data_dir / "edge").exists()
    with pytest.raises(docker.errors.NotFound):
        docker_client().containers.get(pulumi_stack.engine)
