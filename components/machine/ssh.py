"""How a machine is reached over SSH: one set of options for commands, for Docker and for tunnels.

Everything goes through the user's own `ssh`: agent, hardware keys, jump hosts and ~/.ssh/config work as they do by
hand, and no private key enters Pulumi's state. Nothing here connects anywhere.
"""

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.machine.local_docker import TLS_VARIABLES
from settings import HostMachine, SettingsError, SshTarget

CONNECT_SECONDS = 15
ALIVE_SECONDS = 15
ALIVE_MISSES = 8
"""A connection that has been silent for the product of the two is given up: ssh itself has no deadline."""

KEY_MODE_MASK = 0o077
"""Permissions of a key file that ssh refuses."""

DOCKER_VARIABLES = ("DOCKER_CONTEXT", "DOCKER_SSH_OPTS", *TLS_VARIABLES)
"""The Docker provider would obey them in place of the stack. Not so DOCKER_HOST: the stack's host wins."""


@dataclass(frozen=True)
class Ssh:
    """One machine as `ssh` reaches it from the project's folder.

    target, jump: where to, and over which host. key: path of a private key, as written in the settings, or None
    for the agent and ssh's default keys. known_hosts: file with the host keys of this stack, relative to the
    project, so that the state does not depend on where the project lies. pinned: whether that file says all the
    keys there are, so that no other is accepted. instance: id of the machine where the program made it; its host
    key is kept under that, so that a new machine at the old address is a new one, and an old one with a new key
    is refused. session: the words of a command that carries the connection in place of TCP, %h and %p in it.
    """

    target: SshTarget
    known_hosts: str
    key: str | None = None
    jump: SshTarget | None = None
    pinned: bool = False
    instance: str | None = None
    session: tuple[str, ...] = ()

    @property
    def alias(self) -> str:
        """The name that the machine's host key is kept under."""
        return self.instance or alias(self.target)

    def options(self) -> list[str]:
        """Options for `ssh`, as arguments. They hold no secret: error texts show them."""
        values = [*self._common(self.alias, self.pinned), "ClearAllForwardings=yes"]
        if self.jump:
            # A proxy command and not -J, which would check the jump host by the user's own known_hosts. The key of
            # the jump host is always learned at the first contact: `pinned` is about the machine alone.
            common = self._common(alias(self.jump), pinned=False)
            options = shlex.join(_dashed(common)).replace("%", "%%")
            values.append(f"ProxyCommand=ssh -a -x {options} -W [%h]:%p {shlex.join(self._where(self.jump))}")
        if self.session:
            values.append(f"ProxyCommand={shlex.join(self.session)}")
        return ["-T", "-a", "-x", *_dashed(values)]

    def command(self, remote: str, *, once: int | None = None) -> str:
        """A line for a local shell that runs `remote` on the machine, its input and output passed through.

        once: seconds for a single attempt to connect, in place of some.
        """
        first = ["-o", "ConnectionAttempts=1", "-o", f"ConnectTimeout={once}"] if once else []
        return shlex.join(["ssh", *first, *self.options(), *self._where(self.target), remote])

    def tunnel(self, port: int) -> str:
        """The line a person pastes to reach this port of the machine's loopback address from their own."""
        words = ["ssh", "-N", "-L", f"{port}:127.0.0.1:{port}"]
        if self.target.port != 22:
            words += ["-p", str(self.target.port)]
        if self.jump:
            words += ["-J", str(self.jump)]
        if self.session:
            words += ["-o", f"ProxyCommand={shlex.join(self.session)}"]
        words = [shlex.quote(word) for word in [*words, f"{self.target.user}@{self.target.host}"]]
        # The shell of whoever pastes it is to expand the ~, so it stays outside of quotes.
        key = ["-i", _home_unquoted(self.key)] if self.key else []
        return " ".join([*words[:1], *key, *words[1:]])

    @property
    def docker_host(self) -> str:
        """The address for docker.Provider."""
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        return f"ssh://{self.target.user}@{host}:{self.target.port}"

    def _common(self, key_alias: str, pinned: bool) -> list[str]:
        key = [f"IdentityFile={_path(self.key)}", "IdentitiesOnly=yes"] if self.key else []
        return [
            "BatchMode=yes",
            "LogLevel=ERROR",
            *key,
            f"StrictHostKeyChecking={'yes' if pinned else 'accept-new'}",
            f"UserKnownHostsFile={_path(self.known_hosts)}",
            "GlobalKnownHostsFile=/dev/null",
            f"HostKeyAlias={key_alias}",
            "HashKnownHosts=no",
            # Updated keys would be written where pinned ones are to be the only ones.
            "UpdateHostKeys=no",
            "ControlPath=none",
            "ConnectionAttempts=3",
            f"ConnectTimeout={CONNECT_SECONDS}",
            f"ServerAliveInterval={ALIVE_SECONDS}",
            f"ServerAliveCountMax={ALIVE_MISSES}",
        ]

    @staticmethod
    def _where(target: SshTarget) -> list[str]:
        return ["-l", target.user, "-p", str(target.port), "--", target.host]


