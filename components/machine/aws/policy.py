"""What a stack that is marked `protected` has that others have not; the one place that decides it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Keeping:
    """How hard it is to lose the machine and what it holds.

    protect: Pulumi refuses to delete the data volume and the address. termination: EC2 refuses to end the
    instance. monitoring: EC2's metrics by the minute. at_end: what becomes of the data volume with the stack.
    """

    protect: bool
    termination: bool
    monitoring: bool
    at_end: Literal["delete", "snapshot", "retain"]


def keeping(protected: bool, at_end: Literal["delete", "snapshot", "retain"]) -> Keeping:
    """From the settings machine.protected and machine.data_disk.at_end."""
    return Keeping(protect=protected, termination=protected, monitoring=protected, at_end=at_end)
