"""What the rest of the program knows of a machine, whatever kind it is."""

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import pulumi
import pulumi_docker as docker
import pulumi_random as random

from catalog.vllm import Device

Interpreter = Literal["bash -s", "python3 -"]
BASH: Interpreter = "bash -s"
PYTHON: Interpreter = "python3 -"
"""Programs are read from standard input, so that neither they nor a secret in them is in an argument list."""

STACK_LABEL = "seatable-vllm.stack"
DATA_LABEL = "seatable-vllm.data-dir"
IDENTITY_LABEL = "seatable-vllm.machine"
OWNER_LABEL = "seatable-vllm.owner"

MACHINE_OWNER = "machine-owner"
"""The program's name for the resource that has the owner (see Machine)."""


class RunArgs(TypedDict):
    """One program that a machine is to run."""

    program: pulumi.Input[str]
    """The program's text; it may hold secrets and must bear being run again."""
    interpreter: NotRequired[Interpreter]
    """What reads it; bash unless told."""
    triggers: NotRequired[Sequence[pulumi.Input[str]]]
    """Values whose change makes it run again from the start."""


class FileArgs(TypedDict):
    """One file that a machine is to hold."""

    path: str
    """Path below the machine's data directory."""
    content: pulumi.Input[str]
    """The whole text; may be secret."""
    mode: str
    """Permissions in octal digits, such as 0600."""


@dataclass(frozen=True)
class PublicAddress:
    """Where the net finds a machine that the program has made, and the provider that can give it a name."""

    provider: pulumi.ProviderResource
    ipv4: pulumi.Output[str]
    ipv6: pulumi.Output[str] | None
    own_records: pulumi.Output[Sequence[str]]
    """Types of the name's records that lead here already, made by a run that was interrupted, say."""


