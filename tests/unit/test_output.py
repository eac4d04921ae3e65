"""Unit tier: what `scripts/output` prints. The expected texts are those of Pulumi 3.260 for the same outputs; the
engine tier compares with the CLI itself. It does NOT prove how another version prints them."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.commands import output

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
