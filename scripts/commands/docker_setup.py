"""Docker on this computer: found, or as root on Debian and Ubuntu installed and started."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from components.machine.local_docker import DEFAULT_SOCKET, local_docker_host
from scripts.commands.errors import failure
from scripts.commands.terminal import Step, Terminal

START_SECONDS = 60
DAEMON_LOG = Path("/var/log/seatable-vllm-dockerd.log")


def ensure_docker(terminal: Terminal) -> str:
    """The address of a Docker that answers. CommandError says what to do where there is none."""
    host = local_docker_host()
    os.environ["DOCKER_HOST"] = host
    os.environ.pop("DOCKER_CONTEXT", None)
    if _answers():
        return host
    if host != DEFAULT_SOCKET:
        raise failure(f"Docker does not answer at {host}: {_complaint()}", "start it, then run this again")
    if os.geteuid() != 0:
        raise failure(*_what_a_user_does())
    if shutil.which("dockerd") is None:
        if shutil.which("apt-get") is None:
            raise failure("Docker is not installed", "install Docker Engine 20.10 or newer, then run this again")
        with terminal.step("installing Docker (docker.io)") as step:
            _install(step)
    with terminal.step("starting Docker") as step:
        _start(step)
    return host


def _answers() -> bool:
    return shutil.which("docker") is not None and _docker_info("--format", "{{.ServerVersion}}").returncode == 0


def _docker_info(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "info", *arguments], capture_output=True, text=True, check=False)


def _complaint() -> str:
    """Why Docker does not answer, in its own words; older clients print them among the rest of `docker info`."""
    if shutil.which("docker") is None:
        return "the docker command is not installed"
    told = _docker_info()
    lines = (told.stderr + told.stdout).splitlines()
    words = ("ERROR:", "onnect", "denied")
    return next((line.strip() for line in lines if any(word in line for word in words)), "it gives no reason")


def _what_a_user_does() -> tuple[str, str]:
    """Cause and way out for somebody who is not root."""
    if shutil.which("docker") is None:
        return "Docker is not installed", "run this as root on Debian or Ubuntu, or install Docker Engine >= 20.10"
    told = _complaint()
    if "permission denied" in told:
        return told, "join the group docker (sudo usermod -aG docker $USER) and log in again, or run this as root"
    return told, "start Docker (sudo systemctl start docker), or run this as root"


def _install(step: Step) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "docker.io"]):
        step.say(" ".join(command))
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            told = (done.stdout + done.stderr)[-1500:]
            raise failure(
                f"{' '.join(command)} failed:\n{told}", "mend what apt complains of, then run this again"
            )


def _start(step: Step) -> None:
    """With systemd or the service script where there is one; else the daemon alone, in a session of its own."""
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], capture_output=True, check=False)
    elif not _answers():
        with DAEMON_LOG.open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    begin = time.monotonic()
    while not _answers():
        if time.monotonic() - begin > START_SECONDS:
            tail = DAEMON_LOG.read_text(errors="replace")[-1000:] if DAEMON_LOG.exists() else ""
            raise failure(
                f"Docker did not start within {START_SECONDS} s: {_complaint()}\n{tail}", "see its log above"
            )
        step.say("waiting for it to answer")
        time.sleep(0.5)
