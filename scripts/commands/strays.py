"""What a stack has at AWS that its state does not list: found, told apart, and removed where the state made it.

A run that was killed leaves such things. boto3 takes a third of a second to load, which no other stack is to wait
for: it is imported where AWS is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from catalog.aws.owned import KINDS, PARTS, RECORD, Part, Recorded, Strays, Thing, gone, strays
from scripts.commands.aws import Aws, asking
from scripts.commands.errors import CommandError, failure
from settings import Settings

if TYPE_CHECKING:
    from aws_account.clients import Clients

Say = Callable[[str], None]


@dataclass(frozen=True)
class StackAccount:
    """The account that a stack is made in. host: the endpoint's name, where it has one."""

    stack: str
    aws: Aws
    host: str | None = None

    def strays(self, recorded: Recorded, say: Say, *, removing: bool = False) -> Strays:
        """What has the stack's tags and is not in its state. removing: whether the stack is to go.

        Its records count only then: an `up` takes them over, so that the name goes on leading somewhere.
        CommandError where the account cannot be asked for what costs.
        """
        from aws_account.finding import Sought, find  # noqa: PLC0415

        kinds = [kind for kind in KINDS if removing or kind != RECORD]
        with _reached():
            clients = self._clients()
            found = find(clients, Sought(self.stack, self.host), kinds)
        made = {each for each, _ in recorded.ids} | recorded.creating
        for kind, answer in found.unanswered.items():
            if kind.costs:
                raise failure(
                    f"AWS {answer.why} when asked for each {kind.words} of {self.stack}: one that its state does "
                    "not list would stay on the bill",
                    "allow the credentials ec2:Describe* (docs/aws-rights.md has the policy), and run this again",
                )
            if kind.type in made:
                say(f"not looked for: a {kind.words} that no state lists (AWS {answer.why})")
        asked = [kind for kind in kinds if kind not in found.unanswered]
        return replace(
            strays(found.things, recorded),
            gone=gone(found.things, recorded, asked, (clients.number, self.aws.region)),
        )

    def end(self, things: Iterable[Thing], say: Say) -> None:
        """Removes these. CommandError where AWS refuses."""
        from aws_account.ending import end  # noqa: PLC0415

        for thing in things:
            say(f"removing {thing}: an interrupted run made it, and no state lists it")
            with _reached(), asking(f"to remove {thing}", f"to remove a {thing.kind.words}"):
                end(self._clients(), thing)

    def undo(self, parts: Iterable[Part], say: Say) -> int:
        """Removes these parts from what they belong to; how many were there. CommandError where AWS refuses."""
        from aws_account.ending import undo  # noqa: PLC0415

        there = 0
        for part in parts:
            with (
                _reached(),
                asking(f"to remove {part.name}", f"to remove what {PARTS[part.type].words}s consist of"),
            ):
                if undo(self._clients(), part):
                    there += 1
                    say(f"removed {part.name}: an interrupted run made it, and no state lists it")
        return there

    def _clients(self) -> Clients:
        from aws_account.clients import Clients  # noqa: PLC0415

        return Clients(self.aws.region, self.aws.profile)


def account_of(stack: str, settings: Settings, aws: Aws) -> StackAccount:
    """The account of a stack whose machine is made on AWS."""
    return StackAccount(stack, aws, settings.domain.host if settings.domain else None)


@dataclass(frozen=True)
class Settled:
    """An account after what interrupted runs have left was removed."""

    removed: int
    """How many things and parts that were."""
    left: Strays
    """What is there besides what the state lists."""


def settle(
    account: StackAccount,
    recorded: Callable[[], Recorded],
    forget_pending: Callable[[], None],
    say: Say,
    *,
    removing: bool = False,
) -> Settled:
    """Removes what interrupted runs have left, and the marks of their steps in the state.

    recorded: reads the state. forget_pending: takes those marks out of it, and fails while another run changes the
    stack. What such a run makes is in the account before it is in the state, but a mark of the step comes first:
    where there are marks after they were taken out, nothing is touched.
    """
    before = recorded()
    found = account.strays(before, say, removing=removing)
    if not before.pending and not found.mine:
        return Settled(0, found)
    forget_pending()
    things = account.strays(recorded(), say, removing=removing)
    now = recorded()
    if now.pending:
        raise CommandError(
            f"cause: another run is changing {account.stack} right now\nchange: let it end, then run this again"
        )
    mine = strays([*things.mine, *things.others], replace(now, creating=before.creating)).mine
    parts = account.undo(before.parts, say)
    account.end(mine, say)
    others = [each for each in things.others if each not in mine]
    return Settled(parts + len(mine), Strays([], others, things.gone))


def refuse_others(stack: str, others: Sequence[Thing]) -> None:
    """CommandError where a machine or an address has the stack's tags and another state, or none, made it."""
    costly = [each for each in others if each.kind.costs and not each.kind.kept]
    if costly:
        raise failure(
            f"on the bill with the tags of {stack}, and in no state here: {', '.join(map(str, costly))}",
            f"run this where scripts/up {stack} was run, or with the same Pulumi login; if that state is lost, or "
            "an older version left them, remove them in AWS's console, and what else has the tag Stack there",
        )


@contextmanager
def _reached() -> Iterator[None]:
    from aws_account.session import AccountError  # noqa: PLC0415

    try:
        yield
    except AccountError as error:
        raise failure(error.cause, error.change) from None
