"""Unit tier: what `scripts/output` prints. The expected texts are those of Pulumi 3.260 for the same outputs; the
engine tier compares with the CLI itself. It does NOT prove how another version prints them."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.commands import output
from scripts.commands.errors import CommandError

OUTPUTS: dict[str, Any] = {
    "lines": "a\nb\n",
    "k": "kkk",
    "map": {"b": [1, True, None, 2.5], "a": "<x&y>", "ü": "é"},
    "list": [],
    "longer_name": "x",
    "n": 2048,
    "t": True,
}

TABLE = """\
Current stack outputs (7):
    OUTPUT       VALUE
    k            kkk
    lines        a
                 b
                 \n\
    list         []
    longer_name  x
    map          {"a":"<x&y>","b":[1,true,null,2.5],"ü":"é"}
    n            2048
    t            true
"""


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "outputs_of", lambda _: OUTPUTS)


def test_all_outputs_are_the_table_that_pulumi_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.main(["--show-secrets"]) == 0
    assert capsys.readouterr().out == TABLE


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("k", "kkk\n"),
        ("lines", "a\nb\n\n"),
        ("map", '{"a":"<x&y>","b":[1,true,null,2.5],"ü":"é"}\n'),
        ("n", "2048\n"),
        ("t", "true\n"),
        ("list", "[]\n"),
    ],
)
def test_one_output_is_printed_as_pulumi_prints_it(
    name: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output.main([name]) == 0
    assert capsys.readouterr().out == printed


def test_a_word_is_a_stack_where_there_is_one_of_that_name_and_else_an_output_of_the_stack_local(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def outputs_of(stack: str) -> dict[str, Any]:
        asked.append(stack)
        return OUTPUTS

    monkeypatch.setattr(output, "outputs_of", outputs_of)
    for words, printed in (([], TABLE), (["second"], TABLE), (["k"], "kkk\n"), (["prod", "k"], "kkk\n")):
        output.main([*words, "--show-secrets"])
        assert capsys.readouterr().out == printed
    assert asked == ["local", "second", "local", "prod"]
    with pytest.raises(CommandError, match="give a stack, the name of an output, or both"):
        output.main(["local", "k", "n"])
    with pytest.raises(CommandError, match=r"second has no output 'kk'; it has: lines, k, "):
        output.main(["second", "kk"])


def test_json_is_sorted_indented_and_leaves_letters_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.main(["map", "--json"])
    assert capsys.readouterr().out == (
        '{\n  "a": "<x&y>",\n  "b": [\n    1,\n    true,\n    null,\n    2.5\n  ],\n  "ü": "é"\n}\n'
    )
