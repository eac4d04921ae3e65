"""Unit tier: what the commands do about a machine behind SSH that needs no machine: its host key.

Does not prove that anything is reached over a network: tests/live/test_host.py does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from components.machine.reach import identity_of
from components.machine.ssh import ssh_of
from scripts.commands import places
from scripts.commands.places import Host
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
