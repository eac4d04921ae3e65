"""Engine tier for somebody who has no Pulumi login: `scripts/up` makes a backend and a passphrase by itself.

And what goes wrong around the CLI: it is killed together with the command that started it, or lives on alone; a
container disappears behind its back. In the order of this file, from nothing to nothing.

What this does not prove: backends that Pulumi hosts (their locks are broken with `pulumi cancel`, by hand), a kill
of a provider plugin alone, and when the plugins of a killed CLI end: they look for it every few minutes.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import PulumiStack
from tests.live.faults_support import container_exists, one_token, processes_in, until_ended
from tests.live.harness import STACK_LABEL, UP_SECONDS, Checkout, docker_client

LOGIN_VARIABLES = (
    "PULUMI_ACCESS_TOKEN",
    "PULUMI_BACKEND_URL",
    "PULUMI_CONFIG_PASSPHRASE",
    "PULUMI_CONFIG_PASSPHRASE_FILE",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiStack]:
    """A stack in a checkout of its own, for a user without a login but with the plugins of this one."""
    home = tmp_path_factory.mktemp("home")
    (home / "plugins").symlink_to(Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins")
    with pytest.MonkeyPatch.context() as environment:
        for name in LOGIN_VARIABLES:
            environment.delenv(name, raising=False)
        environment.setenv("PULUMI_HOME", str(home))
        made = PulumiStack(Checkout(tmp_path_factory.mktemp("checkout").resolve()), "nologin")
        try:
            yield made
        finally:
            made.purge()


def running(stack: PulumiStack, pattern: str) -> bool:
    """Whether a process of this checkout has such a command line."""
    return any(re.search(pattern, command) for command in processes_in(stack.checkout.path).values())


def labelled(stack: PulumiStack) -> list[str]:
    """Names of all containers and networks of the stack."""
    client, label = docker_client(), {"label": f"{STACK_LABEL}={stack.stack}"}
    found = [
        *client.containers.list(all=True, filters=label, ignore_removed=True),
        *client.networks.list(filters=label),
    ]
    return sorted(item.name for item in found)


def test_a_secret_is_kept_encrypted_before_the_first_up_without_a_login(stack: PulumiStack) -> None:
    other = PulumiStack(stack.checkout, "keeper")
    command = [str(stack.checkout.path / "scripts" / "secret"), "hugging_face_token", "--stack", other.stack]
    try:
        done = subprocess.run(command, input="hf_of-a-test", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        kept = other.stack_file.read_text()
    finally:
        other.purge()
    assert "hf_of-a-test" not in kept + done.stdout + done.stderr
    assert re.search(r"hugging_face_token:\s+secure: ", kept)


CLI = r"(^|/)pulumi .*\bup\b"
"""The command line of the CLI that deploys."""

MOMENTS: dict[str, tuple[Callable[[PulumiStack], bool], bool]] = {
    "the CLI has the lock": (lambda stack: running(stack, CLI), True),
    "the engine's container is made": (lambda stack: container_exists(stack.engine), True),
    "the edge's container is made": (lambda stack: container_exists(stack.edge), False),
}
"""When an `up` is killed, and whether the CLI that it has started is killed with it."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_up_can_be_killed_with_its_cli_and_without(stack: PulumiStack, moment: str) -> None:
    # What is left must be of use to the next one; the last test of the row is the one that has to get through.
    come, with_cli = MOMENTS[moment]
    with stack.checkout.start("up", stack.stack) as process:
        assert until_ended(process, lambda: come(stack), UP_SECONDS), f"not reached: {moment}"
        cli = [pid for pid, words in processes_in(stack.checkout.path).items() if re.search(CLI, words)]
        for pid in (process.pid, *(cli if with_cli else ())):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_the_up_after_them_breaks_no_living_lock_and_ends_in_one_working_stack(stack: PulumiStack) -> None:
    done = stack.up()
    assert labelled(stack) == sorted([stack.engine, stack.edge, stack.network]), done.stderr
    assert one_token(stack, stack.key()).status == http.client.OK
    assert "nothing changed" in stack.up().stderr


def test_state_and_passphrase_are_closed_to_others_and_no_key_stands_in_them_in_clear(stack: PulumiStack) -> None:
    state = stack.checkout.path / ".state"
    passphrase = state / "passphrase"
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert (state / "pulumi").stat().st_mode & 0o077 == 0
    keys = [client["key"] for client in stack.outputs()["clients"].values()] + [stack.engine_key()]
    secrets = [secret.encode() for secret in (*keys, passphrase.read_text().strip())]
    files = [path for path in (state / "pulumi").rglob("*") if path.is_file()]
    assert any(stack.stack in path.name for path in files), "the state is not where it was looked for"
    for path in files:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path


def test_an_engine_that_was_removed_behind_pulumis_back_is_made_again_and_the_edge_is_left_alone(
    stack: PulumiStack,
) -> None:
    before, key = stack.containers(), stack.key()
    docker_client().containers.get(stack.engine).remove(force=True)
    stack.up()
    after = stack.containers()
    assert after[stack.engine].id != before[stack.engine].id
    assert after[stack.edge] == before[stack.edge]
    assert one_token(stack, key).status == http.client.OK


def test_a_failure_ends_with_its_cause_and_the_setting_to_change(stack: PulumiStack) -> None:
    settings = stack.settings
    stack.configure(images={"vllm": "seatable-vllm.invalid/no-such-image:0"})
    before = stack.containers()
    done = stack.up(passes=False)
    stack.write(settings)
    end = [line for line in done.stderr.splitlines() if line.strip()][-6:]
    assert any(line.startswith("cause: ") and "no-such-image" in line for line in end), done.stderr
    assert any(line.startswith("change: ") and "seatable-vllm:images" in line for line in end), done.stderr
    # Pulumi's language host may show its own stack trace when the engine stops it, but not last.
    assert "Traceback" not in "\n".join(end)
    assert stack.containers() == before, "what served before the failure must serve after it"
    stack.up()
    assert stack.containers() == before


def test_down_with_purge_leaves_no_container_no_network_no_files_and_no_stack(stack: PulumiStack) -> None:
    done = stack.checkout.run("down", stack.stack, "--purge")
    assert done.returncode == 0, done.stderr
    assert labelled(stack) == []
    assert not stack.state_dir.exists()
    left = list((stack.checkout.path / ".state" / "pulumi").rglob(f"*{stack.stack}*"))
    # Pulumi keeps a copy of its last state by itself; the keys in it are encrypted.
    assert [
        path for path in left if path.is_file() and "backups" not in path.parts and ".bak" not in path.name
    ] == []
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"volume={stack.data_dir}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
