"""A machine that SSH reaches: programs through `ssh`, containers through Docker's own way over SSH."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict, cast

import pulumi
import pulumi_command as command
import pulumi_docker as docker
from pulumi.output import UNKNOWN

from catalog.vllm import Device
from components.machine.cleared import FolderOrder, cleared
from components.machine.machine import (
    BASH,
    PYTHON,
    STACK_LABEL,
    Machine,
    PublicAddress,
    Ran,
    RunArgs,
    last_line,
)
from components.machine.reach import BOOT_SECONDS, GLANCE_SECONDS, identity_of, reach_program
from components.machine.ready import FAIL, MIN_FREE_MIB, PYTHON_CHECK, free_ports, room, taken, whose
from components.machine.ssh import Ssh

TYPE = "seatable-vllm:index:RemoteHost"

IMAGE_MIB = {"gpu": 30_000, "cpu": 8_000}
"""Room for an engine image that is not there yet: the layers, and beside them what is being unpacked."""

SSH_FAILED = 255
"""Status of `ssh` where the connection itself fails."""

PCI = "/sys/bus/pci/devices"
"""Where Linux lists a machine's devices, each with its maker (`vendor`) and kind (`class`)."""

GpuChoice = Literal["auto", "all", "none"] | int | Sequence[str]


class MadeMachine(TypedDict):
    """What is different where the program has made the machine."""

    kind: str
    """The kind that the settings name."""
    resource: pulumi.Resource
    """The machine itself: what lives on it ends with it, and is not asked for first."""
    prepare: Mapping[str, RunArgs]
    """Programs that run before the machine is looked at, by the names of their resources."""
    triggers: Sequence[pulumi.Input[str]]
    """Values whose change makes the machine be looked at again, beside its identity."""
    public: PublicAddress
    """Where the net finds it."""
    facts: Mapping[str, pulumi.Input[str | float | None]]
    """What the stack's output `machine` says beside what all kinds say."""


class SharedArgs(TypedDict):
    """What to use of a machine, whoever has made it."""

    stack: str
    """The stack's name."""
    data_dir: str
    """Absolute folder on the machine for weights, caches and configuration; made when it is not there."""
    gpus: GpuChoice
    """auto: all, or the CPU where there is none; all, of which there must be one; none; how many; or which."""
    weights_mib: int
    """Size of the model's weights, 0 where it is not known."""
    edge_port: int
    """TCP port that the edge will listen on; must be free, or the stack's own."""
    engine_port: int
    """TCP port that the engine will be published on; likewise."""
    loopback_port: int | None
    """TCP port of the listener without a key, or None; likewise."""


class RemoteHostArgs(SharedArgs):
    """How to reach the machine, and what to use of it."""

    ssh: pulumi.Input[Ssh]
    """The way there; not known in a preview that shows the machine being made."""
    made: MadeMachine | None
    """For a machine that the program makes; None: the machine is somebody's own (kind host)."""


