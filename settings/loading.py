"""From the values of a stack's file to its settings, with every problem told at once."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from settings.aws import AwsMachine
from settings.domain import NEEDED_BY
from settings.machines import KINDS, HostMachine, LocalMachine
from settings.stack import Ports, Settings
from settings.words import SSH_FORM, RulesError

NAMESPACE = "seatable-vllm"

SECRETS = frozenset({"hugging_face_token", "aws_access_key_id", "aws_secret_access_key"})
"""Keys of the namespace that hold a secret; they are read as Pulumi secrets, never by `parse`."""


LONGEST_SHOWN = 120
"""Characters of a value that an error text repeats."""


class SettingsError(Exception):
    """A stack's configuration cannot be used. The text lists every problem with its key and the way out."""


def parse(values: Mapping[str, object]) -> Settings:
    """The settings of a stack from its configuration, keys without their namespace.

    Raises SettingsError with one line per problem: key, value, way out.
    """
    names = sorted({*Settings.model_fields, *SECRETS})
    problems = [f"{NAMESPACE}:{key}: {_no_such(key, names)}" for key in values if key not in names]
    problems += _half_a_pair(values)
    known = {key: value for key, value in values.items() if key in Settings.model_fields}
    machine = known.get("machine")
    if isinstance(machine, dict) and "kind" not in machine and (meant := _kind_meant(machine)):
        problems.append(f"{NAMESPACE}:machine.kind: missing; write kind: {meant}, whose settings are here")
        known["machine"] = {**machine, "kind": meant}
    settings, errors = _validate(known)
    errors = _of_its_kind(errors)
    problems += [line for error in errors for line in _explain(error)]
    if errors:
        # Rules over several settings are not tried while one of them is broken; try them on the rest.
        _, more = _validate(_without(known, errors))
        problems += [line for error in more if error["type"] == "value_error" for line in _explain(error)]
    if problems or settings is None:
        raise SettingsError("\n".join(["the stack's configuration cannot be used:", *dict.fromkeys(problems)]))
    return settings


def _no_such(name: str, known: Sequence[str]) -> str:
    """What is said of a key that nobody knows."""
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"there is no such setting; {f'write {near[0]}, or ' if near else ''}remove it; known: {', '.join(known)}"
    )


_KIND_MODELS: Mapping[str, type[BaseModel]] = {"local": LocalMachine, "host": HostMachine, "aws": AwsMachine}


def _kind_meant(section: Mapping[str, object]) -> str | None:
    """The kind of machine that most of these settings are of and `local` does not have; None where none is."""
    own = {
        kind: len((section.keys() & model.model_fields.keys()) - LocalMachine.model_fields.keys())
        for kind, model in _KIND_MODELS.items()
    }
    best = max(own, key=lambda kind: own[kind])
    return best if own[best] else None


def _half_a_pair(values: Mapping[str, object]) -> Iterable[str]:
    """The problem of one AWS secret without the other."""
    pair = ("aws_access_key_id", "aws_secret_access_key")
    for name, other in (pair, pair[::-1]):
        if name in values and other not in values:
            yield (
                f"{NAMESPACE}:{other}: missing, and {name} is useless without it; "
                f"scripts/secret {other} --stack STACK"
            )


def _validate(values: Mapping[str, object]) -> tuple[Settings | None, list[Any]]:
    """The settings, or the errors that pydantic found."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        return None, list(error.errors())


def _of_its_kind(errors: Sequence[Any]) -> list[Any]:
    """The errors without settings that are unknown only because the machine's kind is."""
    unknown = any(_place(error) == ["machine", "kind"] for error in errors)
    return [
        error
        for error in errors
        if not (unknown and error["type"] == "extra_forbidden" and _place(error)[0] == "machine")
    ]


_SOME_MACHINES: Mapping[str, Mapping[str, object]] = {
    "local": {"kind": "local"},
    "host": {"kind": "host", "ssh": "some@some.example"},
    "aws": {"kind": "aws", "instance_types": ["some.type"], "admin_cidrs": ["198.51.100.1/32"]},
}
"""A machine of each kind that breaks no rule."""


