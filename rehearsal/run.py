"""A whole rehearsal: read the stack file, run the program, remove what it no longer asks for."""

import asyncio
import atexit
import logging
import runpy
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import get_root_resource, set_all_config, set_mocks
from pulumi.runtime.mocks import MockMonitor, Mocks
from pulumi.runtime.stack import Stack, run_pulumi_func
from pulumi.runtime.sync_await import _ensure_event_loop, _sync_await

from rehearsal.errors import RehearsalError
from rehearsal.monitor import Counts, Rehearsing
from rehearsal.resources import Say
from rehearsal.stack_file import stack_config
from rehearsal.state import Made, State, exclusive
from settings import NAMESPACE, value_of

WARNING = "warning"
"""Stands in place of a resource's name before what the program warns of."""

PROJECT = Path(__file__).resolve().parent.parent


def state_path(stack: str, project: Path = PROJECT) -> Path:
    """Where the rehearsal of this stack keeps what it made."""
    return project / ".state" / stack / "rehearsal.json"


def up(stack: str, say: Say, project: Path = PROJECT) -> tuple[Counts, dict[str, Any]]:
    """Makes everything that the program asks for. What was done, and the stack's outputs.

    Raises RehearsalError with the failures of all resources; what was made until then is kept for the next run.
    """
    config = stack_config(stack, project)
    machine = value_of("machine", config.get(f"{NAMESPACE}:machine"))
    if isinstance(machine, dict) and machine.get("kind") == "aws":
        raise RehearsalError(
            f"the rehearsal makes nothing on AWS: {stack} needs the Pulumi CLI (https://www.pulumi.com/docs/install)"
        )
    with exclusive(state_path(stack, project)):
        state = State.load(state_path(stack, project))
        with Rehearsing(state, say) as rehearsing:
            results = _run_program(stack, config, rehearsing, project, say)
            gone = [name for name in reversed(state.made) if name not in rehearsing.seen]
            for name in gone:
                rehearsing.remove(name)
        state.finish(results)
        return rehearsing.counts, results


def _run_program(
    stack: str, config: dict[str, str], rehearsing: Rehearsing, project: Path, say: Say
) -> dict[str, Any]:
    """Runs `__main__.py`; the stack's outputs. RehearsalError with every failure."""
    results = {}
    try:
        results = run_program(stack, config, rehearsing, project, warn=lambda text: say(WARNING, text))
    except Exception:
        # What is raised is one failure of several, and not always the first.
        if not rehearsing.failures:
            raise
    if rehearsing.failures:
        raise RehearsalError("\n".join(rehearsing.failures))
    return results


def _log(warn: Callable[[str], None] | None) -> logging.Logger:
    """Hands on warnings alone. Pulumi logs a stack trace per failed resource; whoever answers reports those."""
    log = logging.Logger("seatable-vllm.rehearsal")
    log.addFilter(lambda record: record.levelno == logging.WARNING)
    handler = logging.Handler()
    handler.emit = lambda record: warn(record.getMessage()) if warn else None  # type: ignore[method-assign]
    log.addHandler(handler)
    return log


def run_program(
    stack: str,
    config: dict[str, str],
    mocks: Mocks,
    project: Path = PROJECT,
    *,
    preview: bool = False,
    monitor: MockMonitor | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Runs `__main__.py` under Pulumi's test monitor, which `mocks` answers for; the stack's outputs.

    warn: gets each warning of the program. RehearsalError where the program refuses its settings.
    """
    logging.getLogger("asyncio").disabled = True
    log = _log(warn)
    set_mocks(mocks, project="seatable-vllm", stack=stack, preview=preview, logger=log, monitor=monitor)
    set_all_config(config)
    sys.path.insert(0, str(project))
    results: dict[str, Any] = {}

    async def program() -> None:
        runpy.run_path(str(project / "__main__.py"), run_name="__main__")
        exports: pulumi.Output[dict[str, Any]] = pulumi.Output.all(**_exports())
        results.update(await exports.future() or {})

    loop: asyncio.AbstractEventLoop = _ensure_event_loop()  # type: ignore[no-untyped-call]
    steps = _steps_of(loop)
    try:
        _sync_await(run_pulumi_func(program))
    except pulumi.RunError as error:
        raise RehearsalError(str(error)) from None
    except Exception:
        steps.shutdown()  # what is at work beside the step that failed goes on to its end, and may fail too
        loop.set_default_executor(ThreadPoolExecutor())  # for whoever uses it next
        raise
    return results


def _steps_of(main: asyncio.AbstractEventLoop) -> ThreadPoolExecutor:
    """The threads that resources are made in; from now on those of this event loop.

    When the interpreter ends, that loop is closed, and those that Pulumi's test monitor makes in each of the
    threads: left alone, a loop loses its files first and complains with a stack trace.
    """
    loops = [main]

    def keep_loop_of_this_thread() -> None:
        loops.append(_ensure_event_loop())  # type: ignore[no-untyped-call]

    def close() -> None:
        for loop in loops:
            loop.close()

    steps = ThreadPoolExecutor(initializer=keep_loop_of_this_thread)
    main.set_default_executor(steps)
    # The threads have ended before functions registered here are called.
    atexit.register(close)
    return steps


def _exports() -> dict[str, Any]:
    root = get_root_resource()
    return root.outputs if isinstance(root, Stack) else {}


def outputs(stack: str, project: Path = PROJECT) -> dict[str, Any] | None:
    """The outputs of the last complete rehearsal of this stack, or None where there was none."""
    path = state_path(stack, project)
    return State.load(path).outputs or None if path.exists() else None


def docker_resources(stack: str, project: Path = PROJECT) -> list[Made]:
    """The containers and networks that rehearsals of this stack have made."""
    path = state_path(stack, project)
    made = State.load(path).made.values() if path.exists() else ()
    return [item for item in made if item.type.startswith("docker:")]


def generated(stack: str, name: str, project: Path = PROJECT) -> str | None:
    """The random value that rehearsals of this stack have generated under this name; None where there is none."""
    path = state_path(stack, project)
    made = State.load(path).made.get(name) if path.exists() else None
    return str(made.outputs["result"]) if made else None


def down(stack: str, say: Say, project: Path = PROJECT) -> Counts:
    """Removes everything that rehearsals of this stack have made."""
    with exclusive(state_path(stack, project)):
        state = State.load(state_path(stack, project))
        with Rehearsing(state, say) as rehearsing:
            for name in end_order(state):
                say(name, "is removed")
                rehearsing.remove(name)
        state_path(stack, project).unlink(missing_ok=True)
        return rehearsing.counts


def end_order(state: State) -> list[str]:
    """The names of all that is removed at the end: containers and networks first, then what served them.

    The order of their making alone is not enough: an `up` of a later version adds what clears the machine to a
    stack whose containers are there already.
    """
    names = [name for name in reversed(state.made) if state.made[name].type != "pulumi:providers:docker"]
    return sorted(names, key=lambda name: not state.made[name].type.startswith("docker:"))


def forget(stack: str, project: Path = PROJECT) -> int:
    """Drops the record of what was made, where the machine that has it is gone; how many resources those were."""
    with exclusive(state_path(stack, project)):
        known = len(State.load(state_path(stack, project)).made)
        state_path(stack, project).unlink(missing_ok=True)
        return known
