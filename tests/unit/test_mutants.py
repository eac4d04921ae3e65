"""Unit tier: one-line faults, the tests that are run for each, and `scripts/test mutants` in a small project.

It does NOT prove that a fault which survives matters, nor how long a sample of this project takes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.commands import mutants
from scripts.commands.errors import CommandError
from scripts.commands.faults import faults_in
from scripts.commands.stacks import PROJECT

SHELL = 'program = """\numask 077\n# why\n[ -n "$1" ] && run\ndone\n"""\n'


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("condition", "if a:\n    b = c\n", {"if not (a):\n    b = c\n"}),
        ("condition", "b = c if not a else d\n", {"b = c if bool(a) else d\n"}),
        ("condition", "b = [c for c in d if c.a]\n", {"b = [c for c in d if not (c.a)]\n"}),
        ("condition", "b = (a\n     and c or d)\n", {"b = (a\n     or c or d)\n", "b = (a\n     and c and d)\n"}),
        ("comparison", "b = a < c\n", {"b = a <= c\n"}),
        ("comparison", "b = (a) not  in c\n", {"b = (a) in c\n"}),
        ("comparison", "b = 'ü' == a is None\n", {"b = 'ü' != a is None\n", "b = 'ü' == a is not None\n"}),
        ("arithmetic", "b = a // c - d\n", {"b = a * c - d\n", "b = a // c + d\n"}),
        ("arithmetic", "b = a + 'text'\n", set()),
        ("constant", "b = range(0, a, 32)\n", {"b = range(1, a, 32)\n", "b = range(0, a, 33)\n"}),
        ("constant", "b = True\n", {"b = False\n"}),
        ("constant", "b = a['key'], 'wording of a message'\n", {"b = a['mutated'], 'wording of a message'\n"}),
        ("mode", "b.chmod(0o600)\n", {"b.chmod(0o644)\n"}),
        ("mode", "b.mkdir(mode=0o755)\n", {"b.mkdir(mode=0o711)\n"}),
        ("argument", "b(a, c=d, e=f)\n", {"b(a, e=f)\n", "b(a, c=d)\n"}),
        ("argument", "b(c=d)\n", {"b()\n"}),
        ("item", "b = ['x', a]\n", {"b = [a]\n", "b = ['x']\n"}),
        ("item", "b = ('edge', 'engine')\n", {"b = ('engine',)\n", "b = ('edge',)\n"}),
        ("item", "b = {'a': c, 'd': e}\n", {"b = {'d': e}\n", "b = {'a': c}\n"}),
        ("item", "a, b = c, d\n", set()),
        ("line", "b.c()\n", {"pass\n"}),
        ("line", "def b():\n    raise c(\n        d\n    )\n", {"def b():\n    pass\n"}),
        ("line", "b.c = d\n", {"pass\n"}),
        ("line", "def b():\n    b += c\n    return\n",
         {"def b():\n    pass\n    return\n", "def b():\n    b += c\n    pass\n"}),
        ("text", SHELL, {
            SHELL.replace("077", "022"), SHELL.replace("-n", "-z"), SHELL.replace("&&", "||"),
            *(SHELL.replace(line, "") for line in ("umask 077\n", '[ -n "$1" ] && run\n', "done\n")),
        }),
        ("text", "b = f'''\n  a {c}\n'''\n", {"b = f'''\n'''\n"}),
        ("text", "b = f'chmod 600 {c}'\n", {"b = f'chmod 644 {c}'\n"}),
    ],
)  # fmt: skip
def test_each_kind_of_fault_changes_one_thing(kind: str, source: str, expected: set[str]) -> None:
    found = [fault for fault in faults_in("it.py", source) if fault.kind == kind]
    assert {fault.put_into(source) for fault in found} == expected
    assert all(fault.is_one(source) for fault in found)


@pytest.mark.parametrize(
    "source",
    [
        '"""Text 1.\n\nMore.\n"""\n',
        "import a.b\nfrom c import d\n",
        "def b(c: Literal['x', 1]) -> Annotated[int, 2]: ...\n",
        "@dataclass(frozen=True)\nclass B: ...\n",
        "assert a > 1\n",
        "TABLE = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'}\n",
        "if TYPE_CHECKING:\n    a = 1\n",
    ],
)
def test_what_no_test_should_notice_is_left_alone(source: str) -> None:
    assert faults_in("it.py", source) == []


