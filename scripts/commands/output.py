"""`scripts/output [stack] [NAME] [--json] [--show-secrets]`: what `pulumi stack output` prints.

An output that is named is printed whole. All of them together are printed with their keys on a terminal, or with
--show-secrets."""

import argparse
import json

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
        print(json.dumps(value, indent=2))
    elif name is not None:
        print(value if isinstance(value, str) else json.dumps(value, indent=2), end="" if _ends(value) else "\n")
    else:
        for each, content in outputs.items():
            text = content if isinstance(content, str) else json.dumps(content)
            print(f"{each}: {text.rstrip()}" if "\n" not in text.rstrip() else f"{each}:\n{text.rstrip()}")
    return 0


def _split(words: list[str]) -> tuple[str, str | None]:
    """Stack and output name; a single word is a stack where one has that name."""
    if len(words) > 2:
        raise CommandError("give a stack, the name of an output, or both: scripts/output local seatable_env")
    if not words:
        return DEFAULT_STACK, None
    if len(words) == 1:
        return (words[0], None) if words[0] in stack_names(PROJECT) else (DEFAULT_STACK, words[0])
    return words[0], words[1]


def _ends(value: object) -> bool:
    return isinstance(value, str) and value.endswith("\n")
