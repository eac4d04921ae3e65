"""`scripts/test mutants [--seed N] [--count N] [PATH ...]`: how many one-line faults do the unit tests notice?

Puts faults (scripts/commands/faults.py) into copies of the project, one at a time, runs the unit tests that may
notice it, and prints the rate and the faults that no test noticed. The same seed on the same sources draws the
same sample, in which each kind of fault is as frequent as any other. The checkout itself is never changed.

Which tests: each file of unit tests that leads to the file with the fault, by its imports or by naming it in its
strings, directly or by way of other files. These are more than those that run its lines; but programs are run from
their text and in other processes too, where nothing can be measured. The nearest run first, and the first failure
is enough.

No library does this. mutmut 3.8 makes each function ask which mutant is on, and this project sends the source of
functions to other machines; it leaves constants of modules alone, and has no samples. Cosmic Ray 8.7 changes the
checkout itself, and has one command of tests for all faults.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.commands.errors import CommandError
from scripts.commands.faults import Fault, faults_in
from scripts.commands.stacks import PROJECT

Leads = Mapping[str, frozenset[str]]
"""By file, the files that its imports and its text name."""

NOT_COPIED = (".git", ".venv", "venv", ".state", ".pulumi-cli*", "__pycache__", ".*_cache")

TEST_SECONDS = 120
"""For one test, as a fault may make a loop endless; the slowest takes a tenth of it."""

MEMORY_KIB = 8 * 1024 * 1024
"""Address space of a process, for the same reason."""


@dataclass(frozen=True)
class Outcome:
    """What became of a fault. word: `noticed`, `survived` or `undecided`; by: the test, or the reason."""

    fault: Fault
    word: str
    by: str


def main(arguments: list[str], project: Path | None = None) -> int:
    """Status 0 however many were noticed: a person judges the survivors."""
    parser = argparse.ArgumentParser(
        prog="scripts/test mutants", description="Counts the faults that unit tests notice."
    )
    parser.add_argument("--seed", type=int, default=1, help="another number draws another sample")
    parser.add_argument("--count", type=int, default=40, help="faults to try")
    parser.add_argument("--jobs", type=int, default=2, help="faults that are tried at the same time")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for the tests of one fault")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="only faults in these files and folders")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="clean-") as folder:
        clean = Path(folder) / "project"  # what is edited meanwhile makes no difference
        shutil.copytree(project or PROJECT, clean, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        sources = {path.relative_to(clean).as_posix(): path.read_text() for path in sorted(clean.rglob("*.py"))}
        program = {file: text for file, text in sources.items() if _is_chosen(file, options.paths)}
        faults = sample(program, options.seed, options.count)
        if not faults:
            raise CommandError(
                f"no fault can be put into {', '.join(options.paths)}: name a file or folder of Python"
            )
        outcomes = []
        for outcome in try_all(faults, clean, leads_of(sources), options.jobs, options.limit):
            outcomes.append(outcome)
            place = f"{outcome.fault.file}:{outcome.fault.line} ({outcome.fault.kind})"
            print(f"{len(outcomes)}/{len(faults)} {place}: {outcome.word}, {outcome.by}", flush=True)
        print(f"seed {options.seed}: {report(without_bad_tests(outcomes, clean), sources)}", flush=True)
    return 0


def _is_chosen(file: str, paths: Sequence[str]) -> bool:
    wanted = not paths or any(file == path or file.startswith(f"{path.rstrip('/')}/") for path in paths)
    return wanted and not file.startswith("tests/")


def sample(sources: Mapping[str, str], seed: int, count: int) -> list[Fault]:
    """Faults drawn by a seed, the kinds in turn; fewer where the sources have fewer."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in itertools.chain.from_iterable(faults_in(file, source) for file, source in sources.items()):
        by_kind.setdefault(fault.kind, []).append(fault)
    pools, chance, drawn = [pool for _, pool in sorted(by_kind.items())], random.Random(seed), list[Fault]()  # noqa: S311
    for pool in pools:
        chance.shuffle(pool)
    while len(drawn) < count and any(pools):
        drawn += [fault for fault in [pool.pop() for pool in pools if pool] if fault.is_one(sources[fault.file])]
    return drawn[:count]


def leads_of(sources: Mapping[str, str]) -> Leads:
    """What each file leads to; sources: the text of every file by its path."""
    names = {file: file for file in sources} | {file.removesuffix("/__main__.py"): file for file in sources}
    names |= {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in sources}
    # Only in tests it means that a command is run; elsewhere it is advice for a user.
    commands = {f"scripts/{Path(file).stem.replace('_', '-')}": file for file in sources if "/commands/" in file}
    return {
        file: frozenset(_named(file, source, names | commands if file.startswith("tests/") else names) - {file})
        for file, source in sources.items()
    }


def _named(own: str, source: str, names: Mapping[str, str]) -> set[str]:
    """The files that a source imports or names. own: its path; names: files by dotted name and by path."""
    tree = ast.parse(source.replace('" / "', "/"))  # parts of a path
    words, found = set[str](), set[str]()
    remarks = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            words |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            words |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in remarks:
            words |= {word for word in re.findall(r"[\w./-]+", node.value) if "." in word or "/" in word}
            if re.fullmatch(r"[\w.]+\.", node.value):  # f"package.{module}"
                found |= {file for name, file in names.items() if name.startswith(node.value)}
    words |= {str(Path(own).with_name(word)) for word in words if word.endswith(".py") and "/" not in word}
    words |= {f"{package}.__main__" for package in re.findall(r"-m[\"', ]+([\w.]+)", source)}
    for word in words & names.keys():  # the packages around a module are imported with it
        words |= set(itertools.accumulate(word.split("."), "{}.{}".format))
    return found | {names[word] for word in words & names.keys()}


