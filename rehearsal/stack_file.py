"""The one reader of stack files, for what runs without the Pulumi CLI."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rehearsal.errors import RehearsalError


def stack_names(project: Path) -> list[str]:
    """The stacks that have a file in the project."""
    return sorted(path.name.split(".")[1] for path in project.glob("Pulumi.*.yaml"))


def stack_file(stack: str, project: Path) -> Path:
    """The stack's file; RehearsalError where there is none."""
    path = project / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        known = ", ".join(stack_names(project))
        raise RehearsalError(f"there is no stack {stack!r}: {path.name} is missing; stacks here: {known}")
    return path


def read_config(stack: str, project: Path) -> dict[str, object]:
    """The configuration in the stack's file, keys as they stand there.

    RehearsalError names the file where it is no stack file, a key that stands there twice included.
    """
    path = stack_file(stack, project)
    try:
        document = YAML(typ="safe").load(path.read_text()) or {}
    except (YAMLError, UnicodeDecodeError) as error:
        raise RehearsalError(f"{path.name} cannot be read: {error}") from None
    config = document.get("config") if isinstance(document, dict) else document
    if not isinstance(config or {}, dict):
        raise RehearsalError(f"{path.name} is no stack file: below `config:` there must be settings, key: value")
    return {str(key): value for key, value in (config or {}).items()}
