"""A checkout in a folder of the test: the commands take it for the one that they are in. And a Docker for it."""

from __future__ import annotations

import contextvars
import inspect
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from pulumi.runtime.settings import SETTINGS

from rehearsal import run
from rehearsal.state import State
from tests.conftest import PROJECT

KEYS_PROGRAM = """\
import pulumi
from components.keys import Keys
from components.stack_config import load_settings
settings = load_settings()
generations = {name: settings.generations(name) for name in settings.clients}
keys = Keys("keys", {"generations": generations, "prober": False})
pulumi.export("clients", {name: pulumi.Output.all(*each) for name, each in keys.clients.items()})
"""
"""Of the whole program, the keys alone: what a rehearsal makes of it needs no Docker."""


class Checkout:
    """The project's folder with one stack in it."""

    def __init__(self, folder: Path, stack: str, text: str) -> None:
        self.folder, self.stack = folder, stack
        (folder / "Pulumi.yaml").write_text("name: seatable-vllm\nruntime: python\n")
        (folder / "__main__.py").write_text(KEYS_PROGRAM)
        self.file = folder / f"Pulumi.{stack}.yaml"
        self.file.write_text(text)

    def rehearse(self) -> None:
        """An `up` by the rehearsal, in this process."""
        SETTINGS.rpc_manager.clear()
        SETTINGS.outputs.clear()
        contextvars.copy_context().run(run.up, self.stack, lambda *_: None, self.folder)

    @property
    def state(self) -> State:
        """What the rehearsal has made; to add to it, put more in."""
        path = run.state_path(self.stack, self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        return State.load(path)

    def keys(self) -> dict[str, str]:
        """The keys in force, by the name of their resource."""
        made = self.state.made.values()
        return {each.name: str(each.outputs["result"]) for each in made if each.type.endswith(":RandomPassword")}

    def holding(self, *secrets: str, below: Path | None = None) -> list[str]:
        """The files with one of these texts in them, or in their name."""
        folder = below or self.folder
        files = [path for path in folder.rglob("*") if path.is_file()]
        return sorted(
            str(path.relative_to(folder))
            for path in files
            if any(each in str(path) or each.encode() in path.read_bytes() for each in secrets)
        )

    def left(self, below: Path | None = None) -> list[str]:
        """Every file and link below, and every empty folder."""
        folder = below or self.folder
        return sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
        )


def taken_for_the_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the commands and the rehearsal work in this folder, and with what they have by default below it."""
    for module in [
        each for name, each in sys.modules.items() if name.startswith(("scripts.commands", "rehearsal"))
    ]:
        for name, value in vars(module).items():
            if isinstance(value, Path) and value.is_relative_to(PROJECT):
                monkeypatch.setattr(module, name, folder / value.relative_to(PROJECT))
            elif inspect.isfunction(value):
                _move_defaults(value, folder, monkeypatch)


def _move_defaults(function: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if PROJECT in (function.__defaults__ or ()):
        moved = tuple(folder if each == PROJECT else each for each in function.__defaults__)
        monkeypatch.setattr(function, "__defaults__", moved)


def in_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch, stack: str, text: str) -> Iterator[Checkout]:
    """For a fixture: a checkout with this stack."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder.mkdir()
    taken_for_the_checkout(folder, monkeypatch)
    yield Checkout(folder, stack, text)
    logging.getLogger("asyncio").disabled = False  # a rehearsal has silenced it for the rest of its process


class FakeItem:
    """A container or a network on Docker."""

    def __init__(self, stand_in: FakeDocker, name: str, data: str, owner: str) -> None:
        self.id = self.name = name
        self.labels = {
            "seatable-vllm.stack": "gpu1",
            "seatable-vllm.data-dir": data,
            "seatable-vllm.owner": owner,
        }
        self.attrs: dict[str, Any] = {"Containers": {}, "Labels": self.labels}
        self._stand_in = stand_in

    def reload(self) -> None:
        pass

    def stop(self, timeout: int) -> None:
        pass

    def remove(self, **_: object) -> None:
        self._stand_in.items.remove(self)


class FakeContainer(FakeItem):
    image, status = "image", "running"


class FakeDocker:
    """A machine's Docker, as much of it as `down` needs: some containers and networks."""

    def __init__(self) -> None:
        self.items: list[FakeItem] = []
        self.silent = False

    def ping(self) -> None:
        if self.silent:
            raise docker.errors.DockerException("does not answer")

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.items]

    @property
    def containers(self) -> FakeDocker:
        return self

    @property
    def networks(self) -> FakeDocker:
        return FakeNetworks(self)

    def mine(self) -> list[FakeItem]:
        return [each for each in self.items if isinstance(each, FakeContainer)]

    def list(self, *, filters: dict[str, str], **_: object) -> list[FakeItem]:
        assert filters == {"label": "seatable-vllm.stack=gpu1"}
        return self.mine()

    def get(self, identity: str) -> FakeItem:
        for each in self.mine():
            if each.id == identity:
                return each
        raise docker.errors.NotFound(identity)


class FakeNetworks(FakeDocker):
    """The networks of another one."""

    def __init__(self, whole: FakeDocker) -> None:
        self.items = whole.items

    def mine(self) -> list[FakeItem]:
        return [each for each in self.items if not isinstance(each, FakeContainer)]
