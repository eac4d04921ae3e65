"""Which image is used: the official one if it is there or can be pulled, else the one made here."""

from collections.abc import Callable, Mapping

from catalog.images import ImageSource
from images import ImageUnavailable, Say, haproxy, lego, vllm_cpu
from images.build import build
from images.daemon import Daemon, DockerDaemon, made_by
from images.pull import PullFailed
from images.recipe import Recipe


def obtain(source: ImageSource, say: Say) -> str:
    """The reference of a local image that can be used for `source`.

    In this order: the official image if the daemon has it; the made one if it is there and of the current
    recipe; the official one, pulled; the made one, made now (minutes, root, Debian or Ubuntu).
    Raises ImageUnavailable when none can be had.
    """
    daemon = DockerDaemon()
    recipes = {recipe.reference: recipe for recipe in (vllm_cpu.recipe(), haproxy.recipe(), lego.recipe())}
    return choose(source, daemon, recipes, lambda recipe: build(recipe, daemon, say), say)


def choose(
    source: ImageSource,
    daemon: Daemon,
    recipes: Mapping[str, Recipe],
    make: Callable[[Recipe], None],
    say: Say,
) -> str:
    """As `obtain`, with the daemon, the recipes by reference, and what makes an image."""
    if daemon.labels(source.official) is not None:
        return source.official
    recipe = recipes.get(source.made or "")
    if recipe is not None and made_by(daemon, recipe):
        return recipe.reference
    try:
        daemon.pull(source.official, say)
    except PullFailed as failure:
        if recipe is None:
            raise ImageUnavailable(unavailable(source.official, str(failure))) from failure
        say(f"{source.official} cannot be pulled, making {recipe.reference}: {failure}")
    else:
        return source.official
    try:
        make(recipe)
    except ImageUnavailable as failure:
        raise ImageUnavailable(f"{recipe.reference} cannot be made: {failure}") from failure
    return recipe.reference


def unavailable(reference: str, why: str) -> str:
    """The error for an image that cannot be pulled and has no recipe."""
    return (
        f"the image {reference} cannot be pulled: {why}. There is no recipe to make it here. Let the machine "
        f"reach the registry, bring the image with `docker save` and `docker load`, or name one that can be "
        f"pulled with the setting seatable-vllm:images."
    )
