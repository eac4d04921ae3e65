"""Unit tier: how catalog/vllm_parser.py reads a parser and the configuration classes behind it, on small ones.

It does NOT prove that vLLM's own parser looks like this: the tier `vllm` reads that one (tests/live).
"""

from __future__ import annotations

import argparse
import json
import sys
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from catalog import vllm_parser


@dataclass
class Deep:
    more: dict[str, int] | None = None


@dataclass
class Inner:
    deep: Deep = field(default_factory=Deep)


@checked
class Config:
    """Every kind of field that the configuration classes of vLLM have."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.9
    length: int | None = Field(default=None, ge=1)
    kind: Literal["b", "a"] | None = None
    names: list[str] = field(default_factory=list)
    either: Literal["x"] | int = 1
    several: list[int] | list[str] | None = None
    inner: Inner = field(default_factory=Inner)
    free: Any = None
    made: int = field(default=0, init=False)
    _own: int = 0


DEEP = {"is": ["map"], "keys": {"more": {"is": ["map"], "values": {"is": ["integer"]}}}}
INNER = {"is": ["map"], "keys": {"deep": DEEP}}
"""What the class Inner takes."""


def optional_type(kind: typing.Callable[[str], Any]) -> typing.Callable[[str], Any]:
    """As vLLM wraps its converters."""

    def _optional_type(text: str) -> Any:
        return kind(text)

    return _optional_type


def human_readable_int(text: str) -> int:
    """Named as vLLM's."""
    return int(text)


def parse_dataclass(text: str) -> object:
    """Named as vLLM's."""
    return json.loads(text)


@pytest.fixture(autouse=True)
def small_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `small` that has the configuration class."""
    module = types.ModuleType("small")
    module.Config = Config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "small", module)


def read(*names: str, **option: Any) -> dict[str, Any]:
    """What is read of a parser with this one option."""
    parser = argparse.ArgumentParser()
    parser.add_argument(*names, **option)
    options, _, _ = vllm_parser._options(parser)
    return options


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"action": "store_true"}, {"is": ["switch"]}),
        ({"action": argparse.BooleanOptionalAction}, {"is": ["switch"]}),
        ({}, {"is": ["text"]}),
        ({"type": str, "choices": ["b", "a", None]}, {"is": ["text"], "choices": ["a", "b"]}),
        ({"type": int, "choices": [2, 1]}, {"is": ["integer"], "choices": [1, 2]}),
        ({"metavar": ["b", "a"]}, {"is": ["text"], "choices": ["a", "b"]}),
        ({"type": int}, {"is": ["integer"]}),
        ({"type": int, "help": "small:Config:length"}, {"is": ["integer"], "ge": 1}),
        ({"type": optional_type(int)}, {"is": ["integer"]}),
        ({"type": optional_type(human_readable_int)}, {"is": ["integer"], "suffix": True}),
        ({"type": float, "help": "small:Config:share"}, {"is": ["number"], "gt": 0, "le": 1}),
        ({"type": int, "nargs": "+"}, {"is": ["list"], "of": {"is": ["integer"]}}),
        ({"type": int, "nargs": 2}, {"is": ["list"], "of": {"is": ["integer"]}}),
        ({"nargs": "?"}, {"is": ["text"]}),
        ({"type": json.loads}, {"is": ["map"]}),
        (
            {"type": parse_dataclass, "help": "small:Config:inner"},
            INNER,
        ),
        ({"type": int, "help": "a text: of vLLM: for people"}, {"is": ["integer"]}),
        ({"type": int, "help": "small:Config:gone"}, {"is": ["integer"]}),
    ],
)
def test_an_option_takes_what_its_action_and_its_field_say(option: dict[str, Any], expected: object) -> None:
    assert read("--an-option", **option) == {"an-option": expected}


def test_a_map_or_a_text_is_told_from_a_map() -> None:
    def union_dict_and_str(text: str) -> object:
        return text

    assert read("--a", type=union_dict_and_str) == {"a": {"is": ["map", "text"]}}


def test_other_names_short_names_and_negations_belong_to_one_option() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tensor-parallel-size", "--tp-size", "-tp", type=int)
    parser.add_argument("--enable-x", action=argparse.BooleanOptionalAction)
    parser.add_argument("--no-log", action="store_true")
    parser.add_argument("model", nargs="?")
    options, short, aliases = vllm_parser._options(parser)
    assert [*options] == ["enable-x", "no-log", "tensor-parallel-size"]
    assert short == {"tp": "tensor-parallel-size"}
    assert aliases == {"tp-size": "tensor-parallel-size"}


def test_a_configuration_class_takes_what_may_be_written_in_json() -> None:
    assert vllm_parser._fields(Config, 0) == {
        "share": {"is": ["number"], "gt": 0, "le": 1},
        "length": {"is": ["integer"], "ge": 1},
        "kind": {"is": ["text"], "choices": ["a", "b"]},
        "names": {"is": ["list"], "of": {"is": ["text"]}},
        "either": {"is": ["integer", "text"]},
        "several": {"is": ["list"]},
        "inner": INNER,
        "free": {},
    }


def test_maps_in_maps_end_somewhere() -> None:
    assert vllm_parser._spec(Inner, 2) == {"is": ["map"], "keys": {"deep": {"is": ["map"]}}}


def test_the_file_has_a_line_for_each_option_and_is_json() -> None:
    found = {"source": "vLLM 1", "options": {"a": {"is": ["text"]}, "b": {"is": ["switch"]}}, "names": ["x"] * 40}
    text = vllm_parser._text(found)
    assert json.loads(text) == found
    lines = text.splitlines()
    assert '  "a": {"is": ["text"]},' in lines
    assert '  "b": {"is": ["switch"]}' in lines
    assert max(len(line) for line in lines) <= 115
