"""Unit tier: the question whether a tool parser suits the model, with a Docker that answers what it is told.

What vLLM answers is recorded from its 0.32.0. It does NOT prove that vLLM understands the question: the live tier
asks a real one.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from catalog.failures import explain
from components.parser_proof import can_be_proved, parser_program
from settings import Model

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

MISFIT = (
    "--tool-call-parser llama3_json cannot be used with the tokenizer of '/models/owner/model': "
    "Llama3JsonToolParser could not locate the bot token '<|python_tag|>' in the tokenizer."
)
MODEL = Model(name="owner/model", tool_parser="llama3_json")


def asked(fake_command: FakeCommand, answer: str, model: Model = MODEL) -> subprocess.CompletedProcess[str]:
    """The program, run by bash with a docker that does this."""
    fake_command.add("docker", answer)
    return subprocess.run(
        ["bash", "-s"],
        input=parser_program("image:1", "/data/models", model),
        env=fake_command.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_parser_that_does_not_fit_ends_in_phase_cause_and_change(fake_command: FakeCommand) -> None:
    done = asked(fake_command, f'echo a warning; echo "{MISFIT}" >&2; exit 1')
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "phase: model and tool parser"
    assert lines[1].endswith(MISFIT)
    assert "seatable-vllm:model.tool_parser" in lines[2]
    found = explain(done.stderr)
    assert found is not None
    assert found.failure.name == "parser-mismatch"


def test_whatever_else_goes_wrong_is_left_to_the_engine(fake_command: FakeCommand) -> None:
    done = asked(fake_command, "echo 'ModuleNotFoundError: No module named vllm'; exit 1")
    assert done.returncode == 0, done.stderr
    assert "not to be told before the load: ModuleNotFoundError" in done.stdout


def test_a_parser_that_fits_is_said_in_the_last_line_of_a_talkative_image(fake_command: FakeCommand) -> None:
    done = asked(fake_command, "echo 'W1121 triton not found' >&2; echo 'the tool parser knows this tokenizer'")
    assert (done.returncode, done.stdout) == (0, "the tool parser knows this tokenizer\n")


def test_the_question_sees_the_models_alone_and_has_no_network(fake_command: FakeCommand) -> None:
    asked(
        fake_command,
        "echo yes",
        Model(name="o/m", tool_parser="mistral", extra_args={"tokenizer-mode": "mistral"}),
    )
    (call,) = [call for call in fake_command.calls if "run" in call]
    assert call[call.index("--network") + 1] == "none"
    assert call[call.index("--volume") + 1] == "/data/models:/models:ro"
    assert call[-3:] == ["/models/o/m", "mistral", "mistral"]


@pytest.mark.parametrize(
    ("changes", "provable"),
    [
        ({}, False),
        ({"tool_parser": "mistral"}, True),
        ({"tool_parser": "mistral", "extra_args": {"max-num-seqs": 8}}, True),
        ({"tool_parser": "none"}, False),
        ({"tool_parser": "mistral", "extra_args": {"tokenizer": "other/tokenizer"}}, False),
        (
            {"tool_parser": "mistral", "extra_args": {"trust-remote-code": True}, "revision": "a" * 40},
            False,
        ),
    ],
)
def test_only_a_parser_chosen_by_hand_is_asked_about_and_only_for_the_models_own_tokenizer(
    changes: dict[str, Any], provable: bool
) -> None:
    assert can_be_proved(Model(**changes)) is provable
