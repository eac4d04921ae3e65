"""Keys are printed on a terminal, where a person looks; anything else may be kept, as the log of a CI is."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

CI_VARIABLES = ("CI", "BUILDKITE", "JENKINS_URL", "TEAMCITY_VERSION", "TF_BUILD")
"""Each CI in wide use sets one of these; some of them give a job a terminal, and keep what it shows."""


def add_show_secrets(parser: ArgumentParser) -> None:
    """The option --show-secrets, which `may_show_keys` is asked with."""
    parser.add_argument(
        "--show-secrets",
        action="store_true",
        help="print keys where standard output is not a terminal, or is that of a CI, too",
    )


def may_show_keys(asked: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether keys go to standard output. asked: the option --show-secrets."""
    return asked or (sys.stdout.isatty() and not any(environment.get(name) for name in CI_VARIABLES))


def without_keys(value: Any, outputs: Mapping[str, Any], stack: str, name: str) -> Any:
    """A text, or anything that JSON has, with the command that prints the key in the place of each client's key.

    outputs: the stack's, with their secrets. name: the output that `value` is, or comes from.
    """
    if isinstance(value, dict):
        return {key: without_keys(inner, outputs, stack, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_keys(inner, outputs, stack, name) for inner in value]
    if isinstance(value, str):
        for client in outputs.get("clients", {}).values():
            value = value.replace(client["key"], f"<scripts/output {stack} {name}>")
    return value
