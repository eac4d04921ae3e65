"""Whether vLLM takes the value of an option, known before anything starts, and what to write in its place.

vLLM reads its configuration file as a command line: `true` becomes the option alone, anything else the option and
the value as text. So text where vLLM wants nothing becomes the model's name, and text that begins with a dash
becomes another option; neither is an error to it. Types, choices and ranges are those of its parser
(catalog/vllm_options.json), narrowed here to what one engine behind one edge can be.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from catalog.models import TEMPLATES
from catalog.vllm import CACHE_DIR, DRAIN_SECONDS, MODELS_DIR
from catalog.vllm_options import Spec, chat_templates, options

_NARROWED: Mapping[str, Spec] = {
    "api-server-count": {"ge": 1},
    "cudagraph-capture-sizes": {"of": {"is": ["integer"], "ge": 1}},
    "convert": {"choices": ["auto", "none"]},
    # One machine, and processes of vLLM's own on it.
    "distributed-executor-backend": {"choices": ["mp", "uni"]},
    "h11-max-header-count": {"ge": 1},
    "h11-max-incomplete-event-size": {"ge": 1},
    "hf-overrides": {"is": ["map"]},
    "kv-cache-memory-bytes": {"ge": 1},
    "kv-offloading-backend": {"choices": ["native"]},
    # Weights are on the disk before the engine starts. These read them from elsewhere.
    "load-format": {"without": ["ipc_cache", "modelexpress", "runai_streamer", "runai_streamer_sharded",
                                "tensorizer"]},
    "limit-mm-per-prompt": {"values": {"is": ["integer", "map"]}},
    "max-cpu-loras": {"ge": 1},
    "num-gpu-blocks-override": {"ge": 1},
    "renderer-num-workers": {"ge": 1},
    # The endpoint is one for chat completions.
    "runner": {"choices": ["auto", "generate"]},
    "seed": {"ge": -(2**63)},
    "shutdown-timeout": {"le": DRAIN_SECONDS},
    "spec-method": {"without": ["custom_class"]},
}  # fmt: skip
"""What is narrower than vLLM's parser, or said by its code alone."""

_MAP_ITEMS: Mapping[str, Spec] = {"speculative-config.method": {"without": ["custom_class"]}}
"""The same for values in maps."""

_ANY_CASE = frozenset({"attention-backend", "mm-encoder-attn-backend", "mamba-backend"})

_FILES = frozenset(
    {"chat-template", "generation-config", "hf-config-path", "mm-encoder-fp8-scale-path",
     "mm-encoder-fp8-scale-save-path", "spec-model", "speculative-config.model", "tokenizer"}
)  # fmt: skip
"""Options that may be a path in the engine's container."""

_IMAGE_DIR = TEMPLATES.rpartition("/")[0]

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_WORDS: Mapping[str, bool] = {
    "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False,
}  # fmt: skip

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")

_FORMS = {
    "switch": "true or false, without quotes",
    "integer": "an integer, without quotes",
    "number": "a number, without quotes",
    "text": "text",
    "list": "a list, such as [one, another]",
    "map": "a map, such as {name: value}",
}

_KINDS: tuple[tuple[type, str], ...] = ((str, "text"), (list, "list"), (dict, "map"))

_LARGEST = 2**63 - 1


def plain(option: str, value: object) -> object:
    """The value in the form in which the rest of the program reads it: 8k as 8000, JSON text as a map, one item
    as a list of one. A value that cannot be is returned as it is; `problems` has the words for it."""
    spec = _spec(option)
    if isinstance(value, str):
        if "map" in spec["is"] and value.lstrip().startswith("{"):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        if spec.get("suffix") and (number := _with_suffix(value)) is not None:
            return number
    if spec["is"] == ["list"] and _has_form(spec["of"], value):
        return [value]
    return value


def problems(option: str, value: object) -> Iterator[str]:
    """What is wrong with the value of an option that vLLM has, a line for each problem: place, value, remedy."""
    yield from _look(option, _spec(option), value)
    for place, text in _words_of_its_own(option, value):
        if not text.strip():
            yield f"{place}: an empty text: write the value, or leave the option out"
        elif text.startswith("-"):
            yield f"{place}: the value begins with a dash, and vLLM would take it for another option"


def _words_of_its_own(option: str, value: object) -> list[tuple[str, str]]:
    """The texts that become words of the command line, each with its place; what is in a map does not."""
    if isinstance(value, list):
        return [(f"{option}.{number}", item) for number, item in enumerate(value) if isinstance(item, str)]
    return [(option, value)] if isinstance(value, str) else []


def _spec(option: str) -> Spec:
    spec = {**options()[option], **_NARROWED.get(option, {})}
    return {**spec, "of": {**spec["of"], **_NARROWED.get(option, {}).get("of", {})}} if "of" in spec else spec