def test_what_is_no_program_any_more_is_no_fault() -> None:
    source = "b = [(a), c]\n"
    wrong = [fault.put_into(source) for fault in faults_in("it.py", source) if not fault.is_one(source)]
    assert wrong == ["b = [(c]\n", "b = [(a]\n"]


def test_a_fault_is_shown_by_its_lines_before_and_after() -> None:
    source = "a = 1\nb(c, d=e,\n  f=g)\nh = 2\n"
    (fault,) = [fault for fault in faults_in("it.py", source) if fault.new == "3"]
    assert (fault.line, fault.shown(source)) == (4, ("h = 2", "h = 3"))
    assert [fault.shown(source) for fault in faults_in("it.py", source) if fault.kind == "argument"] == [
        ("b(c, d=e,", "b(c,"),
        ("b(c, d=e, f=g)", "b(c, d=e)"),
    ]


# The sample

SOURCES = {f"{name}.py": "a.chmod(0o600)\nb = c == 1\n" + "d(e=f)\n" * 30 for name in ("x", "y")}


def test_a_seed_draws_the_same_sample_again_with_the_kinds_in_turn() -> None:
    first = mutants.sample(SOURCES, 1, 12)
    assert first == mutants.sample(SOURCES, 1, 12)
    assert first != mutants.sample(SOURCES, 2, 12)
    assert len({*first}) == 12
    kinds = [fault.kind for fault in first]
    assert kinds.count("mode") == kinds.count("comparison") == 2
    assert {"argument", "constant", "line"} <= {*kinds}


def test_a_sample_ends_with_the_faults_that_there_are() -> None:
    assert len(mutants.sample({"x.py": "a = 1\nb = 'c'\n"}, 1, 40)) == 2


# Which tests

LEADS: Mapping[str, str] = {
    "pack/__init__.py": "",
    "pack/__main__.py": "import pack.one\n",
    "pack/one.py": "from pack import two\n",
    "pack/two.py": "HELP = 'scripts/up does it'\n",
    "scripts/commands/up.py": "import importlib\nimportlib.import_module(f'other.{name}')\n",
    "other/late.py": "",
    "alone.py": '"""Not as pack/one.py does it."""\n',
    "tests/conftest.py": "PROGRAM = 'pack/__main__.py'\n",
    "tests/unit/test_far.py": "from tests.conftest import PROGRAM\n",
    "tests/unit/test_near.py": "import pack.one\n",
    "tests/unit/test_two.py": "import pack.two\n",
    "tests/unit/test_process.py": "run([sys.executable, '-m', 'pack'])\n",
    "tests/unit/test_path.py": "(PROJECT / 'pack' / 'two.py').read_text()\n".replace("'", '"'),
    "tests/unit/test_command.py": "run('scripts/up')\n",
    "tests/live/test_live.py": "import pack.two\n",
}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pack/two.py", ["two", "path", "near", "process", "far"]),
        ("pack/one.py", ["near", "process", "far"]),
        ("scripts/commands/up.py", ["command"]),
        ("other/late.py", ["command"]),
        ("alone.py", []),
    ],
)
def test_tests_that_lead_to_a_file_are_run_and_the_nearest_first(file: str, expected: list[str]) -> None:
    found = mutants.tests_for(file, mutants.leads_of(LEADS))
    assert [test.removeprefix("tests/unit/test_").removesuffix(".py") for test in found] == expected


# A whole run