def _some_machine(section: object) -> Mapping[str, object]:
    """A machine of the kind that is meant, so that rules between it and other settings go by that."""
    given = section if isinstance(section, dict) else {}
    if given.get("kind") in _SOME_MACHINES:
        return _SOME_MACHINES[given["kind"]]
    near = difflib.get_close_matches(str(given.get("kind")), _SOME_MACHINES, n=1)
    return _SOME_MACHINES[near[0] if near else _kind_meant(given) or "local"]


def _without(values: Mapping[str, object], errors: Sequence[Any]) -> dict[str, object]:
    """The values without those that are broken, so that no rule complains of what is not there any more.

    Where a rule asks for a value that is broken, one that breaks no rule stands in for it.
    """
    left: dict[str, Any] = copy.deepcopy(dict(values))
    for error in errors:
        first, *inner = _place(error) or [""]
        section = left.get(first)
        if first == "domain" and isinstance(section, dict):
            stand_in = _SOME_DOMAIN_SETTINGS.get(inner[0]) if inner else None
            if stand_in and section.get("tls") in NEEDED_BY:
                section[inner[0]] = stand_in
            else:
                left["domain"] = dict(_SOME_DOMAIN)
        elif first == "machine" and (not inner or inner == ["kind"]):
            left["machine"] = dict(_some_machine(section))
        elif not inner or not isinstance(section, dict):
            left.pop(first, None)
        elif first == "ports" and inner[0] in Ports.model_fields:
            section[inner[0]] = next(port for port in range(65535, 0, -1) if port not in section.values())
        elif first == "clients":
            misnamed = any(each["loc"][:3] == ("clients", inner[0], "[key]") for each in errors)
            # Where there is a domain, a machine on AWS must not be reached from itself, and else has to be.
            some = {"kind": "openai", "cidrs": ["198.51.100.1/32" if values.get("domain") else "127.0.0.1/32"]}
            section["some" if misnamed else inner[0]] = some
            if misnamed:
                section.pop(inner[0], None)
        elif inner[0] == "extra_args" and len(inner) > 1 and isinstance(section.get("extra_args"), dict):
            section["extra_args"].pop(inner[1], None)
        elif (first, inner[0]) in _STAND_INS:
            section[inner[0]] = _STAND_INS[first, inner[0]]
        else:
            section.pop(inner[0], None)
    return left


_SOME_DOMAIN = {"host": "some.example", "tls": "private-ca"}
_SOME_DOMAIN_SETTINGS = {
    "acme_email": "some@example.com",
    "acme_server": "https://some.example",
    "certificate": "some",
    "key": "some",
    "acme_ca": "some",
}
"""A domain that breaks no rule, and settings of one that break none whatever its host is."""

_STAND_INS: Mapping[tuple[str, str], object] = {
    ("model", "name"): "some/model",
    ("model", "revision"): "some",
    ("machine", "instance_types"): ["some.type"],
    ("machine", "admin_cidrs"): ["198.51.100.1/32"],
}
"""A model whose limits are not known, a revision, what a machine on AWS needs: with them no rule complains."""


def _place(detail: Any) -> list[str]:
    """Where an error is, as the stack file has it: pydantic adds the kind of machine whose rules it went by."""
    first, *inner = [str(part) for part in detail["loc"]] or [""]
    if first == "machine" and inner and inner[0] in KINDS:
        inner = inner[1:]
    if first == "machine" and inner[:1] == ["gpus"]:
        inner = inner[:1]
    return [first, *inner] if first else []


def _explain(detail: Any) -> Iterable[str]:
    """One line per problem of a pydantic error: full key, value where it is safe to show, way out."""
    path = [part for part in _place(detail) if part != "[key]"]
    key = f"{NAMESPACE}:" + ".".join(path)
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, RulesError):
        return [f"{key}.{line}" if path else f"{key}{line}" for line in str(error).splitlines()]
    return [f"{key}: {_reason(detail, path)}"]


