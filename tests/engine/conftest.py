"""Fixtures of the engine tier: the same program under the real Pulumi CLI, on real Docker."""

from __future__ import annotations

import contextlib
import os
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

    def up(self, *, passes: bool | None = True) -> subprocess.CompletedProcess[str]:
        """`scripts/up STACK`."""
        self.forget_outputs()
        done = self.checkout.run("up", self.stack)
        if passes is not None:
            assert (done.returncode == 0) == passes, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pulumi ARGUMENTS --stack STACK`, as a user would call it beside the scripts."""
        command = ["pulumi", *arguments, "--stack", self.stack, "--non-interactive"]
        return subprocess.run(command, cwd=self.checkout.path, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pulumi_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiStack]:
    """One stack for the module, not up yet; purged at its end, whatever happened."""
    path = tmp_path_factory.mktemp("checkout")
    backend = tmp_path_factory.mktemp("backend")
    added = {"PULUMI_BACKEND_URL": f"file://{backend}", "PULUMI_CONFIG_PASSPHRASE": "of the test"}
    with pytest.MonkeyPatch.context() as environment, contextlib.ExitStack() as at_end:
        for name, value in added.items():
            environment.setenv(name, value)
        stack = PulumiStack(Checkout(path), "engine")
        at_end.callback(stack.purge)
        yield stack


@pytest.fixture(scope="module")
def backend(pulumi_stack: PulumiStack) -> Path:
    """The folder that holds the state."""
    assert pulumi_stack
    return Path(os.environ["PULUMI_BACKEND_URL"].removeprefix("file://"))
