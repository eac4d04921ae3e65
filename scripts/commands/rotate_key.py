"""`scripts/rotate-key CLIENT [--stack STACK] [--finish]`: a client's next key beside the old, then the old away.

Nothing restarts. Between the two calls both keys are valid, so that the client can be changed in peace.
"""

import argparse

from scripts.commands import up
from scripts.commands.errors import CommandError
from scripts.commands.shown_keys import add_show_secrets
from scripts.commands.stacks import DEFAULT_STACK, set_in_stack_file, stack_settings


def main(arguments: list[str]) -> int:
    """Status 0 when the keys in force are the ones asked for."""
    parser = argparse.ArgumentParser(prog="scripts/rotate-key", description=__doc__)
    parser.add_argument("client", help="the client's name in seatable-vllm:clients")
    parser.add_argument("--stack", default=DEFAULT_STACK, help="the client's stack (%(default)s)")
    parser.add_argument("--finish", action="store_true", help="take the old key out")
    parser.add_argument("--rehearse", action="store_true", help="without the Pulumi CLI, even where there is one")
    parser.add_argument("--verbose", action="store_true", help="show all that the engine and its resources say")
    add_show_secrets(parser)
    options = parser.parse_args(arguments)
    settings = stack_settings(options.stack)
    if options.client not in settings.clients:
        raise CommandError(f"there is no client {options.client!r}; known: {', '.join(settings.clients)}")
    generations = next_generations(settings.generations(options.client), finish=options.finish)
    if generations is None:
        again = f"scripts/rotate-key {options.client} --stack {options.stack}"
        print(f"{options.client} has one key, so there is no old one to take out; {again} makes the next one")
        return 1
    set_in_stack_file(options.stack, ("key_generations", options.client), generations)
    passed_on = [
        *["--rehearse"] * options.rehearse,
        *["--verbose"] * options.verbose,
        *["--show-secrets"] * options.show_secrets,
    ]
    status = up.main([options.stack, *passed_on])
    if not options.finish:
        print(
            f"\nboth keys of {options.client} are valid. Give it its new settings (scripts/output {options.stack}"
            f" clients), then: scripts/rotate-key {options.client} --stack {options.stack} --finish"
        )
    return status


def next_generations(present: list[int], *, finish: bool) -> list[int] | None:
    """The generations after this step: a second one begins a rotation, the newest alone ends it.

    None where there is nothing to finish. A rotation under way is begun only once: a second call changes nothing.
    """
    if finish:
        return present[-1:] if len(present) > 1 else None
    return present if len(present) > 1 else [present[-1], present[-1] + 1]
