"""Unit tier: when a machine on AWS stops itself, and when never.

The real program runs, as the timer on a machine runs it, against numbers in vLLM's place, with a clock and a power
switch of the tests' own. Recorded metrics of vLLM 0.32.0 say which numbers a request moves. Does NOT prove
that systemd runs the timer, nor that EC2 stops a machine that powers itself off.
"""

from __future__ import annotations

import dataclasses
import email.message
import io
import json
import stat
import subprocess
import sys
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks import idleness
from checks.idleness import GRACE_SECONDS, LATEST_SECONDS, LOAD_SECONDS, Order, at_work, usage
from components.machine.aws.idle_stop import idle_stop_program, last_up_file, up_noted_program
from settings.aws import Cost

if TYPE_CHECKING:
    from tests.conftest import FakeEndpoint

IDLE = 40 * 60
HOUR = 3600
BOOTED_AT = 1_800_000_000


class Engine:
    """What vLLM would tell of itself after these requests."""

    def __init__(self) -> None:
        self.loaded = True
        self.probes = self.chats = self.tokens = self.running = self.waiting = 0
        self.looks = 0
        self.ends_after: int | None = None
        """The look after which what runs has ended."""

    def probe(self) -> None:
        """The health check's request."""
        self.probes += 1

    def chat(self, tokens: int = 20) -> None:
        """A user's request, from its begin to its end."""
        self.chats += 1
        self.tokens += tokens

    def metrics(self) -> str:
        self.looks += 1
        if self.ends_after is not None and self.looks > self.ends_after:
            self.running = 0
        count = self.probes + self.chats
        return "".join(
            f'{name}{{engine="0",model_name="m"{more}}} {float(value)}\n'
            for name, more, value in (
                ("vllm:num_requests_running", "", self.running),
                ("vllm:num_requests_waiting", "", self.waiting),
                ("vllm:num_requests_waiting_by_reason", ',reason="capacity"', 7),
                ("vllm:generation_tokens_total", "", self.probes + self.tokens),
                ("vllm:request_success_total", ',finished_reason="length"', self.probes),
                ("vllm:request_success_total", ',finished_reason="stop"', self.chats),
                ("vllm:request_prompt_tokens_bucket", ',le="5.0"', self.probes),
                ("vllm:request_prompt_tokens_bucket", ',le="+Inf"', count),
                ("vllm:request_prompt_tokens_count", "", count),
                ("vllm:request_params_max_tokens_bucket", ',le="1.0"', self.probes),
                ("vllm:request_params_max_tokens_count", "", count),
            )
        )


class Machine:
    """A machine with an engine, a clock and a power switch."""

    def __init__(self, folder: Path, url: str, engine: Engine) -> None:
        self.engine = engine
        self.now = 0
        self.folder = folder
        (folder / "proc").mkdir()
        self.order = Order(
            metrics=url,
            idle_seconds=IDLE,
            live_seconds=None,
            memory=str(folder / "memory"),
            last_up=str(folder / "last-up"),
            poweroff=["touch", str(folder / "off")],
            processes=str(folder / "proc"),
            clock=str(folder / "clock"),
            pause=0.0,
        )

    @property
    def off(self) -> bool:
        return (self.folder / "off").exists()

    def up(self) -> None:
        """An `up` right now."""
        Path(self.order.last_up).write_text(f"{BOOTED_AT + self.now}\n")

    def process(self, pid: int, name: str, parent: int) -> None:
        (self.folder / "proc" / str(pid)).mkdir()
        (self.folder / "proc" / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 0\n")

    def tick(self) -> None:
        """One run of the timer."""
        Path(self.folder / "clock").write_text(f"{self.now} {BOOTED_AT + self.now}")
        order = self.folder / "order.json"
        order.write_text(json.dumps(dataclasses.asdict(self.order)))
        idleness.main(str(order))

    def minutes(self, count: int, meanwhile: Callable[[], None] | None = None) -> int:
        """Lets time pass, with the timer and six health checks a minute, until off; how many minutes that was."""
        for minute in range(count):
            if self.off:
                return minute
            self.now += 60
            for _ in range(6 * self.engine.loaded):
                self.engine.probe()
            if meanwhile:
                meanwhile()
            self.tick()
        return count


class Metrics(urllib.request.BaseHandler):
    """Answers for engine: URLs without a server, since hours of looks are a thousand requests."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def engine_open(self, request: urllib.request.Request) -> urllib.response.addinfourl:
        if not self.engine.loaded:
            raise urllib.error.URLError("connection refused")
        text = io.BytesIO(self.engine.metrics().encode())
        return urllib.response.addinfourl(text, email.message.Message(), request.full_url)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a loaded engine that nobody has used."""
    engine = Engine()
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(Metrics(engine)))
    return Machine(tmp_path, "engine:metrics", engine)


