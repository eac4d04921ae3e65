"""A newer image under the name that a stack uses: `scripts/up --pull`, real Docker, a registry of the test's own.

The edge's image comes from that registry; the engine's is whatever this computer has. What this does NOT prove:
the same on a machine behind SSH (the program is the same, the unit tier shows that it is sent there), or under the
Pulumi CLI, which is given the digest by the same setting.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.images import HAPROXY
from components.image import image_program, names_of
from images.obtain import obtain
from scripts.commands import newer_images
from scripts.commands.docker_state import DockerState
from scripts.commands.errors import CommandError
from scripts.commands.newer_images import pull_newer
from scripts.commands.stacks import set_in_stack_file, stack_settings
from scripts.commands.terminal import Terminal
from tests.live.conftest import Shared
from tests.live.harness import Deployment, docker_client
from tests.live.registry import Registry

REPOSITORY = "seatable-vllm-tests/haproxy"


def docker(*words: str, text: str | None = None) -> str:
    done = subprocess.run(["docker", *words], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """A registry with an image as tag first, and with what it will be rebuilt to as tag next."""
    with Registry() as served:
        base = obtain(HAPROXY, print)
        names = {tag: served.name(REPOSITORY, tag) for tag in ("next", "first")}
        try:
            for tag, name in names.items():
                docker("build", "--quiet", "--tag", name, "-", text=f"FROM {base}\nLABEL tagged={tag}\n")
                docker("push", "--quiet", name)
            docker("rmi", "--force", *names.values())
            yield served
        finally:
            mine = [name for each in docker_client().images.list() for name in (*each.tags, *_digests(each))]
            for name in (name for name in mine if REPOSITORY in name):
                subprocess.run(["docker", "rmi", "--force", name], capture_output=True, check=False)


def _digests(image: object) -> list[str]:
    return list(getattr(image, "attrs", {}).get("RepoDigests") or [])


def test_docker_gets_the_newer_image_by_the_digest_in_the_stacks_file(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a stack: a container that stands for the edge's, and the program that the edge's image is had by."""
    name, stack = registry.name(REPOSITORY, "light"), f"t{os.getpid()}-light"
    registry.move(REPOSITORY, "light", "first")
    (tmp_path / "Pulumi.yaml").write_text("name: seatable-vllm\n")
    images = {"haproxy": name, "vllm": f"none@sha256:{'0' * 64}"}
    (tmp_path / f"Pulumi.{stack}.yaml").write_text(json.dumps({"config": {"images": images}}))
    monkeypatch.setattr(
        newer_images, "set_in_stack_file", lambda stack, key, value: set_in_stack_file(stack, key, value, tmp_path)
    )

    def ask() -> str:
        state = DockerState(docker_client(), stack, str(tmp_path))
        pull_newer(stack, stack_settings(stack, tmp_path), None, state, Terminal())
        return capsys.readouterr().err

    docker("pull", "--quiet", name)
    docker("create", "--name", f"seatable-vllm-{stack}-edge", name)
    try:
        old = registry.digest("first")
        assert f"{name}: nothing newer than {old}" in ask()
        assert stack_settings(stack, tmp_path).images.pulled.haproxy is None
        registry.move(REPOSITORY, "light", "next")
        new = registry.digest("next")
        assert f"{name}: newer, {old} -> {new}" in ask()
        found = stack_settings(stack, tmp_path).images
        assert found.pulled.haproxy == f"{name}@{new}"
        (reference,) = names_of(HAPROXY, found.haproxy, found.pulled.haproxy)
        docker("rmi", "--force", reference)  # as on another machine, which pulls it by its digest
        done = subprocess.run(
            ["bash", "-s"], input=image_program(reference, None), capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines()[-1] == reference, done.stderr
        assert docker("image", "inspect", "--format", "{{.Config.Labels.tagged}}", reference) == "next"
        registry.answers = False
        with pytest.raises(CommandError, match="without --pull"):
            ask()
    finally:
        registry.answers = True
        docker("rm", f"seatable-vllm-{stack}-edge")


@pytest.fixture(scope="module")
def stack(registry: Registry, _shared: Shared) -> Iterator[Deployment]:
    """The shared stack, its edge's image from the registry until the last test here has ended."""
    shared = _shared.get()
    before = shared.settings.get("images")
    registry.move(REPOSITORY, "3", "first")
    shared.configure(images={"haproxy": registry.name(REPOSITORY, "3")})
    try:
        shared.up()
        yield shared
    finally:
        shared.configure(images=before)
        shared.up()


def tagged(stack: Deployment) -> str:
    """Which of the two images the edge runs on."""
    return str(docker_client().containers.get(stack.edge).image.labels["tagged"])


def up(stack: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    return stack.checkout.run("up", stack.stack, *stack.how, *words)


def test_a_newer_image_is_taken_when_it_is_asked_for_and_once(stack: Deployment, registry: Registry) -> None:
    name = registry.name(REPOSITORY, "3")
    before, old = stack.containers(), registry.digest("3")
    assert f"{name}: nothing newer than {old}" in up(stack, "--pull").stderr
    assert stack.containers() == before
    registry.move(REPOSITORY, "3", "next")
    stack.up()
    assert stack.containers() == before, "nobody has asked for it"
    done = up(stack, "--pull")
    assert done.returncode == 0, done.stderr
    new = registry.digest("next")
    assert f"{name}: newer, {old} -> {new} (in Pulumi.{stack.stack}.yaml as images.pulled.haproxy" in done.stderr
    assert tagged(stack) == "next"
    assert stack.container(stack.engine) == before[stack.engine]
    assert stack.ask("GET", "/v1/models", key=stack.key()).status == 200
    after = stack.containers()
    assert "nothing changed" in up(stack, "--pull").stderr
    assert "nothing changed" in stack.up().stderr
    assert stack.containers() == after
    # The way back that it names.
    stack.configure(images={"haproxy": name, "pulled": {"haproxy": f"{name}@{old}"}})
    stack.up()
    assert tagged(stack) == "first"


def test_a_registry_that_does_not_answer_ends_up_before_anything_is_changed(
    stack: Deployment, registry: Registry, tmp_path: Path
) -> None:
    before, file = stack.containers(), stack.stack_file.read_text()
    registry.answers = False
    try:
        done = up(stack, "--pull")
    finally:
        registry.answers = True
    assert done.returncode == 1
    assert f"{registry.name(REPOSITORY, '3')}: " in done.stderr
    assert "without --pull" in done.stderr
    assert (stack.containers(), stack.stack_file.read_text()) == (before, file)
