"""Sockets and ports of a machine brought here over SSH, for as long as they are needed."""

import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rehearsal.errors import RehearsalError

OPEN_SECONDS = 60
DOCKER_SOCKET = "/var/run/docker.sock"

Command = Callable[[Sequence[str]], list[str]]
"""Makes the arguments of an `ssh` that only forwards from what -L takes."""


@contextlib.contextmanager
def forwarded(command: Command, port: int | None = None) -> Iterator[tuple[str, int | None]]:
    """The machine's Docker as a URL of this computer and, where `port` is given, a local port that leads to it.

    One connection carries both. RehearsalError with what ssh says where it cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="seatable-vllm-") as folder:
        docker = Path(folder) / "docker.sock"
        local = _free_port() if port else None
        # The socket comes last: when its file is there, the port is open too.
        forwards = [f"127.0.0.1:{local}:127.0.0.1:{port}"] if port else []
        forwards.append(f"{docker}:{DOCKER_SOCKET}")
        with _running(command(forwards), docker):
            yield f"unix://{docker}", local


@contextlib.contextmanager
def _running(command: Sequence[str], opened: Path) -> Iterator[None]:
    said = opened.with_name("said")
    with said.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:
        end = time.monotonic() + OPEN_SECONDS
        # ssh makes the socket's file when it has been let in.
        while not opened.exists():
            if process.poll() is not None or time.monotonic() > end:
                lines = said.read_text(errors="replace").strip().splitlines() or ["ssh gives no reason"]
                raise RehearsalError(
                    f"phase: machine ready\ncause: no tunnel to the machine's Docker: {lines[-1]}\n"
                    "change: check that ssh gets there, and that sshd there allows it (AllowTcpForwarding, "
                    "AllowStreamLocalForwarding)"
                )
            time.sleep(0.05)
        yield
    finally:
        # Not SIGTERM: where whoever started us ignores it (`nohup`, a CI runner), ssh does so too. Nor is closing
        # its input enough, as it waits for the connections that it forwards.
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def provider_command(provider: Mapping[str, Any]) -> Command:
    """What `forwarded` needs for the machine that a docker.Provider's inputs name by ssh:// and sshOpts."""
    url = urllib.parse.urlsplit(str(provider["host"]))
    # What is no text reaches a provider as JSON.
    given = provider.get("sshOpts") or []
    options = [str(option) for option in (json.loads(given) if isinstance(given, str) else given)]
    where = ["-l", str(url.username), "-p", str(url.port or 22), "--", str(url.hostname)]

    def command(forwards: Sequence[str]) -> list[str]:
        lines = [part for each in forwards for part in ("-L", each)]
        # What stands first counts, and the options of a docker.Provider forbid forwarding.
        first = ["-o", "ClearAllForwardings=no", "-o", "ExitOnForwardFailure=yes"]
        # `cat` ends with its input: when this process is killed, nothing is left behind, here or there.
        return ["ssh", *first, *options, *lines, *where, "cat"]

    return command
