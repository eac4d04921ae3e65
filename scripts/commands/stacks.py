"""The stacks of this project as the commands see them: their files, settings and what is known of a stack."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rehearsal.stack_file import read_config, stack_file
from settings import NAMESPACE, SECRETS, Settings, parse

PROJECT = Path(__file__).resolve().parent.parent.parent
DEFAULT_STACK = "local"


def stack_settings(stack: str, project: Path = PROJECT) -> Settings:
    """The settings that the stack's file gives. Raises SettingsError with every problem.

    Values that only Pulumi can read (encrypted ones) are secrets and no part of the settings.
    """
    prefix = f"{NAMESPACE}:"
    values = {
        key.removeprefix(prefix): value
        for key, value in read_config(stack, project).items()
        if key.startswith(prefix) or ":" not in key
    }
    return parse({key: value for key, value in values.items() if key not in SECRETS})


def set_in_stack_file(stack: str, key: Sequence[str], value: Any, project: Path = PROJECT) -> None:
    """Writes one value into the stack's file and leaves everything else in it as it is, comments too.

    key: the setting and the keys inside it. A value of None removes the entry.
    """
    path = stack_file(stack, project)
    editor = YAML()
    editor.preserve_quotes = True
    document = editor.load(path.read_text()) or {}
    inner = document
    for part in ("config", f"{NAMESPACE}:{key[0]}", *key[1:-1]):
        if not inner.get(part):
            inner[part] = {}
        inner = inner[part]
    if value is None:
        inner.pop(key[-1], None)
    else:
        inner[key[-1]] = value
    text = io.StringIO()
    editor.dump(document, text)
    beside = path.with_suffix(".part")
    beside.write_text(text.getvalue())
    beside.replace(path)


def data_dir(stack: str, settings: Settings, project: Path = PROJECT) -> Path:
    """Where the stack keeps weights, caches and configuration on this computer."""
    return Path(settings.machine.data_dir or project / ".state" / stack / "data")
