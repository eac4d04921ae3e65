"""The recipe of the lego image: Debian with its lego package, run like the official image."""

from pathlib import Path

from catalog.images import LEGO
from images import pins, rootfs
from images.recipe import Recipe, mark
from images.shell import Shell

SETTINGS = """\
ENTRYPOINT ["lego"]
"""
"""As in the official image: what a container is told goes to lego."""


def tree(work: Path, shell: Shell) -> Path:
    """Makes the file system of the image below `work`; returns its root."""
    root = work / "lego"
    rootfs.debootstrap(root, ["ca-certificates", "lego"], shell)
    rootfs.run_inside(root, "lego", ["lego", "--version"], shell)
    return root


def recipe() -> Recipe:
    """The recipe for the image that the catalog names."""
    files = (Path(__file__), Path(rootfs.__file__))
    return Recipe(LEGO.made or "", mark(files, (pins.DEBIAN_SUITE,)), tree, SETTINGS)
