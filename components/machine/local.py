"""This computer as the machine: its own Docker, and commands run right here."""

import json
import shlex
from collections.abc import Sequence
from typing import Literal, TypedDict, cast

import pulumi
import pulumi_command as command
import pulumi_docker as docker

from catalog.vllm import Device
from components.machine.machine import BASH, STACK_LABEL, Machine, Ran, RunArgs

TYPE = "seatable-vllm:index:LocalMachine"

MIN_FREE_MIB = 2048
"""Free space below which nothing is begun: the default model and its caches take half of it."""


class LocalMachineArgs(TypedDict):
    """How to use this computer."""

    stack: str
    """The stack's name."""
    docker_host: str
    """Address of this computer's Docker, such as unix:///var/run/docker.sock."""
    data_dir: str
    """Absolute folder for weights, caches and configuration; made when it is not there."""
    gpus: Literal["auto", "none"]
    """auto: the GPU when Docker can hand one to a container. none: the CPU."""
    edge_port: int
    """TCP port that the edge will listen on; must be free, or the stack's own."""
    engine_port: int
    """TCP port that the engine will be published on; likewise."""


class LocalMachine(Machine):
    """This computer."""

    def __init__(self, name: str, args: LocalMachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self.kind = "local"
        self.stack = args["stack"]
        self.address = "127.0.0.1"
        self.data_dir = args["data_dir"]
        self._environment = {"DOCKER_HOST": args["docker_host"]}
        check = self.run(f"{name}-ready", {"program": ready_program(args)}, parent=self)
        self.ready = check.resource
        facts = check.last_line.apply(json.loads)
        self.identity = facts.apply(lambda known: str(known["identity"]))
        self.device = facts.apply(lambda known: cast(Device, known["device"]))
        self._docker = docker.Provider(
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

    def docker_options(
        self, *, parent: pulumi.Resource, depends_on: Sequence[pulumi.Resource] = ()
    ) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=parent,
            provider=self._docker,
            depends_on=[self.ready, *depends_on],
            delete_before_replace=True,
            replace_on_changes=["*"],
        )


def ready_program(args: LocalMachineArgs) -> str:
    """A bash program that checks this computer and prints what it is, as JSON, in its last line."""
    return f"""\
set -euo pipefail
fail() {{ echo "phase: machine ready" >&2; echo "cause: $1" >&2; echo "change: $2" >&2; exit 1; }}
data={shlex.quote(args["data_dir"])} stack={shlex.quote(args["stack"])}
command -v docker >/dev/null || fail "the docker command is not there" "run scripts/up as root, or install Docker"
told=$(docker info --format '{{{{.ID}}}} {{{{json .Runtimes}}}}' 2>/dev/null) ||
  fail "Docker does not answer: $(docker info 2>&1 | grep -m 1 -E 'ERROR:|onnect|denied')" \
    "start Docker, or let this user use it (group docker)"
mkdir -p "$data" || fail "seatable-vllm:machine.data_dir $data cannot be made" "give a folder this user may write"
for place in "$data" "$(docker info --format '{{{{.DockerRootDir}}}}')"; do
  free=$(df -Pm "$place" 2>/dev/null | awk 'NR == 2 {{print $4}}')
  [ "${{free:-{MIN_FREE_MIB}}}" -ge {MIN_FREE_MIB} ] || fail \\
    "seatable-vllm: disk nearly full: $free MiB free at $place, {MIN_FREE_MIB} wanted" \\
    "free space, or set seatable-vllm:machine.data_dir to a larger disk"
done
for port in edge:{args["edge_port"]} engine:{args["engine_port"]}; do
  if (exec 3<>"/dev/tcp/127.0.0.1/${{port#*:}}") 2>/dev/null &&
    [ -z "$(docker ps -q --filter "label={STACK_LABEL}=$stack" --filter "label=seatable-vllm.port=${{port#*:}}")" ]
  then
    fail "seatable-vllm: port in use: ${{port#*:}} is taken by another program" \\
      "set seatable-vllm:ports.${{port%:*}} to a free port, or end that program"
  fi
done
device=cpu
if [ {args["gpus"]} = auto ] && [[ $told == *nvidia* ]]; then device=gpu; fi
printf '{{"identity": "%s", "device": "%s"}}\\n' "${{told%% *}}" "$device"
"""
