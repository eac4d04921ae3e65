"""Unit tier: one stated minimum of Python for every program that is sent to a machine.

The programs are read by the grammar of that version, and later names are looked for; where this computer has a
Python of that version, or an older one, the programs are run by it. Does not prove that every branch
of them was run by the oldest Python.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks import bundle, idleness
from checks.bundle import MIN_PYTHON, MIN_PYTHON_TEXT, facts_program, gate_program
from components.machine.ready import FAIL, PYTHON_CHECK
from scripts.commands import doctor
from settings import parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, FakeEndpoint, RecordProgram

PROJECT = Path(__file__).resolve().parents[2]

LATER_NAMES = (
    r"functools\.cache\b|removeprefix|removesuffix|is_relative_to|zoneinfo|graphlib|datetime\.UTC|import UTC|"
    r"tomllib|ExceptionGroup|itertools\.(pairwise|batched)|readlink\(\)|hardlink_to|TaskGroup|slots=True|"
    r"kw_only=True|strict=|root_dir=|to_thread|math\.lcm|delete_on_close|\bmatch .*:$|StrEnum|\} \| [({]"
)
"""Names and words that came after Python 3.8, as far as programs like these would use them."""


def here_documents(program: str) -> Iterator[str]:
    """The Python inside a bash program."""
    for tag, text in re.findall(r"<<'(\w+)'[^\n]*\n(.*?)\n\1\n", program, flags=re.DOTALL):
        if tag not in ("FILES", "CONTENT", "LOOK"):
            yield text
    yield from re.findall(r"python3 -c '([^']+)'", program)


def pythons() -> dict[tuple[int, int], str]:
    """The Pythons of this computer by their version; those of pyenv too."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*map(str, root.glob("versions/3.*/bin/python3"))]
    found += [path for minor in range(4, 15) if (path := shutil.which(f"python3.{minor}"))]
    versions = {}
    for path in found:
        ask = [path, "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"]
        told = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
        if len(told) == 2:
            versions[int(told[0]), int(told[1])] = path
    return versions


PYTHONS = pythons()
OLDEST_OURS = PYTHONS.get(MIN_PYTHON)
TOO_OLD = [path for version, path in sorted(PYTHONS.items()) if version < MIN_PYTHON]


def bundled() -> list[str]:
    return sorted({*bundle.MODULES, *bundle.FACTS_MODULES, str(Path(idleness.__file__).relative_to(PROJECT))})


@pytest.mark.parametrize("name", bundled())
def test_what_travels_needs_no_newer_python_than_is_stated(name: str) -> None:
    source = (PROJECT / name).read_text()
    ast.parse(source, name, feature_version=MIN_PYTHON)
    assert not re.search(LATER_NAMES, source), name
    if "|" in source:
        assert "from __future__ import annotations" in source or not re.search(r"(: |-> )\w+ \|", source)


def test_python_inside_the_programs_of_a_stack_needs_no_newer_one(record_program: RecordProgram) -> None:
    domain = json.dumps({"host": "llm.example.com", "tls": "private-ca"})
    clients = json.dumps({"seatable": {"kind": "seatable", "cidrs": ["203.0.113.7/32"]}})
    recorded = record_program(config={"seatable-vllm:domain": domain, "seatable-vllm:clients": clients})
    texts = [
        text
        for command in recorded.of_type("command:local:Command")
        for text in here_documents(command.inputs["stdin"])
    ]
    assert len(texts) >= 4
    for text in texts:
        ast.parse(text, feature_version=MIN_PYTHON)
        assert not re.search(LATER_NAMES, text)


@pytest.mark.skipif(OLDEST_OURS is None, reason=f"no Python {MIN_PYTHON_TEXT} is here")
def test_the_oldest_python_runs_the_gate_and_the_doctors_program(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand
) -> None:
    order: dict[str, object] = {
        "containers": {},
        "ports": {},
        "data_dir": "/",
        "model": "owner/model",
        "edge_url": "http://127.0.0.1:9/",
        "loopback_url": None,
    }
    facts = _run(str(OLDEST_OURS), facts_program(json.dumps(order)))
    assert json.loads(facts.stdout)["free_mib"], facts.stderr
    fake_command.add("docker", 'case "$1" in inspect) echo "running 0 0 2026-11-21T10:58:02Z";; esac')
    target = {
        "base_url": fake_endpoint.base_url,
        "key": fake_endpoint.key,
        "model": fake_endpoint.model,
        "max_model_len": fake_endpoint.max_model_len,
        "tools": True,
    }
    gate = {"engine": "e", "edge": "f", "deadline_seconds": 20, "target": target}
    done = _run(str(OLDEST_OURS), gate_program(json.dumps(gate)), fake_command.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("ok: ") == 4


@pytest.mark.parametrize("python", TOO_OLD)
def test_an_older_python_is_named_with_the_minimum_and_a_remedy_by_every_program(
    python: str, fake_command: FakeCommand
) -> None:
    fake_command.add("python3", f'exec {python} "$@"')
    first = f"set -euo pipefail\n{FAIL}{PYTHON_CHECK}echo went on\n"
    ready = subprocess.run(["bash", "-s"], input=first, capture_output=True, text=True, check=False,
                           env=fake_command.environment)  # fmt: skip
    assert "went on" not in ready.stdout
    for done in (ready, *(_run(python, program("{}")) for program in (gate_program, facts_program))):
        assert done.returncode == 1
        phase, cause, change = done.stderr.splitlines()
        assert phase == "phase: machine ready"
        assert re.search(rf"is version 3\.\d\.\d+, and {re.escape(MIN_PYTHON_TEXT)} is the oldest", cause)
        assert MIN_PYTHON_TEXT in change


def _run(
    python: str, program: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-"], input=program, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("kind", ["local", "host"])
def test_the_version_is_looked_at_before_anything_else_on_the_machine(
    kind: str, record_program: RecordProgram
) -> None:
    machine = {"local": {"kind": "local"}, "host": {"kind": "host", "ssh": "ubuntu@gpu1.example.com"}}[kind]
    program = (
        record_program("x", {"seatable-vllm:machine": json.dumps(machine)}).one("machine-ready").inputs["stdin"]
    )
    before = program.partition(PYTHON_CHECK)[0]
    assert PYTHON_CHECK in program
    assert "docker" not in before
    assert "mkdir" not in before


def test_readme_and_doctor_state_the_same_minimum() -> None:
    readme = (PROJECT / "README.md").read_text()
    (host,) = re.findall(r"Any Linux machine that SSH reaches:.*?\n\n", readme, re.DOTALL)
    assert f"Python {MIN_PYTHON_TEXT} or newer" in host
    assert f"{MIN_PYTHON_TEXT} or newer" in doctor.NEEDS


def test_the_doctor_says_that_the_machines_python_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "phase: machine ready\ncause: python3 on the machine is version 3.6.8\nchange: install a newer one\n"
    done = subprocess.CompletedProcess(["python3"], 1, stdout="", stderr=said)
    monkeypatch.setattr(doctor, "run_on_machine", lambda *_: done)
    (finding,) = doctor._machine("x", parse({}), "http://127.0.0.1/")
    assert finding.problem
    assert "3.6.8" in str(finding.problem)
    assert "install a newer one" in str(finding.problem)
