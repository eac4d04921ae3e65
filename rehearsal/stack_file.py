"""The one reader of stack files, for what runs without the Pulumi CLI."""

import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rehearsal.errors import RehearsalError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names that Pulumi and Docker both take: a stack's is part of the names of its containers and folders."""

TAKEN = ("pulumi", "passphrase")
"""What lies in `.state` beside the stacks' folders: a stack of this name would share, and remove, all states."""


def stack_names(project: Path) -> list[str]:
    """The stacks that have a file in the project."""
    files = (path.name for path in project.glob("Pulumi.*.yaml") if path.is_file())
    return sorted(name.removeprefix("Pulumi.").removesuffix(".yaml") for name in files)


def stack_file(stack: str, project: Path) -> Path:
    """The stack's file; RehearsalError where there is none, or no stack can have this name."""
    if not NAME.fullmatch(stack):
        raise RehearsalError(
            f"{stack!r} is no name of a stack; use letters, digits, - and _, such as gpu1 for Pulumi.gpu1.yaml"
        )
    if stack in TAKEN:
        raise RehearsalError(
            f"a stack cannot be called {stack}, which is the name of something else in .state; give "
            f"Pulumi.{stack}.yaml another name"
        )
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
    except RecursionError:
        raise RehearsalError(f"{path.name} cannot be read: its lists or maps are nested too deep") from None
    # ValueError: bytes that are no UTF-8, and numbers that are longer than Python takes.
    except (OSError, YAMLError, ValueError) as error:
        raise RehearsalError(f"{path.name} cannot be read: {_in_words(error)}") from None
    config = document.get("config") if isinstance(document, dict) else document
    if not isinstance(config or {}, dict):
        raise RehearsalError(f"{path.name} is no stack file: below `config:` there must be settings, key: value")
    return {str(key): value for key, value in (config or {}).items()}


def _in_words(error: Exception) -> str:
    """What is wrong with a file, and where. The error's own text quotes the file, in which a secret may stand."""
    if not isinstance(error, MarkedYAMLError) or error.problem is None:
        return str(error)
    problem = error.problem.partition(" with value")[0]
    tab = "; indent with spaces" if r"'\t'" in problem else ""
    return f"line {error.problem_mark.line + 1}: {problem}{tab}" if error.problem_mark else problem
