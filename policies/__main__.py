"""The rules as a policy pack: `pulumi up --policy-pack policies`. Nothing is made that violates one."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)

if __package__:
    from policies.rules import RULES, Meant, Resource, Rule
else:  # Pulumi runs the folder by itself
    from rules import RULES, Meant, Resource, Rule  # type: ignore[import-not-found,no-redef]

NAME = "seatable-vllm"

PORTS: Mapping[str, Any] = {"type": "array", "items": {"type": "integer"}}

CONFIG = PolicyConfigSchema(
    properties={
        "production_stacks": {"type": "array", "items": {"type": "string"}, "default": ["prod"]},
        "open_to_all": {**PORTS, "default": []},
        "engine_ports": {**PORTS, "default": sorted(Meant().engine_ports)},
    }
)


def policies() -> list[ResourceValidationPolicy]:
    """One policy for each rule."""
    return [
        ResourceValidationPolicy(
            name=name,
            description=(rule.__doc__ or "").strip(),
            validate=_validate(rule),
            enforcement_level=EnforcementLevel.MANDATORY,
            config_schema=CONFIG,
        )
        for name, rule in RULES.items()
    ]


def _validate(rule: Rule) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for text in rule(_resource(args), _meant(args)):
            report(text, None)

    return validate


def _resource(args: ResourceValidationArgs) -> Resource:
    return Resource(args.resource_type, args.props, args.opts.protect, _default_tags(args))


def _meant(args: ResourceValidationArgs) -> Meant:
    config = args.get_config()
    stack = args.urn.split(":")[2]
    return Meant(
        production=stack in config.get("production_stacks", ["prod"]),
        open_to_all=frozenset(int(port) for port in config.get("open_to_all", [])),
        engine_ports=frozenset(int(port) for port in config.get("engine_ports", Meant().engine_ports)),
    )


def _default_tags(args: ResourceValidationArgs) -> Mapping[str, str]:
    """The tags that the resource's provider puts on everything. Inputs of a provider are JSON in a text."""
    given = args.provider.props.get("defaultTags") if args.provider else None
    told = json.loads(given) if isinstance(given, str) else given
    return dict((told or {}).get("tags") or {})


if __name__ == "__main__":
    PolicyPack(name=NAME, policies=policies())  # type: ignore[arg-type]
