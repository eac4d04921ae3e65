"""Unit tier: what `scripts/test` says of real pytest processes in small folders, and how it ends.

It does NOT prove how long the real tiers take, nor that live tests can run in any order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from scripts.commands import test as command
from scripts.commands.outcomes import REPEATED_AT_MOST, Outcomes
from scripts.commands.stacks import PROJECT
from scripts.commands.test import Tier, run

LIVE = {"live": Tier(([("pytest", ".")],), repeats=True)}

FAILS_ONCE = """
from pathlib import Path
def test_unsteady():
    seen = Path(__file__).with_suffix(".seen")
    before = seen.exists()
    seen.touch()
    assert before
def test_good():
    pass
"""


@dataclass(frozen=True)
class Run:
    """What a run said, by line, and its status."""

    lines: list[str]
    status: int

    @property
    def last(self) -> str:
        return self.lines[-1]

    def named(self, what: str) -> list[str]:
        """What is named by the lines that begin with a word and a colon."""
        return [line.split()[1] for line in self.lines if line.startswith(f"{what}: ")]


class RunTiers(Protocol):
    """Writes test files by module name and runs tiers over them."""

    def __call__(self, tiers: Mapping[str, Tier], **files: str) -> Run: ...


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tests; pytest finds the plugin from there, and no others."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    return tmp_path


@pytest.fixture
def ran(folder: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[RunTiers]:
    before = signal.getsignal(signal.SIGTERM)

    def ran(tiers: Mapping[str, Tier], **files: str) -> Run:
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        status = run(tiers, folder)
        return Run(capfd.readouterr().out.splitlines(), status)

    yield ran
    signal.signal(signal.SIGTERM, before)


def test_the_last_line_adds_up_all_tiers_and_the_skipped_ones_at_the_end_do_not_hide_the_others(
    ran: RunTiers,
) -> None:
    tiers = {
        "unit": Tier(([("pytest", "test_a.py"), ("pytest", "test_b.py")],)),
        "engine": Tier(([("pytest", "test_c.py")],)),
    }
    told = ran(
        tiers,
        test_a="def test_one(): pass\ndef test_two(): pass\n",
        test_b="import pytest\ndef test_three(): pass\n@pytest.mark.xfail\ndef test_known(): assert False\n",
        test_c="import pytest\npytestmark = pytest.mark.skip\ndef test_four(): pass\ndef test_five(): pass\n",
    )
    assert (told.last, told.status) == ("3 passed, 0 failed, 3 skipped", 0)
    assert any(line.startswith("unit: 3 passed, 0 failed, 1 skipped in ") for line in told.lines)
    assert any(line.startswith("engine: 0 passed, 0 failed, 2 skipped in ") for line in told.lines)


BROKEN = {
    "fails": ("def test_a(): assert False\ndef test_b(): pass\n", "1 passed, 1 failed, 0 skipped"),
    "fixture": (
        "import pytest\n@pytest.fixture\ndef bad(): raise OSError\ndef test_a(bad): pass\n",
        "0 passed, 1 failed, 0 skipped",
    ),
    # A test that passed and could not clean up is one failed test, not one of each.
    "clean-up": (
        "import pytest\n@pytest.fixture\ndef bad():\n    yield\n    raise OSError\ndef test_a(bad): pass\n",
        "0 passed, 1 failed, 0 skipped",
    ),
    "import": ("import nowhere_to_be_found\n", "0 passed, 2 failed, 0 skipped"),
    # Three that did not run, and the process.
    "dies": (
        "import os\ndef test_a(): pass\ndef test_b(): os._exit(7)\ndef test_c(): pass\ndef test_d(): pass\n",
        "1 passed, 4 failed, 0 skipped",
    ),
    "dies-with-status-0": (
        "import os\ndef test_a(): pass\ndef test_b(): os._exit(0)\n",
        "1 passed, 2 failed, 0 skipped",
    ),
    "dies-after-the-last-test": (
        "import os, pytest\n@pytest.fixture\ndef bad():\n    yield\n    os._exit(0)\ndef test_a(bad): pass\n",
        "1 passed, 1 failed, 0 skipped",
    ),
    "killed": (
        "import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGKILL)\n",
        "0 passed, 2 failed, 0 skipped",
    ),
    "leaves": ("import pytest\ndef test_a(): pytest.exit('enough')\n", "0 passed, 2 failed, 0 skipped"),
    "is-empty": ("", "0 passed, 1 failed, 0 skipped"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_counted_as_failed_and_is_never_green(kind: str, ran: RunTiers) -> None:
    text, expected = BROKEN[kind]
    told = ran(LIVE, test_it=text)
    assert (told.last, told.status) == (expected, 1), "\n".join(told.lines)
    assert told.named("failed")


def test_a_program_that_is_no_pytest_counts_as_one_check(ran: RunTiers) -> None:
    lint = Tier(([("compileall", "-q", "good.py")], [("compileall", "-q", "bad.py")]))
    told = ran({"lint": lint}, good="x = 1\n", bad="x = (\n")
    assert (told.last, told.status) == ("1 passed, 1 failed, 0 skipped", 1)
    assert "failed: compileall -q bad.py" in told.lines


def test_a_tier_that_cannot_begin_has_failed(
    ran: RunTiers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody-listens")
    told = ran({"live": Tier(([("pytest", ".")],), needs_docker=True)}, test_it="def test_a(): pass\n")
    assert (told.last, told.status) == ("0 passed, 1 failed, 0 skipped", 1)
    assert "failed: live could not begin: see above" in told.lines


def test_what_processes_beside_each_other_have_run_is_counted_once_and_one_that_dies_is_not_forgotten(
    ran: RunTiers,
) -> None:
    tier = Tier(([("pytest", ".", "-p", "xdist", "--numprocesses=2", "--dist=worksteal")],))
    both = "import pytest\n@pytest.mark.parametrize('n', range(3))\ndef test_n(n): assert n < {}\n"
    told = ran({"unit": tier}, test_a=both.format(3), test_b=both.format(2))
    assert (told.last, told.status) == ("5 passed, 1 failed, 0 skipped", 1)
    assert told.named("failed") == ["test_b.py::test_n[2]"]
    told = ran({"unit": tier}, test_b="import os\ndef test_dies(): os._exit(0)\n")
    assert (told.last, told.status) == ("3 passed, 1 failed, 0 skipped", 1)


@pytest.mark.parametrize(
    ("named", "expected"),
    [([], ["lint", "unit", "live", "engine"]), (["vllm"], ["vllm"]), (["engine", "lint"], ["engine", "lint"])],
)
def test_all_tiers_but_that_of_the_pinned_vllm_are_run_unless_some_are_named(
    named: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(tiers: Mapping[str, Tier]) -> int:
        asked.extend(tiers)
        return 0

    monkeypatch.setattr(command, "run", note)
    assert command.main(named) == 0
    assert asked == expected


def test_what_has_an_engine_needs_docker_and_only_live_tests_get_a_second_try() -> None:
    assert {name for name, tier in command.TIERS.items() if tier.needs_docker} == {"live", "engine", "vllm"}
    assert {name for name, tier in command.TIERS.items() if tier.repeats} == {"live", "vllm"}


# A second try


def test_a_test_that_fails_once_is_run_once_more_alone_counts_as_passed_and_is_named(ran: RunTiers) -> None:
    beside = Tier(([("pytest", "test_a.py"), ("pytest", "test_b.py")],), repeats=True)
    told = ran({"live": beside}, test_a=FAILS_ONCE, test_b=FAILS_ONCE)
    assert (told.last, told.status) == ("4 passed, 0 failed, 0 skipped", 0)
    assert told.named("unsteady") == ["test_a.py::test_unsteady", "test_b.py::test_unsteady"]


def test_only_what_failed_runs_again_and_what_fails_twice_is_failed(ran: RunTiers, folder: Path) -> None:
    text = "from pathlib import Path\n" + "".join(
        f"def test_{name}():\n    Path('ran').open('a').write('{name} ')\n    assert {name!r} == 'good'\n"
        for name in ("good", "bad")
    )
    told = ran(LIVE, test_it=text)
    assert (told.last, told.status) == ("1 passed, 1 failed, 0 skipped", 1)
    assert (folder / "ran").read_text() == "good bad bad "
    assert told.named("unsteady") == []


def test_a_second_try_is_not_given_where_a_tier_has_none(ran: RunTiers) -> None:
    told = ran({"unit": Tier(([("pytest", ".")],))}, test_it=FAILS_ONCE)
    assert (told.last, told.status) == ("1 passed, 1 failed, 0 skipped", 1)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("import os; os._exit(0)", "1 passed, 2 failed, 0 skipped"),
        ("import pytest; pytest.skip()", "1 passed, 1 failed, 0 skipped"),
    ],
    ids=["dies", "is-skipped"],
)
def test_a_second_try_that_does_not_pass_leaves_the_test_failed(second: str, expected: str, ran: RunTiers) -> None:
    text = FAILS_ONCE.replace("    assert before", f"    if before:\n        {second}\n    assert False")
    told = ran(LIVE, test_it=text)
    assert (told.last, told.status) == (expected, 1)
    assert told.named("unsteady") == []


def test_many_failures_are_not_run_again(ran: RunTiers, folder: Path) -> None:
    text = f"""
