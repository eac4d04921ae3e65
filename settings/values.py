"""A stack's settings from its configuration as Pulumi hands it over: full keys, every value as text."""

import json
from collections.abc import Mapping

from settings.loading import NAMESPACE, SECRETS, SettingsError, parse
from settings.stack import Settings


def settings_of(texts: Mapping[str, str | None]) -> Settings:
    """The settings in a stack's configuration; keys of other namespaces are none of them.

    texts: by full key. A map, a list or a number is JSON, as Pulumi hands it over and as `pulumi config set`
    without --path writes it. What stands for a secret is not read. Raises SettingsError with every problem.
    """
    prefix = f"{NAMESPACE}:"
    named = {key.removeprefix(prefix): text for key, text in sorted(texts.items()) if key.startswith(prefix)}
    return parse({name: None if name in SECRETS else value_of(name, text) for name, text in named.items()})


def value_of(name: str, text: str | None) -> object:
    """The value that a text stands for. SettingsError names the setting where a key is in a map twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice = next((key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index])), None)
        if twice is not None:
            raise SettingsError(f"{NAMESPACE}:{name}: {twice!r} is in a map twice; remove one of the two entries")
        return dict(pairs)

    try:
        return json.loads(text or "null", object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return text
