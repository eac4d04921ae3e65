"""Unit tier: what the benchmarks count by themselves.

It does NOT prove any figure of a benchmark.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts.commands import bench_start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakeCommand


def test_each_connection_is_counted_and_made_with_its_arguments(
    tmp_path: Path, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command.add("ssh", "exit 7")
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    counting = tmp_path / "counting"
    counting.mkdir()
    environment = bench_start._counting(counting)
    statuses = [subprocess.run(["ssh", "-p", "22", "a host"], env=environment, check=False) for _ in range(2)]
    assert [each.returncode for each in statuses] == [7, 7]
    assert fake_command.calls == [["ssh", "-p", "22", "a host"]] * 2
    assert len((counting / "calls").read_text().splitlines()) == 2
