"""The engine that deployed a stack, for commands that look at one or remove it."""

from catalog.aws.owned import Recorded
from components.machine.aws.access import Place
from rehearsal.stack_file import stack_file
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Engine, RehearsalEngine
from scripts.commands.errors import CommandError
from scripts.commands.pulumi_cli import FOLDER, on_path
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.stacks import PROJECT


def engine_of(stack: str, here: DockerState | None = None) -> Engine | None:
    """Who deployed this stack; None where nobody did, as far as can be seen from here.

    here: what is on the machine's Docker, for whoever changes something there.
    """
    stack_file(stack, PROJECT)
    rehearsal = RehearsalEngine(stack)
    if rehearsal.was_used():
        return rehearsal
    if on_path() or FOLDER.exists():
        return PulumiEngine(stack, here, "" if on_path() else str(FOLDER))
    return None


def place_of(stack: str) -> Place | None:
    """Where the stack's machine on AWS is, as its state has it, though its `up` may have failed later; or None."""
    engine = engine_of(stack)
    return engine.place() if isinstance(engine, PulumiEngine) else None


def recorded_of(stack: str) -> Recorded:
    """What the stack's state says of the account that it is made in; nothing where no engine has deployed it."""
    engine = engine_of(stack)
    return engine.recorded() if isinstance(engine, PulumiEngine) else Recorded()


def outputs_of(stack: str) -> dict[str, object]:
    """The stack's outputs, secrets opened; CommandError where it is not deployed."""
    engine = engine_of(stack)
    outputs = engine.outputs() if engine else None
    if outputs is None:
        raise CommandError(f"{stack} is not deployed (or its last up failed); run scripts/up {stack}")
    return outputs
