"""`scripts/down [stack] [--purge]`: removes everything a stack made; with --purge its weights and caches too."""

import argparse
import os
import shutil
from pathlib import Path

from scripts.commands import local_docker_state
from scripts.commands.deployed import engine_of
from scripts.commands.docker_setup import ensure_docker
from scripts.commands.pulumi_engine import PulumiEngine
from scripts.commands.stacks import DEFAULT_STACK, PROJECT, data_dir, stack_settings
from scripts.commands.terminal import Terminal

HOLDS_KEYS = ("vllm", "edge")
"""Folders of the data directory that are of no use without the stack."""


def main(arguments: list[str]) -> int:
    """Status 0 when nothing of the stack is left but what was asked to stay."""
    parser = argparse.ArgumentParser(prog="scripts/down", description=__doc__)
    parser.add_argument("stack", nargs="?", default=DEFAULT_STACK)
    parser.add_argument("--purge", action="store_true", help="weights, caches and state too")
    options = parser.parse_args(arguments)
    terminal = Terminal()
    data = data_dir(options.stack, stack_settings(options.stack))
    ensure_docker(terminal)
    engine = engine_of(options.stack)
    removed = 0
    if engine is not None:
        with terminal.step(f"removing {options.stack} ({engine.name})") as step:
            removed = engine.down(step.say)
    removed += local_docker_state.remove_unknown(options.stack, data, set(), terminal.line)
    for folder in HOLDS_KEYS:
        shutil.rmtree(data / folder, ignore_errors=True)
    terminal.line(f"{removed} resources removed" if removed else f"nothing of {options.stack} was there")
    if options.purge:
        _purge(options.stack, data, engine)
        terminal.line(f"{data} removed")
    elif data.exists():
        terminal.line(f"kept: {data} (weights and caches); scripts/down {options.stack} --purge removes it")
    return 0


def _purge(stack: str, data: Path, engine: object) -> None:
    if isinstance(engine, PulumiEngine):
        engine.forget()
    for folder in (data, PROJECT / ".state" / stack):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise PermissionError(folder)
        shutil.rmtree(folder, ignore_errors=True)
