"""A machine on AWS that was stopped is started before anything else; what keeps it from starting is explained."""

import time
from collections.abc import Callable

from catalog.aws.failures import answer_to
from scripts.commands.aws import AwsRefused, AwsStack, Instance, asking
from scripts.commands.errors import CommandError, failure
from scripts.commands.terminal import Terminal

LOOK_SECONDS = 5
"""Pause between two looks at an instance on its way."""

PATIENCE_SECONDS = 1200
"""How long a stop, and then a start, may take; large GPU machines take minutes to stop."""


def wake(stack: AwsStack, terminal: Terminal, sleep: Callable[[float], None] = time.sleep) -> None:
    """Returns when the stack's instance runs, or where there is none. CommandError where it does not start.

    Its address, its name and its data disk are those from before; its containers start by themselves.
    """
    instance = stack.aws.instance(stack.name)
    if instance is None or instance.state == "running":
        return
    with terminal.step(f"starting {instance.id} ({instance.instance_type} in {instance.zone})") as step:
        if instance.state == "stopping":
            instance = _wait(stack, "stopped", step.say, sleep)
        if instance.state == "stopped":
            _start(stack, instance)
        _wait(stack, "running", step.say, sleep)


def _wait(stack: AwsStack, state: str, say: Callable[[str], None], sleep: Callable[[float], None]) -> Instance:
    instance = None
    for _ in range(PATIENCE_SECONDS // LOOK_SECONDS):
        instance = stack.aws.instance(stack.name)
        if instance is None:
            raise failure(
                f"the instance of {stack.name} was terminated while it was waited for",
                f"see the EC2 console for who did it; scripts/up {stack.name} makes another",
            )
        if instance.state == state:
            return instance
        say(f"{instance.id} is {instance.state}")
        sleep(LOOK_SECONDS)
    raise failure(
        f"{instance.id if instance else stack.name} is not {state} after {PATIENCE_SECONDS // 60} minutes",
        "look at it in the EC2 console (State transition reason), then run this again",
    )


def _start(stack: AwsStack, instance: Instance) -> None:
    try:
        with asking(f"to start {instance.id}", "ec2:StartInstances"):
            stack.aws.ec2.start_instances(InstanceIds=[instance.id])
    except AwsRefused as refused:
        if answer_to(refused.code) != "next zone":
            raise
        volume = stack.aws.data_volume(stack.name)
        # A stopped machine keeps its disks and its address, not its place.
        raise CommandError(
            f"cause: AWS has no {instance.instance_type} free in {instance.zone} now ({refused.code})\n"
            f"change: run scripts/up {stack.name} again later: the machine starts as soon as there is room"
            + (f"\n{stack.how_to_move(volume)}" if volume else "")
        ) from None
