"""What a stack asks the engine for, as YAML that is held against a file: `golden/STACK.yaml`, one for each stack.

A file has every resource by its name, with all inputs, the options, and what is waited for. `after` has the names
of the inputs that a value comes in by; with none of them it is order alone. `rights` are the modes that a program
gives to files, and what the containers that it runs may do and see. `unknown in a preview` has the inputs that are
not known before the first `up`. In place of what has to stay out of a file, or would change it for nothing:

    <secret>    marked as a secret          <text>      a program; see `rights`
    <unknown>   not known yet               <digest>    of files, options and keys
    <ssh>       the command at the top      <week>      the week of the year
    <project>   the folder of this checkout

Where a change is meant: `pytest --update-goldens tests/unit/test_program.py tests/unit/test_aws_program.py` writes
the files. A test that had something to write fails all the same: look at the difference, and run it again.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from google.protobuf import json_format  # type: ignore[import-untyped]

from tests.conftest import COMMAND, PROJECT, SECRET, SIGNATURE, UNKNOWN, opened

if TYPE_CHECKING:
    from tests.conftest import Recorded, Registered

FOLDER = Path(__file__).resolve().parent / "golden"

NO_OPTIONS = {
    "acceptResources", "acceptSecrets", "custom", "deleteBeforeReplaceDefined", "hooks", "stackTrace",
    "supportsPartialValues", "supportsResultReporting", "version", "deletedWith", "dependencies", "name", "object",
    "parent", "propertyDependencies", "provider", "providers", "type",
}  # fmt: skip
"""Parts of a request that the SDK chooses, and those that are shown apart."""
TEXTS = {"stdin", "userDataBase64"}
"""Inputs that are programs."""
RIGHTS = re.compile(
    r"""\b(?:umask|chmod)\ +(?:-R\ +)?[-+=,0-7augorwxX]+
    |--(?:cap-add|cap-drop|security-opt|network|pids-limit|user|volume|device|gpus)[ =](?:"[^"]*"|'[^']*'|\S)+
    |--(?:privileged|read-only)\b""",
    re.VERBOSE,
)
"""What of a program's text says who may do what."""
OF_FILES = {"triggers", "seatable-vllm.config"}
"""Inputs with digests in them, and with the week."""
SETS = {"adds", "drops", "envs", "ignoreChanges", "replaceOnChanges", "additionalSecretOutputs"}
"""Lists without an order."""

Described = dict[str, Any]


def stacks_of(kind: str) -> list[str]:
    """The names of the stack files whose machine is of this kind."""
    found = []
    for path in sorted(PROJECT.glob("Pulumi.*.yaml")):
        config = yaml.safe_load(path.read_text()).get("config") or {}
        if (config.get("seatable-vllm:machine") or {}).get("kind", "local") == kind:
            found.append(path.name.split(".")[1])
    return found


def compare(file: str, up: Recorded, preview: Recorded, *, update: bool, only: str = "") -> str:
    """What the program asks for otherwise than the file says, for people; empty where there is nothing.

    only: how the types begin that count, if not all of them do.
    """
    path = FOLDER / file
    found = described(up, preview, only)
    golden = yaml.safe_load(path.read_text()) if path.exists() else {}
    told = "\n".join(differences(golden, found))
    if not told:
        return ""
    if update:
        path.write_text(written(found))
        return f"{file} is written anew; look at its difference and run again:\n{told}"
    return (
        f"the program asks for something else than tests/unit/golden/{file} says (-: the file, +: the program)\n"
        f"{told}\n"
        "Where it is meant, run again with --update-goldens. What has another name is made anew and the old one\n"
        "removed, unless it has an alias."
    )


def described(up: Recorded, preview: Recorded, only: str = "") -> Described:
    """Every resource by its name, and the way to the machine if there is one."""
    everything: Described = {}
    for resource in up.resources:
        if resource.type.startswith(only):
            told = _resource(resource)
            unknown = sorted(set(_unknown(_inputs(preview.one(resource.name)))))
            if unknown:
                told["unknown in a preview"] = unknown
            everything[resource.name] = told
    ways = {prefix for resource in up.of_type(COMMAND) for prefix in _ways(resource)}
    if ways and not only:
        assert len(ways) == 1, f"two ways to a machine: {ways}"
        everything["<ssh>"] = shlex.split(ways.pop())
    return dict(sorted(everything.items()))