class RemoteHost(Machine):
    """A Linux machine with Docker."""

    def __init__(self, name: str, args: RemoteHostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        made = args["made"]
        self.kind = made["kind"] if made else "host"
        self.stack = args["stack"]
        self.address = "127.0.0.1"
        self.data_dir = args["data_dir"]
        self.ends_with = made["resource"] if made else None
        self.public = made["public"] if made else None
        self.facts = dict(made["facts"]) if made else {}
        self._ssh = ssh = pulumi.Output.from_input(args["ssh"])
        self.identity = self._identity()
        prepared = [
            self.run(f"{name}-{step}", program, parent=self).resource
            for step, program in (made["prepare"] if made else {}).items()
        ]
        self.owner = self._owner()
        check = self.run(
            f"{name}-ready",
            {
                "program": self.owner.apply(lambda owner: ready_program(args, owner, adopt=made is not None)),
                "triggers": made["triggers"] if made else [],
            },
            parent=self,
            depends_on=prepared,
        )
        self.ready = check.resource if made else self._cleared(f"{name}-cleared", check.resource)
        facts = check.last_line.apply(json.loads)
        self.device = facts.apply(lambda known: cast(Device, known["device"]))
        self._choose_gpus(args["gpus"])
        self.docker_provider = docker.Provider(
            f"{name}-docker",
            host=ssh.apply(lambda way: way.docker_host),
            ssh_opts=ssh.apply(lambda way: way.options()),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.ready]),
        )
        self.register_outputs({"identity": self.identity, "device": self.device})

    def _cleared(self, name: str, checked: pulumi.Resource) -> pulumi.Resource:
        """What clears a machine that stays when the stack ends."""
        return cleared(
            name,
            {
                "folder": self.owner.apply(lambda owner: folder_of(self.data_dir, self.stack, owner)),
                "interpreter": self._ssh.apply(lambda way: way.command(PYTHON)),
                "environment": None,
            },
            parent=self,
            depends_on=[checked],
        )

    def _identity(self) -> pulumi.Output[str]:
        """Which machine it is, asked anew by every run: resources would never notice that it is another one."""
        patience = 0 if pulumi.runtime.is_dry_run() else BOOT_SECONDS
        seen = command.local.run_output(
            command=BASH,
            stdin=self._ssh.apply(lambda way: reach_program(way, self.stack, patience)),
            logging=command.local.Logging.STDERR,  # what is waited for; the answer is of no interest to a reader
            opts=pulumi.InvokeOutputOptions(parent=self),
        )
        return seen.stdout.apply(identity_of)

    def run(
        self, name: str, args: RunArgs, *, parent: pulumi.Resource, depends_on: Sequence[pulumi.Resource] = ()
    ) -> Ran:
        interpreter = args.get("interpreter", BASH)
        program = pulumi.Output.from_input(args["program"])
        ran = command.local.Command(
            name,
            create=self._ssh.apply(lambda way: way.command(interpreter)),
            stdin=program.apply(whole) if interpreter == BASH else program,
            triggers=[self.identity, *args.get("triggers", [])],
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=parent, depends_on=list(depends_on)),
        )
        return Ran(ran, ran.stdout)

    def look(self, program: str, *, parent: pulumi.Resource) -> pulumi.Output[str]:
        if pulumi.runtime.is_dry_run():
            return self._glance(program, parent)
        seen = command.local.run_output(
            command=self._ssh.apply(lambda way: way.command(BASH)),
            # Only when the machine has said which one it is: before, it may not be up.
            stdin=self.identity.apply(lambda _: whole(program)),
            logging=command.local.Logging.STDERR,
            opts=pulumi.InvokeOutputOptions(parent=parent),
        )
        return seen.stdout.apply(last_line)

    def _glance(self, program: str, parent: pulumi.Resource) -> pulumi.Output[str]:
        """A look while the machine is asked which one it is: a connection takes a good part of a preview's time.

        A machine that does not answer is no error of a preview, and why it does not is told there.
        """
        seen = command.local.run_output(
            command=self._ssh.apply(glance_command),
            stdin=whole(program),
            logging=command.local.Logging.NONE,
            opts=pulumi.InvokeOutputOptions(parent=parent),
        )
        return pulumi.Output.all(self.identity, seen.stdout).apply(lambda known: _glanced(known[1]))

    def tunnel(self, port: int) -> pulumi.Output[str]:
        return self._ssh.apply(lambda way: way.tunnel(port))

    def _choose_gpus(self, choice: GpuChoice) -> None:
        self.proves_gpus = choice != "none"
        if not isinstance(choice, str | int):
            self.device_ids = list(choice)
        wanted = "all" if choice in ("auto", "all") else str(choice) if isinstance(choice, int) else None
        self.gpus = self.device.apply(lambda device: wanted if device == "gpu" else None)


def glance_command(way: Ssh) -> str:
    """A line for a local shell that runs the program on its standard input on the machine, if that answers soon.

    It prints nothing, with status 0, where the machine does not answer; other failures are the program's own.
    """
    return f"{way.command(BASH, once=GLANCE_SECONDS)} || [ $? = {SSH_FAILED} ]"


def _glanced(printed: str | None) -> str:
    """What a glance has seen; unknown where the machine did not answer."""
    return last_line(printed) or UNKNOWN  # type: ignore[return-value]


def whole(program: str) -> str:
    """The same bash program, which bash begins only when it has read all of it.

    A connection may break while the program is being sent, and a part of a program must not be run. Nor can a
    command in it then take the rest of the program for its own input.
    """
    return f"{{\n{program}\nexit\n}}\n"


def folder_of(data_dir: str, stack: str, owner: str | None) -> FolderOrder:
    """The data directory of a stack on a machine that may have others. owner: see Machine."""
    return {"data": data_dir, "stack": stack, "owner": owner, "ours": False}


def ready_program(args: SharedArgs, owner: str, *, adopt: bool) -> str:
    """A bash program that prepares and checks the machine and prints what it is, as JSON, in its last line.

    owner: see Machine. adopt: whether the program has made the machine, and its data directory is a disk of the
    stack.
    """
    folder = folder_of(args["data_dir"], args["stack"], owner)
    choice = args["gpus"] if isinstance(args["gpus"], str) else "some"
    return f"""\
set -euo pipefail
{FAIL}{PYTHON_CHECK}{whose(args["stack"], args["data_dir"])}
{_DOCKER}{_gpus(choice, _MADE if adopt else _GIVEN)}
image_mib={IMAGE_MIB["cpu"]}
[ $device = cpu ] || image_mib={IMAGE_MIB["gpu"]}
[ -z "$(docker ps -aq --filter "label={STACK_LABEL}=$stack")" ] || image_mib={MIN_FREE_MIB}
weights_mib={max(args["weights_mib"], MIN_FREE_MIB)}
[ ! -d "$data/models" ] || weights_mib={MIN_FREE_MIB}
{_ROOM}{free_ports(args["edge_port"], args["engine_port"], args["loopback_port"])}{taken(folder, adopt=adopt)}\
( timeout 5 bash -c '</dev/tcp/huggingface.co/443' ) 2>/dev/null ||
  echo "warning: huggingface.co is not reached from the machine; weights must be there, or come from a mirror"
printf '{{"device": "%s"}}\\n' "$device"
"""