SOURCE = "def first(a):\n    return a < 1\n"
"""Two faults: `<=` in place of `<`, and 2 in place of 1."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project; what is made for a run lies in a folder beside it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = tmp_path / "small"
    for file, text in {
        "pack/__init__.py": "",
        "pack/it.py": SOURCE,
        ".venv/not_ours.py": SOURCE,
        "pytest.ini": "[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return folder


def ran(project: Path, capfd: pytest.CaptureFixture[str], test: str, *options: str) -> list[str]:
    """The lines of a run with the one test. Nothing of it is left, and the project is as it was."""
    (project / "tests/unit").mkdir(parents=True)
    (project / "tests/unit/test_it.py").write_text(f"import time\nfrom pack.it import first\n{test}\n")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert mutants.main(list(options), project) == 0
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    assert [*(project.parent / "tmp").iterdir()] == []
    return capfd.readouterr().out.splitlines()


def test_a_survivor_is_shown_with_its_line_before_and_after(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = ran(project, capfd, "def test_it(): assert first(0) and not first(1.5)", "--jobs", "1")
    assert lines == [
        "1/2 pack/it.py:2 (comparison): survived, all tests that lead to it pass",
        "2/2 pack/it.py:2 (constant): noticed, tests/unit/test_it.py::test_it",
        "seed 1: 1 of 2 faults noticed, 50.0 %",
        "survived: pack/it.py:2 (comparison), all tests that lead to it pass",
        "  - return a < 1",
        "  + return a <= 1",
    ]


def test_a_file_that_no_test_leads_to_has_survivors_only(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "pack/other.py").write_text("x = 1\n")
    lines = ran(project, capfd, "def test_it(): assert first(0)", "pack/other.py")
    assert lines[:2] == [
        "1/1 pack/other.py:1 (constant): survived, no unit test leads to this file",
        "seed 1: 0 of 1 faults noticed, 0.0 %",
    ]


def test_a_test_that_fails_without_the_fault_too_decides_nothing(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = ran(project, capfd, "def test_it(): assert first(3)", "--count", "1")
    assert lines[1:3] == [
        "seed 1: 0 of 0 faults noticed",
        "undecided: pack/it.py:2 (comparison), tests/unit/test_it.py::test_it fails without it too",
    ]


def test_a_fault_that_makes_a_test_endless_is_noticed(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "TEST_SECONDS", 1)
    test = "def test_it():\n    while first(1): time.sleep(0.1)"
    lines = ran(project, capfd, test, "--count", "1")
    assert lines[:2] == [
        "1/1 pack/it.py:2 (comparison): noticed, pytest ended with status 1",
        "seed 1: 1 of 1 faults noticed, 100.0 %",
    ]


def test_a_fault_whose_tests_take_too_long_together_is_undecided(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = ran(project, capfd, "def test_it(): time.sleep(600)", "--count", "1", "--limit", "0.5")
    assert lines[1:3] == [
        "seed 1: 0 of 0 faults noticed",
        "undecided: pack/it.py:2 (comparison), its tests take longer than --limit allows",
    ]


def test_tests_that_somebody_ends_decide_nothing(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    test = "import os, signal\ndef test_it(): os.kill(os.getpid(), signal.SIGTERM)"
    lines = ran(project, capfd, test, "--count", "1")
    assert lines[1:3] == [
        "seed 1: 0 of 0 faults noticed",
        "undecided: pack/it.py:2 (comparison), signal 15 ended its tests: the fault sent it, or somebody",
    ]


@pytest.mark.parametrize("paths", [("pack/nothing.py",), ("tests",), ("pac",)])
def test_where_there_is_nothing_to_change_it_says_what_to_name(paths: tuple[str, ...], project: Path) -> None:
    with pytest.raises(CommandError, match=f"{paths[0]}.*name a file or folder"):
        mutants.main(list(paths), project)


LEAVES_A_PROCESS = """
import os, subprocess, time
from pathlib import Path
import pack.it
def test_it():
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(os.environ["SEEN"]).write_text(f"{os.getpid()} {left.pid}\\n")
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_before_its_end_it_leaves_no_process_and_no_copy(number: signal.Signals, project: Path) -> None:
    seen = project.parent / "seen"
    (project / "tests/unit").mkdir(parents=True)
    (project / "tests/unit/test_it.py").write_text(LEAVES_A_PROCESS)
    driver = (
        "import sys\nfrom pathlib import Path\nfrom scripts.commands import __main__ as commands, mutants\n"
        f"mutants.PROJECT = Path({str(project)!r})\nsys.exit(commands.main(['mutants', '--jobs', '1']))"
    )
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", driver],
        cwd=PROJECT,
        env={**os.environ, "SEEN": str(seen)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while process.poll() is None and not (seen.exists() and seen.read_text().endswith("\n")):
            time.sleep(0.05)
        process.send_signal(number)
        told = process.communicate()[0]
    assert process.returncode not in (0, 1), told
    assert "Traceback" not in told
    for pid in seen.read_text().split():
        assert not Path(f"/proc/{pid}/cwd").exists()
    assert [*(project.parent / "tmp").iterdir()] == []
