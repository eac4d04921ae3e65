"""The machine an endpoint runs on: which kinds there are, and what all of them offer."""

from pathlib import Path

import pulumi

from catalog.models import KNOWN_MODELS
from components.machine.local import LocalMachine
from components.machine.local_docker import local_docker_host
from components.machine.machine import Machine
from components.machine.remote_host import RemoteHost
from components.machine.ssh import prepare, refuse_docker_variables, ssh_of
from settings import HostMachine, Settings

__all__ = ["Machine", "machine_for"]

PROJECT = Path(__file__).resolve().parent.parent.parent


def machine_for(settings: Settings) -> Machine:
    """The machine that the stack's settings name.

    Raises SettingsError where Docker is not this computer's, or the machine cannot be reached as the settings say.
    """
    stack = pulumi.get_stack()
    if isinstance(settings.machine, HostMachine):
        return _remote_host(settings, settings.machine, stack)
    return LocalMachine(
        "machine",
        {
            "stack": stack,
            "docker_host": local_docker_host(),
            "data_dir": settings.machine.data_dir or str(PROJECT / ".state" / stack / "data"),
            "gpus": settings.machine.gpus,
            "edge_port": settings.ports.edge,
            "engine_port": settings.ports.engine,
            "loopback_port": settings.ports.loopback,
        },
    )


def _remote_host(settings: Settings, machine: HostMachine, stack: str) -> RemoteHost:
    refuse_docker_variables()
    ssh = ssh_of(machine, stack)
    prepare(machine, ssh, PROJECT)
    known = KNOWN_MODELS.get(settings.model.name)
    return RemoteHost(
        "machine",
        {
            "stack": stack,
            "ssh": ssh,
            "data_dir": machine.data_dir,
            "gpus": machine.gpus,
            "weights_mib": int(known.weights_gib * 1024) if known else 0,
            "edge_port": settings.ports.edge,
            "engine_port": settings.ports.engine,
            "loopback_port": settings.ports.loopback,
        },
    )
