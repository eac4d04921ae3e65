"""The one reader of stack files, for what runs without the Pulumi CLI: it hands over what Pulumi would."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rehearsal.errors import RehearsalError

PROJECT = Path(__file__).resolve().parent.parent

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


def stack_config(stack: str, project: Path = PROJECT, *, secret: str | None = None) -> dict[str, str]:
    """The stack's configuration as Pulumi hands it over: full keys, values as text, maps and lists as JSON.

    Pulumi.yaml gives what the stack's file does not say. secret: what stands for an encrypted value; None: such a
    value is an error. RehearsalError names the file that is none of Pulumi's, and a key that is there twice.
    """
    path = stack_file(stack, project)
    common = project / "Pulumi.yaml"
    of_project = _read(common)
    name = str(of_project.get("name"))
    texts: dict[str, str] = {}
    for key, value in _entries(path, _read(path)):
        full = full_key(key, name)
        if full in texts:
            raise RehearsalError(f"{path.name} has {full} twice, also as {key}; remove one of the two")
        texts[full] = _text(full, value, path, secret)
    given = ((full_key(key, name), _given(entry)) for key, entry in _entries(common, of_project))
    return {key: _text(key, value, common, secret) for key, value in given if value is not None} | texts


def full_key(key: str, project: str) -> str:
    """A key with its namespace, as Pulumi reads it: the project's, where it has none."""
    namespace, *rest = key.split(":")
    if not rest:
        return f"{project}:{key}"
    return f"{namespace}:{rest[1]}" if len(rest) == 2 and rest[0] == "config" else key


def project_default(setting: str, project: Path) -> object:
    """What Pulumi.yaml gives for one of the project's settings where a stack's file says nothing; or None."""
    document = _read(project / "Pulumi.yaml")
    name = str(document.get("name"))
    for key, entry in _entries(project / "Pulumi.yaml", document):
        if full_key(key, name) == f"{name}:{setting}":
            return _given(entry)
    return None


_SCHEMA = frozenset({"type", "description", "items", "default", "value", "secret"})
"""What Pulumi.yaml may say of one setting; anything else is the value itself."""


def _given(entry: object) -> object:
    if isinstance(entry, dict) and entry and set(entry) <= _SCHEMA:
        return entry.get("value", entry.get("default"))
    return entry


def _entries(path: Path, document: dict[str, object]) -> Iterator[tuple[str, object]]:
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise RehearsalError(f"{path.name} is no stack file: below `config:` there must be settings, key: value")
    yield from ((str(key), value) for key, value in config.items())


def _text(key: str, value: object, path: Path, secret: str | None) -> str:
    """One value as Pulumi hands it over."""
    if _is_encrypted(value):
        if secret is not None:
            return secret
        raise RehearsalError(f"{key} is encrypted, and only the Pulumi CLI can read it; use `pulumi up`")
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else json.dumps(value, default=_refuse_date)
    except ValueError as error:
        raise RehearsalError(f"{path.name}: {key}: {error}") from None


def _is_encrypted(value: object) -> bool:
    """Whether a value, or something inside it, can be read by the Pulumi CLI alone."""
    if isinstance(value, dict):
        return set(value) == {"secure"} or any(map(_is_encrypted, value.values()))
    return isinstance(value, list) and any(map(_is_encrypted, value))


def _refuse_date(value: object) -> str:
    kind = "date" if isinstance(value, datetime.date) else type(value).__name__
    raise ValueError(f'{value} is read as a {kind} by YAML; write it as text, "{value}"')


def _read(path: Path) -> dict[str, object]:
    """The document in a file. RehearsalError names the file, never its contents: a secret may be in it."""
    try:
        document = YAML(typ="safe").load(path.read_text()) or {}
    except RecursionError:
        raise RehearsalError(f"{path.name} cannot be read: its lists or maps are nested too deep") from None
    # ValueError: bytes that are no UTF-8, and numbers that are longer than Python takes.
    except (OSError, YAMLError, ValueError) as error:
        raise RehearsalError(f"{path.name} cannot be read: {_in_words(error)}") from None
    if not isinstance(document, dict):
        raise RehearsalError(f"{path.name} is no stack file: below `config:` there must be settings, key: value")
    return document


def _in_words(error: Exception) -> str:
    """What is wrong with a file, and where. The error's own text quotes the file, in which a secret may stand."""
    if not isinstance(error, MarkedYAMLError) or error.problem is None:
        return str(error)
    problem = error.problem.partition(" with value")[0]
    tab = "; indent with spaces" if r"'\t'" in problem else ""
    return f"line {error.problem_mark.line + 1}: {problem}{tab}" if error.problem_mark else problem
