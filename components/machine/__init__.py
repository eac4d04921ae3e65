"""The machine an endpoint runs on: which kinds there are, and what all of them offer."""

from pathlib import Path

import pulumi

from catalog.models import KNOWN_MODELS
from components.machine.aws.access import public_key, region_of, require_session_programs
from components.machine.aws.idle_stop import up_noted_program
from components.machine.local import LocalMachine
from components.machine.local_docker import local_docker_host
from components.machine.machine import Machine
from components.machine.remote_host import MadeMachine, RemoteHost, SharedArgs
from components.machine.ssh import prepare, refuse_docker_variables, ssh_of
from settings import AwsMachine, HostMachine, Settings

__all__ = ["Machine", "machine_for"]

PROJECT = Path(__file__).resolve().parent.parent.parent


def machine_for(settings: Settings) -> Machine:
    """The machine that the stack's settings name.

    Raises SettingsError where Docker is not this computer's, or the machine cannot be reached as the settings say.
    """
    stack = pulumi.get_stack()
    if isinstance(settings.machine, AwsMachine):
        return _made_on_aws(settings, settings.machine, stack)
    if isinstance(settings.machine, HostMachine):
        return _remote_host(settings, settings.machine, stack)
    return LocalMachine(
        "machine",
        {
            "stack": stack,
            "docker_host": local_docker_host(),
            "data_dir": settings.machine.data_dir or str(PROJECT / ".state" / stack / "data"),
            "data_dir_is_ours": settings.machine.data_dir is None,
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
    return RemoteHost("machine", {**_shared(settings, machine, stack), "ssh": ssh, "made": None})


def _made_on_aws(settings: Settings, machine: AwsMachine, stack: str) -> RemoteHost:
    # Only here: AWS's package takes seconds to load, which no other stack is to wait for.
    from components.machine.aws.gpu_vm import GpuVm  # noqa: PLC0415
    from components.machine.aws.preflight import preflight  # noqa: PLC0415

    refuse_docker_variables(kind="aws")
    require_session_programs(machine)
    region, key = region_of(machine), public_key(machine)
    vm = GpuVm(
        "vm",
        {
            "stack": stack,
            "settings": settings,
            "machine": machine,
            "region": region,
            "public_key": key,
            "offer": preflight(settings),
        },
    )
    made: MadeMachine = {
        "kind": "aws",
        "resource": vm.instance,
        "prepare": vm.prepare(),
        "triggers": [machine.instance_type],
        "public": vm.public,
        "facts": vm.facts(),
    }
    host = RemoteHost("machine", {**_shared(settings, machine, stack), "ssh": vm.ssh, "made": made})
    if (machine.cost.live_hours or machine.cost.idle_stop_minutes) and not pulumi.runtime.is_dry_run():
        # Its lifetime counts from the last `up`, whether or not that changes anything.
        host.look(up_noted_program(stack), parent=host)
    return host


def _shared(settings: Settings, machine: HostMachine | AwsMachine, stack: str) -> SharedArgs:
    """What a machine behind SSH is told whoever has made it."""
    known = KNOWN_MODELS.get(settings.model.name)
    return {
        "stack": stack,
        "data_dir": machine.data_dir,
        # An instance is paid for its GPU: there the CPU is used where it is asked for, and never else.
        "gpus": "all" if isinstance(machine, AwsMachine) and machine.gpus == "auto" else machine.gpus,
        "weights_mib": int(known.weights_gib * 1024) if known else 0,
        "edge_port": settings.ports.edge,
        "engine_port": settings.ports.engine,
        "loopback_port": settings.ports.loopback,
    }
