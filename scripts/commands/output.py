"""`scripts/output [stack] [NAME] [--json] [--show-secrets]`: what `pulumi stack output` prints.

An output that is named is printed whole. All of them together are printed with their keys on a terminal, or with
--show-secrets."""

import argparse
import json
from collections.abc import Mapping

from rehearsal.stack_file import stack_names
from scripts.commands.deployed import outputs_of
from scripts.commands.errors import CommandError
from scripts.commands.shown_keys import add_show_secrets, may_show_keys, without_keys
from scripts.commands.stacks import DEFAULT_STACK, PROJECT


def main(arguments: list[str]) -> int:
    """Prints one output as it is, or all of them."""
    parser = argparse.ArgumentParser(prog="scripts/output", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="[stack] [NAME]", help="a stack, the name of an output, or both"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_show_secrets(parser)
    options = parser.parse_args(arguments)
    stack, name = _split(options.words)
    outputs = outputs_of(stack)
    if name is not None and name not in outputs:
        raise CommandError(f"{stack} has no output {name!r}; it has: {', '.join(outputs)}")
    if name is None and not may_show_keys(options.show_secrets):
        outputs = {each: without_keys(content, outputs, stack, each) for each, content in outputs.items()}
    value = outputs if name is None else outputs[name]
    if options.json:
        print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    elif name is not None:
        print(one_line(value))
    else:
        print(table(outputs))
    return 0


def one_line(value: object) -> str:
    """An output as `pulumi stack output` has it: a text as it is, anything else as JSON in one line."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def table(outputs: Mapping[str, object]) -> str:
    """All outputs as `pulumi stack output` prints them."""
    width = max(map(len, ["OUTPUT", *outputs])) + 2
    margin = "\n" + " " * (4 + width)
    rows = [("OUTPUT", "VALUE"), *((name, one_line(outputs[name])) for name in sorted(outputs))]
    lines = [f"    {name:{width}}{text.replace(chr(10), margin)}" for name, text in rows]
    return "\n".join([f"Current stack outputs ({len(outputs)}):", *lines])


def _split(words: list[str]) -> tuple[str, str | None]:
    """Stack and output name; a single word is a stack where one has that name."""
    if len(words) > 2:
        raise CommandError("give a stack, the name of an output, or both: scripts/output local seatable_env")
    if not words:
        return DEFAULT_STACK, None
    if len(words) == 1:
        return (words[0], None) if words[0] in stack_names(PROJECT) else (DEFAULT_STACK, words[0])
    return words[0], words[1]