_DOCKER = """\
command -v docker >/dev/null || fail "Docker is not on the machine" "install Docker Engine 20.10 or newer there"
form='{{json .Runtimes}} {{json .SecurityOptions}} {{.DockerRootDir}}'
if ! told=$(docker info --format "$form" 2>/dev/null); then
  why=$(docker info 2>&1 | grep -m 1 -E 'ERROR:|onnect|denied' || true)
  case $why in
    *denied*) fail "Docker does not answer: $why" "let the user use it there: sudo usermod -aG docker $(id -un)";;
    *) fail "Docker does not answer: ${why:-it gives no reason}" "start it there: sudo systemctl start docker";;
  esac
fi
root=${told##* }
[[ $told != *name=rootless* ]] ||
  fail "Docker runs rootless on the machine, where a container cannot have the machine's own network" \\
    "use the machine's system-wide Docker"
"""


class GpuRemedies(TypedDict):
    """What to change where a GPU cannot be used."""

    driver: str
    """The driver is missing, or does not work."""
    runtime: str
    """Docker has no runtime for it."""
    hardware: str
    """There is none."""


_TOOLKIT = "install the NVIDIA Container Toolkit there (nvidia-ctk runtime configure)"

_GIVEN = GpuRemedies(driver="install or repair the NVIDIA driver there", runtime=_TOOLKIT, hardware=_TOOLKIT)

_MADE = GpuRemedies(
    driver="remove seatable-vllm:machine.ami (the newest Deep Learning AMI has the driver), or name in it an "
    "image whose driver supports this instance type; after an update on the machine, a reboot may be enough",
    runtime="remove seatable-vllm:machine.ami (the newest Deep Learning AMI has the NVIDIA Container Toolkit), "
    "or install the toolkit on the machine",
    hardware="stop and start the machine in EC2, which gives it other hardware, or name a type with a GPU in "
    "seatable-vllm:machine.instance_types",
)


def _gpus(choice: str, remedies: GpuRemedies) -> str:
    """Lines of bash that set `device`. choice: auto, all, none, or some for a number or list.

    It is the CPU only with none, or with auto where nothing points to a GPU: on the CPU of a GPU machine an engine
    costs the same and is far slower.
    """
    driver, runtime, hardware = (shlex.quote(remedies[each]) for each in ("driver", "runtime", "hardware"))
    return f"""\
device=cpu
if [ {choice} != none ]; then
  or="or set seatable-vllm:machine.gpus to none"
  driver={driver}
  toolkit={runtime}
  hardware={hardware}
  runtime= card= onboard=
  [[ $told != *nvidia* ]] || runtime=yes
  for each in {PCI}/*; do
    [[ $(cat "$each/vendor" "$each/class" 2>/dev/null) != 0x10de$'\n'0x03* ]] || onboard=yes
  done
  if command -v nvidia-smi >/dev/null; then
    if said=$(nvidia-smi -L 2>&1) && [[ $said == *GPU* ]]; then card=yes; echo "$said"
    elif [ {choice} = all ] && [ -z "$onboard" ]; then
      fail "the machine shows no NVIDIA GPU, neither to its driver nor on its PCI bus" "$hardware, $or"
    elif [ {choice} != auto ] || [ -n "$runtime$onboard" ]; then
      said=${{said##*$'\n'}}
      fail "the NVIDIA driver does not work: ${{said:-nvidia-smi lists no GPU}}" "$driver, $or"
    fi
  elif [ -n "$onboard" ] && [ -z "$runtime" ] || [ {choice} = all ]; then
    fail "the machine has no NVIDIA driver (nvidia-smi is not there)" "$driver, $or"
  fi
  if [ -n "$runtime" ]; then device=gpu
  elif [ -n "$card" ]; then fail "Docker cannot use the machine's GPU: it has no runtime nvidia" "$toolkit, $or"
  elif [ {choice} = some ]; then fail "the machine has no NVIDIA GPU that Docker knows of" "$hardware, $or"
  fi
fi
"""


_ROOM = room("$root", "$image_mib") + room("$data", "$weights_mib")
