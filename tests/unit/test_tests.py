"""Unit tier: rules for the unit tests themselves, read from their sources.

It does NOT prove that an assertion can fail: `scripts/test mutants` is for that. An assertion that is reached only
under a condition, or only where a list is not empty, is not found here either.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PROGRAM = sorted({path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests"})
"""The packages under test."""

SKIPS: Mapping[str, str] = {
    "test_aws_schema.py::schema": "terraform and a mirror of the AWS provider are no part of the environment",
    "test_certificates.py::test_systemd_can_read_the_units": "a container has no systemd-analyze",
    "test_data_folder.py::test_what_the_engine_wrote_as_root_is_removed_with_dockers_help": "needs two users",
    "test_edge_configuration.py::haproxy_here": "fails in CI, where scripts/test installs HAProxy",
    "test_line_ends.py::origin": "a release without git's folder has nothing to clone",
    "test_machine_python.py::test_the_oldest_python_runs_the_gate_and_the_doctors_program": "needs Python 3.8",
}
"""Who may skip, with the reason why CI may be without it."""

NO_ASSERTION = {
    "test_aws_owned.py::test_what_is_gone_already_is_no_error",
    "test_gate.py::test_a_cause_that_may_pass_by_itself_is_given_the_third_restart_too",
    "test_gate.py::test_a_single_restart_without_a_known_cause_is_given_time",
    "test_gate.py::test_restarts_of_the_past_are_not_held_against_this_start",
    "test_programs.py::test_a_run_that_has_ended_keeps_no_other_waiting",
    "test_programs.py::test_python_inside_a_bash_program_is_whole_too",
}
"""What they show is that nothing is raised. Only to become fewer."""

OWN_ORACLE: Mapping[str, set[str]] = {
    "test_doctor.py": {"GENERATION_HEADER", "facts.GENERATION_HEADER"},
    "test_settings.py": {"NAMESPACE", "SMOLLM2"},
    "test_vllm_options.py": {"TOOL_PARSERS"},
}
"""By file, constants of the program that are all that a comparison expects; these have to agree with another place
in the program. Only to become fewer."""


def trees(folder: Path) -> dict[str, ast.Module]:
    return {path.name: ast.parse(path.read_text()) for path in sorted(folder.glob("test_*.py"))}


UNIT = trees(PROJECT / "tests/unit")


def calls(node: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the name of what is called: `f`, or `f` of `a.b.f`."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name | ast.Attribute):
            yield each.func.id if isinstance(each.func, ast.Name) else each.func.attr, each


# Skips


def skips(tree: ast.Module) -> set[str]:
    """The functions, with their decorators, that may skip; `module` for what stands outside of all."""
    found = set[str]()
    for part in tree.body:
        kinds = {
            ast.unparse(node)
            for node in ast.walk(part)
            if isinstance(node, ast.Attribute) and node.attr in {"skip", "skipif", "importorskip", "xfail"}
        }
        attributes = [node for node in ast.walk(part) if isinstance(node, ast.Attribute)]
        exceptions = {ast.unparse(node.value) for node in attributes if node.attr == "Exception"}
        if {kind for kind in kinds if kind.startswith("pytest.")} - exceptions:
            found.add(getattr(part, "name", "module"))
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def a():\n    if b:\n        pytest.skip('x')\n", {"a"}),
        ("@pytest.mark.skipif(b, reason='x')\ndef a(): ...\n", {"a"}),
        ("c = pytest.importorskip('x')\ndef a(): ...\n", {"module"}),
        ("def a():\n    (pytest.fail if b else pytest.skip)('x')\n", {"a"}),
        ("@pytest.mark.parametrize('b', [pytest.skip.Exception])\ndef a(b): ...\n", set()),
        ("def a(): b.skip()\n", set()),
    ],
)
def test_a_skip_is_found(source: str, expected: set[str]) -> None:
    assert skips(ast.parse(source)) == expected


def test_nothing_skips_without_a_reason_on_the_list() -> None:
    found = {f"{file}::{name}" for file, tree in UNIT.items() for name in skips(tree)}
    assert found == SKIPS.keys(), "install what is missing, or add to SKIPS why CI may be without it"


# Assertions


def asserts(function: ast.FunctionDef, others: Mapping[str, ast.FunctionDef], seen: frozenset[str]) -> bool:
    """Whether a function, or one of its file that it calls, has an assertion or expects an error."""
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    for name, call in calls(function):
        checked = any(word.arg == "check" and ast.unparse(word.value) == "True" for word in call.keywords)
        if name in {"raises", "warns", "fail"} or checked:
            return True
        if name in others.keys() - seen and asserts(others[name], others, seen | {name}):
            return True
    return False


def without_assertion(tree: ast.Module) -> set[str]:
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    tests = {name: node for name, node in functions.items() if name.startswith("test_")}
    return {name for name, node in tests.items() if not asserts(node, functions, frozenset({name}))}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def test_a():\n    b()\n", {"test_a"}),
        ("def test_a():\n    assert b()\n", set()),
        ("def test_a():\n    with pytest.raises(ValueError):\n        b()\n", set()),
        ("def test_a():\n    run(['x'], check=True)\n", set()),
        ("def test_a():\n    run(['x'], check=False)\n", {"test_a"}),
        ("def good(b):\n    assert b\ndef test_a():\n    good(1)\n", set()),
        ("def c(): c()\ndef test_a():\n    c()\n", {"test_a"}),
    ],
)
def test_a_test_without_an_assertion_is_found(source: str, expected: set[str]) -> None:
    assert without_assertion(ast.parse(source)) == expected


def test_every_test_asserts_something_or_is_on_the_list() -> None:
    found = {f"{file}::{name}" for file, tree in UNIT.items() for name in without_assertion(tree)}
    assert found == NO_ASSERTION, "write what is expected, and take off NO_ASSERTION what is not found any more"


# Oracles


def own_oracles(tree: ast.Module) -> set[str]:
    """Constants of the program that are one whole side of `==` or `!=`, with no literal on the other side."""
    from_program, modules = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PROGRAM:
            names = {name.asname or name.name for name in node.names}
            from_program |= {name for name in names if name.isupper()}
            modules |= {name for name in names if not name.isupper()}
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            for test in (each for each in ast.walk(node.test) if isinstance(each, ast.Compare)):
                sides = [test.left, *test.comparators]
                equal = all(isinstance(operator, ast.Eq | ast.NotEq) for operator in test.ops)
                if equal and not any(is_literal(side) for side in sides):
                    found |= {ast.unparse(side) for side in sides if is_constant(side, from_program, modules)}
    return found


def is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def is_constant(node: ast.expr, names: set[str], modules: set[str]) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr.isupper() and isinstance(node.value, ast.Name) and node.value.id in modules
    return isinstance(node, ast.Name) and node.id in names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from catalog.a import LIMIT\nassert b() == LIMIT\n", {"LIMIT"}),
        ("from catalog import a\nassert a.LIMIT == b()\n", {"a.LIMIT"}),
        ("from catalog.a import LIMIT\nassert LIMIT == 3\n", set()),
        ("from catalog.a import LIMIT\nassert b(LIMIT) == 3 and b in LIMIT\n", set()),
        ("from tests.a import LIMIT\nassert b() == LIMIT\n", set()),
    ],
)
def test_an_oracle_that_is_the_constant_under_test_is_found(source: str, expected: set[str]) -> None:
    assert own_oracles(ast.parse(source)) == expected


def test_no_expectation_is_a_constant_of_the_program_but_those_on_the_list() -> None:
    found = {file: names for file, tree in UNIT.items() if (names := own_oracles(tree))}
    assert found == OWN_ORACLE, "write the expected value as a literal, and take off OWN_ORACLE what is not found"