def _with_suffix(text: str) -> int | None:
    """The number that vLLM reads in text such as 8k, 25.6k or 4G; None for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text.strip())
    if found is None or ("." in found[1] and found[2].isupper()):
        return None
    return int(float(found[1]) * _SUFFIXES[found[2]])


def _look(place: str, spec: Spec, value: object) -> Iterator[str]:
    if "is" not in spec:
        return
    if not _has_form(spec, value):
        yield f"{place}: {_shown(spec, value)}: {_other_form(spec, value)}"
    elif isinstance(value, list):
        if not value:
            yield f"{place}: an empty list: name at least one, or leave the option out"
        for number, item in enumerate(value):
            yield from _look(f"{place}.{number}", spec.get("of", {}), item)
    elif isinstance(value, dict):
        yield from _look_into(place, spec, value)
    elif remedy := _remedy(place, spec, value):
        yield f"{place}: {_shown(spec, value)}: {remedy}"


def _look_into(place: str, spec: Spec, value: Mapping[Any, object]) -> Iterator[str]:
    known = spec.get("keys")
    for key, item in value.items():
        inside = f"{place}.{key}"
        if known is not None and key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            yield f"{inside}: vLLM knows no such key here; {hint}"
        elif item is not None:
            inner = known[key] if known is not None else spec.get("values", {})
            yield from _look(inside, {**inner, **_MAP_ITEMS.get(inside, {})}, item)


def _has_form(spec: Spec, value: object) -> bool:
    forms = spec["is"]
    if isinstance(value, bool):
        return "switch" in forms
    if isinstance(value, int):
        return "integer" in forms or "number" in forms
    if isinstance(value, float):
        return "number" in forms
    return any(isinstance(value, kind) and form in forms for kind, form in _KINDS)


def _other_form(spec: Spec, value: object) -> str:
    """What to write where the value is of a form that the option does not have."""
    forms, words = spec["is"], str(value).strip()
    if isinstance(value, str) and "switch" in forms and words.lower() in _WORDS:
        return f"write {str(_WORDS[words.lower()]).lower()}, without quotes"
    if isinstance(value, str) and {"integer", "number"} & set(forms) and _NUMBER.fullmatch(words):
        return (
            f"write {words}, without quotes"
            if "number" in forms or words.isdigit()
            else f"write {_FORMS['integer']}"
        )
    if "choices" in spec:
        return _use_one_of(spec, words)
    if isinstance(value, int | float) and "text" in forms:
        return f'write it in quotes, such as "{words}"'
    if "keys" in spec:
        first = next(iter(spec["keys"]))
        return f"write a map, such as {{{first}: VALUE}}; its keys are {', '.join(spec['keys'])}"
    return "write " + " or ".join(_FORMS[form] for form in forms)


def _remedy(place: str, spec: Spec, value: object) -> str | None:
    """What to write in place of a value of the right form; None where it is well."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if "choices" in spec and value not in spec["choices"]:
            return _use_one_of(spec, str(value))
        return _in_range(spec, value)
    text = str(value)
    choices = _choices(spec)
    if choices and text not in choices and not (place in _ANY_CASE and text.upper() in choices):
        return _use_one_of(spec, text)
    return _in_container(place, text)


def _in_range(spec: Spec, value: float) -> str | None:
    if not math.isfinite(value):
        return "write a number"
    above, least = spec.get("gt"), spec.get("ge", None if "gt" in spec else 0)
    below, most = spec.get("lt"), spec.get("le", None if "lt" in spec else _LARGEST)
    bottom = f"more than {above}" if above is not None else f"{least} or more"
    top = f"less than {below}" if below is not None else f"{most} or less"
    too_small = (above is not None and value <= above) or (least is not None and value < least)
    too_large = (below is not None and value >= below) or (most is not None and value > most)
    if most == _LARGEST:
        return f"write {top}" if too_large else f"write {bottom}" if too_small else None
    return f"write {bottom}, and {top}" if too_small or too_large else None


def _choices(spec: Spec) -> list[Any]:
    return [choice for choice in spec.get("choices", ()) if choice not in spec.get("without", ())]


def _use_one_of(spec: Spec, text: str) -> str:
    choices = [str(choice) for choice in _choices(spec)]
    near = difflib.get_close_matches(text, choices, n=1)
    listed = ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]
    return f"did you mean {near[0]}? It takes {listed}" if near and len(choices) > 2 else f"use {listed}"


def _in_container(place: str, text: str) -> str | None:
    """What to write in place of a path that is not for the engine to read; None where it may be there."""
    lora = place.startswith(("lora-modules.", "default-mm-loras."))
    path = text.partition("=")[2] if place.startswith("lora-modules.") else text
    if not lora and (place not in _FILES or not path.startswith(("/", "~", "."))) and place != "chat-template":
        return None
    if place == "chat-template" and (re.search(r"[{}\n]", text) or text in chat_templates()):
        return None
    inside = any(path.startswith(f"{folder}/") for folder in (MODELS_DIR, CACHE_DIR, _IMAGE_DIR))
    if inside and not {"..", "."} & set(path.split("/")):
        return None
    where = f"the engine's container has no such file; write a path below {MODELS_DIR}/OWNER/NAME"
    templates = (
        f" or {TEMPLATES}, the template's own text, or one of vLLM's: {', '.join(sorted(chat_templates()))}"
    )
    return where + (templates if place == "chat-template" else "")


_SAFE_PATH = re.compile(
    r"(?:~|\.{1,2})?/[A-Za-z0-9._/-]{0,30}"
    r"|/(?:models|cache|vllm-workspace|etc|root|home|tmp|srv|data|mnt|opt|usr|var)/[A-Za-z0-9._/-]{0,100}"
)


def _shown(spec: Spec, value: object) -> str:
    """The value for an error text. Text that is none of a few harmless kinds may be a secret, and is not shown."""
    if isinstance(value, dict | list):
        return f"{'a' if value else 'an empty'} {'map' if isinstance(value, dict) else 'list'}"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    harmless = r"[A-Za-z0-9_.-]{1,12}" if "choices" in spec else r"[A-Za-z]{1,12}|[0-9.,+-]{1,12}[A-Za-z]?"
    choices = [str(choice) for choice in spec.get("choices", ())]
    if re.fullmatch(harmless, value.strip()) or _SAFE_PATH.fullmatch(value):
        return repr(value)
    if difflib.get_close_matches(value, choices, n=1):
        return repr(value)
    return "a text that is not shown, as it may be a secret"
