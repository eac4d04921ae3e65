"""The options in catalog/vllm_options.json against the parser of the vLLM that is there.

What this does not prove: that the image for GPUs has the same parser; it has the same version's.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from catalog.images import VLLM_CPU
from tests.live.harness import PROJECT

pytestmark = [pytest.mark.beside, pytest.mark.vllm]

FILE = PROJECT / "catalog" / "vllm_options.json"
READER = PROJECT / "catalog" / "vllm_parser.py"
SECONDS = 900
"""A bound for a machine that does much else; it takes half a minute alone, and is mostly the import of vLLM."""


def image() -> str:
    """The CPU image that is here, made or official."""
    for tag in (VLLM_CPU.made, VLLM_CPU.official):
        if (
            tag
            and subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode
            == 0
        ):
            return tag
    pytest.skip("no image of vLLM for CPUs is here; any `up` of a local stack makes it")


def test_the_options_are_those_of_the_parser_of_the_pinned_vllm() -> None:
    run = ["docker", "run", "--rm", "-i", "--network", "none", "--entrypoint", "python3", image(), "-"]
    done = subprocess.run(
        run, input=Path(READER).read_text(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == json.loads(FILE.read_text())
