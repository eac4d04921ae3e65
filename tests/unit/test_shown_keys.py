"""Unit tier: keys are printed on a terminal, or where they are asked for, and nowhere else.

The commands run in processes of their own, with a real pseudo-terminal or a pipe as their standard output, on
outputs of the test's own. What these tests do NOT prove: that no other text of a running stack has a key in it
(the live tier searches all that is printed), nor that every CI says that it is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from clients.blocks import KEYLESS, Kind, blocks
from clients.endpoint import ClientEndpoint
from scripts.commands.shown_keys import CI_VARIABLES, may_show_keys, without_keys

PROJECT = Path(__file__).resolve().parents[2]
KEYS = {kind: f"{number}{'k' * 63}" for number, kind in enumerate(get_args(Kind))}


def outputs() -> dict[str, Any]:
    """The outputs of a stack that has a client of each kind."""
    texts = {
        kind: dict(blocks(kind, ClientEndpoint("http://127.0.0.1:8080/v1", key, "o/m", 2048)))
        for kind, key in KEYS.items()
    }
    shortcuts = {name: text for each in texts.values() for name, text in each.items() if name != "key"}
    plain = {"endpoint": "http://127.0.0.1:8080/v1", "model": "o/m", "max_model_len": 2048}
    return {**plain, "clients": texts, **shortcuts}


PROGRAM = """\
import json, sys
from scripts.commands import output, rotate_key, up
from scripts.commands.engines import Outcome
from scripts.commands.shown_keys import may_show_keys
from scripts.commands.terminal import Terminal
from settings import Settings
outputs, command, *arguments = json.loads(sys.stdin.read())
def finished(words):
    up.tell("s", Outcome(0, 0, 0, 1, outputs), Terminal(), show_keys=may_show_keys("--show-secrets" in words))
    return 0
rotate_key.stack_settings = lambda stack: Settings()
rotate_key.set_in_stack_file = lambda *words: None
up.main = finished
output.outputs_of = lambda stack: outputs
sys.exit({"up": finished, "output": output.main, "rotate-key": rotate_key.main}[command](arguments))
"""


def run(*words: str, terminal: bool, ci: str | None = None) -> str:
    """What a command prints on its standard output; its standard error is a pipe in any case."""
    environment = {name: value for name, value in os.environ.items() if name not in CI_VARIABLES}
    environment |= {ci.partition("=")[0]: ci.partition("=")[2]} if ci else {}
    ours, theirs = os.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps([outputs(), *words]))
        process.stdin.close()
        printed = b""
        with contextlib.suppress(OSError):  # a pseudo-terminal that the other side has closed
            while piece := os.read(ours, 65536):
                printed += piece
        errors = process.stderr.read()
    os.close(ours)
    assert process.returncode == 0, errors
    assert not keys_in(errors)
    return printed.decode()


def keys_in(text: str) -> list[str]:
    return [key for key in KEYS.values() if key in text]


WHOLE = (("up",), ("rotate-key", "seatable"), ("output", "local"), ("output", "local", "--json"))
"""Commands that print texts with keys which nobody has asked for by name."""


@pytest.mark.parametrize("command", WHOLE, ids=" ".join)
def test_keys_are_printed_on_a_terminal_and_into_a_pipe_only_when_asked_for(command: tuple[str, ...]) -> None:
    shown = keys_in(run(*command, terminal=True))
    assert shown, "a terminal shows keys; its standard error is a pipe all the while"
    hidden = run(*command, terminal=False)
    assert not keys_in(hidden)
    assert "<scripts/output " in hidden
    assert keys_in(run(*command, "--show-secrets", terminal=False)) == shown


def test_the_terminal_that_a_ci_gives_its_jobs_is_none() -> None:
    assert not keys_in(run("up", terminal=True, ci="CI=true"))


@pytest.mark.parametrize("name", CI_VARIABLES)
def test_each_ci_is_known_by_its_variable_unless_that_is_empty(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert not may_show_keys(asked=False, environment={name: "1"})
    assert may_show_keys(asked=True, environment={name: "1"})
    assert may_show_keys(asked=False, environment={name: ""})


def test_an_output_that_is_named_is_printed_whole_into_a_pipe() -> None:
    assert run("output", "local", "openai_env", terminal=False) == outputs()["openai_env"] + "\n"


def test_a_text_without_its_key_names_the_command_that_prints_it_and_is_else_the_same() -> None:
    every = outputs()
    for name, text in every.items():
        hidden = without_keys(text, every, "gpu1", name)
        assert not keys_in(json.dumps(hidden)), name
        if isinstance(text, str) and name not in KEYLESS and keys_in(text):
            (key,) = keys_in(text)
            assert hidden.replace(f"<scripts/output gpu1 {name}>", key) == text
        elif name != "clients":
            assert hidden == text
