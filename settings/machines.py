"""Where an endpoint runs: the kinds of machines, and what a stack says of each."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Tag

from settings.aws import AwsMachine
from settings.words import DataDir, HostKey, KeyFile, SshAddress, SshTarget, Tree


def _gpus(value: object) -> object:
    """How many GPUs of a machine, or which ones."""
    ids = isinstance(value, list) and value and all(re.fullmatch(r"[A-Za-z0-9-]+", str(each)) for each in value)
    count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if value in ("auto", "none") or count:
        return value
    if isinstance(value, list) and ids:
        return [str(each) for each in value]
    raise ValueError(
        "is not a choice of GPUs; write auto, none, how many, or a list of device numbers or ids as "
        "nvidia-smi -L has"
    )


class LocalMachine(Tree):
    """This computer, through its own Docker."""

    kind: Literal["local"] = "local"
    gpus: Literal["auto", "none"] = "auto"
    """auto: all NVIDIA GPUs that Docker can hand to a container, else the CPU. none: the CPU."""
    data_dir: DataDir | None = None
    """Absolute folder for weights, caches and keys; None: `.state/<stack>/data` in the project."""


class HostMachine(Tree):
    """A Linux machine with Docker that SSH reaches."""

    kind: Literal["host"] = "host"
    ssh: SshAddress
    """USER@HOST or USER@HOST:PORT; the user may use Docker there."""
    ssh_key: KeyFile | None = None
    """Path of a private key on this computer; None: the agent and ssh's default keys."""
    jump: SshAddress | None = None
    """A host to go through, USER@HOST or USER@HOST:PORT; it gets the same key."""
    host_key: HostKey | None = None
    """The machine's public host key; no other is accepted. None: the one of the first contact is kept."""
    gpus: Annotated[Literal["auto", "none"] | int | list[str], BeforeValidator(_gpus)] = "auto"
    """auto: all NVIDIA GPUs, the CPU where there is no card. none: the CPU. A number: so many. A list: these."""
    data_dir: DataDir = "/srv/seatable-vllm"
    """Absolute folder on the machine for weights, caches and keys."""

    @property
    def target(self) -> SshTarget:
        """`ssh`, taken apart."""
        return SshTarget.parse(self.ssh)

    @property
    def jump_target(self) -> SshTarget | None:
        """`jump`, taken apart."""
        return SshTarget.parse(self.jump) if self.jump else None


KINDS = ("local", "host", "aws")


def _kind(value: object) -> str:
    """Which kind's rules to go by. An unknown kind is refused by the rules of `local`."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) and kind in KINDS else "local"


MachineSettings = Annotated[
    Annotated[LocalMachine, Tag("local")]
    | Annotated[HostMachine, Tag("host")]
    | Annotated[AwsMachine, Tag("aws")],
    Discriminator(_kind),
]
