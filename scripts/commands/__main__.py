"""Runs one command: `python -m scripts.commands NAME ...`, as scripts/NAME does."""

import importlib
import os
import sys

from rehearsal.errors import RehearsalError
from scripts.commands.errors import CommandError
from settings import SettingsError

INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """The command's exit status. What a user can mend is told in words; a stack trace is a defect of ours."""
    command = importlib.import_module(f"scripts.commands.{arguments[0].replace('-', '_')}")
    try:
        return int(command.main(arguments[1:]))
    except (CommandError, RehearsalError, SettingsError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on from here", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status == INTERRUPTED:
        # The loop and the threads of what was under way are in no state to be taken down in order, nor waited for.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
