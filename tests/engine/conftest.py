"""Fixtures of the engine tier: the same program under the real Pulumi CLI, on real Docker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import Checkout, Deployment

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder; without a CLI they are skipped, and say why."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.engine)
            if shutil.which("pulumi") is None:
                item.add_marker(
                    pytest.mark.skip(reason="there is no pulumi on PATH, and no package registry has it")
                )


class PulumiStack(Deployment):
    """A stack that the Pulumi CLI deploys, with a backend of its own: no login of the user is touched."""

    how = ("--verbose",)  # with each resource in a line of its own, so that tests can act when one begins

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pulumi ARGUMENTS --stack STACK`, as a user would call it beside the scripts."""
        command = ["pulumi", *arguments, "--stack", self.stack, "--non-interactive"]
        return subprocess.run(command, cwd=self.checkout.path, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that holds the state: a backend of the module's own."""
    folder = tmp_path_factory.mktemp("backend")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PULUMI_BACKEND_URL", f"file://{folder}")
        environment.setenv("PULUMI_CONFIG_PASSPHRASE", "of the test")
        yield folder


@pytest.fixture(scope="module")
def pulumi_stack(backend: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiStack]:
    """One stack for the module, not up yet; purged at its end, whatever happened."""
    assert backend
    stack = PulumiStack(Checkout(tmp_path_factory.mktemp("checkout")), "engine")
    yield stack
    stack.purge()
