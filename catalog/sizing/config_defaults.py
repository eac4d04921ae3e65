"""What the configuration classes of Transformers put in place of keys that a config.json leaves out.

Publishers leave out what is the default: Gemma 3's file has no `head_dim`, and its 256 is no quotient.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("config_defaults.json")


@functools.cache
def _data() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = json.loads(_FILE.read_text())
    return loaded


def class_defaults(model_type: str) -> dict[str, Any]:
    """The sizes of the class behind this `model_type`, with the type itself; of an unknown class only the type."""
    return {**_data()["classes"].get(model_type, {}), "model_type": model_type}


def text_defaults(model_type: str) -> dict[str, Any]:
    """Likewise for the language model inside a model of this type, which has a type of its own."""
    return class_defaults(_data()["text_config"].get(model_type, model_type))
