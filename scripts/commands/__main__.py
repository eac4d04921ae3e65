"""Runs one command: `python -m scripts.commands NAME ...`, as scripts/NAME does."""

import contextlib
import importlib
import os
import signal
import sys

from rehearsal.errors import RehearsalError
from scripts.commands.errors import CommandError
from scripts.commands.interrupts import SIGNALLED, Interrupted, interrupted_in, raise_interrupted, status_of
from settings import SettingsError


def main(arguments: list[str]) -> int:
    """The command's exit status. What a user can mend is told in words; a stack trace is a defect of ours."""
    command = importlib.import_module(f"scripts.commands.{arguments[0].replace('-', '_')}")
    # Ended by `kill`, a command says as much as after Ctrl-C; one that changes a stack by Pulumi looks after both.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, raise_interrupted)
    try:
        return int(command.main(arguments[1:]))
    except (CommandError, RehearsalError, SettingsError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as last:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is to say so
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopped = interrupted_in(last)
        own = str(stopped) if isinstance(stopped, Interrupted) else ""
        with contextlib.suppress(OSError):  # the terminal may be what has ended
            print(f"\n{own or 'stopped; run it again to go on from here'}", file=sys.stderr)
        return status_of(stopped)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status > SIGNALLED:
        # The loop and the threads of what was under way are in no state to be taken down in order, nor waited for.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
