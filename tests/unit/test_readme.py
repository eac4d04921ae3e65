"""Unit tier: the README's tables, and some of its sentences, against the code they describe.

Does not prove that the explanations in the tables are true, only that no row is missing or left over.
"""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from catalog.failures import FAILURES
from clients.blocks import KEYLESS, Kind, blocks, own_blocks
from clients.endpoint import ClientEndpoint
from components.renewal import Acme, acme
from settings import SECRETS, Client, Settings

if TYPE_CHECKING:
    from tests.conftest import RecordProgram

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


def test_the_number_of_routes_that_answer_without_a_key_is_that_of_the_table() -> None:
    lines = (PROJECT / "tests/live/data/routes_without_key.tsv").read_text().splitlines()[1:]
    answered = {route for status, _, route in (line.split("\t") for line in lines) if status != "401"}
    assert f"vLLM alone would answer {len(answered)}\n  routes" in (PROJECT / "README.md").read_text()


def test_the_containers_that_can_reach_a_machines_metadata_are_those_that_the_readme_names(
    record_program: RecordProgram,
) -> None:
    containers = record_program("local").of_type("docker:index/container:Container")
    assert {item.name for item in containers if item.inputs.get("networkMode") == "host"} == {"edge-haproxy"}
    assert "--network host" in acme(Acme(store="s", image="i", email="e", directory="d", http=False))
    sentence = "The edge and, for a renewal, `lego` are in the machine's own network and can reach it"
    assert sentence in (PROJECT / "README.md").read_text()


def test_the_settings_table_has_every_setting_and_no_other() -> None:
    assert first_column("Settings") == setting_names()


def all_texts(kind: Kind) -> set[str]:
    """Every text that a client of this kind can have."""
    return set(blocks(kind, ClientEndpoint("http://h/v1", "k" * 64, "o/m", 256, loopback="http://l/v1"))) - {"key"}


def test_the_outputs_table_names_every_text_of_every_kind_and_which_are_secret() -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| (yes|no) \|", (PROJECT / "README.md").read_text(), re.MULTILINE))
    for kind in get_args(Kind):
        for name in all_texts(kind):
            assert rows[name] == ("no" if name in KEYLESS else "yes"), name


def test_the_clients_table_has_every_kind_with_the_texts_that_are_its_own_and_its_page() -> None:
    section = (PROJECT / "README.md").read_text().split("## Clients\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)` \| \[.*\]\((docs/[a-z]+\.md)\) \| (.*) \|$", section, re.MULTILINE)
    assert (
        {kind for kind, _, _ in rows}
        == set(get_args(Kind))
        == set(get_args(Client.model_fields["kind"].annotation))
    )
    for kind, page, texts in rows:
        own = set(own_blocks(kind, loopback=True)) or {"openai_env", "curl"}
        assert set(re.findall(r"`([^`]+)`", texts)) == own
        assert (PROJECT / page).is_file()


def test_the_troubleshooting_page_has_every_known_cause_in_its_order_and_no_other() -> None:
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(failure.name, failure.cause, failure.remedy) for failure in FAILURES]


def test_every_command_the_readme_names_is_there_and_can_be_run() -> None:
    named = set(re.findall(r"scripts/([a-z-]+)", (PROJECT / "README.md").read_text())) - {"commands"}
    assert named, "the README names no command"
    for name in named:
        assert (PROJECT / "scripts" / name).stat().st_mode & 0o111, f"scripts/{name} cannot be run"
