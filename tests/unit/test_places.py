"""Unit tier: what the commands know of a stack's machine without one: its host key, and whose things are whose.

Does not prove that anything is reached over a network: tests/live/test_host.py does.
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest

from components.machine.machine import DATA_LABEL, OWNER_LABEL
from components.machine.reach import identity_of
from components.machine.ssh import ssh_of
from scripts.commands import places
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Known
from scripts.commands.errors import CommandError
from scripts.commands.places import Host
from scripts.commands.pulumi_engine import PulumiEngine
from settings import HostMachine


def test_only_the_replaced_machines_key_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PROJECT", tmp_path)
    known = tmp_path / ".state" / "gpu1" / "known_hosts"
    known.parent.mkdir(parents=True)
    known.write_text("gpu1 ssh-ed25519 AAAA\nbastion ssh-ed25519 BBBB\ngpu1 ssh-rsa CCCC\n")
    way = ssh_of(HostMachine(ssh="ubuntu@gpu1", jump="me@bastion"), "gpu1")
    Host("gpu1", way, "/srv/data").forget_host_key()
    assert known.read_text() == "bastion ssh-ed25519 BBBB\n"


def test_a_machine_that_does_not_say_which_one_it_is_ends_an_up() -> None:
    assert identity_of('warning\n{"identity": "0123"}\n') == "0123"
    for printed in ("", None, "{}"):
        with pytest.raises(ValueError, match="which one it is"):
            identity_of(printed)


class Found:
    """A container or network as Docker's client has it."""

    def __init__(self, name: str, owner: str | None, data: str = "/srv/data") -> None:
        self.id, self.name = name, name
        self.labels = {DATA_LABEL: data} | ({OWNER_LABEL: owner} if owner else {})


def seen(*containers: Found, **known: Any) -> DockerState:
    docker = types.SimpleNamespace(
        containers=types.SimpleNamespace(list=lambda **_: list(containers)),
        networks=types.SimpleNamespace(list=lambda **_: []),
    )
    return DockerState(docker, "gpu1", "/srv/data", **known)  # type: ignore[arg-type]


OURS, OTHERS, EARLIER = Found("ours", "this-state"), Found("others", "another-state"), Found("earlier", None)


def test_containers_of_a_stack_of_that_name_and_folder_that_another_computer_has_made_are_left_alone() -> None:
    with pytest.raises(CommandError, match=r"another state.*\n.*scripts/down gpu1"):
        seen(OURS, OTHERS).refuse_foreign([], "this-state")
    with pytest.raises(CommandError, match="another state"):
        seen(OTHERS).refuse_foreign([], None)
    seen(OURS, EARLIER).refuse_foreign([], "this-state")
    assert seen(OURS, OTHERS, EARLIER, owner="this-state").ids() == {"ours", "earlier"}


def test_without_a_state_the_name_and_the_folder_say_what_down_removes() -> None:
    assert seen(OTHERS, EARLIER).ids() == {"others", "earlier"}
    assert seen(Found("elsewhere", None, "/srv/other")).ids() == set()


def test_a_lost_state_is_no_matter_for_a_folder_inside_the_checkout() -> None:
    here = seen(OTHERS, by_place=True, owner="this-state")
    here.refuse_foreign([], "this-state")
    assert here.ids() == {"others"}


def test_what_tells_a_stack_from_another_of_its_name_is_read_from_pulumis_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resources = [
        {"type": "random:index/randomUuid:RandomUuid", "urn": "urn::machine-owner", "outputs": {"result": "u"}},
        {"type": "docker:index/container:Container", "urn": "urn::engine", "id": "0123", "inputs": {}},
    ]
    for known, owner in ((resources, "u"), (resources[1:], None)):
        monkeypatch.setattr(
            PulumiEngine, "_run", lambda *_, known=known: json.dumps({"deployment": {"resources": known}})
        )
        assert PulumiEngine("gpu1", None, "").known() == Known(frozenset({"0123"}), frozenset(), owner)
