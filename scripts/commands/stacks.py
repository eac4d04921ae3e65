"""The stacks of this project as the commands see them: their files, settings and what is known of a stack."""

import copy
import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rehearsal.stack_file import full_key, project_default, stack_config, stack_file
from settings import NAMESPACE, SECRETS, Settings, SettingsError, settings_of, value_of

PROJECT = Path(__file__).resolve().parent.parent.parent
DEFAULT_STACK = "local"


_ENCRYPTED = "\0encrypted"
"""Stands for what only the Pulumi CLI can read; no file can hold it."""


def stack_settings(stack: str, project: Path = PROJECT) -> Settings:
    """The settings that the stack's file gives, read as the program reads them. SettingsError with every problem.

    Encrypted secrets are no part of the settings; another setting that is encrypted is a problem.
    """
    texts = stack_config(stack, project, secret=_ENCRYPTED)
    prefix = f"{NAMESPACE}:"
    hidden = [
        key
        for key, text in texts.items()
        if text == _ENCRYPTED and key.startswith(prefix) and key.removeprefix(prefix) not in SECRETS
    ]
    if hidden:
        raise SettingsError(
            "\n".join(
                f"{key}: is encrypted in Pulumi.{stack}.yaml, and only {', '.join(sorted(SECRETS))} may be: "
                "write it in clear"
                for key in hidden
            )
        )
    return settings_of(texts)


def set_in_stack_file(stack: str, key: Sequence[str], value: Any, project: Path = PROJECT) -> None:
    """Writes one value into the stack's file and leaves everything else in it as it is, comments too.

    key: the setting and the keys inside it. A value of None removes the entry. A map that is there as JSON text,
    or in Pulumi.yaml alone, becomes one in the stack's file.
    """
    path = stack_file(stack, project)
    text = path.read_text()
    editor = _editor(text)
    document: Any = editor.load(text) or {}
    if not document.get("config"):
        document["config"] = {}
    config: Any = document["config"]
    wanted = f"{NAMESPACE}:{key[0]}"
    setting = next((each for each in config if full_key(str(each), NAMESPACE) == wanted), wanted)
    if isinstance(config.get(setting), str):
        config[setting] = value_of(key[0], config[setting])
    elif setting not in config:
        config[setting] = copy.deepcopy(project_default(key[0], project)) or {}
    inner: Any = config
    for part in (setting, *key[1:-1]):
        if not inner.get(part):
            inner[part] = {}
        inner = inner[part]
    if value is None:
        inner.pop(key[-1], None)
    elif isinstance(value, dict) and isinstance(inner.get(key[-1]), dict):
        # A comment that follows a mapping belongs to its last entry, and would go with it.
        inner[key[-1]].update(value)
    elif key[-1] not in inner and len(key) > 1 and hasattr(inner, "lc"):
        inner.insert(_between_lines(inner, text.splitlines()), key[-1], value)
    else:
        inner[key[-1]] = value
    put(path, editor, document)


def put(path: Path, editor: YAML, document: Any) -> None:
    """Writes a stack file, all or nothing."""
    text = io.StringIO()
    editor.dump(document, text)
    beside = path.with_suffix(".part")
    beside.write_text(text.getvalue())
    shutil.copymode(path, beside)
    beside.replace(path)


def _editor(text: str) -> YAML:
    """Reads and writes YAML as it is: quotes, long lines and the indentation of lists."""
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    if re.search(r"^( *)[^ #\n][^\n]*:[ ]*\n\1  - ", text, re.MULTILINE):
        editor.indent(sequence=4, offset=2)
    return editor


def _between_lines(mapping: Any, lines: Sequence[str]) -> int:
    """The first position in a mapping, not before its first key, that comes between no comment and its key."""
    for position, key in enumerate(mapping):
        above = lines[mapping.lc.key(key)[0] - 1].strip()
        if position and above and not above.startswith("#"):
            return position
    return len(mapping)


def data_dir(stack: str, settings: Settings, project: Path = PROJECT) -> Path:
    """Where the stack keeps weights, caches and configuration on this computer."""
    return Path(settings.machine.data_dir or project / ".state" / stack / "data")