# Idle


def test_a_machine_that_is_used_now_and_then_is_never_stopped(machine: Machine) -> None:
    for _ in range(3):
        machine.minutes(39)
        machine.engine.chat()
        machine.tick()
    assert not machine.off


def test_an_idle_machine_is_stopped_after_the_time_since_its_last_request(machine: Machine) -> None:
    machine.minutes(60, machine.engine.chat)
    assert machine.minutes(1000) == IDLE // 60
    assert machine.off


def test_the_health_check_alone_keeps_no_machine_awake(machine: Machine) -> None:
    # The first look counts as use: the model has just been loaded for somebody.
    assert machine.minutes(1000) == 1 + IDLE // 60
    assert machine.engine.probes == 6 * (1 + IDLE // 60)


def test_a_request_that_runs_all_the_time_is_never_cut_off(machine: Machine) -> None:
    # One long prompt: nothing is counted before its end.
    machine.minutes(5)
    machine.engine.running = 1
    machine.minutes(60)
    assert not machine.off


def test_a_stream_counts_while_it_runs_and_until_its_end(machine: Machine) -> None:
    def token() -> None:
        machine.engine.running = 1
        machine.engine.tokens += 1

    machine.minutes(60, token)
    machine.engine.running = 0
    assert machine.minutes(1000) == IDLE // 60


def test_a_health_check_that_happens_to_run_is_told_from_a_request(machine: Machine) -> None:
    machine.minutes(IDLE // 60)
    machine.engine.running, machine.engine.ends_after = 1, machine.engine.looks + 4
    assert machine.minutes(1) == 1
    assert machine.off


def test_a_request_that_waits_for_its_turn_is_one_that_runs(machine: Machine) -> None:
    machine.minutes(5)
    machine.engine.waiting = 1
    machine.minutes(60)
    assert not machine.off


def test_a_use_that_is_seen_only_at_the_last_look_keeps_the_machine(machine: Machine) -> None:
    machine.minutes(IDLE // 60)
    machine.engine.running, machine.engine.ends_after = 1, machine.engine.looks + 4
    machine.engine.chat()
    machine.minutes(1)
    assert not machine.off


def test_a_user_who_wants_one_token_is_a_user(machine: Machine) -> None:
    def classify() -> None:
        # A long prompt, one token: only the prompt's histogram tells it from the health check.
        machine.engine.chat(tokens=1)

    machine.minutes(60, classify)
    assert not machine.off


def test_an_engine_that_is_still_loading_is_left_alone(machine: Machine) -> None:
    machine.engine.loaded = False
    machine.minutes(LOAD_SECONDS // 60)
    assert not machine.off
    machine.engine.loaded = True
    assert machine.minutes(1000) == 1 + IDLE // 60


def test_an_engine_that_loads_again_after_hours_of_use_is_left_alone_as_long_as_at_first(machine: Machine) -> None:
    # A larger model, say: nothing was used since, and a silence of hours ago is none of this one's.
    machine.minutes(5 * 60, machine.engine.chat)
    machine.engine.loaded = False
    assert machine.minutes(1000) == (LOAD_SECONDS + IDLE) // 60


def test_an_engine_that_never_answers_does_not_keep_the_machine_for_ever(machine: Machine) -> None:
    machine.engine.loaded = False
    assert machine.minutes(1000) == (LOAD_SECONDS + IDLE) // 60


def test_a_restart_of_the_engine_stops_nothing_too_early(machine: Machine) -> None:
    machine.minutes(30, machine.engine.chat)
    machine.minutes(30)
    machine.engine.probes = machine.engine.chats = machine.engine.tokens = 0
    machine.minutes(IDLE // 60 - 1)
    assert not machine.off


def test_after_a_boot_the_machine_has_its_grace(machine: Machine) -> None:
    machine.order = dataclasses.replace(machine.order, idle_seconds=600)
    assert machine.minutes(1000) == GRACE_SECONDS // 60


def test_an_up_counts_as_use(machine: Machine) -> None:
    machine.minutes(39)
    machine.up()
    assert machine.minutes(1000) == IDLE // 60


def test_no_machine_is_stopped_under_the_hands_of_an_up_or_of_a_person(machine: Machine) -> None:
    machine.process(10, "sshd", 1)
    machine.process(20, "sshd", 10)
    machine.process(21, "bash", 20)
    machine.minutes(60)
    assert not machine.off
    (machine.folder / "proc" / "21" / "stat").unlink()  # only a tunnel is left
    assert machine.minutes(10) == 1


def test_only_what_sshd_has_started_is_somebody_at_work(machine: Machine) -> None:
    processes = machine.folder / "proc"
    machine.process(1, "systemd", 0)
    machine.process(10, "sshd", 1)
    machine.process(11, "sshd-session", 10)
    machine.process(30, "python3 (x) y", 1)
    assert not at_work(processes)
    machine.process(12, "docker", 11)
    assert at_work(processes)


def test_it_says_something_when_something_is_new(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.minutes(1000)
    assert capsys.readouterr().out.splitlines() == [
        "the machine stays on",
        "stopping the machine: it has answered nothing for 40 min",
    ]


# Lifetime


@pytest.fixture
def mortal(machine: Machine) -> Machine:
    """A machine that lives for three hours after an `up`, used or not."""
    machine.order = dataclasses.replace(machine.order, idle_seconds=None, live_seconds=3 * HOUR)
    machine.up()
    return machine


def test_a_lifetime_ends_though_the_machine_is_used(mortal: Machine) -> None:
    assert mortal.minutes(1000, mortal.engine.chat) == 3 * 60


def test_the_next_up_extends_a_lifetime(mortal: Machine) -> None:
    mortal.minutes(2 * 60)
    mortal.up()
    assert mortal.minutes(1000) == 3 * 60


def test_a_request_gets_a_few_more_minutes_at_the_end_of_a_lifetime(mortal: Machine) -> None:
    mortal.engine.running = 1
    assert mortal.minutes(1000) == 3 * 60 + LATEST_SECONDS // 60


def test_a_machine_that_is_started_after_its_lifetime_waits_for_the_up_that_started_it(mortal: Machine) -> None:
    Path(mortal.order.last_up).write_text(str(BOOTED_AT - 20 * HOUR))
    mortal.minutes(10)
    mortal.up()
    assert mortal.minutes(1000) == 3 * 60


def test_a_machine_that_is_started_by_hand_after_its_lifetime_is_stopped_again(mortal: Machine) -> None:
    Path(mortal.order.last_up).write_text(str(BOOTED_AT - 20 * HOUR))
    assert mortal.minutes(1000) == GRACE_SECONDS // 60


def test_a_lifetime_without_a_known_up_counts_from_the_boot(mortal: Machine) -> None:
    Path(mortal.order.last_up).unlink()
    assert mortal.minutes(1000) == 3 * 60


# What stays on the machine


@pytest.mark.parametrize(("status", "off"), [(200, True), (503, False)])
def test_the_script_alone_stops_the_machine_with_nothing_of_this_repository(
    status: int, off: bool, machine: Machine, fake_endpoint: FakeEndpoint
) -> None:
    # The error of an engine does not show what it was used for.
    fake_endpoint.answers["GET /metrics"] = fake_endpoint.always(status, machine.engine.metrics())
    url = f"http://127.0.0.1:{fake_endpoint.port}/metrics"
    machine.order = dataclasses.replace(machine.order, metrics=url)
    script, order = machine.folder / "script.py", machine.folder / "order.json"
    script.write_text(Path(idleness.__file__).read_text())
    memory = {"since": 60.0, "used": 0.0, "answered": 60.0, "said": ""}
    Path(machine.order.memory).write_text(json.dumps(memory))
    Path(machine.folder / "clock").write_text(f"{IDLE + 60} {BOOTED_AT}")
    order.write_text(json.dumps(dataclasses.asdict(machine.order)))
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(order)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.off == off


FAKES = """\
#!/bin/bash
# sudo, systemctl and date of a machine with systemd
case ${0##*/} in
  sudo) shift; exec "$@";;
  date) echo 1800000000;;
  systemctl) echo "$*" >> "$CALLS"; [[ "$*" != *is-active* ]] || [ -e "$ACTIVE" ];;
  id) echo 1000;;
esac
"""


class Host:
    """Runs programs as a machine would, with its root folder elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name in ("sudo", "systemctl", "date", "id"):
            (folder / "bin" / name).write_text(FAKES)
            (folder / "bin" / name).chmod(0o755)

    def run(self, program: str) -> list[str]:
        """The calls of systemctl."""
        calls = self.folder / "calls"
        calls.write_text("")
        for place in ("/etc/systemd", "/usr/local/lib/seatable-vllm", "/var/lib/seatable-vllm", "/run/"):
            program = program.replace(place, f"{self.folder}{place}")
        done = subprocess.run(
            ["bash", "-s"],
            input=program,
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "CALLS": str(calls),
                "ACTIVE": str(self.folder / "active"),
            },
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return calls.read_text().splitlines()

    def files(self) -> list[str]:
        found = self.folder.glob("[euvr]*/**/*")
        return sorted(f"/{path.relative_to(self.folder)}" for path in found if path.is_file())


UNIT = "seatable-vllm-gpu-idle-stop"


def test_the_timer_is_installed_once_and_left_alone_by_the_next_up(tmp_path: Path) -> None:
    host, program = Host(tmp_path), idle_stop_program("gpu", Cost(idle_stop_minutes=30), 18000)
    assert host.run(program) == [
        "daemon-reload", f"enable --quiet {UNIT}.timer", f"restart {UNIT}.timer",
    ]  # fmt: skip
    assert host.files() == [
        f"/etc/systemd/system/{UNIT}.service",
        f"/etc/systemd/system/{UNIT}.timer",
        f"/usr/local/lib/seatable-vllm/{UNIT}.json",
        f"/usr/local/lib/seatable-vllm/{UNIT}.py",
        last_up_file("gpu"),
    ]
    installed = [tmp_path / name.removeprefix("/") for name in host.files()[:4]]
    assert {stat.S_IMODE(path.stat().st_mode) for path in installed} == {0o644}
    (tmp_path / "active").touch()
    assert host.run(program) == [f"enable --quiet {UNIT}.timer", f"--quiet is-active {UNIT}.timer"]
    (tmp_path / "active").unlink()
    assert host.run(program)[-1] == f"restart {UNIT}.timer", "somebody has stopped it"
    assert host.run(idle_stop_program("gpu", Cost(idle_stop_minutes=31), 18000)) == [
        "daemon-reload", f"enable --quiet {UNIT}.timer", f"restart {UNIT}.timer",
    ]  # fmt: skip


def test_the_service_runs_what_is_installed_once_a_minute(tmp_path: Path) -> None:
    Host(tmp_path).run(idle_stop_program("gpu", Cost(idle_stop_minutes=30), 18000))
    units, library = tmp_path / "etc/systemd/system", f"/usr/local/lib/seatable-vllm/{UNIT}"
    service = (units / f"{UNIT}.service").read_text().splitlines()
    assert f"ExecStart=/usr/bin/python3 -I {library}.py {library}.json" in service
    assert "Type=oneshot" in service
    timer = (units / f"{UNIT}.timer").read_text().splitlines()
    assert {"OnActiveSec=1min", "OnUnitInactiveSec=1min", "WantedBy=timers.target"} <= set(timer)


def test_what_is_installed_is_an_order_that_the_script_takes(tmp_path: Path) -> None:
    Host(tmp_path).run(idle_stop_program("gpu", Cost(idle_stop_minutes=30, live_hours=8), 18001))
    order = Order(**json.loads((tmp_path / f"usr/local/lib/seatable-vllm/{UNIT}.json").read_text()))
    assert (order.idle_seconds, order.live_seconds, order.pause) == (1800, 8 * HOUR, 1.0)
    assert order.metrics == "http://127.0.0.1:18001/metrics"
    assert list(order.poweroff) == ["systemctl", "poweroff"]
    assert order.last_up == last_up_file("gpu")
    script = (tmp_path / f"usr/local/lib/seatable-vllm/{UNIT}.py").read_text()
    assert script == Path(idleness.__file__).read_text()


def test_switched_off_it_takes_itself_away_and_says_nothing_where_it_never_was(tmp_path: Path) -> None:
    host, off = Host(tmp_path), idle_stop_program("gpu", Cost(), 18000)
    assert host.run(off) == []
    host.run(idle_stop_program("gpu", Cost(live_hours=8), 18000))
    assert host.run(off) == [f"disable --quiet --now {UNIT}.timer", "daemon-reload"]
    assert host.files() == [last_up_file("gpu")]
    assert host.run(off) == []


def test_an_up_is_noted_where_the_script_looks_for_it(tmp_path: Path) -> None:
    Host(tmp_path).run(up_noted_program("gpu"))
    assert (tmp_path / last_up_file("gpu").removeprefix("/")).read_text() == "1800000000\n"


# vLLM's own numbers


RECORDED = Path(__file__).resolve().parent / "data" / "vllm-metrics"
"""What vLLM 0.32.0 on a CPU told, one request after the other, in the order of the names."""


def recorded(step: int) -> tuple[float, float]:
    (file,) = RECORDED.glob(f"{step}-*.txt")
    return usage(file.read_text())


def test_vllms_counters_do_not_move_by_its_health_check() -> None:
    fresh, one, six = recorded(0), recorded(1), recorded(2)
    assert fresh == one == six == (0.0, 0.0)


def test_vllms_counters_move_by_every_request_of_a_user() -> None:
    after_checks, one_token, short_prompt = recorded(2), recorded(3), recorded(4)
    assert after_checks < one_token < short_prompt
    assert short_prompt[1] == 0.0


def test_vllms_counters_move_while_a_stream_runs_and_keep_what_a_client_cut_off() -> None:
    before, begins, runs, cut_off = (recorded(step) for step in (4, 5, 6, 7))
    assert before[0] < begins[0] < runs[0] < cut_off[0]
    assert (begins[1], runs[1], cut_off[1]) == (1.0, 1.0, 0.0)


def test_a_client_that_lists_models_or_is_refused_uses_nothing() -> None:
    assert recorded(7) == recorded(8)
