"""`scripts/up --pull`: the registry is asked for newer images under the names that a stack uses."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from catalog.images import HAPROXY, LEGO, PYTHON, VLLM_CPU, VLLM_GPU, ImageSource
from components.image import PULLED, pull_program
from components.machine.local_docker import local_docker_host
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Say
from scripts.commands.errors import CommandError, failure
from scripts.commands.places import Host
from scripts.commands.stacks import set_in_stack_file
from scripts.commands.terminal import Terminal
from settings import Settings


@dataclass(frozen=True)
class Wanted:
    """One image of a stack.

    setting: its name below `images`. role: of the container that runs on it; empty where none stays. pulled: what
    the stack's file has of an earlier --pull. standin: whether another image may be here in its place.
    """

    setting: str
    reference: str
    role: str
    pulled: str | None
    standin: bool


def pull_newer(stack: str, settings: Settings, host: Host | None, here: DockerState, terminal: Terminal) -> None:
    """Pulls what the stack's images are now, and says what changed.

    A container is made anew on a newer image because that one's digest gets into the stack's file, where the
    program finds it. CommandError where a registry does not give an image that is here.
    """
    failed = []
    for image in images_of(settings, has_gpu=settings.machine.gpus != "none" and "nvidia" in _runtimes(here)):
        if "@" in image.reference:
            terminal.line(f"{image.reference}: chosen by its digest, so there is nothing newer of it")
            continue
        with terminal.step(f"asking for a newer {image.reference}") as step:
            lines: list[str] = []

            def heard(line: str, say: Say = step.say, lines: list[str] = lines) -> None:
                lines.append(line)
                say(line)

            container = f"seatable-vllm-{stack}-{image.role}" if image.role else ""
            try:
                _run(pull_program(image.reference, container), host, heard)
            except CommandError as error:
                why = str(error).strip().rpartition("\n")[2]
                if not _is_here(here, image.reference):
                    left = "the one made here stays" if image.standin else "none is here yet"
                    terminal.line(f"{image.reference}: cannot be pulled, {left}: {why}")
                    continue
                failed.append(f"{image.reference}: {why}")
                continue
        terminal.line(_noted(stack, image, next(line for line in reversed(lines) if line.startswith(PULLED))))
    if failed:
        raise failure(
            "newer images were asked for, and a registry does not answer:\n" + "\n".join(failed),
            "see to the machine's network or its docker login; without --pull, scripts/up uses what is here",
        )


def images_of(settings: Settings, *, has_gpu: bool) -> Iterator[Wanted]:
    """The images of a stack: its containers', then those of programs that are run for a moment."""
    chosen = settings.images

    def one(setting: str, role: str, source: ImageSource) -> Wanted:
        override = getattr(chosen, setting)
        pulled = getattr(chosen.pulled, setting, None)
        return Wanted(setting, override or source.official, role, pulled, not override and source.made is not None)

    yield one("vllm", "engine", VLLM_GPU if has_gpu else VLLM_CPU)
    yield one("haproxy", "edge", HAPROXY)
    if settings.domain and settings.domain.acme:
        yield one("lego", "", LEGO)
    if settings.machine.kind != "local" and chosen.python != "none":
        yield one("python", "", PYTHON)


def _noted(stack: str, image: Wanted, line: str) -> str:
    """What came of one pull, in words; the stack's file gets a digest that its container is not on yet."""
    digest, before, after, old, *runs = line.removeprefix(PULLED).split()
    found = f"{image.reference}@{digest}"
    stale = image.pulled is not None and image.pulled.startswith(f"{image.reference}@") and image.pulled != found
    if image.role and ((runs and before != after) or stale):
        set_in_stack_file(stack, ("images", "pulled", image.setting), found)
    if before == after:
        return f"{image.reference}: nothing newer than {digest}"
    known = old.partition("@")[2] or before
    back = (
        f"; to go back, set images.pulled.{image.setting} to {image.reference}@{known} there" if "@" in old else ""
    )
    kept = f" (in Pulumi.{stack}.yaml as images.pulled.{image.setting}{back})" if image.role and runs else ""
    return f"{image.reference}: newer, {known} -> {digest}{kept}"


def _run(program: str, host: Host | None, say: Say) -> None:
    """Runs a bash program on the stack's machine; CommandError with what it printed when it fails."""
    if host:
        host.run(program, say)
        return
    environment = {**os.environ, "DOCKER_HOST": local_docker_host()}
    environment.pop("DOCKER_CONTEXT", None)
    with subprocess.Popen(
        ["bash", "-s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both were asked for
        process.stdin.write(program)
        process.stdin.close()
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            say(lines[-1])
    if process.returncode != 0:
        raise CommandError("\n".join(lines))


def _is_here(here: DockerState, reference: str) -> bool:
    return bool(here.client.images.list(name=reference))


def _runtimes(here: DockerState) -> str:
    return str(here.client.info().get("Runtimes"))
