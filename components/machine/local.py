"""This computer as the machine: its own Docker, and commands run right here."""

import json
from collections.abc import Sequence
from typing import Literal, TypedDict, cast

import pulumi
import pulumi_command as command
import pulumi_docker as docker

from catalog.vllm import Device
from components.machine.cleared import FolderOrder, cleared
from components.machine.machine import BASH, PYTHON, Machine, Ran, RunArgs, last_line
from components.machine.ready import FAIL, MIN_FREE_MIB, PYTHON_CHECK, free_ports, room, taken, whose

TYPE = "seatable-vllm:index:LocalMachine"


class LocalMachineArgs(TypedDict):
    """How to use this computer."""

    stack: str
    """The stack's name."""
    docker_host: str
    """Address of this computer's Docker, such as unix:///var/run/docker.sock."""
    data_dir: str
    """Absolute folder for weights, caches and configuration; made when it is not there."""
    data_dir_is_ours: bool
    """Whether its place alone says that it is the stack's, below the project."""
    gpus: Literal["auto", "none"]
    """auto: the GPU when Docker can hand one to a container. none: the CPU."""
    edge_port: int
    """TCP port that the edge will listen on; must be free, or the stack's own."""
    engine_port: int
    """TCP port that the engine will be published on; likewise."""
    loopback_port: int | None
    """TCP port of the listener without a key, or None; likewise."""


class LocalMachine(Machine):
    """This computer."""

    def __init__(self, name: str, args: LocalMachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self.kind = "local"
        self.stack = args["stack"]
        self.address = "127.0.0.1"
        self.data_dir = args["data_dir"]
        self.images_are_made = True
        self._environment = {"DOCKER_HOST": args["docker_host"]}
        self.owner = self._owner()
        folder = self.owner.apply(lambda owner: folder_of(args, owner))
        program = folder.apply(lambda known: ready_program(args, known))
        check = self.run(f"{name}-ready", {"program": program}, parent=self)
        self.ready = cleared(
            f"{name}-cleared",
            {"folder": folder, "interpreter": PYTHON, "environment": self._environment},
            parent=self,
            depends_on=[check.resource],
        )
        facts = check.last_line.apply(json.loads)
        self.identity = facts.apply(lambda known: str(known["identity"]))
        self.device = facts.apply(lambda known: cast(Device, known["device"]))
        self.gpus = self.device.apply(lambda device: "all" if device == "gpu" else None)
        self.docker_provider = docker.Provider(
            f"{name}-docker",
            host=args["docker_host"],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.ready]),
        )
        self.register_outputs({"identity": self.identity, "device": self.device})

    def run(
        self, name: str, args: RunArgs, *, parent: pulumi.Resource, depends_on: Sequence[pulumi.Resource] = ()
    ) -> Ran:
        ran = command.local.Command(
            name,
            create=args.get("interpreter", BASH),
            stdin=args["program"],
            triggers=list(args.get("triggers", [])),
            environment=self._environment,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=parent, depends_on=list(depends_on)),
        )
        return Ran(ran, ran.stdout)

    def look(self, program: str, *, parent: pulumi.Resource) -> pulumi.Output[str]:
        seen = command.local.run_output(
            command=BASH,
            stdin=program,
            environment=self._environment,
            logging=command.local.Logging.STDERR,
            opts=pulumi.InvokeOutputOptions(parent=parent),
        )
        return seen.stdout.apply(last_line)


def folder_of(args: LocalMachineArgs, owner: str) -> FolderOrder:
    """The stack's data directory. owner: see Machine."""
    return {
        "data": args["data_dir"],
        "stack": args["stack"],
        "owner": owner,
        "ours": args["data_dir_is_ours"],
    }


def ready_program(args: LocalMachineArgs, folder: FolderOrder) -> str:
    """A bash program that checks this computer and prints what it is, as JSON, in its last line."""
    return f"""\
set -euo pipefail
{FAIL}{PYTHON_CHECK}{whose(args["stack"], args["data_dir"])}
command -v docker >/dev/null || fail "the docker command is not there" "run scripts/up as root, or install Docker"
told=$(docker info --format '{{{{.ID}}}} {{{{json .Runtimes}}}}' 2>/dev/null) ||
  fail "Docker does not answer: $(docker info 2>&1 | grep -m 1 -E 'ERROR:|onnect|denied')" \
    "start Docker, or let this user use it (group docker)"
{taken(folder, adopt=False)}\
for place in "$data" "$(docker info --format '{{{{.DockerRootDir}}}}')"; do
{room("$place", str(MIN_FREE_MIB))}done
{free_ports(args["edge_port"], args["engine_port"], args["loopback_port"])}\
device=cpu
if [ {args["gpus"]} = auto ] && [[ $told == *nvidia* ]]; then device=gpu; fi
printf '{{"identity": "%s", "device": "%s"}}\\n' "${{told%% *}}" "$device"
"""
