"""`scripts/secret NAME [--stack STACK]`: asks for a secret setting and keeps it, encrypted, in the stack's file.

It may be given on standard input too. `pulumi config set --secret` does the same, where Pulumi has a login.
"""

import argparse
import getpass
import sys

from rehearsal.stack_file import stack_file
from scripts.commands.errors import failure
from scripts.commands.pulumi_cli import find_cli
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.stacks import DEFAULT_STACK, PROJECT
from scripts.commands.terminal import Terminal
from settings import SECRETS


def main(arguments: list[str]) -> int:
    """Status 0 when the stack's file has it."""
    parser = argparse.ArgumentParser(prog="scripts/secret", description=__doc__)
    parser.add_argument(
        "name", choices=sorted(SECRETS), metavar="NAME", help=f"one of {', '.join(sorted(SECRETS))}"
    )
    parser.add_argument("--stack", default=DEFAULT_STACK, help="the stack it is for (%(default)s)")
    options = parser.parse_args(arguments)
    stack_file(options.stack, PROJECT)
    given = getpass.getpass(f"{options.name}: ") if sys.stdin.isatty() else sys.stdin.read()
    value = given.strip()
    if not value or len(value.split()) > 1:
        raise failure(
            f"what was given is no {options.name}: it is empty, or has spaces in it",
            "run this again and paste the value alone",
        )
    terminal = Terminal()
    cli_root = find_cli(terminal)
    if cli_root is None:
        raise failure(
            "secrets are encrypted by the Pulumi CLI, and there is none here",
            "put pulumi on PATH (www.pulumi.com/docs/install), then run this again",
        )
    PulumiEngine(options.stack, None, cli_root).keep_secret(options.name, value)
    terminal.line(
        f"{options.name} is in Pulumi.{options.stack}.yaml, encrypted; scripts/up {options.stack} uses it"
    )
    return 0
