"""Unit tier: how a secret setting gets into a stack's file.

A program of the test stands in the CLI's place. Does NOT prove that Pulumi encrypts what it is given: the engine
tier does, where the CLI is there.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.commands import secret
from scripts.commands.errors import CommandError
from scripts.commands.pulumi_engine import PulumiEngine

Give = Callable[[str], int]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Give:
    """Runs the command with a value on its input. What the CLI was told is in `told` and `argv` of the folder."""
    cli = tmp_path / "pulumi"
    cli.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\ncat > {tmp_path}/told\n')
    cli.chmod(0o755)

    def engine(stack: str, *_: object) -> PulumiEngine:
        made = PulumiEngine.__new__(PulumiEngine)
        for name, value in {"_name": stack, "_environment": {}, "_stack": lambda **_: None}.items():
            monkeypatch.setattr(made, name, value, raising=False)
        return made

    def run(value: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO(value))
        return secret.main(["hugging_face_token", "--stack", "second"])

    monkeypatch.setattr(PulumiEngine, "_cli", SimpleNamespace(command=str(cli)))
    monkeypatch.setattr(secret, "PulumiEngine", engine)
    monkeypatch.setattr(secret, "find_cli", lambda _: "")
    return run


def test_the_value_reaches_the_cli_on_its_input_and_is_no_argument_of_it(give: Give, tmp_path: Path) -> None:
    assert give("hf_value\n") == 0
    assert (tmp_path / "told").read_text() == "hf_value"
    words = (tmp_path / "argv").read_text().split()
    assert {"--secret", "--stack", "second", "seatable-vllm:hugging_face_token"} <= set(words)
    assert not [word for word in words if "hf_value" in word]


@pytest.mark.parametrize("value", ["", "\n", "two words", "hf_a\nhf_b\n"])
def test_what_cannot_be_a_secret_is_refused_and_not_shown(value: str, give: Give, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="what was given is no hugging_face_token") as refused:
        give(value)
    assert "hf_a" not in str(refused.value)
    assert not (tmp_path / "told").exists()


def test_without_a_cli_nothing_is_kept_in_clear(give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "find_cli", lambda _: None)
    with pytest.raises(CommandError, match="put pulumi on PATH"):
        give("hf_value")


@pytest.mark.parametrize("arguments", [["nosuch"], ["model"], []])
def test_only_secret_settings_are_taken(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        secret.main(arguments)
    assert ended.value.code == 2
