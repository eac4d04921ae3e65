"""The container images of the product: pulled, or made from Debian and PyPI packages where none can be.

What is made is kept: the images in the Docker daemon, everything else below `cache_dir()`.
"""

import os
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]
"""Takes one short line that tells the current activity; the caller adds the time that has passed."""


class ImageUnavailable(Exception):  # noqa: N818 - the name says what has happened to the reader
    """An image, or the model made with one, cannot be had; the text is all that a user needs to see."""


def cache_dir() -> Path:
    """The folder for what these modules keep between runs; it is made by those who write there."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a path that is not absolute counts as not set.
    home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return home / "seatable-vllm"
