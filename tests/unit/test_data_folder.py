"""Unit tier: whose a data directory is, and what of it is removed: the program that a machine runs, run in folders
of the test, with a script in the place of `docker`.

Does not prove what sudo or Docker does about files of another user, nor that anything is removed over a network:
tests/live/test_host.py does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks.bundle import folder_program
from settings import SettingsError, parse

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, RecordProgram

OWNER, OTHER = "owner-of-this-state", "owner-of-another"
MODEL = "owner/model"


class Folder:
    """A data directory, and the programs that a machine runs for it."""

    def __init__(self, path: Path, fake: FakeCommand) -> None:
        self.path = path
        self._fake = fake
        fake.add("docker")
        fake.add("sudo", "exit 1")

    def containers(self, *labels: str) -> None:
        """Has Docker know containers with this directory; each is STACK or STACK TAB OWNER."""
        lines = [label if "\t" in label else f"{label}\t" for label in labels]
        self._fake.add("docker", f"[ $1 != ps ] || printf '%b\\n' {' '.join(map(repr, lines))}")

    def do(self, what: str, **order: object) -> subprocess.CompletedProcess[str]:
        order = {"do": what, "data": str(self.path), "stack": "gpu1", "owner": OWNER, **order}
        return subprocess.run([sys.executable, "-I", "-"], input=folder_program(json.dumps(order)), text=True,
                              capture_output=True, check=False, env=self._fake.environment)  # fmt: skip

    def must(self, what: str, **order: object) -> str:
        done = self.do(what, **order)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def refused(self, **order: object) -> str:
        """What a refusal says; it has changed nothing."""
        before = self.tree()
        done = self.do("take", **order)
        assert done.returncode == 1
        assert self.tree() == before
        phase, cause, change = done.stderr.splitlines()
        assert (phase, cause[:7], change[:8]) == ("phase: machine ready", "cause: ", "change: ")
        return f"{cause}\n{change}"

    def tree(self) -> dict[str, str]:
        """Every path below, with what is in it."""
        found = {}
        for path in sorted(self.path.rglob("*")) if self.path.is_dir() else ():
            text = f"-> {path.readlink()}" if path.is_symlink() else path.read_text() if path.is_file() else ""
            found[str(path.relative_to(self.path))] = text
        return found

    def names(self) -> set[str]:
        return {name for name in self.tree() if name != ".seatable-vllm.json"}

    def put(self, *files: str) -> None:
        for file in files:
            (self.path / file).parent.mkdir(parents=True, exist_ok=True)
            (self.path / file).write_text("a text")

    def use(self) -> None:
        """What a deployed stack has there; weights as they are when they were fetched."""
        self.put("vllm/config.yaml", "vllm/config.yaml.Ab12Cd", "vllm/watchdog.py", "cache/vllm/graphs",
                 "edge/releases/0123/haproxy.cfg", "certificates/live/edge.pem", "certificates/renew",
                 f"models/{MODEL}/config.json", f"models/.lost/{MODEL}", "models/.lock")  # fmt: skip
        (self.path / "models/.made").write_text(f"{MODEL}\n")
        (self.path / "edge/live").symlink_to("releases/0123")


@pytest.fixture
def folder(tmp_path: Path, fake_command: FakeCommand) -> Folder:
    return Folder(tmp_path / "it's $data", fake_command)


# Taking it


def test_a_new_an_empty_and_a_freshly_formatted_folder_are_taken_once_and_for_all_further_runs(
    folder: Folder,
) -> None:
    for there in (None, "", "lost+found"):
        shutil.rmtree(folder.path, ignore_errors=True)
        if there is not None:
            (folder.path / there).mkdir(parents=True)
        assert folder.must("take") == ""
        marker = json.loads((folder.path / ".seatable-vllm.json").read_text())
        assert (marker["project"], marker["stack"], marker["owner"]) == ("seatable-vllm", "gpu1", OWNER)
        folder.use()
        assert folder.must("take") == ""


def test_whose_a_folder_is_can_be_read_by_every_user_of_the_machine(folder: Folder) -> None:
    before = os.umask(0o077)
    try:
        folder.must("take")
    finally:
        os.umask(before)
    assert (folder.path / ".seatable-vllm.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("file", ["models/OTHER/config.json", "thesis.txt", "cache/pip/wheel", ".ssh/id_ed25519"])
def test_a_folder_with_something_else_in_it_is_refused_with_the_line_that_adopts_it(
    file: str, folder: Folder
) -> None:
    folder.put(file)
    said = folder.refused()
    assert str(folder.path) in said
    assert "seatable-vllm:machine.data_dir" in said
    line = said.partition("run up again: ")[2].partition(" (what")[0]
    subprocess.run(["bash", "-c", line], check=True)
    folder.must("take")
    folder.use()
    folder.must("take")
    assert "kept: " in folder.must("purge")
    assert {name for name, text in folder.tree().items() if text == "a text"} == {file}


def test_a_folder_of_another_stack_is_refused_and_one_of_a_stack_of_that_name_on_another_computer_too(
    folder: Folder,
) -> None:
    folder.must("take", stack="other")
    assert "that of the stack other" in folder.refused()
    shutil.rmtree(folder.path)
    folder.must("take", owner=OTHER)
    assert "another state" in folder.refused()
    (folder.path / ".seatable-vllm.adopt").write_text("gpu1\n")
    folder.must("take")
    assert "another state" in folder.refused(owner=OTHER)


def test_a_word_for_another_stack_adopts_nothing(folder: Folder) -> None:
    folder.put("thesis.txt", ".seatable-vllm.adopt")
    assert "thesis.txt" in folder.refused()


def test_adopting_overwrites_nothing_of_anybodys(folder: Folder) -> None:
    folder.put("vllm/config.yaml")
    (folder.path / ".seatable-vllm.adopt").write_text("gpu1\n")
    assert "vllm/config.yaml would be overwritten" in folder.refused()


def test_a_stack_that_was_taken_down_is_taken_up_again_by_a_state_that_was_made_anew(folder: Folder) -> None:
    folder.must("take", owner=OTHER)
    folder.use()
    folder.must("clear", owner=OTHER)
    folder.must("take")
    assert f"models/{MODEL}/config.json" in folder.names()


def test_a_state_that_was_lost_is_no_matter_where_the_place_says_whose_it_is(folder: Folder) -> None:
    folder.must("take", owner=OTHER, ours=True)
    folder.use()
    folder.must("take", ours=True)
    folder.must("purge", ours=True)
    assert not folder.path.exists()


def test_a_disk_that_was_given_to_the_stack_is_its_own_whoever_had_it(folder: Folder) -> None:
    for prepare in (lambda: folder.must("take", stack="earlier"), folder.use, lambda: folder.put("notes.txt")):
        shutil.rmtree(folder.path, ignore_errors=True)
        prepare()
        folder.must("take", adopt=True)
        folder.must("take")


def test_what_an_earlier_version_left_is_taken_without_help_and_its_models_are_known(folder: Folder) -> None:
    folder.use()
    (folder.path / "models/.made").unlink()
    folder.put("models/foreign/config.json")
    folder.must("take")
    folder.must("purge")
    assert folder.names() == {"models", "models/foreign", "models/foreign/config.json"}


def test_an_earlier_versions_running_stack_keeps_its_folder_whatever_else_is_in_it(folder: Folder) -> None:
    folder.use()
    folder.put("thesis.txt")
    assert "thesis.txt" in folder.refused()
    folder.containers("gpu1")
    folder.must("take")


@pytest.mark.parametrize(("label", "said"), [("other", "stack other"), (f"gpu1\t{OTHER}", "scripts/down gpu1")])
def test_a_folder_in_use_by_another_is_refused_whatever_the_marker_says(
    label: str, said: str, folder: Folder
) -> None:
    folder.must("take")
    folder.containers(label)
    assert said in folder.refused()


def test_a_file_and_a_folder_below_a_file_are_refused(folder: Folder) -> None:
    folder.path.write_text("a file")
    assert "is not a folder" in folder.refused()
    folder.path /= "below"
    assert "cannot be made by" in folder.refused()


def test_a_marker_that_cannot_be_written_is_told_in_words(folder: Folder) -> None:
    (folder.path / ".seatable-vllm.json.part").mkdir(parents=True)
    (folder.path / ".seatable-vllm.adopt").write_text("gpu1")
    assert "Is a directory" in folder.refused()


@pytest.mark.parametrize(
    "data_dir", ["/", "/home", "/srv", "//srv", "~", "~/llm", "data", "./data", "/srv/../etc", "/etc"]
)
def test_folders_of_the_system_and_paths_that_depend_on_the_place_are_no_data_directory(data_dir: str) -> None:
    for machine in ({"kind": "local"}, {"kind": "host", "ssh": "ubuntu@gpu1"}):
        with pytest.raises(SettingsError, match="data_dir"):
            parse({"machine": {**machine, "data_dir": data_dir}})


# Clearing it


def test_a_stack_that_ends_leaves_weights_caches_and_certificates_and_nothing_with_a_key(folder: Folder) -> None:
    folder.must("take")
    folder.use()
    folder.put("vllm/notes.txt")
    folder.must("clear")
    folder.must("clear")
    left = folder.names()
    assert {name.partition("/")[0] for name in left} == {"cache", "models", "certificates", "vllm"}
    assert "vllm/notes.txt" in left
    assert "vllm/config.yaml" not in left


def test_a_purge_leaves_nothing_of_a_folder_that_the_stack_made_and_can_be_repeated(folder: Folder) -> None:
    folder.must("take")
    folder.use()
    folder.must("purge")
    folder.must("purge")
    assert not folder.path.exists()


def test_a_purge_leaves_an_empty_folder_that_was_there_before(folder: Folder) -> None:
    folder.path.mkdir()
    folder.must("take")
    folder.use()
    folder.must("purge")
    assert list(folder.path.iterdir()) == []


def test_a_purge_takes_older_models_of_the_stack_and_none_that_somebody_else_put_beside_them(
    folder: Folder,
) -> None:
    folder.must("take")
    folder.use()
    folder.put("models/older/model/config.json", f"models/{MODEL}-mine/config.json", "models/OTHER",
               "certificates/notes", "edge/notes", "thesis.txt")  # fmt: skip
    (folder.path / "models/.made").write_text(f"older/model\n{MODEL}\n../thesis.txt\n/etc/passwd\n.lost/../..\n")
    said = folder.must("purge")
    files = {name for name, text in folder.tree().items() if text}
    assert files == {
        f"models/{MODEL}-mine/config.json",
        "models/OTHER",
        "certificates/notes",
        "edge/notes",
        "thesis.txt",
    }
    assert "kept: " in said


@pytest.mark.parametrize(
    "link", ["models", "cache", "vllm", "edge", "certificates", "models/owner", "models/owner/model"]
)
def test_no_link_is_followed_out_of_the_folder(link: str, folder: Folder, tmp_path: Path) -> None:
    folder.must("take")
    folder.use()
    away = tmp_path / "away"
    shutil.move(folder.path / link, away)
    (folder.path / link).symlink_to(away)
    before = sorted(path for path in away.rglob("*"))
    folder.must("clear")
    folder.must("purge")
    assert sorted(path for path in away.rglob("*")) == before


def test_a_link_to_a_folder_is_a_data_directory_like_any_other(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    folder.path.symlink_to(tmp_path / "disk")
    folder.must("take")
    folder.use()
    folder.must("purge")
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("what", ["clear", "purge"])
def test_nothing_is_removed_from_a_folder_that_was_refused_or_is_anothers(what: str, folder: Folder) -> None:
    folder.put("models/OTHER/config.json", "cache/pip/wheel", "vllm/config.yaml")
    before = folder.tree()
    assert "left alone" in folder.must(what)
    assert folder.tree() == before
    shutil.rmtree(folder.path)
    folder.must("take", owner=OTHER)
    folder.use()
    before = folder.tree()
    assert "left alone" in folder.must(what)
    assert folder.tree() == before
    folder.must(what, owner=None)
    assert "vllm/config.yaml" not in folder.names()


def test_an_earlier_versions_folder_is_cleared_without_a_marker(folder: Folder) -> None:
    folder.use()
    (folder.path / "models/.made").unlink()
    folder.put("thesis.txt", "models/OTHER/config.json")
    folder.must("clear", owner=None)
    assert "vllm/config.yaml" not in folder.names()
    folder.must("purge", owner=None)
    assert {name for name, text in folder.tree().items() if text} == {"thesis.txt", "models/OTHER/config.json"}


@pytest.mark.parametrize("ours", [True, False])
def test_the_timer_goes_where_it_renews_the_certificate_of_this_folder(
    ours: bool, folder: Folder, tmp_path: Path, fake_command: FakeCommand
) -> None:
    units = tmp_path / "units"
    units.mkdir()
    renews = f"{folder.path if ours else '/srv/of-another-checkout'}/certificates/renew"
    (units / "u.service").write_text(f"[Unit]\nConditionPathExists={renews}\n")
    (units / "u.timer").write_text("[Timer]\n")
    fake_command.add("systemctl")
    fake_command.add("sudo", 'shift; exec "$@"')
    folder.must("take")
    folder.must("clear", unit="u", units=str(units))
    assert bool(list(units.iterdir())) != ours
    assert (["systemctl", "disable", "--now", "u.timer"] in fake_command.calls) == ours


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that a user may not remove")
def test_what_the_engine_wrote_as_root_is_removed_with_dockers_help(
    folder: Folder, fake_command: FakeCommand
) -> None:
    body = '[ "$1" != images ] || echo 0123'
    fake_command.add("docker", body)
    (fake_command.folder / "calls").touch()
    (fake_command.folder / "calls").chmod(0o666)
    folder.path.parent.chmod(0o777)
    for parent in folder.path.parents[:4]:
        parent.chmod(parent.stat().st_mode | 0o055)
    order = {"do": "take", "data": str(folder.path), "stack": "gpu1", "owner": OWNER}
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-I", "-"]
    environment = {**fake_command.environment, "HOME": "/nonexistent"}

    def run(do: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(nobody, input=folder_program(json.dumps({**order, "do": do})), text=True,
                              capture_output=True, check=False, env=environment)  # fmt: skip

    if shutil.which("setpriv") is None or run("take").returncode != 0:
        pytest.skip("no other user can run Python here")
    (folder.path / "cache/vllm").mkdir(parents=True)
    (folder.path / "cache/vllm/graphs").write_text("of root")
    done = run("purge")
    assert done.returncode == 1
    assert "cache in" in done.stderr
    (asked,) = [call for call in fake_command.calls if call[:2] == ["docker", "run"]]
    assert asked[-4:] == ["0123", "-rf", "--", "/data/cache"]


# The program


@pytest.mark.parametrize("kind", ["local", "host"])
def test_the_end_of_a_stack_clears_the_machine_after_all_else_and_nothing_but_the_end_does(
    kind: str, record_program: RecordProgram
) -> None:
    machine = {"local": {"kind": "local"}, "host": {"kind": "host", "ssh": "ubuntu@gpu1.example.com"}}[kind]
    recorded = record_program("x", {"seatable-vllm:machine": json.dumps(machine)})
    cleared = recorded.one("machine-cleared")
    assert cleared.inputs["create"] == "true"
    assert not cleared.inputs.get("triggers")
    assert cleared.inputs["delete"].endswith("python3 -'" if kind == "host" else "python3 -")
    for name in ("inference-vllm", "edge-haproxy", "inference-network", "machine-docker", "edge-release",
                 "inference-config"):  # fmt: skip
        assert "machine-cleared" in recorded.everything_before(recorded.one(name)), name
    assert "machine-ready" in recorded.everything_before(cleared)