def alias(target: SshTarget) -> str:
    """The name that a host's key is kept under: what the settings call it, whatever address that leads to."""
    return target.host if target.port == 22 else f"{target.host}-{target.port}"


def ssh_of(machine: HostMachine, stack: str) -> Ssh:
    """The way to the machine that a stack's settings name."""
    name = "known_hosts.pinned" if machine.host_key else "known_hosts"
    return Ssh(
        target=machine.target,
        known_hosts=f".state/{stack}/{name}",
        key=machine.ssh_key,
        jump=machine.jump_target,
        pinned=machine.host_key is not None,
    )


def refuse_docker_variables(environment: Mapping[str, str] = os.environ, kind: str = "host") -> None:
    """SettingsError where a variable would lead the Docker provider away from the machine. kind: the machine's."""
    foreign = [name for name in DOCKER_VARIABLES if environment.get(name)]
    if foreign:
        whose = "seatable-vllm:machine.ssh" if kind == "host" else "the machine on AWS"
        raise SettingsError(
            f"{foreign[0]} is set, and Docker's provider would obey it in place of {whose}; "
            f"unset it to deploy a stack of kind {kind}"
        )


def require_ssh(key: str | None, otherwise: str = "leave the setting out to use the agent") -> None:
    """SettingsError where this computer has no `ssh`, or the key file (as the settings have it) cannot be used.

    otherwise: what else can be done about a key file that is not there.
    """
    if shutil.which("ssh") is None:
        raise SettingsError("ssh is not on this computer's PATH; install OpenSSH's client (openssh-client)")
    if key:
        _require_usable(Path(key).expanduser(), otherwise)


def prepare(machine: HostMachine, ssh: Ssh, project: Path) -> None:
    """Puts the pinned host key where `ssh` looks for it. SettingsError where the key file cannot be used."""
    require_ssh(machine.ssh_key)
    if machine.host_key:
        known_hosts = project / ssh.known_hosts
        known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = f"{alias(ssh.target)} {machine.host_key}\n"
        kept = known_hosts.read_text() if known_hosts.exists() else ""
        of_the_jump_host = [each for each in kept.splitlines(True) if each.split()[0] != alias(ssh.target)]
        if kept != "".join([line, *of_the_jump_host]):
            known_hosts.write_text("".join([line, *of_the_jump_host]))


def _require_usable(key: Path, otherwise: str) -> None:
    setting = "seatable-vllm:machine.ssh_key"
    try:
        mode = key.stat().st_mode
        text = key.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{setting}: {key} cannot be read ({error.strerror}); give the path of a private key, or {otherwise}"
        ) from None
    if b"PRIVATE KEY-----" not in text:
        if key.suffix == ".pub":
            raise SettingsError(f"{setting}: {key} is a public key; give the private one, {key.with_suffix('')}")
        raise SettingsError(f"{setting}: {key} is not a private key of OpenSSH; {otherwise}")
    if mode & KEY_MODE_MASK:
        raise SettingsError(f"{setting}: {key} can be read by others, and ssh refuses that; chmod 600 {key}")


def _dashed(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in ("-o", value)]


def _path(path: str) -> str:
    """A path as an option's value: ssh splits it at spaces and expands percent signs."""
    return '"' + path.replace("%", "%%") + '"'


def _home_unquoted(path: str) -> str:
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)
