"""Unit tier: the engine's health check: when it calls the engine ill, and when it ends it.

Expectations: vllm.md section 5 (200 from /health proves nothing; three misses and a frozen counter) and DESIGN
section 5. A small HTTP server stands for the engine. It does NOT prove that killing brings the engine back:
the live tier stops a real one with SIGSTOP.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from checks import watchdog
from checks.watchdog import MISSES_UNTIL_KILL, decide

if TYPE_CHECKING:
    from tests.conftest import FakeEndpoint

Look = tuple[bool, float | None]
"""What one check sees: whether the completion came, and the step counter."""


def verdicts(looks: Sequence[Look], memory: dict[str, float] | None = None) -> list[str]:
    """What is said to a sequence of checks, each remembering the one before."""
    memory, said = memory or {}, []
    for completed, steps in looks:
        memory, verdict = decide(memory, completed, steps)
        said.append(verdict)
    return said


# The decision


def test_a_token_that_comes_is_health() -> None:
    assert verdicts([(True, 10.0), (True, 10.0), (True, None)]) == ["healthy"] * 3


def test_an_engine_that_has_not_served_yet_is_starting_however_long_it_takes() -> None:
    assert verdicts([(False, None)] * 500) == ["starting"] * 500


def test_an_engine_that_hangs_before_its_first_check_is_killed_too() -> None:
    # vLLM listens only when it is loaded, so whoever answers with a counter is no longer starting.
    assert verdicts([(False, 3.0)] * 3) == ["miss", "miss", "kill"]


def test_a_slow_engine_whose_counter_moves_is_busy_and_never_killed() -> None:
    looks = [(True, 1.0), *[(False, float(step)) for step in range(2, 200)]]
    assert verdicts(looks) == ["healthy", *["busy"] * 198]


def test_three_misses_in_a_row_with_a_frozen_counter_kill_and_two_do_not() -> None:
    assert MISSES_UNTIL_KILL == 3
    assert verdicts([(True, 7.0), (False, 7.0), (False, 7.0), (False, 7.0)]) == ["healthy", "miss", "miss", "kill"]


def test_an_engine_that_says_no_counter_at_all_counts_as_frozen() -> None:
    assert verdicts([(True, 7.0), (False, None), (False, None), (False, None)])[-1] == "kill"


def test_a_single_token_in_between_forgives_the_misses() -> None:
    looks: list[Look] = [(True, 7.0), (False, 7.0), (False, 7.0), (True, 8.0), (False, 8.0), (False, 8.0)]
    assert "kill" not in verdicts(looks)


def test_a_single_step_in_between_forgives_the_misses() -> None:
    looks: list[Look] = [(True, 7.0), (False, 7.0), (False, 7.0), (False, 9.0), (False, 9.0), (False, 9.0)]
    assert verdicts(looks) == ["healthy", "miss", "miss", "busy", "miss", "miss"]


def test_busy_for_long_and_then_frozen_is_killed_after_three_more_misses() -> None:
    looks: list[Look] = [(True, 1.0), (False, 2.0), (False, 3.0), (False, 3.0), (False, 3.0), (False, 3.0)]
    assert verdicts(looks) == ["healthy", "busy", "busy", "miss", "miss", "kill"]


def test_an_engine_whose_counter_was_unknown_when_it_served_still_ends_frozen() -> None:
    looks: list[Look] = [(True, None), (False, 5.0), (False, 5.0), (False, 5.0), (False, 5.0)]
    assert verdicts(looks)[-1] == "kill"


def test_what_is_remembered_can_be_written_down() -> None:
    memory, _ = decide({"started": 1.0}, False, None)
    memory, _ = decide(memory, True, 4.0)
    memory, _ = decide(memory, False, 4.0)
    assert json.loads(json.dumps(memory)) == memory
    assert memory["started"] == 1.0


def test_an_engine_at_work_on_the_cpu_is_busy_though_its_counter_stands_still() -> None:
    memory, said = {"served": 1.0, "steps": 7.0}, []
    for _ in range(20):
        memory, verdict = decide(memory, False, 7.0, computing=True)
        said.append(verdict)
    assert said == ["busy"] * 20


# One whole check against a small server


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Container:
    """The places inside the engine's container, in a folder of the test."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, endpoint: FakeEndpoint) -> None:
        self.endpoint = endpoint
        self.killed: list[tuple[int, int]] = []
        self.configuration = folder / "config.yaml"
        self.memory = folder / "memory.json"
        self.init = folder / "stat"
        self.configuration.write_text(
            yaml.safe_dump({"port": endpoint.port, "api-key": [endpoint.key], "served-model-name": endpoint.model})
        )
        self.start(1000)
        patch.setattr(watchdog, "CONFIGURATION", self.configuration)
        patch.setattr(watchdog, "MEMORY", self.memory)
        patch.setattr(watchdog, "INIT", self.init)
        self.processes = folder / "proc"
        self.processes.mkdir()
        patch.setattr(watchdog, "PROCESSES", self.processes)
        patch.setattr(os, "kill", lambda pid, number: self.killed.append((pid, number)))
        self.counter(5)

    def start(self, time: int) -> None:
        """What /proc/1/stat says; the name of the process may hold anything."""
        self.init.write_text(f"1 (tini -- ) (x) S {' '.join(str(n) for n in range(4, 22))} {time} 23 24 25\n")

    def process(self, pid: int, user: int, system: int, name: str = "VLLM::EngineCore") -> None:
        """What /proc/PID/stat says of a process: CPU time in ticks. All other numbers are large."""
        (self.processes / str(pid)).mkdir(exist_ok=True)
        words = [*(str(90_000 + field) for field in range(4, 14)), str(user), str(system), *["80000"] * 36]
        (self.processes / str(pid) / "stat").write_text(f"{pid} ({name}) S {' '.join(words)}\n")

    def counter(self, steps: float) -> None:
        """What the engine's counter says from now on."""
        text = f'# HELP\nvllm:iteration_tokens_total_count{{engine="0",model_name="m"}} {steps}\nvllm:x_count 9\n'
        self.endpoint.answers["GET /metrics"] = self.endpoint.always(200, text)

    def load(self) -> None:
        """Nothing listens yet."""
        options = yaml.safe_load(self.configuration.read_text())
        self.configuration.write_text(yaml.safe_dump({**options, "port": unused_port()}))

    def hang(self) -> None:
        """The engine gives no completion any more."""
        self.endpoint.answers["POST /v1/completions"] = self.endpoint.always(500, "{}")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_endpoint: FakeEndpoint) -> Container:
    return Container(tmp_path, monkeypatch, fake_endpoint)


