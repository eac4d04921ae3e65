"""Unit tier: full versions of images, and what `scripts/up --pull` makes of a newer one.

Docker is a script here; the machine behind SSH is an object that runs what it is sent on this computer. What
these tests do NOT prove: that a registry has these versions, and what real Docker says (the live tier pulls).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from catalog import images as catalog
from catalog.images import HAPROXY, LEGO, PYTHON, VLLM_CPU, VLLM_GPU, ImageSource
from components.image import names_of, repository
from rehearsal.stack_file import stack_config
from scripts.commands import newer_images
from scripts.commands.docker_state import DockerState
from scripts.commands.errors import CommandError
from scripts.commands.newer_images import images_of, pull_newer
from scripts.commands.places import Host
from scripts.commands.stacks import set_in_stack_file, stack_settings
from scripts.commands.terminal import Terminal
from settings import Settings, SettingsError, parse

if TYPE_CHECKING:
    from scripts.commands.engines import Say
    from tests.conftest import FakeCommand, RecordProgram

A, B = (f"sha256:{letter * 64}" for letter in "ab")
DOMAIN = {"host": "llm.example.com", "tls": "acme-http", "acme_email": "ops@example.com"}


def test_every_image_of_the_catalogue_is_a_full_version() -> None:
    sources = [each for each in vars(catalog).values() if isinstance(each, ImageSource)]
    assert len(sources) >= 5
    for source in sources:
        assert re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)*$", source.official), source.official


# What the program runs


@pytest.mark.parametrize(
    ("override", "pulled", "names"),
    [
        (None, None, [HAPROXY.official, HAPROXY.made]),
        (None, f"{HAPROXY.official}@{A}", [f"haproxy@{A}"]),
        (None, f"haproxy:3.2.1@{A}", [HAPROXY.official, HAPROXY.made]),
        ("m.example:5000/h:1", f"{HAPROXY.official}@{A}", ["m.example:5000/h:1"]),
        ("m.example:5000/h:1", f"m.example:5000/h:1@{A}", [f"m.example:5000/h@{A}"]),
        ("m.example:5000/h", f"m.example:5000/h@{A}", [f"m.example:5000/h@{A}"]),
    ],
)
def test_a_digest_counts_as_long_as_the_name_that_it_was_found_under_is_used(
    override: str | None, pulled: str | None, names: list[str]
) -> None:
    assert names_of(HAPROXY, override, pulled) == names


def test_the_port_of_a_registry_is_no_tag() -> None:
    assert repository("127.0.0.1:5000/a/b") == "127.0.0.1:5000/a/b"
    assert repository("127.0.0.1:5000/a/b:1") == "127.0.0.1:5000/a/b"


def test_the_edge_is_tried_and_made_with_the_image_of_that_digest(record_program: RecordProgram) -> None:
    pulled = {"haproxy": f"{HAPROXY.official}@{A}", "vllm": f"{VLLM_CPU.official}@{B}"}
    recorded = record_program(
        "local",
        {
            **stack_config("local"),
            "seatable-vllm:images": f'{{"pulled": {str(pulled).replace(chr(39), chr(34))}}}',
        },
    )
    assert recorded.one("edge-haproxy").inputs["image"] == f"haproxy@{A}"
    assert f"haproxy@{A}" in recorded.one("edge-release").inputs["stdin"]
    assert recorded.one("inference-vllm").inputs["image"] == f"{repository(VLLM_CPU.official)}@{B}"


@pytest.mark.parametrize("text", ["haproxy:3.2.25", f"haproxy@sha256:{'0' * 63}", f"--x@{A}"])
def test_a_name_without_a_whole_digest_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"images\.pulled\.haproxy.*NAME:TAG@sha256:DIGEST"):
        parse({"images": {"pulled": {"haproxy": text}}})


# What a stack's images are


@pytest.mark.parametrize(
    ("settings", "gpu", "references"),
    [
        ({}, False, [VLLM_CPU.official, HAPROXY.official]),
        ({}, True, [VLLM_GPU.official, HAPROXY.official]),
        ({"domain": DOMAIN}, False, [VLLM_CPU.official, HAPROXY.official, LEGO.official]),
        (
            {"machine": {"kind": "host", "ssh": "u@h"}},
            True,
            [VLLM_GPU.official, HAPROXY.official, PYTHON.official],
        ),
        (
            {"machine": {"kind": "host", "ssh": "u@h"}, "images": {"vllm": "m/v:1", "python": "none"}},
            True,
            ["m/v:1", HAPROXY.official],
        ),
    ],
)
def test_all_images_that_a_stack_uses_are_asked_for(
    settings: dict[str, Any], gpu: bool, references: list[str]
) -> None:
    assert [image.reference for image in images_of(parse(settings), has_gpu=gpu)] == references


# Asking


class There(Host):
    """A machine behind SSH that is this computer. `sent`: how many programs it was sent."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.sent = 0
        self._environment = environment

    def run(self, program: str, say: Say) -> None:
        self.sent += 1
        done = subprocess.run(
            ["bash", "-s"], input=program, capture_output=True, text=True, env=self._environment, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            say(line)
        if done.returncode != 0:
            raise CommandError(done.stdout + done.stderr)


class Client:
    """A Docker that has these images."""

    def __init__(self, *here: str) -> None:
        self._here = here

    @property
    def images(self) -> Client:
        return self

    def list(self, name: str) -> list[str]:
        return [each for each in self._here if each == name]

    def info(self) -> dict[str, Any]:
        return {"Runtimes": {"runc": {}}}


DOCKER = """\
case "$1 $2" in
"container inspect") case "${{@: -1}}" in {containers}) echo id-old;; *) exit 1;; esac;;
"image inspect")
  case "$*" in *RepoDigests*) echo "m.example/h@sha256:0 haproxy@{old}"; exit 0;; esac
  case "${{@: -1}}" in {here}) cat {folder}/id;; *) exit 1;; esac;;
pull*) {pull}
  echo {after} > {folder}/id; echo "3: Pulling from x"; echo "Digest: {new}"; echo "Status: it is as it is";;
esac
"""


def docker(fake: FakeCommand, *, after: str = "id-new", pull: str = "", containers: str = "*-edge") -> There:
    """A Docker with the edge's container on id-old, whose pulls give `after`."""
    (fake.folder / "id").write_text("id-old\n")
    parts = {"old": A, "new": B, "folder": fake.folder, "after": after, "pull": pull, "containers": containers}
    fake.add("docker", DOCKER.format(here="*", **parts))
    return There(fake.environment)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: seatable-vllm\n")
    (tmp_path / "Pulumi.s.yaml").write_text('config:\n  seatable-vllm:images: \'{"vllm": "m/v@' + A + "\"}'\n")
    monkeypatch.setattr(
        newer_images, "set_in_stack_file", lambda stack, key, value: set_in_stack_file(stack, key, value, tmp_path)
    )
    return tmp_path


def ask(project: Path, there: There, *here: str) -> Settings:
    """The stack's settings after a --pull."""
    state = DockerState(cast(Any, Client(*here)), "s", "/data")
    pull_newer("s", stack_settings("s", project), there, state, Terminal())
    return stack_settings("s", project)


def test_a_newer_image_gets_into_the_stacks_file_with_its_digest_and_the_way_back_is_said(
    project: Path, fake_command: FakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    there = docker(fake_command)
    found = ask(project, there)
    assert found.images.pulled.haproxy == f"{HAPROXY.official}@{B}"
    assert found.images.vllm == f"m/v@{A}", "a file with JSON text keeps what it says"
    told = capsys.readouterr().err
    assert f"{HAPROXY.official}: newer, {A} -> {B}" in told
    assert f"set images.pulled.haproxy to {HAPROXY.official}@{A}" in told
    assert f"m/v@{A}: chosen by its digest" in told
    assert there.sent == 1, "on the machine, not here"


def test_where_nothing_is_newer_the_file_stays_as_it_is(
    project: Path, fake_command: FakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "Pulumi.s.yaml").read_text()
    ask(project, docker(fake_command, after="id-old"))
    assert (project / "Pulumi.s.yaml").read_text() == before
    assert f"{HAPROXY.official}: nothing newer than {B}" in capsys.readouterr().err


def test_an_image_without_a_container_is_pulled_and_needs_no_word_in_the_file(
    project: Path, fake_command: FakeCommand
) -> None:
    """The container that is made next takes what is here."""
    before = (project / "Pulumi.s.yaml").read_text()
    ask(project, docker(fake_command, containers="none"))
    assert (project / "Pulumi.s.yaml").read_text() == before


def test_an_older_digest_in_the_file_is_replaced_though_no_container_is_there(
    project: Path, fake_command: FakeCommand
) -> None:
    set_in_stack_file("s", ("images", "pulled", "haproxy"), f"{HAPROXY.official}@{A}", project)
    assert ask(project, docker(fake_command, containers="none")).images.pulled.haproxy == f"{HAPROXY.official}@{B}"


def test_a_registry_that_does_not_give_an_image_that_is_here_is_an_error(
    project: Path, fake_command: FakeCommand
) -> None:
    there = docker(fake_command, pull="echo 'no such host' >&2; exit 1")
    with pytest.raises(CommandError, match=rf"{re.escape(HAPROXY.official)}: no such host\n.*without --pull"):
        ask(project, there, HAPROXY.official)


def test_where_a_made_image_stands_in_for_one_that_cannot_be_pulled_it_stays(
    project: Path, fake_command: FakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "Pulumi.s.yaml").read_text()
    ask(project, docker(fake_command, pull="echo 'no such host' >&2; exit 1"))
    assert "cannot be pulled, the one made here stays: no such host" in capsys.readouterr().err
    assert (project / "Pulumi.s.yaml").read_text() == before
