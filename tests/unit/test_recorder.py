"""Unit tier: when two tests share one record of the program, and when they must not.

It does NOT prove that the recorder answers as an engine would.
"""

from __future__ import annotations

import pytest

from tests.conftest import RecordProgram


def test_the_same_question_is_answered_once(record_program: RecordProgram) -> None:
    assert record_program("local") is record_program("local")


@pytest.mark.parametrize("variable", ["PATH", "HOME", "NOT_NAMED_BEFORE"])
def test_with_other_variables_around_the_program_runs_again(variable: str, record_program: RecordProgram) -> None:
    before = record_program("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, "/nowhere")
        assert record_program("local") is not before
    assert record_program("local") is before


def test_a_test_that_may_patch_the_program_gets_no_record_of_another_test(
    record_program: RecordProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record_program("local") is not record_program("local")