def tests_for(file: str, leads: Leads) -> list[str]:
    """The files of unit tests that lead to a file, the nearest first."""
    distance, reached = {file: 0}, [file]
    for each in reached:
        nearer = [other for other, led in leads.items() if each in led and other not in distance]
        distance |= dict.fromkeys(nearer, distance[each] + 1)
        reached += nearer
    own = set(re.split(r"[/_.]", file))
    tests = [each for each in reached if each.startswith("tests/unit/test_")]
    return sorted(tests, key=lambda each: (distance[each], -len(own.intersection(re.split(r"[/_.]", each)))))


class _Tests:
    """Unit tests at work in a copy of the project of their own."""

    def __init__(self, project: Path, tests: Sequence[str], *options: str, fault: Fault | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        copy = self._folder / "project"
        shutil.copytree(project, copy, symlinks=True)
        if fault is not None:
            (copy / fault.file).write_text(fault.put_into((copy / fault.file).read_text()))
        (self._folder / "t").mkdir()
        # A fault may lose what keeps a test from the accounts and the Docker of whoever runs this.
        outside = ("AWS_", "DOCKER_", "PULUMI_", "PYTEST_ADDOPTS")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
        line = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", *options]
        line += ["-p", "no:cacheprovider", "-p", "no:randomly"]
        line += ["-o", f"faulthandler_timeout={TEST_SECONDS}", "-o", "faulthandler_exit_on_timeout=true"]
        line += [f"--basetemp={self._folder}/b", *tests]
        self._printed = (self._folder / "printed").open("w+")
        self._process = subprocess.Popen(
            ["bash", "-c", f'ulimit -v {MEMORY_KIB}; exec nice -n 19 "$@"', "-", *line],
            cwd=copy,
            env={**environment, "TMPDIR": f"{self._folder}/t"},
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Since its beginning."""
        return time.monotonic() - self._began

    def status(self, limit: float | None = 0) -> int | None:
        """pytest's exit status after so many seconds at most; None while it is at work."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(limit)
        return None

    def failed(self) -> list[str]:
        """The tests that failed so far, as pytest names them."""
        self._printed.seek(0)
        return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", self._printed.read(), re.MULTILINE)

    def end(self) -> None:
        """Ends it with all that it has started, and removes the copy."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._printed.close()
        for left in Path("/proc").glob("[0-9]*"):  # in sessions of their own
            with suppress(OSError):
                own = str((left / "cwd").readlink()), (left / "environ").read_bytes().decode(errors="replace")
                if any(f"{self._folder}/" in each for each in own):
                    os.kill(int(left.name), signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)


def try_all(faults: Sequence[Fault], project: Path, leads: Leads, jobs: int, limit: float) -> Iterator[Outcome]:
    """What becomes of each fault, as soon as that is known."""
    waiting, running = list(faults), dict[Fault, _Tests]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                fault = waiting.pop(0)
                if tests := tests_for(fault.file, leads):
                    running[fault] = _Tests(project, tests, "-x", fault=fault)
                else:
                    yield Outcome(fault, "survived", "no unit test leads to this file")
            time.sleep(0.1)
            for fault, at_work in list(running.items()):
                status = at_work.status()
                if status is not None or at_work.seconds() > limit:
                    yield _outcome(fault, status, at_work.failed())
                    at_work.end()
                    del running[fault]
    finally:
        for at_work in running.values():
            at_work.end()


def _outcome(fault: Fault, status: int | None, failed: Sequence[str]) -> Outcome:
    if status is None:
        return Outcome(fault, "undecided", "its tests take longer than --limit allows")
    if status < 0:
        return Outcome(fault, "undecided", f"signal {-status} ended its tests: the fault sent it, or somebody")
    if status == 0:
        return Outcome(fault, "survived", "all tests that lead to it pass")
    return Outcome(fault, "noticed", failed[0] if failed else f"pytest ended with status {status}")


def without_bad_tests(outcomes: Sequence[Outcome], project: Path) -> list[Outcome]:
    """The outcomes, undecided where the test that failed does so without the fault too."""
    failing = list[str]()
    if suspects := sorted({outcome.by for outcome in outcomes if "::" in outcome.by}):
        at_work = _Tests(project, suspects)
        try:
            at_work.status(None)
            failing = at_work.failed()
        finally:
            at_work.end()
    return [
        Outcome(each.fault, "undecided", f"{each.by} fails without it too") if each.by in failing else each
        for each in outcomes
    ]


def report(outcomes: Sequence[Outcome], sources: Mapping[str, str]) -> str:
    """The rate, then every fault that was not noticed, with its line before and after."""
    noticed, decided = (
        [each for each in outcomes if each.word in words] for words in (("noticed",), ("noticed", "survived"))
    )
    rate = f", {100 * len(noticed) / len(decided):.1f} %" if decided else ""
    lines = [f"{len(noticed)} of {len(decided)} faults noticed{rate}"]
    for each in outcomes:
        if each.word != "noticed":
            before, after = each.fault.shown(sources[each.fault.file])
            lines += [f"{each.word}: {each.fault.file}:{each.fault.line} ({each.fault.kind}), {each.by}"]
            lines += [f"  - {before}", f"  + {after}"]
    return "\n".join(lines)
