"""A settings file that a user has, as a tree to look into."""

from collections.abc import Mapping
from typing import Any


def at(tree: Any, *path: str) -> Any:
    """What stands at this path of nested maps, or None where a step is missing or no map."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def named(tree: Any, *path: str) -> Mapping[str, Any]:
    """The map at this path, empty where there is none."""
    found = at(tree, *path)
    return found if isinstance(found, Mapping) else {}
