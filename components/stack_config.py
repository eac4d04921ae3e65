"""The one place that reads a stack's configuration from Pulumi."""

import json
from collections.abc import Mapping

import pulumi
from pulumi.runtime import config as runtime_config

from settings import NAMESPACE, SECRETS, Settings, parse


def load_settings() -> Settings:
    """The settings of the stack that is being deployed. Raises SettingsError with every problem at once."""
    return parse(_stack_values())


def hugging_face_token() -> pulumi.Output[str] | None:
    """The token for gated models as a Pulumi secret, or None where the stack has none."""
    return pulumi.Config(NAMESPACE).get_secret("hugging_face_token")


def _stack_values() -> Mapping[str, object]:
    """Every key of our namespace but the secret ones. pulumi.Config cannot list keys, and a typing error
    in a key must not pass in silence, so the runtime's own map of keys is asked."""
    prefix = f"{NAMESPACE}:"
    keys = {*runtime_config.get_config_env(), *runtime_config.CONFIG.get()}
    names = [key.removeprefix(prefix) for key in sorted(keys) if key.startswith(prefix)]
    config = pulumi.Config(NAMESPACE)
    return {name: _value(config.get(name)) if name not in SECRETS else None for name in names}


def _value(text: str | None) -> object:
    """A value as the stack file has it: Pulumi hands maps, lists and numbers over as JSON text."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return text
