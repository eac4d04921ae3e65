"""Unit tier: the last gate: how long it waits, when it gives up, and what it says then.

Docker is a script of the test, the endpoint a small HTTP server. The bundle that is sent to a machine is run for
real, by a Python that sees nothing of this repository. It does NOT prove that a real crash looks like this: the
live tier breaks real engines.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from checks import gate
from checks.bundle import MODULES, ROOT, gate_program
from checks.cache import held_in
from checks.gate import Container, GateFailed, Order, held
from tests.conftest import error_reply

if TYPE_CHECKING:
    from tests.conftest import Asked, FakeCommand, FakeEndpoint, Reply

ENGINE, EDGE = "stack-engine", "stack-edge"
STARTED_AT = "2026-11-21T10:58:00.123456789Z"
SECOND_BEFORE = "2026-11-21T10:57:59.123456789Z"
UNKNOWN_OPTION = "vllm serve: error: unrecognized arguments: --swap-space 4"


def order_text(fake: FakeEndpoint, deadline: float = 1000.0) -> str:
    """The order as the program writes it."""
    target = {
        "base_url": fake.base_url,
        "key": fake.key,
        "model": fake.model,
        "max_model_len": fake.max_model_len,
        "tools": True,
        "source": "127.0.0.1",
    }
    return json.dumps({"engine": ENGINE, "edge": EDGE, "deadline_seconds": deadline, "target": target})


def order(fake: FakeEndpoint, deadline: float = 1000.0) -> Order:
    return Order.from_json(order_text(fake, deadline))


def quiet(line: str) -> None:
    """Nobody listens."""


class Docker:
    """What `docker` answers. `states` and `logs` by container; `asked`: every command, oldest first."""

    def __init__(self) -> None:
        self.states = {ENGINE: "running 0 0", EDGE: "running 0 0"}
        self.logs = {ENGINE: "", EDGE: ""}
        self.ends: list[str] = []
        """Moments at which containers of the engine's name ended, in nanoseconds."""
        self.asked: list[tuple[str, ...]] = []
        self.at_inspect: Callable[[str], None] = quiet

    def __call__(self, *arguments: str) -> str:
        self.asked.append(arguments)
        verb, name = arguments[0], arguments[-1]
        if verb == "inspect":
            self.at_inspect(name)
            return f"{self.states[name]} {STARTED_AT}"
        if verb == "events":
            return "\n".join(self.ends)
        if verb == "logs":
            return self.logs[name]
        if verb == "start":
            self.states[name] = f"running 0 {self.states[name].split()[2]}"
        return ""

    def soon(self, name: str, state: str) -> None:
        """The container gets into this state after the gate has looked at it a few times."""

        def change(_: str) -> None:
            if len(self.asked) > 5:
                self.states[name] = state

        self.at_inspect = change

    def changed(self) -> list[tuple[str, ...]]:
        """The commands that change something."""
        return [arguments for arguments in self.asked if arguments[0] not in ("inspect", "logs", "events")]