def test_a_check_asks_the_engine_for_one_token_with_its_key_and_model(container: Container) -> None:
    assert watchdog.main() == 0
    (asked,) = [asked for asked in container.endpoint.asked if asked.path == "/v1/completions"]
    assert asked.headers["authorization"] == f"Bearer {container.endpoint.key}"
    assert asked.json() == {"model": container.endpoint.model, "prompt": "1", "max_tokens": 1}


def test_a_check_prints_its_verdict_and_no_key(container: Container, capsys: pytest.CaptureFixture[str]) -> None:
    watchdog.main()
    said = capsys.readouterr().out
    assert said.startswith("healthy")
    assert container.endpoint.key not in said
    assert container.endpoint.key not in container.memory.read_text()


def test_a_hung_engine_is_killed_with_everything_in_its_container(container: Container) -> None:
    watchdog.main()
    container.hang()
    assert [watchdog.main() for _ in range(3)] == [1, 1, 1]
    assert container.killed == [(-1, signal.SIGKILL)]


def test_a_busy_engine_counts_as_healthy_for_docker_and_is_left_alone(container: Container) -> None:
    watchdog.main()
    container.hang()
    for steps in range(6, 20):
        container.counter(steps)
        assert watchdog.main() == 0
    assert container.killed == []


TICKS = os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("device", "user", "system", "killed"),
    [
        ("cpu", 5.0, 0.0, False),
        ("cpu", 0.0, 5.0, False),
        ("cpu", 2.5, 2.5, False),
        ("cpu", 4.9, 0.0, True),
        ("cpu", 0.0, 0.0, True),
        ("gpu", 50.0, 50.0, True),
    ],
)
def test_cpu_time_that_an_engine_at_work_takes_excuses_a_standing_counter_on_the_cpu_alone(
    device: str, user: float, system: float, killed: bool, *, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    container.process(7, 1000 * TICKS, 1000 * TICKS, "python3 (VLLM::) x")
    watchdog.main()
    container.hang()
    for check in range(1, 4):
        container.process(
            7, int((1000 + check * user) * TICKS), int((1000 + check * system) * TICKS), "python3 (VLLM::) x"
        )
        watchdog.main()
    assert bool(container.killed) == killed


def test_cpu_time_is_that_of_all_processes_but_for_the_health_check_itself(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    watchdog.main()
    container.hang()
    for check in range(1, 4):
        container.process(os.getpid(), check * 100 * TICKS, 0, "python3")
        (container.processes / "self").mkdir(exist_ok=True)
        (container.processes / str(10 + check)).mkdir()  # it has just ended
        watchdog.main()
    assert container.killed == [(-1, signal.SIGKILL)]
    container.killed.clear()
    for check in range(1, 5):
        container.process(8, check * 3 * TICKS, 0)
        container.process(9, 0, check * 3 * TICKS)
        watchdog.main()
    assert container.killed == []


def test_what_an_engine_took_before_the_first_check_is_no_sign_of_work_since(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    container.process(7, 1000 * TICKS, 0)
    container.hang()
    assert [watchdog.main() for _ in range(3)] == [1, 1, 1]
    assert container.killed == [(-1, signal.SIGKILL)]


def test_an_engine_that_loads_is_not_healthy_and_not_killed(container: Container) -> None:
    container.load()
    assert [watchdog.main() for _ in range(10)] == [1] * 10
    assert container.killed == []


def test_a_restart_forgets_what_the_last_start_has_missed(container: Container) -> None:
    watchdog.main()
    container.hang()
    watchdog.main()
    watchdog.main()
    container.start(2000)
    container.load()
    assert [watchdog.main() for _ in range(5)] == [1] * 5
    assert container.killed == []


@pytest.mark.parametrize("broken", ["", "{", '{"served": 1, "misses": ', "not json"])
def test_a_memory_that_cannot_be_read_is_begun_anew(container: Container, broken: str) -> None:
    container.memory.write_text(broken)
    assert watchdog.main() == 0
    assert json.loads(container.memory.read_text())["served"] == 1


def test_an_engine_whose_port_is_closed_is_a_miss_and_no_stack_trace(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog.main()
    options = yaml.safe_load(container.configuration.read_text())
    container.configuration.write_text(yaml.safe_dump({**options, "port": 1}))
    assert [watchdog.main() for _ in range(3)] == [1, 1, 1]
    assert container.killed == [(-1, signal.SIGKILL)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("vllm:iteration_tokens_total_count 12", 12.0),
        ('vllm:iteration_tokens_total_count{engine="0",model_name="a b"} 12.0', 12.0),
        ("vllm:iteration_tokens_total_count 1.2e+06", 1_200_000.0),
        ("vllm:iteration_tokens_total_sum 12.0", None),
        ("# vllm:iteration_tokens_total_count 12", None),
        ("", None),
    ],
)
def test_the_step_counter_is_found_in_the_metrics_as_prometheus_writes_them(
    text: str, steps: float | None
) -> None:
    found = watchdog.COUNTER.search(f"first 1\n{text}\nlast 2\n")
    assert (float(found[1]) if found else None) == steps


def test_a_hang_ends_within_the_time_that_the_issue_allows() -> None:
    # "serving again without a hand, each within 3 minutes": detection must leave most of a minute to start again.
    longest = (
        watchdog.INTERVAL_SECONDS + watchdog.COMPLETION_SECONDS + watchdog.COUNTER_SECONDS
    ) * MISSES_UNTIL_KILL
    assert longest <= 130


def test_a_busy_engine_has_longer_than_ten_seconds_to_answer() -> None:
    # vllm.md section 5: "timeout >= 10 s".
    assert watchdog.COMPLETION_SECONDS >= 10