import pytest
@pytest.mark.parametrize("n", range({REPEATED_AT_MOST + 1}))
def test_a(n):
    open("ran", "a").write("x")
    assert False
"""
    told = ran(LIVE, test_it=text)
    assert (told.last, told.status) == (f"0 passed, {REPEATED_AT_MOST + 1} failed, 0 skipped", 1)
    assert len((folder / "ran").read_text()) == REPEATED_AT_MOST + 1


def test_nothing_is_run_again_where_that_could_not_make_the_tier_pass() -> None:
    outcomes = Outcomes(selected={"a", "b"})
    outcomes.add("a", "failed")
    assert outcomes.to_repeat() == ["a"]
    outcomes.add("pytest . (exit status -9)", "failed")
    assert outcomes.to_repeat() == []


# Its end before the end

LIVE_AS_IT_IS = """
from pathlib import Path
import pytest
from tests.live.conftest import orderly_end
@pytest.fixture(scope="session")
def stack(orderly_end):
    Path(f"{os.getpid()}.up").touch()
    yield
    time.sleep(0.5)
    Path(f"{os.getpid()}.down").touch()
"""

DRIVER = """
import sys
from pathlib import Path
from scripts.commands.test import Tier, run
both = [("pytest", "test_a.py"), ("pytest", "test_b.py")]
sys.exit(run({"live": Tier((both,), repeats=True)}, Path.cwd()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whom", ["it-alone", "all-at-once"])
def test_whoever_ends_it_waits_until_all_that_it_has_started_has_ended_in_order(
    number: signal.Signals, whom: str, folder: Path
) -> None:
    """A terminal's Ctrl-C reaches all processes at once, `kill` this one alone."""
    waits = "import time\ndef test_it(stack): time.sleep(600)\n"
    (folder / "conftest.py").write_text(f"import os, time\n{LIVE_AS_IT_IS}")
    for name in ("test_a", "test_b"):
        (folder / f"{name}.py").write_text(waits)
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", DRIVER],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        while process.poll() is None and len([*folder.glob("*.up")]) < 2:
            time.sleep(0.05)
        (os.kill if whom == "it-alone" else os.killpg)(process.pid, number)
        told = process.communicate()[0]
    assert process.returncode != 0
    assert len([*folder.glob("*.down")]) == 2, told
    assert " passed, " not in told.rstrip().splitlines()[-1]