class Clock:
    """A clock that goes on by itself, a second at each look."""

    def __init__(self, step: float = 1.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker()
    monkeypatch.setattr(gate, "_docker", made)
    monkeypatch.setattr(gate, "POLL_SECONDS", 0)
    return made


@pytest.fixture
def silent(fake_endpoint: FakeEndpoint) -> FakeEndpoint:
    """An endpoint whose engine is not there yet."""
    fake_endpoint.answers["*"] = fake_endpoint.always(503, {"error": {"message": "is starting"}})
    return fake_endpoint


def failure(silent: FakeEndpoint, deadline: float = 1000.0, clock: Callable[[], float] | None = None) -> str:
    """What the gate says when it gives up."""
    with pytest.raises(GateFailed) as failed:
        gate.wait(order(silent, deadline), quiet, clock or Clock())
    assert silent.key not in str(failed.value)
    return str(failed.value)


# Waiting


def test_an_endpoint_that_answers_ends_the_wait_and_changes_nothing(
    docker: Docker, fake_endpoint: FakeEndpoint
) -> None:
    said: list[str] = []
    gate.wait(order(fake_endpoint), said.append, Clock())
    assert docker.changed() == []
    assert said


def test_the_wait_goes_on_while_the_engine_loads(docker: Docker, silent: FakeEndpoint) -> None:
    looks = 0

    def load(name: str) -> None:
        nonlocal looks
        looks += 1
        if looks > 100:
            silent.answers.clear()

    docker.at_inspect = load
    gate.wait(order(silent), quiet, Clock(0.01))
    assert looks > 100


@pytest.mark.parametrize("status", [204, 302, 400, 401, 403, 404, 429, 500, 502, 503])
def test_nothing_but_the_list_of_models_ends_the_wait(
    status: int, docker: Docker, fake_endpoint: FakeEndpoint
) -> None:
    # Another program on the port, an edge that has its new keys not yet, an engine that is still loading.
    asked = 0

    def not_yet(request: Asked) -> Reply:
        nonlocal asked
        asked += 1
        return fake_endpoint.right_answer(request) if asked > 3 else error_reply(status, "not yet")

    fake_endpoint.answers["GET /v1/models"] = not_yet
    gate.wait(order(fake_endpoint), quiet, Clock(0.01))
    assert asked == 4
    assert {request.headers.get("authorization") for request in fake_endpoint.asked} == {
        f"Bearer {fake_endpoint.key}"
    }


def test_a_line_is_printed_at_least_every_ten_seconds_of_waiting(docker: Docker, silent: FakeEndpoint) -> None:
    clock, times = Clock(1.0), list[float]()

    def answer_after_a_while(name: str) -> None:
        if clock.now > 300:
            silent.answers.clear()

    docker.at_inspect = answer_after_a_while
    gate.wait(order(silent), lambda _: times.append(clock.now), clock)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    # The clock goes on by a second at each look, five looks a round: a line may come that much late.
    assert max(gaps) <= gate.HEARTBEAT_SECONDS + 6


def test_a_stopped_container_is_started_before_the_wait_begins(
    docker: Docker, fake_endpoint: FakeEndpoint
) -> None:
    # After a gate that failed, the containers are stopped; the next `up` takes over.
    docker.states = {ENGINE: "exited 1 7", EDGE: "created 0 0"}
    gate.wait(order(fake_endpoint), quiet, Clock())
    assert sorted(docker.changed()) == [("start", EDGE), ("start", ENGINE)]


def test_restarts_of_the_past_are_not_held_against_this_start(docker: Docker, silent: FakeEndpoint) -> None:
    docker.states[ENGINE] = "running 0 41"
    docker.logs[ENGINE] = UNKNOWN_OPTION
    looks = 0

    def come_up(name: str) -> None:
        nonlocal looks
        looks += 1
        if looks > 20:
            silent.answers.clear()

    docker.at_inspect = come_up
    gate.wait(order(silent), quiet, Clock())


def test_an_engine_that_took_another_ones_place_is_said_to_have_been_away(
    docker: Docker, silent: FakeEndpoint
) -> None:
    said: list[str] = []
    ended = time.time() - 100
    docker.ends = [str(int((ended - 3600) * 1e9)), str(int(ended * 1e9))]
    docker.at_inspect = lambda _: silent.answers.clear() if len(docker.asked) > 5 else None
    gate.wait(order(silent), said.append, Clock())
    (outage,) = [line for line in said if "away" in line]
    away, start = (int(seconds) for seconds in re.findall(r"(\d+) s\b", outage))
    assert 100 <= away < 160
    assert start > away, "the container of this test started long ago"


def test_an_endpoint_that_answered_from_the_start_was_not_away(
    docker: Docker, fake_endpoint: FakeEndpoint
) -> None:
    said: list[str] = []
    docker.ends = [str(int((time.time() - 100) * 1e9))]
    gate.wait(order(fake_endpoint), said.append, Clock())
    assert not [line for line in said if "away" in line]


# Giving up


def test_what_a_container_wrote_in_an_earlier_start_is_never_the_cause_of_this_one(
    docker: Docker, silent: FakeEndpoint
) -> None:
    """A second is allowed: a container that fails at once has written before Docker notes that it was started."""
    docker.soon(ENGINE, "restarting 1 3")
    failure(silent)
    logs = [asked for asked in docker.asked if asked[0] == "logs"]
    assert logs
    assert all(asked[asked.index("--since") + 1] == SECOND_BEFORE for asked in logs)


@pytest.mark.parametrize("state", ["exited 1 0", "dead 137 0", "restarting 1 3", "running 0 3"])
def test_a_container_that_ended_or_keeps_ending_fails_at_once(
    state: str, docker: Docker, silent: FakeEndpoint
) -> None:
    docker.logs[ENGINE] = f"INFO something\n{UNKNOWN_OPTION}\n"
    docker.soon(ENGINE, state)
    text = failure(silent)
    assert UNKNOWN_OPTION in text
    assert f"phase: {ENGINE}" in text
    assert "cause: vLLM does not know an option" in text
    assert "change: " in text
    assert "extra_args" in text


def test_a_crash_loop_with_a_known_cause_fails_at_its_first_restart(docker: Docker, silent: FakeEndpoint) -> None:
    docker.logs[ENGINE] = UNKNOWN_OPTION
    docker.soon(ENGINE, "running 0 1")
    assert "cause: vLLM does not know an option" in failure(silent)


def test_a_single_restart_without_a_known_cause_is_given_time(docker: Docker, silent: FakeEndpoint) -> None:
    docker.logs[ENGINE] = "INFO loading"

    def restart_then_serve(name: str) -> None:
        if len(docker.asked) > 5:
            docker.states[ENGINE] = "running 0 1"
        if len(docker.asked) > 50:
            silent.answers.clear()

    docker.at_inspect = restart_then_serve
    gate.wait(order(silent), quiet, Clock(0.01))


@pytest.mark.parametrize(("restarts", "ends"), [(2, False), (3, True)])
def test_a_crash_loop_whose_cause_only_vllm_knows_ends_at_its_third_restart_long_before_the_deadline(
    restarts: int, ends: bool, docker: Docker, silent: FakeEndpoint
) -> None:
    clock = Clock(0.01)
    docker.logs[ENGINE] = "AssertionError: something new"
    docker.soon(ENGINE, f"restarting 1 {restarts}")
    text = failure(silent, deadline=30.0, clock=clock)
    assert ("cause: vLLM: something new" in text) == ends
    assert (clock.now > 30) == (not ends)


def test_a_cause_that_may_pass_by_itself_is_given_the_third_restart_too(
    docker: Docker, silent: FakeEndpoint
) -> None:
    docker.logs[ENGINE] = "RuntimeError: Engine core initialization failed. See root cause above."

    def restart_then_serve(name: str) -> None:
        if len(docker.asked) > 5:
            docker.states[ENGINE] = "running 0 2"
        if len(docker.asked) > 50:
            silent.answers.clear()

    docker.at_inspect = restart_then_serve
    gate.wait(order(silent), quiet, Clock(0.01))


def test_a_crash_loop_after_somebody_started_the_container_by_hand_ends_at_its_third_restart(
    docker: Docker, silent: FakeEndpoint
) -> None:
    """Docker counts the restarts from zero again then."""
    docker.states[ENGINE] = "running 0 41"
    looks = 0

    def started_by_hand(name: str) -> None:
        nonlocal looks
        looks += 1
        if looks > 10:
            docker.states[ENGINE] = "running 0 0" if looks < 30 else "restarting 1 3"

    docker.at_inspect = started_by_hand
    assert "ended 4 time(s)" in failure(silent, clock=Clock(0.01))


def test_the_edge_failing_is_reported_as_the_edge(docker: Docker, silent: FakeEndpoint) -> None:
    docker.logs[EDGE] = "[ALERT] (1) : Starting frontend clients: cannot bind socket (Address already in use)"
    docker.soon(EDGE, "restarting 1 3")
    text = failure(silent)
    assert f"phase: {EDGE}" in text
    assert "seatable-vllm:ports.edge" in text


def test_a_container_that_keeps_failing_is_stopped_so_that_it_does_not_burn_the_machine(
    docker: Docker, silent: FakeEndpoint
) -> None:
    docker.soon(ENGINE, "restarting 1 3")
    failure(silent)
    assert [(arguments[0], arguments[-1]) for arguments in docker.changed()] == [("stop", ENGINE)]


def test_a_cause_that_nobody_knows_is_said_to_be_unknown_and_the_log_is_shown(
    docker: Docker, silent: FakeEndpoint
) -> None:
    docker.logs[ENGINE] = "\n".join(f"line {n}" for n in range(400)) + "\nSegmentation fault"
    docker.soon(ENGINE, "exited 1 0")
    text = failure(silent)
    assert "Segmentation fault" in text
    assert "cause: not one that this program knows" in text
    assert len(text.splitlines()) < 60


def test_a_kill_for_memory_is_explained_by_the_exit_status_when_the_log_is_silent(
    docker: Docker, silent: FakeEndpoint
) -> None:
    docker.soon(ENGINE, "exited 137 0")
    assert "memory ran out" in failure(silent)


def test_patience_ends_at_the_deadline(docker: Docker, silent: FakeEndpoint) -> None:
    clock = Clock(10.0)
    failure(silent, deadline=600.0, clock=clock)
    assert clock.now <= 700


def test_a_start_that_takes_too_long_is_not_said_to_have_ended(docker: Docker, silent: FakeEndpoint) -> None:
    # The container runs, with no restart: "ended 1 time(s), last with status 0" would send the reader astray.
    text = failure(silent, deadline=60.0, clock=Clock(10.0))
    assert "phase: " in text
    assert "ended" not in text


def test_a_container_that_is_not_there_is_named(docker: Docker, silent: FakeEndpoint) -> None:
    def missing(name: str) -> None:
        raise GateFailed(f"docker inspect {name} failed: Error: No such object: {name}")

    docker.at_inspect = missing
    assert "No such object" in failure(silent)


# The whole gate


def run_main(fake: FakeEndpoint, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = gate.main(order_text(fake))
    said = capsys.readouterr().out
    assert fake.key not in said
    return status, said


def test_a_working_endpoint_ends_the_gate_with_success_and_one_line_per_check(
    docker: Docker, fake_endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run_main(fake_endpoint, capsys)
    assert status == 0
    assert len([line for line in said.splitlines() if line.startswith("ok: ")]) == 4
    assert "completion" in said


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize(
    ("route", "wrong", "cause"),
    [
        ("GET /v1/models", (200, {"data": [{"id": "owner/other", "max_model_len": 512}]}), "owner/other"),
        ("POST /v1/chat/completions", (500, "engine died"), "engine died"),
        ("POST /invocations", (200, "reached"), "POST /invocations"),
    ],
)
def test_a_failed_check_fails_the_gate_with_phase_and_cause(
    route: str,
    wrong: tuple[int, Any],
    cause: str,
    fake_endpoint: FakeEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = fake_endpoint.right_answer
    spoilt = fake_endpoint.always(*wrong)
    fake_endpoint.answers[route] = lambda asked: (
        spoilt(asked) if asked.headers.get("authorization") == f"Bearer {fake_endpoint.key}" else right(asked)
    )
    ended, said = run_main(fake_endpoint, capsys)
    assert ended == 1
    assert "phase: endpoint checked" in said
    (line,) = [line for line in said.splitlines() if line.startswith("cause: ")]
    assert cause in line


def test_a_failed_check_names_the_setting_to_change(
    docker: Docker, fake_endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    # DESIGN section 8: "says why not: phase, cause, the setting to change, the last log lines".
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(500, "engine died")
    _, said = run_main(fake_endpoint, capsys)
    assert "change: " in said


def test_a_container_counts_its_restarts_from_the_first_look() -> None:
    assert Container("running", 0, 5).since(3) == Container("running", 0, 2)
    assert not Container("running", 0, 2).failed
    assert Container("running", 0, 3).failed
    assert Container("exited", 0, 0).failed


# The bundle


def test_the_bundle_is_the_same_text_for_the_same_order_and_another_for_another() -> None:
    assert gate_program("{}") == gate_program("{}")
    assert gate_program("{}") != gate_program('{"a": 1}')


def test_the_bundled_modules_import_nothing_but_themselves_and_the_standard_library() -> None:
    own = {name.removesuffix(".py").partition("/")[0] for name in MODULES}
    for name in MODULES:
        for line in (ROOT / name).read_text().splitlines():
            if line.startswith(("import ", "from ")):
                top = line.split()[1].partition(".")[0]
                assert top in own | set(sys.stdlib_module_names), f"{name}: {line}"


def fake_docker(fake_command: FakeCommand) -> None:
    fake_command.add("docker", 'case "$1" in inspect) echo "running 0 0 2026-11-21T10:58:02Z";; esac')


def run_bundle(program: str, fake_command: FakeCommand, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program as a machine gets it: on standard input, by a Python without any site packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-"],
        input=program,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**fake_command.environment, "TMPDIR": str(cwd)},
    )


def test_the_bundle_proves_an_endpoint_on_a_machine_that_has_nothing_of_ours(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand, tmp_path: Path
) -> None:
    fake_docker(fake_command)
    place = tmp_path / "elsewhere"
    place.mkdir()
    done = run_bundle(gate_program(order_text(fake_endpoint)), fake_command, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("ok: ") == 4
    assert list(place.iterdir()) == []
    assert fake_endpoint.key not in done.stdout
    assert not any(fake_endpoint.key in word for call in fake_command.calls for word in call)


METRICS = (
    'vllm:cache_config_info{block_size="128",kv_cache_max_concurrency="5.6875",kv_cache_size_tokens="46592",'
    'num_gpu_blocks="364"} 1.0\n'
)


@pytest.mark.parametrize(
    ("metrics", "expected"), [((200, METRICS), (46592, 5)), ((200, "other 1.0\n"), None), ((500, ""), None)]
)
def test_what_the_engine_has_found_room_for_is_told_and_silence_of_it_is_no_failure(
    fake_endpoint: FakeEndpoint, metrics: tuple[int, str], expected: tuple[int, int] | None
) -> None:
    fake_endpoint.answers["GET /metrics"] = fake_endpoint.always(*metrics)
    assert held_in(held(fake_endpoint.port) or "") == expected


def test_the_bundle_ends_with_status_1_and_the_cause_when_the_engine_is_broken(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand, tmp_path: Path
) -> None:
    fake_endpoint.answers["*"] = fake_endpoint.always(503)
    fake_command.add(
        "docker",
        f'case "$1" in inspect) echo "restarting 2 $(date +%s%N) {STARTED_AT}";;'
        f' logs) echo "{UNKNOWN_OPTION}";; esac',
    )
    done = run_bundle(gate_program(order_text(fake_endpoint)), fake_command, tmp_path)
    assert done.returncode == 1
    assert "cause: vLLM does not know an option" in done.stdout
    assert fake_endpoint.key not in done.stdout + done.stderr


@pytest.mark.parametrize("model", ["o/it's", 'o/"x"', "o/\\n{x}", "o/ünï", "o/%s{}"])
def test_an_order_arrives_as_it_was_written_whatever_is_in_it(
    model: str, fake_endpoint: FakeEndpoint, fake_command: FakeCommand, tmp_path: Path
) -> None:
    fake_endpoint.model = model
    fake_docker(fake_command)
    done = run_bundle(gate_program(order_text(fake_endpoint)), fake_command, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
