"""The look at the AWS account that comes before all else: what is missing there, what will be made, its price."""

import json
import shlex
import sys
from pathlib import Path

import pulumi
import pulumi_command as command

from aws_account.request import request_of
from catalog.aws.preflight import Offer
from components.machine.aws.access import region_of
from components.machine.machine import last_line
from settings import AwsMachine, Settings, SettingsError

__all__ = ["Offer", "preflight"]

PROJECT = Path(__file__).resolve().parents[3]

PROGRAM = f"{shlex.quote(sys.executable)} -m aws_account.preflight"
"""Asked with this project's own Python. `aws_account.preflight` in a command tells it from other looks."""


def preflight(settings: Settings) -> Offer:
    """What the account offers, asked anew by every run and every preview; where it lacks something, the run ends.

    It is waited for: nothing of the stack is registered before every rule has passed, so a run that ends here has
    left nothing in the state.

    Raises SettingsError where the stack has no aws:region, or its machine is not on AWS.
    """
    machine = settings.machine
    if not isinstance(machine, AwsMachine):
        raise SettingsError(f"seatable-vllm:machine.kind: {machine.kind} is not made on AWS")
    wanted = request_of(
        settings,
        machine,
        stack=pulumi.get_stack(),
        region=region_of(machine),
        profile=pulumi.Config("aws").get("profile"),
    )
    seen = command.local.run(
        command=f"{PROGRAM} || true",  # of a command that fails Pulumi shows a stack trace of its own
        stdin=json.dumps(wanted),
        dir=str(PROJECT),
        logging=command.local.Logging.NONE,  # it would show lines for a moment only
    )
    return _tell(seen.stderr, seen.stdout)


def _tell(said: str | None, printed: str | None) -> Offer:
    """Shows warnings and price, to be read at the run's end too, and hands on the offer.

    RunError with all problems where there is none.
    """
    if not printed:
        raise pulumi.RunError(f"the AWS account is not ready for this stack:\n{(said or '').strip()}")
    for line in (said or "").splitlines():
        word, _, warning = line.partition("warning: ")
        if warning and not word:
            pulumi.log.warn(warning)
        else:
            pulumi.log.info(line)
    return offer_in(printed)


def offer_in(printed: str | None) -> Offer:
    """The offer in what the program printed."""
    offer: Offer = json.loads(last_line(printed))
    return offer