class Machine(pulumi.ComponentResource):
    """A place with Docker. The kinds differ in how they are reached, not in what they offer."""

    stack: str
    """The stack's name; a label on everything that is made here."""
    kind: str
    """local, host or aws."""
    address: str
    """The host part of the endpoint's URL."""
    data_dir: str
    """Absolute folder on the machine that outlives containers: weights, caches, configuration."""
    owner: pulumi.Output[str]
    """A text that the stack's state alone has, so that two stacks of one name can be told apart; no secret."""
    identity: pulumi.Output[str]
    """Changes when the machine is replaced or set up anew, so that its containers are made again."""
    device: pulumi.Output[Device]
    """What the engine computes on."""
    gpus: pulumi.Output[str | None]
    """Docker's --gpus for the engine, or None where it gets none or `device_requests` names them."""
    device_ids: Sequence[str] = ()
    """The GPUs that were chosen by number or id."""
    proves_gpus: bool = False
    """Whether the engine's image is to show its GPUs before the engine is touched."""
    images_are_made: bool = False
    """Whether `scripts/up` makes images on this machine where none can be pulled."""
    ready: pulumi.Resource
    """Done when the machine can take containers."""
    ends_with: pulumi.Resource | None = None
    """What takes everything on the machine with it when it is removed; None for a machine that stays."""
    public: PublicAddress | None = None
    """Its own public addresses, where the program has given it some."""
    facts: Mapping[str, pulumi.Input[str | float | None]] = {}
    """What only a machine of this kind has to say for the stack's outputs."""
    docker_provider: docker.Provider
    """The way to its Docker."""

    def run(
        self, name: str, args: RunArgs, *, parent: pulumi.Resource, depends_on: Sequence[pulumi.Resource] = ()
    ) -> "Ran":
        """Runs a program on the machine, as one resource called `name`."""
        raise NotImplementedError

    def look(self, program: str, *, parent: pulumi.Resource) -> pulumi.Output[str]:
        """The last line that a bash program prints on the machine, asked anew by every run and every preview.

        For what no resource would notice by itself; it should be quick. Unknown where a preview cannot ask.
        """
        raise NotImplementedError

    def docker_options(
        self, *, parent: pulumi.Resource, depends_on: Sequence[pulumi.Resource] = ()
    ) -> pulumi.ResourceOptions:
        """Options for a Docker resource on this machine: its provider, and replacement in the safe order.

        `replace_on_changes` covers what the provider would otherwise change in its state alone: health checks,
        and a container that could be created but not started.
        """
        return pulumi.ResourceOptions(
            parent=parent,
            provider=self.docker_provider,
            depends_on=[self.ready, *depends_on],
            delete_before_replace=True,
            replace_on_changes=["*"],
            deleted_with=self.ends_with,
        )

    @property
    def device_requests(self) -> pulumi.Output[list[docker.ContainerDeviceRequestArgs] | None] | None:
        """The chosen GPUs as Docker is asked for them; --gpus device=0,1 does not survive the provider."""
        if not self.device_ids:
            return None
        request = docker.ContainerDeviceRequestArgs(
            driver="nvidia", device_ids=list(self.device_ids), capabilities=["gpu"]
        )
        return self.device.apply(lambda device: [request] if device == "gpu" else None)

    def tunnel(self, port: int) -> pulumi.Input[str] | None:  # noqa: ARG002 - for kinds that need one
        """The line that brings a port of the machine's loopback address to a client, where one is needed."""
        return None

    def write_file(
        self,
        name: str,
        args: FileArgs,
        *,
        parent: pulumi.Resource,
        depends_on: Sequence[pulumi.Resource] = (),
    ) -> "Ran":
        """Writes one file below the data directory, by rename, so that no reader sees half of it."""
        path = f"{self.data_dir}/{args['path']}"
        program = pulumi.Output.from_input(args["content"]).apply(
            lambda content: write_file_program(path, content, args["mode"])
        )
        return self.run(name, {"program": program}, parent=parent, depends_on=depends_on)

    def _owner(self) -> pulumi.Output[str]:
        made = random.RandomUuid(MACHINE_OWNER, opts=pulumi.ResourceOptions(parent=self))
        return made.result

    def container_name(self, role: str) -> str:
        """The name of the stack's container for this role on the machine."""
        return f"seatable-vllm-{self.stack}-{role}"

    def labels(self, **more: pulumi.Input[str]) -> list[docker.ContainerLabelArgs]:
        """The labels of every container: whose it is, and which machine it was made for.

        Two checkouts on one machine may both have a stack of this name; the data directory tells them apart, and
        where that is the same, the owner.
        """
        values: dict[str, pulumi.Input[str]] = {
            STACK_LABEL: self.stack,
            DATA_LABEL: self.data_dir,
            OWNER_LABEL: self.owner,
            IDENTITY_LABEL: self.identity,
        }
        values |= {f"seatable-vllm.{key}": value for key, value in more.items()}
        return [docker.ContainerLabelArgs(label=key, value=value) for key, value in values.items()]


class Ran:
    """A program that ran on a machine: the resource to depend on, and what it printed."""

    def __init__(self, resource: pulumi.Resource, stdout: pulumi.Output[str]) -> None:
        self.resource = resource
        self.stdout = stdout

    @property
    def last_line(self) -> pulumi.Output[str]:
        """The last line it printed; programs put their answer there."""
        return self.stdout.apply(last_line)


def last_line(text: str | None) -> str:
    """The last line of what a program printed."""
    return (text or "").rstrip().rpartition("\n")[2]


def heartbeat(text: str) -> str:
    """Lines of bash that print `text` (bash expands it) every ten seconds until the program ends.

    The sleep holds none of the program's files, nor its lock (9): whoever reads the program's output, or waits
    for the lock, would else wait for the sleep's end.
    It is killed, as a caller that ignores SIGTERM hands that down.
    """
    return f"""\
( while sleep 10 </dev/null >/dev/null 2>&1; do echo "{text}"; done ) 9>&- & heartbeat=$!
trap 'kill -KILL $heartbeat 2>/dev/null || true' EXIT
"""


def write_file_program(path: str, content: str, mode: str) -> str:
    """A bash program that puts `content` at `path` with `mode`, all or nothing."""
    encoded = base64.b64encode(content.encode()).decode()
    return f"""\
set -euo pipefail
umask 077
path={shlex.quote(path)}
mkdir -p "$(dirname "$path")"
part=$(mktemp "$path.XXXXXX")
trap 'rm -f "$part"' EXIT
base64 -d > "$part" <<'CONTENT'
{encoded}
CONTENT
chmod {mode} "$part"
mv -f "$part" "$path"
"""
