"""What can go wrong in a rehearsal, in words for the person at the terminal."""


class RehearsalError(Exception):
    """A rehearsal could not do what it was asked. The text needs no stack trace to be understood."""
