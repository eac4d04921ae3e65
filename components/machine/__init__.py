"""The machine an endpoint runs on: which kinds there are, and what all of them offer."""

from pathlib import Path

import pulumi

from components.machine.local import LocalMachine
from components.machine.local_docker import local_docker_host
from components.machine.machine import Machine
from settings import Settings

__all__ = ["Machine", "machine_for"]

PROJECT = Path(__file__).resolve().parent.parent.parent


def machine_for(settings: Settings) -> Machine:
    """The machine that the stack's settings name. Raises SettingsError where Docker is not this computer's."""
    stack = pulumi.get_stack()
    return LocalMachine(
        "machine",
        {
            "stack": stack,
            "docker_host": local_docker_host(),
            "data_dir": settings.machine.data_dir or str(PROJECT / ".state" / stack / "data"),
            "gpus": settings.machine.gpus,
            "edge_port": settings.ports.edge,
            "engine_port": settings.ports.engine,
        },
    )
