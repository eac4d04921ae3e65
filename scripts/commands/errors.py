"""The one kind of failure that commands report without a stack trace."""


class CommandError(Exception):
    """A command could not do what it was asked. The text says what happened and what to do.

    whole: everything that the failure left to read, for a log; the text itself where there is nothing else.
    """

    def __init__(self, text: str, whole: str | None = None) -> None:
        super().__init__(text)
        self.whole = text if whole is None else whole


def failure(cause: str, change: str) -> CommandError:
    """The failure of a step before the program runs, in the form that the program's own failures have."""
    return CommandError(f"cause: {cause}\nchange: {change}")
