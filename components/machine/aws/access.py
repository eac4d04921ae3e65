"""How the machine on AWS is reached from this computer: SSH to its address, or through Session Manager."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import TypedDict

import pulumi

from components.machine.ssh import Ssh, require_ssh
from settings import AwsMachine, SettingsError, SshTarget
from settings.aws import refused_region

GPU_VM = "seatable-vllm:index:GpuVm"
"""Type of the component whose output `place` is the place of the stack's instance."""

PUBLIC_KEY = re.compile(r"(?P<type>ssh-ed25519|ssh-rsa) (?P<key>[A-Za-z0-9+/]+=*)( .*)?")
"""The types of keys that EC2 takes."""


class Place(TypedDict):
    """What is known of an instance only when it is there."""

    instance: str
    """Its id."""
    address: str
    """Its public address."""
    login: str
    """The user that its image lets in."""
    region: str
    """AWS region."""


def ssh_of_instance(machine: AwsMachine, stack: str, place: Place) -> Ssh:
    """The way to an instance."""
    session = machine.access == "ssm"
    return Ssh(
        target=SshTarget(place["login"], place["instance"] if session else place["address"]),
        known_hosts=f".state/{stack}/known_hosts",
        key=machine.ssh_key,
        instance=place["instance"],
        session=(
            *("aws", "ssm", "start-session", "--region", place["region"], "--target", "%h"),
            *("--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=%p"),
        )
        if session
        else (),
    )


SESSION_PROGRAMS = {"aws": "the AWS CLI", "session-manager-plugin": "AWS's Session Manager plugin"}
"""What a way through Session Manager needs on this computer."""


def require_session_programs(machine: AwsMachine) -> None:
    """SettingsError where the machine could be made and not be reached from this computer."""
    if machine.access != "ssm":
        return
    for program, name in SESSION_PROGRAMS.items():
        if shutil.which(program) is None:
            raise SettingsError(
                f"seatable-vllm:machine.access: ssm goes through {program}, which is not on this computer's PATH; "
                f"install {name}, or set it to ssh"
            )


def region_of(machine: AwsMachine) -> str:
    """The region that the stack is in. SettingsError where it names none, or another than its zones are in."""
    region = pulumi.Config("aws").get("region")
    if refused := refused_region(region) or machine.zone_elsewhere(str(region)):
        raise SettingsError("; ".join(refused))
    return str(region)


def require_key(machine: AwsMachine) -> None:
    """SettingsError where this computer has no `ssh`, or the private key cannot be used."""
    require_ssh(machine.ssh_key, "make one: ssh-keygen -t ed25519")


def public_key(machine: AwsMachine) -> str:
    """What the machine is to let in: type and key, without the comment, which says who and where somebody is.

    Raises SettingsError where this computer has no such key, or EC2 would not take it.
    """
    require_key(machine)
    path = Path(f"{machine.ssh_key}.pub").expanduser()
    setting = "seatable-vllm:machine.ssh_key"
    try:
        found = PUBLIC_KEY.fullmatch(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise SettingsError(
            f"{setting}: its public half {path} cannot be read ({reason}); make it: "
            f"ssh-keygen -y -f {machine.ssh_key} > {path}"
        ) from None
    if found is None:
        raise SettingsError(
            f"{setting}: {path} is not of a type that EC2 takes (ed25519, RSA); make one: ssh-keygen -t ed25519"
        )
    _require_its_private_half(machine.ssh_key, found["key"])
    return f"{found['type']} {found['key']}"


def _require_its_private_half(key: str, public: str) -> None:
    """SettingsError where the machine would let in a key that this computer cannot use without asking somebody."""
    path, setting = Path(key).expanduser(), "seatable-vllm:machine.ssh_key"
    programs = shutil.which("ssh-keygen") and shutil.which("ssh-add")
    if not programs or "-----END " not in path.read_text(errors="replace"):
        return  # of a key that is not whole, ssh itself says so
    # An empty passphrase is given, so that nobody is asked for one.
    made = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(path)], capture_output=True, text=True, check=False
    )
    if made.returncode == 0 and public not in made.stdout.split():
        raise SettingsError(
            f"{setting}: {path}.pub does not belong to {path}; make it anew: ssh-keygen -y -f {key} > {path}.pub"
        )
    if made.returncode == 0 or "passphrase" not in made.stderr:
        return  # ssh itself says what else there may be
    agent = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=False)
    if public not in agent.stdout.split():
        raise SettingsError(
            f"{setting}: {path} has a passphrase, and nobody is asked for one here; hand it to the agent: "
            f"ssh-add {key}, or name a key without one"
        )
