"""Unit tier: scripts/doctor: what the facts of a machine are taken for, and how they are gathered and told.

Facts are made up where they are judged; the program that gathers them is run for real, by a Python that sees
nothing of this repository, with a script of the test in Docker's place. It does NOT prove that a real container
that fails has these facts: the live tier breaks real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog.haproxy import GENERATION_HEADER
from checks import facts
from checks.bundle import FACTS_MODULES, ROOT, facts_program
from checks.diagnosis import MIN_FREE_MIB, Expected, Finding, changed_since_up, findings
from scripts.commands import doctor
from scripts.commands.errors import CommandError, failure
from settings import Settings, parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, FakeEndpoint

ENGINE, EDGE, DATA = "s-engine", "s-edge", "/srv/data"
EXPECTED = Expected("s", {"engine": ENGINE, "edge": EDGE}, {"engine": 18000, "edge": 8080}, DATA, "data-dir")
UNKNOWN_OPTION = "vllm serve: error: unrecognized arguments: --swap-space 4"

WELL: Mapping[str, Any] = {
    "status": "running", "exit_code": 0, "restarts": 0, "up_seconds": 3600, "error": "",
    "out_of_memory": False, "health": "healthy", "health_log": "", "labels": {"data-dir": DATA}, "log": "",
}  # fmt: skip


def seen(engine: Mapping[str, Any] | None = None, edge: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """The facts of a machine where all is well but for what is given."""
    known: dict[str, Any] = {
        "docker": {"version": "28.5.2", "complaint": ""},
        "containers": {
            "engine": None if engine == {} else {**WELL, **(engine or {})},
            "edge": None if edge == {} else {**WELL, "health": "", **(edge or {})},
        },
        "edge": {"on_disk": "0123456789ab", "in_force": "0123456789ab", "complaint": ""},
        "loopback": {"in_force": ""},
        "listening": {"engine": True, "edge": True},
        "free_mib": {DATA: MIN_FREE_MIB},
    }
    return {**known, **more}


def problems(known: Any) -> list[Finding]:
    return [finding for finding in findings(EXPECTED, known) if finding.problem]


def the_problem(known: Any) -> tuple[str, str, str]:
    """Name, cause and remedy of the one problem there is."""
    (finding,) = problems(known)
    assert finding.problem
    assert finding.problem.change
    return finding.name, finding.problem.cause, finding.problem.change


# What facts are taken for


def test_a_machine_where_all_is_well_has_no_problem_and_something_to_say_of_everything() -> None:
    names = [finding.name for finding in findings(EXPECTED, seen())]
    assert problems(seen()) == []
    assert {"Docker", "disk", ENGINE, EDGE, "edge configuration"} <= set(names)


def test_what_a_log_holds_is_no_problem_while_its_program_works() -> None:
    assert problems(seen(engine={"log": UNKNOWN_OPTION, "restarts": 2})) == []


def test_an_engine_that_loads_for_the_first_time_is_no_problem_of_its_container() -> None:
    assert problems(seen(engine={"health": "starting"})) == []


@pytest.mark.parametrize(
    ("state", "cause", "change"),
    [
        ({"status": "restarting", "restarts": 2, "log": UNKNOWN_OPTION}, "does not know an option", "extra_args"),
        ({"health": "starting", "restarts": 2, "log": UNKNOWN_OPTION}, "does not know an option", "extra_args"),
        ({"restarts": 2, "up_seconds": 0, "log": UNKNOWN_OPTION}, "does not know an option", "extra_args"),
        ({"status": "restarting", "restarts": 2, "log": "Error: new"}, "ended 2 times", "docker logs s-engine"),
        ({"status": "exited", "exit_code": 1, "log": UNKNOWN_OPTION}, "does not know an option", "extra_args"),
        ({"status": "exited", "exit_code": 0, "log": "bye"}, "stopped by hand, or ended with status 0", "up s"),
        ({"status": "exited", "exit_code": 137}, "was killed: by hand", "up s"),
        ({"status": "exited", "exit_code": 137, "out_of_memory": True}, "memory ran out", "model.name"),
        ({"status": "created", "exit_code": 128, "error": "Bind for 127.0.0.1:1: port is already allocated"},
         "taken by another program", "ports.engine"),
        ({"health": "unhealthy", "health_log": "miss misses=2"}, "answers nobody", "docker restart"),
        ({}, "no container s-engine", "up s"),
        ({"labels": {"data-dir": "/elsewhere"}}, "keeps its data in /elsewhere", "up s"),
    ],
)  # fmt: skip
def test_a_container_that_is_not_well_is_explained(state: Mapping[str, Any], cause: str, change: str) -> None:
    known = seen(engine=state)
    if not state or state.get("status") in ("exited", "created"):
        known["listening"] = {"engine": False, "edge": True}
    name, told, remedy = the_problem(known)
    assert name == ENGINE
    assert cause in told
    assert change in remedy


def test_a_port_of_a_container_that_does_not_run_is_named_when_somebody_else_has_it() -> None:
    told = problems(seen(engine={"status": "exited"}))
    assert [finding.name for finding in told] == [ENGINE, "port 18000 (engine)"]
    assert "seatable-vllm:ports.engine" in str(told[1].problem)


@pytest.mark.parametrize(
    ("edge", "listening", "in_force", "detail", "change"),
    [
        ("running", True, "0123456789ab", "the stack's own", ""),
        ("running", True, "", "taken by another program", "seatable-vllm:ports.loopback"),
        ("running", False, "", "nobody listens", "scripts/up s"),
        ("exited", True, "", "taken by another program", "seatable-vllm:ports.loopback"),
        ("exited", False, "", f"not looked at because {EDGE} does not run", ""),
    ],
)
def test_the_port_without_a_key_is_the_edges_and_answers_as_the_edge_does(
    edge: str, listening: bool, in_force: str, detail: str, change: str
) -> None:
    expected = replace(EXPECTED, ports={**EXPECTED.ports, "loopback": 18001})
    known = seen(edge={"status": edge}, loopback={"in_force": in_force})
    known["listening"] = {"engine": True, "edge": edge == "running", "loopback": listening}
    (finding,) = [each for each in findings(expected, known) if each.name == "port 18001 (loopback)"]
    assert finding.detail == detail
    assert change in str(finding.problem)
    assert bool(finding.problem) == bool(change)


def test_an_edge_with_another_configuration_than_the_one_on_the_disk_is_named() -> None:
    edge = {"on_disk": "aaaaaaaaaaaa", "in_force": "bbbbbbbbbbbb", "complaint": ""}
    name, cause, change = the_problem(seen(edge={}) | {"containers": seen()["containers"], "edge": edge})
    assert (name, change) == ("edge configuration", "scripts/up s, which loads it again")
    assert "aaaaaaaaaaaa" in cause
    assert "bbbbbbbbbbbb" in cause


def test_an_edge_that_does_not_answer_is_named() -> None:
    edge = {"on_disk": "aaaaaaaaaaaa", "in_force": "", "complaint": "[Errno 111] Connection refused"}
    name, _, change = the_problem(seen() | {"edge": edge})
    assert name == "edge configuration"
    assert "scripts/up s" in change


def test_a_disk_that_is_nearly_full_is_named() -> None:
    name, cause, change = the_problem(seen(free_mib={DATA: MIN_FREE_MIB - 1}))
    assert name == "disk"
    assert "disk is full" in cause
    assert "machine.data_dir" in change


def test_a_docker_that_does_not_answer_is_the_one_thing_to_say_of_the_containers() -> None:
    complaint = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    known = seen(docker={"version": "", "complaint": complaint}, containers={})
    name, _, change = the_problem(known)
    assert name == "Docker"
    assert "systemctl start docker" in change


def test_a_file_that_was_changed_since_the_last_up_is_named_with_what_was_changed() -> None:
    assert changed_since_up("s", {"model": "o/m"}, {"model": "o/m"}).problem is None
    finding = changed_since_up("s", {"model": "o/m", "allowed": {}}, {"model": "o/n", "allowed": {}})
    assert finding.problem
    assert finding.problem.cause.endswith(": model")
    assert finding.problem.change == "scripts/up s"


# How facts are gathered


def test_the_modules_that_travel_import_nothing_but_the_standard_library() -> None:
    for name in FACTS_MODULES:
        for line in (ROOT / name).read_text().splitlines():
            if line.startswith(("import ", "from ")):
                assert line.split()[1].partition(".")[0] in sys.stdlib_module_names, f"{name}: {line}"


def test_the_header_that_is_looked_for_is_the_one_that_the_edge_sends() -> None:
    assert facts.GENERATION_HEADER == GENERATION_HEADER


def order_text(tmp_path: Path, port: int, *, loopback: bool = False) -> str:
    """What the command asks for. loopback: whether the edge listens there for requests without a key too."""
    return json.dumps(
        {
            "containers": {"engine": ENGINE, "edge": EDGE},
            "ports": {"engine": 1, "edge": port},
            "data_dir": str(tmp_path / "data"),
            "model": "owner/model",
            "edge_url": f"http://127.0.0.1:{port}/",
            "loopback_url": f"http://127.0.0.1:{port}/" if loopback else None,
        }
    )


def gathered(fake_command: FakeCommand, order: str, cwd: Path) -> dict[str, Any]:
    """The facts, by a Python without any site packages, as a machine has it."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"],
        input=facts_program(order),
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**fake_command.environment, "TMPDIR": str(cwd)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    known: dict[str, Any] = json.loads(done.stdout)
    return known


