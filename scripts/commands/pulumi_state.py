"""Pulumi's state as data, for what no command of the CLI does in one step."""

from collections.abc import Mapping, Sequence
from typing import Any


def without(deployment: Mapping[str, Any], types: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The same deployment without the resources whose types begin so, and how many those were.

    Whatever depended on one of them does so no more: the engine refuses a state that names what is not in it.
    """
    resources = deployment.get("resources", [])
    gone = {item["urn"] for item in resources if str(item["type"]).startswith(tuple(types))}
    kept = [_free(item, gone) for item in resources if item["urn"] not in gone]
    pending = [
        {**operation, "resource": _free(operation["resource"], gone)}
        for operation in deployment.get("pending_operations") or []
        if operation["resource"]["urn"] not in gone
    ]
    return {**deployment, "resources": kept, "pending_operations": pending}, len(resources) - len(kept)


def _free(resource: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    freed = dict(resource)
    for key in ("dependencies", "replaceWith"):
        if freed.get(key):
            freed[key] = [urn for urn in freed[key] if urn not in gone]
    if freed.get("propertyDependencies"):
        freed["propertyDependencies"] = {
            name: [urn for urn in urns or [] if urn not in gone]
            for name, urns in freed["propertyDependencies"].items()
        }
    if freed.get("deletedWith") in gone:
        del freed["deletedWith"]
    return freed
