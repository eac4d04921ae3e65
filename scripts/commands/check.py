"""`scripts/check [stack] [--client NAME]`: the acceptance checks, against a stack that is deployed."""

import argparse

from checks.endpoint import run
from scripts.commands.deployed import outputs_of
from scripts.commands.errors import CommandError
from scripts.commands.stacks import DEFAULT_STACK, stack_settings
from scripts.commands.target import client_target


def main(arguments: list[str]) -> int:
    """Status 0 when every check passes."""
    parser = argparse.ArgumentParser(prog="scripts/check", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK)
    parser.add_argument("--client", help="whose key and address to use; the first that can reach it unless given")
    options = parser.parse_args(arguments)
    settings = stack_settings(options.stack)
    client = options.client or settings.proving_client()
    if client not in settings.clients:
        raise CommandError(f"there is no client {client!r}; known: {', '.join(settings.clients)}")
    if settings.domain is None and settings.local_source(client) is None:
        raise CommandError(
            f"{client} sends from {settings.clients[client].cidrs}, not from here; check it from there"
        )
    passed = True
    target = client_target(settings, outputs_of(options.stack), client)
    print(f"{target.base_url} as {client}, from {target.source or 'here'}")
    for verdict in run(target):
        passed = passed and verdict.passed
        print(f"{'ok    ' if verdict.passed else 'FAILED'} {verdict.name}: {verdict.detail}", flush=True)
    return 0 if passed else 1