def written(everything: Described) -> str:
    """As the text of a file."""
    return yaml.dump(everything, Dumper=_Dumper, width=10_000, sort_keys=False)


def differences(golden: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people: each resource and input that differs, and how."""
    for name in sorted({*golden, *found}):
        if name not in golden or name not in found:
            side, of_it = ("-", golden[name]) if name in golden else ("+", found[name])
            yield f"{side} {name}, all of it" + (f", a {of_it['type']}" if "type" in of_it else "")
            continue
        old, new = dict(_leaves(golden[name])), dict(_leaves(found[name]))
        for place in sorted({*old, *new}):
            if old.get(place) != new.get(place):
                yield f"{name}: {place}" if place else name
                lines = difflib.ndiff(_lines(old.get(place)), _lines(new.get(place)))
                yield from (f"    {line}" for line in lines if line[0] in "-+")


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield place, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{place}.{key}" if place else str(key))


def _lines(value: Any) -> list[str]:
    items = value if isinstance(value, list) and value else [] if value is None else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _resource(resource: Registered) -> Described:
    request = json_format.MessageToDict(resource.request)
    options = {key: value for key, value in request.items() if value and key not in NO_OPTIONS}
    by_input = {name: each.urns for name, each in resource.request.propertyDependencies.items()}
    told = {
        "type": resource.type,
        "parent": _name(resource.request.parent),
        "provider": _name(resource.request.provider.rpartition("::")[0]),
        "deleted with": _name(resource.request.deletedWith),
        "options": _shown(options),
        "after": {
            _name(urn): sorted(name for name, urns in by_input.items() if urn in urns)
            for urn in sorted(resource.request.dependencies, key=_name)
        },
        "inputs": _inputs(resource),
        "rights": [_text(each, "") for each in RIGHTS.findall("\n".join(_programs(resource)))],
    }
    return {key: value for key, value in told.items() if value}


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _inputs(resource: Registered) -> Described:
    inputs: Described = _shown(dict(resource.wire))
    for way in _ways(resource):
        inputs |= {key: value.replace(way, "<ssh> ") for key, value in inputs.items() if isinstance(value, str)}
    return inputs


def _programs(resource: Registered) -> Iterator[str]:
    """The text of a resource's program, and of each file that lies in it in base64."""
    program = str(opened(resource.wire.get("stdin")))
    yield program
    for blob in re.findall(r"[A-Za-z0-9+/]{32,}={0,2}", program):
        with suppress(binascii.Error, UnicodeDecodeError):
            yield base64.b64decode(blob, validate=True).decode()


def _ways(resource: Registered) -> set[str]:
    """What goes before a program's interpreter, where that is on another machine."""
    told = [str(resource.wire.get(event)) for event in ("create", "update", "delete")]
    return {each[: each.rindex(" '") + 1] for each in told if each.startswith("ssh ")}


def _shown(value: Any, key: str = "") -> Any:
    """A value of the wire format as it stands in a file."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return "<secret>"
        return {name: _shown(item, name) for name, item in sorted(value.items())}
    if isinstance(value, list):
        if key == "labels":
            return _shown({each["label"]: each["value"] for each in value})
        items = [_shown(item, key) for item in value]
        return sorted(items) if key in SETS else items
    return _text(value, key) if isinstance(value, str) else opened(value)


def _text(value: str, key: str) -> Any:
    if value == UNKNOWN:
        return "<unknown>"
    if key in TEXTS:
        return "<text>"
    if key in OF_FILES and re.fullmatch(r"[0-9a-f]{12}", value):
        return "<digest>"
    if key in OF_FILES and re.fullmatch(r"\d{4}-W\d\d", value):
        return "<week>"
    if value.startswith(("{", '["')):
        return _shown(json.loads(value))
    return value.replace(str(PROJECT), "<project>")


def _unknown(value: Any, place: str = "") -> Iterator[str]:
    """Where within the inputs something is not known."""
    for inner, leaf in _leaves(value, place):
        if "<unknown>" in str(leaf):
            yield inner


class _Dumper(yaml.SafeDumper):
    """Short lists and mappings on one line, all others with a line for each item."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = _is_short(sequence)
        return node

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = _is_short(mapping)
        return node


def _is_short(value: Any) -> bool:
    return len(json.dumps(value)) <= 90
