"""Unit tier: `scripts/rotate-key` in a checkout of the test, with real keys that a rehearsal of the program makes.

Does not prove that the edge takes the keys while streams run on: tests/live/test_live_changes.py does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.commands import rotate_key, up
from scripts.commands.errors import CommandError
from tests.unit.checkout_support import Checkout, in_checkout

FILE = """\
config:
  # who may use it
  seatable-vllm:clients:
    seatable: {kind: seatable, cidrs: ["127.0.0.1/32"]}
    agents: {kind: openai, cidrs: ["127.0.0.2/32"]} # the team's
"""


class Rotation:
    """The command, and in place of the `up` at its end one that makes keys, where a test asks for them."""

    def __init__(self, checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checkout = checkout
        self.status = 0
        self.makes_keys = False
        self.ups: list[list[str]] = []
        monkeypatch.setattr(up, "main", self._up)

    def _up(self, words: list[str]) -> int:
        self.ups.append(words)
        if self.makes_keys:
            self.checkout.rehearse()
        return self.status

    def rotate(self, *words: str) -> int:
        return rotate_key.main([*words, "--stack", "gpu1"])


@pytest.fixture
def rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotation]:
    for checkout in in_checkout(tmp_path / "checkout", monkeypatch, "gpu1", FILE):
        yield Rotation(checkout, monkeypatch)


def test_a_rotation_makes_a_key_beside_the_old_and_its_end_leaves_the_new_one_alone(rotation: Rotation) -> None:
    rotation.makes_keys = True
    rotation.checkout.rehearse()
    before = rotation.checkout.keys()
    old, others = before["keys-agents-1"], before["keys-seatable-1"]

    assert rotation.rotate("agents") == 0
    both = rotation.checkout.keys()
    assert sorted(both) == ["keys-agents-1", "keys-agents-2", "keys-engine", "keys-seatable-1"]
    assert both["keys-agents-1"] == old
    assert both["keys-agents-2"] != old

    assert rotation.rotate("agents", "--finish") == 0
    after = rotation.checkout.keys()
    assert after == {
        "keys-agents-2": both["keys-agents-2"],
        "keys-engine": before["keys-engine"],
        "keys-seatable-1": others,
    }
    assert rotation.checkout.holding(old) == []
    assert rotation.checkout.holding(others) == [".state/gpu1/rehearsal.json"], (
        "the search finds a key that is there"
    )


def test_the_stacks_file_has_the_generations_in_force_and_is_else_as_it_was(rotation: Rotation) -> None:
    for words, written in (
        (["agents"], "agents: - 1 - 2"),
        (["agents"], "agents: - 1 - 2"),
        (["agents", "--finish"], "agents: - 2"),
        (["agents"], "agents: - 2 - 3"),
        (["agents", "--finish"], "agents: - 3"),
    ):
        assert rotation.rotate(*words) == 0
        text = rotation.checkout.file.read_text()
        assert text.startswith(FILE)
        assert text.removeprefix(FILE).split() == ["seatable-vllm:key_generations:", *written.split()]


def test_without_a_rotation_under_way_there_is_nothing_to_finish_and_nothing_is_changed(
    rotation: Rotation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rotation.rotate("agents", "--finish") == 1
    assert "agents has one key" in capsys.readouterr().out
    assert (rotation.ups, rotation.checkout.file.read_text()) == ([], FILE)


@pytest.mark.parametrize("words", [["nobody"], ["nobody", "--finish"]])
def test_a_client_that_is_not_there_is_refused_with_those_that_are(words: list[str], rotation: Rotation) -> None:
    with pytest.raises(CommandError, match="no client 'nobody'; known: seatable, agents"):
        rotation.rotate(*words)
    assert (rotation.ups, rotation.checkout.file.read_text()) == ([], FILE)


def test_who_rotates_reads_how_to_end_it_and_who_has_ended_it_does_not(
    rotation: Rotation, capsys: pytest.CaptureFixture[str]
) -> None:
    rotation.rotate("agents")
    assert "scripts/rotate-key agents --stack gpu1 --finish" in capsys.readouterr().out
    rotation.rotate("agents", "--finish")
    assert "--finish" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--finish"]])
def test_an_up_that_fails_is_no_rotation_that_went_well(words: list[str], rotation: Rotation) -> None:
    rotation.rotate("agents")
    rotation.status = 3
    assert rotation.rotate("agents", *words) == 3


def test_the_up_is_the_stacks_and_has_what_was_asked_for(rotation: Rotation) -> None:
    for words in ([], ["--rehearse"], ["--verbose"], ["--show-secrets"]):
        rotation.rotate("agents", *words)
    assert rotation.ups == [["gpu1"], ["gpu1", "--rehearse"], ["gpu1", "--verbose"], ["gpu1", "--show-secrets"]]
