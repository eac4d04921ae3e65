"""Reads what `vllm serve` takes off its own parser and prints catalog/vllm_options.json.

It runs where that vLLM is, as in its image, and needs nothing else of this repository:

    docker run --rm -i --entrypoint python3 IMAGE - < catalog/vllm_parser.py > catalog/vllm_options.json

Where a fact comes from: names, negations, choices and the number of values from the parser; types and ranges from
the fields of vLLM's configuration classes that the parser is made from; names of parsers, formats and
architectures from their registries. The form of the file is described in catalog/vllm_options.py.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Spec = dict[str, Any]

_DEEPEST = 3
"""Maps in maps in an option; below that anything goes."""


def main() -> int:
    """Prints the file."""
    with contextlib.redirect_stdout(sys.stderr):  # what vLLM says while it is imported is no part of the file
        found = _found()
    print(_text(found))
    return 0


def _found() -> dict[str, Any]:
    version = importlib.import_module("vllm.version").__version__
    options, short, aliases = _options(_parser())
    for name, choices in _registered().items():
        options[name] |= {"choices": sorted(choices)}
    options["optimization-level"] = {
        "is": ["integer"],
        "choices": sorted(_of("vllm.config.vllm", "OptimizationLevel")),
    }
    return {
        "source": f"vLLM {version.split('+')[0]}, by catalog/vllm_parser.py",
        "options": options,
        "short": short,
        "aliases": aliases,
        "chat_templates": sorted(
            path.name
            for path in _of("vllm.transformers_utils.chat_templates.registry", "CHAT_TEMPLATES_DIR").glob(
                "*.jinja"
            )
        ),
        "architectures": sorted(_of("vllm.model_executor.models.registry", "ModelRegistry").get_supported_archs()),
    }


def _registered() -> dict[str, Iterable[str]]:
    """The choices of options whose values are names in a registry."""
    attention = ["auto", *_of("vllm.v1.attention.backends.registry", "AttentionBackendEnum").__members__]
    return {
        "attention-backend": attention,
        "mm-encoder-attn-backend": attention,
        "mamba-backend": _of("vllm.config.mamba", "MambaBackendEnum").__members__,
        "load-format": typing.get_args(_of("vllm.model_executor.model_loader", "LoadFormats")),
        "quantization": _of("vllm.model_executor.layers.quantization", "QUANTIZATION_METHODS"),
        "reasoning-parser": _of("vllm.reasoning", "ReasoningParserManager").list_registered(),
        "tool-call-parser": _of("vllm.tool_parsers", "ToolParserManager").list_registered(),
    }


def _of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _parser() -> argparse.ArgumentParser:
    """The parser, each option's help being the configuration class and field that it is made from."""
    arg_utils: Any = importlib.import_module("vllm.engine.arg_utils")
    cli_args = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    made: Callable[[Any], dict[str, dict[str, Any]]] = arg_utils.get_kwargs

    def marked(cls: Any) -> dict[str, dict[str, Any]]:
        return {
            name: {**kwargs, "help": f"{cls.__module__}:{cls.__qualname__}:{name}"}
            for name, kwargs in made(cls).items()
        }

    arg_utils.get_kwargs = marked
    flexible = _of("vllm.utils.argparse_utils", "FlexibleArgumentParser")
    parser: argparse.ArgumentParser = cli_args.make_arg_parser(flexible())
    return parser


def _options(parser: argparse.ArgumentParser) -> tuple[dict[str, Spec], dict[str, str], dict[str, str]]:
    """The options by long name; the long names by short one; the first long names by other ones."""
    options: dict[str, Spec] = {}
    short: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for action in parser._actions:  # argparse has no other way to list them
        names = [text.removeprefix("--") for text in action.option_strings if text.startswith("--")]
        if not names or names[0] == "help":
            continue
        first, *others = [name for name in names if not name.startswith("no-") or len(names) == 1]
        options[first] = _option(action)
        short |= {text.lstrip("-"): first for text in action.option_strings if not text.startswith("--")}
        aliases |= dict.fromkeys(others, first)
    return dict(sorted(options.items())), dict(sorted(short.items())), dict(sorted(aliases.items()))


def _option(action: argparse.Action) -> Spec:
    """What one option takes. The command line decides on its form, the field on its range."""
    field = _field(action.help or "")
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return {"is": ["switch"]}
    kind = _name_of(action.type)
    # vLLM shows names that may be added to (a plugin's) in place of the value's; here none can be.
    named = action.choices or (action.metavar if isinstance(action.metavar, list) else ())
    choices = [choice for choice in named if choice is not None]
    spec: Spec
    if choices:
        spec = {"is": [_FORMS[type(choices[0])]], "choices": sorted(choices)}
    elif kind == "parse_dataclass":
        spec = {name: value for name, value in field.items() if name in ("is", "keys")} | {"is": ["map"]}
    elif kind in ("loads", "union_dict_and_str"):
        spec = {"is": ["map", "text"] if kind == "union_dict_and_str" else ["map"]}
        spec |= {name: value for name, value in field.items() if name in ("keys", "values")}
    elif kind in ("int", "human_readable_int", "human_readable_int_or_auto"):
        spec = {"is": ["integer"]} | ({"suffix": True} if kind != "int" else {})
    elif kind == "float":
        spec = {"is": ["number"]}
    else:
        spec = {"is": ["text"]}
    bounds = {name: value for name, value in field.items() if name in ("gt", "ge", "lt", "le")}
    spec |= bounds
    if action.nargs in ("+", "*") or isinstance(action.nargs, int):
        return {"is": ["list"], "of": spec}
    return spec


