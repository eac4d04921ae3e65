"""What a recipe for an image is, and the mark by which an image made with the current one is known."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from images.shell import Shell

RECIPE_LABEL = "seatable-vllm.recipe"
MADE_LABEL = "seatable-vllm.made"


@dataclass(frozen=True)
class Recipe:
    """How one image is made.

    reference: its local name.
    mark: what RECIPE_LABEL must be on an image that need not be made again.
    tree: fills an empty work folder and returns the folder in it that becomes the image's root.
    settings: the Dockerfile lines that say how the image is started.
    """

    reference: str
    mark: str
    tree: Callable[[Path, Shell], Path]
    settings: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the made image."""
        return {RECIPE_LABEL: self.mark, MADE_LABEL: "true"}


def mark(files: Iterable[Path], constants: Iterable[str]) -> str:
    """12 hexadecimal digits that change with the contents of the files, their names or the constants."""
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    for constant in constants:
        whole.update(f"{constant}\0".encode())
    return whole.hexdigest()[:12]
