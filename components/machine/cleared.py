"""The end of a stack on a machine that stays: keys, configuration and timer go after the containers."""

import json
from typing import TypedDict

import pulumi
import pulumi_command as command

from checks.bundle import folder_program

NOTHING = "true"
"""What is run when the stack is made or changed. It never changes, so nothing but the end runs anything."""


class FolderOrder(TypedDict):
    """A stack's data directory, as `checks.data_folder.Order` has it."""

    data: str
    """Its absolute path on the machine."""
    stack: str
    """The stack's name."""
    owner: str | None
    """What its state alone has; None where there is no state."""
    ours: bool
    """Whether the place alone says that it is the stack's."""


def clear_program(order: FolderOrder, *, purge: bool = False) -> str:
    """A Python program that removes from the data directory what the stack made there: keys and configuration.

    The certificate's timer goes too. purge: weights, caches and certificates as well.
    """
    unit = f"seatable-vllm-{order['stack']}-certificate"
    return folder_program(json.dumps({**order, "do": "purge" if purge else "clear", "unit": unit}))


class ClearedArgs(TypedDict):
    """What is cleared, and how."""

    folder: pulumi.Input[FolderOrder]
    """The data directory."""
    interpreter: pulumi.Input[str]
    """A line for a local shell that runs the Python program on its standard input on the machine."""
    environment: dict[str, str] | None
    """Variables for it, or None."""


def cleared(
    name: str, args: ClearedArgs, *, parent: pulumi.Resource, depends_on: list[pulumi.Resource]
) -> pulumi.Resource:
    """The resource whose removal clears the machine; whatever is to be gone before must depend on it.

    It has no triggers: replacing it would clear the machine under the running stack.
    """
    return command.local.Command(
        name,
        create=NOTHING,
        delete=args["interpreter"],
        stdin=pulumi.Output.from_input(args["folder"]).apply(clear_program),
        environment=args["environment"],
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=depends_on),
    )