def _name_of(kind: Any) -> str:
    """The name of a converter, whatever `optional_type` and `parse_type` have wrapped it in."""
    while (
        kind is not None
        and getattr(kind, "__closure__", None)
        and kind.__name__
        in (
            "_optional_type",
            "_parse_type",
        )
    ):
        inner = [cell.cell_contents for cell in kind.__closure__ if callable(cell.cell_contents)]
        kind = inner[0]
    return getattr(kind, "__name__", "str")


def _field(mark: str) -> Spec:
    """What the field behind an option takes; empty where the option is made from none."""
    try:
        module, cls, name = mark.split(":")
        return _fields(_of(module, cls), 0)[name]
    except (ValueError, KeyError, ModuleNotFoundError):
        return {}


def _fields(cls: Any, depth: int) -> dict[str, Spec]:
    """What each field of a configuration class takes, as it may be written in JSON."""
    hints = typing.get_type_hints(cls, include_extras=True)
    inner = getattr(cls, "__pydantic_fields__", {})
    found = {}
    for field in dataclasses.fields(cls):
        if not field.init or field.name.startswith("_"):
            continue
        spec = _spec(hints[field.name], depth)
        for limit in getattr(inner.get(field.name), "metadata", ()):
            spec |= _bounds(limit)
        found[field.name] = spec
    return found


_FORMS: Mapping[Any, str] = {bool: "switch", int: "integer", float: "number", str: "text"}


def _spec(hint: Any, depth: int) -> Spec:
    """What a type takes, as it may be written in JSON; {} for anything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        spec = _spec(arguments[0], depth)
        for limit in arguments[1:]:
            spec |= _bounds(limit)
        return spec
    if origin in (typing.Union, types.UnionType):
        return _either([_spec(each, depth) for each in arguments if each is not type(None)])
    if origin is typing.Literal:
        chosen = [each for each in arguments if each is not None]
        return {"is": [_FORMS[type(chosen[0])]], "choices": sorted(chosen)}
    if hint in _FORMS:
        return {"is": [_FORMS[hint]]}
    return _of_class(origin or hint, arguments, depth)


def _of_class(kind: Any, arguments: tuple[Any, ...], depth: int) -> Spec:
    """What a configuration class, a map or a sequence takes; {} for any other class, such as an enum's."""
    if not isinstance(kind, type):
        return {}
    if dataclasses.is_dataclass(kind):
        return {"is": ["map"], "keys": _fields(kind, depth + 1)} if depth < _DEEPEST else {"is": ["map"]}
    if issubclass(kind, dict):
        return {"is": ["map"]} | ({"values": _spec(arguments[1], depth)} if len(arguments) == 2 else {})
    if issubclass(kind, list | tuple | set):
        return {"is": ["list"]} | ({"of": _spec(arguments[0], depth)} if arguments else {})
    return {}


def _either(specs: list[Spec]) -> Spec:
    """What one of several types takes; choices hold only where they are all that there is."""
    if not all(specs):
        return {}
    merged: Spec = {"is": sorted({form for spec in specs for form in spec["is"]})}
    for name in ("keys", "of", "values"):
        given = [spec[name] for spec in specs if name in spec]
        if len(given) == 1 and sum(set(spec["is"]) <= {"list"} for spec in specs) <= 1:
            merged[name] = given[0]
    if all("choices" in spec for spec in specs):
        merged["choices"] = sorted({choice for spec in specs for choice in spec["choices"]})
    for name in ("gt", "ge", "lt", "le"):
        given = [spec[name] for spec in specs if name in spec]
        if len(specs) == 1 and given:
            merged[name] = given[0]
    return merged


def _bounds(limit: Any) -> Spec:
    """The range that a mark of pydantic's sets."""
    return {
        name: getattr(limit, name)
        for name in ("gt", "ge", "lt", "le")
        if isinstance(getattr(limit, name, None), int | float)
    }


def _text(found: Mapping[str, Any]) -> str:
    """JSON with a line per option and names filled up to the width of this repository."""
    parts = []
    for name, value in found.items():
        if isinstance(value, str):
            body = json.dumps(value)
        elif isinstance(value, list):
            body = "[\n" + _filled(json.dumps(each) for each in value) + "\n]"
        else:
            lines = (f"  {json.dumps(key)}: {json.dumps(each)}" for key, each in value.items())
            body = "{\n" + ",\n".join(lines) + "\n}"
        parts.append(f"{json.dumps(name)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _filled(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(names), 113, initial_indent="  ", subsequent_indent="  ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