def test_the_facts_are_gathered_on_a_machine_that_has_nothing_of_ours(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand, tmp_path: Path
) -> None:
    state = {"Status": "exited", "ExitCode": 1, "StartedAt": "2026-01-01T00:00:00Z", "OOMKilled": True}
    engine = [{"State": state, "RestartCount": 0, "Config": {"Labels": {"a": "b"}}}]
    fake_command.add(
        "docker",
        f"""case "$1" in
info) echo "20.10.24 {tmp_path}";;
inspect) [ "${{@: -1}}" = {ENGINE} ] || {{ echo "No such container" >&2; exit 1; }}; echo '{json.dumps(engine)}';;
logs) echo out; echo err >&2;;
esac""",
    )
    weights = tmp_path / "data" / "models" / "owner" / "model"
    weights.mkdir(parents=True)
    (weights / "config.json").touch()
    live = tmp_path / "data" / "edge"
    live.mkdir(parents=True)
    (live / "live").symlink_to("releases/0123456789ab")
    place = tmp_path / "elsewhere"
    place.mkdir()
    known = gathered(fake_command, order_text(tmp_path, fake_endpoint.port), place)
    assert known["docker"] == {"version": "20.10.24", "complaint": ""}
    assert known["containers"]["edge"] is None
    told = known["containers"]["engine"]
    assert (told["status"], told["exit_code"], told["out_of_memory"]) == ("exited", 1, True)
    assert told["labels"] == {"a": "b"}
    assert told["up_seconds"] > 0
    assert sorted(told["log"].split()) == ["err", "out"]
    assert known["listening"] == {"engine": False, "edge": True}
    assert known["edge"]["on_disk"] == "0123456789ab"
    assert known["weights"] is True
    assert list(known["free_mib"]) == [str(tmp_path / "data"), str(tmp_path)]
    assert list(place.iterdir()) == []
    assert {call[1] for call in fake_command.calls} <= {"info", "inspect", "logs"}, "it only looks"


