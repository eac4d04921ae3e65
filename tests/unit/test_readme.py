"""Unit tier: the README's tables against the code they describe.

Does not prove that the explanations in the tables are true, only that no row is missing or left over.
"""

import re
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from catalog.failures import FAILURES
from clients.blocks import blocks
from clients.endpoint import ClientEndpoint
from settings import SECRETS, Client, Settings

PROJECT = Path(__file__).resolve().parents[2]


def first_column(heading: str) -> set[str]:
    """The code words of the first column of the table below a heading."""
    section = (PROJECT / "README.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def _parts(annotation: Any) -> list[Any]:
    """A type itself, or the types that a union of annotated ones is made of, mappings left whole."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for each in get_args(annotation) for part in _parts(each)]
    return [annotation]


def _names(tree: type[BaseModel], above: str = "") -> set[str]:
    """The paths of all settings of a tree, without the trees themselves."""
    names = set()
    for name, field in tree.model_fields.items():
        kinds = [
            kind for kind in _parts(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        for kind in kinds:
            names |= _names(kind, f"{above}{name}.")
        if not kinds:
            names.add(f"{above}{name}")
    return names


def setting_names() -> set[str]:
    """Every setting with its path, as the README writes it."""
    names = {*SECRETS, *_names(Settings)} - {"clients"}
    return names | {f"clients.<name>.{inner}" for inner in Client.model_fields}


def test_the_settings_table_has_every_setting_and_no_other() -> None:
    assert first_column("Settings") == setting_names()


def test_the_outputs_table_names_every_text_of_a_seatable_client() -> None:
    texts = blocks("seatable", ClientEndpoint("http://h/v1", "k" * 64, "o/m", 256))
    assert set(texts) - {"key"} <= first_column("Outputs")


def test_the_troubleshooting_page_has_every_known_cause_in_its_order_and_no_other() -> None:
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(failure.name, failure.cause, failure.remedy) for failure in FAILURES]


def test_every_command_the_readme_names_is_there_and_can_be_run() -> None:
    named = set(re.findall(r"scripts/([a-z-]+)", (PROJECT / "README.md").read_text())) - {"commands"}
    assert named, "the README names no command"
    for name in named:
        assert (PROJECT / "scripts" / name).stat().st_mode & 0o111, f"scripts/{name} cannot be run"
