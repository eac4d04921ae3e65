"""`scripts/check [stack] [--client NAME] [--file FILE]`: the acceptance checks against a deployed stack."""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from checks.endpoint import Target, run
from scripts.commands.check_cache import cache_line
from scripts.commands.client_file import look_through
from scripts.commands.deployed import outputs_of
from scripts.commands.errors import CommandError
from scripts.commands.places import host_of
from scripts.commands.stacks import DEFAULT_STACK, stack_settings
from scripts.commands.target import client_target
from settings import Settings

TUNNEL_END = "127.0.0.1"
"""Where the edge sees requests come from that come through a tunnel."""


def main(arguments: list[str]) -> int:
    """Status 0 when every check passes, or a client's settings file suits the endpoint."""
    parser = argparse.ArgumentParser(prog="scripts/check", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK)
    parser.add_argument("--client", help="whose key and address to use; the first that can reach it unless given")
    parser.add_argument(
        "--file", type=Path, help="look through this settings file of the client (PicoClaw, Archi)"
    )
    options = parser.parse_args(arguments)
    settings = stack_settings(options.stack)
    client = options.client or settings.proving_client()
    if client not in settings.clients:
        raise CommandError(f"there is no client {client!r}; known: {', '.join(settings.clients)}")
    if options.file:
        return look_through(options.file, settings.clients[client].kind, outputs_of(options.stack), client)
    if settings.domain is None and settings.local_source(client) is None:
        raise CommandError(
            f"{client} sends from {settings.clients[client].cidrs}, not from here; check it from there"
        )
    outputs = outputs_of(options.stack)
    target = client_target(settings, outputs, client)
    with reaching(options.stack, settings, target) as within_reach:
        status = _check(within_reach, client)
    machine = outputs.get("machine")
    device = str(machine.get("device")) if isinstance(machine, dict) else "gpu"
    if line := cache_line(options.stack, settings, device):
        print(f"held   {line}")
    return status


@contextlib.contextmanager
def reaching(stack: str, settings: Settings, target: Target) -> Iterator[Target]:
    """The endpoint as it is reached from here: through a tunnel, where that is the only way to a machine.

    CommandError where the client may not come from the tunnel's other end.
    """
    host = None if settings.domain else host_of(stack, settings)
    if host is None:
        yield target
        return
    if target.source != TUNNEL_END:
        raise CommandError(
            f"this client sends from {target.source or 'elsewhere'}, and the edge sees the end of the tunnel that "
            f"this command opens as {TUNNEL_END}. Check it from there, or name a client with {TUNNEL_END}/32"
        )
    with host.forwarded(settings.ports.edge) as (_, port):
        yield dataclasses.replace(target, base_url=f"http://127.0.0.1:{port}/v1", source=None)


def _check(target: Target, client: str) -> int:
    passed = True
    print(f"{target.base_url} as {client}, from {target.source or 'here'}")
    for verdict in run(target):
        passed = passed and verdict.passed
        detail = verdict.detail.replace(target.key, "***")  # an answer may repeat what it was asked with
        word = "ok    " if verdict.passed else "skipped" if verdict.skipped else "FAILED"
        print(f"{word} {verdict.name}: {detail}", flush=True)
    return 0 if passed else 1
