"""`scripts/up` that is ended in the middle: the next one goes on from there, and nothing is doubled or half made.

Killed means SIGKILL to the command's own process and to nothing else, as the kernel does when memory runs out:
what it had started runs on or ends as it does. The moments are drawn anew for each run within five phases that
are told apart by what is on the disk and in Docker; the seed is printed, and SEATABLE_VLLM_TEST_SEED repeats it.

What this does not prove: a loss of power (nothing here checks what was only in the disk's cache), a kill in the
middle of a download from the hub or of the making of an image, and the Pulumi CLI (see `tests/engine`).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.conftest import MakeStack
from tests.live.faults_support import container_exists, one_token, processes_in, until_ended
from tests.live.harness import UP_SECONDS, Deployment, docker_client, pace, wait_until

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
INTERRUPT_SECONDS = 30
"""Patience for a command that was asked to stop."""

Moment = tuple[str, Callable[[Deployment], bool], float]
"""A phase of `up`, whether it has begun, and the longest time into it, in seconds, at which the kill comes."""


def copying_has_begun(models: Path) -> bool:
    """Whether weights are being copied, or have just been: a busy computer may not see the moment in between."""
    return (models / ".partial").exists() or (models / MODEL).exists()


MOMENTS: tuple[Moment, ...] = (
    ("at the begin", lambda _: True, 2.0),
    ("when the first things are written down", lambda stack: state_file(stack).exists(), 0.2),
    ("while weights are copied", lambda stack: copying_has_begun(stack.data_dir / "models"), 0.3),
    ("when the engine's container is made", lambda stack: container_exists(stack.engine), 0.5),
    ("while the engine loads", lambda stack: container_exists(stack.edge), 8.0),
)


def state_file(stack: Deployment) -> Path:
    """Where the rehearsal writes down what it has made."""
    return stack.state_dir / "rehearsal.json"


@pytest.fixture
def chance() -> random.Random:
    """Where the moments come from."""
    seed = int(os.environ.get("SEATABLE_VLLM_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEATABLE_VLLM_TEST_SEED={seed}")
    return random.Random(seed)  # noqa: S311 - to be repeated, not to be secret


@contextlib.contextmanager
def run_until(stack: Deployment, moment: Moment, chance: random.Random) -> Iterator[subprocess.Popen[str]]:
    """An `up` that has come to a moment in this phase, and is still under way. The block ends it."""
    phase, begun, longest = moment
    with stack.checkout.start("up", stack.stack, "--rehearse") as process:
        reached = until_ended(process, lambda: begun(stack), UP_SECONDS)
        # Waiting for a process that goes on is how a length of time is waited for here.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0, longest) if reached else 0.1)
        if process.returncode is not None:
            told = process.communicate()[0]
            raise AssertionError(f"{phase}: up ended with {process.returncode} before that: {told}")
        assert reached, f"not within {UP_SECONDS} s: {phase}"
        yield process


def sizes(folder: Path) -> dict[str, int]:
    """Size of every file of a folder by its path in it, but for hidden ones."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def assert_nothing_is_doubled(stack: Deployment) -> None:
    """One engine, one edge, one network; and no other container that uses the stack's folder."""
    client = docker_client()
    label = {"label": f"seatable-vllm.stack={stack.stack}"}
    assert sorted(each.name for each in client.containers.list(all=True, filters=label, ignore_removed=True)) == [
        stack.edge,
        stack.engine,
    ]
    assert [each.name for each in client.networks.list(filters=label)] == [stack.network]
    named = [each.name for each in client.networks.list(names=[stack.network])]
    assert named == [stack.network], "Docker lets two networks have one name"
    using = {
        each.name
        for each in client.containers.list(all=True, ignore_removed=True)
        if any(str(mount.get("Source", "")).startswith(str(stack.state_dir)) for mount in each.attrs["Mounts"])
    }
    assert using == {stack.edge, stack.engine}


def test_after_five_kills_the_next_up_ends_in_one_whole_working_stack(
    make_stack: MakeStack, chance: random.Random
) -> None:
    stack = make_stack("killed")
    folder = stack.data_dir / "models" / MODEL
    seen: list[dict[str, int]] = []
    for moment in MOMENTS:
        with run_until(stack, moment, chance) as process:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        if folder.exists():
            seen.append(sizes(folder))
        print(f"killed {moment[0]}; the weights are {'there' if folder.exists() else 'not there'}")
    last = stack.up()
    whole = sizes(folder)
    assert whole["config.json"] > 0
    assert all(earlier == whole for earlier in seen), f"the weights were half made under their name: {seen}"
    assert not (stack.data_dir / "models" / ".partial").exists(), "a half of the weights was left behind"
    assert_nothing_is_doubled(stack)
    assert one_token(stack, stack.key()).status == http.client.OK
    wait_until(
        lambda: not processes_in(stack.checkout.path),
        f"the end of what killed runs had started: {processes_in(stack.checkout.path)}",
    )
    # os.walk, because the engine makes and removes files in its cache meanwhile.
    found = [path for folder, folders, files in os.walk(stack.data_dir) for path in (*folders, *files)]
    leftovers = [name for name in found if ".part" in name]
    assert not leftovers, f"half-made files: {leftovers}"
    before = stack.containers()
    again = stack.up()
    assert "nothing changed" in again.stderr, f"{last.stderr}\n--- and again:\n{again.stderr}"
    assert stack.containers() == before


@pytest.mark.parametrize("moment", [MOMENTS[1], MOMENTS[4]], ids=["early", "while-the-engine-loads"])
def test_ctrl_c_ends_up_at_once_with_one_line_and_a_failure_status(
    make_stack: MakeStack, chance: random.Random, moment: Moment
) -> None:
    """Ctrl-C reaches the command and everything it has started, as a terminal sends it to all of them."""
    stack = make_stack("ctrl-c")
    with run_until(stack, moment, chance) as process:
        os.killpg(process.pid, signal.SIGINT)
        try:
            told, _ = process.communicate(timeout=pace.of(INTERRUPT_SECONDS))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
            raise AssertionError(
                f"up goes on for {pace.of(INTERRUPT_SECONDS):.0f} s after Ctrl-C:\n{told}"
            ) from None
    assert process.returncode not in (0, -signal.SIGKILL), told
    assert "Traceback" not in told, told
    end = [line for line in told.splitlines() if line.strip()][-1]
    assert "again" in end, f"the last line does not say how to go on: {end!r}"
    wait_until(lambda: not processes_in(stack.checkout.path), "the end of everything it had started")