def _reason(detail: Any, path: list[str]) -> str:
    """What is wrong with one value, and the way out."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return f"missing; {_FORMS[path[-1]]}"
    if kind == "extra_forbidden":
        others = [each for each, model in _KIND_MODELS.items() if path[-1] in model.model_fields]
        if path[:-1] == ["machine"] and others:
            return f"is for a machine of kind {' or '.join(others)}, not {detail['loc'][1]}; remove it"
        return _no_such(path[-1], _known_beside(detail["loc"]))
    shown = _shown(detail, path)
    if kind == "value_error":
        return f"{shown} {context['error']}"
    if path[:2] == ["machine", "kind"]:
        return f"{shown} is not a kind of machine that this version has; use local, host or aws"
    way_out = _WAYS_OUT[kind].format(**context) if kind in _WAYS_OUT else detail["msg"]
    return f"{shown}: {way_out}"


def _known_beside(place: Sequence[str | int]) -> list[str]:
    """The settings that there are where an unknown one stands."""
    trees: list[type[BaseModel]] = [Settings]
    for part in place[:-1]:
        inner = [tree.model_fields[str(part)].annotation for tree in trees if part in tree.model_fields]
        if inner:
            trees = [tree for annotation in inner for tree in _trees_in(annotation)]
        elif part in _KIND_MODELS:
            trees = [_KIND_MODELS[str(part)]]
        # Else it is the name of a client, or a place in a list.
    return sorted({name for tree in trees for name in tree.model_fields})


def _trees_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _trees_in(part)


_MAP = "write a map, such as {{name: value}}"
_INTEGER = "write a whole number, without quotes or unit"

_WAYS_OUT: Mapping[str, str] = {
    "dict_type": _MAP,
    "model_type": _MAP,
    "list_type": "write a list, such as [one, another]",
    "string_type": 'write text; digits alone want quotes, such as "1234"',
    "int_type": _INTEGER,
    "int_from_float": _INTEGER,
    "bool_type": "write true or false",
    "literal_error": "use {expected}",
    "greater_than_equal": "write {ge} or more",
    "less_than_equal": "write {le} or less",
    "too_short": "name at least {min_length}",
    "too_long": "name at most {max_length}",
}
"""What is said in place of pydantic's words, which are for programmers. By the type of its error."""

_FORMS = {
    "kind": "write seatable, openai, picoclaw or archi",
    "cidrs": 'name the networks that it sends from, such as ["198.51.100.10/32"]',
    "provider": "write the name that PicoClaw has for it, such as openrouter",
    "model": "write the provider's id of the model",
    "host": "write the name that clients use, such as llm.example.com",
    "tls": "write private-ca, files, acme-dns or acme-http",
    "ssh": SSH_FORM,
    "instance_types": "name them in order of preference, such as [g6.xlarge, g5.xlarge]",
    "instance_type": "write the instance type, or remove machine.placed",
    "zone": "write the availability zone, or remove machine.placed",
    "usd_per_month": "write the limit in US dollars",
    "mail": "write the address that gets the mail",
}
"""What is said of a setting that cannot be left out."""


def _shown(detail: Any, path: list[str]) -> str:
    """The offending value for an error text; what may hold a secret is named by its type, what is long is cut."""
    value = detail["input"]
    if value is None:
        return "an empty value"
    if isinstance(value, str) and "-----BEGIN " in value:
        return "a text in PEM"  # it may be a key
    if isinstance(value, dict | list):
        return f"{'a' if value else 'an empty'} {'map' if isinstance(value, dict) else 'list'}"
    with_password = isinstance(value, str) and "://" in value and "@" in value
    if not isinstance(value, str | int | float) or path[:2] == ["model", "extra_args"] or with_password:
        return f"a value of type {type(value).__name__}"
    shown = repr(value)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
