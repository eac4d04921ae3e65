"""Weights that are fetched without the engine's image: real Docker, real pip, the real client of the hub.

The hub is a stand-in with one small model, and the packages that pip installs by their hashes lie in the image,
fetched beforehand: no container has to reach an index. The image is the engine's made one without the hub's
client and with pip. What this does NOT prove: that the official Python image suits, nor how much time is won.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.hub_client import pins
from catalog.images import VLLM_CPU
from components.weights import weights_program
from components.weights_ahead import Plan, fetch_program, image_program
from images.obtain import obtain
from tests.live.harness import address_from_containers
from tests.live.hub import FILES, MODEL, Hub

pytestmark = pytest.mark.beside

NAME = "seatable-vllm-tests/weights-ahead"
PACKAGES = "/usr/local/lib/python3.11/dist-packages"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
TOKEN = "hf_" + "Zz9" * 8


@dataclass(frozen=True)
class Steps:
    """The two steps on this computer's Docker, with a data directory of the test's own."""

    hub: Hub
    data: Path

    def ahead(self) -> subprocess.CompletedProcess[str]:
        """The steps with the small image, on a machine that lacks the engine's."""
        plan = Plan(str(self.data), MODEL, f"{NAME}:small", ["none:0"])
        assert _bash(image_program(plan)).stdout == f"{MODEL}: {NAME}:small is here for it\n"
        return _bash(fetch_program(plan, None, TOKEN, pins()))

    def present(self, image: str = f"{NAME}:engine") -> subprocess.CompletedProcess[str]:
        """The step with the engine's image."""
        return _bash(weights_program(str(self.data), MODEL, None, image, TOKEN))

    def model(self) -> dict[str, bytes]:
        """The files of the complete folder, those of the client's own bookkeeping apart."""
        return {
            path.name: path.read_bytes() for path in (self.data / "models" / MODEL).iterdir() if path.is_file()
        }


def _bash(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-s"], input=program, capture_output=True, text=True, check=False)


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as served:
        yield served


@pytest.fixture(scope="module")
def images(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The two images, which find the stand-in for the hub where the real one would be."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "pins.txt").write_text(pins())
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary", ":all:",
         "--python-version", "3.11", *platforms, "--dest", str(folder / "wheels"),
         "--requirement", str(folder / "pins.txt"))  # fmt: skip
    pip = Path(_run(sys.executable, "-c", "import pip; print(pip.__file__)").strip()).parent
    shutil.copytree(pip, folder / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    image = obtain(VLLM_CPU, print)
    engine = f"FROM {image}\nENV HF_ENDPOINT=http://{address_from_containers(image)}:{hub.port}\n"
    small = f"""\
{engine}ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
COPY wheels /wheels
COPY pip {PACKAGES}/pip
RUN rm -rf {PACKAGES}/huggingface_hub {PACKAGES}/hf_xet && ! python3 -c 'import huggingface_hub'
"""
    try:
        for name, text in (("engine", engine), ("small", small)):
            _run("docker", "build", "--quiet", "--tag", f"{NAME}:{name}", "--file", "-", str(folder), text=text)
        yield
    finally:
        subprocess.run(
            ["docker", "rmi", "--force", f"{NAME}:small", f"{NAME}:engine"], capture_output=True, check=False
        )


@pytest.fixture
def steps(hub: Hub, images: None, tmp_path: Path) -> Iterator[Steps]:
    hub.asked.clear()
    hub.tokens.clear()
    yield Steps(hub, tmp_path)
    hub.gated, hub.lacks = False, None


def test_weights_are_here_whole_before_the_engines_image_is_and_that_asks_the_hub_for_nothing(
    steps: Steps,
) -> None:
    done = steps.ahead()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{MODEL} is here"
    assert steps.model() == {name: FILES[name] for name in FILES if not name.endswith(".bin")}
    assert f"Bearer {TOKEN}" in steps.hub.tokens
    steps.hub.asked.clear()
    assert steps.present(image="not-even:there").stdout == f"{MODEL} is here\n"
    assert steps.hub.asked == []


def test_what_the_hub_refuses_is_told_once_by_the_step_with_the_engines_image(steps: Steps) -> None:
    steps.hub.gated = True
    first, second = steps.ahead(), steps.present()
    assert (first.returncode, first.stderr) == (0, "")
    assert "left to the engine's image" in first.stdout
    assert "Gated" not in first.stdout
    assert second.returncode == 1
    assert second.stderr.count("cause: GatedRepoError") == 1
    assert TOKEN not in first.stdout + second.stdout + second.stderr


def test_what_was_fetched_ahead_is_not_fetched_again_when_the_rest_is(steps: Steps) -> None:
    steps.hub.lacks = "tokenizer.json"
    assert "left to the engine's image" in steps.ahead().stdout
    (weights,) = (steps.data / "models" / ".partial").rglob("model.safetensors")
    assert weights.read_bytes() == FILES["model.safetensors"]
    steps.hub.lacks = None
    steps.hub.asked.clear()
    assert steps.present().returncode == 0
    assert set(steps.model()) == {name for name in FILES if not name.endswith(".bin")}
    given = [path.rpartition("/")[2] for path in steps.hub.asked if path.startswith("GET /seatable")]
    assert given == ["tokenizer.json"]