@pytest.mark.parametrize("loopback", [True, False])
def test_the_listener_without_a_key_is_asked_for_its_configuration_where_there_is_one(
    loopback: bool, fake_endpoint: FakeEndpoint, fake_command: FakeCommand, tmp_path: Path
) -> None:
    fake_command.add("docker", "exit 1")
    fake_endpoint.answers["*"] = fake_endpoint.always(404, headers={GENERATION_HEADER: "0123456789ab"})
    order = order_text(tmp_path, fake_endpoint.port, loopback=loopback)
    known = gathered(fake_command, order, tmp_path)
    assert known["loopback"] == {"in_force": "0123456789ab" if loopback else ""}
    assert {asked.path for asked in fake_endpoint.asked} == {"/"}, "a door would wait for the engine"
    assert len(fake_endpoint.asked) == 1 + loopback


def test_a_machine_without_docker_is_a_fact_and_no_failure(fake_command: FakeCommand, tmp_path: Path) -> None:
    fake_command.add("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    known = gathered(fake_command, order_text(tmp_path, 1), tmp_path)
    assert "Cannot connect" in known["docker"]["complaint"]
    assert known["containers"] == {}
    assert known["edge"]["in_force"] == ""
    assert known["weights"] is False


# What the command tells


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command on a stack whose facts and outputs are given; its status and what it printed."""

    def run(
        known: Any,
        outputs: dict[str, Any] | Exception,
        machine: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> tuple[int, str]:
        def outputs_of(stack: str) -> dict[str, Any]:
            if isinstance(outputs, Exception):
                raise outputs
            return outputs

        def on_machine(stack: str, settings: Settings, program: str) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess([], 0, json.dumps(known) if machine is None else "", machine or "")

        monkeypatch.setattr(doctor, "stack_settings", lambda _: parse(dict(config or {})))
        monkeypatch.setattr(doctor, "outputs_of", outputs_of)
        monkeypatch.setattr(doctor, "run_on_machine", on_machine)
        monkeypatch.setattr(doctor, "data_dir", lambda *_: DATA)
        status = doctor.main(["s"])
        printed = capsys.readouterr()
        assert printed.err == ""
        return status, printed.out

    return run


def outputs(endpoint: FakeEndpoint, **changed: Any) -> dict[str, Any]:
    """The outputs of a stack with default settings that is served by `endpoint`."""
    settings = parse({})
    endpoint.model, endpoint.max_model_len = settings.model.name, settings.model.context_tokens
    known = {
        "endpoint": endpoint.base_url, "model": endpoint.model, "max_model_len": endpoint.max_model_len,
        "tool_parser": settings.model.parser or "none", "allowed": {"seatable": ["127.0.0.1/32"]},
        "clients": {"seatable": {"key": endpoint.key}},
    }  # fmt: skip
    return {**known, **changed}


def test_all_well_is_status_0_and_a_line_for_each_finding(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    status, text = told(seen(), outputs(fake_endpoint))
    assert status == 0, text
    assert all(line.startswith("ok ") for line in text.splitlines())
    assert "model is listed" in text


def test_the_port_of_the_stacks_file_without_a_key_is_looked_at(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    known = seen(listening={"engine": True, "edge": True, "loopback": False})
    status, text = told(known, outputs(fake_endpoint), config={"ports": {"loopback": 18001}})
    assert status == 1
    assert "problem: port 18001 (loopback)" in text
    assert "change: scripts/up s, which loads its configuration again" in text


def test_a_problem_is_told_last_with_cause_change_and_evidence(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    broken = seen(engine={"status": "restarting", "restarts": 3, "log": f"INFO\n{UNKNOWN_OPTION}"})
    status, text = told(broken, outputs(fake_endpoint))
    assert status == 1
    assert text.splitlines()[-4:] == [
        "problem: seatable-vllm-s-engine",
        "cause: vLLM does not know an option, or its value",
        "change: correct seatable-vllm:model.extra_args or model.tool_parser (vLLM 0.32: vllm serve --help=all)",
        f"seen: {UNKNOWN_OPTION}",
    ]


def test_a_stack_that_never_came_up_is_examined_all_the_same(told: Callable[..., tuple[int, str]]) -> None:
    nothing = seen(engine={}, edge={}, listening={"engine": False, "edge": False})
    status, text = told(nothing, CommandError("s is not deployed"))
    assert status == 1
    assert text.count("cause: ") == 1
    assert "cause: there is no container seatable-vllm-s-engine" in text
    for what in ("seatable-vllm-s-edge", "deployed"):
        assert f"skipped {what}: not looked at because of seatable-vllm-s-engine" in text


def test_of_a_half_up_stack_whose_weights_are_missing_those_are_the_one_problem(
    told: Callable[..., tuple[int, str]],
) -> None:
    half = seen(engine={}, edge={}, listening={"engine": False, "edge": False}, weights=False)
    status, text = told(half, CommandError("s is not deployed"))
    assert status == 1
    assert text.count("cause: ") == 1
    assert "cause: the weights of HuggingFaceTB/SmolLM2-135M-Instruct are not whole" in text
    assert "seatable-vllm:hugging_face_token" in text
    assert "skipped seatable-vllm-s-engine: not looked at because of the weights" in text


def test_of_a_half_up_stack_the_last_runs_own_words_are_the_cause(
    told: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / ".state" / "s" / "logs"
    logs.mkdir(parents=True)
    (logs / "1.log").write_text("cause: an older one\nchange: nothing\n")
    os.utime(logs / "1.log", (0, 0))
    (logs / "2.log").write_text(
        "making things\n  phase: weights present\n  cause: GatedRepoError: the model is gated\n"
        "  change: accept its licence\n"
    )
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    half = seen(engine={}, edge={}, listening={"engine": False, "edge": False}, weights=False)
    status, text = told(half, CommandError("s is not deployed"))
    assert status == 1
    assert text.splitlines()[-3:] == [
        "problem: deployed",
        "cause: GatedRepoError: the model is gated",
        "change: accept its licence",
    ]
    assert text.count("cause: ") == 1
    assert "skipped seatable-vllm-s-engine: not looked at because the last up ended before it" in text


def test_a_stack_that_never_came_up_and_shows_nothing_of_why_is_told_so(
    told: Callable[..., tuple[int, str]],
) -> None:
    status, text = told(seen(), CommandError("s is not deployed"))
    assert status == 1
    assert "cause: no up of this stack ended well" in text


def test_what_hangs_on_a_broken_link_is_not_looked_at(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    killed = seen(edge={"status": "exited", "exit_code": 137}, listening={"engine": True, "edge": False})
    status, text = told(killed, outputs(fake_endpoint))
    assert status == 1
    assert text.count("cause: ") == 1
    for what in ("port 8080 (edge)", "edge configuration"):
        assert f"skipped {what}: not looked at because seatable-vllm-s-edge does not run" in text
    assert "skipped client's side: not looked at because of seatable-vllm-s-edge" in text
    assert not fake_endpoint.asked, "a client would only say that nobody answers"


def test_a_nearly_full_disk_keeps_nothing_else_from_being_looked_at(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    _, text = told(seen(free_mib={DATA: 1}), outputs(fake_endpoint))
    assert "ok      stream arrives whole" in text


def test_a_cause_in_our_own_words_is_not_called_a_cause_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise failure("the machine is not made yet", "run scripts/up s")

    monkeypatch.setattr(doctor, "run_on_machine", away)
    (found,) = doctor._machine("s", parse({}), "http://")
    assert str(found.problem) == "cause: the machine is not made yet\nchange: run scripts/up s"


def test_whatever_a_backend_raises_is_a_finding_and_no_trace(told: Callable[..., tuple[int, str]]) -> None:
    status, text = told(seen(), RuntimeError("passphrase must be set"))
    assert status == 1
    assert "seen: passphrase must be set" in text
    assert "Traceback" not in text


def test_a_machine_that_does_not_let_us_in_is_explained(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    refusal = "me@gpu1: Permission denied (publickey)."
    status, text = told(None, outputs(fake_endpoint), machine=refusal)
    assert status == 1
    assert "seatable-vllm:machine.ssh" in text
    assert f"seen: {refusal}" in text


def test_an_endpoint_where_nobody_answers_is_asked_once(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.answers["*"] = fake_endpoint.always(503, {"error": {"message": "the engine is starting"}})
    status, text = told(seen(), outputs(fake_endpoint))
    assert status == 1
    assert text.count("answered 503") == 2, "once as a finding, once with its cause"
    assert text.count("not looked at because of: ") == 9


def test_no_key_is_printed_even_where_a_log_or_an_answer_holds_it(
    told: Callable[..., tuple[int, str]], fake_endpoint: FakeEndpoint
) -> None:
    leak = f"vllm serve: error: unrecognized arguments: {fake_endpoint.key}"
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(500, f"bad {fake_endpoint.key}")
    status, text = told(seen(engine={"status": "restarting", "log": leak}), outputs(fake_endpoint))
    assert status == 1
    assert fake_endpoint.key not in text
    assert "unrecognized arguments: ***" in text


@pytest.mark.parametrize("variable", ["DOCKER_CERT_PATH", "DOCKER_HOST"])
def test_a_docker_of_another_computer_is_never_looked_at(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "tcp://192.0.2.1:2376")
    (finding,) = doctor._machine("s", parse({}), "http://")
    assert finding.problem
    assert variable in finding.problem.cause
    assert finding.name == "machine"


def test_settings_that_cannot_be_used_end_the_examination_with_their_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "stack_settings", lambda _: parse({"modle": {}}))
    assert doctor.main(["s"]) == 1
    text = capsys.readouterr().out
    assert "seatable-vllm:modle: there is no such setting" in text
    assert "Pulumi.s.yaml" in text


def test_the_machine_program_gets_this_computers_docker_and_no_context(
    fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command.add("python3", 'cat; echo "$DOCKER_HOST ${DOCKER_CONTEXT-none}"')
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert doctor.run_on_machine("s", parse({}), "text ").stdout == "text unix:///run/user/1000/docker.sock none\n"
    assert os.environ["DOCKER_CONTEXT"] == "default"


def test_the_machine_is_asked_for_the_stacks_containers_ports_folder_and_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[Any] = []

    def on_machine(*_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "no python3")

    monkeypatch.setattr(doctor, "facts_program", lambda order: orders.append(json.loads(order)))
    monkeypatch.setattr(doctor, "run_on_machine", on_machine)
    ports = {"engine": 18001, "edge": 8091, "loopback": 8092}
    settings = parse({"ports": ports, "machine": {"kind": "local", "data_dir": "/srv/mine"}})
    list(doctor._machine("s", settings, "https://llm.example.com:8091/v1"))
    assert orders == [
        {
            "containers": {"engine": "seatable-vllm-s-engine", "edge": "seatable-vllm-s-edge"},
            "ports": ports,
            "data_dir": "/srv/mine",
            "model": settings.model.name,
            "edge_url": "https://127.0.0.1:8091/",
            "loopback_url": "http://127.0.0.1:8092/",
        }
    ]
