"""Unit tier: what the commands do about a machine behind SSH that needs no machine: its host key, its folders.

Does not prove that anything is reached or removed over a network: tests/live/test_host.py does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.machine.reach import identity_of
from components.machine.ssh import ssh_of
from scripts.commands import places
from scripts.commands.places import FOLDERS, Host, purge_program
from settings import HostMachine


def data_folder(tmp_path: Path) -> Path:
    data = tmp_path / "it's data"
    for folder in ("models/owner/model", "cache", "vllm", "edge/releases"):
        (data / folder).mkdir(parents=True)
    return data


def purge(data: Path, *folders: str) -> None:
    done = subprocess.run(
        ["bash", "-s"], input=purge_program(str(data), folders), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stack_that_is_taken_down_leaves_weights_and_caches_and_nothing_with_a_key(tmp_path: Path) -> None:
    data = data_folder(tmp_path)
    purge(data, "vllm", "edge")
    assert sorted(path.name for path in data.iterdir()) == ["cache", "models"]


def test_a_purge_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    data = data_folder(tmp_path)
    purge(data, *FOLDERS)
    purge(data, *FOLDERS)
    assert not data.exists()


def test_a_purge_takes_nothing_that_the_stack_did_not_put_there(tmp_path: Path) -> None:
    # A data directory may be any folder: a home, a mounted disk.
    data = data_folder(tmp_path)
    (data / "thesis.txt").write_text("years of work")
    purge(data, *FOLDERS)
    assert [path.name for path in data.iterdir()] == ["thesis.txt"]


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
