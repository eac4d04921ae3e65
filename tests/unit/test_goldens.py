"""Unit tier: what the golden files of the programs notice, what they leave out, and how they tell a difference.

It does NOT prove that what a file says is right: whoever changes one reads its difference.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import SECRET, SIGNATURE, UNKNOWN
from tests.unit import goldens

if TYPE_CHECKING:
    from tests.conftest import Recorded, RecordProgram

DOOR = {"adds": ["CAP_KILL"], "drops": ["ALL"]}


@pytest.fixture
def local(record_program: RecordProgram) -> Recorded:
    """One `up` of the stack `local`."""
    return record_program("local")


def changed(recorded: Recorded, name: str, **inputs: Any) -> Recorded:
    """The same record with other inputs of one resource."""
    old = recorded.one(name)
    new = dataclasses.replace(old, wire={**old.wire, **inputs})
    return dataclasses.replace(
        recorded, resources=tuple(new if each is old else each for each in recorded.resources)
    )


def told(before: Recorded, after: Recorded) -> list[str]:
    old, new = (goldens.described(each, each) for each in (before, after))
    return list(goldens.differences(old, new))


# What is reported


def test_what_is_gone_from_a_list_is_told_with_its_resource_and_input(local: Recorded) -> None:
    after = changed(local, "edge-haproxy", capabilities={"adds": ["CAP_KILL", "CAP_SYS_ADMIN"], "drops": ["ALL"]})
    before = changed(local, "edge-haproxy", capabilities={"adds": ["CAP_KILL", "CAP_CHOWN"], "drops": ["ALL"]})
    assert told(before, after) == [
        "edge-haproxy: inputs.capabilities.adds",
        "    - CAP_CHOWN",
        "    + CAP_SYS_ADMIN",
    ]


def test_an_input_that_is_another_or_new_is_told_with_its_value(local: Recorded) -> None:
    after = changed(local, "inference-vllm", readOnly=False, privileged=True)
    assert told(local, after) == [
        "inference-vllm: inputs.privileged",
        "    + true",
        "inference-vllm: inputs.readOnly",
        "    - true",
        "    + false",
    ]


def test_another_order_of_words_is_told_where_order_counts(local: Recorded) -> None:
    envs = local.one("inference-vllm").wire["envs"]
    assert told(local, changed(local, "inference-vllm", envs=envs[::-1])) == []
    assert "edge-haproxy: inputs.command" in told(local, changed(local, "edge-haproxy", command=["-f", "haproxy"]))


def test_a_resource_that_is_gone_is_told_once_with_its_type(local: Recorded) -> None:
    all_but_one = tuple(each for each in local.resources if each.name != "readiness-gate")
    lines = told(local, dataclasses.replace(local, resources=all_but_one))
    assert lines == ["- readiness-gate, all of it, a command:local:Command"]


@pytest.mark.parametrize("program", ["set -e\nchmod 0644 /a\n", "set -e\nchmod  0600 -R /a\n", "set -e\n"])
def test_a_program_that_gives_other_rights_is_told(program: str, local: Recorded) -> None:
    before = changed(local, "edge-reload", stdin="set -e\nchmod 0600 /a\ndocker run --cap-drop ALL x\n")
    assert told(before, changed(local, "edge-reload", stdin=program))[0] == "edge-reload: rights"


# What is left out


def test_the_text_of_a_program_is_left_out(local: Recorded) -> None:
    program = local.one("edge-reload").wire["stdin"]
    assert told(local, changed(local, "edge-reload", stdin=f"{program}# a comment more\n")) == []


def test_a_secret_is_left_out_and_one_that_is_none_any_more_is_told(local: Recorded) -> None:
    secret = changed(local, "edge-reload", stdin={SIGNATURE: SECRET, "value": "a key"})
    other = changed(local, "edge-reload", stdin={SIGNATURE: SECRET, "value": "another key"})
    assert told(secret, other) == []
    assert "a key" not in goldens.written(goldens.described(secret, secret))
    assert told(secret, local) == ["edge-reload: inputs.stdin", "    - <secret>", "    + <text>"]


def test_a_digest_and_the_week_are_left_out_where_they_trigger_something_and_nowhere_else(local: Recorded) -> None:
    def triggered(*triggers: str) -> Recorded:
        return changed(local, "edge-reload", triggers=list(triggers))

    assert told(triggered("0123456789ab", "2026-W01"), triggered("ba9876543210", "2026-W53")) == []
    assert told(triggered("0123456789ab"), triggered("0123456789ab", "id")) == [
        "edge-reload: inputs.triggers",
        "    + id",
    ]
    account = changed(local, "edge-haproxy", hostname="123456789012")
    assert told(account, changed(local, "edge-haproxy", hostname="210987654321")) != []


def test_what_a_preview_does_not_know_is_named(local: Recorded) -> None:
    preview = changed(local, "edge-haproxy", image=UNKNOWN, capabilities={**DOOR, "adds": UNKNOWN})
    found = goldens.described(local, preview)["edge-haproxy"]
    assert found["unknown in a preview"] == ["capabilities.adds", "image"]


# The files


def test_no_file_is_left_over_from_a_stack_that_is_gone() -> None:
    found = {str(path.relative_to(goldens.FOLDER)) for path in goldens.FOLDER.rglob("*") if path.is_file()}
    stacks = {f"{name}.yaml" for name in goldens.stacks_of("local")}
    on_aws = {f"aws/{name}.yaml" for name in goldens.stacks_of("aws")}
    assert found - stacks - on_aws == {"host.yaml", "local-tls.yaml", "aws/rare.yaml"}


def test_a_difference_is_told_with_the_file_and_the_way_to_change_it(
    local: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goldens, "FOLDER", tmp_path)
    (tmp_path / "local.yaml").write_text(goldens.written(goldens.described(local, local)))
    assert goldens.compare("local.yaml", local, local, update=False) == ""
    after = changed(local, "edge-haproxy", user="1000:1000")
    lines = goldens.compare("local.yaml", after, after, update=False)
    for words in ("tests/unit/golden/local.yaml", "edge-haproxy: inputs.user", "    - 0:0", "--update-goldens"):
        assert words in lines


def test_an_update_writes_the_file_and_still_tells_the_difference_once(
    local: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goldens, "FOLDER", tmp_path)
    first = goldens.compare("local.yaml", local, local, update=True)
    assert first.startswith("local.yaml is written anew")
    assert "+ edge-haproxy, all of it" in first
    assert goldens.compare("local.yaml", local, local, update=True) == ""
    assert goldens.compare("local.yaml", local, local, update=False) == ""
