"""Making one image by its recipe, once: under the lock, with room and tools checked."""

from images import Say
from images.daemon import DockerDaemon, made_by
from images.host import require_builder, require_room
from images.recipe import Recipe
from images.shell import Shell
from images.workspace import work_folder

NEEDED_GB = 12
"""Free disk for a build: measured, 2.2 GB of packages and byte code here, as much again in the daemon and in
uv's cache, and while one is unpacked half as much; the rest is reserve."""


def build(recipe: Recipe, daemon: DockerDaemon, say: Say) -> None:
    """Makes the image of a recipe, unless another process did while this one waited for it."""
    with work_folder(say) as work:
        if made_by(daemon, recipe):
            return
        shell = Shell(work / "logs", say)
        require_room(filter(None, (work, daemon.data_root())), NEEDED_GB)
        require_builder(shell)
        root = recipe.tree(work, shell)
        daemon.make(recipe, root, say)
